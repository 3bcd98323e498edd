"""Lists of image ids: the authors' own, shipped and checked; held-out images; and the refusal of splits that leak."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
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
            "install segbench again; lists of your own are files beside your data",
        )
    return tuple(content.decode().split())


def read_list(path: Path, key: str, whole_lines: bool = False) -> tuple[str, ...]:
    """The ids of a text file, one a line; of several words in a line the first counts.

    Args:
        path: the file.
        key: the config key that named it, for messages.
        whole_lines: an id may have spaces in it, as file names do: all words of a line count.

    Raises:
        SegbenchError: no such file, no text, no id, or an id that stands twice.
    """
    if not path.is_file():
        raise SegbenchError(f"no file {path} ({key})", "a text file with one image id a line", f"set {key} to one")
    try:
        lines = (line.strip() for line in path.read_text().splitlines())
        ids = tuple(line if whole_lines else line.split()[0] for line in lines if line)
    except UnicodeDecodeError as error:
        raise SegbenchError(f"{path} ({key}) is no text: {error}", "one image id a line", f"set {key}") from error
    twice = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    if twice or not ids:
        found = f"{len(twice)} ids twice, first {', '.join(twice[:3])}" if twice else "no id"
        raise SegbenchError(f"{path} ({key}) holds {found}", "every image once", "correct the file")
    return ids


def set_apart(ids: Sequence[str], count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Set `count` images apart for selection.

    The choice is a function of the ids alone (the smallest sha256), not of their order or of a seed: adding an image
    changes it by one at most.

    Returns:
        the others and the ones set apart, each in the order given.

    Raises:
        SegbenchError: a negative count, or nothing would be left to train on.
    """
    if not 0 <= count < max(len(ids), 1):
        raise SegbenchError(
            f"data.hold_out={count} of {len(ids)} training images", "0 or more, and fewer than all", "lower it"
        )
    apart = set(sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])
    return tuple(name for name in ids if name not in apart), tuple(name for name in ids if name in apart)


def refuse_shared(train: Sequence[str], other: Sequence[str], names: tuple[str, str], remedy: str) -> None:
    """Raise where images are both trained on and scored.

    Args:
        train: training ids.
        other: ids that are scored.
        names: of the two lists, as the config says them.
        remedy: what to do about it.

    Raises:
        SegbenchError: with the number of shared ids.
    """
    seen = set(train)
    shared = [name for name in other if name in seen]
    if shared:
        raise SegbenchError(
            f"{names[0]} and {names[1]} share {len(shared)} of {len(other)} images, first {', '.join(shared[:3])}: "
            "a score on them would be a leak",
            "no image both trained on and scored",
            remedy,
        )


def present(ids: Sequence[str], lacking: Sequence[str], what: str, partial: bool, remedy: str) -> tuple[str, ...]:
    """The ids whose files are there.

    Args:
        ids: all ids of the list.
        lacking: those without a file.
        what: the list and the folders, for messages.
        partial: whether some may lack; it is a choice of the user, never a fallback.
        remedy: where the files come from.

    Raises:
        SegbenchError: some lack and `partial` is false.
    """
    if lacking and not partial:
        raise SegbenchError(
            f"{what}: {len(lacking)} of {len(ids)} images lack their files, first {', '.join(lacking[:3])}",
            "every image of the list",
            f"{remedy}, or take only what is there with data.partial=true",
        )
    without = set(lacking)
    return tuple(name for name in ids if name not in without)


def count_of(used: Sequence[str], ids: Sequence[str]) -> str:
    """The number of images in words: `736`, or `229 of 736` where some lack."""
    return f"{len(used)}" if len(used) == len(ids) else f"{len(used)} of {len(ids)} (data.partial)"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as runs, for messages: `0-3 and 7 and 9-10`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " and ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
