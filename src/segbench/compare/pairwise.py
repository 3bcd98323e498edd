"""Tests of groups of runs against one another, on the images on which both were scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from segbench.compare.columns import Column, choose_columns
from segbench.compare.comparison import MOST_GROUPS, Comparison, Difference, ImageChange, Pair, Refusal, Settings
from segbench.compare.components import mean_squares, seeds_and_images
from segbench.compare.conclusions import conclusions, method
from segbench.compare.counts import ImageCounts
from segbench.compare.definitions import alike
from segbench.compare.grouping import Group, RunTable
from segbench.compare.pairing import check_same_images
from segbench.compare.per_image import read_counts
from segbench.compare.plan import Plan, plan
from segbench.compare.resampling import bootstrap_scores, holm, interval, permutation_test
from segbench.errors import SegbenchError, as_typed
from segbench.spec import ScoreInfo, of_class

Runs = Mapping[str, Sequence[ImageCounts]]
"""Counts of the runs of each group, by its letter."""


def compare_groups(table: RunTable, settings: Settings | None = None) -> Comparison:
    """Compare groups of runs in pairs, on the images on which both were scored.

    Args:
        table: the groups.
        settings: how; the defaults where None.

    Raises:
        SegbenchError: a metric, split or baseline that does not exist.
    """
    settings = settings or Settings()
    columns = choose_columns(table.columns, settings.metrics, settings.split)
    pairs = _pairs(table, settings)
    involved = [group for group in table.groups if any(group in pair for pair in pairs)]
    runs, refusals = _read(involved)
    for group in involved:
        if error := _inconsistent(runs[group.name]):
            refusals.append(Refusal(group.title, error, wrong=True))
            runs[group.name] = []
    unread = list(dict.fromkeys(said for of_group in runs.values() for run in of_group for said in run.unread))
    tested: list[Pair] = []
    for members in _comparable(involved, runs):
        tested += _test([pair for pair in pairs if all(group in members for group in pair)], runs, columns, settings)
    done = {(pair.first, pair.second) for pair in tested}
    for first, second in pairs:
        if (first.name, second.name) not in done and runs[first.name] and runs[second.name]:
            refusals.append(_refusal(first, second, runs))
    order = {(first.name, second.name): number for number, (first, second) in enumerate(pairs)}
    tested.sort(key=lambda pair: order[pair.first, pair.second])
    notes = [*unread]
    if len(table.groups) > MOST_GROUPS and settings.baseline is None:
        notes.append(
            f"No pair of the {len(table.groups)} groups is tested: name two groups, or set baseline=LETTER "
            "to test all others against one."
        )
    found = Comparison(table, columns, settings, tuple(_adjusted(tested)), tuple(refusals), tuple(notes))
    said = tuple(replace(pair, sentences=tuple(conclusions(found, pair))) for pair in found.pairs)
    return replace(found, pairs=said, method=tuple(method(found)))


def _pairs(table: RunTable, settings: Settings) -> list[tuple[Group, Group]]:
    groups = table.groups
    if settings.baseline is not None:
        baseline = _baseline(table, settings.baseline)
        return [(baseline, group) for group in groups if group is not baseline]
    if len(groups) > MOST_GROUPS:
        return []
    return [(first, second) for number, first in enumerate(groups) for second in groups[number + 1 :]]


def _baseline(table: RunTable, named: str) -> Group:
    for group in table.groups:
        sources = {run.source.rstrip("/") for run in group.runs}
        if named in (group.name, group.label) or named.rstrip("/") in sources:
            return group
    known = ", ".join(group.title for group in table.groups[:MOST_GROUPS])
    raise SegbenchError(
        f"baseline={named}", f"a group's letter, its label, or one of its runs: {known}", "correct baseline="
    )


def _read(groups: Sequence[Group]) -> tuple[dict[str, list[ImageCounts]], list[Refusal]]:
    runs: dict[str, list[ImageCounts]] = {}
    refusals: list[Refusal] = []
    for group in groups:
        runs[group.name] = []
        for run in group.runs:
            try:
                counts = read_counts(run)
                _check_agreement(counts, run.metrics)
                runs[group.name].append(counts.in_order())
            except SegbenchError as error:
                absent = run.path is None or not (run.folds or (run.path / "per_image.npz").is_file())
                refusals.append(Refusal(f"{group.name}: {run.source}", error, wrong=not absent))
    return runs, refusals


def _check_agreement(counts: ImageCounts, recorded: Mapping[str, float]) -> None:
    for key, value in counts.of_all().items():
        # Version 0.1.0 recorded 0 for some scores over no labelled pixel.
        if (
            key in recorded
            and np.isfinite(value)
            and not np.isclose(value, recorded[key], rtol=1e-9, atol=1e-12, equal_nan=True)
        ):
            raise SegbenchError(
                f"{counts.source}: {key} is {recorded[key]:.6g} in results.json and {value:.6g} by per_image.npz",
                "two files of one evaluation",
                f"score the run again: segbench evaluate {as_typed('run', counts.source)}",
            )


def _inconsistent(runs: Sequence[ImageCounts]) -> SegbenchError | None:
    for other in runs[1:]:
        try:
            check_same_images(runs[0], other)
        except SegbenchError as error:
            return error
    return None


def _same_images(first: ImageCounts, second: ImageCounts) -> bool:
    return _inconsistent([first, second]) is None


def _comparable(groups: Sequence[Group], runs: Runs) -> list[list[Group]]:
    """Lists of groups, each scored on the same images."""
    together: list[list[Group]] = []
    for group in groups:
        if not runs[group.name]:
            continue
        for members in together:
            if _same_images(runs[members[0].name][0], runs[group.name][0]):
                members.append(group)
                break
        else:
            together.append([group])
    return together


def _refusal(first: Group, second: Group, runs: Runs) -> Refusal:
    error = _inconsistent([runs[first.name][0], runs[second.name][0]])
    if error is None:
        error = SegbenchError(
            f"{first.title} and {second.title} share no metric with the same definition",
            "runs that were scored by the same definitions",
            "score both with this version: segbench evaluate run=RUN",
        )
    return Refusal(f"{first.title} and {second.title}", error, wrong=True)


def _test(
    pairs: Sequence[tuple[Group, Group]],
    runs: Runs,
    columns: Sequence[Column],
    settings: Settings,
) -> list[Pair]:
    if not pairs:
        return []
    groups = list(dict.fromkeys(group for pair in pairs for group in pair))
    known = {key: info for group in groups for run in runs[group.name] for key, info in run.infos.items()}
    wanted = list(dict.fromkeys(column.key for column in columns if column.key in known))
    keys = [*wanted, *(key for key in _class_keys(known, wanted) if key not in wanted)]
    measured = {run.measure_of[key] for group in groups for run in runs[group.name] for key in keys if key in run.infos}
    constant = {name for name in measured if _is_constant(name, [run for g in groups for run in runs[g.name]])}
    tables = _Tables({group.name: [run.only(measured - constant) for run in runs[group.name]] for group in groups})
    singles = [pair for pair in pairs if all(len(runs[group.name]) == 1 for group in pair)]
    tables.draw(list(dict.fromkeys(group.name for pair in singles for group in pair)), keys, settings)
    tested = []
    for first, second in pairs:
        both = [*tables.runs[first.name], *tables.runs[second.name]]
        shared = [key for key in keys if all(key in run.infos for run in both) and _alike(key, both)]
        equal = tuple(key for key in keys if any(run.measure_of.get(key) in constant for run in runs[first.name]))
        untested = tuple(key for key in keys if key not in (*shared, *equal))
        if shared:
            pair = _pair(first.name, second.name, tables, shared, keys[: len(wanted)], settings)
            tested.append(replace(pair, equal=equal, untested=untested))
        elif equal:
            images = len(runs[first.name][0].ids)
            tested.append(Pair(first.name, second.name, images, (), (), (), equal, untested))
    return tested


def _class_keys(known: dict[str, ScoreInfo], wanted: Sequence[str]) -> list[str]:
    # Classes belong to overlap scores; a comparison by Rand error alone does not show them. Their Dice is a function of
    # their IU, and would only double the comparisons to adjust for.
    heads = {key.rsplit("/", 1)[0] for key in wanted if "iu" in key.rsplit("/", 1)[-1].split("_")}
    by_class = {key: found for key in known if (found := of_class(key)) is not None}
    return [
        key
        for key, (family, name) in by_class.items()
        if family == "iu" and key.removesuffix(f"/{family}/{name}") in heads
    ]


def _is_constant(name: tuple[str, str], runs: Sequence[ImageCounts]) -> bool:
    counts = [run.counts.get(name) for run in runs]
    first = counts[0]
    return first is not None and all(
        other is not None
        and first.keys() == other.keys()
        and all(np.array_equal(first[key], other[key]) for key in first)
        for other in counts[1:]
    )


def _alike(key: str, runs: Sequence[ImageCounts]) -> bool:
    measures = [run.measures[run.measure_of[key]] for run in runs]
    return all(alike(measures[0], other) for other in measures[1:])


class _Tables:
    """What several pairs need of a group, computed once.

    Attributes:
        runs: counts of the runs of each group, by its letter.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._drawn: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._of: dict[str, dict[str, NDArray[np.float64]]] = {}

    def draw(self, singles: Sequence[str], keys: Sequence[str], settings: Settings) -> None:
        """Draw images for groups of a single run, the same for all."""
        if singles:
            scores = bootstrap_scores([self.runs[name][0] for name in singles], keys, settings.draws, settings.seed)
            self._drawn = {
                (name, key): of_key
                for name, of_run in zip(singles, scores, strict=True)
                for key, of_key in zip(keys, of_run, strict=True)
            }

    def drawn(self, group: str, key: str) -> NDArray[np.float64]:
        """A score of a group's single run in each draw, (D,)."""
        return self._drawn[group, key]

    def table(self, group: str, key: str) -> NDArray[np.float64]:
        """Scores plus influences of a group's runs, (S, N)."""
        if group not in self._of:
            scores = [run.of_all() for run in self.runs[group]]
            moved = [run.influences() for run in self.runs[group]]
            self._of[group] = {
                key: np.stack([score[key] + influence[key] for score, influence in zip(scores, moved, strict=True)])
                for key in scores[0]
                if all(key in score for score in scores)
            }
        return self._of[group][key]


