"""Pictures of the best, the median and the worst image of a test, which a table of means hides."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray

from segbench.data.sampler import Draw
from segbench.display.panels import draw_panel, write_png
from segbench.errors import SegbenchError
from segbench.metrics import ImageResult
from segbench.runtime.files import write_whole
from segbench.spec import collate
from segbench.training.callbacks.pictures import show
from segbench.training.task import SegmentationTask

INDEX = "extremes.json"


class Extremes(lightning.Callback):
    """Image, label, prediction and error map of the images that a score ranks first, in the middle and last.

    The score is that of one image alone, by the definition that scores the split; images without one (which lack the
    class, say) are left out. `extremes.json` beside the pictures lists them: rank, id, score, file.

    Args:
        directory: the run's `extremes/`.
        count: images a rank.
        score: orders the images; it is that of the first head that has it. If no score has the name: the first one.

    Raises:
        SegbenchError: a count below 1.
    """

    def __init__(self, directory: str | Path, count: int = 1, score: str = "mean_iu") -> None:
        if count < 1:
            raise SegbenchError(
                f"callbacks.extremes.count={count}", "at least 1", "raise it, or callbacks.extremes=null"
            )
        self._directory, self._count, self._score = Path(directory), count, score

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Predict the chosen images once more and draw them."""
        assert isinstance(pl_module, SegmentationTask)
        head, name, indices, scores, higher = _image_scores(pl_module, self._score)
        if not trainer.is_global_zero or len(indices) == 0:
            return
        entries = []
        for rank, places in _ranks(scores if higher else -scores, self._count).items():
            for place in places:
                index, score = int(indices[place]), float(scores[place])
                identity, picture = self._draw(trainer, pl_module, head, index, f"{rank}, {name} {score:.4f}")
                file = f"{rank}-{identity.replace(os.sep, '_')}.png"
                write_png(self._directory / file, picture)
                show(trainer, f"test/{rank}-{identity}", picture)
                entry = {"rank": rank, "id": identity, "head": head, "score": name, "value": score, "file": file}
                entries.append(entry)
        write_whole(self._directory / INDEX, json.dumps(entries, indent=2))

    def _draw(
        self, trainer: lightning.Trainer, task: SegmentationTask, head: str, index: int, title: str
    ) -> tuple[str, NDArray[np.uint8]]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        sample = data.evaluation_loader(task.test_split).dataset[Draw(index)]
        batch = data.normalised(collate([sample]))
        training, _ = task.training, task.eval()
        try:
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                images = {modality: image[0].to(task.device) for modality, image in batch.images.items()}
                prob_KHW = task.predict(images)[head].float().cpu().numpy()
        finally:
            task.train(training)
        spec = task.spec.heads[head]
        label_HW = batch.targets[head][0].numpy()
        result = ImageResult(label_HW, prob_KHW.argmax(0), prob_KHW, ignore_index=spec.ignore_index)
        raw_CHW = task.raw({modality: image[0] for modality, image in batch.images.items()})
        return sample.id, draw_panel(raw_CHW, result, spec, f"{sample.id}: {title}")


def _image_scores(task: SegmentationTask, wanted: str) -> tuple[str, str, NDArray[np.int64], NDArray[np.float64], bool]:
    """Head and score, indices and values of the images where it is defined, whether higher is better; on every rank."""
    states = task.states_of("test")
    offered = [(head, info, state) for (head, _), state in states.items() for info in state.measure.infos()]
    head, info, state = next((each for each in offered if each[1].name == wanted), offered[0])
    indices, counts = state.per_image()
    # Counts keep a leading axis of images: each is scored as a data set of one.
    values = np.asarray(state.measure.scores(counts)[info.name], np.float64).reshape(len(indices))
    defined = np.isfinite(values)
    return head, info.name, indices[defined], values[defined], info.higher_is_better


def _ranks(goodness: NDArray[np.float64], count: int) -> dict[str, list[int]]:
    """Places of the best, median and worst images, none twice; the worst are chosen first, then the best."""
    order = np.argsort(-goodness, kind="stable")
    count = max(1, min(count, len(order) // 3))
    worst = order[::-1][:count]
    best = [place for place in order[:count] if place not in worst]
    middle = [place for place in order if place not in worst and place not in best]
    start = max(0, (len(middle) - count) // 2)
    return {"best": best, "median": middle[start : start + count], "worst": [*worst]}
