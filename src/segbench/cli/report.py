"""`segbench report RUN_OR_SWEEP [output=FILE] [metric=NAME]`: one HTML file that opens offline."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from segbench.errors import SegbenchError
from segbench.report.page import report

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
    from segbench.cli.entry import fail

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
    from segbench.cli.arguments import split_arguments, write_output

    sources, given = split_arguments(arguments, _KEYS, "report")
    text = report(sources, given.get("metric"))
    folder = Path(sources[0]) if Path(sources[0]).is_dir() else Path()
    path = Path(given.get("output") or folder / "report.html")
    write_output(path, text)
    if "wandb" in given:
        from segbench.tracking.artifacts import send

        print(send(given["wandb"], "report", f"report-{folder.resolve().name}", path), file=sys.stderr)
    return path
