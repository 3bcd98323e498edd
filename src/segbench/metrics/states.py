"""Measures as torchmetrics states: one row of counts per image, gathered across processes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

from segbench.metrics.measure import Counts, ImageResult, Measure
from segbench.spec import ScoreInfo


@dataclass(frozen=True, eq=False)
class Counted:
    """What was counted of a split, over all processes.

    Attributes:
        indices: the images, ascending, int64 (N,).
        counts: theirs, with a leading N.
        visits: how often each image was counted, int64 (N,); 1, unless a sampler repeats it without saying so.
        labelled: pixels of the images that are not void.
    """

    indices: NDArray[np.int64]
    counts: Counts
    visits: NDArray[np.int64]
    labelled: int


class MeasureState(Metric):
    """Streams a measure over a split.

    The state is one row per image: its index, the number of its labelled pixels, then its counts as 64-bit words
    (float64 by its bits, so nothing is rounded). Rows are sorted by index before they are summed: the scores are the
    same to the last bit for any batch size and any number of workers and processes.

    Args:
        measure: the definition.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, measure: Measure) -> None:
        super().__init__()
        self.measure = measure
        self._layout: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def row(self, index: int, result: ImageResult) -> Tensor:
        """The row of one image, (1, words) int64; may be computed in any thread. An index of -1 marks padding."""
        counts = self.measure.counts(result)
        words: list[NDArray[np.int64]] = [np.array([index, result.labelled], np.int64)]
        for key, value in counts.items():
            array = np.asarray(value)
            array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
            self._layout[key] = (array.shape, array.dtype)
            words.append(np.ravel(array).view(np.int64))
        return torch.from_numpy(np.concatenate(words))[None]

    def update(self, row: Tensor) -> None:
        """Count one image by its row; padding is dropped before the scores."""
        self.rows.append(row.to(self.device))

    def per_image(self) -> tuple[NDArray[np.int64], Counts]:
        """The images' indices, ascending (N), and their counts with a leading N, gathered across processes.

        Raises:
            RuntimeError: an image was counted twice with different counts.
        """
        counted = self.counted()
        return counted.indices, counted.counts

    def counted(self) -> Counted:
        """All that was counted, gathered across processes; an image that was counted twice is in it once.

        Raises:
            RuntimeError: an image was counted twice with different counts.
        """
        return Counted(*self.compute())

    def compute(self) -> tuple[NDArray[np.int64], Counts, NDArray[np.int64], int]:
        """The fields of `counted`; torchmetrics gathers the rows first, and takes no frozen dataclass."""
        rows = torch.cat(self.rows) if isinstance(self.rows, list) else self.rows
        table = rows.cpu().numpy()
        table, visits = np.unique(table[table[:, 0] >= 0], axis=0, return_counts=True)
        indices = table[:, 0]
        if len(np.unique(indices)) != len(indices):
            raise RuntimeError(f"{self.measure.name}: an image was evaluated twice with different counts")
        counts: Counts = {}
        start = 2
        for key, (shape, dtype) in self._layout.items():
            size = int(np.prod(shape, dtype=np.int64))
            block = np.ascontiguousarray(table[:, start : start + size])
            counts[key] = block.view(dtype).reshape(len(table), *shape)
            start += size
        return indices, counts, visits.astype(np.int64), int(table[:, 1].sum())

    def scores(self) -> dict[str, float]:
        """The measure's scores over all images seen by all processes."""
        _, counts = self.per_image()
        totals = {key: value.sum(0) for key, value in counts.items()}
        return {name: float(value) for name, value in self.measure.scores(totals).items()}


class OtherState(torch.nn.Module):
    """A metric of torchmetrics beside the measures: of the labelled pixels, in the form that it takes.

    What it computes over several processes is its own affair; it has no counts of images, so no interval.

    Args:
        metric: of torchmetrics.
        name: its key in the configuration.
        ignore_index: the void label.
    """

    def __init__(self, metric: Metric, name: str, ignore_index: int) -> None:
        super().__init__()
        self.metric, self.name, self._ignore_index = metric, name, ignore_index
        self.names: tuple[str, ...] = (name,)
        kinds = [kind.__name__ for kind in type(metric).__mro__]
        self._binary = any(kind.startswith("Binary") for kind in kinds)
        self._of_maps = ".segmentation." in type(metric).__module__

    def infos(self) -> tuple[ScoreInfo, ...]:
        """Its scores, those of the last call of `scores`."""
        version = f"torchmetrics {torchmetrics.__version__}, not exact over processes"
        better = self.metric.higher_is_better is not False
        return tuple(ScoreInfo(name, (-float("inf"), float("inf")), better, version) for name in self.names)

    def update(self, prob_KHW: Tensor, label_HW: Tensor) -> None:
        """Count one image: class probabilities, and labels with the void one."""
        labelled_HW = label_HW != self._ignore_index
        prob_KN, label_N = prob_KHW.float()[:, labelled_HW], label_HW[labelled_HW]
        if not len(label_N):
            return
        if self._of_maps:
            maps = prob_KN.argmax(0)[None, None], label_N[None, None]
            if getattr(self.metric, "input_format", "index") == "one-hot":
                maps = tuple(one_hot(each, len(prob_KN)).movedim(-1, 1) for each in maps)  # type: ignore[assignment]
            self.metric.update(*maps)
        else:
            self.metric.update(prob_KN[1] if self._binary else prob_KN.T, label_N)

    def scores(self) -> dict[str, float]:
        """What it computes, numbers by name; several of one name are numbered."""
        alone = not (dist.is_available() and dist.is_initialized())
        if alone and not self.metric.update_called:
            return {self.name: float("nan")}
        with warnings.catch_warnings():
            # A process without an image takes part too.
            warnings.filterwarnings("ignore", message=r"The ``compute`` method of metric", category=UserWarning)
            value = self.metric.compute()
        named = value if isinstance(value, dict) else {"": value}
        scores: dict[str, float] = {}
        for key, each in named.items():
            flat = torch.as_tensor(each).float().reshape(-1).tolist()
            name = "/".join(part for part in (self.name, str(key)) if part)
            scores |= {name: flat[0]} if len(flat) == 1 else {f"{name}/{place}": x for place, x in enumerate(flat)}
        self.names = tuple(scores)
        return scores

    def reset(self) -> None:
        """Forget what was counted."""
        self.metric.reset()
