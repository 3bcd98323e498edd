from pathlib import Path

import numpy as np
import pytest

from segbench.data.files.masks import Mask
from segbench.data.folder.classes import find_classes
from segbench.data.folder.facts import MaskFacts
from segbench.errors import SegbenchError

FOLDER = Path("masks")
RED, GREEN, BLACK = 0xFF0000, 0x00FF00, 0


def page(pixels, kind="ids", colours=(), runs=0, size=None):
    """A page that holds `pixels` of each code."""
    return MaskFacts(
        1, size or sum(pixels.values()), kind, len(pixels), runs, tuple(pixels), tuple(pixels.values()), tuple(colours)
    )


def classes_of(*pages, given=None, ignore=None):
    return find_classes(FOLDER, {f"{k}.png": (each,) for k, each in enumerate(pages)}, given, ignore)


def label(classes, codes, kind="ids", palette=(), dtype=np.uint8):
    return classes(Mask(np.array([codes], dtype), kind, palette), "x")[0].tolist()


def test_every_value_is_a_class_in_ascending_order():
    classes = classes_of(page({0: 9, 255: 1}), page({0: 8, 7: 2}))
    assert (classes.coding, classes.names) == ("ids", ("0", "7", "255"))
    assert label(classes, [255, 0, 7]) == [2, 0, 1]
    assert classes.count(page({0: 8, 7: 2})).tolist() == [8, 2, 0, 0]


def test_two_values_are_black_and_white():
    assert classes_of(page({0: 9, 255: 1})).palette == ((0, 0, 0), (255, 255, 255))


def test_void_is_no_class():
    classes = classes_of(page({0: 5, 1: 3, 255: 2}), ignore=255)
    assert classes.names == ("0", "1")
    assert label(classes, [255, 0, 1]) == [255, 0, 1]
    assert classes.count(page({0: 5, 255: 2})).tolist() == [5, 0, 2]
    assert classes.notes == ()
    assert classes_of(page({0: 5, 1: 3, 2: 2}), ignore=[0, 9]).notes == ("data.ignore_index: no mask holds 9",)


def test_a_likely_void_is_told():
    assert "set data.ignore_index=255" in classes_of(page({0: 5, 1: 3, 255: 2})).notes[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_labels_of_any_type(dtype):
    assert label(classes_of(page({3: 5, 200: 3})), [200, 3, 3], dtype=dtype) == [1, 0, 0]


def test_wide_and_negative_values():
    classes = classes_of(page({-1: 1, 0: 5, 70000: 3}), ignore=-1)
    assert classes.names == ("0", "70000")
    assert label(classes, [-1, 70000, 0], dtype=np.int32) == [255, 1, 0]


def test_colours_are_classes_with_their_own_colours():
    classes = classes_of(page({BLACK: 5, RED: 3, 0x102030: 1}, "colours"))
    assert (classes.coding, classes.names) == ("colours", ("black", "#102030", "red"))
    assert classes.palette == ((0, 0, 0), (16, 32, 48), (255, 0, 0))
    assert label(classes, [RED, BLACK, 0x102030], "colours", dtype=np.int32) == [2, 0, 1]


@pytest.mark.parametrize("void", [[255, 0, 0], "#ff0000", "ff0000", [[255, 0, 0]], ["#ff0000"]])
def test_a_void_colour(void):
    classes = classes_of(page({BLACK: 5, RED: 3, GREEN: 1}, "colours"), ignore=void)
    assert classes.names == ("black", "green")
    assert label(classes, [RED, GREEN], "colours", dtype=np.int32) == [255, 1]


def test_a_grey_void_among_colours():
    classes = classes_of(page({BLACK: 5, RED: 3, 0x808080: 1}, "colours"), ignore=128)
    assert classes.names == ("black", "red")


def test_a_palette_gives_the_colours():
    classes = classes_of(page({0: 5, 2: 3}, "palette", (BLACK, RED)), page({0: 5, 1: 3}, "palette", (BLACK, GREEN)))
    assert (classes.coding, classes.names) == ("ids", ("0", "1", "2"))
    assert classes.palette == ((0, 0, 0), (0, 255, 0), (255, 0, 0))
    assert label(classes, [2, 1], "palette") == [2, 1]


def test_a_palette_of_grey_levels_is_none():
    """Ids 1 and 2 would be drawn as good as black."""
    classes = classes_of(page({0: 5, 1: 3, 2: 1}, "palette", (BLACK, 0x010101, 0x020202)))
    assert classes.palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0))


