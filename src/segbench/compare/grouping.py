"""Groups of runs that differ only in their seed, and what distinguishes the groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from string import ascii_uppercase
from typing import Any

import numpy as np

from segbench.compare.columns import Column, Summary
from segbench.compare.records import LeftOut, RunRecord, identity, separating, written
from segbench.spec import of_class

_LABEL = 48
"""Characters of a group's label; longer ones are cut at a setting."""


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one configuration that differ only in their seed.

    Attributes:
        name: a letter, used in the text.
        label: what distinguishes it, in short.
        runs: at least one, ordered by seed.
        settings: its values of the keys that differ between groups.
    """

    name: str
    label: str
    runs: tuple[RunRecord, ...]
    settings: Mapping[str, Any]

    def values(self, column: Column) -> list[float]:
        """The score of each run that has it by the column's definition; NaN if it is not defined."""
        return [run.metrics[column.key] for run in self.runs if column.holds(run)]

    def summary(self, column: Column) -> Summary:
        """Mean, standard deviation and number of runs."""
        finite = [value for value in self.values(column) if math.isfinite(value)]
        mean = float(np.mean(finite)) if finite else math.nan
        return Summary(mean, float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan, len(finite))

    @property
    def title(self) -> str:
        """Letter and label."""
        return f"{self.name} ({self.label})" if self.label else self.name


@dataclass(frozen=True, eq=False)
class RunTable:
    """Groups of runs, and everything known about them without a test.

    Attributes:
        groups: in the order of their first runs.
        differing: dotted keys in which groups differ.
        left_out: runs that are not in a group.
        notes: sentences about what the configurations do not say.
    """

    groups: tuple[Group, ...]
    differing: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    @cached_property
    def runs(self) -> tuple[RunRecord, ...]:
        """The runs of all groups."""
        return tuple(run for group in self.groups for run in group.runs)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Every score that a run has: those of the paper's row first, then the one that selected checkpoints."""
        leading = [name for run in self.runs for name in _leading(run)]
        versions: dict[str, list[str | None]] = {}
        for run in self.runs:
            for key in run.metrics:
                known = versions.setdefault(key, [])
                if (version := run.versions.get(key)) not in known:
                    known.append(version)
        columns: list[Column] = []
        for key, met in versions.items():
            recorded = sorted(version for version in met if version is not None)
            if len(recorded) < 2:
                # An unrecorded definition is assumed to be the recorded one.
                columns.append(Column(key, recorded[0] if recorded else None))
            else:
                columns += [Column(key, version, mixed=True) for version in met]
        place = {name: number for number, name in reversed(list(enumerate(leading)))}
        return tuple(sorted(columns, key=lambda column: place.get(column.key.rsplit("/", 1)[-1], len(leading))))


def _leading(run: RunRecord) -> list[str]:
    published = (run.config.get("paper") or {}).get("metrics") or {}
    monitored = run.settings.get("callbacks.checkpoint.monitor")
    return [*published, *([str(monitored).rsplit("/", 1)[-1]] if monitored else [])]


def letters(number: int) -> str:
    """A, B ... Z, AA, AB ... for 0, 1 ...

    Example:
        >>> letters(0), letters(25), letters(26), letters(701), letters(702)
        ('A', 'Z', 'AA', 'ZZ', 'AAA')
    """
    name = ""
    while number >= 0:
        name = ascii_uppercase[number % 26] + name
        number = number // 26 - 1
    return name


def group_runs(
    records: Sequence[RunRecord],
    left_out: Sequence[LeftOut] = (),
    ignore: Sequence[str] = (),
    seeds_apart: bool = False,
) -> RunTable:
    """Put runs that differ only in their seed into one group.

    Runs of one network on one split, or of one seed with the same scores, count as one run.

    Args:
        records: the runs.
        left_out: those that could not be read; passed on.
        ignore: dotted keys that do not separate runs, in addition to names, paths and loaders, which never do.
        seeds_apart: make every run a separate group.
    """
    ignored = tuple(ignore)
    digests = {record.source: identity(record.settings, ignored) for record in records}
    records = _with_data(records, digests)
    digests |= {r.source: identity(r.settings, ignored) for r in records if "data.digest" in r.settings}
    once, twice = _without_repetitions(records, digests)
    members: dict[Any, list[RunRecord]] = {}
    for number, record in enumerate(once):
        key = (record.split, digests[record.source], number if seeds_apart else None)
        members.setdefault(key, []).append(record)
    runs = [tuple(sorted(group, key=lambda run: (run.seed is None, run.seed or 0))) for group in members.values()]
    differing = _differing([group[0] for group in runs], ignored)
    if seeds_apart and len({record.seed for record in once}) > 1:
        differing = ("seed", *differing)
    groups = tuple(
        Group(letters(number), "", group, {key: _setting(group[0], key) for key in differing})
        for number, group in enumerate(runs)
    )
    labels = _labels(groups)
    groups = tuple(replace(group, label=label) for group, label in zip(groups, labels, strict=True))
    notes = (*_repeated_seeds(groups), *circumstances(once))
    return RunTable(groups, differing, (*left_out, *twice), notes)


def _with_data(records: Sequence[RunRecord], digests: Mapping[str, str]) -> list[RunRecord]:
    """The runs, with the digest of their data as a setting where it separates them."""
    met: dict[str, set[str]] = {}
    for record in records:
        met.setdefault(digests[record.source], set()).update({record.data_digest} - {None})  # type: ignore[arg-type]
    return [
        replace(record, settings={**record.settings, "data.digest": record.data_digest})
        if record.data_digest is not None and len(met[digests[record.source]]) > 1
        else record
        for record in records
    ]


