"""Errors that list, file by file, images and masks that do not fit together and files that are not masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.data.folder.facts import FEW_CODES, MOST_CODES, ImageFacts, MaskFacts, by_page
from segbench.errors import SegbenchError

_RESTLESS = 0.25
"""Share of pixels that differ from the previous one: below 0.1 in masks of real data sets, above 0.4 in photographs."""

_END = 0.05
"""Of a mask of two values that was smoothed, each still has at least this share of the pixels."""

_FEW_BETWEEN, _RARE, _EDGES = 8, 0.01, 0.1
"""Between its two values a smoothed mask has more values than this, on smaller shares of the pixels each and in all."""


def some(names: Sequence[str], count: int = 10) -> str:
    """The first names, and how many more there are."""
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")


def refuse_no_masks(
    folder: Path, masks: Mapping[str, Sequence[MaskFacts]], pixels: Mapping[int, int], most: int | None
) -> None:
    """Raise if files are not masks, saying what they probably are.

    Args:
        folder: of the masks, for messages.
        masks: a scan's facts.
        pixels: of each code, over all masks.
        most: the largest number of codes; None if one class takes all remaining ones.
    """
    pages = by_page(masks)
    crowded = [(name, facts) for name, _, facts in pages if facts.distinct > FEW_CODES]
    photos = [name for name, facts in crowded if facts.runs > _RESTLESS * facts.height * facts.width]
    overflowing = [name for name, facts in crowded if facts.distinct and not facts.codes]
    if photos and most is not None:
        refuse_interpolated(folder, {name: facts for name, facts in crowded if name in photos}, len(pages))
        facts = next(facts for name, facts in crowded if name == photos[0])
        what = "colours" if facts.kind == "colours" else "values"
        raise _refusal(
            f"{folder / photos[0]} has {facts.distinct} {what} that change from pixel to pixel, "
            f"as {len(photos)} of {len(pages)} masks have too many values: probably photographs",
            f"check that data.masks={folder} contains the masks, and data.images the images",
        )
    if not overflowing and (most is None or len(pixels) <= most):
        return
    crowded.sort(key=lambda entry: -entry[1].distinct)
    shown = ", ".join(f"{name} {facts.distinct}" for name, facts in crowded[:3])
    total = sum(pixels.values())
    common = sum(sorted(pixels.values(), reverse=True)[:16])
    if overflowing:
        raise _refusal(
            f"{folder / overflowing[0]} has more than {MOST_CODES} different values",
            "renumber the objects, or cut the masks into smaller ones",
        )
    if common > 0.9 * total:
        raise _refusal(
            f"the masks in {folder} have {len(pixels)} different values ({shown} ...), but 16 of them have "
            f"{common / total:.1%} of the pixels: probably smoothed, by resizing with interpolation or by JPEG",
            "export the masks again; resize masks only with nearest neighbour",
        )
    raise _refusal(
        f"the masks in {folder} have {len(pixels)} different values ({shown} ...): "
        "probably instance ids, one value per object",
        "make one class of all objects: data.classes='{background: 0, object: rest}'",
    )


def refuse_interpolated(folder: Path, crowded: Mapping[str, MaskFacts], count: int) -> None:
    """Raise if pages of many values are masks of two values whose edges were smoothed, not photographs.

    Most of their pixels have the lowest or the highest value, and each of the two has its share.

    Args:
        folder: of the masks, for messages.
        crowded: pages whose values change from pixel to pixel, by name.
        count: of all pages.
    """
    for facts in crowded.values():
        ends = facts.pixels[:1] + facts.pixels[-1:]
        if (
            facts.kind == "colours"
            or min(ends, default=0) < _END * sum(facts.pixels)
            or sum(ends) < sum(facts.pixels) / 2
        ):
            return
    name, facts = next(iter(crowded.items()))
    between = 1 - (facts.pixels[0] + facts.pixels[-1]) / sum(facts.pixels)
    raise _refusal(
        f"{folder / name} has {facts.distinct - 2} values between {facts.codes[0]} and {facts.codes[-1]}, on "
        f"{between:.1%} of its pixels, as have {len(crowded)} of {count} masks: probably smoothed, by resizing with "
        "interpolation, anti-aliased drawing or JPEG",
        "export the masks again; resize masks only with nearest neighbour",
    )


def refuse_smoothed(folder: Path, pixels: Mapping[int, int]) -> None:
    """Raise if the lowest and the highest of many values have regions, and those between only edges.

    A mask of two values looks like this after resizing with interpolation, anti-aliased drawing or JPEG.

    Args:
        folder: of the masks, for messages.
        pixels: of each value that is not void, over all masks.
    """
    if len(pixels) <= _FEW_BETWEEN:
        return
    low, *between, high = sorted(pixels)
    total, edges = sum(pixels.values()), sum(pixels[code] for code in between)
    rare = max(pixels[code] for code in between) < _RARE * total
    if len(between) > _FEW_BETWEEN and rare and edges < min(pixels[low], pixels[high], _EDGES * total):
        raise SegbenchError(
            f"the masks in {folder} have {len(between)} values between {low} and {high}, "
            f"on {edges / total:.2%} of the pixels: probably smoothed at the edges, by resizing with interpolation, "
            "anti-aliased drawing or JPEG",
            "masks with one value or colour per class",
            "export the masks again; resize masks only with nearest neighbour. Or define the classes: "
            f"data.classes='{{background: {low}, object: rest}}'",
        )


def _refusal(found: str, action: str) -> SegbenchError:
    return SegbenchError(found, "masks with one value or colour per class, at most 255", action)


def refuse_unusable(faults: Sequence[SegbenchError]) -> None:
    """Raise if files cannot be used, listing all of them, with their advice if it is the same for all."""
    if not faults:
        return
    listed = "\n    ".join(_lines(sorted(fault.found for fault in faults)))
    advice = {(fault.expected, fault.action) for fault in faults}
    several = "whole image files, and masks in lossless formats", "repair or remove them"
    expected, action = advice.pop() if len(advice) == 1 else several
    raise SegbenchError(f"{len(faults)} file{'s' * (len(faults) > 1)} cannot be used:\n    {listed}", expected, action)


def _lines(sentences: Sequence[str], count: int = 10) -> list[str]:
    more = len(sentences) - count
    return [*sentences[:count], *([f"... and {more} more"] if more > 0 else [])]


def refuse_mixed(images: Mapping[str, Sequence[ImageFacts]]) -> None:
    """Raise if images differ in channels or depth, giving the kind of most of them and the others by name."""
    depth = "one depth: a value must mean the same in every image", "convert all images to one depth"
    for key, what, expected, action in (
        ("channels", "numbers of channels", "one number of channels", "convert the few to the kind of the many"),
        ("dtype", "types of values", *depth),
    ):
        groups: dict[Any, list[str]] = {}
        for name, _, facts in by_page(images):
            groups.setdefault(getattr(facts, key), []).append(name)
        if len(groups) > 1:
            (most, names), *others = sorted(groups.items(), key=lambda entry: -len(entry[1]))
            shown = [f"{len(names)} of {most}"] + [f"{len(few)} of {value} ({some(few)})" for value, few in others]
            raise SegbenchError(f"images of different {what}: {', '.join(shown)}", expected, action)


def refuse_other_sizes(
    images: Mapping[str, Sequence[ImageFacts]], masks: Mapping[str, Sequence[MaskFacts]], exif: str
) -> None:
    """Raise if masks differ from their image in height, width or number of pages, listing all.

    Args:
        images: facts by the pair's name.
        masks: likewise.
        exif: how they are read, which the advice is to read them the other way.
    """
    found = []
    for name, pages in images.items():
        if len(pages) != len(masks[name]):
            found.append(f"{name}: {len(pages)} images, {len(masks[name])} masks")
            continue
        for number, (image, mask) in enumerate(zip(pages, masks[name], strict=True)):
            if (image.height, image.width) != (mask.height, mask.width):
                page = f", page {number}" if len(pages) > 1 else ""
                turned = "; rotated by 90 degrees" if (image.width, image.height) == (mask.height, mask.width) else ""
                found.append(
                    f"{name}{page}: image {image.height} x {image.width}, mask {mask.height} x {mask.width}{turned}"
                )
    if found:
        rotated = "rotated" in str(found)
        other = {"ignore": "turn", "turn": "ignore"}[exif]
        how = {"ignore": "as they are stored", "turn": "by their EXIF rotation"}[other]
        turned = f"; or read photographs {how} with data.exif={other}" if rotated else ""
        if (axes := _axes_meant(images, masks)) is not None:
            raise SegbenchError(
                f"{len(found)} masks differ from their image in number of pages:\n    " + "\n    ".join(_lines(found)),
                "an image for each mask",
                f"if the pages of an image are its channels, set data.axes={axes}",
            )
        raise SegbenchError(
            f"{len(found)} masks differ from their image in size:\n    " + "\n    ".join(_lines(found)),
            "a mask with the image's height, width and number of pages",
            f"export the masks again, or remove these pairs{turned}",
        )


def _axes_meant(images: Mapping[str, Sequence[ImageFacts]], masks: Mapping[str, Sequence[MaskFacts]]) -> str | None:
    """The axes by which every image of many pages is one for its mask, if there are any."""
    for axes in ("CYX", "YXC", "YCX"):
        sizes = []
        for name, pages in images.items():
            across = {"CYX": (pages[0].height, pages[0].width), "YXC": (len(pages), pages[0].height)}
            across["YCX"] = (len(pages), pages[0].width)
            sizes.append((across[axes], (masks[name][0].height, masks[name][0].width)))
        one_each = all(len(pages) > 1 and len(masks[name]) == 1 for name, pages in images.items())
        if one_each and all(size == wanted for size, wanted in sizes):
            return axes
    return None
