from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.numbered import NumberedData

from segbench.data.augment import Augmentation
from segbench.data.datamodule import SegmentationData
from segbench.data.pixels import BalancedPixels, balanced_draws
from segbench.data.raw import RawImage, Source
from segbench.data.sampler import TrainSampler
from segbench.data.tiles import TrainTiles
from segbench.errors import SegbenchError
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec, TileGeometry


class Labelled(Source):
    """Images whose values are their labels."""

    def __init__(self, *labels):
        self._labels = [np.array(label_HW, np.uint8) for label_HW in labels]
        self.ids = tuple(map(str, range(len(labels))))

    def read(self, index):
        label_HW = self._labels[index]
        return RawImage({"em": label_HW}, {"semantic": label_HW}, self.ids[index])


SOURCE = Labelled([[0, 1, 1], [1, 255, 1]], [[1, 1], [1, 0]])
"""Two pixels of the first class, seven of the second, one void; of two sizes."""
SPEC = DatasetSpec(
    *("drawn", {"em": ModalitySpec(1, (0.0,), (1.0,), "")}),
    *({"semantic": HeadSpec(("membrane", "cell"), ((0, 0, 0),) * 2)}, "", "", ""),
)


def epoch(pixels, number):
    return [pixels(draw, pixels.draws, number) for draw in range(pixels.draws)]


def label_of(draw):
    return int(SOURCE.read(draw.index).labels["semantic"][draw.pixel])


def test_an_epoch_is_every_pixel_of_the_rarest_class_and_as_many_others():
    pixels = BalancedPixels(SOURCE, "semantic", ("membrane", "cell"), seed=0)
    assert pixels.draws == balanced_draws(np.array([[1, 4], [1, 3]])) == 4
    for number in range(5):
        draws = epoch(pixels, number)
        assert [(draw.index, draw.pixel) for draw in draws[:2]] == [(0, (0, 0)), (1, (1, 1))]
        assert [label_of(draw) for draw in draws] == [0, 0, 1, 1]
        assert len({(draw.index, draw.pixel) for draw in draws}) == 4
        assert [draw.draw for draw in draws] == [0, 1, 2, 3]
        assert {draw.epoch for draw in draws} == {number}


def test_the_others_are_drawn_anew_each_epoch_and_all_of_them_come():
    pixels = BalancedPixels(SOURCE, "semantic", ("membrane", "cell"), seed=3)
    seen = Counter((draw.index, draw.pixel) for number in range(200) for draw in epoch(pixels, number)[2:])
    # 400 draws of seven pixels: 57 each.
    assert len(seen) == 7 and min(seen.values()) > 30


@given(st.integers(0, 99), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_is_a_function_of_seed_and_number(seed, number, before):
    again, other = (BalancedPixels(SOURCE, "semantic", ("membrane", "cell"), seed) for _ in range(2))
    epoch(other, before)
    assert epoch(again, number) == epoch(other, number)


def test_a_resume_goes_on_where_the_epoch_was():
    def sampled(**more):
        pixels = BalancedPixels(SOURCE, "semantic", ("membrane", "cell"), seed=1)
        return list(TrainSampler(pixels.draws, 1, 1, choice=pixels, **more))

    whole = sampled(steps_done=lambda: 4)
    assert len(whole) == 4 and {draw.epoch for draw in whole} == {1}
    assert sampled(steps_done=lambda: 6) == whole[2:]


@pytest.mark.parametrize("surround", [0, 2])
@pytest.mark.parametrize("tile", [5, 7])
def test_a_drawn_pixel_is_the_centre_of_its_tile_which_is_mirrored_at_the_border(tile, surround):
    tiles = TrainTiles(SOURCE, SPEC, Augmentation(), 0, tile, 2, surround)
    for draw in epoch(BalancedPixels(SOURCE, "semantic", ("membrane", "cell"), 0), 0):
        sample = tiles[draw]
        assert sample.images["em"].shape == (1, tile, tile)
        half = tile // 2
        expected = np.pad(SOURCE.read(draw.index).labels["semantic"], 9, mode="reflect")
        y, x = (place + 9 for place in draw.pixel)
        expected = expected[y - half : y + half + 1, x - half : x + half + 1]
        assert np.array_equal(sample.targets["semantic"], expected)
        assert np.array_equal(sample.images["em"][0], expected)


def test_a_class_without_a_pixel_is_refused():
    with pytest.raises(SegbenchError, match=r"no training image shows car\n.*\n.*data\.draw=null"):
        BalancedPixels(SOURCE, "semantic", ("membrane", "cell", "car"), 0)


def data(**settings):
    chosen = {"seed": 0, "batch_size": 8, "tile": 9, "draw": "pixels"} | settings
    return SegmentationData(NumberedData(), TileGeometry(offset=8, margin=4), Augmentation(), **chosen)


def test_windows_are_those_of_any_number_of_workers_and_balanced():
    def batches(workers):
        loader = data(num_workers=workers).train_dataloader()
        return [batch for batch, _ in zip(loader, range(6), strict=False)]

    centres = []
    for alone, shared in zip(batches(0), batches(2), strict=True):
        assert alone.ids == shared.ids
        assert torch.equal(alone.images["em"], shared.images["em"])
        centres += alone.targets["semantic"][:, 4, 4].tolist()
    assert set(centres) == {0, 1}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tile": None}, r"data\.draw=pixels with data\.tile=null\n.*\n.*set data\.tile="),
        ({"repeats": 3}, r"with data\.repeats=3\n.*\n.*set data\.repeats=1"),
        ({"balance": {"high": 0.5}}, r"with data\.balance=.*\n.*\n.*set data\.balance=null"),
        ({"draw": "tiles"}, r"data\.draw=tiles\n.*expected: pixels"),
    ],
)
def test_two_ways_of_drawing_at_once_are_refused(settings, told):
    with pytest.raises(SegbenchError, match=told):
        data(**settings)
