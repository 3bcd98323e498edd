import numpy as np
import pytest
import scipy.io

from segbench.data.pascal_context import CLASSES, LONG_NAMES, PascalContext
from segbench.data.pascal_voc import CLASSES as OBJECTS
from segbench.errors import SegbenchError


def test_names_are_the_authors():
    # data/pascal-context/classes-59.txt of the release: 0 background, 20 tvmonitor, 28 clothes, 52 bedcloth, 59 wood.
    assert len(CLASSES) == 60 and CLASSES[:21] == OBJECTS
    numbered = {21: "bag", 28: "clothes", 40: "mountain", 42: "curtain", 50: "sky", 52: "bedcloth", 59: "wood"}
    assert {k: CLASSES[k] for k in numbered} == numbered


def test_ids_of_the_long_list_become_places_in_the_short_one(context):
    # As pascalcontext_layers.py does it: one class after the other, by name, from zeros.
    long = [line.split(": ")[1].replace(" ", "") for line in (context / "labels.txt").read_text().splitlines()]
    dataset = PascalContext(context)
    for split in ("train", "test"):
        for index, name in enumerate(dataset.split(split).ids):
            ids_HW = scipy.io.loadmat(context / "trainval" / f"{name}.mat")["LabelMap"]
            assert ids_HW.dtype == np.uint16
            expected = np.zeros_like(ids_HW, np.uint8)
            for place, short in enumerate(CLASSES[1:], 1):
                expected[ids_HW == long.index(LONG_NAMES.get(short, short)) + 1] = place
            raw = dataset.split(split).read(index)
            assert raw.id == name and raw.images["rgb"].shape == (*ids_HW.shape, 3)
            np.testing.assert_array_equal(raw.labels["semantic"], expected)


def test_three_names_differ_and_what_is_no_class_is_background(context):
    names = ("table", "bedclothes", "cloth", "clothes", "accordion", "zebra")
    long = [line.split(": ")[1] for line in (context / "labels.txt").read_text().splitlines()]
    ids = [[*(long.index(name) + 1 for name in names), 0]]
    name = PascalContext(context).split("train").ids[1]
    scipy.io.savemat(context / "trainval" / f"{name}.mat", {"LabelMap": np.array(ids * 12, np.uint16)})
    from tests.fixtures.datasets import write_jpeg

    write_jpeg(context / "VOCdevkit" / "VOC2010" / "JPEGImages" / f"{name}.jpg", 0, 12, 7)
    label_HW = PascalContext(context).split("train").read(1).labels["semantic"]
    assert [CLASSES[k] for k in label_HW[0]] == ["diningtable", "bedcloth", "clothes", *["background"] * 4]
    assert label_HW.dtype == np.uint8


def test_the_papers_protocol(context):
    spec = PascalContext(context).spec
    assert spec.protocol.startswith("train Main/train 3, test Main/val 2; VOC 2010; names outside the 59 classes are")
    head = spec.heads["semantic"]
    assert (head.num_classes, head.excluded, len(set(head.palette))) == (60, (), 60)
    assert spec.modalities["rgb"].mean == (122.679, 116.669, 104.007)
    dataset = PascalContext(context, hold_out=1)
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [2, 1, 2]
    assert "1 of train held out" in dataset.spec.protocol
    assert PascalContext(context).split("val") is None and PascalContext(context).split("predict") is None


def test_labels_in_a_folder_of_their_own(context):
    (context / "pascal-context").mkdir()
    for name in ("trainval", "labels.txt", "59_labels.txt"):
        (context / name).rename(context / "pascal-context" / name)
    assert len(PascalContext(context).split("test")) == 2


