import re

import pytest

from segbench.data.folder.pairs import find_pairs
from segbench.errors import SegbenchError


@pytest.fixture
def folders(tmp_path):
    """`folders(images, masks)` makes empty files of these names."""

    def make(images, masks):
        for folder, names in (("images", images), ("masks", masks)):
            (tmp_path / folder).mkdir(exist_ok=True)
            for name in names:
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return str(tmp_path / "images"), str(tmp_path / "masks")

    return make


def test_pairs_by_stem_whatever_the_suffix(folders):
    pairs = find_pairs(*folders(["b.JPG", "a.tif", "my cat.1.png"], ["a.png", "b.TIFF", "my cat.1.png"]))
    assert pairs.by_name == {
        "a": ("a.tif", "a.png"),
        "b": ("b.JPG", "b.TIFF"),
        "my cat.1": ("my cat.1.png", "my cat.1.png"),
    }
    assert list(pairs.by_name) == sorted(pairs.by_name) and pairs.left_out == ()


def test_sub_folders_and_files_of_other_kinds(folders):
    images, masks = folders(
        ["day/a.png", "night/a.png", "notes.txt", ".hidden.png", ".cache/a.png"], ["day/a.png", "night/a.png"]
    )
    assert list(find_pairs(images, masks).by_name) == ["day/a", "night/a"]


def test_masks_inside_the_folder_of_images_are_no_images(folders):
    images, _ = folders(["a.png", "masks/a.png"], [])
    assert list(find_pairs(images, f"{images}/masks").by_name) == ["a"]


def test_links_are_followed_once_and_a_link_to_the_masks_holds_no_images(folders, tmp_path):
    images, masks = folders(["a.png", "elsewhere/b.png"], ["a.png", "b.png", "linked/c.png"])
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "c.png").touch()
    (tmp_path / "masks" / "elsewhere").mkdir()
    (tmp_path / "masks" / "b.png").rename(tmp_path / "masks" / "elsewhere" / "b.png")
    for name, target in (("linked", "far"), ("masks", "masks"), ("round", "images")):
        (tmp_path / "images" / name).symlink_to(tmp_path / target)
    assert list(find_pairs(images, masks).by_name) == ["a", "elsewhere/b", "linked/c"]


def test_an_ending_of_the_masks(folders):
    images, masks = folders(["a.jpg", "b.jpg"], ["a_mask.png", "b_mask.png"])
    guessed, given = find_pairs(images, masks), find_pairs(images, masks, "_mask")
    assert guessed.by_name == given.by_name == {"a": ("a.jpg", "a_mask.png"), "b": ("b.jpg", "b_mask.png")}
    assert (str(guessed.pairing), guessed.guessed, given.guessed) == ("* -> *_mask", True, False)
    with pytest.raises(SegbenchError, match=r"data\.mask_suffix=_mask and data\.pairing=_m\*"):
        find_pairs(images, masks, "_mask", pairing="_m*")


def test_images_and_masks_in_one_folder(folders):
    images, _ = folders(["a.jpg", "a_mask.png", "b.jpg", "b_mask.png"], [])
    both = [("a.jpg", "a_mask.png"), ("b.jpg", "b_mask.png")]
    assert list(find_pairs(images, f"{images}/../images").by_name.values()) == both
    assert list(find_pairs(images, images, "_mask").by_name.values()) == both


def test_one_folder_whose_names_do_not_tell_masks(folders):
    images, _ = folders(["a.png", "b.png"], [])
    with pytest.raises(SegbenchError, match=r"are the same folder .*images with a\.png, b\.png\n"):
        find_pairs(images, images)


def test_names_that_pair_in_two_ways_are_refused(folders):
    images, masks = folders(["a-1.png", "a-1-b2.png"], ["m-1.png", "m-b2.png"])
    with pytest.raises(SegbenchError, match=r"in several ways: .* or (.|\n)*choose it: data\.pairing='"):
        find_pairs(images, masks)


def test_names_that_pair_nothing(folders):
    images, masks = folders(["cat.png", "dog.png"], ["x.png", "y.png"])
    with pytest.raises(SegbenchError, match=r"no image has a mask of its name: images cat\.png, dog\.png; masks x"):
        find_pairs(images, masks)
    with pytest.raises(SegbenchError, match=r"no image has a mask by data\.pairing=\*_a -> \*_b: images cat"):
        find_pairs(images, masks, pairing="*_a -> *_b")


