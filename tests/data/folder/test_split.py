import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.data.folder.split import by_folders, by_folds, by_lists, by_shares, grouped, page_id
from segbench.errors import SegbenchError


def files(count, pages=1):
    return {f"image {k:03d}": pages for k in range(count)}


@settings(deadline=None)
@given(st.integers(3, 60), st.integers(1, 3), st.floats(0, 0.49), st.floats(0, 0.49), st.integers(0, 5))
def test_every_page_is_in_one_split_and_files_stay_whole(count, pages, val, test, seed):
    splits, _ = by_shares(files(count, pages), val, test, seed)
    drawn = [page for each in splits.values() for page in each]
    assert sorted(drawn) == sorted((name, page) for name in files(count) for page in range(pages))
    of_split = {split: {name for name, _ in each} for split, each in splits.items()}
    assert sum(map(len, of_split.values())) == count
    assert ("val" in splits) == (val > 0) and ("test" in splits) == (test > 0) and splits["train"]


def test_shares_by_hand():
    splits, how = by_shares(files(20), 0.15, 0.25, seed=3)
    assert {split: len(pages) for split, pages in splits.items()} == {"train": 12, "val": 3, "test": 5}
    assert how == "by whole files, data.seed=3"
    assert by_shares(files(3), 0.15, 0.15, 0)[0].keys() == {"train", "val", "test"}


def test_the_seed_and_the_names_decide_and_nothing_else():
    def scored(pages, seed):
        return {name for name, _ in by_shares(pages, 0.2, 0.2, seed)[0]["test"]}

    assert scored(files(20), 0) == scored(dict(reversed(files(20).items())), 0)
    assert scored(files(20), 0) != scored(files(20), 1)


@settings(deadline=None)
@given(st.integers(10, 40), st.integers(0, 20))
def test_a_new_file_moves_few_others(count, seed):
    before, after = (by_shares(files(n), 0.2, 0.2, seed)[0] for n in (count, count + 1))
    moved = [page for page in before["train"] if page not in after["train"]]
    assert len(moved) <= 2


def test_one_stack_is_cut_into_blocks():
    splits, how = by_shares({"stack": 30}, 0.1, 0.2, 0)
    assert [page for _, page in splits["train"]] == list(range(21))
    assert [page for _, page in splits["val"]] == [21, 22, 23]
    assert [page for _, page in splits["test"]] == [24, 25, 26, 27, 28, 29]
    assert how == "by contiguous blocks of pages, the last ones test"
    two, _ = by_shares({"a": 10, "b": 4}, 0.1, 0.1, 0)
    assert two["test"] == [("a", 9), ("b", 3)] and two["val"] == [("a", 8), ("b", 2)]


def test_two_stacks_serve_two_splits_whole():
    splits, _ = by_shares({"a": 10, "b": 4}, 0.2, 0, 0)
    assert sorted((split, len({name for name, _ in pages})) for split, pages in splits.items()) == [
        ("train", 1),
        ("val", 1),
    ]


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.1), (0.5, 0.5), (1.5, 0), (float("nan"), 0)])
def test_shares_that_are_none_are_refused(val, test):
    with pytest.raises(SegbenchError, match=r"data\.val=.* and data\.test=.*\n.*sum to less than 1"):
        by_shares(files(9), val, test, 0)


def test_too_few_images_are_refused():
    with pytest.raises(
        SegbenchError, match=r"2 pairs of images and masks \(.*of 1 page\) for 3 splits(.|\n)*data.test=0"
    ):
        by_shares(files(2), 0.15, 0.15, 0)
    assert by_shares(files(1), 0, 0, 0)[0] == {"train": [("image 000", 0)]}


@pytest.fixture
def lists(tmp_path):
    (tmp_path / "train.txt").write_text("image 000\nimage 001.png\n\n")
    (tmp_path / "test.txt").write_text("image 002\n")
    return tmp_path


