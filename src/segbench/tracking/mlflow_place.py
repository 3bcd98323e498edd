"""Where MLflow keeps runs; does not import it."""

from __future__ import annotations

import os
from pathlib import Path

ID = "mlflow_id.txt"
"""In a run directory: the id of its MLflow run."""


def tracking_uri() -> tuple[str, str | None]:
    """The address of the server, or of a database in the folder of all runs, and where that one has its files."""
    # Its own patience is minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri, None
    folder = Path(os.environ.get("SEGBENCH_OUTPUTS", "outputs")).absolute()
    return f"sqlite:///{folder / 'mlflow.db'}", (folder / "mlflow_files").as_uri()
