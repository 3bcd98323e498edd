"""Train, then score: `segbench train [overrides]`, `segbench train resume=RUN`, `python -m segbench.train`."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config import choose_run_id
from segbench.entry import hydra_entry, job, overrides, plain
from segbench.errors import SegbenchError
from segbench.stages import FOLDER

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from segbench.build import Experiment
    from segbench.runs import Run
    from segbench.stages import Stage

log = logging.getLogger(__name__)


def train(
    config: dict[str, Any], directory: Path, given: list[str], resume: bool = False, stages: Sequence[Stage] = ()
) -> dict[str, float]:
    """Run one experiment in a new directory, or continue one in its own.

    Args:
        config: resolved, plain containers.
        directory: the run's own.
        given: the command line's overrides, for the record.
        resume: `directory` holds a run already: continue from its last checkpoint, or begin where it has none.
        stages: runs that come before this one, in their order, below `directory`.

    Returns:
        the scores that go into results.json.
    """
    from segbench.build import build_experiment, resolve_hardware
    from segbench.callbacks.wandb_run import finish_wandb
    from segbench.entry import is_main_process, log_to
    from segbench.runs import Run, provenance
    from segbench.stages import prepare_stages, start_of

    if not config["callbacks"].get("checkpoint"):
        raise SegbenchError(
            "callbacks.checkpoint=null",
            "checkpoints, from which a run is scored",
            "leave callbacks.checkpoint as it is",
        )
    first = is_main_process()
    said = resolve_hardware(config)
    run = Run.create(directory, config, given) if first and not resume else Run(directory)
    checkpoint = run.latest() if resume else None
    if first and resume:
        run.lock()
        if run.state() == "prepared":
            run.begin(config)
    experiment: Experiment | None = None
    with run, log_to(directory / "run.log" if first else None):
        if first:
            log.info("run: %s", directory)
            for sentence in said:
                log.info("%s", sentence)
            run.set_state("running")
            run.write_provenance(provenance())
        state, exit_code, reason = "failed", 1, None
        try:
            if first and not resume:
                prepare_stages(directory, stages)
            _run_stages(config, run, stages)
            experiment = build_experiment(config, directory, checkpoint)
            if first:
                run.write_dataset(experiment.data.spec.to_dict())
            if checkpoint is None:
                from segbench.initialise import initialise

                begun = config | {"init_from": start_of(config, directory)}
                for report in initialise(experiment.task.model, begun, experiment.dataset.spec.modalities):
                    log.info("%s", report)
            scores = _fit_and_test(config, run, experiment, first, checkpoint)
            state, exit_code = "finished", 0
        except (KeyboardInterrupt, SystemExit):
            # Lightning turns Ctrl-C into an exit.
            state = "interrupted"
            raise
        except Exception as error:
            reason = f"{error}" if isinstance(error, SegbenchError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            if first:
                run.set_state(state, reason)
            if experiment is not None:
                finish_wandb(experiment.trainer.loggers, exit_code)
    return scores


def _run_stages(config: dict[str, Any], run: Run, stages: Sequence[Stage]) -> None:
    from segbench.runs import Run
    from segbench.stages import start_of

    for number, stage in enumerate(stages):
        before = Run(run.path / FOLDER / stage.experiment)
        if before.state() == "finished":
            log.info("stage %d of %d, %s: finished", number + 1, len(stages) + 1, stage.experiment)
            continue
        log.info("stage %d of %d: %s in %s", number + 1, len(stages) + 1, stage.experiment, before.path)
        own = stage.config if stage.stages else stage.config | {"init_from": start_of(config, run.path, number)}
        devices = {"devices": config["trainer"]["devices"]}
        train(own | {"trainer": own["trainer"] | devices}, before.path, stage.overrides, True, stage.stages)
    if stages:
        log.info("stage %d of %d: %s in %s", len(stages) + 1, len(stages) + 1, config["name"], run.path)


def _fit_and_test(
    config: dict[str, Any], run: Run, experiment: Experiment, first: bool, checkpoint: Path | None
) -> dict[str, float]:
    from segbench.checkpoint import load_weights
    from segbench.evaluate import score_split, task_protocol
    from segbench.predict import evaluating, predict_images, write_probabilities
    from segbench.tables import print_results

    started = time.monotonic()
    trainer, task, data = experiment.trainer, experiment.task, experiment.data
    trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    timing = {"fit_s": time.monotonic() - started, "steps": float(trainer.global_step)}
    scores = dict(task.scores.get("val", {}))
    if experiment.dataset.split("test") is None:
        split, selected = "val" if scores else "none", "last"
    else:
        split, chosen = "test", run.checkpoint()
        selected = chosen.stem
        scored = score_split(run, trainer, task, data, split, chosen, first)
        # The last validation says nothing of an earlier checkpoint.
        scores = scored.scores if selected == "best" else scores | scored.scores
        timing |= scored.timing
    if first and (volume := experiment.dataset.split("predict")) is not None:
        load_weights(task.model, run.checkpoint(selected))
        with evaluating(task, config["trainer"]) as device:
            images = (volume.read(index) for index in range(len(volume)))
            predictions = predict_images(task, images, device)
            heads = dict(data.spec.heads)
            write_probabilities(predictions, len(volume), heads, run.path / "predictions", "test-volume")
    if first:
        protocol = task_protocol(config, data, task, selected)
        run.write_results(scores, timing, run.provenance(), protocol)
        print_results(config, run.path, scores, split, protocol, timing)
    return scores


@job
def run_job(config: DictConfig) -> None:
    """What Hydra calls with the composed config."""
    from hydra.core.hydra_config import HydraConfig

    from segbench.entry import relative
    from segbench.stages import compose_stages

    directory = Path(HydraConfig.get().runtime.output_dir)
    resolved = plain(config)
    train(resolved, relative(directory), overrides(), stages=compose_stages(resolved, overrides()))


RESUMABLE = ("trainer.max_steps", "trainer.max_epochs", "trainer.devices")
"""What may change when a run is continued."""


def resume_run(arguments: list[str]) -> None:
    """Continue a run in place, with its own configuration; Hydra has no part in it."""
    from segbench.entry import fail
    from segbench.runs import Run
    from segbench.stages import read_stages

    try:
        pairs = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        run = Run.open(pairs.pop("resume"))
        refused = [argument for argument in arguments if argument.split("=", 1)[0] not in (*RESUMABLE, "resume")]
        if refused:
            raise SegbenchError(
                f"resume={run.path} with {', '.join(refused)}",
                f"beside resume= only {', '.join(RESUMABLE)}: a run keeps its configuration",
                "leave it out, or start a new run",
            )
        config = run.config()
        for key, value in pairs.items():
            if not value.removeprefix("-").isdecimal():
                raise SegbenchError(f"{key}={value}", "a whole number", f"correct {key}=")
            config["trainer"][key.removeprefix("trainer.")] = int(value)
        if run.state() == "finished" and not pairs:
            print(f"{run.path} is finished; trainer.max_steps=N (or trainer.max_epochs=N) continues it")
            return
        train(config, run.path, arguments, True, read_stages(config, run.path))
    except SegbenchError as error:
        fail(error)


def main() -> None:
    """The entry point; sys.argv holds overrides."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    # A run's configuration is read before Hydra starts, so nothing of the new command line can rewrite it.
    if any(argument.startswith("resume=") and argument != "resume=null" for argument in sys.argv[1:]):
        resume_run(sys.argv[1:])
        return
    choose_run_id()
    hydra_entry(run_job, "train")


if __name__ == "__main__":
    main()
