import multiprocessing
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from tests.fixtures.numbered import Numbered, NumberedData, flips

from segbench.data.augment import Augmentation
from segbench.data.datamodule import SegmentationData
from segbench.data.raw import RawImage
from segbench.errors import SegbenchError
from segbench.models.unet import tile_geometry
from segbench.spec import TileGeometry


def test_images_of_different_size_share_a_batch(voc, compose):
    from segbench.data.augment import Augmentation
    from segbench.data.datamodule import SegmentationData
    from segbench.experiment.build import build_dataset
    from segbench.spec import TileGeometry

    config = compose("name=x", "data=pascal_voc", f"data.root={voc}", "data.partial=true", "augment=none")
    dataset = build_dataset(config.data, config.weights)
    data = SegmentationData(dataset, TileGeometry(), Augmentation(), seed=0, eval_batch_size=2, batch_size=4)
    batch = next(iter(data.test_dataloader()))
    assert batch.images["rgb"].shape == (2, 3, 15, 16)
    assert sorted(batch.sizes) == [(12, 16), (15, 16)]
    small = batch.sizes.index((12, 16))
    assert (batch.targets["semantic"][small, 12:] == 255).all()
    assert (batch.images["rgb"][small, :, 12:] == 0).all()
    assert next(iter(data.train_dataloader())).images["rgb"].shape[0] == 4


def data(**settings):
    chosen = {"seed": 0, "batch_size": 2, "tile": 24, "repeats": 2} | settings
    return SegmentationData(NumberedData(), TileGeometry(margin=4), flips(), **chosen)


def test_workers_change_no_batch():
    def batches(workers):
        loader = data(num_workers=workers).train_dataloader()
        loader.sampler.set_epoch(1)
        return list(loader)

    for alone, shared in zip(batches(0), batches(2), strict=True):
        assert alone.ids == shared.ids
        assert torch.equal(alone.images["em"], shared.images["em"])
        assert torch.equal(alone.targets["semantic"], shared.targets["semantic"])


def test_a_loader_starts_no_more_processes_than_it_has_batches():
    assert data(num_workers=2, eval_batch_size=4).val_dataloader().num_workers == 1
    assert data(num_workers=2, batch_size=8).train_dataloader().num_workers == 1
    assert data(num_workers=2).train_dataloader().num_workers == 2
    assert data(num_workers=0).val_dataloader().num_workers == 0


class Threads(Numbered):
    def read(self, index):
        told = np.array([[cv2.getNumThreads(), torch.get_num_threads()]], np.uint8)
        return RawImage({"em": told}, {}, self.ids[index])


def test_a_loading_process_has_one_thread_of_each_library(monkeypatch):
    monkeypatch.setattr(NumberedData, "split", lambda self, name: Threads())
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(3)
    torch.set_num_threads(3)
    try:
        # OpenCV has threads of its own from now on, which sleep soon, and which a fork of this process lacks.
        cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (1999, 1777))
        time.sleep(0.2)
        loader = data(num_workers=1).evaluation_loader("test")
        loader.timeout = 20
        (seen, *_) = loader
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (3, 3)
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])
    assert seen.images["em"].flatten().tolist() == [1, 1]


def test_loading_processes_of_the_validation_stay():
    loader = data(num_workers=1).val_dataloader()
    images, processes = [], []
    for _ in range(2):
        images.append(torch.cat([batch.images["em"] for batch in loader]))
        processes.append({child.pid for child in multiprocessing.active_children()})
    assert processes[0] == processes[1] != set()
    alone = torch.cat([batch.images["em"] for batch in data(num_workers=0).val_dataloader()])
    assert all(torch.equal(each, alone) for each in images)


def test_an_epoch_holds_count_times_repeats_samples():
    batches = list(data(batch_size=4).train_dataloader())
    assert [len(batch.ids) for batch in batches] == [4, 4]
    assert sorted(id for batch in batches for id in batch.ids) == sorted("abcd" * 2)


