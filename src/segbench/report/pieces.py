"""Parts of a page, each with its numbers for readers who cannot see the picture."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from markupsafe import Markup

from segbench.compare.document import Table
from segbench.data.files.encoded import decode, read_bytes
from segbench.display.html import part
from segbench.errors import SegbenchError, refuse_no_file

MAX_SIDE = 1600
"""Pictures are scaled down to this many pixels: a dozen of them then take well under 5 MB."""

MAX_PIXELS = 2**27
"""Larger pictures are not opened: 400 MB."""


def table(shown: Table) -> Markup:
    """A table whose columns sort by mouse or keyboard."""
    return part("table", shown)


def chart(svg: Markup, caption: str, numbers: Table | None = None) -> Markup:
    """A drawing with its caption, and its numbers to unfold."""
    return part("chart", svg, caption, numbers)


def picture(path: Path, caption: str, run: Path) -> Markup:
    """A picture file of a run inside the page, as JPEG of at most `MAX_SIDE` pixels; a sentence where it is refused."""
    import cv2

    try:
        if why := _refused(path, run):
            return part("sentence", f"{path.name} cannot be read: {why}.")
        image = decode(path, read_bytes(path), cv2.IMREAD_COLOR)
    except SegbenchError as error:
        return part("sentence", f"{error.found}.")
    scale = MAX_SIDE / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    encoded = base64.b64encode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()).decode()
    return part("picture", encoded, image.shape[1], image.shape[0], caption)


def _refused(path: Path, run: Path) -> str | None:
    # A run is handed over with its pictures: nothing else of this machine goes into a page that is handed on.
    if not path.is_relative_to(run) or path.resolve() != run.resolve() / path.relative_to(run):
        return "it is a link, or outside the run"
    try:
        refuse_no_file(path)
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        return str(error.strerror)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24:
        return "it is no PNG"
    width, height = struct.unpack(">II", head[16:])
    return f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}" if width * height > MAX_PIXELS else None


def facts(pairs: Mapping[str, object]) -> Markup:
    """Names and values; empty values are left out."""
    return part("facts", {name: str(value) for name, value in pairs.items() if value not in (None, "")})


def folded(summary: str, content: Mapping[str, object] | Sequence[object]) -> Markup:
    """YAML, folded until opened."""
    return part("folded", summary, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))


def sentences(said: Sequence[str]) -> Markup:
    """A list of sentences."""
    return part("sentences", said)
