"""Fuzz runs: files of every format are damaged by their structure, and read in processes of bounded time and memory.

    python tests/end_to_end/fuzz.py [--minutes 10] [--seed 0] [--readers png,tiff]      make fuzz

An input is a file, or a folder of which one file is damaged: its bytes, or what its structure holds, with lengths and
checksums mended so that the damage reaches the decoder. It may be read, or end in the user's error. A traceback, over
5 s or over 700 MB more is a finding: it is kept in outputs/fuzz, and the run ends with 1. Readers whose package is not
installed are left out, which is reported.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib.util
import io
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import scipy.io
import scipy.sparse
import tifffile
import torch

from segbench.compare.comparing import compare
from segbench.compare.formats import write
from segbench.config.handed_over import read_json, read_record
from segbench.config.record import Recorded
from segbench.data.files.image_files import images_of, open_images
from segbench.data.files.labelled import read_mat
from segbench.data.folder.cache import ScanCache
from segbench.data.folder.facts import mean_and_std
from segbench.data.folder.scan import scan_images, scan_masks
from segbench.data.prepare.annotations import import_masks
from segbench.data.prepare.downloads import Record as Downloads
from segbench.data.prepare.hdf5 import convert_isbi
from segbench.data.prepare.unpack import unpack
from segbench.errors import SegbenchError
from segbench.models.published.caffemodel import read_caffemodel
from segbench.models.published.state_dict import read_state_dict
from segbench.prediction.record import Record as Predictions
from segbench.report.page import report
from segbench.runs.arrays import read_arrays
from segbench.runs.directory import Run
from segbench.runs.history import Leg
from segbench.spec import DatasetSpec
from segbench.sweep.directory import Sweep
from segbench.training.checkpoint import network_weights, read_checkpoint

SECONDS, GROWTH = 5.0, 700
NUMBERS = (0, 1, 2, 7, 127, 255, 256, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
PIXELS = np.random.default_rng(0).integers(0, 9, (40, 30), np.uint8)


def _encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, cv2.cvtColor(PIXELS, cv2.COLOR_GRAY2BGR))[1].tobytes()


def _tiff(**options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, **options)
    return file.getvalue()


def _mat(**options: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {"S": PIXELS.astype(float), "t": "text"}, **options)
    return file.getvalue()


def _sparse() -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {"S": scipy.sparse.csc_matrix(PIXELS.astype(float))}, do_compression=True)
    return file.getvalue()


def _downloads() -> dict[str, bytes]:
    entry = {"url": "https://a", "bytes": 3, "sha256": "a" * 64, "published": None, "unpacked": False}
    return {"downloads.json": json.dumps({"a.zip": entry}).encode()}


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, ids=np.array(["a", "b"]), counts=np.eye(5))
    return file.getvalue()


def _caffe() -> bytes:
    blob = b"\x3a\x04\x0a\x02\x02\x03" + b"\x2a\x18" + np.arange(6, dtype="<f4").tobytes()
    layer = b"\x0a\x04conv\x3a" + bytes([len(blob)]) + blob
    return b"\xa2\x06" + bytes([len(layer)]) + layer


SPEC = {
    "name": "a",
    "modalities": {"rgb": {"channels": 1, "mean": [0.5], "std": [1.0], "unit": "value"}},
    "heads": {"semantic": {"class_names": ["a", "b"], "palette": [[0, 0, 0], [1, 2, 3]]}},
    **{key: "" for key in ("citation", "licence", "protocol")},
}
WAYS = (
    {"compression": "zlib"},
    {"compression": "lzw", "tile": (16, 16)},
    {"compression": "lzw", "predictor": True},
    {"compression": "packbits", "rowsperstrip": 7},
    {"compression": "jpeg", "tile": (16, 16)},
    {"compression": "zstd", "tile": (16, 16), "metadata": {"axes": "YX"}},
    {"imagej": True},
    {"ome": True, "compression": "jpeg2000"},
    {},
)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _written(write: Callable[[Path], Any]) -> Any:
    """What a function writes to a path: a file's bytes, or a folder's by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        write(path)
        return _files(path) if path.is_dir() else path.read_bytes()


