"""What a user should look at in images and masks before a training, from the facts of a scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from segbench.data.folder.facts import COUNTED, ImageFacts, by_page
from segbench.data.folder.faults import some
from segbench.data.folder.split import Page, page_id


def findings(
    images: Mapping[str, Sequence[ImageFacts]],
    shown: Mapping[Page, NDArray[np.int64]],
    splits: Mapping[str, Sequence[Page]],
    classes: Sequence[str],
) -> Iterator[str]:
    """A sentence each on splits without a label, constant images, and classes of one image or of no training image.

    Args:
        images: a scan's facts of each page by name.
        shown: of each page the pixels of each class, and last of void, as `Classes.count`.
        splits: the pages of each split.
        classes: their names.
    """
    for split, places in splits.items():
        if places and not any(shown[place][:-1].any() for place in places):
            worth = {"train": "nothing to learn from", "val": "no score, and no best checkpoint"}.get(split, "no score")
            todo = "choose another split, or data.ignore_index"
            yield f"{split} has no labelled pixel, all of it is void: {worth}; {todo}"
    constant = [page_id(name, page, len(images[name])) for name, page, facts in by_page(images) if _is_constant(facts)]
    if constant:
        yield f"{len(constant)} images are constant, every pixel the same: {some(constant, 4)}"
    if len(shown) < 3:
        return
    for label, what in enumerate(classes):
        where = [place for place, counts in shown.items() if counts[label]]
        if len(where) == 1:
            name, page = where[0]
            holder = next((split for split, places in splits.items() if where[0] in places), "no split")
            yield f"{what} is in one image only, {page_id(name, page, len(images[name]))} ({holder})"
        elif where and not any(shown[place][label] for place in splits.get("train", ())):
            yield f"{what} is in {len(where)} images, and in none of train"


def _is_constant(facts: ImageFacts) -> bool:
    if facts.dtype in COUNTED:
        return all(squares * facts.filled == total * total for total, squares in facts.sums)
    return not any(deviations for _, deviations in facts.sums)
