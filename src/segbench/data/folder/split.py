"""Splits of a folder's files into training, validation and test: shares or folds drawn by a seed, folders, or lists."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from segbench.config.handed_over import read_json
from segbench.data.folder.faults import some
from segbench.data.id_lists import read_list, refuse_shared
from segbench.errors import SegbenchError

Page = tuple[str, int]
"""A file's name and a page in it, from 0."""

SPLITS = ("train", "val", "test")


FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names of folders that are a split."""

Groups = Mapping[str, Sequence[str]]
"""The files of each group, which no split parts."""


def grouped(names: Sequence[str], group: str | None) -> Groups:
    """Files by what their names say belongs together.

    Args:
        names: without suffix.
        group: a regular expression; what it matches at the start of a name, or its brackets if it has any, names the
            group: `[^_]+` is all before the first underscore. `folder` groups by folder. None: each file is one.

    Raises:
        SegbenchError: no regular expression, or names that it does not match.
    """
    if group is None:
        return {name: (name,) for name in names}
    try:
        expression = re.compile(r"(?:.*/)?" if group == "folder" else str(group))
    except re.error as error:
        raise SegbenchError(
            f"data.group={group}: {error}",
            "a regular expression for the start of a name, or folder",
            "set data.group='[^_]+' for all before the first underscore",
        ) from error
    found: dict[str, list[str]] = {}
    unmatched = []
    for name in names:
        match = expression.match(name)
        if match is None:
            unmatched.append(name)
        else:
            found.setdefault("\n".join(part or "" for part in match.groups()) or match[0], []).append(name)
    if unmatched:
        raise SegbenchError(
            f"data.group={group} matches {len(unmatched)} of {len(names)} names not: {some(unmatched, 4)}",
            "a group for every image",
            "correct data.group",
        )
    return found


def by_shares(
    pages: Mapping[str, int], val: float, test: float, seed: int, group: str | None = None
) -> tuple[dict[str, list[Page]], str]:
    """Split by whole files, so that the similar pages of a stack are never in two splits.

    With fewer files than splits (usually one stack), every file is cut into contiguous blocks of pages: the first ones
    train, the last ones are the test.

    Args:
        pages: how many pages each file has, by name.
        val: the share of the files (of the groups; of the pages, in blocks) that select, at least one unless it is 0.
        test: likewise, of those that score.
        seed: decides which files; a file's rank depends on its name and the seed alone, so that adding a file moves
            others by at most one rank.
        group: as in `grouped`; groups are drawn in place of files.

    Returns:
        the pages of each split that has any, in the order of the files, and how they were chosen, as text.

    Raises:
        SegbenchError: invalid shares, or too few files.
    """
    _check_shares(val, test)
    groups, needed = grouped(list(pages), group), 1 + (val > 0) + (test > 0)
    if len(groups) >= needed:
        drawn = _drawn(groups, seed)
        chosen: dict[str, set[str]] = {}
        for split, count in _counts(len(drawn), val, test).items():
            chosen[split], drawn = _files(groups, drawn[:count]), drawn[count:]
        return _pages_of(pages, chosen), f"by whole {_units(groups, group)}, data.seed={seed}"
    _refuse_few(pages, groups, group, needed)
    blocks: dict[str, list[Page]] = {split: [] for split in SPLITS}
    for name, count in pages.items():
        start = 0
        counts = _counts(count, val, test)
        for split in SPLITS:
            blocks[split] += [(name, page) for page in range(start, start + counts[split])]
            start += counts[split]
    return _not_empty(blocks), "by contiguous blocks of pages, the last ones test"


def by_folds(
    pages: Mapping[str, int], folds: int, fold: int | None, test: float, seed: int, group: str | None = None
) -> tuple[dict[str, list[Page]], str]:
    """One of k folds is the validation split, the others train; the test is the same in all of them.

    Args:
        pages: how many pages each file has, by name.
        folds: k.
        fold: from 0.
        test: the share of the files (of the groups) that is set apart before the folds are made; 0: none.
        seed: as in `by_shares`.
        group: as in `grouped`.

    Returns:
        as `by_shares`.

    Raises:
        SegbenchError: a fold that is none, or fewer files than folds.
    """
    _check_shares(0, test)
    if not (folds >= 2 and fold is not None and 0 <= fold < folds):
        raise SegbenchError(
            f"data.folds={folds} and data.fold={fold}",
            "two folds or more, and one of them, counted from 0",
            f"set data.fold=0 to {max(folds, 2) - 1}",
        )
    groups, needed = grouped(list(pages), group), folds + (test > 0)
    how = f"fold {fold} of {folds}"
    if len(groups) >= needed:
        drawn = _drawn(groups, seed)
        # The most that leaves each fold a file.
        apart = min(max(round(test * len(drawn)), 1), len(drawn) - folds) if test else 0
        rest = drawn[apart:]
        chosen = {
            "train": _files(groups, [name for at, name in enumerate(rest) if at % folds != fold]),
            "val": _files(groups, rest[fold::folds]),
            "test": _files(groups, drawn[:apart]),
        }
        return _pages_of(pages, chosen), f"{how} by whole {_units(groups, group)}, data.seed={seed}"
    _refuse_few(pages, groups, group, needed)
    blocks: dict[str, list[Page]] = {split: [] for split in SPLITS}
    for name, count in pages.items():
        apart = min(max(round(test * count), 1), count - folds) if test else 0
        rest_count = count - apart
        first, last = rest_count * fold // folds, rest_count * (fold + 1) // folds
        for page in range(count):
            split = "test" if page >= rest_count else "val" if first <= page < last else "train"
            blocks[split].append((name, page))
    return _not_empty(blocks), f"{how} by contiguous blocks of pages"


def folders_of(names: Sequence[str]) -> dict[str, str]:
    """The split of each name that has a folder named as one: `train/a`, `images/validation/a`."""
    splits = {word: split for split, words in FOLDERS.items() for word in words}
    found = {}
    for name in names:
        parts = name.split("/")[:-1]
        if (split := next((splits[part.lower()] for part in parts if part.lower() in splits), None)) is not None:
            found[name] = split
    return found


def by_folders(pages: Mapping[str, int], val: float, seed: int) -> tuple[dict[str, list[Page]], str]:
    """Split by folders named train, val and test (or training, validation ...).

    Args:
        pages: how many pages each file has, by name.
        val: the share of the training files that select where no folder is for it.
        seed: as in `by_shares`.

    Returns:
        as `by_shares`; files in no such folder are in no split.

    Raises:
        SegbenchError: no folder for training.
    """
    found = folders_of(list(pages))
    counts = Counter(found.values())
    if not counts["train"]:
        raise SegbenchError(
            f"data.split=folders and no image in a folder train; {len(found)} of {len(pages)} in val or test",
            "folders train, val and test among the images and masks",
            "set data.split=shares",
        )
    chosen = {split: {name for name, of in found.items() if of == split} for split in SPLITS}
    how = "by folders"
    if not chosen["val"] and val:
        training = {name: count for name, count in pages.items() if name in chosen["train"]}
        drawn, also = by_shares(training, val, 0, seed)
        return drawn | _pages_of(pages, chosen | {"train": set()}), f"{how}; val {val:g} of train {also}"
    return _pages_of(pages, chosen), how


def _check_shares(val: float, test: float) -> None:
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise SegbenchError(
            f"data.val={val} and data.test={test}", "shares of the files that sum to less than 1", "lower them"
        )


def _drawn(groups: Groups, seed: int) -> list[str]:
    return sorted(groups, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def _files(groups: Groups, drawn: Sequence[str]) -> set[str]:
    return {name for group in drawn for name in groups[group]}


def _units(groups: Groups, group: str | None) -> str:
    return "files" if group is None else f"groups ({len(groups)}, data.group={group})"


def _pages_of(pages: Mapping[str, int], chosen: Mapping[str, set[str]]) -> dict[str, list[Page]]:
    return _not_empty(
        {
            split: [(name, page) for name in pages if name in chosen[split] for page in range(pages[name])]
            for split in SPLITS
        }
    )


def _refuse_few(pages: Mapping[str, int], groups: Groups, group: str | None, needed: int) -> None:
    """Raise unless every file, and no group beside, can be cut into so many blocks."""
    if group is not None:
        raise SegbenchError(
            f"{len(groups)} groups by data.group={group} for {needed} splits or folds",
            f"at least {needed} groups",
            "choose a finer data.group, fewer folds, or omit a split: data.test=0, and data.val=0",
        )
    short = [name for name, count in pages.items() if count < needed]
    if short:
        only = ", ".join(short[:3])
        raise SegbenchError(
            f"{len(pages)} pair{'s' * (len(pages) != 1)} of images and masks ({only} of {pages[short[0]]} "
            f"page{'s' * (pages[short[0]] != 1)}) for {needed} splits",
            f"at least {needed} files, or stacks of at least {needed} pages",
            "add images, or omit a split: data.test=0, and data.val=0",
        )


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
            content = read_json(Path(lists), dict[str, tuple[str | int, ...]])
        except SegbenchError as error:
            raise SegbenchError(error.found, "the splits.json of a run", "correct data.lists") from error
        if not content.get("train"):
            raise SegbenchError(f"{lists} has no images under train", "the splits.json of a run", "correct data.lists")
        return {
            split: (f"{split} of {lists}", tuple(map(str, content[split]))) for split in SPLITS if content.get(split)
        }
    files = _lists_of(lists)
    return {
        split: (str(path), read_list(path, f"data.lists, {split}", whole_lines=True)) for split, path in files.items()
    }


def _lists_of(lists: str | Mapping[str, str | None]) -> dict[str, Path]:
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
