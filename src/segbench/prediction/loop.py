"""Inputs through the network, one after another, into their outputs."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TypeVar

import torch

from segbench.config.explain import of_torch
from segbench.data.raw import why_unreadable
from segbench.data.tiles import normalise
from segbench.errors import SegbenchError
from segbench.inference.stream import predict_stream
from segbench.inference.windows import ReadableImage, Window
from segbench.prediction.at_once import ahead, behind
from segbench.prediction.histogram import Reference, matched
from segbench.prediction.inputs import Input
from segbench.prediction.outputs import InputOutputs
from segbench.prediction.pages import Opened, Page
from segbench.prediction.progress import Progress
from segbench.prediction.result import Result
from segbench.prediction.settings import Settings, Target
from segbench.spec import DatasetSpec
from segbench.training.task import SegmentationTask

T = TypeVar("T")

NO_DATA, LACKING = "pixels without data", "inputs that lack data"


@dataclass(frozen=True)
class Job:
    """What to predict, and where to.

    Attributes:
        task: the network, in eval mode on its device.
        spec: of the run.
        folder: `output=`.
        settings: of an input.
        check: called with an input's output files before anything is predicted; raises to refuse them.
        batch: tiles predicted together.
        devices: that tiles are spread over, see `predict_stream`.
        overlap: blends tiles, see `predict_stream`.
        reference: what grey values are matched to, see `histogram`; None: they are left as they are.
        notes: counts what was converted, and the pixels and inputs without data.
    """

    task: SegmentationTask
    spec: DatasetSpec
    folder: Path
    settings: Callable[[Input], Settings]
    check: Callable[[Input, list[Path]], None] = lambda given, paths: None
    batch: int = 1
    devices: tuple[torch.device, ...] = ()
    overlap: float | None = None
    reference: Reference | None = None
    notes: Counter[str] = field(default_factory=Counter)


@dataclass(eq=False)
class _Work:
    given: Input
    opened: Opened
    outputs: InputOutputs
    page: int = -1
    pixels_left: int = 0
    empty: int = 0
    begun: bool = False
    pages: dict[int, Page] = field(default_factory=dict)
    one_at_a_time: Lock = field(default_factory=Lock)

    def abandon(self) -> None:
        """Delete what there is of it."""
        self.outputs.discard()
        self.opened.close()


class _Failed(Exception):
    """An input that was begun and cannot be predicted: a part of it is not read, or an output not written."""

    def __init__(self, work: _Work, why: SegbenchError) -> None:
        super().__init__(str(why))
        self.work, self.why = work, why


def predict_inputs(
    job: Job,
    inputs: Iterable[Input],
    failed: dict[str, SegbenchError],
    progress: Progress,
    done: Callable[[Input, list[Path]], None],
) -> Iterator[tuple[Input, list[Path]]]:
    """Predict inputs; those that cannot be read, or whose outputs cannot be written, are skipped.

    A thread opens and decodes the next input, and another one encodes and writes, while the network predicts.

    Args:
        job: how.
        inputs: in their order.
        failed: receives the errors of inputs that are skipped, by name.
        progress: updated.
        done: called with an input and its complete files, before they get their final names, by the thread that writes.

    Returns:
        an iterator of inputs with their files.

    Raises:
        SegbenchError: what `predict_stream` raises.
        OSError: the disk is full, or not writable at all.
    """
    left = iter(inputs)
    while True:
        started: list[_Work] = []
        try:
            yield from _predicted(job, left, failed, progress, done, started)
        except _Failed as error:
            failed[error.work.given.name] = error.why
            # What was read ahead is read again.
            left = chain([work.given for work in started if work is not error.work], left)
            progress.end()
        else:
            return
        finally:
            for work in started:
                work.abandon()


def _predicted(
    job: Job,
    inputs: Iterable[Input],
    failed: dict[str, SegbenchError],
    progress: Progress,
    done: Callable[[Input, list[Path]], None],
    started: list[_Work],
) -> Iterator[tuple[Input, list[Path]]]:
    """As `predict_inputs`, until a part cannot be read or written; `started` then holds what is begun and not done."""
    images = ahead(_images(job, inputs, failed, started))
    with closing(images), closing(_stream(job, images)) as windows:
        with closing(behind(windows, partial(_write, job, started, progress, done))) as written:
            yield from written


def _stream(job: Job, images: Iterable[ReadableImage]) -> Generator[Window]:
    task = job.task
    yield from predict_stream(
        task.model,
        images,
        tuple(job.spec.heads),
        tile=task.evaluation.tile,
        tta=task.evaluation.tta,
        scales=task.evaluation.scales,
        input_scale=task.evaluation.input_scale,
        channels_last=task.memory_format == torch.channels_last,
        batch=job.batch,
        devices=job.devices,
        overlap=job.overlap,
        finish=task.finish,
    )


def _write(
    job: Job, started: list[_Work], progress: Progress, done: Callable[[Input, list[Path]], None], window: Window
) -> list[tuple[Input, list[Path]]]:
    """Take a window; the input that is complete with it, and its files."""
    work, index = window.key
    if not work.begun:
        # Any other one stopped because a later page cannot be read.
        while started[0] is not work:
            started.pop(0).abandon()
            progress.end()
        work.begun = True
        progress.begin(work.given.name, sum(height * width for height, width in work.opened.sizes))
    page = work.pages[index]
    if index != work.page:
        with _writing(work):
            work.outputs.begin(index, page)
        work.page, work.pixels_left = index, page.size[0] * page.size[1]
    result = Result(window, page)
    with _writing(work):
        work.outputs.add(result)
    work.empty += 0 if result.empty is None else int(result.empty.sum())
    height, width = next(iter(window.probabilities.values())).shape[-2:]
    work.pixels_left -= height * width
    progress.add(height * width)
    if work.pixels_left:
        return []
    with _writing(work):
        work.outputs.end()
    del work.pages[index]
    if index + 1 < len(work.opened.sizes):
        return []
    paths = work.outputs.paths
    job.notes.update(work.opened.notes)
    job.notes.update({NO_DATA: work.empty, LACKING: int(work.empty > 0)})
    with _writing(work):
        work.outputs.complete()
    done(work.given, paths)
    with _writing(work):
        work.outputs.finish()
    started.pop(0).opened.close()
    progress.end()
    return [(work.given, paths)]


def _images(
    job: Job, inputs: Iterable[Input], failed: dict[str, SegbenchError], started: list[_Work]
) -> Iterator[ReadableImage]:
    for given in inputs:
        try:
            work = _start(job, given)
            started.append(work)
            for index in range(len(work.opened.sizes)):
                page = work.pages[index] = _page(work, index)
                yield ReadableImage((work, index), page.size, _normalised(work, page, job))
        except SegbenchError as error:
            failed[given.name] = error


def _opened(job: Job, given: Input) -> Opened:
    try:
        return given.open(job.spec)
    except Exception as error:  # damaged files end in errors of any class
        raise _why(given, error) from error


def _page(work: _Work, index: int) -> Page:
    """A page that several threads may read: they share the open files."""

    def locked(read: Callable[..., T], *window: int) -> T:
        with work.one_at_a_time:
            return read(*window)

    try:
        page = locked(work.opened.page, index)
    except Exception as error:  # as above
        raise _why(work.given, error) from error
    return Page(page.size, partial(locked, page.read), partial(locked, page.empty))


def _why(given: Input, error: Exception) -> SegbenchError:
    """With several files, the one whose reader failed is the one that the error names."""
    named = [path for path in given.files if str(path) in str(error)] or given.files
    return why_unreadable(named[0] if named else Path(given.name), error)


def _start(job: Job, given: Input) -> _Work:
    opened = _opened(job, given)
    try:
        settings = job.settings(given)
        target = Target(given.name, opened.sizes, job.spec, job.folder, settings, opened.placement, opened.turn)
        outputs = InputOutputs(target)
        job.check(given, outputs.paths)
    except OSError as error:
        opened.close()
        raise _unwritten(given.name, [], error) from error
    except BaseException:
        opened.close()
        raise
    return _Work(given, opened, outputs)


@contextmanager
def _writing(work: _Work) -> Iterator[None]:
    """Tell an error of one output from that of a disk on which nothing can be written."""
    try:
        yield
    except Exception as error:  # encoders refuse in any class
        if isinstance(error, OSError) and error.errno in NOWHERE:
            raise
        # Of the network rather than of the outputs: a GPU tells its errors later.
        if isinstance(error, RuntimeError) and of_torch(error) is not None:
            raise
        if isinstance(error, OSError) and error.errno is None:
            # numpy writes as much as there is room for, and says only how much.
            path = work.outputs.paths[0]
            if shutil.disk_usage(path.parent).free < _ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise _Failed(work, _unwritten(work.given.name, work.outputs.paths, error)) from error


_ROOM = 2**20
"""Bytes below which a disk is full."""
NOWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a disk that concern every file on it."""


def _unwritten(name: str, paths: Sequence[Path], error: Exception) -> SegbenchError:
    if isinstance(error, SegbenchError):
        return error
    named = [error.filename2, error.filename] if isinstance(error, OSError) else []
    place = next(filter(None, named), None) or ", ".join(map(str, paths)) or name
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno is None:
        # numpy tells how much it wrote, and not why it stopped.
        reason += "; is a limit on the size of files reached?"
    return SegbenchError(
        f"the prediction of {name} cannot be written: {reason} ({place})",
        "a file name that this user may write, of a format that holds such an image",
        "free the name, or choose another output=, format= or store=",
    )


def _normalised(work: _Work, page: Page, job: Job) -> Callable[[int, int, int, int], dict[str, torch.Tensor]]:
    seen = page if job.reference is None else matched(page, job.reference)

    def read(y0: int, y1: int, x0: int, x1: int) -> dict[str, torch.Tensor]:
        try:
            parts = seen.read(y0, y1, x0, x1)
        except Exception as error:  # as above
            raise _Failed(work, _why(work.given, error)) from error
        return {name: normalise(part, job.spec.modalities[name]) for name, part in parts.items()}

    return read
