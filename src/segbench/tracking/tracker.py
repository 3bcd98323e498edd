"""What a run sends to trackers beside its scores: one small interface, of which each tracker shows what it can."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from numpy.typing import NDArray

from segbench.errors import SegbenchError
from segbench.runtime.processes import is_main_process
from segbench.runtime.signals import Stopped, deferred
from segbench.spec import ScoreInfo

log = logging.getLogger(__name__)

STEP = "trainer/global_step"
"""The axis of all curves."""


Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")
Self = TypeVar("Self", bound="Tracker")


def survives(
    method: Callable[Concatenate[Self, Parameters], Returned],
) -> Callable[Concatenate[Self, Parameters], Returned | None]:
    """For methods of a tracker: no-op on further ranks and after a failure, which is reported, and the run goes on.

    A signal waits until the tracker has returned.
    Where a table or an artifact fails the scores still go out; where scores fail the tracker is left alone.
    """

    @functools.wraps(method)
    def surviving(self: Self, *given: Parameters.args, **named: Parameters.kwargs) -> Returned | None:
        if self.lost or method.__name__ in self.failed or not is_main_process():
            return None
        try:
            # An exception out of a signal's handler would leave the tracker's client with its locks held.
            with deferred():
                return method(self, *given, **named)
        except SegbenchError:
            raise
        except Exception as error:
            name = type(self).__name__.removeprefix("Run").lower()
            self.failed = {*self.failed, method.__name__}
            if method.__name__ not in ("begin", "log_metrics", "end"):
                log.warning("%s: %s not sent: %s", name, method.__name__, first_line(error))
                return None
            self.lost = True
            log.warning("%s: %s; the training goes on without it; %s", name, first_line(error), self.where() or "")
            return None

    return surviving  # type: ignore[return-value]  # mypy takes the name of `self` for a part of the type


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class Mask:
    """Classes of an image's pixels.

    Attributes:
        classes_HW: integers.
        names: of the classes.
    """

    classes_HW: NDArray[np.integer]
    names: Mapping[int, str]


@dataclass(frozen=True)
class Picture:
    """An image with masks, for trackers that lay them over it, and as one flat picture for the others.

    Attributes:
        id: of the image.
        image_HWC: uint8 RGB.
        masks: by name.
        draw: draws the flat picture, uint8 RGB; None: the image itself.
    """

    id: str
    image_HWC: NDArray[np.uint8]
    masks: Mapping[str, Mask] = field(default_factory=dict)
    draw: Callable[[], NDArray[np.uint8]] | None = None

    @cached_property
    def flat_HWC(self) -> NDArray[np.uint8]:
        """The flat picture."""
        return self.image_HWC if self.draw is None else self.draw()


@dataclass(frozen=True)
class Item:
    """Something that a run makes or uses, with its facts.

    Attributes:
        name: the same content has the same name in every run.
        kind: dataset, model, scores or predictions.
        metadata: plain values; no places on this machine.
        files: local files by their names in the item.
        references: addresses that stand for content that is not sent.
        aliases: further names of this version.
    """

    name: str
    kind: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    references: Sequence[str] = ()
    aliases: Sequence[str] = ()

    @property
    def clean_name(self) -> str:
        """The name in letters that every tracker takes."""
        return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in self.name)[:128]


class Tracker:
    """What a tracker takes; a method that is left as it is takes nothing."""

    lacks: tuple[str, ...] = ()
    """What it cannot show; said once at a run's start."""
    shows_pictures = False
    lost = False
    """Whether it failed; it is left alone since."""
    failed: frozenset[str] | set[str] = frozenset()
    """Methods that failed."""

    def begin(self) -> None:
        """The run begins."""

    def describe(self, infos: Mapping[str, ScoreInfo], optimised: str | None) -> None:
        """Scores to come, by key, with their directions, and the one by which a search compares runs."""

    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Pictures that belong together, in the same order at each step."""

    def table(self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table; a cell is a number, a text, None or a `Picture`."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Values of the run as a whole."""

    def made(self, item: Item) -> None:
        """Something that the run made."""

    def used(self, item: Item) -> None:
        """Something that the run began with."""

    def alert(self, title: str, text: str) -> None:
        """Tell the user, where that is asked for."""

    def where(self) -> str | None:
        """A sentence: where the run is found."""
        return None

    def end(self, exit_code: int, preempted: bool) -> None:
        """The run ends."""


class _TensorBoard(Tracker):
    lacks = ("artifacts",)
    shows_pictures = True

    def __init__(self, logger: TensorBoardLogger) -> None:
        self._writer = logger.experiment

    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        for picture in pictures:
            self._writer.add_image(f"{key}/{picture.id}", picture.flat_HWC, step, dataformats="HWC")

    def table(self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        shown = [number for number, column in enumerate(columns) if column != "image"]
        lines = [[columns[number] for number in shown], ["---"] * len(shown)]
        lines += [[_cell(row[number]) for number in shown] for row in rows]
        self._writer.add_text(key, "\n".join(f"| {' | '.join(line)} |" for line in lines))


class _ScoresOnly(Tracker):
    lacks = ("pictures", "tables", "artifacts")


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def trackers_of(loggers: Iterable[Logger]) -> list[Tracker]:
    """The trackers among the loggers of a Trainer. Scores reach each logger through Lightning."""
    found: list[Tracker] = []
    for logger in loggers:
        if isinstance(logger, Tracker):
            found.append(logger)
        elif isinstance(logger, TensorBoardLogger):
            found.append(_TensorBoard(logger))
    return found


@contextlib.contextmanager
def tracked(loggers: Sequence[Logger]) -> Iterator[list[Tracker]]:
    """Begin the runs of trackers, and end them as the block ends: finished, preempted by a signal, or failed."""
    trackers = trackers_of(loggers)
    exit_code, preempted = 1, False
    try:
        for tracker in trackers:
            tracker.begin()
        if is_main_process():
            _say_what_is_left_out(loggers)
        yield trackers
        exit_code = 0
    except Stopped as stopped:
        exit_code, preempted = int(str(stopped.code)), stopped.preempted
        raise
    except Exception as error:
        for tracker in trackers:
            tracker.alert("segbench: a run failed", str(error))
        raise
    finally:
        # A signal that comes now finds a run that has ended, as its trackers are being told.
        with deferred(is_last=True):
            for tracker in trackers:
                tracker.end(exit_code, preempted)


def _say_what_is_left_out(loggers: Iterable[Logger]) -> None:
    """Report once what each tracker does not get."""
    for logger in loggers:
        name = type(logger).__name__
        if isinstance(logger, CSVLogger) or name == "RunCsv":
            continue
        (known,) = trackers_of([logger]) or [_ScoresOnly()]
        if known.lacks:
            log.info("%s: %s are not sent", name, ", ".join(known.lacks))
