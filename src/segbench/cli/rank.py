"""A further process of a run on several devices.

python -m segbench.cli.rank train|evaluate DIRECTORY PARENT'S_ID [CHANGES ALLOWED]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from segbench.cli.entry import boundary
from segbench.runtime.processes import end_with_parent
from segbench.runtime.ranks import leave_group
from segbench.runtime.signals import Stopped

_WRITES_S = 7 * 86400.0
"""How long the first process may take to write results and predictions; this one ends with it anyway."""


@boundary()
def main() -> None:
    """Train or evaluate with the configuration that the first process has written."""
    what, directory, parent, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from segbench.config.requests import EvaluateRequest
    from segbench.experiment.evaluate import evaluate
    from segbench.experiment.stages import read_stages
    from segbench.experiment.train import train
    from segbench.runs.directory import Run

    run = Run(Path(directory))
    try:
        if what == "train":
            changes, allow = arguments
            config = run.config().replace(json.loads(changes))
            train(config, run.path, arguments, True, read_stages(config, run.path), allow=allow.split(","))
        else:
            evaluate(EvaluateRequest.of(run.recorded()), run.path, arguments)
    except Stopped:
        leave_group(_WRITES_S)
        raise
    leave_group(_WRITES_S)


if __name__ == "__main__":
    main()
