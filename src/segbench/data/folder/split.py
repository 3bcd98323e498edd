"""Splits of a folder's files into training, validation and test: shares drawn by a seed, or lists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from segbench.data.id_lists import read_list, refuse_shared
from segbench.errors import SegbenchError

Page = tuple[str, int]
"""A file's name and a page in it, from 0."""

SPLITS = ("train", "val", "test")


def by_shares(pages: Mapping[str, int], val: float, test: float, seed: int) -> tuple[dict[str, list[Page]], str]:
    """Split by whole files, so that the similar pages of a stack are never in two splits.

    With fewer files than splits (usually one stack), every file is cut into contiguous blocks of pages: the first ones
    train, the last ones are the test.

    Args:
        pages: how many pages each file has, by name.
        val: the share of the files (of the pages, in blocks) that select, at least one unless it is 0.
        test: likewise, of those that score.
        seed: decides which files; a file's rank depends on its name and the seed alone, so that adding a file moves
            others by at most one rank.

    Returns:
        the pages of each split that has any, in the order of the files, and how they were chosen, as text.

    Raises:
        SegbenchError: invalid shares, or too few files.
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
            "add images, or omit a split: data.test=0, and data.val=0",
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
    """Split by lists: one image per line, with or without its suffix.

    A stack's name stands for all its pages, a page's id such as `stack-0007` for one of them.

    Args:
        pages: how many pages each file has, by name without suffix.
        lists: a folder with train.txt and optionally val.txt and test.txt; the files by split; or the splits.json of
            another run.

    Returns:
        the pages of each split that has a list, in the list's order, and how they were chosen, as text.

    Raises:
        SegbenchError: a missing list, none for training, or images that do not exist or are in two lists.
    """
    named = {name: [(name, page) for page in range(count)] for name, count in pages.items()}
    for name, count in pages.items():
        named |= {page_id(name, page, count): [(name, page)] for page in range(count)} if count > 1 else {}
    splits: dict[str, list[Page]] = {}
    read = _read(lists)
    for split, (source, lines) in read.items():
        found = {line: named.get(line) or named.get(str(Path(line).with_suffix(""))) for line in lines}
        unknown = [line for line, each in found.items() if each is None]
        if unknown:
            shown = ", ".join(unknown[:10]) + (" ..." if len(unknown) > 10 else "")
            raise SegbenchError(
                f"{source} names {len(unknown)} images that are not there: {shown}",
                "the names of images in data.images, with or without their suffix",
                "correct the list",
            )
        splits[split] = list(dict.fromkeys(page for each in found.values() for page in each or ()))
    ids = {split: [page_id(name, page, pages[name]) for name, page in chosen] for split, chosen in splits.items()}
    refuse_shared([(source, ids[split]) for split, (source, _) in read.items()], "remove them from one of the two")
    return splits, f"by {', '.join(dict.fromkeys(source for source, _ in read.values()))}"


def page_id(name: str, page: int, pages: int) -> str:
    """The id of a page: the file's name, in a stack with the page's number."""
    return f"{name}-{page:04d}" if pages > 1 else name


def _read(lists: str | Mapping[str, str | None]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """By split, the name of its list and its lines."""
    if isinstance(lists, str) and lists.endswith(".json"):
        try:
            content = json.loads(Path(lists).read_text())
            if not isinstance(content, dict) or not content.get("train"):
                raise ValueError("no images under train")
            named = {split: tuple(map(str, content[split])) for split in SPLITS if content.get(split)}
            return {split: (f"{split} of {lists}", names) for split, names in named.items()}
        except (OSError, ValueError, TypeError) as error:
            raise SegbenchError(
                f"data.lists={lists} cannot be read: {error}", "the splits.json of a run", "correct data.lists"
            ) from error
    files = _files(lists)
    return {
        split: (str(path), read_list(path, f"data.lists, {split}", whole_lines=True)) for split, path in files.items()
    }


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
