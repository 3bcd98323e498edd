"""A run in MLflow: on a server, or in a database beside the runs."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import MLFlowLogger

from segbench.config.flat import flatten
from segbench.config.record import Config
from segbench.errors import not_installed
from segbench.runtime.files import write_whole
from segbench.tracking.mlflow_place import ID
from segbench.tracking.mlflow_place import tracking_uri as place
from segbench.tracking.shown import shown_once
from segbench.tracking.tracker import Item, Picture, Tracker, survives

log = logging.getLogger(__name__)


class RunMlflow(MLFlowLogger, Tracker):
    """The MLflow run of a run directory. A server that does not answer ends no training.

    Args:
        directory: of the run.
        config: of the run.
        job: `train` or `evaluate`.
        tracking_uri: of the server; None: MLFLOW_TRACKING_URI, else `mlflow.db` in the folder of all runs.
        experiment: MLflow's; None: MLFLOW_EXPERIMENT_NAME, else `segbench`.
        name: of the run; None: `<experiment>/<run directory>`.
        tags: of the run.
        log_model: `true` sends the reported checkpoint, `reference` only where it lies.
        log_predictions: the same for predictions of images without labels.
    """

    shows_pictures = True

    def __init__(
        self,
        directory: str,
        config: Config,
        job: str = "train",
        tracking_uri: str | None = None,
        experiment: str | None = None,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        log_model: bool | Literal["reference"] = False,
        log_predictions: bool | Literal["reference"] = False,
    ) -> None:
        self.directory = Path(directory)
        self._sent = {"model": log_model, "predictions": log_predictions}
        self._config = shown_once(config, "mlflow")
        uri, files = place() if tracking_uri is None else (tracking_uri, None)
        self._uri = uri
        path = self.directory / ID
        self._known = path.read_text().strip() if path.is_file() else None
        own = {"segbench.experiment": config.name, "segbench.job": job, **(tags or {})}
        try:
            super().__init__(
                experiment_name=experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "segbench",
                run_name=name or f"{config.name}/{self.directory.name}",
                tracking_uri=uri,
                tags=own,
                artifact_location=files,
                run_id=self._known,
            )
        except ModuleNotFoundError as error:
            raise not_installed("MLflow", "mlflow") from error

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `MlflowClient`; the run exists, unless no server answers."""
        if self.lost:
            from mlflow import MlflowClient

            return MlflowClient(self._uri)
        return super().experiment

    @property
    def name(self) -> str | None:
        """MLflow's number of the experiment; None where no server answers."""
        return None if self.lost else super().name

    @property
    def version(self) -> str | None:
        """The run's id; None where no server answers."""
        return None if self.lost else super().version

    @survives
    def begin(self) -> None:
        """Begin the run, or go on with it."""
        if self._uri.startswith("sqlite:///"):
            Path(self._uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        client, run = self.experiment, self.run_id
        if self._known is None:
            write_whole(self.directory / ID, str(run))
            self.log_hyperparams(self._config)
        else:
            client.update_run(run, status="RUNNING")
        log.info("mlflow: %s", self.where())

    def where(self) -> str | None:
        """The address of the run."""
        if self.lost:
            return None
        of_server = f"#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"{self._uri}/{of_server}" if self._uri.startswith("http") else f"{self._uri}, run {self.run_id}"

    @survives
    def log_hyperparams(self, params: Any) -> None:
        """The flat configuration."""
        super().log_hyperparams(flatten(params))

    @survives
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send a row."""
        super().log_metrics(metrics, step)

    def finalize(self, status: str = "success") -> None:
        """No-op: a training and its test are one run, which `end` ends."""

    @survives
    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Flat pictures, by step."""
        for picture in pictures:
            self.experiment.log_image(self.run_id, picture.flat_HWC, key=f"{key}/{picture.id}", step=step)

    @survives
    def table(self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table without pictures."""
        shown_ = [number for number, column in enumerate(columns) if column != "image"]
        rows = list(rows)
        data = {columns[number]: [row[number] for row in rows] for number in shown_}
        self.experiment.log_table(self.run_id, data, artifact_file=f"{key}.json")

    @survives
    def summary(self, values: Mapping[str, Any]) -> None:
        """Numbers as scores of the run's end, texts as tags."""
        for key, value in values.items():
            if isinstance(value, str):
                self.experiment.set_tag(self.run_id, key, value)
            elif math.isfinite(value):
                self.experiment.log_metric(self.run_id, key, value)

    @survives
    def made(self, item: Item) -> None:
        """Files, or a note of where they lie."""
        how = self._sent.get(item.kind, True)
        if not how:
            return
        if how == "reference":
            self.experiment.set_tag(self.run_id, f"{item.kind}.reference", ", ".join(item.references))
            return
        for name, path in item.files.items():
            self.experiment.log_artifact(self.run_id, str(path), str(Path(item.kind) / Path(name).parent))
        with tempfile.TemporaryDirectory() as folder:
            facts = Path(folder) / f"{item.kind}.json"
            write_whole(facts, json.dumps(dict(item.metadata), indent=2, default=str))
            self.experiment.log_artifact(self.run_id, str(facts), item.kind)

    @survives
    def used(self, item: Item) -> None:
        """The data set as an input of the run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if item.kind != "dataset":
            self.experiment.set_tag(self.run_id, f"{item.kind}.used", item.name)
            return
        facts = json.dumps({"images": item.metadata["images"], "protocol": item.metadata["protocol"]})
        data = Dataset(
            name=item.metadata["name"],
            digest=item.metadata["digest"][:36],
            source_type="segbench",
            source="{}",
            profile=facts,
        )
        self.experiment.log_inputs(
            self.run_id, datasets=[DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
        )

    @survives
    def end(self, exit_code: int, preempted: bool) -> None:
        """Finished, failed, or killed where it was stopped."""
        state = "FINISHED" if exit_code == 0 else "KILLED" if exit_code > 128 else "FAILED"
        self.experiment.set_terminated(self.run_id, state)
        log.info("mlflow: %s", self.where())
