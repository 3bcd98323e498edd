import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.data.folder.pairing import Pairing, guess, guess_within, match
from segbench.errors import SegbenchError


def paired(rule, images, masks):
    return dict(match(rule, images, masks).pairs)


@pytest.mark.parametrize(
    ("text", "image", "mask"),
    [
        ("*_training -> *_manual1", "night/21_training", "night/21_manual1"),
        ("mask_*", "a", "mask_a"),
        ("*_0000->*", "im_0000", "im"),
        ("*/images/* -> */masks/*", "train/images/a", "train/masks/a"),
        ("a*b* -> c*d*", "a1b2", "c1d2"),
    ],
)
def test_a_pattern_pairs(text, image, mask):
    rule = Pairing.of(text)
    assert paired(rule, [image], [mask]) == {image: mask}
    assert Pairing.of(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "image", "mask"),
    [("*_a -> *_b", "day/1_a", "night/1_b"), ("*_a -> *_b", "1_a", "10_b"), ("a*b* -> c*d*", "a1b2", "c2d1")],
)
def test_a_pattern_pairs_nothing_else(text, image, mask):
    assert paired(Pairing.of(text), [image], [mask]) == {}


@pytest.mark.parametrize("text", ["", "mask", "* -> mask", "*_a -> *_*", "->"])
def test_a_pattern_that_is_none(text):
    with pytest.raises(SegbenchError, match=r"data\.pairing=.*\n.*an asterisk for what both share"):
        Pairing.of(text)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["21_training", "22_training", "23_training"], ["21_manual1", "22_manual1", "23_manual1"]),
        (["21_training"], ["21_manual1"]),
        (["im_0000", "im2_0000", "other_0000"], ["im", "im2", "other"]),
        (["im1", "im10", "im11", "im2"], ["mask_im1", "mask_im10", "mask_im11", "mask_im2"]),
        (["im1", "im10", "im11", "im2"], ["im1_mask", "im10_mask", "im11_mask", "im2_mask"]),
        (["image-1", "image-10", "image-100"], ["label-1", "label-10", "label-100"]),
        (["t000", "t001", "t002"], ["man_seg000", "man_seg001", "man_seg002"]),
        (["day/a_x", "night/a_x"], ["day/a_y", "night/a_y"]),
        (["IMG_1", "IMG_2"], ["img_1_mask", "img_2_mask"]),
    ],
)
def test_what_the_names_suggest(images, masks):
    (rule,) = guess(images, masks)
    assert paired(rule, images, masks) == dict(zip(images, masks, strict=True))


@pytest.mark.parametrize(
    ("images", "masks"), [(["cat", "dog"], ["x", "y"]), (["a_b"], ["c_d"]), (["im1", "im2"], ["im10", "im20"])]
)
def test_names_without_a_rule(images, masks):
    assert guess(images, masks) == []


def test_two_rules_that_pair_differently_are_both_given():
    images, masks = ["a-1", "a-1-b2"], ["m-1", "m-b2"]
    assert [paired(rule, images, masks) for rule in guess(images, masks)] == [{"a-1": "m-1"}, {"a-1-b2": "m-b2"}]


@given(
    keys=st.lists(st.integers(0, 200), min_size=3, max_size=30, unique=True),
    before=st.sampled_from(["", "im", "scan_", "A-"]),
    after=st.sampled_from(["", "_img", ".raw"]),
    mask_before=st.sampled_from(["m", "mask_"]),
    mask_after=st.sampled_from(["", "_seg", "-gt"]),
)
def test_a_guess_never_pairs_two_numbers(keys, before, after, mask_before, mask_after):
    images, masks = ([f"{a}{key}{b}" for key in keys] for a, b in ((before, after), (mask_before, mask_after)))
    for rule in guess(images, masks):
        assert paired(rule, images, masks) == dict(zip(images, masks, strict=True))


def test_case_counts_only_where_names_do_not_pair_exactly_or_are_ambiguous():
    found = match(Pairing(), ["a", "B", "c"], ["A", "a", "b"])
    assert (dict(found.pairs), found.other_case) == ({"a": "a", "B": "b"}, 1)
    assert match(Pairing(), ["X", "x"], ["x"]).pairs == {"x": "x"}
    assert match(Pairing(), ["a", "B"], ["a", "b"], any_case=False).pairs == {"a": "a"}
    assert match(Pairing(), ["A", "B"], ["a", "b"], any_case=False).other_case == 2


@pytest.mark.parametrize(
    ("stems", "rule"),
    [
        (["a", "a_mask", "b", "b_mask"], "* -> *_mask"),
        (["im1", "im10", "mask_im1", "mask_im10"], "* -> mask_*"),
        (["cell_01", "cell_01_masks"], "* -> *_masks"),
        (["train/images/a", "train/masks/a", "val/images/b", "val/masks/b"], "*/images/* -> */masks/*"),
        (["images/a", "labels/a"], "images/* -> labels/*"),
    ],
)
def test_one_folder_for_both(stems, rule):
    (found,) = guess_within(stems)
    assert str(found) == rule


@pytest.mark.parametrize("stems", [["a", "b", "c"], ["a", "a_1", "a_2"], ["a", "a_mask", "b", "c", "d", "e"]])
def test_one_folder_that_does_not_tell(stems):
    assert len(guess_within(stems)) != 1


def test_sequences_of_the_cell_tracking_challenge_pair_with_their_segmentations():
    names = [f"t{k:03d}" for k in range(4)]
    truth = [f"SEG/man_seg{k:03d}" for k in (0, 2)] + [f"TRA/man_track{k:03d}" for k in range(4)]
    assert guess(names, truth) == [Pairing("t*", "SEG/man_seg*")]
    whole = [f"01/{name}" for name in names] + [f"01_GT/{name}" for name in truth]
    assert guess_within(whole) == [Pairing("*/t*", "*_GT/SEG/man_seg*")]
    silver = [f"01_ST/SEG/man_seg{k:03d}" for k in range(4)]
    assert guess_within([*whole, *silver]) == [
        Pairing("*/t*", "*_GT/SEG/man_seg*"),
        Pairing("*/t*", "*_ST/SEG/man_seg*"),
    ]
    assert match(Pairing("*/t*", "*_GT/SEG/man_seg*"), whole, whole).pairs == {
        "01/t000": "01_GT/SEG/man_seg000",
        "01/t002": "01_GT/SEG/man_seg002",
    }
