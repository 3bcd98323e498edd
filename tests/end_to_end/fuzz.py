"""Fuzz runs: files of every format are damaged by their structure, and read in processes of bounded time and memory.

    python tests/end_to_end/fuzz.py [--minutes 10] [--seed 0] [--readers png,tiff]      make fuzz

An input may be read, or end in the user's error. A traceback, over 5 s or over 700 MB more is a finding: it is kept in
outputs/fuzz, and the run ends with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import scipy.io
import tifffile

from segbench.config.handed_over import read_json, read_record
from segbench.data.files.image_files import images_of
from segbench.data.files.labelled import read_mat
from segbench.errors import SegbenchError
from segbench.models.published.caffemodel import read_caffemodel
from segbench.runs.arrays import read_arrays
from segbench.spec import DatasetSpec

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
WAYS = ({}, {"compression": "zlib"}, {"compression": "lzw", "tile": (16, 16)}, {"compression": "packbits"})

READERS: dict[str, tuple[str, Callable[[Path], Any], Callable[[], list[bytes]]]] = {
    **{
        kind: (f".{kind}", lambda path: list(images_of(path)), lambda kind=kind: [_encoded(f".{kind}")])
        for kind in ("png", "jpg", "bmp", "webp", "gif")
    },
    "jp2": (".jp2", lambda path: list(images_of(path)), lambda: [imagecodecs.jpeg2k_encode(PIXELS, level=0)]),
    "tiff": (".tif", lambda path: list(images_of(path)), lambda: [_tiff(**way) for way in WAYS]),
    "mat": (".mat", lambda path: read_mat(path, "a", "S"), lambda: [_mat(), _mat(format="4")]),
    "npz": (".npz", read_arrays, lambda: [_npz()]),
    "caffemodel": (".caffemodel", read_caffemodel, lambda: [_caffe()]),
    "json": (".json", lambda path: read_json(path, DatasetSpec), lambda: [json.dumps(SPEC).encode()]),
    "yaml": (".yaml", read_record, lambda: [json.dumps(SPEC).encode(), b"a: &a [1, 2]\nb: {c: *a, d: 1e3}\n"]),
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


def work(pipe: Connection, name: str, seed: int) -> None:
    """Read damaged files until told to end; sends each before it is read, and then how it ended."""
    warnings.simplefilter("ignore")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    suffix, read, made = READERS[name]
    rng, corpus = random.Random(seed), made()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        while True:
            path.write_bytes(content := damaged(rng.choice(corpus), rng))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            pipe.send_bytes(content)
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
        content = b""
        while time.monotonic() < until:
            try:
                content = ours.recv_bytes()
                ended = ours.recv() if ours.poll(SECONDS) else "hang"
            except EOFError:
                ended = "end of the process"
            ends[ended] += 1
            if ended not in ("read", "own errors"):
                kept.mkdir(parents=True, exist_ok=True)
                (kept / f"{name}-{'-'.join(ended.split())}-{sum(ends.values())}{READERS[name][0]}").write_bytes(content)
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
    names, found = given.readers.split(","), 0
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
