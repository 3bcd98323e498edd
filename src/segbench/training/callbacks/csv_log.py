"""metrics.csv: a row each time something is logged, on disk at once; a resumed run appends to the rows it knows."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from segbench.config.handed_over import text_of
from segbench.errors import SegbenchError
from segbench.runtime.files import open_itself, write_whole

log = logging.getLogger(__name__)


class RunCsv(Logger):
    """Rows of `metrics.csv` in the run directory, their columns in alphabetical order.

    A row is appended in one write; where it has new columns the file is rewritten under another name and renamed. A
    killed process leaves whole rows.

    Args:
        save_dir: the run directory.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._path = Path(save_dir) / "metrics.csv"
        self._kept = self._count = 0
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """Empty: the file is named by the run directory."""
        return ""

    @property
    def version(self) -> str:
        """Empty, like the name."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self._path.parent)

    def keep(self, rows: int) -> None:
        """Append to the first `rows` rows of an earlier process; without this call its file is replaced."""
        self._kept = self._count = rows

    @property
    def rows(self) -> int:
        """The number of rows so far."""
        return self._count

    def written(self) -> int:
        """The number of rows so far, synced to the disk."""
        if self._columns is not None and self._path.is_file():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
        return self._count

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row."""
        if self._columns is None:
            self._columns = self._open()
        row = dict(metrics) | {"step": step}
        self._count += 1
        if new := row.keys() - set(self._columns):
            self._columns = sorted([*self._columns, *new])
            self._rewrite([*self._read(), row])
        else:
            with open_itself(self._path, "a", newline="") as file:
                file.write(_lines(self._columns, [row]))

    @rank_zero_only
    def log_hyperparams(self, *arguments: Any, **named: Any) -> None:
        """No-op: config.yaml has them."""

    def _open(self) -> list[str]:
        rows = self._read()[: self._kept]
        if len(rows) < self._kept:
            log.warning("%s has %d of its %d earlier rows", self._path, len(rows), self._kept)
        self._count = len(rows)
        self._columns = sorted({name for row in rows for name, value in row.items() if value not in ("", None)})
        self._rewrite(rows)
        return self._columns

    def _read(self) -> list[dict[str, Any]]:
        if not self._path.is_file():
            return []
        file = io.StringIO(text_of(self._path, str(self._path)), newline="")
        try:
            return [{name: row[name] for name in row if name is not None} for row in csv.DictReader(file)]
        except csv.Error as error:
            raise SegbenchError(
                f"{self._path} is damaged: {error}",
                "the table as the run wrote it",
                "restore it from a copy, or remove it",
            ) from error

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        assert self._columns is not None
        head = dict(zip(self._columns, self._columns, strict=True))
        write_whole(self._path, _lines(self._columns, [head, *rows]) if self._columns else "")


def _lines(columns: list[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval="", extrasaction="ignore").writerows(rows)
    return text.getvalue()