def _pair(
    first: str, second: str, tables: _Tables, shared: Sequence[str], wanted: Sequence[str], settings: Settings
) -> Pair:
    ours, theirs = tables.runs[first], tables.runs[second]
    seeds = (len(ours), len(theirs))
    same_networks = _networks(ours) is not None and _networks(ours) == _networks(theirs)
    single = seeds == (1, 1)
    permuted = permutation_test(ours[0], theirs[0], shared, settings.draws, settings.seed) if single else {}
    scores = [[run.of_all() for run in side] for side in (ours, theirs)]
    differences = []
    for key in shared:
        means = [float(np.mean([of_run[key] for of_run in side])) for side in scores]
        blank = Difference(
            key=key,
            info=ours[0].infos[key],
            first=first,
            second=second,
            scores=(means[0], means[1]),
            low=np.nan,
            high=np.nan,
            p=np.nan,
            p_adjusted=np.nan,
            images=len(ours[0].ids),
            seeds=seeds,
            dependence=ours[0].dependence,
        )
        if single:
            low, high, undefined = interval(tables.drawn(second, key) - tables.drawn(first, key), settings.confidence)
            found = replace(
                blank, low=low, high=high, undefined=undefined, p=permuted[key].p, permutation=permuted[key]
            )
        else:
            both = [tables.table(name, key) for name in (first, second)]
            analysis = seeds_and_images(both[0], both[1], same_networks, settings.confidence)
            # One image has no spread.
            test = analysis.both if blank.images > 1 else analysis.seeds
            found = replace(blank, low=test.low, high=test.high, p=test.p, analysis=analysis)
        differences.append(found)
    leading = tuple(d for d in differences if d.key in wanted)
    classes = tuple(d for d in differences if d.key not in wanted)
    changed = _changed(ours, theirs, shared[0], settings.images)
    planned = _planned((*leading, *classes)[0], tables, same_networks, settings)
    return Pair(first, second, len(ours[0].ids), leading, classes, changed, same_networks=same_networks, plan=planned)


