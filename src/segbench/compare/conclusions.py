"""What may be concluded of two groups, and what may not, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from segbench.compare.comparison import FEW_IMAGES, FEW_SEEDS, Comparison, Difference, Pair
from segbench.display.digits import number, percent, span

_ALONE = 3
"""Up to this many scores each gets its own sentence, more are summed up."""


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
        return f"Of {d.name} nothing can be said: it is not defined for {d.first} or {d.second}."
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
        return f"any difference from {span(d.low, d.high)} goes with what was found"
    if d.p < 1 - confidence:
        return "alone it would be shown, but among as many comparisons such a difference comes up by chance"
    return "the interval leaves zero out, but the test that assumes less does not"


def caveats(pairs: Sequence[Pair]) -> list[str]:
    """What holds for every score of some pairs: which sources of chance are in the numbers, and which are not."""
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
            f"Over fewer than {FEW_SEEDS} runs the spread of seeds is hardly known: where seeds matter more, an "
            "interval of 95 % covers as little as 79 % over 2 runs a side, 87 % over 3, 91 % over 5, 94 % over 10."
        )
    if untested := dict.fromkeys(key for pair in pairs for key in pair.untested):
        said.append(f"Not tested, since a run lacks it or has it by another definition: {_names(untested)}.")
    if equal := dict.fromkeys(key for pair in pairs for key in pair.equal):
        said.append(f"The same in all, being of the data or of equal predictions: {_names(equal)}.")
    return said


def _names(keys: Iterable[str]) -> str:
    return ", ".join(key.split("/", 1)[1] for key in keys)


def _scope(runs: Mapping[str, int], images: int) -> str:
    single = [letter for letter, count in runs.items() if count == 1]
    counted = ", ".join(f"{count} run{'s' * (count > 1)} of {letter}" for letter, count in runs.items())
    if len(set(runs.values())) == 1:
        counted = f"{max(runs.values())} of each group"
    if len(single) == len(runs):
        return (
            f"This speaks of the trained networks, {counted}, on images such as the {images} that were scored. It "
            "does not tell the configurations apart, since another seed may turn it around: train several of each."
        )
    if single:
        return (
            f"Images and seeds are resampled together ({counted}); {', '.join(single)}, being one run, is taken as it "
            "is, and its configuration may do better or worse with another seed."
        )
    return (
        f"Images and seeds are resampled together ({counted}): this speaks of the configurations, on images such as "
        f"the {images} that were scored."
    )


def _scope_of_scoring(runs: Mapping[str, int], images: int) -> str:
    count = max(runs.values())
    networks = "The same trained network" if count == 1 else f"The same {count} trained networks"
    drawn = "" if count == 1 else ", and they are drawn together"
    return (
        f"{networks}, scored in two ways{drawn}: this speaks of the ways of scoring, on images such as the {images} "
        "that were scored."
    )


def _few_images(differences: Sequence[Difference]) -> str:
    images = differences[0].images
    said = (
        f"Over {images} images the interval is too narrow: one of 95 % covers 84 % over 6 images, 93 % over "
        f"{FEW_IMAGES}. "
    )
    tested = [d for d in differences if d.permutation is not None]
    if not tested:
        return said + "There is no permutation test beside it, since the groups have different numbers of runs."
    permutation, seeds = tested[0].permutation, max(tested[0].seeds)
    assert permutation is not None
    which = "all" if permutation.exact else "drawn"
    said += f"p rests on a permutation test over {which} {permutation.swaps} swaps of the paired images"
    said += " of these runs, or on the bootstrap where that is larger." if seeds > 1 else "."
    return said + f" No p over {images} images is below {2.0 ** (1 - images):.2g}."


def conclusions(comparison: Comparison, pair: Pair) -> list[str]:
    """All sentences on a pair: the leading score, the others, the classes, and what holds for all of them."""
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
    """Of many pairs, those that differ in the leading score, and what holds for all."""
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
        names = [d.name.removeprefix("iu/") for d in shown if d.better == letter]
        if names:
            parts.append(f"{letter} is better in {', '.join(names)}")
    rest = len(differences) - len(shown)
    if rest:
        parts.append(f"no difference is shown in {'any' if not shown else f'the other {rest}'}")
    return f"{of}: {'; '.join(parts)}."


def method(comparison: Comparison) -> list[str]:
    """How the tests were made, a sentence each; empty where none was."""
    settings, pairs = comparison.settings, comparison.pairs
    if not pairs:
        return []
    said = [
        f"Differences are second less first. Intervals: percentile bootstrap, {settings.draws} draws of images with "
        f"replacement, the same for both; a score is formed from each draw's summed counts, never averaged over "
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
            "Nothing is adjusted for the number of scores, which are views of the same predictions: decide by the one "
            "that was chosen beforehand (metric=NAME puts it first)."
        )
    return said
