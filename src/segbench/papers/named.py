"""The deviations of a run from the paper whose scores stand beside its own, printed and kept with it."""

from __future__ import annotations

from pathlib import Path

from segbench.config.paper import experiment_of
from segbench.errors import say
from segbench.experiment.stages import FOLDER
from segbench.runs.directory import Run


def name_deviations(directory: Path) -> None:
    """Print every deviation of a scored run and of its stages, and write deviations.json.

    No-op for a run that no paper stands beside.

    Args:
        directory: of a training, or of an evaluation.

    Raises:
        SegbenchError: a file of the run is damaged.
    """
    run = Run.open(directory)
    for stage in sorted((run.path / FOLDER).glob("*/config.yaml")):
        name_deviations(stage.parent)
    results = run.results()
    trained = Run.open(results["provenance"].get("run", run.path))
    if "model" not in trained.as_written() or results["protocol"].get("paper") is None or run.partial() is not None:
        return
    config = trained.config()
    # A row of the user's own has no packaged experiment to be compared with.
    if config.paper is None or (itself := experiment_of(config.paper.model_dump())) is None:
        return
    from segbench.papers.deviations import Conduct, deviations, not_comparable
    from segbench.papers.experiments import row_itself

    row = row_itself(config.paper, itself)
    conduct = Conduct.of(trained, None if trained.path == run.path else run)
    found, other = deviations(conduct, row.config, row.stages), not_comparable(conduct.config, row.config)
    run.write_deviations({"experiment": itself, "deviations": found, "not_comparable": other})
    say(f"{run.path} beside {itself}, the paper's protocol:")
    for each in (*(f"not comparable: {reason}" for reason in other), *found):
        say(f"  {each}")
