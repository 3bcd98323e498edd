"""Pairs of image and mask by file name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.data.files.image_files import IMAGE_SUFFIXES
from segbench.data.files.volumes import split_name
from segbench.data.folder.faults import some
from segbench.data.folder.listing import Listing, list_images
from segbench.data.folder.pairing import Pairing, guess, guess_within, match
from segbench.errors import SegbenchError


@dataclass(frozen=True)
class Pairs:
    """The files of two folders.

    Attributes:
        images: the folder of images.
        masks: the folder of masks.
        by_name: names of image and mask, relative to their folders, by the image's name without suffix, subfolders
            included, in ascending order.
        left_out: sentences on files that are not used.
        pairing: how names pair; None where there is nothing to tell: one file each, equal names, or a given suffix.
        guessed: whether the pairing was guessed.
    """

    images: Path
    masks: Path
    by_name: Mapping[str, tuple[str, str]]
    left_out: tuple[str, ...]
    pairing: Pairing | None = None
    guessed: bool = False


def find_pairs(
    images: str, masks: str, mask_suffix: str = "", partial: bool = False, pairing: str | None = None
) -> Pairs:
    """Pair files by stem.

    Args:
        images: a folder, or one file.
        masks: a folder, or one file.
        mask_suffix: what a mask's stem adds to its image's: short for the pairing `* -> *SUFFIX`.
        partial: leave out files without a counterpart.
        pairing: as in `Pairing.of`; None: equal names, or if no two are equal, what the names suggest.

    Raises:
        SegbenchError: no such folder, no image in it, one folder for both and no guess, two files with one stem, files
            without a counterpart, two guesses.
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
    given = _given(mask_suffix, pairing)
    shared = image_path.resolve() == mask_path.resolve()
    listings = [list_images(image_path, None if shared else mask_path)]
    if not shared:
        listings.append(list_images(mask_path, image_path))
    by_stem = [_by_stem(each, key) for each, key in zip(listings, ("images", "masks"), strict=False)]
    chosen = given or (_within(image_path, by_stem[0]) if shared else _between(*by_stem))
    image_names, mask_names = _sides(chosen, by_stem[0], None if shared else by_stem[1])
    matched = match(chosen, image_names, mask_names, not partial)
    by_name = {stem: (image_names[stem], mask_names[mask]) for stem, mask in sorted(matched.pairs.items())}
    unfit = _unfit(chosen, listings, (image_names, mask_names))
    paired = set(matched.pairs.values())
    alone = _alone(
        (image_path, [name for stem, name in image_names.items() if stem not in matched.pairs], len(image_names)),
        (mask_path, [name for stem, name in mask_names.items() if stem not in paired], len(mask_names)),
    )
    if not by_name:
        raise SegbenchError(
            f"no image has a mask {'of its name' if given is None else f'by data.pairing={chosen}'}: "
            f"images {_first(by_stem[0])}; masks {_first(by_stem[-1])}",
            "for each image a mask of the same name, or of one that differs in the same way for all",
            "rename the masks, or say how they differ: data.pairing='*_training -> *_manual1'",
        )
    notes = [sentence for each in listings for sentence in each.sentences()]
    if alone and not partial:
        by = "" if chosen == Pairing() else f" by the pairing {chosen}"
        raise SegbenchError(
            "; ".join([*alone[:-1], alone[-1] + by, *notes]),
            "a mask for each image and an image for each mask",
            "add what is missing, set data.pairing, or use only the pairs with data.partial=true",
        )
    if matched.other_case:
        notes.append(f"{matched.other_case} pairs differ in upper and lower case")
    # A suffix stands in the config, and is not in the protocol of earlier runs either.
    told = None if mask_suffix or chosen == Pairing() else chosen
    return Pairs(image_path, mask_path, by_name, (*notes, *unfit, *alone), told, given is None)


def _given(mask_suffix: str, pairing: str | None) -> Pairing | None:
    if mask_suffix and pairing is not None:
        raise SegbenchError(
            f"data.mask_suffix={mask_suffix} and data.pairing={pairing}", "one of them", "leave data.mask_suffix out"
        )
    if pairing is not None:
        return Pairing.of(pairing)
    return Pairing("*", f"*{mask_suffix}") if mask_suffix else None


def _by_stem(listing: Listing, key: str) -> dict[str, str]:
    """Names by stem, both relative to the folder."""
    folder = listing.folder
    found: dict[str, list[str]] = {}
    for name in listing.images:
        found.setdefault(split_name(name)[0], []).append(name)
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


def _within(folder: Path, names: Mapping[str, str]) -> Pairing:
    found = guess_within(list(names))
    if len(found) == 1:
        return found[0]
    several = f"; its names pair by {_either(found)}" if found else f" with {_first(names)}"
    raise SegbenchError(
        f"data.images and data.masks are the same folder {folder}{several}",
        "a folder of images and another one of masks, or names that tell which are masks",
        "set data.masks; or, if masks are next to their images as a_mask.png, data.pairing='* -> *_mask'",
    )


def _between(images: Mapping[str, str], masks: Mapping[str, str]) -> Pairing:
    if images.keys() & masks.keys():
        return Pairing()
    # In order, so that a sample of them is the same whatever order the disk gives.
    found = guess(sorted(images), sorted(masks))
    if len(found) > 1:
        raise SegbenchError(
            f"images {_first(images)} and masks {_first(masks)} pair in several ways: {_either(found)}",
            "one way",
            f"choose it: data.pairing='{found[0]}'",
        )
    return found[0] if found else Pairing()


def _either(found: Sequence[Pairing]) -> str:
    return " or ".join(f"{pairing}" for pairing in found[:3])


def _sides(
    pairing: Pairing, images: Mapping[str, str], masks: Mapping[str, str] | None
) -> tuple[dict[str, str], dict[str, str]]:
    """The names of both kinds that fit their pattern; in one folder a name that fits the masks' is a mask."""
    mask_names = {stem: name for stem, name in (images if masks is None else masks).items() if pairing.mask_key(stem)}
    image_names = {
        stem: name
        for stem, name in images.items()
        if pairing.image_key(stem) and (masks is not None or stem not in mask_names)
    }
    return image_names, mask_names


def _unfit(pairing: Pairing, listings: Sequence[Listing], used: Sequence[Mapping[str, str]]) -> list[str]:
    """Sentences on images that fit neither pattern."""
    known = [set(each.values()) for each in used]
    if len(listings) == 1:
        known = [known[0] | known[1]]
    sentences = []
    for listing, names in zip(listings, known, strict=True):
        if other := [name for name in listing.images if name not in names]:
            sentences.append(
                f"not used in {listing.folder}: {len(other)} whose names do not fit the pairing {pairing}: "
                f"{some(other, 4)}"
            )
    return sentences


def _alone(images: tuple[Path, Sequence[str], int], masks: tuple[Path, Sequence[str], int]) -> list[str]:
    return [
        f"{len(names)} of {total} {kind} in {folder} have no {other}: {some(names)}"
        for (folder, names, total), kind, other in ((images, "images", "mask"), (masks, "masks", "image"))
        if names
    ]


def _first(names: Mapping[str, str] | Iterable[str]) -> str:
    listed = list(names.values()) if isinstance(names, Mapping) else list(names)
    return some(listed, 3) or "none"
