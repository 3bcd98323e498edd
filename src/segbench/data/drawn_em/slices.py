"""Drawn serial-section electron microscopy of neural tissue: a slice and its cells, from a seed.

The model is the ISBI 2012 stack (first-instar larva of Drosophila, ventral nerve cord, 4 x 4 nm pixels of a 50 nm
section, at the same scale); none of its pixels are used. The tissue is drawn first, then the microscope:

1. *Cells* of very different sizes, each with its own grey level and granules.
2. *Membranes* follow their borders. The image is the mean over the section's depth: where a membrane slants, the mean
   smears it into a grey band, while the label stays the line in the middle of the section.
3. *Organelles* lie in the cells and are as dark as membranes.
4. *The microscope* adds uneven illumination, debris, shot noise and its point spread.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.drawn_em.cells import Cells, draw_cells
from segbench.data.drawn_em.noise import FloatImage, blurred_noise, smooth_noise
from segbench.data.drawn_em.organelles import inner_membranes, mitochondria, smears
from segbench.data.drawn_em.parameters import DEFAULT_PARAMETERS, SMALLEST_SIDE, EMParameters
from segbench.errors import SegbenchError


def _cytoplasm(rng: np.random.Generator, cells: Cells, parameters: EMParameters) -> FloatImage:
    """HW float32 grey levels of empty cells: each its own tone, with dark granules."""
    height, width = cells.depth.shape
    tones = rng.standard_normal(int(cells.profile.max()) + 1, dtype=np.float32)
    # A few cells are much darker than the rest, like glia; none is much lighter.
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
    """HW float32 darkness of the membranes, averaged over the depth of the section."""
    height, width = cells.depth.shape
    across = (cells.depth / cells.half_width) ** 2
    # The dark line of the two membranes, and the paler fringe of what is bound to them.
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
    """Draw one slice; the same arguments give the same slice, in any order and process.

    Args:
        seed: of the data set, at least 0.
        index: of the slice, at least 0.
        height: H in pixels, at least 16.
        width: W in pixels, at least 16.
        parameters: the slice's appearance.

    Returns:
        The image, HW uint8 grey levels 0 to 255 (membranes dark), and the cells, HW int32: each id from 1 is one
        4-connected component, no two touch, 0 = membrane.

    Raises:
        SegbenchError: a side below 16, a negative seed or index.
    """
    if min(height, width) < SMALLEST_SIDE:
        raise SegbenchError(
            f"a slice of {height} x {width} pixels",
            f"at least {SMALLEST_SIDE} pixels per side, enough for a cell",
            "raise data.height and data.width",
        )
    if seed < 0 or index < 0:
        raise SegbenchError(f"seed {seed}, slice {index}", "both 0 or more", "choose a data.seed of 0 or more")
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
    cells = draw_cells(rng, height, width, parameters)
    grey = _cytoplasm(rng, cells, parameters)
    organelles = np.maximum(
        mitochondria(rng, cells, parameters.mitochondria),
        inner_membranes(rng, cells, parameters.vesicles, parameters.microtubules, parameters.reticulum),
    )
    membranes = _membranes(rng, cells, parameters)
    # Stain saturates: a vesicle on a membrane is barely darker than the membrane.
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
