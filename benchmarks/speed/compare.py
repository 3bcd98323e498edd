"""Comparison of runs: tests on a VOC-sized split, and thousands of run directories."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from segbench.compare.counts import ImageCounts, reduced
from segbench.metrics.confusion import Overlap
from segbench.metrics.measure import Counts
from segbench.runs.directory import Run
from speed.timing import Benches, Row, best_of, composed

IMAGES, CLASSES, DRAWS = 736, 21, 10_000


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
    """All overlap scores of two runs: intervals from the same draws of images, p values from swaps of their results."""
    from segbench.compare.resampling import bootstrap_scores, interval, permutation_test

    runs = [drawn_counts(0), drawn_counts(1)]
    keys = list(runs[0].infos)

    def ours() -> None:
        first, second = bootstrap_scores(runs, keys, DRAWS, 0)
        for difference in second - first:
            interval(difference, 0.95)
        permutation_test(runs[0], runs[1], keys, DRAWS, 0)

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
            f"{DRAWS} draws and swaps of two runs, {IMAGES} images, {CLASSES} classes, {len(keys)} scores",
            seconds,
            "draw by draw",
            50 * reference,
            "at most 2 s",
            seconds <= 2.0,
            "the reference draws alone, extrapolated from every fiftieth draw",
        )
    ]


def seeds() -> list[Row]:
    """All overlap scores of ten seeds a side, tested over seeds and images."""
    from segbench.compare.components import seeds_and_images

    groups = [[drawn_counts(10 * side + seed) for seed in range(10)] for side in range(2)]
    keys = list(groups[0][0].infos)

    def tables(runs: list[ImageCounts]) -> dict[str, NDArray[np.float64]]:
        found = [(run.of_all(), run.influences()) for run in runs]
        return {key: np.stack([scores[key] + moved[key] for scores, moved in found]) for key in keys}

    def ours() -> None:
        first, second = map(tables, groups)
        for key in keys:
            seeds_and_images(first[key], second[key], False, 0.95)

    (seconds,) = best_of(ours, repeats=3)
    name = f"10 seeds a side, {IMAGES} images, {CLASSES} classes, {len(keys)} scores"
    return [Row(name, seconds, "", None, "at most 1 s", seconds <= 1.0)]


def directories() -> list[Row]:
    """The tables of a thousand and of ten thousand run directories on disk, printed."""
    return [_directories(runs, most) for runs, most in ((1000, 2.0), (10_000, 15.0))]


def _directories(runs: int, most: float) -> Row:
    config = composed("name=drawn")
    scores = {f"test/{info.name}": 0.5 for info in drawn_counts(0, images=1).measures["semantic", "pixel_acc"].infos()}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(runs):
            own = config.replace({"seed": number % 4, "optimizer.lr": number // 4})
            with Run.create(Path(folder) / f"{number:05d}", own, []) as run:
                run.set_state("finished")
                varied = {key: value + number / 1e5 for key, value in scores.items()}
                run.write_results(varied, {"fit_s": 1.0}, {"git": None}, {"dataset": "drawn"})
        some = sorted(Path(folder).iterdir())[:: runs // 50]

        def command() -> int:
            """Peak memory of the whole command, in kilobytes."""
            command = [sys.executable, "-m", "segbench", "compare", folder]
            started = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(started.pid, 0)
            started.returncode = os.waitstatus_to_exitcode(status)
            if started.returncode:
                raise subprocess.CalledProcessError(started.returncode, command)
            return usage.ru_maxrss

        memory = command()
        seconds, reference = best_of(
            command,
            lambda: [yaml.safe_load((path / "config.yaml").read_text()) for path in some],
            repeats=2,
        )
    return Row(
        f"table of {runs} run directories",
        seconds,
        "reading the configs by yaml.safe_load",
        reference * runs / len(some),
        f"at most {most:g} s, 1 GB",
        seconds <= most and memory <= 1e6,
        f"with the start of Python, {memory / 1e3:.0f} MB; the reference is extrapolated from {len(some)} runs",
    )


BENCHES: Benches = {"bootstrap": bootstrap, "seeds": seeds, "directories": directories}
