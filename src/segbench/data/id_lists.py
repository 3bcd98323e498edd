"""Lists of image ids: the authors' shipped ones, missing files, held-out images, and refusal of splits that leak."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from importlib import resources
from itertools import combinations
from pathlib import Path

from segbench.errors import SegbenchError


def shipped(name: str) -> tuple[str, ...]:
    """The ids of one of the FCN authors' lists (github shelhamer/fcn.berkeleyvision.org at 1305c73, `data/`).

    Args:
        name: `pascal_seg11valid`, `nyud_train`, `nyud_val`, `nyud_test`, `siftflow_trainval` or `siftflow_test`.

    Raises:
        SegbenchError: the installed file is not the authors'.
    """
    folder = resources.files("segbench.data") / "splits"
    lines = (line.split() for line in (folder / "splits.sha256").read_text().splitlines())
    digests = {file: digest for digest, file in lines}
    content = (folder / f"{name}.txt").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != digests[f"{name}.txt"]:
        raise SegbenchError(
            f"segbench/data/splits/{name}.txt has sha256 {digest}",
            f"{digests[f'{name}.txt']}, the FCN authors' list",
            "reinstall segbench; keep your own lists as files next to your data",
        )
    return tuple(content.decode().split())


def read_list(path: Path, key: str, whole_lines: bool = False, action: str | None = None) -> tuple[str, ...]:
    """The ids of a text file, one per line: its first word.

    Args:
        path: the file.
        key: the config key that named it, for messages.
        whole_lines: take the whole line, as ids that are file names may contain spaces.
        action: what to do about a file that is missing or no text; None: set the key.

    Raises:
        SegbenchError: the file is missing, not text, empty, or names an id twice.
    """
    if not path.is_file():
        raise SegbenchError(
            f"no file {path} ({key})", "a text file with one image id per line", action or f"set {key} to one"
        )
    try:
        lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
        ids = tuple(line if whole_lines else line.split()[0] for line in lines if line)
    except UnicodeDecodeError as error:
        raise SegbenchError(
            f"{path} ({key}) is not text: {error}", "one image id per line", action or f"set {key}"
        ) from error
    twice = sorted(name for name, times in Counter(ids).items() if times > 1)
    if twice or not ids:
        found = f"{len(twice)} ids twice, first {', '.join(twice[:3])}" if twice else "no id"
        raise SegbenchError(f"{path} ({key}) has {found}", "every image once", "correct the file")
    return ids


def find_release(root: Path, inside: str) -> Path | None:
    """`root`, or the folder directly in it (an archive often has one at its top), that contains the folder `inside`."""
    folders = (root, *sorted(path for path in root.iterdir() if path.is_dir())) if root.is_dir() else ()
    return next((folder for folder in folders if (folder / inside).is_dir()), None)


def select(
    lists: Mapping[str, Sequence[str]],
    files: Mapping[str, Sequence[Container[str]]],
    root: Path,
    remedy: str,
    partial: bool = False,
    hold_out: int = 0,
    titles: Mapping[str, str] | None = None,
) -> tuple[dict[str, tuple[str, ...]], str]:
    """The ids of each split whose files exist.

    Args:
        lists: all ids by split.
        files: by split, containers of ids (of images, of labels ...); an id must be in each of them.
        root: the data set's folder, for messages.
        remedy: where the files come from.
        partial: skip ids without files; the user's choice, never a fallback.
        hold_out: images of `train` to set apart as split `val`, see `set_apart`.
        titles: what to call the splits; None: their names.

    Returns:
        ids by split, and their numbers as text: `train 736` each, or `train 229 of 736 (data.partial)`.

    Raises:
        SegbenchError: files are missing and `partial` is false, or none is there; or as `set_apart`.
    """
    used, counts = {}, []
    for split, ids in lists.items():
        title = (titles or {}).get(split, split)
        missing = [name for name in ids if any(name not in container for container in files[split])]
        if missing and not partial:
            raise SegbenchError(
                f"{title} in {root}: {len(missing)} of {len(ids)} images lack their files, "
                f"first {', '.join(missing[:3])}",
                "every image of the list",
                f"{remedy}, or use only the images that are there with data.partial=true",
            )
        without = set(missing)
        used[split] = tuple(name for name in ids if name not in without)
        counts.append(f"{title} {len(used[split])}" + (f" of {len(ids)} (data.partial)" if missing else ""))
    if not any(used.values()):
        raise SegbenchError(
            f"{' and '.join(counts)} in {root}: no image of any list has its files",
            "some images that are there, with data.partial=true",
            f"{remedy}, or set data.root",
        )
    if hold_out:
        used["train"], used["val"] = set_apart(used["train"], hold_out)
        counts.append(f"{hold_out} of train held out for selection")
    return used, ", ".join(counts)


def set_apart(ids: Sequence[str], count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Set `count` images apart for selection.

    The choice depends only on the ids (the smallest sha256), not on their order or a seed: adding an image changes it
    by at most one.

    Returns:
        the other ids and the ones set apart, each in the given order.

    Raises:
        SegbenchError: `count` is negative, or leaves nothing to train on.
    """
    if not 0 <= count < max(len(ids), 1):
        raise SegbenchError(
            f"data.hold_out={count} of {len(ids)} training images", "0 or more, and fewer than all", "lower it"
        )
    apart = set(sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])
    return tuple(name for name in ids if name not in apart), tuple(name for name in ids if name in apart)


def refuse_shared(lists: Iterable[tuple[str, Sequence[str]]], remedy: str) -> None:
    """Raise if two lists share images: a score on images that were trained on is a leak.

    Args:
        lists: pairs of a list's name, as in the config, and its ids.
        remedy: what to do about it.

    Raises:
        SegbenchError: with the number of shared ids.
    """
    for (one, ids), (other, other_ids) in combinations(lists, 2):
        trained = set(ids)
        shared = [name for name in other_ids if name in trained]
        if shared:
            raise SegbenchError(
                f"{one} and {other} share {len(shared)} of {len(other_ids)} images, first {', '.join(shared[:3])}: "
                "a score on them would be a leak",
                "no image in two of these lists",
                remedy,
            )


def digest(ids: Iterable[str]) -> str:
    """The hexadecimal sha256 of the ids, a newline after each: it identifies a split."""
    return hashlib.sha256("".join(f"{name}\n" for name in ids).encode()).hexdigest()


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as runs: `0-3 and 7 and 9-10`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " and ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
