import numpy as np
import pytest
from tests.fixtures.masks import classes_of, page

from segbench.data.files.masks import Mask
from segbench.errors import SegbenchError

RED, GREEN, BLACK = 0xFF0000, 0x00FF00, 0


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
    assert classes_of(page({0: 5, 1: 3, 2: 2}), ignore=[0, 9]).notes == ("data.ignore_index: no mask has 9",)


def test_a_likely_void_is_told():
    assert "set data.ignore_index=255" in classes_of(page({0: 5, 1: 3, 255: 2})).notes[0]


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
    with pytest.raises(SegbenchError, match=r"masks of colours \(0\.png\) besides 1\.png, which has ids up to 300"):
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
        ({"a": [0, 1], "b": "high", "c": 255}, None, r"data\.classes\.b=high, and the masks have values"),
        ({"a": [0, 1, 255]}, None, "one class only, a"),
        (None, "#ff0000", r"data\.ignore_index=#ff0000, and the masks have values"),
        (None, [1, 255], "one class only, 0"),
        (None, [0, 1, 255], "have void only"),
        ({str(k): k for k in range(255)} | {"x": 255}, None, "names 256 classes"),
    ],
)
def test_what_does_not_fit_the_masks(given, ignore, found):
    with pytest.raises(SegbenchError, match=found):
        classes_of(page({0: 5, 1: 3, 255: 2}), given=given, ignore=ignore)


def test_a_value_for_a_colour_is_refused():
    with pytest.raises(SegbenchError, match=r"data\.ignore_index=700, and the masks have colours\n.*\[255, 0, 0\]"):
        classes_of(page({BLACK: 5, RED: 3}, "colours"), ignore=700)


def test_one_class_only():
    with pytest.raises(SegbenchError, match=r"one class only, 0\n.*at least two classes"):
        classes_of(page({0: 5}), page({0: 7}))


def test_ids_that_may_be_instances_are_told():
    pages = page({k: 50 for k in range(57)}), page({k: 50 for k in range(20)})
    assert "if each value is an object, make them one class" in classes_of(*pages).notes[0]
    assert classes_of(pages[1]).notes == ()
    assert classes_of(*pages, given={"background": 0, "cell": "rest"}).notes == ()


def test_255_classes_and_void_fit():
    classes = classes_of(page({k: 50 for k in range(256)}, runs=900), ignore=255)
    assert len(classes.names) == 255 and label(classes, [254, 255, 0]) == [254, 255, 0]
    with pytest.raises(SegbenchError, match="256 different values"):
        classes_of(page({k: 50 for k in range(256)}, runs=900))


@pytest.mark.parametrize("high", [1, 255, 65535])
def test_two_values_are_background_and_foreground_where_names_are_automatic(high):
    pages = page({0: 9, high: 1}), page({0: 8})
    assert classes_of(*pages, given="auto").names == ("background", "foreground")
    assert classes_of(*pages).names == ("0", str(high))


def test_other_values_keep_theirs():
    assert classes_of(page({0: 9, 7: 1}), given="auto").names == ("0", "7")
    assert classes_of(page({0: 9, 1: 1, 255: 1}), given="auto").names == ("0", "1", "255")


@pytest.mark.parametrize(
    ("pixels", "asked"),
    [
        ({-1: 9, 0: 50, 1: 41}, ["-1"]),
        ({0: 50, 1: 40, 255: 10}, ["255"]),
        ({0: 1, 1: 50, 2: 49}, ["0"]),
        ({-1: 9, 0: 1, 1: 50, 2: 40, 255: 20}, ["-1", "255", "0"]),
        ({0: 50, 255: 50}, []),
        ({0: 30, 1: 30, 2: 40}, []),
    ],
)
def test_values_that_often_mark_void_are_asked_about_alike(pixels, asked):
    notes = classes_of(page(pixels)).notes
    assert [note.split(" ")[0] for note in notes] == asked
    assert all(note.endswith(f"set data.ignore_index={value}") for note, value in zip(notes, asked, strict=True))
    if asked:
        void = [int(value) for value in asked]
        assert classes_of(page(pixels), ignore=void).notes == () or len(set(pixels) - set(void)) < 2
