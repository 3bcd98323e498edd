"""A run or a sweep as one HTML file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from segbench.display.html import page
from segbench.errors import SegbenchError


def report(sources: Sequence[str], metric: str | None = None) -> str:
    """The HTML of a run, a sweep, or several runs.

    Raises:
        SegbenchError: no run has scores, or none has the metric.
    """
    from segbench.compare.reading import read_runs
    from segbench.report.pieces import sentences
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
        title, sections = f"{local[0].name}: {local[0].source}", {**run_sections(local[0], metric), "Left out": failed}
    else:
        title, sections = f"{len(local)} runs: {', '.join(sources)}", sweep_sections(local, left_out, metric)
    shown = [(heading, re.sub(r"\W", "-", heading.lower()), body) for heading, body in sections.items() if body]
    return page("report.html", title, sections=shown)
