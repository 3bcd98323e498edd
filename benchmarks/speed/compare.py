"""Comparison of runs: a bootstrap of a VOC-sized split, and a thousand run directories."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segbench.compare.counts import ImageCounts, reduced
from segbench.metrics.confusion import Overlap
from segbench.metrics.measure import Counts
from speed.timing import Benches, Row, best_of, composed

IMAGES, CLASSES, DRAWS, RUNS = 736, 21, 10_000, 1000


def drawn_counts(seed: int, images: int = IMAGES, classes: int = CLASSES) -> ImageCounts:
    """Confusion matrices of images of some 180,000 pixels, as of a network of 0.9 accuracy."""
    rng = np.random.default_rng(seed)
    labelled = rng.multinomial(180_000, np.full(classes, 1 / classes), size=images)
    right = rng.binomial(labelled, 0.9)
    matrix = rng.multinomial(labelled - right, np.full(classes, 1 / classes))
    matrix[:, np.arange(classes), np.arange(classes)] += right
    measure: Any = Overlap(tuple(f"class {k}" for k in range(classes)))
    counts: Counts = {"matrix": matrix, "image_mean_iu": rng.random(images), "images": np.ones(images, np.int64)}
    key = ("semantic", "pixel_acc")
    ids = tuple(f"{number:04d}" for number in range(images))
    return ImageCounts("drawn", "test", ids, {key: measure}, {key: reduced(measure, counts)}, False)


def bootstrap() -> list[Row]:
    """All overlap scores of two runs under the same draws, with interval and p value of every difference."""
    from segbench.compare.resampling import bootstrap_scores, interval

    runs = [drawn_counts(0), drawn_counts(1)]
    keys = list(runs[0].infos)

    def ours() -> None:
        first, second = bootstrap_scores([[runs[0]], [runs[1]]], keys, DRAWS, 0)
        for difference in second - first:
            interval(difference, 0.95)

    some = DRAWS // 50

    def by_draw() -> None:
        rng = np.random.default_rng(0)
        for _ in range(some):
            drawn = rng.integers(0, IMAGES, IMAGES)
            for run in runs:
                for key, measure in run.measures.items():
                    measure.scores({name: array[drawn].sum(0) for name, array in run.counts[key].items()})

    seconds, reference = best_of(ours, by_draw, repeats=3)
    return [
        Row(
            f"{DRAWS} draws of two runs, {IMAGES} images, {CLASSES} classes, {len(keys)} scores",
            seconds,
            "draw by draw",
            50 * reference,
            "at most 2 s",
            seconds <= 2.0,
            "the reference is extrapolated from every fiftieth draw",
        )
    ]


def directories() -> list[Row]:
    """The table of a thousand run directories on disk, printed."""
    from segbench.compare.formats import write
    from segbench.compare.pairwise import compare
    from segbench.runs.directory import Run

    config = composed("name=drawn")
    scores = {f"test/{info.name}": 0.5 for info in drawn_counts(0, images=1).measures["semantic", "pixel_acc"].infos()}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS):
            own = config.replace({"seed": number % 4, "optimizer.lr": number // 4})
            with Run.create(Path(folder) / f"{number:04d}", own, []) as run:
                run.set_state("finished")
                varied = {key: value + number / 1e4 for key, value in scores.items()}
                run.write_results(varied, {"fit_s": 1.0}, {"git": None}, {"dataset": "drawn"})
        some = sorted(Path(folder).iterdir())[:: RUNS // 50]
        seconds, reference = best_of(
            lambda: write(compare([folder]), "terminal"),
            lambda: [yaml.safe_load((path / "config.yaml").read_text()) for path in some],
            repeats=3,
        )
    return [
        Row(
            f"table of {RUNS} run directories",
            seconds,
            "reading the configs by yaml.safe_load",
            reference * RUNS / len(some),
            "at most 5 s",
            seconds <= 5.0,
            "without the start of Python; the reference is extrapolated from every twentieth run",
        )
    ]


BENCHES: Benches = {"bootstrap": bootstrap, "directories": directories}
