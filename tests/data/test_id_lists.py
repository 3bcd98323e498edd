import hashlib
import shutil
from pathlib import Path

import pytest
import scipy.io

from segbench.data.id_lists import digest, find_release, ranges, read_list, refuse_shared, select, set_apart, shipped
from segbench.errors import SegbenchError


def test_the_choice_of_held_out_images_is_of_the_ids_alone():
    ids = shipped("siftflow_trainval")
    train, val = set_apart(ids, 100)
    assert sorted((*train, *val)) == sorted(ids) and len(val) == 100
    assert set(set_apart(ids[::-1], 100)[1]) == set(val)
    # One image less changes the choice by one at most.
    assert len(set(set_apart(ids[1:], 100)[1]) - set(val)) <= 1


def test_shipped_lists_are_the_authors():
    counts = {"pascal_seg11valid": 736, "nyud_train": 381, "nyud_val": 414, "nyud_test": 654}
    counts |= {"siftflow_trainval": 2486, "siftflow_test": 200}
    assert {name: len(set(shipped(name))) for name in counts} == counts


def test_a_changed_list_is_refused(tmp_path, monkeypatch):
    from importlib import resources

    shutil.copytree(resources.files("segbench.data") / "splits", tmp_path / "splits")
    with (tmp_path / "splits" / "nyud_val.txt").open("a") as file:
        file.write("5001\n")
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    with pytest.raises(SegbenchError, match=r"nyud_val\.txt has sha256"):
        shipped("nyud_val")
    assert len(shipped("nyud_train")) == 381


def test_lists_of_bad_form(tmp_path):
    path = tmp_path / "list.txt"
    for content, message in ((b"a\nb\na\n", "1 ids twice, first a"), (b"\n", "has no id"), (b"\xff\xfe", "not text")):
        path.write_bytes(content)
        with pytest.raises(SegbenchError, match=message):
            read_list(path, "data.train")


def test_real_lists_leak_or_not(shared_data):
    folder = shared_data("voc2012", "VOCdevkit", "VOC2012", "ImageSets", "Segmentation", "full_lists")
    lists = {name: read_list(folder / f"{name}.txt", "test") for name in ("train", "val", "train_aug")}
    valid = shipped("pascal_seg11valid")
    for name in ("train", "train_aug"):
        refuse_shared([(name, lists[name]), ("seg11valid", valid)], "")
    with pytest.raises(SegbenchError, match="val and seg11valid share 736 of 736 images"):
        refuse_shared([("val", lists["val"]), ("seg11valid", valid)], "")


def test_the_authors_ids_are_the_official_split(shared_data):
    splits = scipy.io.loadmat(shared_data("nyudv2", "meta") / "splits.mat")
    train = {*shipped("nyud_train"), *shipped("nyud_val")}
    assert train == {str(5000 + number) for number in splits["trainNdxs"].ravel().astype(int)}
    assert set(shipped("nyud_test")) == {str(5000 + number) for number in splits["testNdxs"].ravel().astype(int)}


LISTS = {"train": ("a", "b", "c", "d"), "test": ("x", "y")}
FILES = {"train": [{"a", "b", "d"}, {"a", "b", "c", "d"}], "test": [{"x", "y", "z"}]}


def test_ids_without_a_file_are_refused_or_skipped_on_request():
    with pytest.raises(
        SegbenchError, match=r"(?s)^train in root: 1 of 4 images lack their files, first c\n.*get them, or"
    ):
        select(LISTS, FILES, Path("root"), "get them")
    used, counts = select(LISTS, FILES, Path("root"), "get them", partial=True)
    assert used == {"train": ("a", "b", "d"), "test": ("x", "y")}
    assert counts == "train 3 of 4 (data.partial), test 2"


def test_a_data_set_without_any_image_is_refused_though_it_may_be_partial():
    none = {split: [set()] for split in LISTS}
    with pytest.raises(SegbenchError, match=r"train 0 of 4 .* and test 0 of 2 .*: no image of any list"):
        select(LISTS, none, Path("root"), "get them", partial=True)
    used, _ = select(LISTS, none | {"test": FILES["test"]}, Path("root"), "get them", partial=True)
    assert used == {"train": (), "test": ("x", "y")}


def test_held_out_images_are_those_set_apart():
    titles = {"train": "train of mine"}
    used, counts = select(LISTS, FILES, Path("root"), "", partial=True, hold_out=2, titles=titles)
    assert (used["train"], used["val"]) == set_apart(("a", "b", "d"), 2)
    assert counts == "train of mine 3 of 4 (data.partial), test 2, 2 of train held out for selection"
    for count in (-1, 3):
        with pytest.raises(SegbenchError, match=rf"data\.hold_out={count} of 3 training images"):
            select(LISTS, FILES, Path("root"), "", partial=True, hold_out=count)


def test_shared_images_are_named_in_the_other_lists_order():
    refuse_shared(LISTS.items(), "")
    with pytest.raises(SegbenchError, match="test and more share 2 of 3 images, first y, x: a score"):
        refuse_shared([*LISTS.items(), ("more", ("y", "q", "x"))], "")


def test_a_release_is_found_in_a_folder_or_directly_inside_it(tmp_path):
    assert find_release(tmp_path / "none", "data/images") is None
    (tmp_path / "release" / "data" / "images").mkdir(parents=True)
    for root in (tmp_path, tmp_path / "release"):
        assert find_release(root, "data/images") == tmp_path / "release"
    assert find_release(tmp_path, "images") is None


def test_digests_tell_splits_apart():
    assert digest(["a", "b"]) != digest(["ab"]) != digest(["b", "a"])
    assert digest(["a", "b"]) == hashlib.sha256(b"a\nb\n").hexdigest()


def test_numbers_as_runs():
    assert ranges([]) == "" and ranges([4]) == "4"
    assert ranges([0, 1, 2, 3, 7, 9, 10]) == "0-3 and 7 and 9-10"
