"""The deviations of a run from the paper whose scores stand beside its own, printed and kept with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.config.paper import paper_blocks
from segbench.runs.directory import Run

if TYPE_CHECKING:
    from segbench.papers.deviations import Conduct


def name_deviations(directory: Path) -> None:
    """Print every deviation of a scored run, and write deviations.json; no-op for one that no paper stands beside.

    Args:
        directory: of a training, or of an evaluation.

    Raises:
        SegbenchError: a file of the run is damaged.
    """
    run = Run.open(directory)
    results = run.results()
    trained = Run.open(results["provenance"]["run"]) if "run" in results["provenance"] else run
    config = trained.config()
    scored = any(key.startswith("test/") for key in results["metrics"])
    # A row of the user's own has no packaged experiment to be compared with.
    if config.paper is None or not scored or run.partial() is not None or config.paper.experiment not in paper_blocks():
        return
    from segbench.papers.deviations import Conduct, deviations, not_comparable
    from segbench.papers.experiments import row_itself

    row = row_itself(config.paper, config.name)
    conduct = Conduct.of(trained)
    conduct = conduct if trained is run else _scored_again(conduct, run)
    found, other = deviations(conduct, row.config, row.stages), not_comparable(conduct.config, row.config)
    run.write_deviations({"experiment": config.paper.experiment, "deviations": found, "not_comparable": other})
    print(f"deviations from {config.paper.experiment}, the paper's protocol:")
    for each in found:
        print(f"  {each}")


def _scored_again(conduct: Conduct, evaluation: Run) -> Conduct:
    # Of an evaluation: the training, with what it set otherwise.
    results = evaluation.results()
    own = {key: results["protocol"][key] for key in ("tta", "tile") if key in results["protocol"]}
    results = results | {"timing": conduct.results["timing"] | results["timing"]}
    return replace(conduct, config=conduct.config.replace(own), results=results)
