"""What is no mask: photographs, smoothed masks, instance ids; told apart by how values are spread over the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segbench.data.folder_scan import FEW_CODES, MOST_CODES, MaskFacts, by_page
from segbench.errors import SegbenchError

_RESTLESS = 0.25
"""Share of pixels that differ from the one before. Masks of real data sets stay below 0.1, photographs above 0.4."""


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


def _what(facts: MaskFacts) -> str:
    return "colours" if facts.kind == "colours" else "values"


def _refusal(found: str, action: str) -> SegbenchError:
    return SegbenchError(found, "masks with a value or a colour a class, at most 255", action)
