"""Score a run: `segbench evaluate run=RUN [split=test] [checkpoint=best|last]`, or files: `predictions=P labels=L`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.cli.entry import boundary, hydra_entry, overrides
from segbench.config.composed import resolved
from segbench.config.requests import EvaluateRequest
from segbench.errors import SegbenchError
from segbench.experiment.evaluate import evaluate
from segbench.papers.named import name_deviations
from segbench.runtime.processes import is_main_process

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OF_FILES = ("predictions", "labels", "name", "hydra", "run_directory")
"""Keys that count where files are scored."""


def run_job(config: DictConfig) -> Path:
    """Score what the composed config asks for; returns the directory of the evaluation."""
    from hydra.core.hydra_config import HydraConfig

    from segbench.cli.entry import relative

    directory = relative(Path(HydraConfig.get().runtime.output_dir))
    given = EvaluateRequest.of(resolved(config))
    if given.run is not None and given.predictions is None and given.labels is None:
        evaluate(given, directory, overrides())
    elif given.run is None and given.predictions is not None and given.labels is not None:
        from segbench.experiment.score_files import score_files

        idle = [word for word in overrides() if word.lstrip("+~").split("=")[0].split(".")[0] not in _OF_FILES]
        if idle:
            raise SegbenchError(
                f"{', '.join(idle)} with predictions={given.predictions}",
                "predictions=P and labels=L alone: files are scored as they are",
                "leave them out; what concerns a network is set where it predicts",
            )
        score_files(given, directory, overrides())
    else:
        named = ", ".join(key for key in ("run", "predictions", "labels") if getattr(given, key) is not None)
        raise SegbenchError(
            f"evaluate with {named or 'nothing to score'}",
            "either run=RUN, or predictions=P and labels=L",
            "segbench evaluate run=outputs/quickstart/<run id>",
        )
    return directory


@boundary()
def main() -> None:
    """The entry point; sys.argv holds overrides."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from segbench.runtime.ranks import name_run

    name_run()
    done: list[Path] = []
    hydra_entry(lambda config: done.append(run_job(config)), "evaluate")
    for directory in done if is_main_process() else ():
        name_deviations(directory)
