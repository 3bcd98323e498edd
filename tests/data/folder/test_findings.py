from tests.fixtures.masks import classes_of, page

from segbench.data.folder.facts import ImageFacts
from segbench.data.folder.findings import findings


def noise(dtype="uint8"):
    return ImageFacts(1, 10, dtype, ((30, 100),) if dtype == "uint8" else ((3.0, 10.0),))


def flat(dtype="uint8"):
    return ImageFacts(1, 10, dtype, ((30, 90),) if dtype == "uint8" else ((3.0, 0.0),))


def told(masks, splits, images=None, ignore=None):
    images = images or [noise()] * len(masks)
    classes, by_name = classes_of(*masks, ignore=ignore), {f"{k}.png": (each,) for k, each in enumerate(images)}
    counts = {(f"{k}.png", 0): classes.count(each) for k, each in enumerate(masks)}
    places = {split: [(f"{k}.png", 0) for k in numbers] for split, numbers in splits.items()}
    return list(findings(by_name, counts, places, classes.names))


BOTH = page({0: 5, 1: 5})


def test_nothing_to_tell():
    assert told([BOTH] * 4, {"train": [0, 1], "val": [2], "test": [3]}) == []


def test_a_split_without_a_label():
    (sentence,) = told([BOTH, BOTH, page({255: 10})], {"train": [0, 1], "val": [2]}, ignore=255)
    assert sentence.startswith("val has no labelled pixel, all of it is void: no score, and no best checkpoint")


def test_constant_images():
    images = [noise(), flat(), flat("float32"), noise("float32")]
    (sentence,) = told([BOTH] * 4, {"train": [0, 1, 2, 3]}, images)
    assert sentence == "2 images are constant, every pixel the same: 1.png, 2.png"


def test_a_class_of_one_image_and_one_that_train_lacks():
    masks = [BOTH, BOTH, page({0: 5, 2: 5, 3: 1}), page({0: 5, 3: 5})]
    assert told(masks, {"train": [0, 1], "val": [2], "test": [3]}) == [
        "2 is in one image only, 2.png (val)",
        "3 is in 2 images, and in none of train",
    ]
