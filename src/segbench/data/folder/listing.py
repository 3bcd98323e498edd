"""The one rule by which a folder's files are images, and why the others are not used: check, train and predict."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segbench.data.files.image_files import IMAGE_SUFFIXES
from segbench.data.files.zarr_images import fields_of, is_zarr
from segbench.data.folder.faults import some
from segbench.errors import printable
from segbench.runtime.files import walk

UNREAD, HIDDEN, DEAD = "of a kind that is not read", "that are hidden", "that are links to nothing, or no files"
NAMELESS = "whose names are no UTF-8"

_OWN = ".segbench-"
"""Files of ours beside images start with this; they are not reported."""


@dataclass(frozen=True)
class Listing:
    """The images of a folder and its subfolders.

    Attributes:
        folder: the root.
        images: their names relative to it, with slashes, folder by folder in ascending order.
        left_out: names of what is not used, by the reason; a folder's name ends in a slash.
    """

    folder: Path
    images: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]]

    def sentences(self) -> Iterator[str]:
        """What is not used, a sentence for each reason."""
        for why, names in self.left_out.items():
            shown = some(names, 4)
            if why == UNREAD:
                kinds = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in names)
                shown = f"{', '.join(f'{count} {kind}' for kind, count in kinds.most_common(6))} ({shown})"
            yield f"not used in {self.folder}: {len(names)} {why}: {shown}"


def list_images(folder: Path, skip: Path | None = None, arrays: bool = False) -> Listing:
    """List a folder: links are followed, each folder is read once, nothing is dropped without a reason.

    Args:
        folder: the root.
        skip: a folder inside it that is used otherwise, or None.
        arrays: whether a zarr folder is an image, and a plate an image for each field; otherwise it is of a kind that
            is not read.
    """
    skipped = None if skip is None else os.path.realpath(skip)
    images: list[str] = []
    left_out: dict[str, list[str]] = {}

    def leave(name: str, why: str) -> None:
        left_out.setdefault(why, []).append(printable(name))

    root = str(folder)
    if arrays and is_zarr(folder):
        return Listing(folder, tuple(_fields(folder, folder)), {})
    # Strings, not Path objects: folders of a hundred thousand files are listed at every start.
    for where, folders, files in walk(root, lambda path, why: leave(f"{os.path.relpath(path, root)}/", why)):
        below = os.path.relpath(where, root).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        kept = []
        zarrs = []
        for name in folders:
            if name.startswith("."):
                leave(f"{prefix}{name}/", HIDDEN)
            elif not _is_text(name):
                leave(f"{prefix}{name}/", NAMELESS)
            elif is_zarr(Path(where, name)):
                if arrays:
                    zarrs.append(name)
                else:
                    leave(f"{prefix}{name}/", UNREAD)
            elif skipped is None or os.path.realpath(os.path.join(where, name)) != skipped:
                kept.append(name)
        folders[:] = kept
        for name in sorted([*zarrs, *files]) if zarrs else files:
            if name.startswith("."):
                if not name.startswith(_OWN):
                    leave(f"{prefix}{name}", HIDDEN)
            elif not _is_text(name):
                # It could not be recorded.
                leave(f"{prefix}{name}", NAMELESS)
            elif name in zarrs:
                images += _fields(Path(where, name), folder) or [f"{prefix}{name}"]
            elif not name.lower().endswith(IMAGE_SUFFIXES):
                leave(f"{prefix}{name}", UNREAD)
            elif not os.path.isfile(os.path.join(where, name)):
                leave(f"{prefix}{name}", DEAD)
            else:
                images.append(f"{prefix}{name}")
    return Listing(folder, tuple(images), {why: tuple(names) for why, names in left_out.items()})


def _is_text(name: str) -> bool:
    # Python has other bytes as surrogates.
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _fields(array: Path, folder: Path) -> list[str]:
    return [each.relative_to(folder).as_posix() for each in fields_of(array)]
