"""A run or a sweep as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from segbench.errors import SegbenchError


def report(sources: Sequence[str], metric: str | None = None) -> str:
    """The HTML of a run, a sweep, or several runs.

    Raises:
        SegbenchError: no run has scores, or none has the metric.
    """
    from segbench.compare.reading import read_runs
    from segbench.report.pieces import sentences, whole_page
    from segbench.report.run_page import run_sections
    from segbench.report.sweep_page import sweep_sections

    runs, left_out = read_runs(sources, partial=True)
    local = [each for each in runs if each.path is not None]
    if not local:
        why = "; ".join(f"{each.source}: {each.reason}" for each in left_out[:4]) or "none is on this machine"
        raise SegbenchError(
            f"no run with scores in {', '.join(sources)} ({why})", "a finished run", "finish or evaluate one"
        )
    if len(local) == 1:
        failed = sentences([f"{each.source}: {each.reason}" for each in left_out])
        return whole_page(f"{local[0].name}: {local[0].source}", {**run_sections(local[0], metric), "Left out": failed})
    return whole_page(f"{len(local)} runs: {', '.join(sources)}", sweep_sections(local, left_out, metric))