def test_palettes_in_another_order_in_each_file_are_colours():
    pages = page({0: 5, 1: 3}, "palette", (BLACK, RED)), page({0: 2, 1: 3}, "palette", (RED, BLACK))
    classes = classes_of(*pages)
    assert (classes.coding, classes.names) == ("colours", ("black", "red"))
    assert label(classes, [0, 1], "palette", (BLACK, RED)) == [0, 1]
    assert label(classes, [0, 1], "palette", (RED, BLACK)) == [1, 0]
    assert classes.count(pages[1]).tolist() == [3, 2, 0]
    assert "the palettes differ from file to file" in classes.notes[0]


def test_palettes_and_grey_among_colours():
    pages = page({BLACK: 5, RED: 3}, "colours"), page({0: 2}, "palette", (RED,)), page({0: 7})
    classes = classes_of(*pages)
    assert classes.names == ("black", "red")
    assert label(classes, [0], "palette", (RED,)) == [1]
    assert label(classes, [0]) == [0]
    assert sum(classes.count(each) for each in pages).tolist() == [12, 5, 0]
    assert "1 masks are grey" in classes.notes[0]


def test_wide_ids_beside_colours_are_refused():
    with pytest.raises(SegbenchError, match=r"masks of colours \(0\.png\) beside 1\.png, which holds ids up to 300"):
        classes_of(page({BLACK: 5, RED: 3}, "colours"), page({300: 5}))


def test_names_in_the_order_of_the_values():
    classes = classes_of(page({0: 5, 255: 3}), given=["sky", "ground"])
    assert classes.names == ("sky", "ground") and label(classes, [255]) == [1]


def test_as_many_names_as_ids_name_the_ids():
    """Class 1 shows in no mask; its name must not slide to id 2."""
    classes = classes_of(page({0: 5, 2: 3}), given=["sky", "bird", "ground"])
    assert classes.names == ("sky", "bird", "ground") and label(classes, [0, 2]) == [0, 2]
    assert len(classes.palette) == 3


def test_names_with_their_values():
    given = {"cell": [1, 2], "background": 0}
    classes = classes_of(page({0: 5, 1: 3, 2: 1}), given=given)
    assert classes.names == ("cell", "background") and label(classes, [0, 1, 2]) == [1, 0, 0]
    given = {"road": [255, 0, 0], "other": ["#00ff00", 0]}
    classes = classes_of(page({BLACK: 5, RED: 3, GREEN: 1}, "colours"), given=given)
    assert label(classes, [RED, GREEN, BLACK], "colours", dtype=np.int32) == [0, 1, 1]
    assert classes.palette == ((255, 0, 0), (0, 255, 0))


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
        with pytest.raises(SegbenchError, match="the mask of x holds values that it did not hold when the folder was"):
            label(classes, [0, 9], dtype=dtype)


@pytest.mark.parametrize(
    ("given", "ignore", "found"),
    [
        (
            ["a", "b"],
            None,
            r"2 names and the masks 3 values: 0 \(50\.00%\), 1 .*, 255 \(20\.00%\)(.|\n)*void is",
        ),
        (["a", "b", "b"], None, "different names"),
        ("cell", None, "different names in a list"),
        ({"a": 0, "b": 1}, None, r"leaves out 1 values of the masks: 255 \(20\.00%\)"),
        ({"a": 0, "b": [1, 0], "c": 255}, None, "gives the value 0 to two classes"),
        ({"a": "rest", "b": "rest"}, None, "gives rest to two classes"),
        ({"a": [0, 1], "b": "high", "c": 255}, None, r"data\.classes\.b=high, and the masks hold values"),
        ({"a": [0, 1, 255]}, None, "one class only, a"),
        (None, "#ff0000", r"data\.ignore_index=#ff0000, and the masks hold values"),
        (None, [1, 255], "one class only, 0"),
        (None, [0, 1, 255], "hold void only"),
        ({str(k): k for k in range(255)} | {"x": 255}, None, "names 256 classes"),
    ],
)
def test_what_does_not_fit_the_masks(given, ignore, found):
    with pytest.raises(SegbenchError, match=found):
        classes_of(page({0: 5, 1: 3, 255: 2}), given=given, ignore=ignore)