def test_a_tile_that_the_network_does_not_take_is_refused_with_the_nearest():
    with pytest.raises(SegbenchError, match=r"512 pixels \(data\.tile\)\n.*\n.*use 508 or 524 \(output 324 or 340\)"):
        SegmentationData(NumberedData(), tile_geometry(), Augmentation(), seed=0, tile=512)


def test_evaluation_reads_images_in_order_and_unchanged():
    batches = list(data(eval_batch_size=3).evaluation_loader("val"))
    assert [batch.indices for batch in batches] == [(0, 1, 2), (3,)]
    np.testing.assert_array_equal(batches[1].images["em"][0, 0].numpy(), Numbered().read(3).images["em"])


def test_an_unknown_split_names_those_there_are():
    with pytest.raises(SegbenchError, match=r"no split 'predict' in numbered .*\n.*one of train, val, test\n.*split="):
        data().require("predict")


def test_a_split_is_not_looked_for_among_none():
    empty = data()
    empty.dataset.split = lambda name: None
    with pytest.raises(SegbenchError, match=r"no split 'train' in numbered .*\n.*a split with images\n.*data\.root"):
        empty.require("train")


def test_no_validation_split_means_no_loader():
    dataset = data()
    dataset.dataset.split = lambda name: Numbered() if name == "train" else None
    assert dataset.val_dataloader() == []


class Torn(Numbered):
    def read(self, index):
        raise SegbenchError(f"image {self.ids[index]} is\n  torn", "a whole one", "fetch it again")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_told_alike_by_loading_processes(monkeypatch, workers):
    monkeypatch.setattr(NumberedData, "split", lambda self, name: Torn())
    with pytest.raises(SegbenchError) as caught:
        next(iter(data(num_workers=workers).evaluation_loader("test")))
    assert str(caught.value) == "image a is\n  torn\n  expected: a whole one\n  to do:    fetch it again"


def test_balanced_tiles_are_those_of_any_number_of_workers():
    def batches(workers):
        loader = data(balance={"high": 0.75}, num_workers=workers).train_dataloader()
        loader.sampler.set_epoch(1)
        return list(loader)

    for alone, shared in zip(batches(0), batches(2), strict=True):
        assert alone.ids == shared.ids
        assert torch.equal(alone.images["em"], shared.images["em"])


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ({"low": 0.7, "high": 0.7}, r"data\.balance=.*1\.4 together\n.*at most 1"),
        ({"low": 0}, r"0 together\n.*more than 0"),
        ({"car": 0.5}, r"data\.balance names car\n.*low, high"),
    ],
)
def test_shares_that_cannot_be_given_are_refused(shares, told):
    with pytest.raises(SegbenchError, match=told):
        data(balance=shares)


def test_a_share_for_a_class_without_a_pixel_is_refused(monkeypatch):
    monkeypatch.setattr("segbench.data.datamodule.class_counts", lambda *_: np.array([[5, 0]] * 4))
    with pytest.raises(
        SegbenchError, match=r"a share to high, which no training image shows\n.*\n.*data\.balance\.high"
    ):
        data(balance={"high": 0.5})


@pytest.mark.parametrize(("training", "labels_on"), [(True, "meta"), (False, "cpu")])
def test_labels_that_are_only_scored_stay_on_the_host(voc, compose, training, labels_on):
    from lightning.pytorch.plugins import HalfPrecision

    from segbench.experiment.build import build_dataset

    config = compose("name=x", "data=pascal_voc", f"data.root={voc}", "data.partial=true", "augment=none")
    module = SegmentationData(build_dataset(config.data, config.weights), TileGeometry(), Augmentation(), seed=0)
    batch = next(iter(module.test_dataloader()))
    module.trainer = SimpleNamespace(training=training, precision_plugin=HalfPrecision("bf16-true"))
    moved = module.on_after_batch_transfer(module.transfer_batch_to_device(batch, torch.device("meta"), 0), 0)
    assert (batch.images["rgb"].dtype, batch.targets["semantic"].dtype) == (torch.uint8, torch.uint8)
    assert (moved.images["rgb"].device.type, moved.images["rgb"].dtype) == ("meta", torch.bfloat16)
    assert (moved.targets["semantic"].device.type, moved.targets["semantic"].dtype) == (labels_on, torch.int64)
