"""Drawn serial-section electron microscopy of neural tissue: a slice and its cells, from a seed.

The manner is that of the ISBI 2012 stack (first-instar larva of Drosophila, ventral nerve cord, 4 x 4 nm pixels of a
50 nm section, one pixel here as there); no pixel of it is used. The tissue is drawn first, the microscope afterwards:

1. *Cells* (`em_cells`) of very different sizes, each with its own grey and granules.
2. *Membranes* follow their borders. The section is thick: what is seen is the mean over its depth, and where a membrane
   slants the mean smears it into a grey band, while the label stays the line in the middle of the section.
3. *Organelles* (`em_organelles`) lie in the cells and are as dark as membranes.
4. *The microscope* adds uneven illumination, debris, shot noise and its point spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.drawn_em.cells import Cells, draw_cells
from segbench.data.drawn_em.noise import FloatImage, blurred_noise, smooth_noise
from segbench.data.drawn_em.organelles import inner_membranes, mitochondria, smears
from segbench.errors import SegbenchError

SMALLEST_SIDE = 16
"""Pixels a side; less holds no cell."""


@dataclass(frozen=True)
class EMParameters:
    """What a drawn slice looks like; lengths in pixels, contrasts in grey levels of 255.

    The defaults were fixed on the histogram, the power spectrum and the membrane share of the ISBI 2012 training stack
    and on the score of a global threshold, before any network was trained on the drawings.

    Attributes:
        cell_radius: median radius of the discs and rods that large cells grow from.
        cell_spread: standard deviation of the logarithm of that radius.
        cell_gap: free space kept around them.
        border_warp: amplitude of the bends of cell borders.
        membrane_share: aimed-at share of membrane pixels in the label.
        membrane_width: smallest and largest mean width of the membrane label in a slice; goes before the share.
        membrane_contrast: darkness of a membrane cut at a right angle.
        slant: shift of a membrane between the middle and the surface of the section, where it is most oblique.
        cytoplasm: mean grey level of cytoplasm.
        cell_contrast: standard deviation of that level between cells.
        texture: standard deviation of the granules of cytoplasm.
        mitochondria: count tried in 10,000 pixels; those that find no room are left out.
        vesicles: count tried in 10,000 pixels.
        microtubules: count tried in 10,000 pixels.
        reticulum: count tried in 10,000 pixels of tubules cut lengthwise.
        synapses: count tried in 10,000 pixels.
        illumination: standard deviation of the slow change of brightness.
        exposure: largest relative difference between slices in contrast and in brightness; twice that in noise.
        noise: standard deviation of the shot noise in cytoplasm, before the point spread.
    """

    cell_radius: float = 10.0
    cell_spread: float = 0.75
    cell_gap: float = 8.5
    border_warp: float = 5.0
    membrane_share: float = 0.205
    membrane_width: tuple[float, float] = (3.5, 6.0)
    membrane_contrast: float = 130.0
    slant: float = 9.0
    cytoplasm: float = 155.0
    cell_contrast: float = 12.0
    texture: float = 22.0
    mitochondria: float = 1.5
    vesicles: float = 22.0
    microtubules: float = 16.0
    reticulum: float = 6.0
    synapses: float = 1.0
    illumination: float = 7.0
    exposure: float = 0.1
    noise: float = 30.0


DEFAULT_PARAMETERS = EMParameters()


def _cytoplasm(rng: np.random.Generator, cells: Cells, parameters: EMParameters) -> FloatImage:
    """HW float32 grey levels of the cells without anything in them: each its own tone, with dark granules."""
    height, width = cells.depth.shape
    tones = rng.standard_normal(int(cells.profile.max()) + 1, dtype=np.float32)
    # A few cells are much darker than the rest, as glia are; none is much lighter.
    tones = 1.0 - np.exp(-0.6 * tones)
    granules = 1.0 - np.exp(0.55 * blurred_noise(rng, height, width, 1.1))
    clouds = smooth_noise(rng, height, width, 7)
    result: FloatImage = (
        parameters.cytoplasm
        + parameters.cell_contrast * np.maximum(tones, -4.0)[cells.profile]
        + parameters.texture * (granules + 0.5 * clouds)
    )
    return result


def _membranes(rng: np.random.Generator, cells: Cells, parameters: EMParameters) -> FloatImage:
    """HW float32 darkness of the membranes, seen through the depth of the section."""
    height, width = cells.depth.shape
    across = (cells.depth / cells.half_width) ** 2
    # The dark line of the two membranes and the paler fringe of what is bound to them.
    sharp = 0.8 * np.exp(-across / 0.62**2) + 0.2 * np.exp(-across / 1.5**2)
    oblique = np.clip(0.8 * smooth_noise(rng, height, width, 36) - 0.5, 0.0, 1.0)
    shift = parameters.slant * oblique
    angle = 3.0 * smooth_noise(rng, height, width, 64)
    shift_x, shift_y = shift * np.cos(angle), shift * np.sin(angle)
    columns = np.arange(width, dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    seen = sharp.copy()
    for z in (-1.0, -0.66, -0.33, 0.33, 0.66, 1.0):
        seen += cv2.remap(
            sharp, columns + z * shift_x, rows + z * shift_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
    strength = np.clip(1.0 + 0.22 * smooth_noise(rng, height, width, 20), 0.35, 1.6) * (1.0 + 0.8 * oblique)
    result: FloatImage = (parameters.membrane_contrast / 7.0) * strength * seen
    return result


def draw_slice(
    seed: int, index: int, height: int, width: int, parameters: EMParameters = DEFAULT_PARAMETERS
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Draw one slice; the same arguments give the same slice, in any order and in any process.

    Args:
        seed: of the data set, at least 0.
        index: of the slice, at least 0.
        height: H in pixels, at least 16.
        width: W in pixels, at least 16.
        parameters: what the slice looks like.

    Returns:
        The image, HW uint8 grey levels 0 to 255 (membranes dark), and the cells, HW int32: each id from 1 is one
        4-connected component, no two of them touch, 0 = membrane.

    Raises:
        SegbenchError: a side below 16, a negative seed or index.
    """
    if min(height, width) < SMALLEST_SIDE:
        raise SegbenchError(
            f"a slice of {height} x {width} pixels",
            f"at least {SMALLEST_SIDE} pixels a side, enough for a cell",
            "raise data.height and data.width",
        )
    if seed < 0 or index < 0:
        raise SegbenchError(f"seed {seed}, slice {index}", "both 0 or more", "choose a data.seed of 0 or more")
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
    cells = draw_cells(
        rng,
        height,
        width,
        parameters.cell_radius,
        parameters.cell_spread,
        parameters.cell_gap,
        parameters.border_warp,
        parameters.membrane_share,
        parameters.membrane_width,
    )
    grey = _cytoplasm(rng, cells, parameters)
    organelles = np.maximum(
        mitochondria(rng, cells, parameters.mitochondria),
        inner_membranes(rng, cells, parameters.vesicles, parameters.microtubules, parameters.reticulum),
    )
    membranes = _membranes(rng, cells, parameters)
    # Stain saturates: a vesicle on a membrane is hardly darker than the membrane.
    dark = np.hypot(membranes, organelles) + smears(rng, cells, parameters.synapses)
    grey = grey - 150.0 * np.tanh(dark / 150.0)
    grey = grey + parameters.illumination * smooth_noise(rng, height, width, 128)
    # No two sections are stained and exposed alike.
    contrast, brightness, exposure = 1.0 + parameters.exposure * rng.uniform((-1.0, -1.0, -2.0), (1.0, 1.0, 2.0))
    shot = rng.standard_normal((height, width), dtype=np.float32)
    # Shot noise grows with the square root of the electrons counted.
    noise = parameters.noise * exposure * np.sqrt(np.clip(grey, 10.0, None) / parameters.cytoplasm)
    seen = cv2.GaussianBlur(grey + noise * shot, (0, 0), 0.7)
    seen = parameters.cytoplasm * (brightness - contrast) + contrast * seen
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8), cells.instances
