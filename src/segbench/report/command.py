"""`segbench report RUN_OR_SWEEP [output=FILE] [metric=NAME]`: one HTML file that opens offline."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from segbench.errors import SegbenchError

USAGE = """\
usage: segbench report RUN_OR_SWEEP ... [output=FILE] [metric=NAME] [wandb=ENTITY/PROJECT]

Writes one self-contained HTML file. Of a run: scores beside the paper's, curves, confusion, classes, the best, the
median and the worst image, splits and merges, cost, provenance, configuration. Of a sweep, or of several runs: a table
that sorts, parallel coordinates, how much each setting explains, and the best run.

  output=FILE    default: report.html in the run's or the sweep's directory
  metric=NAME    the score that leads, and that a sweep is ordered by; default: the first one of the paper's row
  wandb=PROJECT  also an artifact of that W&B project, PROJECT or ENTITY/PROJECT; kept here where there is no key
"""


_KEYS = ("output", "metric", "wandb")


def main() -> None:
    """The entry point; sys.argv holds sources and key=value pairs."""
    from segbench.entry import fail

    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    try:
        print(run(arguments))
    except SegbenchError as error:
        fail(error)


def run(arguments: Sequence[str]) -> Path:
    """Write the report that the arguments ask for.

    Returns:
        the file.

    Raises:
        SegbenchError: no run, no scores, or a file that cannot be written.
    """
    from segbench.compare.command import split_arguments, write_whole

    sources, given = split_arguments(arguments, _KEYS, "report")
    text = report(sources, given.get("metric"))
    folder = Path(sources[0]) if Path(sources[0]).is_dir() else Path()
    path = Path(given.get("output") or folder / "report.html")
    write_whole(path, text)
    if "wandb" in given:
        from segbench.wandb_artifacts import send

        print(send(given["wandb"], "report", f"report-{folder.resolve().name}", path), file=sys.stderr)
    return path


def report(sources: Sequence[str], metric: str | None = None) -> str:
    """The HTML of a run, a sweep, or several runs.

    Raises:
        SegbenchError: none of them has scores, or none has the metric.
    """
    from segbench.compare.reading import read_runs
    from segbench.report.pieces import sentences, whole_page
    from segbench.report.run_page import run_sections
    from segbench.report.sweep_page import sweep_sections

    runs, left_out = read_runs(sources)
    local = [each for each in runs if each.path is not None]
    if not local:
        why = "; ".join(f"{each.source}: {each.reason}" for each in left_out[:4]) or "nothing of them is here"
        raise SegbenchError(
            f"no run with scores in {', '.join(sources)} ({why})", "a finished run", "finish or evaluate one"
        )
    if len(local) == 1:
        failed = sentences([f"{each.source}: {each.reason}" for each in left_out])
        return whole_page(f"{local[0].name}: {local[0].source}", {**run_sections(local[0], metric), "Left out": failed})
    return whole_page(f"{len(local)} runs: {', '.join(sources)}", sweep_sections(local, left_out, metric))


if __name__ == "__main__":
    main()