def test_missing_files(context, tmp_path):
    with pytest.raises(SegbenchError, match=r"no VOC2010 in .*(.|\n)*segbench data prepare pascal_context"):
        PascalContext(tmp_path / "none")
    image = context / "VOCdevkit" / "VOC2010" / "JPEGImages" / "2008_000002.jpg"
    image.unlink()
    with pytest.raises(
        SegbenchError, match=r"train Main/train in .*: 1 of 3 images lack their files, first 2008_000002"
    ):
        PascalContext(context)
    assert "train Main/train 2 of 3 (data.partial)" in PascalContext(context, partial=True).spec.protocol
    (context / "trainval").rename(context / "elsewhere")
    with pytest.raises(SegbenchError, match=r"no trainval in .*(.|\n)*trainval/ID\.mat and labels\.txt"):
        PascalContext(context)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("59_labels.txt", "59: wood\n", "", "has 58 names; its line 59 is missing"),
        ("59_labels.txt", "59: wood\n", "59: wood\n60: zebra\n", "has 60 names; its line 60 is zebra(.|\n)*no more"),
        ("59_labels.txt", "2: bicycle", "2: bike", "line 2 is bike(.|\n)*bicycle there"),
        ("labels.txt", ": table", ": desk", r"labels\.txt has no table, which is class diningtable"),
        ("labels.txt", ": zebra", ": table", r"labels\.txt has 2 times table, which is class diningtable"),
        ("labels.txt", "3: ", "4: ", r"labels\.txt, line 3: 4: bag(.|\n)*3: and the name"),
    ],
)
def test_lists_that_are_others_are_refused(context, file, old, new, message):
    text = (context / file).read_text()
    assert old in text
    (context / file).write_text(text.replace(old, new, 1))
    with pytest.raises(SegbenchError, match=message):
        PascalContext(context)
    (context / file).unlink()
    with pytest.raises(SegbenchError, match=f"{file} cannot be read"):
        PascalContext(context)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.full((15, 16), 700, np.uint16), "has label ids 700"),
        (np.full((15, 16), -1, np.int16), "has label ids -1"),
        (np.zeros((15, 16)), "type float64"),
        (np.zeros((15, 16, 2), np.uint16), r"shape \(15, 16, 2\)"),
        (np.zeros((14, 16), np.uint16), "differs in size"),
    ],
)
def test_labels_that_are_none_are_named(context, label, message):
    name = PascalContext(context).split("train").ids[0]
    scipy.io.savemat(context / "trainval" / f"{name}.mat", {"LabelMap": label})
    with pytest.raises(SegbenchError, match=f"{name}.*{message}"):
        PascalContext(context).split("train").read(0)


def test_a_label_of_a_version_that_is_hdf5_is_told_as_that(context):
    path = context / "trainval" / "2008_000002.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(SegbenchError, match=r"2008_000002\.mat is of version 7\.3(.|\n)*-v7"):
        PascalContext(context).split("train").read(0)


def test_lists_as_an_editor_saves_them(context):
    plain = PascalContext(context)
    main = context / "VOCdevkit" / "VOC2010" / "ImageSets" / "Main"
    for path in (context / "labels.txt", context / "59_labels.txt", main / "train.txt", main / "val.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    marked = PascalContext(context)
    for split in ("train", "test"):
        ours, theirs = plain.split(split), marked.split(split)
        assert ours.ids == theirs.ids
        np.testing.assert_array_equal(ours.read(1).labels["semantic"], theirs.read(1).labels["semantic"])


def test_voc_lists_that_are_missing_or_share_images_are_named_as_the_files(context):
    main = context / "VOCdevkit" / "VOC2010" / "ImageSets" / "Main"
    with (main / "train.txt").open("a") as file:
        file.write("2008_000008\n")
    restore = "to do:    restore VOC 2010's ImageSets/Main"
    with pytest.raises(SegbenchError, match=rf"Main/train and Main/val share 1 of 2 images(.|\n)*{restore}"):
        PascalContext(context)
    (main / "val.txt").unlink()
    with pytest.raises(SegbenchError, match=rf"no file .*val\.txt(.|\n)*{restore}"):
        PascalContext(context)


def test_a_damaged_label_is_named(context):
    path = context / "trainval" / "2008_000002.mat"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(SegbenchError, match="of image 2008_000002, cannot be decoded"):
        PascalContext(context).split("train").read(0)
