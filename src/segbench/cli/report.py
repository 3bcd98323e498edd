"""`segbench report RUN_OR_SWEEP [output=FILE] [metric=NAME]`: one HTML file that opens offline."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from segbench.cli.arguments import split_arguments, write_output
from segbench.errors import say
from segbench.report.page import report

USAGE = """\
usage: segbench report RUN_OR_SWEEP ... [output=FILE] [metric=NAME] [wandb=ENTITY/PROJECT]

Writes one self-contained HTML file. For a run: scores and the paper's, curves, confusion, classes, the best, the
median and the worst image, splits and merges, cost, provenance, configuration. For a sweep or several runs: a sortable
table, parallel coordinates, how much each setting explains, and the best run.

  output=FILE    default: report.html in the run's or the sweep's directory
  metric=NAME    the main score, by which a sweep is sorted; default: the first of the paper's row
  wandb=PROJECT  also send it as an artifact to a W&B project, PROJECT or ENTITY/PROJECT; kept here without a key
"""


_KEYS = ("output", "metric", "wandb")


def main() -> None:
    """The entry point; sys.argv holds sources and key=value pairs."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        say(USAGE, end="")
        return
    say(run(arguments))


def run(arguments: Sequence[str]) -> Path:
    """Write the report that the arguments ask for.

    Returns:
        the file.

    Raises:
        SegbenchError: no run, no scores, or a file that cannot be written.
    """
    sources, given = split_arguments(arguments, _KEYS, "report")
    text = report(sources, given.get("metric"))
    folder = Path(sources[0]) if Path(sources[0]).is_dir() else Path()
    path = Path(given.get("output") or folder / "report.html")
    write_output(path, text)
    if "wandb" in given:
        from segbench.compare.reading import find_runs
        from segbench.experiment.items import tracked_scores
        from segbench.tracking.artifacts import send

        finished = [each for source in sources for each in find_runs(source) if (each / "results.json").is_file()]
        name = f"report-{folder.resolve().name}"
        say(send(given["wandb"], "report", name, path, used=tracked_scores(finished)), file=sys.stderr)
    return path
