"""Export a run's network: `segbench export run=RUN format=onnx|pt2 [output=FILE]`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from segbench.cli.entry import hydra_entry
from segbench.config.composed import resolved
from segbench.config.requests import ExportRequest
from segbench.errors import say
from segbench.export.exporting import export
from segbench.runtime.processes import choose_run_id
from segbench.runtime.signals import stoppable

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_job(config: DictConfig) -> None:
    """What Hydra calls with the composed config."""
    from segbench.runtime.log import log_to

    with log_to(None), stoppable():
        say(export(ExportRequest.of(resolved(config))))


def main() -> None:
    """The entry point; sys.argv holds overrides."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    choose_run_id()
    hydra_entry(run_job, "export")
