import numpy as np
import pytest

from segbench.data.raw import RawImage
from segbench.data.weight_map import weight_map
from segbench.data.weights import LossWeights
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

SPEC = DatasetSpec(
    name="cells",
    modalities={"image": ModalitySpec(1, (0.0,), (1.0,), "")},
    heads={"semantic": HeadSpec(("background", "cell"), ((0, 0, 0), (255, 255, 255)))},
    citation="",
    licence="",
    protocol="",
)
# Two cells that touch, parted in the label by a pixel of each, and void at the end.
INSTANCES = np.array([[4, 4, 4, 7, 7, 7, 0, 0]], np.int32)
LABEL = np.array([[1, 1, 0, 0, 1, 1, 0, 255]], np.uint8)


def raw(instances=None):
    return RawImage({"image": LABEL}, {"semantic": LABEL}, "x", instances)


@pytest.mark.parametrize("instances", [INSTANCES, None])
def test_the_label_parts_the_objects(instances):
    """Where the image has no objects, they are the connected cells of its label."""
    weights = LossWeights(SPEC, w0=10, sigma=5, balance="none")
    cells = np.array([[1, 1, 0, 0, 2, 2, 0, 0]], np.int32)
    expected = weight_map(cells, w0=10, sigma=5, balance="none", void_HW=LABEL == 255)
    np.testing.assert_array_equal(weights(raw(instances)), expected)
    assert expected[0, 2] > 5 and expected[0, 7] == 0
    assert (weights.instances(raw(instances)) > 0).tolist() == (cells > 0).tolist()


def test_a_warped_tile_gets_the_same_map_and_is_not_kept():
    weights = LossWeights(SPEC, balance="none")
    kept = weights(raw(INSTANCES))
    assert weights(raw(INSTANCES)) is kept and not kept.flags.writeable
    warped = weights.of_warped({"semantic": LABEL}, INSTANCES)
    assert warped is not kept and warped.flags.writeable
    np.testing.assert_array_equal(warped, kept)


def test_another_class_may_be_the_cell():
    weights = LossWeights(SPEC, balance="none", cell_class=2)
    label = np.where(LABEL == 1, 2, LABEL).astype(np.uint8)
    image = RawImage({"image": label}, {"semantic": label}, "x", INSTANCES)
    assert weights.instances(image).tolist() == [[4, 4, 0, 0, 7, 7, 0, 0]]


def test_an_image_is_weighed_once_until_its_label_or_objects_change(monkeypatch):
    weights, found = LossWeights(SPEC, balance="none"), []
    cells = weights._cells
    monkeypatch.setattr(weights, "_cells", lambda *given: found.append(given) or cells(*given))
    label = LABEL.copy()

    def image(instances=None, name="x"):
        return RawImage({"image": label}, {"semantic": label}, name, instances)

    first = weights(image())
    assert weights(image()) is first and len(found) == 1
    # In place, as a source may write the next image over the last one.
    label[0, 1] = 0
    edited = weights(image())
    assert len(found) == 2 and not np.array_equal(edited, first)
    np.testing.assert_array_equal(edited, LossWeights(SPEC, balance="none")(image()))
    weights(image(INSTANCES))
    weights(image(INSTANCES + 1))
    weights(image(INSTANCES + 1, name="y"))
    assert len(found) == 5


def test_only_the_last_images_are_kept():
    weights = LossWeights(SPEC)
    for number in range(80):
        weights(RawImage({}, {"semantic": LABEL}, str(number)))
    assert list(weights._seen) == [str(number) for number in range(16, 80)]