def _networks(group: Sequence[ImageCounts]) -> tuple[str, ...] | None:
    """The trained networks of a group's runs; None if one is unknown."""
    networks = tuple(run.network for run in group)
    return networks if all(networks) else None


def _planned(d: Difference, tables: _Tables, same_networks: bool, settings: Settings) -> Plan | None:
    if settings.plan is None or not np.isfinite(d.difference):
        return None
    if d.images < 2:
        raise SegbenchError(
            f"plan={settings.plan:g} for {d.first} and {d.second}, which were scored on one image",
            "two images or more: a plan is made from their spread",
            "score more images, or leave out plan=",
        )
    first_SN, second_SN = tables.table(d.first, d.key), tables.table(d.second, d.key)
    squares = mean_squares([second_SN - first_SN] if same_networks else [first_SN, second_SN])
    return plan(d.key, settings.plan, squares, d.seeds, d.images, settings.confidence)


def _changed(
    ours: Sequence[ImageCounts], theirs: Sequence[ImageCounts], key: str, count: int
) -> tuple[ImageChange, ...]:
    measures = {run.measure_of[key] for run in (*ours, *theirs)}
    sides = [[run.only(measures) for run in side] for side in (ours, theirs)]
    alone = [np.mean([run.of_each()[key] for run in side], axis=0) for side in sides]
    size = np.abs(alone[1] - alone[0])
    order = [place for place in np.argsort(-size, kind="stable") if np.isfinite(size[place])][:count]
    if not order or len(ours[0].ids) < 2:
        return ()
    leave_one_out = np.ones((len(order), len(ours[0].ids)))
    leave_one_out[np.arange(len(order)), order] = 0
    without = [np.mean([run.scores(leave_one_out)[key] for run in side], axis=0) for side in sides]
    return tuple(
        ImageChange(
            ours[0].ids[place],
            (float(alone[0][place]), float(alone[1][place])),
            float(without[1][row] - without[0][row]),
        )
        for row, place in enumerate(order)
    )


def _adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """Adjust p values: for a score over the pairs, for classes over pairs and classes."""
    adjusted: dict[tuple[str, str, str], float] = {}
    keys = dict.fromkeys(difference.key for pair in pairs for difference in pair.differences)
    families = [[d for pair in pairs for d in pair.differences if d.key == key] for key in keys]
    families.append([d for pair in pairs for d in pair.classes])
    for family in families:
        for difference, p in zip(family, holm([d.p for d in family]), strict=True):
            adjusted[difference.first, difference.second, difference.key] = p

    def with_adjusted(differences: Sequence[Difference]) -> tuple[Difference, ...]:
        return tuple(replace(d, p_adjusted=adjusted[d.first, d.second, d.key]) for d in differences)

    return [
        replace(pair, differences=with_adjusted(pair.differences), classes=with_adjusted(pair.classes))
        for pair in pairs
    ]
