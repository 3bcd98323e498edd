"""Send to W&B what runs kept offline: `segbench sync RUN_OR_DIR ...`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from segbench.cli.entry import boundary
from segbench.cli.flags import Parser
from segbench.compare.reading import find_runs
from segbench.errors import say
from segbench.runs.directory import Run
from segbench.sweep.job import counted, is_held
from segbench.tracking.offline import send

ONLINE = "also runs that were begun online, of which the server may lack the end"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "segbench sync",
        description="Send to W&B what runs kept offline. Runs that are still written are left for later, and what was "
        "sent is marked: the same command goes on where it stopped.",
    )
    parser.add_argument("sources", nargs="+", metavar="RUN_OR_DIR", help="run directories, or folders of them")
    parser.add_argument("--online", action="store_true", help=ONLINE)
    return parser


def sync(sources: Sequence[str], online: bool = False) -> int:
    """Send the runs, and print what became of them.

    Args:
        sources: run directories, folders of them, globs.
        online: see `segbench.tracking.offline.send`.

    Returns:
        the exit code: 1 if something was not sent.

    Raises:
        SegbenchError: no run, no key, or no server that answers.
    """
    runs = list(dict.fromkeys(path for source in sources for path in find_runs(source)))
    done = send([(path, _may_be_at_work(path)) for path in runs], online)
    for leg, words in done.failed:
        say(f"not sent: {leg.folder}: {words}")
    parts = {
        "sent": done.sent,
        "sent earlier": done.before,
        "still running": done.running,
        "begun online (--online sends them)": done.online,
        "not sent": done.failed,
    }
    said = [f"{len(legs)} {what}" for what, legs in parts.items() if legs]
    say(f"{counted(len(runs), 'run')}: {', '.join(said) or 'nothing kept for W&B'}")
    return 1 if done.failed else 0


def _may_be_at_work(path: Path) -> bool:
    # The lock of a process on another machine is not seen everywhere, its state is.
    return is_held(path) or Run(path).state() == "running"


@boundary()
def main() -> None:
    """The entry point; sys.argv holds sources."""
    given = _parser().parse_args()
    raise SystemExit(sync(given.sources, given.online))
