"""Runs of an MLflow experiment, read through its client."""

from __future__ import annotations

import ast
import time
from collections.abc import Mapping
from typing import Any

from segbench.errors import SegbenchError, not_installed
from segbench.tracking.mlflow_place import tracking_uri
from segbench.tracking.source import TrackedRun
from segbench.tracking.tracker import first_line

_STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "killed", "RUNNING": "running", "SCHEDULED": "queued"}
_PAGE = 1000


def read_experiment(source: str) -> list[TrackedRun]:
    """Read the runs of `EXPERIMENT`, or one of them: `EXPERIMENT/RUN`.

    The server is MLFLOW_TRACKING_URI, else the database beside the runs here.

    Returns:
        the runs from the oldest to the newest.

    Raises:
        SegbenchError: MLflow is not installed, no server answers, or there is no such run.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError as error:
        raise not_installed("MLflow", "mlflow") from error
    name, _, run = source.partition("/")
    uri, _ = tracking_uri()
    try:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(name)
        if run:
            found = [client.get_run(run)]
        else:
            found, token = [], None
            while experiment is not None:
                page = client.search_runs([experiment.experiment_id], max_results=_PAGE, page_token=token)
                found += page
                if not (token := page.token):
                    break
    except (MlflowException, OSError) as error:
        raise SegbenchError(
            f"mlflow:{source} cannot be read from {uri}: {first_line(error)}",
            "an MLflow server that answers, and a run that it has",
            "check MLFLOW_TRACKING_URI and the name, or compare the run directories, which need no server",
        ) from error
    if not found:
        raise SegbenchError(
            f"no run in mlflow:{source} at {uri}",
            "mlflow:EXPERIMENT or mlflow:EXPERIMENT/RUN, with runs",
            "correct the name, or set MLFLOW_TRACKING_URI",
        )
    return sorted((_read(each, name) for each in found), key=lambda each: each.created)


def _read(run: Any, experiment: str) -> TrackedRun:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.info.start_time / 1000))
    seconds = (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else None
    summary: dict[str, Any] = dict(run.data.metrics)
    if seconds is not None:
        summary["_runtime"] = seconds
    return TrackedRun(
        id=run.info.run_id,
        address=f"mlflow:{experiment}/{run.info.run_id}",
        name=run.info.run_name,
        state=_STATES.get(run.info.status, run.info.status.lower()),
        config=_values(run.data.params),
        summary=summary,
        created=started,
        group="",
    )


def _values(texts: Mapping[str, str]) -> dict[str, Any]:
    """What MLflow keeps as texts, as Python writes them."""
    values: dict[str, Any] = {}
    for key, text in texts.items():
        try:
            values[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[key] = text
    return values
