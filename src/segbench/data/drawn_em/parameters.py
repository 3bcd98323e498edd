"""The parameters of drawn electron microscopy."""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_SIDE = 16
"""Pixels per side; a smaller slice has no room for a cell."""


@dataclass(frozen=True)
class EMParameters:
    """The appearance of a drawn slice; lengths in pixels, contrasts in grey levels of 255.

    The defaults were fitted to the histogram, power spectrum and membrane share of the ISBI 2012 training stack and to
    the score of a global threshold, before any network was trained on the drawings.

    Attributes:
        cell_radius: median radius of the discs and rods that large cells grow from.
        cell_spread: standard deviation of the logarithm of that radius.
        cell_gap: free space around them.
        border_warp: amplitude of the bends of cell borders.
        membrane_share: target share of membrane pixels in the label; a slice draws its own within 12 % of it.
        membrane_width: smallest and largest mean width of the membrane label in a slice; overrides the share.
        membrane_contrast: darkness of a membrane cut at a right angle.
        slant: shift of the most oblique membranes between the middle and the surface of the section.
        cytoplasm: mean grey level of cytoplasm.
        cell_contrast: standard deviation of that level between cells.
        texture: standard deviation of the granules of cytoplasm.
        mitochondria: number tried per 10,000 pixels, as the next four; those without room are left out.
        vesicles: rings, some with a dense core.
        microtubules: small rings and dots.
        reticulum: tubules cut lengthwise.
        synapses: densities beside membranes.
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
