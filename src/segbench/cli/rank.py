"""A further process of a run on several devices."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from segbench.errors import SegbenchError
from segbench.runtime.processes import end_with_parent

if TYPE_CHECKING:
    pass


def main() -> None:
    """A further rank."""
    what, directory, parent, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from pathlib import Path

    from segbench.cli.entry import fail
    from segbench.experiment.evaluate import evaluate
    from segbench.experiment.resume import changed
    from segbench.experiment.stages import read_stages
    from segbench.experiment.train import train
    from segbench.runs.directory import Run

    run = Run(Path(directory))
    try:
        if what == "train":
            config, allow = changed(run.config(), arguments)
            train(config, run.path, arguments, True, read_stages(config, run.path), allow)
        else:
            evaluate(run.config(), run.path, arguments)
    except SegbenchError as error:
        fail(error)


if __name__ == "__main__":
    main()