def test_lists_of_a_folder(lists):
    splits, how = by_lists(files(5, pages=2), str(lists))
    assert splits == {
        "train": [("image 000", 0), ("image 000", 1), ("image 001", 0), ("image 001", 1)],
        "test": [("image 002", 0), ("image 002", 1)],
    }
    assert how == f"by {lists / 'train.txt'}, {lists / 'test.txt'}"


def test_lists_by_split(lists):
    given = {"train": str(lists / "test.txt"), "val": str(lists / "train.txt"), "test": None}
    assert {split: len(pages) for split, pages in by_lists(files(5), given)[0].items()} == {"train": 1, "val": 2}


def test_pages_of_a_stack_in_lists(lists):
    (lists / "train.txt").write_text("stack-0000\nstack-0002\nimage 000\n")
    (lists / "test.txt").write_text("stack-0001\n")
    splits, _ = by_lists({"stack": 3, **files(2)}, str(lists))
    assert splits == {"train": [("stack", 0), ("stack", 2), ("image 000", 0)], "test": [("stack", 1)]}
    (lists / "test.txt").write_text("stack\n")
    with pytest.raises(SegbenchError, match="share 2 of 3 images, first stack-0000, stack-0002"):
        by_lists({"stack": 3, **files(2)}, str(lists))


def test_the_splits_of_another_run(lists):
    pages = {"stack": 4, **files(6)}
    before, _ = by_shares(pages, 0.2, 0.2, 0)
    ids = {split: [page_id(name, page, pages[name]) for name, page in each] for split, each in before.items()}
    (lists / "splits.json").write_text(json.dumps(ids))
    splits, how = by_lists({**pages, "new": 1}, str(lists / "splits.json"))
    assert splits == before and how.startswith(f"by train of {lists / 'splits.json'}, val of")
    for content in ("", "[]", '{"test": ["stack"]}', '{"train": 3}'):
        (lists / "splits.json").write_text(content)
        with pytest.raises(SegbenchError, match=r"splits\.json (is damaged|has no images)"):
            by_lists(pages, str(lists / "splits.json"))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("nowhere", r"data\.lists=nowhere without train\.txt"),
        ({"val": "{}/test.txt"}, r"data\.lists without train"),
        ({"train": "{}/gone.txt"}, r"no file .*gone\.txt \(data\.lists, train\)"),
        ({"train": "{}/test.txt", "trian": "x"}, r"data\.lists has trian"),
        ({"train": "{}/other.txt"}, r"other\.txt names 1 images that are not there: image 9"),
        ({"train": "{}/test.txt", "val": "{}/same.txt"}, r"share 1 of 1 images, first image 002"),
    ],
)
def test_lists_that_do_not_serve(lists, given, found):
    (lists / "other.txt").write_text("image 9\n")
    (lists / "same.txt").write_text("image 002.tif\n")
    given = given if isinstance(given, str) else {key: path.format(lists) for key, path in given.items()}
    with pytest.raises(SegbenchError, match=found):
        by_lists(files(5), given)


def names_of(splits):
    return {split: {name for name, _ in each} for split, each in splits.items()}


SCENES = {f"scene{scene}_{tile}": 1 for scene in range(6) for tile in range(4)}


