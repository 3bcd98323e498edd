import numpy as np
import pytest
import scipy.io

from segbench.data.id_lists import shipped
from segbench.data.sift_flow import GEOMETRIC, IMAGES, LABELS, SEMANTIC, SiftFlow
from segbench.errors import SegbenchError


def opened(sift, **settings):
    return SiftFlow(sift, **({"partial": True} | settings))


def test_names_are_the_authors():
    # data/sift-flow/classes.txt counts from 1: 09 cow, 11 desert, 16 moon, 28 sky, 33 window; 01 sky, 03 vertical.
    assert len(SEMANTIC) == 33
    assert [SEMANTIC[k - 1] for k in (9, 11, 16, 28, 33)] == ["cow", "desert", "moon", "sky", "window"]
    assert GEOMETRIC == ("sky", "horizontal", "vertical")


def test_two_heads_with_their_own_void(sift):
    dataset = opened(sift)
    for split in ("train", "test"):
        for index, name in enumerate(dataset.split(split).ids):
            raw = dataset.split(split).read(index)
            assert raw.id == name and raw.images["rgb"].shape == (16, 16, 3)
            for head, folder in LABELS.items():
                label = scipy.io.loadmat(sift / folder / f"{name}.mat")["S"]
                expected = np.where(label <= 0, 255, label - 1)
                np.testing.assert_array_equal(raw.labels[head], expected)
                assert raw.labels[head].dtype == np.uint8


def test_classes_absent_from_the_test_images_enter_no_mean(sift):
    spec = opened(sift).spec
    assert spec.heads["semantic"].excluded == (30, 31, 32)
    assert spec.heads["geometric"].excluded == (1,)
    assert [head.num_classes for head in spec.heads.values()] == [33, 3]
    assert spec.protocol.endswith("absent from the test images and in no mean: sun, tree, window, horizontal")
    assert spec.modalities["rgb"].mean == (108.353, 115.294, 114.578)


def test_the_papers_lists_and_held_out_images(sift):
    dataset = opened(sift, hold_out=1)
    assert "train 2 of 2486 (data.partial), test 2 of 200 (data.partial), 1 of train held out" in dataset.spec.protocol
    assert {*dataset.split("train").ids, *dataset.split("val").ids} == set(shipped("siftflow_trainval")[:2])
    assert opened(sift).split("val") is None and opened(sift).split("predict") is None
    unannotated = {"highway_bost181", "street_urb506"}
    assert not unannotated & {*shipped("siftflow_trainval"), *shipped("siftflow_test")}


def test_a_folder_above_is_good_too(sift):
    assert len(opened(sift.parent).split("test")) == 2


def test_missing_files(sift, tmp_path):
    with pytest.raises(SegbenchError, match="2484 of 2486 images lack their files"):
        SiftFlow(sift)
    with pytest.raises(SegbenchError, match="run segbench data prepare sift_flow"):
        SiftFlow(tmp_path / "none")


@pytest.mark.parametrize(
    ("head", "value", "message"),
    [("semantic", 34, "label ids 34"), ("semantic", -1, "label ids -1"), ("geometric", 4, "label ids 4")],
)
def test_ids_outside_the_range_are_named(sift, head, value, message):
    dataset = opened(sift)
    name = dataset.split("train").ids[1]
    path = sift / LABELS[head] / f"{name}.mat"
    scipy.io.savemat(path, {"S": np.full((16, 16), value, np.float64)})
    with pytest.raises(SegbenchError, match=f"{name}, has {message}"):
        dataset.split("train").read(1)


def test_damaged_files_are_named(sift):
    dataset = opened(sift)
    name = dataset.split("train").ids[0]
    path = sift / LABELS["geometric"] / f"{name}.mat"
    good = path.read_bytes()
    path.write_bytes(good[:200])
    with pytest.raises(SegbenchError, match=f"of image {name}, cannot be decoded"):
        dataset.split("train").read(0)
    path.write_bytes(good)
    image = sift / IMAGES / f"{name}.jpg"
    image.write_bytes(image.read_bytes()[:-9])
    with pytest.raises(SegbenchError, match=f"of image {name}, cannot be decoded"):
        dataset.split("train").read(0)
