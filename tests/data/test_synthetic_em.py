"""The drawn data set: its splits and their slices."""

import pickle

import numpy as np
import pytest

from segbench.data.synthetic_em import SyntheticEM
from segbench.errors import SegbenchError


def test_splits_are_disjoint_and_sized():
    data = SyntheticEM(train=3, val=2, test=1, height=32, width=48, seed=5)
    seen = set()
    for name, count in (("train", 3), ("val", 2), ("test", 1)):
        source = data.split(name)
        assert len(source) == len(source.ids) == count
        for index in range(count):
            raw = source.read(index)
            assert raw.id == source.ids[index]
            assert raw.images["em"].shape == raw.labels["semantic"].shape == raw.instances.shape == (32, 48)
            assert raw.labels["semantic"].dtype == np.uint8
            np.testing.assert_array_equal(raw.labels["semantic"], raw.instances > 0)
            seen.add(raw.images["em"].tobytes())
    assert len(seen) == 6
    assert data.split("predict") is None


def test_a_longer_split_begins_with_the_same_slices():
    short, long = (SyntheticEM(train=count, height=24, width=24).split("train") for count in (1, 5))
    np.testing.assert_array_equal(short.read(0).images["em"], long.read(0).images["em"])


def test_a_reader_cannot_spoil_the_next_one():
    source = SyntheticEM(train=1, height=24, width=24).split("train")
    first = source.read(0)
    kept = first.images["em"].copy()
    first.images["em"][:] = 0
    first.instances[:] = 0
    np.testing.assert_array_equal(source.read(0).images["em"], kept)
    assert source.read(0).instances.any()


def test_a_copy_in_a_worker_reads_the_same():
    data = SyntheticEM(train=1, val=0, test=1, height=24, width=24)
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(data.split("test").read(0).images["em"], copy.split("test").read(0).images["em"])
    assert len(data.split("val")) == 0


def test_spec_fits_the_drawings():
    data = SyntheticEM(train=8, height=192, width=192)
    modality = data.spec.modalities["em"]
    grey = np.stack([data.split("train").read(index).images["em"] for index in range(8)])
    assert abs(grey.mean() - modality.mean[0]) < 5
    assert abs(grey.std() - modality.std[0]) < 5
    assert data.spec.heads["semantic"].class_names == ("membrane", "cell")
    assert "train 8, val 4, test 8" in data.spec.protocol


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 15}, r"data\.height=15\n.*16 or more"),
        ({"width": 0}, r"data\.width=0"),
        ({"train": -1}, r"data\.train=-1\n.*0 or more"),
        ({"seed": -2}, r"data\.seed=-2"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(SegbenchError, match=message):
        SyntheticEM(**arguments)


def test_an_unknown_split_is_refused():
    with pytest.raises(SegbenchError, match=r"no split 'dev'(.|\n)*train, val or test"):
        SyntheticEM().split("dev")


def test_a_slice_that_is_not_there():
    with pytest.raises(IndexError, match="slice 2 of 2"):
        SyntheticEM(train=2).split("train").read(2)
