"""Run directories as `segbench` writes them, with real counts of small drawn images."""

import numpy as np
import pytest

from segbench.metrics import ImageResult, Overlap
from segbench.runs import Run
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

CLASSES = ("background", "cat", "dog")
OVERLAP = {"confusion": {"_target_": "segbench.metrics.confusion.Overlap"}}


@pytest.fixture
def classes():
    return CLASSES


@pytest.fixture
def spec():
    """The description of the drawn data set."""
    head = HeadSpec(CLASSES, ((0, 0, 0), (255, 0, 0), (0, 0, 255)))
    modality = ModalitySpec(3, (0.0,) * 3, (1.0,) * 3, "grey level")
    return DatasetSpec("drawn", {"rgb": modality}, {"semantic": head}, "nobody", "MIT", "drawn images")


def drawn(images, accuracy, seed, labels_seed=0):
    """Labelled and predicted images of 12 x 12 pixels; the labels depend on `labels_seed` alone."""
    labels, rng = np.random.default_rng(labels_seed), np.random.default_rng((seed, 1))
    results = []
    for _ in range(images):
        label = labels.integers(0, 3, (12, 12))
        label[0] = 255
        wrong = rng.random(label.shape) > accuracy
        pred = np.where(wrong, rng.integers(0, 3, label.shape), np.where(label == 255, 0, label))
        results.append(ImageResult(label, pred))
    return results


@pytest.fixture
def drawn_images():
    """`drawn_images(images, accuracy, seed, labels_seed=0)`."""
    return drawn


def counted(measure, results):
    counts = [measure.counts(result) for result in results]
    return {key: np.stack([np.asarray(one[key]) for one in counts]) for key in counts[0]}


@pytest.fixture
def make_run(tmp_path, spec):
    """`make_run(name, seed=0, accuracy=0.8, images=40, labels_seed=0, ...)`: a finished run; returns its directory.

    Further arguments are settings of the configuration.
    """

    def make(
        name,
        seed=0,
        accuracy=0.8,
        images=40,
        labels_seed=0,
        ids=None,
        split="test",
        metrics=OVERLAP,
        version=None,
        state="finished",
        checkpoint="last",
        **settings,
    ):
        config = {
            "name": "tiny",
            "seed": seed,
            "model": {"_target_": "segbench.models.unet.UNet", "width": 4},
            "metrics": metrics,
            "threads": 1,
        }
        measure = Overlap(CLASSES)
        counts = counted(measure, drawn(images, accuracy, (seed, round(accuracy * 1000)), labels_seed))
        scores = measure.scores({key: value.sum(0) for key, value in counts.items()})
        version = version or measure.version
        with Run.create(tmp_path / name, config | settings, [f"seed={seed}"]) as run:
            run.write_dataset(spec.to_dict())
            named = {f"semantic/confusion/{key}": value for key, value in counts.items()}
            ids = ids or [f"image-{number:03d}" for number in range(images)]
            run.write_per_image(split, ids, named, {"semantic/confusion": version})
            values = {f"{split}/{key}": float(value) for key, value in scores.items()}
            provenance = {"git": {"commit": "a" * 40, "dirty": False}, "versions": {"torch": "2.13.0"}}
            protocol = {"dataset": spec.name, "checkpoint": checkpoint, "versions": dict.fromkeys(values, version)}
            run.write_results(values, {"fit_s": 1.5}, provenance, protocol)
            run.set_state(state)
        return tmp_path / name

    return make


@pytest.fixture
def make_evaluation(tmp_path):
    """`make_evaluation(name, of=RUN)`: the directory of `segbench evaluate run=RUN` with the run's own counts."""
    import json
    import shutil

    def make(name, of, run=None, **protocol):
        with Run.create(tmp_path / name, {"name": "evaluate", "run": str(run or of), "split": "test"}, []) as evaluated:
            shutil.copy(of / "per_image.npz", evaluated.path)
            results = json.loads((of / "results.json").read_text())
            evaluated.write_results(
                results["metrics"], {"evaluate_s": 1.0}, results["provenance"], results["protocol"] | protocol
            )
            evaluated.set_state("finished")
        return tmp_path / name

    return make
