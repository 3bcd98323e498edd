"""Which mask belongs to which image: two patterns of their names, given or guessed from the names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from segbench.errors import SegbenchError

ARROW = " -> "
Key = Callable[[str], str | None]
_SAMPLE = 500
"""Images that decide a guess."""

_SHARED = 0.8
"""Of the names, at least so many share what a guess takes for a prefix or suffix."""

_TOKENS = re.compile(r"[A-Za-z]+|\d+|[^A-Za-z\d]+")
_MOST_TOKENS = 4
_FOLDERS = re.compile(r"images?|imgs?|jpegimages|inputs?|pictures|photos|raw", re.IGNORECASE)
_MASK_FOLDERS = re.compile(
    r"(ground_?|1st_?)?(masks?|labels?|gts?|truths?|targets?|annotations?|manual|seg(mentations?)?|segmentationclass)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pairing:
    """Names without suffix pair where their asterisks stand for the same text: `*_training -> *_manual1`.

    A pattern without a slash is of the file's name, and the folders must be the same; one with a slash is of the whole
    path. Several asterisks must all agree.

    Attributes:
        image: the pattern of images.
        mask: that of masks, with as many asterisks.
    """

    image: str = "*"
    mask: str = "*"

    @staticmethod
    def of(text: str) -> Pairing:
        """From `IMAGE -> MASK`; without an arrow it is the pattern of masks, and images are `*`.

        Raises:
            SegbenchError: not two patterns with as many asterisks each.
        """
        image, arrow, mask = (part.strip() for part in str(text).partition("->"))
        image, mask = (image, mask) if arrow else ("*", image)
        if not image.count("*") or image.count("*") != mask.count("*"):
            raise SegbenchError(
                f"data.pairing={text}",
                "a pattern of images and one of masks, with an asterisk for what both share",
                "set data.pairing='*_training -> *_manual1' for 21_training.tif with 21_manual1.png",
            )
        return Pairing(image, mask)

    def __str__(self) -> str:
        return f"{self.image}{ARROW}{self.mask}"

    def image_key(self, stem: str) -> str | None:
        """What an image shares with its mask; None if its name does not fit."""
        return _key(self._expressions[0], stem)

    def mask_key(self, stem: str) -> str | None:
        """As `image_key`, of a mask."""
        return _key(self._expressions[1], stem)

    @cached_property
    def _expressions(self) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
        return _expression(self.image), _expression(self.mask)


_TRACKED = Pairing("t*", "SEG/man_seg*")
"""A sequence of the Cell Tracking Challenge and its segmentations: t000.tif with SEG/man_seg000.tif of 01 and 01_GT."""


def _expression(pattern: str) -> re.Pattern[str] | None:
    if pattern == "*":
        return None
    folder = "" if "/" in pattern else "(?P<folder>.*/)?"
    return re.compile(folder + re.escape(pattern).replace(r"\*", "(.+)" if "/" in pattern else "([^/]+)"))


def _key(expression: re.Pattern[str] | None, stem: str) -> str | None:
    if expression is None:
        return stem
    found = expression.fullmatch(stem)
    if found is None:
        return None
    folder = found["folder"] or "" if "folder" in expression.groupindex else ""
    return folder + "\n".join(found.groups()[len(expression.groupindex) :])


@dataclass(frozen=True)
class Matched:
    """Pairs of names.

    Attributes:
        pairs: the mask's stem by the image's.
        other_case: how many of them differ in upper and lower case beside the pattern.
    """

    pairs: Mapping[str, str]
    other_case: int


def match(pairing: Pairing, images: Iterable[str], masks: Iterable[str], any_case: bool = True) -> Matched:
    """Pair by a pattern: exactly, then what is left without regard to case, unless that is ambiguous.

    Args:
        pairing: the patterns.
        images: stems.
        masks: stems.
        any_case: whether to try the second; if no name pairs exactly, it is tried anyway.
    """
    keys, there = _keyed(pairing.image_key, images), _keyed(pairing.mask_key, masks)
    pairs = {image: there[key] for key, image in keys.items() if key in there}
    if len(pairs) == len(keys) or (pairs and not any_case):
        return Matched(pairs, 0)
    folded, there_folded = (_unique({key: stem for key, stem in each.items()}) for each in (keys, there))
    taken = set(pairs.values())
    others = {
        image: there_folded[key]
        for key, image in folded.items()
        if image not in pairs and key in there_folded and there_folded[key] not in taken
    }
    return Matched(pairs | others, len(others))


def _keyed(key: Key, stems: Iterable[str]) -> dict[str, str]:
    return {shared: stem for stem in stems if (shared := key(stem)) is not None}


def _unique(stems: Mapping[str, str]) -> dict[str, str]:
    """Stems by their key in lower case, where only one has it."""
    counts = Counter(key.casefold() for key in stems)
    return {key.casefold(): stem for key, stem in stems.items() if counts[key.casefold()] == 1}


def guess(images: Sequence[str], masks: Sequence[str]) -> list[Pairing]:
    """The patterns that pair most images of two lists, whose names have nothing in common as they are.

    Tried is what most images, and most masks, have before or after the part in which they differ, in whole words and
    numbers: so `im1` never pairs with the mask of `im10`.

    Args:
        images: stems.
        masks: stems.

    Returns:
        one pattern; several that pair differently, of which none can be chosen; or none.
    """
    sample = [images[at * len(images) // min(len(images), _SAMPLE)] for at in range(min(len(images), _SAMPLE))]
    rules = [
        Pairing(f"{before}*{after}", f"{mask_before}*{mask_after}")
        for before, after in product(*_affixes(sample))
        for mask_before, mask_after in product(*_affixes(masks))
    ]
    rules.append(_TRACKED)
    keys = {rule.image: _meaningful(rule.image_key, sample) for rule in rules}
    there = {rule.mask: _meaningful(rule.mask_key, masks) for rule in rules}
    found = {
        rule: {image: there[rule.mask][key] for key, image in keys[rule.image].items() if key in there[rule.mask]}
        for rule in rules
    }
    most = max(len(pairs) for pairs in found.values())
    if most < max(1, min(len(sample), len(masks)) / 2):
        return []
    best: dict[tuple[tuple[str, str], ...], Pairing] = {}
    for rule, pairs in sorted(found.items(), key=lambda item: (_is_ragged(keys[item[0].image]), len(str(item[0])))):
        if len(pairs) == most:
            best.setdefault(tuple(sorted(pairs.items())), rule)
    return list(best.values())


def _is_ragged(keys: Iterable[str]) -> bool:
    """Whether what names share starts or ends with a separator: `21_` of `21_training`."""
    name = next((key.rpartition("/")[2] for key in keys), "")
    return not (name[:1].isalnum() and name[-1:].isalnum())


def _meaningful(key: Key, stems: Iterable[str]) -> dict[str, str]:
    # A separator alone would pair anything.
    found = {shared: stem for shared, stem in _keyed(key, stems).items() if _ALNUM.search(shared)}
    return _unique(found)


_ALNUM = re.compile(r"[^\W_][^/\n]*\Z")


def _affixes(stems: Sequence[str]) -> tuple[list[str], list[str]]:
    """What most names start with and end in, in whole words and numbers; nothing first."""
    before, after = Counter[str](), Counter[str]()
    for stem in stems:
        tokens = _TOKENS.findall(stem.rpartition("/")[2])
        for count in range(1, min(len(tokens), _MOST_TOKENS) + 1):
            before["".join(tokens[:count])] += 1
            after["".join(tokens[-count:])] += 1
    least = _SHARED * len(stems)
    return ["", *(text for text, n in before.items() if n >= least)], ["", *(t for t, n in after.items() if n >= least)]


def guess_within(stems: Sequence[str]) -> list[Pairing]:
    """As `guess`, for one folder with both: `* -> *_mask`, `* -> mask_*`, or folders `images` and `masks`."""
    there = set(stems)
    found: Counter[Pairing] = Counter()
    for stem in stems:
        folder, slash, name = stem.rpartition("/")
        tokens = _TOKENS.findall(name)
        for count in range(1, min(len(tokens) - 1, _MOST_TOKENS) + 1):
            if f"{folder}{slash}{''.join(tokens[:-count])}" in there:
                found[Pairing("*", f"*{''.join(tokens[-count:])}")] += 1
            if f"{folder}{slash}{''.join(tokens[count:])}" in there:
                found[Pairing("*", f"{''.join(tokens[:count])}*")] += 1
    if len(stems) > 1 and not found:
        found.update(_by_folders(stems))
    if tracked := _by_sequences(stems):
        return tracked
    most = max(found.values(), default=0)
    return [rule for rule, count in found.items() if count == most and 2 * count >= _SHARED * len(stems)]


def _by_folders(stems: Sequence[str]) -> Iterator[Pairing]:
    """`*/images/* -> */masks/*` for each image whose mask has its name in such a folder beside its own."""
    words = [{part for stem in stems for part in stem.split("/")[:-1] if kind.fullmatch(part)} for kind in _KINDS]
    there = set(stems)
    for image, mask in product(*map(sorted, words)):
        for stem in stems:
            parts = stem.split("/")
            if image in parts[:-1]:
                at = parts.index(image)
                if "/".join([*parts[:at], mask, *parts[at + 1 :]]) in there:
                    above = "*/" if at else ""
                    yield Pairing(f"{above}{image}/*", f"{above}{mask}/*")


def _by_sequences(stems: Sequence[str]) -> list[Pairing]:
    """As `_TRACKED`, of a folder with all sequences; gold (GT) and silver truth (ST) are two ways."""
    masks = [match[1] for stem in stems if (match := re.fullmatch(r"(?:.*/)?\d+_(GT|ST)/SEG/man_seg\d+", stem))]
    above = "*/" if any(re.fullmatch(r".*/\d+/t\d+", stem) for stem in stems) else ""
    found = [Pairing(f"{above}*/t*", f"{above}*_{kind}/{_TRACKED.mask}") for kind in sorted(set(masks))]
    there = {rule: {*_keyed(rule.mask_key, stems)} for rule in found}
    return [rule for rule in found if there[rule] & {*_keyed(rule.image_key, stems)}]


_KINDS = (_FOLDERS, _MASK_FOLDERS)
