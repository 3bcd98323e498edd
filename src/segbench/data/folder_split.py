"""Which files of a folder train, select and score: shares drawn by a seed, or lists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from segbench.data.id_lists import read_list, refuse_shared
from segbench.errors import SegbenchError

Page = tuple[str, int]
"""A file's name and a page in it, from 0."""

SPLITS = ("train", "val", "test")


def by_shares(pages: Mapping[str, int], val: float, test: float, seed: int) -> tuple[dict[str, list[Page]], str]:
    """Split by whole files, so that the pages of a stack, which are alike, never fall on both sides.

    Where there are fewer files than splits (one stack, as a rule), every file is cut into contiguous blocks of pages:
    the first ones train, the last ones are the test.

    Args:
        pages: how many pages each file has, by name.
        val: the share of the files (of the pages, in blocks) that select, at least one unless it is 0.
        test: likewise, of those that score.
        seed: decides which files; a file's place follows from its name and the seed alone, so that adding a file
            moves others by a place at most.

    Returns:
        the pages of each split that has any, in the order of the files, and how they were chosen, in words.

    Raises:
        SegbenchError: shares that are none, or too few files.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise SegbenchError(
            f"data.val={val} and data.test={test}", "shares of the files that sum to less than 1", "lower them"
        )
    needed = 1 + (val > 0) + (test > 0)
    if len(pages) >= needed:
        drawn = sorted(pages, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
        chosen: dict[str, set[str]] = {}
        for split, count in _counts(len(drawn), val, test).items():
            chosen[split], drawn = set(drawn[:count]), drawn[count:]
        split_pages = {
            split: [(name, page) for name in pages if name in chosen[split] for page in range(pages[name])]
            for split in SPLITS
        }
        return _not_empty(split_pages), f"by whole files, data.seed={seed}"
    short = [name for name, count in pages.items() if count < needed]
    if short:
        only = ", ".join(short[:3])
        raise SegbenchError(
            f"{len(pages)} pair{'s' * (len(pages) != 1)} of images and masks ({only} of {pages[short[0]]} "
            f"page{'s' * (pages[short[0]] != 1)}) for {needed} splits",
            f"at least {needed} files, or stacks of at least {needed} pages",
            "add images, or do without a split: data.test=0, and data.val=0",
        )
    blocks: dict[str, list[Page]] = {split: [] for split in SPLITS}
    for name, count in pages.items():
        start = 0
        counts = _counts(count, val, test)
        for split in SPLITS:
            blocks[split] += [(name, page) for page in range(start, start + counts[split])]
            start += counts[split]
    return _not_empty(blocks), "by contiguous blocks of pages, the last ones test"


def _counts(total: int, val: float, test: float) -> dict[str, int]:
    counts = {name: max(round(share * total), 1) if share else 0 for name, share in (("test", test), ("val", val))}
    while sum(counts.values()) >= total:
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return {**counts, "train": total - sum(counts.values())}


def _not_empty(splits: Mapping[str, list[Page]]) -> dict[str, list[Page]]:
    return {name: pages for name, pages in splits.items() if pages}


def by_lists(pages: Mapping[str, int], lists: str | Mapping[str, str | None]) -> tuple[dict[str, list[Page]], str]:
    """Split as text files say: one image a line, without its suffix or with it; a stack comes with all its pages.

    Args:
        pages: how many pages each file has, by name without suffix.
        lists: a folder that holds train.txt and, if wanted, val.txt and test.txt; or the files by split.

    Returns:
        the pages of each split that has a list, in the list's order, and how they were chosen, in words.

    Raises:
        SegbenchError: no such list, none for training, images that are not there, or in two lists.
    """
    files = _files(lists)
    splits: dict[str, list[Page]] = {}
    for split, path in files.items():
        lines = read_list(path, f"data.lists, {split}", whole_lines=True)
        names = [line if line in pages else str(Path(line).with_suffix("")) for line in lines]
        unknown = [line for line, name in zip(lines, names, strict=True) if name not in pages]
        if unknown:
            shown = ", ".join(unknown[:10]) + (" ..." if len(unknown) > 10 else "")
            raise SegbenchError(
                f"{path} names {len(unknown)} images that are not there: {shown}",
                "the names of images in data.images, with or without their suffix",
                "correct the list",
            )
        splits[split] = [(name, page) for name in dict.fromkeys(names) for page in range(pages[name])]
    for first, second in combinations(splits, 2):
        named = tuple(dict.fromkeys(name for name, _ in splits[split]) for split in (first, second))
        remedy = "take them out of one of the two lists"
        refuse_shared(tuple(named[0]), tuple(named[1]), (str(files[first]), str(files[second])), remedy)
    return splits, f"by {', '.join(str(path) for path in files.values())}"


def _files(lists: str | Mapping[str, str | None]) -> dict[str, Path]:
    if isinstance(lists, str):
        files = {split: Path(lists) / f"{split}.txt" for split in SPLITS}
        files = {split: path for split, path in files.items() if path.is_file()}
        found = f"data.lists={lists} without train.txt"
    else:
        unknown = sorted(set(lists) - set(SPLITS))
        if unknown:
            raise SegbenchError(f"data.lists has {', '.join(unknown)}", " ".join(SPLITS), "correct data.lists")
        files = {split: Path(path) for split in SPLITS if (path := lists.get(split)) is not None}
        found = "data.lists without train"
    if "train" not in files:
        raise SegbenchError(
            found,
            "a folder with train.txt, val.txt and test.txt, or the files by split",
            "set data.lists=FOLDER, or data.lists='{train: A.txt, val: B.txt, test: C.txt}'",
        )
    return files


def digest(ids: Sequence[str]) -> str:
    """The first 12 hex digits of the sha256 of the ids, a newline after each: two splits with the same are the same."""
    return hashlib.sha256("".join(f"{name}\n" for name in ids).encode()).hexdigest()[:12]