def test_a_value_for_a_colour_is_refused():
    with pytest.raises(SegbenchError, match=r"data\.ignore_index=700, and the masks hold colours\n.*\[255, 0, 0\]"):
        classes_of(page({BLACK: 5, RED: 3}, "colours"), ignore=700)


def test_one_class_only():
    with pytest.raises(SegbenchError, match=r"one class only, 0\n.*at least two classes"):
        classes_of(page({0: 5}), page({0: 7}))


def test_photographs_are_told():
    photo = page({k: 4 for k in range(200)}, runs=700)
    with pytest.raises(SegbenchError, match=r"masks/1\.png has 200 values that change.*as 1 of 2 masks.*photographs"):
        classes_of(page({0: 5, 1: 3}), photo)
    many = MaskFacts(100, 100, "colours", 70000, 9900, (), (), ())
    with pytest.raises(SegbenchError, match="70000 colours that change from pixel to pixel"):
        classes_of(many)


def test_instance_ids_are_told():
    with pytest.raises(SegbenchError, match=r"400 different values \(0\.png 400.*instance ids(.|\n)*object: rest"):
        classes_of(page({k: 50 for k in range(400)}, runs=900))


def test_ids_that_may_be_instances_are_told():
    pages = page({k: 50 for k in range(57)}), page({k: 50 for k in range(20)})
    assert "if a value is an object, one class of all" in classes_of(*pages).notes[0]
    assert classes_of(pages[1]).notes == ()
    assert classes_of(*pages, given={"background": 0, "cell": "rest"}).notes == ()


def test_a_mask_smoothed_at_its_edges_is_no_mask_of_two_hundred_classes():
    smoothed = page({0: 70000} | dict.fromkeys(range(30, 230), 10) | {255: 20000})
    with pytest.raises(SegbenchError, match=r"200 values between 0 and 255, on 2\.17% of the pixels: .*smoothed at"):
        classes_of(smoothed)
    assert classes_of(smoothed, given={"background": 0, "object": "rest"}).names == ("background", "object")


@pytest.mark.parametrize(
    "pixels",
    [
        {0: 700, **dict.fromkeys(range(1, 21), 20), 255: 50},  # as PASCAL VOC: classes between background and void
        {0: 70000, **dict.fromkeys(range(1, 9), 10), 255: 20000},  # a few rare classes
        {0: 95000, **dict.fromkeys(range(1, 21), 250)},  # small objects of many classes
        {k: 100 for k in range(40)},
    ],
)
def test_many_classes_are_not_taken_for_smoothed_edges(pixels):
    assert len(classes_of(page(pixels)).names) == len(pixels)


def test_rare_classes_with_a_palette_are_meant():
    pixels = {0: 70000} | dict.fromkeys(range(1, 31), 10) | {31: 20000}
    assert len(classes_of(page(pixels, "palette", tuple(range(32)))).names) == 32


def test_smoothed_masks_are_told():
    smoothed = {k: 2 for k in range(300)} | {0: 50000, 299: 50000}
    with pytest.raises(SegbenchError, match=r"300 different values.*16 of them have 99\.4% of the pixels: .*smoothed"):
        classes_of(page(smoothed, runs=900))
    note = classes_of(page({k: 1 for k in range(60)} | {10: 500000, 40: 500000}, runs=900)).notes[-1]
    assert note.startswith("58 of 60 values have together 0.0058% of the pixels")


def test_more_values_than_are_kept_are_refused_whatever_is_asked_for():
    many = MaskFacts(1000, 1000, "ids", 70000, 90000, (), (), ())
    with pytest.raises(SegbenchError, match=r"masks/0\.png holds more than 65536 different values"):
        classes_of(many, given={"background": 0, "object": "rest"})


def test_255_classes_and_void_fit():
    classes = classes_of(page({k: 50 for k in range(256)}, runs=900), ignore=255)
    assert len(classes.names) == 255 and label(classes, [254, 255, 0]) == [254, 255, 0]
    with pytest.raises(SegbenchError, match="256 different values"):
        classes_of(page({k: 50 for k in range(256)}, runs=900))
