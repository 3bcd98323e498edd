"""Compare runs: `segbench compare RUN_OR_DIR... [metric=NAME] [format=FORMAT] [output=FILE]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.cli.arguments import split_arguments, write_output
from segbench.errors import SegbenchError, say

if TYPE_CHECKING:
    from segbench.compare.comparison import Comparison

USAGE = """\
usage: segbench compare RUN_OR_DIR ... [KEY=VALUE ...]

RUN_OR_DIR    run directories, folders of them (a sweep), globs, wandb:ENTITY/PROJECT or wandb:ENTITY/PROJECT/RUN.
              Runs that differ only in their seed form one group.

metric=A,B    scores to show and test, the leading one first; patterns such as iu/* work. Default: all
split=NAME    split to compare; default: test if there is one
baseline=X    test all groups against this one (its letter, label or a run of it); default: all pairs of up to 10 groups
seeds=apart   keep runs of different seeds apart; default: grouped
ignore=A,B    settings that do not separate groups, e.g. ignore=trainer.devices
folds=KEY     runs that differ only in KEY (data.fold) form one cross-validation: their images are pooled
confidence=   of the intervals; default 0.95
draws=        of the bootstrap and the permutation test of single runs; default 10000
seed=         of the resampling; default 0
images=       number of images to list, those that changed most; default 10
plan=0.01     plan seeds and images: how many show this difference in the leading score with 80 % power
format=       terminal, markdown, latex, csv, json or html; default: by the name of output, else terminal
output=FILE   write there instead of printing
wandb=        also send tables and an artifact to a W&B project, PROJECT or ENTITY/PROJECT; kept here without a key
table=NAME    only this table: scores, settings, differences, classes, images, plan, left_out or runs (default of csv)

examples:
  segbench compare outputs/fcn32s_voc outputs/fcn16s_voc            two experiments, each with its seeds
  segbench compare 'outputs/sweep/*' metric=mean_iu baseline=A      a sweep against its first configuration
  segbench compare A B metric=rand_error output=comparison.html     two runs

exit code: 1 if runs that should have been compared could not be; failed jobs of a sweep are left out
"""

_TEXTS = ("format", "output", "table", "wandb")
_SETTINGS: dict[str, Callable[[str], Any]] = {
    "metric": lambda text: [part for part in text.split(",") if part],
    "split": str,
    "baseline": str,
    "confidence": float,
    "draws": int,
    "seed": int,
    "images": int,
    "plan": float,
}
_READING = ("ignore", "folds", "seeds")
_KEYS = (*_TEXTS, *_SETTINGS, *_READING)


def main() -> None:
    """The entry point; sys.argv holds sources and key=value pairs."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        say(USAGE, end="")
        return
    raise SystemExit(run(arguments))


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments ask for.

    Returns:
        the exit code: 1 if runs that should have been compared could not be.

    Raises:
        SegbenchError: anything wrong with the arguments or the sources.
    """
    from segbench.compare.comparing import compare

    sources, given = split_arguments(arguments, _KEYS, "compare")
    form = _format(given)
    comparison = compare(
        sources,
        **settings_of(given),
        ignore=[key for key in given.get("ignore", "").split(",") if key],
        seeds_apart=_seeds_apart(given.get("seeds")),
        folds=given.get("folds"),
    )
    if "output" in given:
        _write(Path(given["output"]), comparison, form, given.get("table"))
    else:
        _print(comparison, form, given.get("table"))
    if "wandb" in given:
        # Another program may read stdout.
        say(_send(given["wandb"], sources, comparison), file=sys.stderr)
    wrong = [str(refusal.error) for refusal in comparison.refusals if refusal.wrong]
    wrong += [f"{entry.source}: {entry.reason}" for entry in comparison.table.left_out if entry.wrong]
    for message in wrong:
        say(f"error: {message}", file=sys.stderr)
    return 1 if wrong else 0


def _send(project: str, sources: Sequence[str], comparison: Comparison) -> str:
    import tempfile

    from segbench.compare.formats import write
    from segbench.compare.rows import tables
    from segbench.experiment.items import tracked_scores
    from segbench.runtime.files import write_whole
    from segbench.tracking.artifacts import send

    names = "-".join(Path(source).name for source in sources)[:80]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "comparison.html"
        write_whole(file, write(comparison, "html"))
        used = tracked_scores(run.path for run in comparison.table.runs if run.path is not None)
        return send(project, "comparison", f"comparison-{names}", file, tables(comparison), Path(), used)


def settings_of(given: dict[str, str]) -> dict[str, Any]:
    """The settings that the command line gives, as arguments of `compare`.

    Raises:
        SegbenchError: a value that is not a number where one is expected.
    """
    values: dict[str, Any] = {}
    for key, kind in _SETTINGS.items():
        if key in given:
            try:
                values[key] = kind(given[key])
            except ValueError as error:
                wanted = "a whole number" if kind is int else "a number"
                raise SegbenchError(f"{key}={given[key]}", wanted, f"correct {key}=") from error
    return values


def _seeds_apart(value: str | None) -> bool:
    if value not in (None, "apart", "grouped"):
        raise SegbenchError(f"seeds={value}", "apart or grouped", "correct seeds=")
    return value == "apart"


def _format(given: dict[str, str]) -> str:
    from segbench.compare.formats import FORMATS, SUFFIXES

    if "format" in given:
        if given["format"] not in FORMATS:
            raise SegbenchError(f"format={given['format']}", f"one of {', '.join(FORMATS)}", "correct format=")
        return given["format"]
    if "output" not in given:
        return "terminal"
    suffix = Path(given["output"]).suffix.lower()
    if suffix not in SUFFIXES:
        raise SegbenchError(
            f"output={given['output']}, whose suffix names no format",
            f"a file ending in {', '.join(SUFFIXES)}, or format=",
            "add format=html, or rename the file",
        )
    return SUFFIXES[suffix]


def _write(path: Path, comparison: Comparison, form: str, table: str | None) -> None:
    from segbench.compare.formats import write

    write_output(path, write(comparison, form, table))
    say(path)


def _print(comparison: Comparison, form: str, table: str | None) -> None:
    from segbench.compare.formats import chosen, write

    if form != "terminal":
        say(write(comparison, form, table), end="")
        return
    from segbench.compare.terminal import PIPE_WIDTH, show
    from segbench.runtime.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    show(chosen(comparison, table), console)
