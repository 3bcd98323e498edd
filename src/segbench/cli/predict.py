"""Predict images: `segbench predict run=RUN input=FILE|DIR output=DIR [format=...]`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from segbench.cli.entry import hydra_entry
from segbench.config.composed import resolved
from segbench.config.requests import PredictRequest
from segbench.errors import say
from segbench.experiment.predict import predict
from segbench.runtime.processes import choose_run_id
from segbench.runtime.signals import Stopped, stoppable

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_job(config: DictConfig) -> None:
    """What Hydra calls with the composed config."""
    from segbench.runtime.log import log_to

    with log_to(None), stoppable():
        try:
            predict(PredictRequest.of(resolved(config)), written=lambda path: say(path, flush=True))
        except Stopped:
            say("stopped; the same command continues from here", file=sys.stderr)
            raise


def main() -> None:
    """The entry point; sys.argv holds overrides."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    choose_run_id()
    hydra_entry(run_job, "predict")
