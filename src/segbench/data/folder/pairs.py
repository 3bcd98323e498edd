"""Pairs of image and mask by file name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segbench.data.files.image_files import IMAGE_SUFFIXES
from segbench.data.files.volumes import split_name
from segbench.data.folder.faults import some
from segbench.errors import SegbenchError
from segbench.runtime.files import walk


@dataclass(frozen=True)
class Pairs:
    """The files of two folders.

    Attributes:
        images: the folder of images.
        masks: the folder of masks.
        by_name: names of image and mask, relative to their folders, by the image's name without suffix, subfolders
            included, in ascending order.
        left_out: sentences on files without a counterpart.
    """

    images: Path
    masks: Path
    by_name: Mapping[str, tuple[str, str]]
    left_out: tuple[str, ...]


def find_pairs(images: str, masks: str, mask_suffix: str = "", partial: bool = False) -> Pairs:
    """Pair files by stem.

    Args:
        images: a folder, or one file.
        masks: a folder, or one file.
        mask_suffix: what a mask's stem adds to its image's.
        partial: leave out files without a counterpart.

    Raises:
        SegbenchError: no such folder, no image in it, the same folder twice, two files with one stem, files without a
            counterpart.
    """
    image_path, mask_path = Path(images), Path(masks)
    for key, path in (("images", image_path), ("masks", mask_path)):
        if not path.exists():
            raise SegbenchError(f"no folder {path} (data.{key})", f"the folder of {key}", f"set data.{key}=FOLDER")
    if image_path.is_file() and mask_path.is_file():
        names = {split_name(image_path.name)[0]: (image_path.name, mask_path.name)}
        return Pairs(image_path.parent, mask_path.parent, names, ())
    if image_path.is_file() or mask_path.is_file():
        raise SegbenchError(
            f"data.images={images} and data.masks={masks}: a file and a folder",
            "two folders, or two files",
            "give both as folders, or both as files",
        )
    shared = image_path.resolve() == mask_path.resolve()
    if shared and not mask_suffix:
        raise SegbenchError(
            f"data.images and data.masks are the same folder {image_path}",
            "a folder of images and another one of masks",
            "set data.masks; if masks are next to their images as a_mask.png, set data.mask_suffix=_mask",
        )
    image_names = _by_stem(image_path, "images", None if shared else mask_path)
    mask_names = _by_stem(mask_path, "masks", None if shared else image_path)
    if mask_suffix:
        mask_names = {
            stem.removesuffix(mask_suffix): name for stem, name in mask_names.items() if stem.endswith(mask_suffix)
        }
    if shared:
        image_names = {stem: name for stem, name in image_names.items() if not stem.endswith(mask_suffix)}
    left_out = _left_out(image_path, mask_path, image_names, mask_names, mask_suffix, partial)
    by_name = {stem: (name, mask_names[stem]) for stem, name in sorted(image_names.items()) if stem in mask_names}
    return Pairs(image_path, mask_path, by_name, left_out)


def _by_stem(folder: Path, key: str, other: Path | None) -> dict[str, str]:
    """Names by stem, both relative to the folder, without hidden files and without the other folder inside this one."""
    skipped = None if other is None else os.path.realpath(other)
    found: dict[str, list[str]] = {}
    # Strings, not Path objects: folders of ten thousand files are listed at every start.
    for where, folders, files in walk(folder):
        below = os.path.relpath(where, folder).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(where, name)) != skipped
        ]
        for name in files:
            stem, suffix = split_name(name)
            if suffix in IMAGE_SUFFIXES and not name.startswith("."):
                found.setdefault(f"{prefix}{stem}", []).append(f"{prefix}{name}")
    twice = [" and ".join(names) for names in found.values() if len(names) > 1]
    if twice:
        raise SegbenchError(
            f"{folder} (data.{key}) has several files with one name: {some(twice)}",
            f"one file per name, as {key} are paired by it",
            "remove all but one of each",
        )
    if not found:
        there = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        beside = f"; it contains {some(there, 6)}" if there else ", which is empty"
        raise SegbenchError(
            f"no image in {folder} (data.{key}){beside}", f"files {' '.join(IMAGE_SUFFIXES)}", f"set data.{key}=FOLDER"
        )
    return {stem: names[0] for stem, names in found.items()}


def _left_out(
    image_path: Path,
    mask_path: Path,
    images: Mapping[str, str],
    masks: Mapping[str, str],
    mask_suffix: str,
    partial: bool,
) -> tuple[str, ...]:
    bare = [name for stem, name in images.items() if stem not in masks]
    orphaned = [name for stem, name in masks.items() if stem not in images]
    left_out = tuple(
        f"{len(names)} of {total} {what}: {some(names)}"
        for names, total, what in (
            (bare, len(images), f"images in {image_path} have no mask"),
            (orphaned, len(masks), f"masks in {mask_path} have no image"),
        )
        if names
    )
    if len(bare) == len(images):
        raise SegbenchError(
            f"no image has a mask of its name: images {_first(images)}; masks {_first(masks)}",
            f"for each image a mask of the same name{f' and {mask_suffix}' * bool(mask_suffix)}, with any suffix",
            _advice(images, masks),
        )
    if left_out and not partial:
        raise SegbenchError(
            "; ".join(left_out),
            "a mask for each image and an image for each mask",
            "add what is missing, or use only the pairs with data.partial=true",
        )
    return left_out


def _first(names: Mapping[str, str]) -> str:
    return some(list(names.values()), 3) or "none"


def _advice(images: Mapping[str, str], masks: Mapping[str, str]) -> str:
    endings = [{mask[len(stem) :] for mask in masks if mask.startswith(stem)} for stem in list(images)[:20]]
    common = set.intersection(*endings)
    if len(common) == 1:
        return f"set data.mask_suffix={common.pop()}"
    return "rename the masks; if the mask of a.png is a_mask.png, set data.mask_suffix=_mask"
