"""Segment an image by a network that `segbench export` wrote, with onnxruntime, numpy and Pillow alone.

    python onnx_predict.py model.onnx image.png mask.png
    python onnx_predict.py model.onnx rgb=image.png hha=image_hha.png mask.png     several modalities
    python onnx_predict.py model.onnx image.png mask.png --head geometric          one of several heads

The mask holds the values, palette or colours of the masks that the network learned from, as those of `segbench predict`
do; which one is which class is printed. Ids below 0 or above 65535 need a name in .tif. The whole image goes through at
once, as `segbench predict` takes it where it fits into memory.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, or MODALITY=FILE for each of several")
    parser.add_argument("mask", type=Path)
    parser.add_argument("--head", help="which of several labellings; the first where it is not said")
    given = parser.parse_args()

    session = onnxruntime.InferenceSession(str(given.model), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["segbench"])
    head = next(output for output in about["outputs"] if given.head in (None, output["name"]))

    names = [modality["name"] for modality in about["inputs"]]
    files = dict(image.split("=", 1) for image in given.images) if len(names) > 1 else {names[0]: given.images[0]}
    inputs = {modality["name"]: read(files[modality["name"]], modality) for modality in about["inputs"]}
    height, width = next(iter(inputs.values())).shape[1:]

    padded = {name: pad(image_CHW, about["geometry"], about["size"])[None] for name, image_CHW in inputs.items()}
    (scores_1KHW,) = session.run([head["name"]], padded)
    labels_HW = scores_1KHW[0].argmax(0)[:height, :width]

    write(given.mask, labels_HW, head["masks"])
    for row in head["masks"]["classes"]:
        print(f"{row['name']} ({row['value']}): {np.mean(labels_HW == row['index']):.1%} of the pixels")


def read(file: str, modality: dict) -> np.ndarray:
    """An image as the network takes it: CHW float32, less the mean, over the deviation."""
    image = Image.open(file)
    if image.mode == "P" or (modality["channels"] == 3 and image.mode != "RGB"):
        image = image.convert("RGB")
    if modality["channel_order"] == "grey" and len(image.getbands()) > 1:
        image = image.convert("L")
    image_HWC = np.atleast_3d(np.asarray(image))
    if image_HWC.shape[2] != modality["channels"]:
        raise SystemExit(f"{file} has {image_HWC.shape[2]} channels; {modality['channels']} are expected")
    mean_C, std_C = (np.array(modality[key], np.float32) for key in ("mean", "std"))
    return ((image_HWC - mean_C) / std_C).transpose(2, 0, 1)


def pad(image_CHW: np.ndarray, geometry: dict, size: list | None) -> np.ndarray:
    """The image continued by mirroring: by the margin that the output lacks, and up to a side that is taken."""
    before, after = geometry["margin"], []
    for side, fixed in zip(image_CHW.shape[1:], size or (None, None), strict=True):
        needed = side + 2 * geometry["margin"]
        steps = max(geometry["minimum"], -(-(needed - geometry["offset"]) // geometry["step"]))
        whole = geometry["offset"] + geometry["step"] * steps
        if fixed is not None and whole > fixed:
            raise SystemExit(f"an image of {side} pixels for a network whose side is fixed at {fixed}")
        after.append((fixed or whole) - side - before)
    return np.pad(image_CHW, ((0, 0), (before, after[0]), (before, after[1])), mode="reflect")


def write(file: Path, labels_HW: np.ndarray, masks: dict) -> None:
    """Labels by the values that the description gives each class: ids, indices of a palette, or colours."""
    values = [row["value"] for row in masks["classes"]]
    if masks["values"] == "colours":
        rgb_K3 = np.array([list(bytes.fromhex(colour[1:])) for colour in values], np.uint8)
        Image.fromarray(rgb_K3[labels_HW]).save(file)
        return
    wide = min(values) < 0 or max(values) > 65535
    if wide and file.suffix.lower() not in (".tif", ".tiff"):
        raise SystemExit(f"{file}: values from {min(values)} to {max(values)} need a TIFF")
    dtype = np.int32 if wide else np.uint16 if max(values) > 255 else np.uint8
    mask = Image.fromarray(np.array(values, dtype)[labels_HW])
    if masks["values"] == "palette":
        colours = np.zeros((256, 3), np.uint8)
        colours[values] = [row["colour"] for row in masks["classes"]]
        mask.putpalette(colours.tobytes())
    mask.save(file)


if __name__ == "__main__":
    main()