def _hdf5() -> bytes:
    import h5py

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("raw", data=PIXELS[None] * 20, chunks=(1, 16, 16), compression="gzip")
            file["labels/membranes"] = (PIXELS[None] > 3).astype(np.uint8)

    return bytes(_written(write))


def _zarr() -> list[dict[str, bytes]]:
    import zarr

    def image(version: int) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            group = zarr.open_group(str(path), mode="w", zarr_format=version)
            group.create_array("0", data=PIXELS[None], chunks=(1, 16, 16))
            axes = [{"name": name} for name in "cyx"]
            group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]

        return write

    return [_written(image(version)) for version in (2, 3)]


def _tar(packed: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{packed}") as tar:
        for name in ("a/b.txt", "a/c.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 9
            tar.addfile(entry, io.BytesIO(b"123456789"))
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.txt", b"1234" * 99)
        archive.writestr("a/c.txt", b"")
    return file.getvalue()


def _checkpoint() -> bytes:
    state = {"model.a.weight": torch.arange(6.0).reshape(2, 3), "model.a.bias": torch.zeros(2)}
    return bytes(_written(lambda path: torch.save({"state_dict": state, "global_step": 3, "epoch": 0}, path)))


def _weights(zipped: bool) -> bytes:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _safetensors() -> bytes:
    from safetensors.torch import save

    return bytes(save({"a.weight": torch.arange(6.0).reshape(2, 3)}))


def _run(curves: bool = False) -> dict[str, bytes]:
    """A run; to draw its curves takes as long as a thousand readings."""

    def write(path: Path) -> None:
        settings = {
            "name": "a",
            "seed": 0,
            "trainer": {"max_steps": 4},
            "model": {"_target_": "segbench.models.unet.UNet"},
        }
        metrics = {"confusion": {"_target_": "segbench.metrics.confusion.Overlap"}}
        with Run.create(path, Recorded.of(settings | {"metrics": metrics, "threads": 1}), ["seed=0"]) as run:
            run.write_dataset(SPEC)
            run.write_splits({"test": ["a", "b"]})
            counts = {"semantic/confusion/confusion": np.stack([np.eye(2, dtype=np.int64)] * 2)}
            run.write_per_image("test", ["a", "b"], counts, {"semantic/confusion": "1"})
            run.write_results({"test/miou": 1.0}, {"fit_s": 1.5}, {"versions": {"torch": "2"}}, {"dataset": "a"})
            run.write_deviations({})
            run.add_leg(Leg(0, settled={"threads": 2}))
            (path / "energy.json").write_text('{"joules": 1.5, "meters": 1}')
            if curves:
                (path / "metrics.csv").write_text("step,train/loss,val/miou\n1,0.5,\n2,0.4,0.3\n")
            run.set_state("finished")

    return dict(_written(write))


WHOLE_RUN = _run()


def _read_run(path: Path) -> None:
    _put(WHOLE_RUN, other := path.with_name("whole"))
    write(compare([path, other], draws=100), "markdown")
    report([str(path)])
    for read in (Run(path).legs, Run(path).overrides, Run(path).splits, Run(path).state):
        read()


def _sweep() -> dict[str, bytes]:
    job = {"name": "0", "digest": "a" * 64, "overrides": ["seed=0"], "environment": {}, "seconds": 1.5}
    listed = {
        **{"schema": 1, "segbench": "0.1.0", "commands": [["segbench", "train", "-m", "seed=0,1"]]},
        **{"working_directory": "/a", "launcher": {"cluster": "local", "jobs": None}, "search": None, "jobs": [job]},
    }
    progress = b'{"step": 2, "total": 4, "loss": 0.5, "rate": 1.5}'
    files = {"sweep.yaml": json.dumps(listed).encode(), "0/.progress.json": progress}
    return files | {f"0/{name}": content for name, content in _run().items()}


def _read_sweep(path: Path) -> None:
    sweep = Sweep.open(path)
    for job in sweep.jobs:
        job.state()
        job.progress()


def _scans() -> list[dict[str, bytes]]:
    """The caches of a scan beside its files, which come back with the time that the caches know."""
    image = _encoded(".png")
    found = []
    for scan in (scan_images, scan_masks):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            _put({"a.png": image}, Path(folder, "files"))
            cache = scan(Path(folder, "files"), ["a.png"]).cache
            assert cache is not None
            found.append({scan.__name__: cache.read_bytes(), "a.png": image})
    return found


def _read_scan(path: Path) -> None:
    scan = scan_images if (path / "scan_images").exists() else scan_masks
    os.environ["XDG_CACHE_HOME"] = str(path / "cache")
    place = ScanCache(path, "images" if scan is scan_images else "masks", Any)._place
    place.parent.mkdir(parents=True)
    shutil.copy(path / scan.__name__, place)
    for facts in scan(path, ["a.png"]).pages.values():
        if scan is scan_images and any(page.filled for page in facts):  # type: ignore[union-attr]
            mean_and_std(facts)  # type: ignore[arg-type]


def _predictions() -> dict[str, bytes]:
    def write(path: Path) -> None:
        record = Predictions(path, {"values": "own", "tta": None}, {}, False)
        record.add("a", [["/a.png", 3, 4]], [path / "a.png"])
        record.close()
        (path / "a.png").touch()

    return dict(_written(write))


def _read_predictions(path: Path) -> None:
    record = Predictions(path, {"values": None, "tta": None}, {}, False)
    try:
        record.done("a", [["/a.png", 3, 4]])
        record.refuse_foreign([path / "a.png"])
    finally:
        record.close()


def _annotations() -> list[bytes]:
    rle = {"size": [40, 30], "counts": "04000b0"}
    annotations = [
        {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 0},
        {"image_id": 1, "category_id": 1, "segmentation": rle, "iscrowd": 1},
        {"image_id": 1, "category_id": 1, "segmentation": {"size": [40, 30], "counts": [1000, 200]}},
    ]
    images = [{"id": 1, "file_name": "a.png", "height": 40, "width": 30}]
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    shapes = [
        {"label": "a", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"},
        {"label": "b", "points": [[1, 1], [9, 9]], "shape_type": "circle", "group_id": 1},
    ]
    labelme = {"imageHeight": 40, "imageWidth": 30, "shapes": shapes}
    return [json.dumps(content).encode() for content in (coco, labelme)]


def _dicom() -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    def write(path: Path) -> None:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
        file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = 40, 30, 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 8
        file.HighBit, file.PixelRepresentation, file.PixelData = 7, 0, PIXELS.tobytes()
        file.save_as(path)

    return bytes(_written(write))


def _nifti() -> bytes:
    import nibabel

    return bytes(nibabel.Nifti1Image(PIXELS[..., None], np.eye(4)).to_bytes())


def _mrc() -> bytes:
    import mrcfile

    def write(path: Path) -> None:
        with mrcfile.new(path) as file:
            file.set_data(PIXELS[None].astype(np.int16))

    return bytes(_written(write))


def _images(path: Path) -> None:
    # Not kept: a stack of many may be large.
    for _ in images_of(path):
        pass


# By name: the suffix of the file, what reads it, whole files or folders, and the package that it needs.
READERS: dict[str, tuple[str, Callable[[Path], Any], Callable[[], list[Any]], str]] = {
    **{
        kind: (f".{kind}", _images, lambda kind=kind: [_encoded(f".{kind}")], "cv2")
        for kind in ("png", "jpg", "bmp", "webp", "gif")
    },
    "jp2": (".jp2", _images, lambda: [imagecodecs.jpeg2k_encode(PIXELS, level=0)], "imagecodecs"),
    "tiff": (".tif", _images, lambda: [_tiff(**way) for way in WAYS], "tifffile"),
    "mat": (".mat", lambda path: read_mat(path, "a", "S"), lambda: [_mat(), _mat(format="4"), _sparse()], "scipy"),
    "npz": (".npz", read_arrays, lambda: [_npz()], "numpy"),
    "hdf5": (".h5", lambda path: convert_isbi(path, path.parent), lambda: [_hdf5()], "h5py"),
    "zarr": (".zarr", lambda path: open_images(path).read(0), _zarr, "zarr"),
    "dicom": (".dcm", _images, lambda: [_dicom()], "pydicom"),
    "nifti": (".nii", _images, lambda: [_nifti()], "nibabel"),
    "mrc": (".mrc", _images, lambda: [_mrc()], "mrcfile"),
    "archive": (
        ".archive",
        lambda path: unpack(path, path.parent / "out"),
        lambda: [_tar(""), _tar("gz"), _zip()],
        "tarfile",
    ),
    "caffemodel": (".caffemodel", read_caffemodel, lambda: [_caffe()], "numpy"),
    "checkpoint": (".ckpt", lambda path: network_weights(read_checkpoint(path)), lambda: [_checkpoint()], "torch"),
    "weights": (".pth", read_state_dict, lambda: [_weights(True), _weights(False)], "torch"),
    "safetensors": (".safetensors", read_state_dict, lambda: [_safetensors()], "safetensors"),
    "annotations": (".json", lambda path: import_masks(path, path.parent / "out"), _annotations, "cv2"),
    "json": (".json", lambda path: read_json(path, DatasetSpec), lambda: [json.dumps(SPEC).encode()], "json"),
    "yaml": (".yaml", read_record, lambda: [json.dumps(SPEC).encode(), b"a: &a [1, 2]\nb: {c: *a, d: 1e3}\n"], "yaml"),
    "run": ("", _read_run, lambda: [_run()] * 50 + [_run(curves=True)], "numpy"),
    "sweep": ("", _read_sweep, lambda: [_sweep()], "numpy"),
    "scan": ("", _read_scan, _scans, "numpy"),
    "predictions": ("", _read_predictions, lambda: [_predictions()], "numpy"),
    "downloads": ("", lambda path: Downloads(path).update("a.zip", unpacked=True), lambda: [_downloads()], "numpy"),
}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four fields, bytes or parts of it changed."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not changed:
            break
        at = min(int(rng.expovariate(4 / len(changed))), len(changed) - 1)
        way = rng.randrange(6)
        if way == 0:
            changed[at] = rng.randrange(256)
        elif way in (1, 2):
            form = rng.choice(("<I", ">I", "<H", ">H"))
            number = rng.choice(NUMBERS) & (2 ** (8 * struct.calcsize(form)) - 1)
            changed[at : at + struct.calcsize(form)] = struct.pack(form, number)
        elif way == 3:
            del changed[at : at + rng.choice((1, 4, 12))]
        elif way == 4:
            changed[at:at] = changed[at : at + rng.choice((1, 4, 12))] * rng.choice((1, 50))
        else:
            del changed[max(at, len(changed) // 2) :]
    return bytes(changed)


ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**9, 2**70, 1.5, 1e999, float("nan")),
    *("", "a", "${a}", "../a", "\0", [], {}, [[]], {"a": 1}),
)


def _text_damaged(content: bytes, rng: random.Random) -> bytes:
    """JSON, or lines of it, with a value or a key changed, left out or nested."""
    lines = content.decode().splitlines(keepends=True) if content.count(b"}\n{") else [content.decode()]
    chosen = rng.randrange(len(lines))
    holder: Any = (top := [json.loads(lines[chosen])])
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.85:
        holder = holder[key]
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    way = rng.randrange(8)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[str(rng.choice(ODD))] = holder.pop(key)
    elif way == 2:
        for _ in range(rng.choice((3, 80, 900))):
            holder[key] = [holder[key]]
    elif way == 3 and isinstance(holder[key], list):
        holder[key] *= rng.choice((0, 2, 9))
    else:
        holder[key] = rng.choice(ODD)
    lines[chosen] = json.dumps(top[0] if top else None) + "\n" * (len(lines) > 1)
    return "".join(lines).encode()


def _crc(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))


def _png_damaged(content: bytes, rng: random.Random) -> bytes:
    """A chunk changed, its pixels where they are unpacked, and its checksum mended."""
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    chosen = rng.randrange(len(chunks))
    name, body = chunks[chosen]
    if name == b"IDAT" and rng.random() < 0.5:
        body = zlib.compress(damaged(zlib.decompress(body), rng))
    else:
        body = damaged(body, rng)
    chunks[chosen] = name, body
    if rng.random() < 0.2:
        kind = rng.choice((b"PLTE", b"tRNS", b"acTL", b"eXIf", b"iCCP", b"sBIT", b"gAMA"))
        chunks.insert(1, (kind, rng.randbytes(rng.choice((0, 3, 4, 30)))))
    mended = (struct.pack(">I", len(body)) + kind + body + _crc(kind + body) for kind, body in chunks)
    return content[:8] + b"".join(mended)


TAGS = (256, 258, 259, 262, 266, 270, 277, 278, 284, 317, 320, 330, 338, 339, 347, 530, 42113, 50838)


def _tiff_damaged(content: bytes, rng: random.Random) -> bytes:
    """A tag of the first directory with another number, type, count or value."""
    changed = bytearray(content)
    (first,) = struct.unpack_from("<I", content, 4)
    (tags,) = struct.unpack_from("<H", content, first)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = first + 2 + 12 * rng.randrange(tags)
        way = rng.randrange(6)
        if way == 0:
            tag = rng.choice(TAGS)
            struct.pack_into("<H", changed, at, tag)
        elif way == 1:
            struct.pack_into("<H", changed, at + 2, rng.randrange(20))
        elif way == 2:
            struct.pack_into("<I", changed, at + 4, rng.choice((*NUMBERS, 3, 4, 100, 1000)))
        else:
            struct.pack_into("<I", changed, at + 8, rng.choice((*NUMBERS, 3, 4, 5, 8, 16, 100, 32773, 50000, 34712)))
    return bytes(changed)


def _zip_damaged(content: bytes, rng: random.Random) -> bytes:
    """An entry changed, with the lengths and checksums of its new content."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        chosen = rng.choice(old.namelist())
        for entry in old.infolist():
            inner = old.read(entry)
            if entry.filename == chosen:
                inner = damaged(inner, rng)
            new.writestr(entry.filename, inner, rng.choice((entry.compress_type, zipfile.ZIP_DEFLATED)))
    return file.getvalue()


def _tar_damaged(content: bytes, rng: random.Random) -> bytes:
    """A field of a header changed, and the header's checksum mended."""
    packed = content[:2] == b"\x1f\x8b"
    changed = bytearray(gzip.decompress(content) if packed else content)
    at = 1024 * rng.randrange(2)
    start, size = rng.choice(((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155)))
    text = rng.choice((b"../a", b"/a", b"a/b.txt", b"", b"77777777777", b"-1", b"L", b"x", b"2", b"5", b"\xff" * 12))
    changed[at + start : at + start + size] = text[:size].ljust(size, b"\0")
    total = sum(changed[at : at + 148]) + 8 * 32 + sum(changed[at + 156 : at + 512])
    changed[at + 148 : at + 156] = b"%06o\0 " % total
    return gzip.compress(changed) if packed else bytes(changed)


def _mended(content: bytes, rng: random.Random) -> bytes:
    """The content damaged by its structure, where there is a way for it."""
    starts: tuple[tuple[bytes, Callable[[bytes, random.Random], bytes]], ...] = (
        *((b"\x89PNG", _png_damaged), (b"II*\0", _tiff_damaged), (b"PK", _zip_damaged), (b"\x1f\x8b", _tar_damaged)),
        *((b"a/b.txt\0", _tar_damaged), (b"{", _text_damaged), (b"[", _text_damaged)),
    )
    way = next((way for start, way in starts if content.startswith(start)), damaged)
    try:
        return way(content, rng)
    except (ValueError, struct.error):
        return damaged(content, rng)


def _drawn(corpus: list[Any], rng: random.Random) -> Any:
    whole = rng.choice(corpus)
    way = _mended if rng.random() < 0.6 else damaged
    if isinstance(whole, bytes):
        return way(whole, rng)
    chosen = rng.choice(list(whole))
    return whole | {chosen: way(whole[chosen], rng)}


def _put(content: Any, path: Path) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    for name, each in content.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(each)
        # What records of files know of their time.
        os.utime(file, ns=(0, 0))


def work(pipe: Connection, name: str, seed: int) -> None:
    """Read damaged files until told to end; sends each before it is read, and then how it ended."""
    warnings.simplefilter("ignore")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    logging.disable(logging.CRITICAL)
    suffix, read, made, _ = READERS[name]
    rng, corpus = random.Random(seed), made()
    with tempfile.TemporaryDirectory() as top:
        for number, whole in enumerate(corpus):
            # What is imported and compiled at the first time counts for no input.
            _put(whole, path := Path(top, f"whole-{number}{suffix}"))
            with contextlib.suppress(SegbenchError):
                read(path)
        pipe.send(None)
        while True:
            folder = Path(top, "a")
            if not folder.is_dir() or os.listdir(folder) != [f"a{suffix}"] or not suffix or suffix == ".zarr":
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            path = folder / f"a{suffix}"
            _put(content := _drawn(corpus, rng), path)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            pipe.send(content)
            try:
                read(path)
                ended = "read"
            except SegbenchError:
                ended = "own errors"
            except Exception as error:
                ended = f"traceback {type(error).__name__}"
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
            pipe.send(f"growth of {grown} MB" if grown > GROWTH else ended)


def fuzz(name: str, seconds: float, seed: int, kept: Path) -> Counter[str]:
    """How the inputs of a reader ended; a process that dies or hangs is replaced."""
    ends, until = Counter[str](), time.monotonic() + seconds
    while time.monotonic() < until:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=work, args=(theirs, name, seed + sum(ends.values())), daemon=True)
        process.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            began = time.monotonic()
            ours.recv()
            until += time.monotonic() - began
        content = b""
        while time.monotonic() < until:
            try:
                content = ours.recv()
                ended = ours.recv() if ours.poll(SECONDS) else "hang"
            except EOFError:
                ended = "end of the process"
            ends[ended] += 1
            if ended not in ("read", "own errors"):
                kept.mkdir(parents=True, exist_ok=True)
                _put(content, kept / f"{name}-{'-'.join(ended.split())}-{sum(ends.values())}{READERS[name][0]}")
            if ended in ("hang", "end of the process"):
                break
        process.kill()
        process.join()
    return ends


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", default=",".join(READERS))
    given = parser.parse_args()
    asked, found = given.readers.split(","), 0
    names = [name for name in asked if importlib.util.find_spec(READERS[name][3]) is not None]
    if lacking := [f"{name} ({READERS[name][3]})" for name in asked if name not in names]:
        print(f"left out, since their package is not installed: {', '.join(lacking)}", flush=True)
    for name in names:
        with contextlib.suppress(KeyboardInterrupt):
            ends = fuzz(name, 60 * given.minutes / len(names), given.seed, Path("outputs/fuzz"))
            found += sum(count for ended, count in ends.items() if ended not in ("read", "own errors"))
            print(
                f"{name}: {sum(ends.values()):,} inputs; {', '.join(f'{ends[end]:,} {end}' for end in ends)}",
                flush=True,
            )
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
