"""metrics.csv that a resume appends to."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only


class RunCsv(CSVLogger):
    """Lightning's CSV logger, writing `metrics.csv` into the run directory itself.

    Lightning's own deletes the file of an earlier process; here its rows up to the resumed step are kept.

    Args:
        save_dir: the run directory.
        resumed_at: step that a resume continues from; later rows of the interrupted process are dropped.
        flush_logs_every_n_steps: rows are written every so many logged steps.
    """

    def __init__(self, save_dir: str, resumed_at: int | None = None, flush_logs_every_n_steps: int = 10) -> None:
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=flush_logs_every_n_steps)
        self._resumed_at = resumed_at

    @property
    def experiment(self) -> Any:
        """The writer; it takes up the file that is there. On ranks other than 0 one that does nothing."""
        if self._experiment is not None or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return super().experiment
        path = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
        kept, keys = _rows(path, self._resumed_at)
        writer = super().experiment
        if kept:
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, keys)
                table.writeheader()
                table.writerows(kept)
            writer.metrics_keys = keys
        return writer


def _rows(path: Path, before: int | None) -> tuple[list[dict[str, str]], list[str]]:
    if before is None or not path.is_file():
        return [], []
    with path.open(newline="") as file:
        table = csv.DictReader(file)
        return [row for row in table if int(row["step"]) < before], list(table.fieldnames or [])
