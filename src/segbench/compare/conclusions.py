"""What can be concluded about two groups, and what cannot, as plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from segbench.compare.comparison import FEWEST_IMAGES, Comparison, Difference, Pair
from segbench.compare.plan import plan_sentences
from segbench.display.digits import number, percent, span

_ALONE = 3
"""Up to this many scores each get a sentence; more are summarised."""
_FOLLOW_P = (
    "follow p, since the permutation test is exact over any number of images and the bootstrap interval is an "
    "approximation, too narrow over few."
)


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
    disagree = f" p and the interval disagree: {_FOLLOW_P}" if d.disagrees(confidence) else ""
    if d.is_shown(confidence):
        worse = d.first if d.better == d.second else d.second
        return f"{d.better} is better than {worse} in {d.name}: {found} ({certainty}).{disagree}"
    said = f"No difference between {d.first} and {d.second} is shown in {d.name}: {found} ({certainty})."
    if d.p < 1 - confidence:
        why = ": on its own it would be shown, but among this many comparisons such a difference can arise by chance."
    elif d.low <= 0 <= d.high:
        why = f": any difference from {span(d.low, d.high)} is compatible with the result."
    else:
        why = "."
    return f"{said} That does not make them equal{why}{disagree}"


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
    if dependence := next((d.dependence for d in differences if d.dependence), ""):
        said.append(
            f"The images are {dependence}, so they are not independent: p and the interval are too sure about others."
        )
    few = [d for d in differences if d.analysis is not None and d.images < FEWEST_IMAGES]
    if few:
        said.append(
            f"With {few[0].images} images, p and the interval can be too sure where a few images decide: a 5 % test is "
            f"then wrong in 13 % of cases over 6 images, in 11 % over 10, in 7 % from {FEWEST_IMAGES} on."
        )
    if any(d.seeds_only is not None for d in differences):
        test = "the t test of pairs" if all(pair.same_networks for pair in pairs) else "Welch's t test"
        if 1 in runs.values():
            test = "a t test"
        said.append(
            f"p (seeds only) is {test} of the runs' scores: it holds for other seeds on these very images, however few "
            "or alike they are."
        )
    exact = [d for d in differences if d.permutation is not None and d.permutation.exact and d.images <= 10]
    if exact:
        said.append(
            f"With {exact[0].images} images no p of a permutation test is below {2.0 ** (1 - exact[0].images):.2g}."
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
    said = (
        f"Seeds and images both count as chance ({counted}): this compares the configurations, on images like the "
        f"{images} that were scored."
    )
    if single:
        said += (
            f" The spread of seeds is not known of {', '.join(single)}, a single run: that of the group it is compared "
            "with stands for it."
        )
    if len(single) > 1:
        said += " Two single runs are compared as trained networks only."
    return said


def _scope_of_scoring(runs: Mapping[str, int], images: int) -> str:
    count = max(runs.values())
    networks = "The same trained network" if count == 1 else f"The same {count} trained networks"
    paired = "" if count == 1 else " and compared in pairs"
    return (
        f"{networks}, scored in two ways{paired}: this compares the two ways of scoring, on images like the {images} "
        "that were scored."
    )


def conclusions(comparison: Comparison, pair: Pair) -> list[str]:
    """All sentences about a pair: the leading score, the others, the classes, and the caveats for all of them."""
    confidence = comparison.settings.confidence
    pairs = len(comparison.pairs)
    if not (pair.differences or pair.classes):
        return [f"{pair.first} and {pair.second} are the same in every score and every image: {_names(pair.equal)}."]
    planned = [] if pair.plan is None else plan_sentences(pair.plan, pair.first, pair.second)
    if not pair.differences:
        return [*caveats([pair]), *planned]
    said = [conclude(pair.differences[0], confidence, pairs)]
    others = pair.differences[1:]
    if len(others) < _ALONE:
        said += [conclude(d, confidence, pairs) for d in others]
    else:
        said.append(_summed_up(f"Of the {len(others)} other scores", pair, others, confidence))
    if pair.classes:
        said.append(_summed_up(f"Of the {len(pair.classes)} classes", pair, pair.classes, confidence))
    return [*said, *caveats([pair]), *planned]


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
    said = f"{of}: {'; '.join(parts)}."
    if disagree := [d.name.removeprefix("iu/") for d in differences if d.disagrees(confidence)]:
        said += f" In {', '.join(disagree)} p and the interval disagree: {_FOLLOW_P}"
    return said


def method(comparison: Comparison) -> list[str]:
    """How the tests were done, one sentence each; empty if there were none."""
    settings, pairs = comparison.settings, comparison.pairs
    if not pairs:
        return []
    differences = [d for pair in pairs for d in (*pair.differences, *pair.classes)]
    said = ["Differences are second minus first; both are scored on the same images."]
    if permutations := [d.permutation for d in differences if d.permutation is not None]:
        swaps = permutations[0].swaps - (not permutations[0].exact)
        which = f"all {swaps}" if permutations[0].exact else f"{swaps} random"
        said.append(
            f"Two single runs: p by a permutation test, {which} swaps of the two results of each image; interval by "
            f"the percentile bootstrap, {settings.draws} draws of images with replacement, which covers 84 % where it "
            "claims 95 % over 6 images, 93 % over 30. Each draw's score is computed from summed counts, never averaged "
            f"over images. Resampling seed {settings.seed}: the same command gives the same numbers."
        )
    if any(d.analysis is not None for d in differences):
        said.append(
            "Several runs: p and interval by Student's t. Each run's score is split into its images' influences (its "
            "derivatives by the weight of each image); a two-way analysis of variance, seeds by images, gives the "
            "variance of the difference, so that what a seed does on one image counts once. Degrees of freedom are "
            "Satterthwaite's, lowered where a few images decide."
        )
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