@settings(deadline=None)
@given(st.integers(0, 20), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_no_group_is_in_two_splits(seed, val, test):
    splits, how = by_shares(SCENES, val, test, seed, group="[^_]+")
    scenes = {split: {name.split("_")[0] for name in names} for split, names in names_of(splits).items()}
    assert sum(map(len, scenes.values())) == 6 and len(set.union(*scenes.values())) == 6
    assert sum(map(len, splits.values())) == len(SCENES)
    assert how == f"by whole groups (6, data.group=[^_]+), data.seed={seed}"


@pytest.mark.parametrize(
    ("group", "groups"),
    [
        (None, 24),
        ("[^_]+", 6),
        (r".*_(\d)", 4),
        ("folder", 1),
        (r"scene(\d)_(\d)", 24),
    ],
)
def test_groups_of_names(group, groups):
    assert len(grouped(list(SCENES), group)) == groups


def test_folders_are_groups():
    assert grouped(["p1/a", "p1/x/b", "p2/a", "c"], "folder") == {
        "p1/": ["p1/a"],
        "p1/x/": ["p1/x/b"],
        "p2/": ["p2/a"],
        "": ["c"],
    }


@pytest.mark.parametrize(
    ("group", "found"), [("(", r"data\.group=\(: "), ("scene[0-4]", r"matches 4 of 24 names not: scene5_0, ")]
)
def test_groups_that_are_none(group, found):
    with pytest.raises(SegbenchError, match=found):
        by_shares(SCENES, 0.2, 0.2, 0, group)


def test_fewer_groups_than_splits():
    with pytest.raises(SegbenchError, match=r"1 groups by data\.group=scene for 3 splits"):
        by_shares(SCENES, 0.2, 0.2, 0, "scene")


@settings(deadline=None)
@given(st.integers(2, 6), st.sampled_from([0, 0.1, 0.3]), st.sampled_from([None, "[^_]+"]), st.integers(0, 3))
def test_every_file_selects_in_one_fold_and_is_tested_in_all_or_none(folds, test, group, seed):
    if test and group and folds == 6:
        folds = 5
    every = [names_of(by_folds(SCENES, folds, fold, test, seed, group)[0]) for fold in range(folds)]
    tests = [each.get("test", set()) for each in every]
    assert all(each == tests[0] for each in tests) and bool(tests[0]) == bool(test)
    selected = [name for each in every for name in each["val"]]
    assert sorted(selected) == sorted(SCENES.keys() - tests[0])
    for each in every:
        assert each["train"] | each["val"] | tests[0] == SCENES.keys() and not each["train"] & each["val"]
        if group:
            assert not {n.split("_")[0] for n in each["train"]} & {n.split("_")[0] for n in each["val"] | tests[0]}


def test_folds_of_a_stack_are_blocks():
    splits, how = by_folds({"s": 10}, 3, 1, 0.1, 0)
    assert [page for _, page in splits["val"]] == [3, 4, 5] and [page for _, page in splits["test"]] == [9]
    assert [page for _, page in splits["train"]] == [0, 1, 2, 6, 7, 8]
    assert how == "fold 1 of 3 by contiguous blocks of pages"


@pytest.mark.parametrize(("folds", "fold"), [(1, 0), (3, 3), (3, -1), (3, None)])
def test_folds_that_are_none(folds, fold):
    with pytest.raises(SegbenchError, match=rf"data\.folds={folds} and data\.fold={fold}\n"):
        by_folds(SCENES, folds, fold, 0, 0)


def test_folders_are_the_split():
    pages = {"train/a": 1, "train/b": 2, "Validation/c": 1, "x/test/d": 1, "e": 1}
    splits, how = by_folders(pages, 0.5, 0)
    assert splits == {
        "train": [("train/a", 0), ("train/b", 0), ("train/b", 1)],
        "val": [("Validation/c", 0)],
        "test": [("x/test/d", 0)],
    }
    assert how == "by folders"


def test_without_a_folder_to_select_a_share_of_train_does():
    splits, how = by_folders({f"train/{k}": 1 for k in range(10)} | {"test/a": 1}, 0.2, 0)
    assert {split: len(each) for split, each in splits.items()} == {"train": 8, "val": 2, "test": 1}
    assert how == "by folders; val 0.2 of train by whole files, data.seed=0"
    assert by_folders({"train/a": 1, "test/a": 1}, 0, 0)[0].keys() == {"train", "test"}
    # A single stack is cut into blocks.
    splits, how = by_folders({"train/a": 10, "test/a": 4}, 0.2, 0)
    assert splits["train"] == [("train/a", page) for page in range(8)]
    assert splits["val"] == [("train/a", 8), ("train/a", 9)] and len(splits["test"]) == 4
    assert "blocks" in how


def test_no_folder_to_train_on():
    with pytest.raises(SegbenchError, match=r"no image in a folder train; 1 of 2 in val or test"):
        by_folders({"val/a": 1, "b": 1}, 0.2, 0)
