"""Pictures of predictions: image, label, prediction, error map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.measure import ImageResult
from segbench.runtime.files import write_whole
from segbench.spec import HeadSpec

RIGHT, WRONG_FALSE, WRONG_MISSED, VOID_GREY = (255, 255, 255), (215, 48, 39), (69, 117, 180), (200, 200, 200)
"""Colours of the error map: right, false (any error with more than two classes), missed, void."""


def grey_to_rgb(raw_CHW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A raw image as RGB, its 1st and 99th percentiles stretched to 0 and 255."""
    channels = raw_CHW[:3] if raw_CHW.shape[0] >= 3 else np.repeat(raw_CHW[:1], 3, axis=0)
    low, high = np.percentile(channels, (1, 99))
    scaled = (channels - low) / max(high - low, 1e-6) * 255
    return np.ascontiguousarray(scaled.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def colour_labels(label_HW: NDArray[np.integer], head: HeadSpec) -> NDArray[np.uint8]:
    """Labels in the head's palette, void in grey."""
    table = np.full((256, 3), VOID_GREY, np.uint8)
    table[: head.num_classes] = head.palette
    coloured: NDArray[np.uint8] = table[np.clip(label_HW, 0, 255).astype(np.uint8)]
    return coloured


def error_map(label_HW: NDArray[np.integer], pred_HW: NDArray[np.integer], head: HeadSpec) -> NDArray[np.uint8]:
    """Where the prediction is wrong.

    With two classes: red where the second one is false, blue where it is missed. With more: red where the classes
    differ. Void is grey.
    """
    errors = np.full((*label_HW.shape, 3), RIGHT, np.uint8)
    wrong = label_HW != pred_HW
    errors[wrong] = WRONG_FALSE
    if head.num_classes == 2:
        errors[wrong & (label_HW == 1)] = WRONG_MISSED
    errors[label_HW == head.ignore_index] = VOID_GREY
    return errors


def draw_panel(raw_CHW: NDArray[np.float32], result: ImageResult, head: HeadSpec, title: str) -> NDArray[np.uint8]:
    """Image, label, prediction and error map side by side.

    With two classes the probability of the second one, black 0 to white 1, is beside the prediction made from it.

    Args:
        raw_CHW: the image in its raw unit.
        result: label and prediction of one head.
        head: its classes and colours.
        title: the image's name.

    Returns:
        HWC uint8 RGB, with a caption above each picture.
    """
    label_HW, pred_HW, two = result.label_HW, result.pred_HW, head.num_classes == 2
    tiles, captions = [grey_to_rgb(raw_CHW), colour_labels(label_HW, head)], [title, "label"]
    if two and result.prob_KHW is not None:
        tiles.append(np.repeat((result.prob_KHW[1] * 255).astype(np.uint8)[..., np.newaxis], 3, axis=2))
        captions.append(f"P({head.class_names[1]})")
    tiles += [colour_labels(pred_HW, head), error_map(label_HW, pred_HW, head)]
    errors = f"errors: red false {head.class_names[1]}, blue missed" if two else "errors: red"
    return montage(tiles, [*captions, "prediction", errors])


def draw_sample(
    raw_CHW: NDArray[np.float32],
    label_HW: NDArray[np.integer],
    weight_HW: NDArray[np.float32] | None,
    head: HeadSpec,
    title: str,
) -> NDArray[np.uint8]:
    """A training tile, HWC uint8 RGB: image, label and any pixel weights, from blue (smallest) to red (largest)."""
    import cv2

    tiles, captions = [grey_to_rgb(raw_CHW), colour_labels(label_HW, head)], [title, "label"]
    if weight_HW is not None:
        low, high = float(weight_HW.min()), float(weight_HW.max())
        scaled = ((weight_HW - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
        coloured = cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
        tiles.append(np.asarray(coloured, np.uint8))
        captions.append(f"pixel weight, blue {low:.2f} to red {high:.2f}")
    return montage(tiles, captions)


def montage(tiles: list[NDArray[np.uint8]], captions: list[str]) -> NDArray[np.uint8]:
    """Pictures of one height in a row, each with its caption above.

    Args:
        tiles: HWC uint8 RGB; those under 320 pixels are enlarged by an integer factor.
        captions: one per tile.
    """
    import cv2

    factor = max(1, -(-320 // min(tiles[0].shape[:2])))
    columns = []
    for tile, caption in zip(tiles, captions, strict=True):
        large = np.repeat(np.repeat(tile, factor, axis=0), factor, axis=1)
        head = np.full((24, large.shape[1], 3), 255, np.uint8)
        scale = min(0.45, 0.45 * (large.shape[1] - 8) / max(1, cv2.getTextSize(caption, 0, 0.45, 1)[0][0]))
        cv2.putText(head, caption, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
        columns += [np.vstack([head, large]), np.full((large.shape[0] + 24, 6, 3), 255, np.uint8)]
    return np.hstack(columns[:-1])


def write_png(path: Path, image: NDArray[np.uint8 | np.uint16]) -> None:
    """Write RGB uint8 (HWC) or grey uint8 or uint16 (HW) as PNG; the folder is made."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    write_whole(path, encoded.tobytes())
