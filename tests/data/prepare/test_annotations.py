import json
import shlex

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.cli import data as cli
from segbench.data.prepare.annotations import _Canvas, _numbers, fill, import_masks
from segbench.errors import SegbenchError


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]


def coco(folder, annotations, name="a.jpg"):
    content = {
        "images": [{"id": 7, "file_name": name, "height": 4, "width": 5}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": 9, **each} for each in annotations],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """`filled(corners, size)`: the pixels of an image that are inside a polygon."""
    path = tmp_path_factory.mktemp("filled") / "a.json"
    path.write_text("{}")

    def filled(corners, size):
        area, pixels_HW = fill(np.array(corners, float), _Canvas(path, *size)), np.zeros(size, bool)
        pixels_HW[area.place] = area.pixels_HW
        return pixels_HW

    return filled


def test_a_square_by_hand(filled):
    assert filled([(1, 1), (3, 1), (3, 3), (1, 3)], (4, 5)).astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]


@given(st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 15)), min_size=3, max_size=8))
def test_a_pixel_is_inside_if_a_ray_from_its_centre_crosses_an_odd_number_of_edges(filled, corners):
    found = filled(corners, (9, 11))
    for y in range(9):
        for x in range(11):
            crossings = 0
            for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
                if (y0 <= y + 0.5) != (y1 <= y + 0.5):
                    at = x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                    crossings += at > x + 0.5 if abs(at - x - 0.5) > 1e-9 else 99
            assert crossings >= 99 or found[y, x] == crossings % 2


def test_polygons_and_both_kinds_of_run_lengths_of_coco(tmp_path):
    # Column by column: 5 of background, 2, 2, 2, 9.
    numbers = {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}
    text = {"size": [4, 5], "counts": "52207"}
    assert _numbers("52207") == [5, 2, 2, 2, 9]
    expected = np.zeros((4, 5), int)
    expected[1:3, 1:3] = 1
    for segmentation in ([SQUARE], numbers, text):
        import_masks(coco(tmp_path, [{"segmentation": segmentation}]), tmp_path / "masks")
        assert read(tmp_path / "masks" / "a.png").tolist() == expected.tolist()


def test_objects_classes_crowds_and_what_has_no_area(tmp_path):
    annotations = [
        {"segmentation": [SQUARE]},
        {"segmentation": [[0, 0, 5, 0, 5, 4, 0, 4]], "category_id": 3},
        {"segmentation": {"size": [4, 5], "counts": [0, 1, 19]}, "iscrowd": 1},
        {"bbox": [0, 0, 1, 1]},
    ]
    done = import_masks(coco(tmp_path, annotations, "../x/b.png"), tmp_path / "masks")
    mask = read(tmp_path / "masks" / "b.png")
    # The smaller object is on top, both are on top of the crowd.
    assert mask.dtype == np.uint16 and mask[1:3, 1:3].tolist() == [[1, 1], [1, 1]] and (mask == 2).sum() == 16
    assert (done.masks, done.objects, done.crowds) == (1, 2, 1)
    assert done.left_out == {"annotations without a segmentation (boxes alone)": 1}
    import_masks(tmp_path / "coco.json", tmp_path / "classes", "classes")
    assert np.unique(read(tmp_path / "classes" / "b.png")).tolist() == [1, 2]
    assert read(tmp_path / "classes" / "b.png")[1, 1] == 2


def test_labelme(tmp_path):
    (tmp_path / "in" / "day").mkdir(parents=True)
    shapes = [
        {"label": "cell", "points": [[1, 1], [3, 1], [3, 3], [1, 3]], "shape_type": "polygon", "group_id": None},
        {"label": "cell", "points": [[0, 0], [1, 1]], "shape_type": "rectangle", "group_id": 5},
        {"label": "cell", "points": [[4, 3], [5, 4]], "shape_type": "rectangle", "group_id": 5},
        {"label": "cell", "points": [[1, 1]], "shape_type": "point"},
    ]
    content = {"imagePath": "a.jpg", "imageHeight": 4, "imageWidth": 5, "shapes": shapes}
    (tmp_path / "in" / "day" / "a.json").write_text(json.dumps(content))
    (tmp_path / "in" / "other.json").write_text("{}")
    done = import_masks(tmp_path / "in", tmp_path / "masks")
    assert read(tmp_path / "masks" / "day" / "a.png").tolist() == [
        [2, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 2],
    ]
    assert (done.objects, sum(done.left_out.values())) == (2, 2)


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def test_cellpose(tmp_path, capsys):
    ids = np.array([[0, 3, 3], [9, 0, 3]], np.uint16)
    np.save(tmp_path / "a_seg.npy", {"masks": ids, "filename": "a.tif", "est_diam": np.float32(3)})
    import_masks(tmp_path, tmp_path / "masks")
    assert read(tmp_path / "masks" / "a.png").tolist() == [[0, 1, 1], [2, 0, 1]]
    np.save(tmp_path / "a_seg.npy", {"masks": Harmful()})
    with pytest.raises(SegbenchError, match=r"a file that names builtins\.print"):
        import_masks(tmp_path, tmp_path / "masks")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("content", "found"), [("{", "cannot be read: JSONDecodeError"), (None, "no .json and no")])
def test_what_is_no_annotation(tmp_path, content, found):
    if content:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(SegbenchError, match=found):
        import_masks(tmp_path, tmp_path / "masks")


def test_from_the_command_line(tmp_path, capsys):
    source = coco(tmp_path, [{"segmentation": [SQUARE]}])
    assert cli.run(["import", str(source), f"output={tmp_path}/m"]) == 0
    said = capsys.readouterr().out
    assert f"1 masks of 1 objects (cat, dog) in {tmp_path}/m" in said and "experiment=image_objects" in said
    cli.run(["import", str(source), f"output={tmp_path}/m", "masks=classes"])
    assert "'data.classes={background: 0, cat: 1, dog: 2}'" in capsys.readouterr().out
    for wrong in ([str(source)], [str(source), "output=x", "kind=y"], []):
        with pytest.raises(SegbenchError, match="segbench data"):
            cli.run(["import", *wrong])


@pytest.mark.parametrize(
    ("size", "segmentation", "why"),
    [
        ((10**9, 10**9), [SQUARE], "an image of 1000000000 x 1000000000"),
        ((0, 5), [SQUARE], "an image of 0 x 5"),
        ((10**6, 10**6), [SQUARE], r"declares 3,000,000,000,000 bytes"),
        ((4, 5), {"size": [10**6, 10**6], "counts": [10**12]}, "in an image of"),
        ((4, 5), {"size": [4, 5], "counts": [10**12]}, "run lengths of 1000000000000 pixels"),
        ((4, 5), {"size": [4, 5], "counts": [21, -1]}, "run lengths"),
        ((float("inf"), 5), [SQUARE], "infinity"),
    ],
)
def test_sizes_that_few_bytes_state_are_refused_before_they_are_drawn(tmp_path, size, segmentation, why):
    path = coco(tmp_path, [{"segmentation": segmentation}])
    content = json.loads(path.read_text())
    content["images"][0] |= dict(zip(("height", "width"), size, strict=True))
    path.write_text(json.dumps(content))
    with pytest.raises(SegbenchError, match=why):
        import_masks(path, tmp_path / "masks")


def test_many_areas_of_a_whole_image_are_refused_for_the_bytes_that_state_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGBENCH_LARGEST_FILE", "100000")
    whole = [0, 0, 300, 0, 300, 300, 0, 300]
    path = coco(tmp_path, [{"segmentation": [whole]}] * 99)
    content = json.loads(path.read_text())
    content["images"][0] |= {"height": 300, "width": 300}
    path.write_text(json.dumps(content, separators=(",", ":")))
    assert import_masks(path, tmp_path / "masks").objects == 99
    content["images"][0] |= {"height": 2000, "width": 2000}
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[0, 0, 2000, 0, 2000, 2000, 0, 2000]]
    path.write_text(json.dumps(content, separators=(",", ":")))
    with pytest.raises(SegbenchError, match=r"declares 36,000,000 bytes"):
        import_masks(path, tmp_path / "masks")


def test_a_json_nested_without_end_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(SegbenchError, match=r"a\.json"):
        import_masks(tmp_path / "a.json", tmp_path / "masks")


def test_a_mark_of_the_byte_order_is_read_over(tmp_path):
    path = coco(tmp_path, [{"segmentation": [SQUARE]}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert import_masks(path, tmp_path / "masks").objects == 1


def sized(path, height, width):
    content = json.loads(path.read_text())
    content["images"][0] |= {"height": height, "width": width}
    for annotation in content["annotations"]:
        if isinstance(annotation["segmentation"], dict):
            annotation["segmentation"]["size"] = [height, width]
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("size", "segmentation", "count", "found"),
    [
        # Each would take over a minute if every area were drawn on the whole image, or row by row.
        ((15_000, 15_000), [SQUARE], 3000, None),
        ((15_000, 15_000), {"size": [], "counts": [225_000_000]}, 500, None),
        ((1_000_000, 5), [[0, 0, 3, 0, 3, 1_000_000]], 5, None),
        ((10_000, 30), [[x for i in range(50_000) for x in (i % 30, i * 7919 % 10_000)]], 1, "that cross .* rows"),
        ((4, 5), {"size": [], "counts": "o" * 1_000_000}, 1, "a run length of more than 60 bits"),
        ((4, 5), [[0, 0, float("nan"), 1, 3, 3]], 1, "a corner that is no place"),
        ((4, 5), [[0, 0, 1e300, 1, 3, 3]], 1, "a corner that is no place"),
    ],
    ids=["small areas", "nothing", "tall", "zigzag", "a long number", "NaN", "far away"],
)
def test_time_and_memory_of_areas_are_those_of_their_pixels(tmp_path, size, segmentation, count, found):
    path = sized(coco(tmp_path, [{"segmentation": segmentation}] * count), *size)
    if found is None:
        assert import_masks(path, tmp_path / "masks").objects == count
    else:
        with pytest.raises(SegbenchError, match=found):
            import_masks(path, tmp_path / "masks")


def pickled(path, content):
    np.save(path, {"masks": None})
    head = path.read_bytes()
    path.write_bytes(head[: head.index(b"\x80")] + content)


def test_a_pickle_that_asks_python_for_room_is_refused(tmp_path):
    # LONG_BINPUT: room for two billion places.
    pickled(tmp_path / "a_seg.npy", b"\x80\x04Nr\xff\xff\xff\x3f.")
    with pytest.raises(SegbenchError, match="it names the value 1073741823 among 2"):
        import_masks(tmp_path, tmp_path / "masks")


@pytest.mark.parametrize("masks", [np.zeros((2, 2)), np.zeros((1, 2, 2), int), np.array([["a"]]), None])
def test_masks_of_cellpose_are_ids_of_one_image(tmp_path, masks):
    np.save(tmp_path / "a_seg.npy", {"masks": masks})
    with pytest.raises(SegbenchError, match=r"masks of type .* export them as TIFF"):
        import_masks(tmp_path, tmp_path / "masks")


def test_objects_that_spread_over_each_other_are_refused_for_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGBENCH_LARGEST_FILE", "100000")
    np.save(tmp_path / "a_seg.npy", {"masks": np.random.default_rng(0).integers(0, 9999, (100, 100), np.uint16)})
    with pytest.raises(SegbenchError, match=r"a_seg\.npy declares"):
        import_masks(tmp_path, tmp_path / "masks")


def test_labels_command_neither_terminal_nor_shell(tmp_path, capsys):
    path = coco(tmp_path, [{"segmentation": [SQUARE]}])
    content = json.loads(path.read_text())
    content["categories"][1]["name"] = "\x1b[31m'; touch canary #"
    path.write_text(json.dumps(content))
    cli.run(["import", str(path), f"output={tmp_path}/m", "masks=classes"])
    said = capsys.readouterr().out
    assert "\x1b" not in said
    words = shlex.split(said.splitlines()[-1])
    assert words[-1] == "data.classes={background: 0, cat: 1, \\x1b[31m'; touch canary #: 2}"


def test_two_images_of_one_name_are_refused(tmp_path):
    path = coco(tmp_path, [])
    content = json.loads(path.read_text())
    content["images"].append({"id": 8, "file_name": "a.png", "height": 4, "width": 5})
    path.write_text(json.dumps(content))
    with pytest.raises(SegbenchError, match=r"two images of the name a, whose mask is .*a.png"):
        import_masks(path, tmp_path / "masks")