def test_what_a_guess_leaves_alone_is_told_with_the_guess(folders):
    images, masks = folders([f"{k}_img.png" for k in range(9)], [*(f"{k}_lab.png" for k in range(8)), "notes.png"])
    with pytest.raises(SegbenchError, match=r"1 of 9 images .* no mask: 8_img\.png by the pairing \*_img -> \*_lab"):
        find_pairs(images, masks)
    pairs = find_pairs(images, masks, partial=True)
    assert len(pairs.by_name) == 8 and next(iter(pairs.by_name.values())) == ("0_img.png", "0_lab.png")
    told = "\n".join(pairs.left_out)
    assert "1 whose names do not fit the pairing *_img -> *_lab: notes.png" in told and "8_img.png" in told


def test_masks_that_do_not_fit_a_given_suffix_are_counted(folders):
    images, masks = folders(["a.png"], ["a_mask.png", "b.png"])
    (told,) = find_pairs(images, masks, "_mask").left_out
    assert told == f"not used in {masks}: 1 whose names do not fit the pairing * -> *_mask: b.png"


def test_everything_that_is_not_used_is_counted(folders):
    images, masks = folders(["a.png", "b.xyz", ".a.png"], ["a.png", "a.txt"])
    assert find_pairs(images, masks).left_out == (
        f"not used in {images}: 1 that are hidden: .a.png",
        f"not used in {images}: 1 of a kind that is not read: 1 .xyz (b.xyz)",
        f"not used in {masks}: 1 of a kind that is not read: 1 .txt (a.txt)",
    )


def test_another_case(folders):
    images, masks = folders(["Im1.png", "Im10.png", "b.png"], ["im1.png", "im10.png", "b.png"])
    pairs = find_pairs(images, masks)
    assert list(pairs.by_name.values()) == [("Im1.png", "im1.png"), ("Im10.png", "im10.png"), ("b.png", "b.png")]
    assert pairs.left_out == ("2 pairs differ in upper and lower case",)


def test_two_files(folders):
    images, masks = folders(["volume.tif"], ["labels.tif"])
    pairs = find_pairs(f"{images}/volume.tif", f"{masks}/labels.tif")
    assert pairs.by_name == {"volume": ("volume.tif", "labels.tif")}
    with pytest.raises(SegbenchError, match="a file and a folder"):
        find_pairs(f"{images}/volume.tif", masks)


def test_images_without_masks_and_the_reverse_are_listed(folders):
    images, masks = folders(["a.png", "b.png", "c.png"], ["b.png", *(f"x{k:02d}.png" for k in range(12))])
    found = (
        rf"2 of 3 images in {re.escape(images)} have no mask: a\.png, c\.png; "
        rf"12 of 13 masks in {re.escape(masks)} have no image: x00\.png, .*x09\.png and 2 more\n"
        r"(.|\n)*data\.partial=true"
    )
    with pytest.raises(SegbenchError, match=found):
        find_pairs(images, masks)
    pairs = find_pairs(images, masks, partial=True)
    assert list(pairs.by_name) == ["b"] and len(pairs.left_out) == 2


def test_two_files_of_one_name(folders):
    images, masks = folders(["a.png", "a.jpg", "b.png"], ["a.png", "b.png"])
    with pytest.raises(SegbenchError, match=r"\(data\.images\) has several files with one name: a\.jpg and a\.png\n"):
        find_pairs(images, masks)


@pytest.mark.parametrize(
    ("names", "found"),
    [([], "no image in .*, which is empty"), (["readme.md"], "no image in .*; it contains readme.md")],
)
def test_empty_folders(folders, names, found):
    images, masks = folders(names, ["a.png"])
    with pytest.raises(SegbenchError, match=found):
        find_pairs(images, masks)
    with pytest.raises(SegbenchError, match=r"no image in .* \(data\.masks\)"):
        find_pairs(masks, images)


def test_folders_that_are_not_there(folders):
    images, _ = folders(["a.png"], [])
    with pytest.raises(SegbenchError, match=r"no folder nowhere \(data\.images\)"):
        find_pairs("nowhere", images)
    with pytest.raises(SegbenchError, match=r"no folder nowhere \(data\.masks\)"):
        find_pairs(images, "nowhere")
