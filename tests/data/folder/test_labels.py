import numpy as np
import pytest
from tests.fixtures.masks import classes_of, page

from segbench.data.files.masks import Mask
from segbench.errors import SegbenchError

RED, GREEN, BLACK = 0xFF0000, 0x00FF00, 0


def label(classes, codes, kind="ids", palette=(), dtype=np.uint8):
    return classes(Mask(np.array([codes], dtype), kind, palette), "x")[0].tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_labels_of_any_type(dtype):
    assert label(classes_of(page({3: 5, 200: 3})), [200, 3, 3], dtype=dtype) == [1, 0, 0]


def test_wide_and_negative_values():
    classes = classes_of(page({-1: 1, 0: 5, 70000: 3}), ignore=-1)
    assert classes.names == ("0", "70000")
    assert label(classes, [-1, 70000, 0], dtype=np.int32) == [255, 1, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_the_rest_is_one_class_also_ids_not_seen_before(dtype):
    classes = classes_of(page({k: 5 for k in range(400)}), given={"background": 0, "object": "rest"})
    assert label(classes, [0, 7, 254], dtype=dtype) == [0, 1, 1]
    assert classes.count(page({k: 5 for k in range(400)})).tolist() == [5, 1995, 0]


def test_the_rest_of_colours():
    classes = classes_of(page({BLACK: 5, RED: 3, GREEN: 1}, "colours"), given={"bg": [0, 0, 0], "object": "rest"})
    assert label(classes, [BLACK, RED, 0x123456], "colours", dtype=np.int32) == [0, 1, 1]
    assert classes.palette == ((0, 0, 0), (0, 255, 0))


def test_a_value_that_was_not_scanned_is_told():
    classes = classes_of(page({0: 5, 1: 3}))
    for dtype in (np.uint8, np.uint16, np.int64):
        with pytest.raises(SegbenchError, match="the mask of x has values that no mask had when the folder was"):
            label(classes, [0, 9], dtype=dtype)
