"""Read, group and test runs: the function behind `segbench compare`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from segbench.compare.comparison import Comparison, Settings
from segbench.compare.grouping import group_runs
from segbench.compare.pairing import pool_folds
from segbench.compare.pairwise import compare_groups
from segbench.compare.reading import read_runs
from segbench.errors import SegbenchError


def compare(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    metric: str | Sequence[str] = (),
    split: str | None = None,
    baseline: str | None = None,
    confidence: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
    images: int = 10,
    plan: float | None = None,
    ignore: Sequence[str] = (),
    seeds_apart: bool = False,
    folds: str | None = None,
) -> Comparison:
    """Compare runs: how much their scores differ, how certain that is, and what can be concluded.

    Args:
        sources: runs or their directories, folders of them, globs, or `wandb:ENTITY/PROJECT[/RUN]`. Runs that differ
            only in their seed form one group; groups get letters in the order of their first runs.
        metric: names or patterns of the scores to show and test, the leading one first; all if empty.
        split: the split whose scores are compared; None for `test` if there is one.
        baseline: the group, by letter, label or a run's directory, that all others are tested against; None tests all
            pairs of up to 10 groups.
        confidence: of the intervals, from 0.5 to below 1; a difference is shown where p is below 1 - confidence.
        draws: of the bootstrap and of the permutation test, which compare single runs; 100 or more.
        seed: of the draws, from 0.
        images: how many of the images that changed most are listed.
        plan: a difference of the leading score, in its unit, for which to plan seeds and images.
        ignore: dotted keys of the configuration that do not separate groups.
        seeds_apart: make every run a separate group.
        folds: the dotted key in which the folds of one cross-validation differ; their images are pooled.

    Returns:
        a frozen record. Of each of its `pairs`, `differences` holds one record per score, the leading one first, with
        `difference` (second minus first, in the unit of the score), `interval` (its two ends), `p` (two-sided) and
        `p_adjusted` (for the number of comparisons); `sentences` says what can be concluded. `method` says how.
        Pairs that cannot be tested are in `refusals`, runs that cannot be read in `table.left_out`.

    Raises:
        SegbenchError: sources without runs, a setting out of its range, a metric, split or baseline that does not
            exist, folds that share images.

    Example:
        >>> from segbench.compare import compare
        >>> found = compare(["outputs/narrow", "outputs/wide"], metric="mean_iu")  # doctest: +SKIP
        >>> found.pairs[0].differences[0].interval  # doctest: +SKIP
        (0.0021, 0.0154)
    """
    settings = Settings(
        metrics=(metric,) if isinstance(metric, str) else tuple(metric),
        split=split,
        baseline=baseline,
        confidence=confidence,
        draws=draws,
        seed=seed,
        images=images,
        plan=plan,
    )
    listed = [sources] if isinstance(sources, str | os.PathLike) else sources
    records, left_out = read_runs([os.fspath(source) for source in listed])
    if not records:
        said = "; ".join(f"{entry.source}: {entry.reason}" for entry in left_out[:5])
        raise SegbenchError(
            f"no run with results among {len(left_out)} ({said}{'; ...' if len(left_out) > 5 else ''})",
            "runs that were scored",
            "let them finish (segbench train resume=RUN), or score them (segbench evaluate run=RUN)",
        )
    if folds is not None:
        records = pool_folds(records, folds, ignore)
    return compare_groups(group_runs(records, left_out, ignore, seeds_apart), settings)
