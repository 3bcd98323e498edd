"""A run in Trackio, whose dashboard runs on this machine: `trackio show`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from segbench.config.flat import flatten
from segbench.config.record import Config
from segbench.errors import SegbenchError
from segbench.tracking.shown import shown_once
from segbench.tracking.tracker import STEP, Item, Picture, Tracker, first_line, survives

log = logging.getLogger(__name__)


class RunTrackio(Logger, Tracker):
    """The Trackio run of a run directory.

    Args:
        directory: of the run.
        config: of the run.
        project: Trackio's.
        name: of the run; None: `<experiment>/<run directory>`.
        group: of runs.
        space_id: of a Space on Hugging Face that has the dashboard; None: this machine.
    """

    lacks = ("artifacts",)
    shows_pictures = True

    def __init__(
        self,
        directory: str,
        config: Config,
        project: str = "segbench",
        name: str | None = None,
        group: str | None = None,
        space_id: str | None = None,
    ) -> None:
        super().__init__()
        self._directory, self._run = Path(directory), None
        self._config = shown_once(config, "trackio")
        self._init = {
            "project": project,
            "name": name or f"{config.name}/{self._directory.name}",
            "group": group,
            "space_id": space_id,
        }

    @property
    def name(self) -> str:
        """The project."""
        return str(self._init["project"])

    @property
    def version(self) -> str:
        """The run."""
        return str(self._init["name"])

    @survives
    def begin(self) -> None:
        """Begin the run, or go on with the one of the same name."""
        try:
            import trackio
        except ModuleNotFoundError as error:
            raise SegbenchError(
                f"Trackio is not installed: {first_line(error)}", "trackio", "pip install trackio"
            ) from error
        self._run = trackio.init(**self._init, config=flatten(self._config), resume="allow", embed=False)
        log.info("trackio: %s", self.where())

    def where(self) -> str | None:
        """How its dashboard is opened."""
        return f"trackio show --project {self.name}"

    @survives
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send a row."""
        self._log({**metrics, **({} if step is None else {STEP: step})}, step)

    @survives
    def log_hyperparams(self, *given: Any, **named: Any) -> None:
        """No-op: the run begins with its configuration."""

    def _log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        if self._run is not None:
            self._run.log(dict(values), step=step)

    @survives
    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Flat pictures."""
        import trackio

        self._log({f"{key}/{each.id}": trackio.Image(each.flat_HWC, caption=each.id) for each in pictures}, step)

    @survives
    def table(self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table without pictures."""
        import trackio

        shown_ = [number for number, column in enumerate(columns) if column != "image"]
        data = [[row[number] for number in shown_] for row in rows]
        self._log({key: trackio.Table(columns=[columns[number] for number in shown_], data=data)})

    @survives
    def summary(self, values: Mapping[str, Any]) -> None:
        """A last row."""
        self._log(values)

    def made(self, item: Item) -> None:
        """No-op: said at the start."""

    @survives
    def end(self, exit_code: int, preempted: bool) -> None:
        """Send the rest."""
        if self._run is not None:
            self._run.finish()
        log.info("trackio: %s", self.where())
