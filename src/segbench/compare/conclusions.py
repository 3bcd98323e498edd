"""What can be concluded about two groups, and what cannot, as plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from segbench.compare.comparison import FEW_IMAGES, FEW_SEEDS, Comparison, Difference, Pair
from segbench.display.digits import number, percent, span

_ALONE = 3
"""Up to this many scores each get a sentence; more are summarised."""


def p_value(p: float) -> str:
    """A p value with its sign: `p = 0.012`, `p < 0.001`."""
    if not math.isfinite(p):
        return "p undefined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def conclude(difference: Difference, confidence: float, comparisons: int = 1) -> str:
    """Whether one score differs.

    Args:
        difference: of two groups.
        confidence: of the interval.
        comparisons: how many `p_adjusted` is adjusted for.
    """
    d = difference
    if not math.isfinite(d.difference) or not math.isfinite(d.p):
        return f"Nothing can be concluded about {d.name}: it is not defined for {d.first} or {d.second}."
    ours, theirs = number(d.scores[0]), number(d.scores[1])
    found = f"{ours} for {d.first}, {theirs} for {d.second}, difference {number(d.difference, sign=True)}"
    adjusted = f" adjusted for {comparisons} comparisons" if comparisons > 1 else ""
    certainty = f"{percent(confidence)} interval {span(d.low, d.high)}, {p_value(d.p_adjusted)}{adjusted}"
    if d.difference == 0 and d.low == d.high == 0:
        return f"{d.name} is the same for {d.first} and {d.second}, and in every draw of images: {ours}."
    if d.is_shown(confidence):
        worse = d.first if d.better == d.second else d.second
        return f"{d.better} is better than {worse} in {d.name}: {found} ({certainty})."
    return (
        f"No difference between {d.first} and {d.second} is shown in {d.name}: {found} ({certainty}). "
        f"That does not make them equal: {_compatible(d, confidence)}."
    )


def _compatible(d: Difference, confidence: float) -> str:
    if d.low <= 0 <= d.high:
        return f"any difference from {span(d.low, d.high)} is compatible with the result"
    if d.p < 1 - confidence:
        return "on its own it would be shown, but among this many comparisons such a difference can arise by chance"
    return "the interval excludes zero, but the permutation test, which assumes less, shows no difference"


def caveats(pairs: Sequence[Pair]) -> list[str]:
    """Caveats for every score of some pairs: which sources of chance the numbers include, and which they do not."""
    differences = [d for pair in pairs for d in (*pair.differences, *pair.classes)]
    if not differences:
        return []
    runs = {letter: count for d in differences for letter, count in zip((d.first, d.second), d.seeds, strict=True)}
    images = min(d.images for d in differences)
    if all(pair.same_networks for pair in pairs):
        said = [_scope_of_scoring(runs, images)]
    else:
        said = [_scope(runs, images)]
    few = [d for d in differences if d.few_images]
    if few:
        said.append(_few_images(few))
    if max(runs.values()) > 1 and min(count for count in runs.values() if count > 1) < FEW_SEEDS:
        said.append(
            f"With fewer than {FEW_SEEDS} runs the spread of seeds is poorly known: where seeds matter more, "
            "a 95 % interval covers as little as 79 % with 2 runs per side, 87 % with 3, 91 % with 5, 94 % with 10."
        )
    if untested := dict.fromkeys(key for pair in pairs for key in pair.untested):
        said.append(f"Not tested, because a run lacks it or defines it differently: {_names(untested)}.")
    if equal := dict.fromkeys(key for pair in pairs for key in pair.equal):
        said.append(f"Equal in all runs, as scores of the data alone or of equal predictions: {_names(equal)}.")
    return said


def _names(keys: Iterable[str]) -> str:
    return ", ".join(key.split("/", 1)[1] for key in keys)


def _scope(runs: Mapping[str, int], images: int) -> str:
    single = [letter for letter, count in runs.items() if count == 1]
    counted = ", ".join(f"{count} run{'s' * (count > 1)} of {letter}" for letter, count in runs.items())
    if len(set(runs.values())) == 1:
        counted = f"{max(runs.values())} per group"
    if len(single) == len(runs):
        return (
            f"This compares the trained networks, {counted}, on images like the {images} that were scored. It does not "
            "compare the configurations, since another seed may reverse the result: train several seeds of each."
        )
    if single:
        return (
            f"Images and seeds are resampled together ({counted}), except the single run of {', '.join(single)}: its "
            "configuration may do better or worse with another seed."
        )
    return (
        f"Images and seeds are resampled together ({counted}): this compares the configurations, on images like the "
        f"{images} that were scored."
    )


def _scope_of_scoring(runs: Mapping[str, int], images: int) -> str:
    count = max(runs.values())
    networks = "The same trained network" if count == 1 else f"The same {count} trained networks"
    drawn = "" if count == 1 else ", with seeds drawn together"
    return (
        f"{networks}, scored in two ways{drawn}: this compares the two ways of scoring, on images like the {images} "
        "that were scored."
    )


def _few_images(differences: Sequence[Difference]) -> str:
    images = differences[0].images
    said = (
        f"With {images} images the interval is too narrow: a 95 % interval covers 84 % with 6 images, 93 % with "
        f"{FEW_IMAGES}. "
    )
    tested = [d for d in differences if d.permutation is not None]
    if not tested:
        return said + "There is no permutation test, because the groups have different numbers of runs."
    permutation, seeds = tested[0].permutation, max(tested[0].seeds)
    assert permutation is not None
    which = f"all {permutation.swaps}" if permutation.exact else f"{permutation.swaps} random"
    said += f"p comes from a permutation test over {which} swaps of the paired images"
    said += " of these runs, or from the bootstrap if that p is larger." if seeds > 1 else "."
    return said + f" With {images} images no p is below {2.0 ** (1 - images):.2g}."


def conclusions(comparison: Comparison, pair: Pair) -> list[str]:
    """All sentences about a pair: the leading score, the others, the classes, and the caveats for all of them."""
    confidence = comparison.settings.confidence
    pairs = len(comparison.pairs)
    if not (pair.differences or pair.classes):
        return [f"{pair.first} and {pair.second} are the same in every score and every image: {_names(pair.equal)}."]
    if not pair.differences:
        return caveats([pair])
    said = [conclude(pair.differences[0], confidence, pairs)]
    others = pair.differences[1:]
    if len(others) < _ALONE:
        said += [conclude(d, confidence, pairs) for d in others]
    else:
        said.append(_summed_up(f"Of the {len(others)} other scores", pair, others, confidence))
    if pair.classes:
        said.append(_summed_up(f"Of the {len(pair.classes)} classes", pair, pair.classes, confidence))
    return said + caveats([pair])


def overview(comparison: Comparison) -> list[str]:
    """For many pairs: those that differ in the leading score, and the caveats for all."""
    confidence, pairs = comparison.settings.confidence, comparison.pairs
    leading = [pair.differences[0] for pair in pairs if pair.differences]
    shown = [d for d in leading if d.is_shown(confidence)]
    said = [conclude(d, confidence, len(pairs)) for d in shown]
    rest = [f"{d.first}-{d.second}" for d in leading if not d.is_shown(confidence)]
    if rest:
        said.append(
            f"No difference in {leading[0].name} is shown between {', '.join(rest)}. That does not make them equal: "
            "see the intervals below."
        )
    return said + caveats(pairs)


def _summed_up(of: str, pair: Pair, differences: Sequence[Difference], confidence: float) -> str:
    shown = [d for d in differences if d.is_shown(confidence)]
    parts = []
    for letter in (pair.first, pair.second):
        names = [d.class_name or d.name for d in shown if d.better == letter]
        if names:
            parts.append(f"{letter} is better in {', '.join(names)}")
    rest = len(differences) - len(shown)
    if rest:
        parts.append(f"no difference is shown in {'any' if not shown else f'the other {rest}'}")
    return f"{of}: {'; '.join(parts)}."


def method(comparison: Comparison) -> list[str]:
    """How the tests were done, one sentence each; empty if there were none."""
    settings, pairs = comparison.settings, comparison.pairs
    if not pairs:
        return []
    said = [
        f"Differences are second minus first. Intervals: percentile bootstrap, {settings.draws} draws of images with "
        f"replacement, the same for both; each draw's score is computed from its summed counts, never averaged over "
        f"images. Resampling seed {settings.seed}: the same command gives the same numbers."
    ]
    families = []
    if len(pairs) > 1:
        families.append(f"over the {len(pairs)} pairs for each score")
    if classes := sum(len(pair.classes) for pair in pairs):
        families.append(f"over all {classes} comparisons of classes")
    if families:
        said.append(f"p values are adjusted by Holm's procedure {' and '.join(families)}.")
    if any(len(pair.differences) > 1 for pair in pairs):
        said.append(
            "p values are not adjusted for the number of scores, which all describe the same predictions: decide by "
            "the score chosen beforehand (metric=NAME puts it first)."
        )
    return said
