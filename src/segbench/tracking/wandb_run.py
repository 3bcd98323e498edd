"""A run in Weights & Biases: offline without a key or a server, and never the reason why a training ends."""

from __future__ import annotations

import logging
import os
import secrets
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from pydantic import ValidationError

from segbench.config.no_effect import counting
from segbench.config.record import Config
from segbench.errors import SegbenchError, as_typed
from segbench.runtime.files import open_itself, write_whole
from segbench.runtime.processes import is_main_process
from segbench.spec import ScoreInfo
from segbench.tracking.access import INIT_S, Access, Mode, access, base_url, prepare, silence
from segbench.tracking.agent import ID, agents_run
from segbench.tracking.offline import FILES, send_legs
from segbench.tracking.shown import shown_once
from segbench.tracking.tracker import STEP, Item, Picture, Tracker, first_line, survives

log = logging.getLogger(__name__)

FINISH_S = 10.0
"""Seconds for what is still to be sent at the end, before the server is asked whether it is still there."""


class RunWandb(WandbLogger, Tracker):
    """The W&B run of a run directory.

    What is None is left to the environment (WANDB_PROJECT, WANDB_NAME, ...), and where that says nothing to the run:
    its experiment, its directory, its setting.

    Args:
        directory: of the run.
        config: of the run.
        job: `train` or `evaluate`.
        project: W&B's project; `segbench` if neither this nor WANDB_PROJECT says another.
        entity: a user or a team.
        name: as it is displayed.
        id: of the run, once in a project.
        group: of runs; seeds of one setting are one group.
        job_type: as W&B shows it.
        tags: before those of experiment, data set, network and sweep.
        notes: a longer text.
        dir: where wandb keeps its files, in `wandb/`.
        mode: online, offline, disabled or shared.
        offline: the same as `mode=offline`.
        log_model: `true` sends the reported checkpoint, `reference` only where it lies.
        log_predictions: the same for predictions of images without labels.
        reference_data: name in the data set's item where it lies on this machine.
        alerts: send W&B's alert where a loss is not finite or a run fails.
        settings: further ones, of `wandb.Settings`.
    """

    shows_pictures = True

    def __init__(
        self,
        directory: str,
        config: Config,
        job: str = "train",
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        id: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        dir: str | None = None,
        mode: Mode | None = None,
        offline: bool = False,
        log_model: bool | Literal["reference"] = False,
        log_predictions: bool | Literal["reference"] = False,
        reference_data: bool = False,
        alerts: bool = False,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.access = access({"mode": mode, "offline": offline})
        self._run: Any = None
        self._curves = set[str]()
        self._alerts = alerts
        self.log_model, self.log_predictions, self.reference_data = log_model, log_predictions, reference_data
        trained = config.logger.get("wandb")
        self._sent_model = False if trained is None else trained.arguments.get("log_model", False)
        self._of_agent = agents_run() is not None and not _is_part(self.directory)
        tree = shown_once(config, "wandb")
        environment = os.environ.get
        project = project or environment("WANDB_PROJECT") or "segbench"
        self._init: dict[str, Any] = {
            "project": None if self._of_agent else project,
            "entity": None if self._of_agent else entity,
            "name": name or environment("WANDB_NAME") or f"{config.name}/{self.directory.name}",
            "group": group or environment("WANDB_RUN_GROUP") or group_of(config),
            "job_type": job_type or environment("WANDB_JOB_TYPE") or job,
            "tags": _tags(self.directory, config, tags),
            "notes": notes,
            "dir": dir or environment("WANDB_DIR") or str(self.directory),
            "config": tree,
            "resume": "allow",
        }
        self._settings = {
            **{"init_timeout": INIT_S, "finish_timeout": FINISH_S, "finish_timeout_raises": True},
            **{"silent": True, "console_multipart": True},
            **(settings or {}),
        }
        self._own_id = self._chosen_id(id) if self.access.mode != "disabled" else None
        super().__init__(project=project, save_dir=self._init["dir"], id=self._own_id, name=self._init["name"])

    def _chosen_id(self, given: str | None) -> str | None:
        # Kept in the directory: a resumed run stays the same run, and the jobs 0 of two sweeps are two runs.
        path = self.directory / ID
        if path.is_file():
            return path.read_text().strip()
        if not is_main_process():
            # Only the first process has a run.
            return None
        if (of_sweep := sweep_of(self.directory)) and given:
            raise SegbenchError(
                f"logger.wandb.id={given} for every job of the sweep {of_sweep}",
                "an id for each run",
                "leave it out; logger.wandb.group names runs that belong together",
            )
        asked = given or os.environ.get("WANDB_RUN_ID")
        if asked and not given and of_sweep:
            log.warning("WANDB_RUN_ID=%s names one run, not the jobs of a sweep: each has an id of its own", asked)
            asked = None
        name = "".join(letter if letter.isalnum() else "-" for letter in self.directory.name)
        if asked and _is_part(self.directory):
            # A stage of that run is another run.
            asked = f"{asked}-{name}"
        chosen = asked or f"{name}-{secrets.token_hex(4)}"
        write_whole(path, chosen)
        return chosen

    # The run

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`, begun when it is first asked for."""
        if self._run is None and self.lost:
            # For code of the user's that asks all the same.
            self.access = Access("disabled")
        if self._run is None:
            self._run = self._begin()
        return self._run

    def _begin(self) -> Any:
        asked = self.access
        if asked.mode in ("online", "shared") and (reason := silence()) is not None:
            self._go_offline(f"{base_url()}: {reason}")
        try:
            run = self._start()
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise SegbenchError(
                f"logger.wandb: {'.'.join(map(str, fault['loc']))}={fault['input']}: {fault['msg']}",
                "a value that wandb takes",
                "correct it in logger.wandb, or the WANDB_ variable of that name",
            ) from error
        except Exception as error:
            if self.access.mode in ("offline", "disabled"):
                raise
            import wandb

            # It holds the id of a run whose start failed until it is torn down.
            wandb.teardown()
            self._go_offline(f"{base_url()}: {first_line(error)}")
            run = self._start()
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        if self.access.mode == "disabled":
            return run
        kept, own = Path(run.dir).parent.absolute(), self.directory.absolute()
        with open_itself(self.directory / FILES, "a") as file:
            # A run directory may move, as a whole.
            file.write(f"{kept.relative_to(own) if kept.is_relative_to(own) else kept}\n")
        why = f" ({self.access.why})" if self.access.why else ""
        log.info("wandb: %s%s; %s", self.access.mode, why, self._said(run))
        return run

    def _go_offline(self, why: str) -> None:
        log.warning("wandb: %s; continuing offline", why)
        self.access = Access("offline")

    def _start(self) -> Any:
        prepare()
        import wandb

        given: dict[str, Any] = {**self._settings, "stop_fn": _stop}
        # What belongs to the whole run, and not to its stages.
        hidden = {}
        if _is_part(self.directory):
            names = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
            hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
        try:
            if wandb.run is not None:
                wandb.finish()
            # With other variables than before it would go on with the old ones.
            wandb.teardown()
            Path(self._init["dir"]).mkdir(parents=True, exist_ok=True)
            # Under its agent wandb takes project, entity and id from there, and warns of others.
            own_id = None if self._of_agent else self._own_id
            return wandb.init(**self._init, id=own_id, mode=self.access.mode, settings=wandb.Settings(**given))
        finally:
            os.environ.update(hidden)

    @survives
    def begin(self) -> None:
        """Begin the run now; a disabled one, which keeps nothing, only where the user's own code asks for it."""
        if self.access.mode == "disabled":
            self.lost, self.shows_pictures = True, False
            log.info("wandb: disabled (%s)", self.access.why)
        else:
            _ = self.experiment

    def where(self) -> str | None:
        """A sentence: its address, or how it is sent later."""
        return None if self._run is None else self._said(self._run)

    def _said(self, run: Any) -> str:
        if self.access.mode == "offline":
            return f"send it later with: segbench sync {as_typed(self.directory)}"
        if self.lost:
            return f"send the rest later with: segbench sync --online {as_typed(self.directory)}"
        return str(run.url)

    # What is sent

    @survives
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send a row."""
        self.experiment.log({**metrics, **({} if step is None else {STEP: step})})

    @survives
    def log_hyperparams(self, *given: Any, **named: Any) -> None:
        """No-op: the run begins with its configuration."""

    @survives
    def describe(self, infos: Mapping[str, ScoreInfo], optimised: str | None) -> None:
        """The summary has the best and the last of each score; of the optimised one, the reported checkpoint's."""
        for key, info in infos.items():
            # The sweep of an agent may read any of them, and reads numbers alone.
            if key.startswith("val/") and "/iu/" not in key and key != optimised and not self._of_agent:
                best = "max" if info.higher_is_better else "min"
                self.experiment.define_metric(key, step_metric=STEP, step_sync=True, summary=f"{best},last")
                self._curves.add(key)

    @survives
    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Images with masks that are switched on and off; the step slider shows their progress."""
        self.experiment.log({key: [_image(picture) for picture in pictures], STEP: step})

    @survives
    def table(self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table, its pictures with masks."""
        import wandb

        # A table has many, and its masks stay exact.
        data = [[_image(cell, "jpg") if isinstance(cell, Picture) else cell for cell in row] for row in rows]
        self.experiment.log({key: wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)})

    @survives
    def summary(self, values: Mapping[str, Any]) -> None:
        """Values in the run's summary, except of scores that have their best and last there."""
        for key, value in values.items():
            if key not in self._curves:
                self.experiment.summary[key] = value

    @survives
    def made(self, item: Item) -> None:
        """An artifact of this run; a model and predictions where they are asked for, as files or by reference."""
        asked = {"model": self.log_model, "predictions": self.log_predictions}.get(item.kind, True)
        if asked:
            artifact = artifact_of(item, by_reference=asked == "reference")
            self.experiment.log_artifact(artifact, aliases=["latest", *item.aliases])

    @survives
    def used(self, item: Item) -> None:
        """An artifact that this run uses."""
        if item.kind == "model" and not self._sent_model:
            return
        how = self._sent_model if item.kind == "model" else "reference" if self.reference_data else True
        use(self.experiment, item, by_reference=how == "reference")

    @survives
    def alert(self, title: str, text: str) -> None:
        """W&B's alert, by mail or Slack."""
        if self._alerts:
            self.experiment.alert(title=title[:63], text=text, level="ERROR")

    @survives
    def end(self, exit_code: int, preempted: bool) -> None:
        """End the run, so that this process can start another.

        Args:
            exit_code: of the run; 0: finished.
            preempted: the machine was reclaimed; W&B shows the run as preempted, and its sweeps run it again.
        """
        if self._run is None:
            return
        import wandb

        if preempted:
            self._run.mark_preempting()
        folder = Path(self._run.dir).parent
        try:
            self._run.finish(exit_code=exit_code)
        except TimeoutError:
            self._send_rest(folder)
        # A separate process of W&B writes an offline run's file, and finish() does not wait for it.
        wandb.teardown()
        log.info("wandb: %s", self.where())

    def _send_rest(self, folder: Path) -> None:
        # What the run said is on the disk by now.
        if (reason := silence()) is None:
            log.info("wandb: sending the rest")
            reason = None if send_legs([str(folder)]) else "not all of it could be sent"
        if reason is not None:
            self.lost = True
            log.warning("wandb: %s: %s", base_url(), reason)


def _stop() -> None:
    """What wandb calls where somebody stops the run on its page."""
    from segbench.runtime.signals import ends_early

    ends_early(lambda: True)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_part(directory: Path) -> bool:
    return directory.parent.name == "stages"


def sweep_of(directory: Path) -> str | None:
    """The sweep of this program that a run directory is a job of."""
    return directory.parent.name if (directory.parent / "sweep.yaml").is_file() else None


def group_of(config: Config) -> str:
    """The same for all seeds of a setting, and for no other setting."""
    import hashlib
    import json

    setting = json.dumps(counting(config.flat), sort_keys=True, default=str)
    return f"{config.name}-{hashlib.sha256(setting.encode()).hexdigest()[:8]}"


def _tags(directory: Path, config: Config, given: Sequence[str]) -> list[str]:
    """Experiment, data set, network and sweep, after the user's."""
    data = config.data.target.split(".")
    own = [*given, *os.environ.get("WANDB_TAGS", "").split(",")]
    found = [*own, config.name, data[-2] if len(data) > 1 else "", config.model.name, sweep_of(directory) or ""]
    # The server takes 64 characters.
    return list(dict.fromkeys(str(tag)[:64] for tag in found if tag))


def _image(picture: Picture, form: str = "png") -> Any:
    import wandb

    masks = {
        name: {"mask_data": mask.classes_HW, "class_labels": dict(mask.names)} for name, mask in picture.masks.items()
    }
    return wandb.Image(picture.image_HWC, caption=picture.id, masks=masks or None, file_type=form)


def use(run: Any, item: Item, by_reference: bool = False) -> None:
    """Let a W&B run use an item; the same content is the same version, whoever sends it.

    `wandb.Run.use_artifact` takes none offline, and waits for the server else.
    """
    artifact = artifact_of(item, by_reference)
    run._log_artifact(artifact, aliases=["latest", *item.aliases], is_user_created=True, use_after_commit=True)


def artifact_of(item: Item, by_reference: bool = False) -> Any:
    """W&B's artifact of an item; one without files has its facts as content."""
    import json

    import wandb

    artifact = wandb.Artifact(item.clean_name, type=item.kind, metadata=dict(item.metadata))
    if by_reference:
        for address in item.references:
            artifact.add_reference(address, checksum=False)
    else:
        for name, path in item.files.items():
            artifact.add_file(str(path), name=name)
    if by_reference or not item.files:
        # Versions are told apart by their content.
        with artifact.new_file("facts.json") as file:
            json.dump(dict(item.metadata), file, sort_keys=True, indent=2, default=str)
    return artifact
