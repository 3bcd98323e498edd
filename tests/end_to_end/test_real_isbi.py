"""The challenge's own stacks, where the machine has them."""

import numpy as np
import pytest
import tifffile

from segbench.data.isbi_em import IsbiEM
from segbench.experiment.train import train
from segbench.runs.directory import Run


@pytest.fixture(scope="module")
def dataset(real_isbi):
    return IsbiEM(real_isbi)


def test_the_volume_is_30_slices_of_512_and_8_bits(dataset, real_isbi):
    for name in ("train-volume", "train-labels", "test-volume"):
        stack = tifffile.imread(real_isbi / f"{name}.tif")
        assert (stack.shape, stack.dtype) == ((30, 512, 512), np.uint8)
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [21, 3, 6]


def test_membranes_cover_22_percent(dataset):
    parts = [dataset.split(name) for name in ("train", "val", "test")]
    membrane = [(part.read(index).labels["semantic"] == 0).mean() for part in parts for index in range(len(part))]
    assert np.mean(membrane) == pytest.approx(0.22, abs=0.005)


def test_the_recorded_mean_and_deviation_are_the_training_stacks(dataset, real_isbi):
    volume = tifffile.imread(real_isbi / "train-volume.tif")
    modality = dataset.spec.modalities["em"]
    assert (volume.mean(), volume.std()) == pytest.approx((modality.mean[0], modality.std[0]), abs=0.5)


def test_the_test_volume_is_another_one(real_isbi):
    predicted = IsbiEM(real_isbi, protocol="all").split("predict")
    trained = IsbiEM(real_isbi).split("train")
    assert len(predicted) == 30
    assert not np.array_equal(predicted.read(0).images["em"], trained.read(0).images["em"])


def test_two_steps_of_the_laptop_experiment(real_isbi, compose, tmp_path):
    config = compose(
        "experiment=unet_isbi_em_cpu",
        "name=two_steps",
        f"data.root={real_isbi}",
        "data.tile=188",
        "model.width=4",
        "trainer.max_steps=2",
        "trainer.precision=32-true",
        "task.channels_last=false",
        "tta=none",
        "threads=1",
        "callbacks.panels.count=1",
        *(f"metrics.{slow}=null" for slow in ("v_rand", "v_info", "warping_error")),
    )
    train(config, tmp_path / "run", [])
    results = Run(tmp_path / "run").results()
    assert results["protocol"]["split"].startswith("default: train 0-20, val 21-23, test 24-29")
    assert 0.3 < results["metrics"]["test/threshold_mean_iu"] < 0.8
    with np.load(tmp_path / "run" / "per_image.npz") as stored:
        assert stored["ids"].tolist() == [f"train-{number}" for number in range(24, 30)]
        assert stored["semantic/confusion/matrix"].sum((1, 2)).tolist() == [512 * 512] * 6
