"""Grey and coloured images in one folder: the channels that all of them are read in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segbench.data.folder.facts import ImageFacts, by_page
from segbench.errors import SegbenchError

CHANNELS = ("auto", "grey", "rgb")
Pages = Mapping[str, Sequence[ImageFacts]]


@dataclass(frozen=True)
class Channelled:
    """Images after the rule.

    Attributes:
        pages: the facts of each page, by name, in the channels that are read.
        channels: `grey` or `rgb`, as `Reading.channels`; None: nothing is converted.
        mixed: whether some are converted.
        notes: what is converted, a sentence each with its count.
    """

    pages: Mapping[str, tuple[ImageFacts, ...]]
    channels: str | None
    mixed: bool
    notes: tuple[str, ...]


def in_one_kind(pages: Pages, given: str) -> Channelled:
    """Apply `data.channels`.

    `auto` leaves images of one kind as they are. Where grey and coloured ones are mixed, all are read as grey if every
    colour is grey, else all as RGB; transparency is dropped. Images of other numbers of channels are never converted.

    Args:
        pages: the facts of each page, by name; for `grey`, of images read as grey.
        given: `auto`, `grey` or `rgb`.

    Raises:
        SegbenchError: `grey` or `rgb` for images of other channels.
    """
    every = [facts for _, _, facts in by_page(pages)]
    kinds = Counter(facts.kind for facts in every)
    if given != "auto" and "" in kinds:
        foreign = sorted({facts.channels for facts in every if not facts.kind})
        raise SegbenchError(
            f"data.channels={given}, and images of {', '.join(map(str, foreign))} channels",
            "grey, grey with alpha, RGB or RGBA images",
            "leave data.channels out",
        )
    chosen = _auto(every, kinds) if given == "auto" else given
    if chosen is None or set(kinds) == {_STORED[chosen]}:
        return Channelled({name: tuple(each) for name, each in pages.items()}, chosen, False, tuple(_all_grey(every)))
    converted = {name: tuple(_converted(facts, chosen) for facts in each) for name, each in pages.items()}
    return Channelled(converted, chosen, True, tuple(_notes(kinds, every, chosen)))


_STORED = {"grey": "grey", "rgb": "RGB"}


def _auto(every: Sequence[ImageFacts], kinds: Mapping[str, int]) -> str | None:
    if "" in kinds:
        return None
    if len(kinds) == 1:
        # Other kinds are converted when the run predicts; transparency stays a channel.
        return {"grey": "grey", "RGB": "rgb"}.get(next(iter(kinds)))
    return "grey" if all(facts.is_grey for facts in every) else "rgb"


def _converted(facts: ImageFacts, chosen: str) -> ImageFacts:
    """The facts after `in_channels`: colours are grey here, or were read as grey."""
    first, three = facts.sums[:1], facts.sums[:3]
    return replace(facts, sums=first if chosen == "grey" else three if len(three) == 3 else first * 3)


def _notes(kinds: Mapping[str, int], every: Sequence[ImageFacts], chosen: str) -> Iterator[str]:
    wanted = _STORED[chosen]
    others = [f"{count} {kind}" for kind, count in kinds.items() if kind != wanted]
    yield f"of {len(every)} images, {' and '.join(others)} are read as {wanted} (data.channels)"
    if transparent := sum(map(_is_transparent, every)):
        yield f"{transparent} images are transparent in places, which is ignored"


def _is_transparent(facts: ImageFacts) -> bool:
    channels = {"RGBA": 4, "grey with alpha": 2}.get(facts.kind)
    if channels != facts.channels or np.dtype(facts.dtype).kind != "u":
        return False
    return facts.sums[-1][0] != np.iinfo(facts.dtype).max * facts.filled


def _all_grey(every: Sequence[ImageFacts]) -> Iterator[str]:
    if all(facts.channels == 3 and facts.is_grey for facts in every):
        yield "every image is grey, stored as RGB: data.channels=grey reads one channel"
