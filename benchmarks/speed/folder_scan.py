"""The folder scan beside bare decoding by OpenCV."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.files.labelled import write_indices
from segbench.data.folder.cache import user_cache
from segbench.data.folder.scan import scan_images, scan_masks, scan_pool
from segbench.data.pascal_voc import voc_palette
from segbench.metrics.stack import available_cores
from speed.timing import Benches, Row, best_of

_PAIRS = 96
_REPEATS = 15


def drawn_picture(seed: int, height: int, width: int, channels: int) -> NDArray[np.float32]:
    """Smooth shapes and grain from 0 to 255; as JPEG it has as many bytes as a photograph."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.normal(128, 60, (20, 26, channels)).astype(np.float32), (width, height))
    grain = cv2.GaussianBlur(rng.normal(0, 75, (height, width, channels)).astype(np.float32), (0, 0), 1)
    return np.asarray(np.clip(smooth + grain, 0, 255), np.float32)


def _regions(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Blobs of eight classes; about eight of them meet a row, as in VOC's labels."""
    field = np.random.default_rng(seed).normal(0, 1, (5, 6)).astype(np.float32)
    smooth = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(smooth * 2 + 4, 0, 7), np.uint8)


def _photos(images: Path, masks: Path) -> None:
    for seed in range(_PAIRS):
        picture = drawn_picture(seed, 375, 500, 3).astype(np.uint8)
        cv2.imwrite(str(images / f"{seed:03d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
        write_indices(masks / f"{seed:03d}.png", _regions(seed, 375, 500), voc_palette(256))


def _microscopy(images: Path, masks: Path) -> None:
    import tifffile

    for seed in range(_PAIRS):
        picture = (drawn_picture(seed, 512, 512, 1) * 200).astype(np.uint16)
        labels = _regions(seed, 512, 512).astype(np.uint16)
        tifffile.imwrite(images / f"{seed:03d}.tif", picture, compression="lzw")
        tifffile.imwrite(masks / f"{seed:03d}.tif", labels, compression="lzw")


def _colours(images: Path, masks: Path) -> None:
    palette = np.array(voc_palette(8), np.uint8)
    for seed in range(_PAIRS):
        cv2.imwrite(str(images / f"{seed:03d}.png"), drawn_picture(seed, 375, 500, 3).astype(np.uint8))
        cv2.imwrite(str(masks / f"{seed:03d}.png"), palette[_regions(seed, 375, 500)])


def _measure(what: str, draw: Callable[[Path, Path], None]) -> Row:
    with (
        tempfile.TemporaryDirectory() as directory,
        tempfile.TemporaryDirectory() as cache,
        patch.dict(os.environ, XDG_CACHE_HOME=cache),
    ):
        images, masks = Path(directory) / "images", Path(directory) / "masks"
        images.mkdir()
        masks.mkdir()
        draw(images, masks)
        names = [sorted(path.name for path in folder.iterdir()) for folder in (images, masks)]
        files = [str(folder / name) for folder, each in zip((images, masks), names, strict=True) for name in each]

        def scan() -> None:
            shutil.rmtree(user_cache(), ignore_errors=True)
            done = scan_images(images, names[0]).decoded + scan_masks(masks, names[1]).decoded
            assert done == len(files), f"{done} of {len(files)} files were scanned"

        seconds, reference = best_of(scan, lambda: _decode(files), repeats=_REPEATS)
        size = sum(Path(file).stat().st_size for file in files)
    rate = len(files) / seconds
    return Row(
        name=f"folder scan: {what}",
        seconds=seconds / len(files),
        reference="cv2.imread of the same files, one thread per core too",
        reference_seconds=reference / len(files),
        target="at least 0.8 of the decoding's rate",
        met=seconds * 0.8 <= reference,
        note=f"{rate:.0f} files/s, {rate * size / len(files) / 1e6:.0f} MB/s on {available_cores()} cores; "
        "each file decoded once, every pixel counted; the cache is written too",
    )


def _decode(files: Sequence[str]) -> None:
    def decode(file: str) -> tuple[int, ...]:
        decoded: Any = cv2.imread(file, cv2.IMREAD_UNCHANGED)
        return tuple(decoded.shape)

    with scan_pool() as (pool, _):
        list(pool.map(decode, files))


def folder_scan() -> list[Row]:
    """The scan of `data=image_folder` over three kinds of folders."""
    threads = cv2.getNumThreads()
    # Files are spread over the cores; OpenCV's threads would slow both down.
    cv2.setNumThreads(1)
    try:
        return [
            _measure("JPEG 500x375, palette PNG", _photos),
            _measure("16-bit TIFF 512x512, ids as 16-bit TIFF, LZW", _microscopy),
            _measure("PNG 500x375, colours as PNG", _colours),
        ]
    finally:
        cv2.setNumThreads(threads)


BENCHES: Benches = {"folder_scan": folder_scan}