def _without_repetitions(
    records: Sequence[RunRecord], digests: Mapping[str, str]
) -> tuple[list[RunRecord], list[LeftOut]]:
    kept: dict[Any, RunRecord] = {}
    twice: list[LeftOut] = []
    for record in records:
        split = record.split
        same = (split, digests[record.source])
        of_split = (item for item in record.metrics.items() if item[0].startswith(f"{split}/"))
        # Scores of classes are more in later versions.
        scores = tuple(sorted(item for item in of_split if of_class(item[0]) is None))
        # An ensemble is the same whichever of its networks is named first; seeds are of each of them.
        keys: list[Any] = [("network", record.network, *same)] if record.network else []
        keys += [("scores", record.seed, *same, scores)] if scores and not record.ensemble else []
        before = next((kept[key] for key in keys if key in kept), None)
        if before is not None:
            twice.append(LeftOut(record.source, f"the same run as {before.source}: counted once"))
            continue
        for key in keys:
            kept[key] = record
    gone = {entry.source for entry in twice}
    return [record for record in records if record.source not in gone], twice


def _setting(run: RunRecord, key: str) -> Any:
    return run.seed if key == "seed" else run.settings.get(key)


def _differing(runs: Sequence[RunRecord], ignore: tuple[str, ...]) -> tuple[str, ...]:
    settings = [separating(run.settings, ignore) for run in runs]
    keys = dict.fromkeys(key for each in settings for key in each)
    return tuple(key for key in keys if len({written(each.get(key)) for each in settings}) > 1)


def _labels(groups: Sequence[Group]) -> list[str]:
    names = [group.runs[0].name for group in groups]
    if len(set(names)) == len(groups):
        return names
    labels = []
    for group in groups:
        parts = [f"{short(key)}={show_setting(value)}" for key, value in group.settings.items()]
        label = ", ".join(parts)
        while len(label) > _LABEL and len(parts) > 1:
            parts.pop()
            label = ", ".join([*parts, "..."])
        labels.append(label if len(label) <= _LABEL + 5 else f"{label[:_LABEL]}...")
    return labels


def short(key: str) -> str:
    """The last word of a dotted key that says what it is: `model` for `model._target_`.

    Example:
        >>> short("optimizer.lr"), short("model._target_"), short("ensemble.0")
        ('lr', 'model', 'ensemble.0')
    """
    parts = [part for part in key.split(".") if part != "_target_"]
    # A number alone is a place in a list.
    return ".".join(parts[-2:] if parts and parts[-1].isdecimal() else parts[-1:]) or key


def show_setting(value: Any) -> str:
    """A setting as on the command line; a class by its name without modules."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        # segbench.models.unet.UNet is shown as UNet.
        return value.rsplit(".", 1)[-1] if value.startswith(("segbench.", "lightning.", "albumentations.")) else value
    return str(value) if isinstance(value, int) else written(value)


def _repeated_seeds(groups: Sequence[Group]) -> list[str]:
    notes = []
    for group in groups:
        alone = Counter(run.seed for run in group.runs if not run.ensemble)
        repeated = [str(seed) for seed, count in alone.items() if count > 1]
        if repeated:
            notes.append(
                f"{group.name} contains several runs of seed {', '.join(repeated)} with different scores: "
                "configuration and seed do not determine them."
            )
        if max(Counter(network for run in group.runs for network in run.ensemble).values(), default=0) > 1:
            notes.append(
                f"The ensembles of {group.name} share networks: their scores are not independent, so the spread over "
                "them and p values of seeds are too small."
            )
    return notes


def circumstances(runs: Sequence[RunRecord]) -> list[str]:
    """Differences that no configuration shows, one sentence each."""
    notes: list[str] = []
    commits = Counter(commit for run in runs for commit in sorted({_commit(made) for made in run.provenances}))
    if len(commits) > 1:
        shown = ", ".join(f"{commit} ({count})" for commit, count in commits.most_common(5))
        notes.append(f"The runs used different code: {shown}{', ...' if len(commits) > 5 else ''}.")
    changed = sum(any((made.get("git") or {}).get("dirty") for made in run.provenances) for run in runs)
    if changed:
        notes.append(f"{changed} of {len(runs)} runs were made with uncommitted changes to the code.")
    made_by = [made for run in runs for made in run.provenances]
    for name in sorted({name for made in made_by for name in made.get("versions") or {}}):
        met = {str(made["versions"][name]) for made in made_by if name in (made.get("versions") or {})}
        if len(met) > 1:
            notes.append(f"Versions of {name} differ: {', '.join(sorted(met))}.")
    for key, named in (("device", "Devices"), ("processor", "Processors"), ("platform", "Platforms")):
        met = {str(made[key]) for made in made_by if made.get(key)}
        if len(met) > 1:
            notes.append(f"{named} differ: {', '.join(sorted(met))}.")
    threads = {show_setting(run.settings["threads"]) for run in runs if "threads" in run.settings}
    if len(threads) > 1:
        notes.append(f"Scored with different numbers of CPU threads: {', '.join(sorted(threads))}.")
    return notes + _unrecorded(runs)


def _commit(provenance: Mapping[str, Any]) -> str:
    git = provenance.get("git") or {}
    return str(git["commit"])[:10] if git.get("commit") else "not recorded"


def _unrecorded(runs: Sequence[RunRecord]) -> list[str]:
    without = sum(not run.versions for run in runs)
    if not without:
        return []
    return [
        f"{without} of {len(runs)} runs do not record the definitions of their metrics "
        "(W&B runs and scored files); they are assumed to be those of the others."
    ]
