"""What does not fit together in folders of images and masks, and masks that are none: said file by file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.data.folder.facts import FEW_CODES, MOST_CODES, ImageFacts, MaskFacts, by_page
from segbench.errors import SegbenchError

_RESTLESS = 0.25
"""Share of pixels that differ from the one before. Masks of real data sets stay below 0.1, photographs above 0.4."""

_FEW_BETWEEN, _RARE, _EDGES = 8, 0.01, 0.1
"""More values than these lie between the two of a smoothed mask, on a smaller share of the pixels each and together."""


def some(names: Sequence[str], count: int = 10) -> str:
    """The first names, and how many more there are."""
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")


def refuse_no_masks(
    folder: Path, masks: Mapping[str, Sequence[MaskFacts]], pixels: Mapping[int, int], most: int | None
) -> None:
    """Raise where masks are no masks.

    Args:
        folder: of the masks, for messages.
        masks: what a scan found.
        pixels: of each code, over all masks.
        most: codes that there may be; None where one class takes all that are left over.

    Raises:
        SegbenchError: with what they probably are.
    """
    pages = by_page(masks)
    crowded = [(name, facts) for name, _, facts in pages if facts.distinct > FEW_CODES]
    photos = [name for name, facts in crowded if facts.runs > _RESTLESS * facts.height * facts.width]
    overflowing = [name for name, facts in crowded if facts.distinct and not facts.codes]
    if photos and most is not None:
        facts = next(facts for name, facts in crowded if name == photos[0])
        raise _refusal(
            f"{folder / photos[0]} has {facts.distinct} {_what(facts)} that change from pixel to pixel, "
            f"as {len(photos)} of {len(pages)} masks have too many values: probably photographs",
            f"check that data.masks={folder} holds masks, and data.images the images",
        )
    if not overflowing and (most is None or len(pixels) <= most):
        return
    crowded.sort(key=lambda entry: -entry[1].distinct)
    shown = ", ".join(f"{name} {facts.distinct}" for name, facts in crowded[:3])
    total = sum(pixels.values())
    common = sum(sorted(pixels.values(), reverse=True)[:16])
    if overflowing:
        raise _refusal(
            f"{folder / overflowing[0]} holds more than {MOST_CODES} different values",
            "label the objects anew, or cut the masks into smaller ones",
        )
    if common > 0.9 * total:
        raise _refusal(
            f"the masks in {folder} hold {len(pixels)} different values ({shown} ...), but 16 of them have "
            f"{common / total:.1%} of the pixels: probably smoothed, by resizing with interpolation or by JPEG",
            "write the masks anew; resize masks with nearest neighbour only",
        )
    raise _refusal(
        f"the masks in {folder} hold {len(pixels)} different values ({shown} ...): "
        "probably instance ids, a value an object",
        "make one class of all objects: data.classes='{background: 0, object: rest}'",
    )


def refuse_smoothed(folder: Path, pixels: Mapping[int, int]) -> None:
    """Raise where the lowest and the highest of many values have regions, and those between at most edges.

    A mask of two values looks so after resizing with interpolation, after anti-aliased drawing or after JPEG.

    Args:
        folder: of the masks, for messages.
        pixels: of each value that is not void, over all masks.

    Raises:
        SegbenchError: with the share of the values between.
    """
    if len(pixels) <= _FEW_BETWEEN:
        return
    low, *between, high = sorted(pixels)
    total, edges = sum(pixels.values()), sum(pixels[code] for code in between)
    rare = max(pixels[code] for code in between) < _RARE * total
    if len(between) > _FEW_BETWEEN and rare and edges < min(pixels[low], pixels[high], _EDGES * total):
        raise SegbenchError(
            f"the masks in {folder} hold {len(between)} values between {low} and {high}, "
            f"on {edges / total:.2%} of the pixels: probably smoothed at the edges, by resizing with interpolation, "
            "anti-aliased drawing or JPEG",
            "masks with a value or a colour a class",
            "write the masks anew; resize masks with nearest neighbour only. Or say what is what: "
            f"data.classes='{{background: {low}, object: rest}}'",
        )


def _what(facts: MaskFacts) -> str:
    return "colours" if facts.kind == "colours" else "values"


def _refusal(found: str, action: str) -> SegbenchError:
    return SegbenchError(found, "masks with a value or a colour a class, at most 255", action)


def refuse_unusable(faults: Sequence[SegbenchError]) -> None:
    """Raise where there are files that cannot be used.

    Raises:
        SegbenchError: with all of them, and with the advice on them where it is the same.
    """
    if not faults:
        return
    listed = "\n    ".join(_lines(sorted(fault.found for fault in faults)))
    said = {(fault.expected, fault.action) for fault in faults}
    several = "whole image files, and masks without loss", "repair or remove them"
    expected, action = said.pop() if len(said) == 1 else several
    raise SegbenchError(f"{len(faults)} file{'s' * (len(faults) > 1)} cannot be used:\n    {listed}", expected, action)


def _lines(sentences: Sequence[str], count: int = 10) -> list[str]:
    more = len(sentences) - count
    return [*sentences[:count], *([f"... and {more} more"] if more > 0 else [])]


def refuse_mixed(images: Mapping[str, Sequence[ImageFacts]]) -> None:
    """Raise where images differ in channels or in depth.

    Raises:
        SegbenchError: the kind of most of them, and the others by name.
    """
    for key, what, expected, action in (
        ("channels", "numbers of channels", "one number of channels", "convert the few to the kind of the many"),
        (
            "dtype",
            "types of values",
            "one depth: a value must mean the same in every image",
            "convert all images to one depth",
        ),
    ):
        groups: dict[Any, list[str]] = {}
        for name, _, facts in by_page(images):
            groups.setdefault(getattr(facts, key), []).append(name)
        if len(groups) > 1:
            (most, names), *others = sorted(groups.items(), key=lambda entry: -len(entry[1]))
            said = [f"{len(names)} of {most}"] + [f"{len(few)} of {value} ({some(few)})" for value, few in others]
            raise SegbenchError(f"images of different {what}: {', '.join(said)}", expected, action)


def refuse_other_sizes(images: Mapping[str, Sequence[ImageFacts]], masks: Mapping[str, Sequence[MaskFacts]]) -> None:
    """Raise where masks are not of their image's height and width, or stacks differ in length.

    Args:
        images: by the pair's name.
        masks: likewise.

    Raises:
        SegbenchError: with all of them.
    """
    found = []
    for name, pages in images.items():
        if len(pages) != len(masks[name]):
            found.append(f"{name}: {len(pages)} images, {len(masks[name])} masks")
            continue
        for number, (image, mask) in enumerate(zip(pages, masks[name], strict=True)):
            if (image.height, image.width) != (mask.height, mask.width):
                page = f", page {number}" if len(pages) > 1 else ""
                turned = "; turned by 90 degrees" if (image.width, image.height) == (mask.height, mask.width) else ""
                found.append(
                    f"{name}{page}: image {image.height} x {image.width}, mask {mask.height} x {mask.width}{turned}"
                )
    if found:
        turned = " (photographs with an EXIF turn are read as they lie in the file)" if "turned" in str(found) else ""
        raise SegbenchError(
            f"{len(found)} masks are not of their image's size:\n    " + "\n    ".join(_lines(found)),
            "a mask of the image's height and width, and as many pages",
            f"export the masks anew, or remove these pairs{turned}",
        )
