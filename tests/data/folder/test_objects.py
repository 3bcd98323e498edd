import numpy as np
import pytest
from tests.fixtures.masks import page

from segbench.data.files.masks import Mask
from segbench.data.folder.objects import classes_given, label_objects, look_like_objects
from segbench.errors import SegbenchError


def test_classes_and_ids_by_hand():
    codes_HW = np.array([[0, 70000, 70000, 9, 9, 0, 5]], np.uint32)
    label_HW = np.array([[0, 1, 1, 1, 1, 0, 255]], np.uint8)
    labelled_HW, ids_HW = label_objects(label_HW, codes_HW, border=1)
    assert labelled_HW.tolist() == [[0, 1, 2, 2, 1, 0, 255]]
    assert ids_HW.tolist() == [[0, 2, 2, 1, 1, 0, 0]] and ids_HW.dtype == np.int32
    assert label_objects(label_HW, codes_HW, border=0)[0].tolist() == [[0, 1, 0, 0, 1, 0, 255]]


def test_an_image_without_objects():
    labelled_HW, ids_HW = label_objects(np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.uint8), 2)
    assert not labelled_HW.any() and not ids_HW.any()


@pytest.mark.parametrize("given", [None, "auto"])
def test_zero_is_background_and_the_rest_objects(given):
    assert classes_given(given) == {"background": 0, "object": "rest"}


def test_two_other_classes_may_be_named():
    assert classes_given({"glass": 3, "cell": "rest"}) == {"glass": 3, "cell": "rest"}
    with pytest.raises(SegbenchError, match=r"data\.objects=true with data\.classes=\['a', 'b'\]"):
        classes_given(["a", "b"])


def recognised(*pictures):
    codes = [np.array(picture) for picture in pictures]
    facts = {
        f"{k}": (page(dict(zip(*map(np.ndarray.tolist, np.unique(each, return_counts=True)), strict=True))),)
        for k, each in enumerate(codes)
    }
    return look_like_objects(facts, lambda name, page: Mask(codes[int(name)], "ids"))


FEW, MORE = [[0, 1, 1, 0, 2]], [[1, 0, 2, 0, 3]]


def test_values_that_are_single_regions_in_varying_number_are_objects():
    assert recognised(FEW, MORE)
    assert recognised(MORE, [[0, 0, 0, 0, 0]])
    assert recognised([[0, -1, 1, 0, 255]], MORE)


def test_values_that_show_in_several_places_are_classes():
    assert not recognised(FEW, [[1, 0, 2, 1, 3]])


def test_the_same_values_everywhere_are_classes():
    assert not recognised(MORE, [[3, 0, 0, 1, 2]])


def test_two_values_are_no_sign():
    assert not recognised(FEW, [[0, 0, 1, 0, 0]])
