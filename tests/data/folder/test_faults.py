import pytest
from tests.fixtures.masks import classes_of, page

from segbench.data.folder.facts import ImageFacts, MaskFacts
from segbench.data.folder.faults import refuse_mixed, refuse_other_sizes, refuse_unusable
from segbench.errors import SegbenchError


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
    assert note.startswith("58 of 60 values together have 0.0058% of the pixels")


def test_a_mask_of_two_values_that_was_enlarged_by_interpolation_is_no_photograph():
    smoothed = page({0: 300} | dict.fromkeys(range(1, 100), 2) | {255: 120}, runs=400)
    told = r"masks/1\.png has 99 values between 0 and 255, on 32\.0% of its pixels, as have 1 of 2 masks: .*smoothed"
    with pytest.raises(SegbenchError, match=told):
        classes_of(page({0: 5, 1: 3}), smoothed)
    photo = page({k: 4 for k in range(200)}, runs=700)
    with pytest.raises(SegbenchError, match="2 of 2 masks have too many values: probably photographs"):
        classes_of(smoothed, photo)


def test_more_values_than_are_kept_are_refused_whatever_is_asked_for():
    many = MaskFacts(1000, 1000, "ids", 70000, 90000, (), (), ())
    with pytest.raises(SegbenchError, match=r"masks/0\.png has more than 65536 different values"):
        classes_of(many, given={"background": 0, "object": "rest"})


def image(height=12, width=16, dtype="uint8", channels=3):
    return ImageFacts(height, width, dtype, ((0, 0),) * channels)


def mask(height=12, width=16):
    return MaskFacts(height, width, "ids", 1, 0, (0,), (height * width,), ())


def test_masks_of_another_size_are_listed():
    images = {name: (image(),) for name in "abc"}
    masks = {"a": (mask(),), "b": (mask(12, 15),), "c": (mask(),)}
    found = r"1 masks differ from .*\n    b: image 12 x 16, mask 12 x 15\n(.|\n)*pairs$"
    with pytest.raises(SegbenchError, match=found):
        refuse_other_sizes(images, masks, "ignore")
    with pytest.raises(SegbenchError, match=r"c: .*mask 16 x 12; rotated by 90 degrees\n(.|\n)*EXIF rotation"):
        refuse_other_sizes(images, masks | {"c": (mask(16, 12),)}, "ignore")


def test_stacks_of_another_length_are_listed():
    images = {"a": (image(),) * 3, "b": (image(),) * 2}
    with pytest.raises(
        SegbenchError, match=r"2 masks .*\n    a: 3 images, 2 masks\n    b, page 1: image 12 x 16, mask 9 x"
    ):
        refuse_other_sizes(images, {"a": (mask(),) * 2, "b": (mask(), mask(9, 9))}, "ignore")


def test_mixed_channels_are_refused_and_the_few_named():
    found = r"images of different numbers of channels: 5 of 3, 1 of 1 \(02\.png\)\n.*one number of channels\n.*convert"
    with pytest.raises(SegbenchError, match=found):
        refuse_mixed({f"0{k}.png": (image(channels=1 if k == 2 else 3),) for k in range(6)})


def test_mixed_depths_are_refused():
    found = r"different types of values: 5 of uint8, 1 of uint16 \(02\.png\)\n.*one depth"
    with pytest.raises(SegbenchError, match=found):
        refuse_mixed({f"0{k}.png": (image(dtype="uint16" if k == 2 else "uint8"),) for k in range(6)})


def test_unusable_files_keep_their_advice_if_it_is_one():
    faults = [SegbenchError(f"{k}.png is broken", "a whole file", "restore it") for k in range(12)]
    refuse_unusable([])
    with pytest.raises(
        SegbenchError, match=r"^12 files cannot be used:\n    0.png is .*(.|\n)*\.\.\. and 2 more\n"
    ) as caught:
        refuse_unusable(faults)
    assert (caught.value.expected, caught.value.action) == ("a whole file", "restore it")
    with pytest.raises(SegbenchError, match=r"whole image files, and masks in lossless formats\n.*repair or remove"):
        refuse_unusable([*faults, SegbenchError("m.jpg is a JPEG", "PNG", "export it")])
