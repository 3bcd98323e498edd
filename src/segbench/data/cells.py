"""Single cells out of labels: the instances that the weight map measures distances to."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.spec import VOID


def connected_cells(label_HW: NDArray[np.integer], background: int = 0, ignore_index: int = VOID) -> NDArray[np.int32]:
    """The 4-connected components of the cells of a label, numbered from 1; background and void are 0.

    Two cells that share only a corner are two cells. Pixels of different classes are never one cell.

    Args:
        label_HW: integers.
        background: the label between cells (0: the membrane of `isbi_em`).
        ignore_index: the void label.

    Returns:
        HW int32 instance ids.
    """
    instances_HW = np.zeros(label_HW.shape, np.int32)
    count = 0
    for value in np.flatnonzero(np.bincount(label_HW.ravel())):
        if value in (background, ignore_index):
            continue
        found, components_HW = cv2.connectedComponents((label_HW == value).view(np.uint8), connectivity=4)
        instances_HW += np.where(components_HW > 0, components_HW + count, 0).astype(np.int32)
        count += found - 1
    return instances_HW


def carve_borders(instances_HW: NDArray[np.int32]) -> NDArray[np.int32]:
    """Touching cells with one pixel of each turned to background along their common border.

    The paper's separation border "computed using morphological operations" (section 3): where an annotation leaves no
    background between two cells, there is nothing for the border term to lie on. A pixel is carved where its 3x3
    neighbourhood holds another cell.

    Args:
        instances_HW: int32 ids in [0, 2^24), 0 = background.
    """
    # Morphology knows no int32; float32 holds these ids exactly.
    ids_HW = instances_HW.astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    highest_HW = cv2.dilate(ids_HW, kernel)
    lowest_HW = cv2.erode(np.where(ids_HW > 0, ids_HW, np.float32(np.inf)), kernel)
    touching_HW = (ids_HW > 0) & ((highest_HW != ids_HW) | (lowest_HW != ids_HW))
    return np.where(touching_HW, 0, instances_HW).astype(np.int32)
