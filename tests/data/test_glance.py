import numpy as np
import pytest

from segbench.data.glance import glance
from segbench.data.raw import RawImage


class Drawn:
    """Images by a function of the number."""

    def __init__(self, count, image, label):
        self.ids, self._image, self._label = tuple(map(str, range(count))), image, label

    def __len__(self):
        return len(self.ids)

    def read(self, index):
        return RawImage({"image": self._image(index)}, {"semantic": self._label(index)}, self.ids[index])


def grey(number):
    return np.random.default_rng(number).integers(0, 256, (20, 30), dtype=np.uint8)


def sky(number):
    """The upper rows, more or fewer of them."""
    return (np.arange(20)[:, None] >= 6 + number % 7).astype(np.uint8).repeat(30, 1)


def blobs(number):
    return np.random.default_rng(number).integers(0, 2, (20, 30), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "label", "chosen"),
    [
        (lambda k: np.stack([grey(k), grey(k + 1), grey(k + 2)], 2), blobs, "hflip"),
        (lambda k: np.stack([grey(k)] * 3, 2), blobs, "flips"),
        (grey, blobs, "flips"),
        (grey, sky, "hflip"),
        (lambda k: np.stack([grey(k)] * 2, 2), blobs, "flips"),
    ],
)
def test_the_rule(image, label, chosen):
    assert glance(Drawn(12, image, label), "semantic").augmentation[0] == chosen


def test_a_few_images_show_no_above_and_below():
    assert glance(Drawn(9, grey, sky), "semantic").upright == ()
    assert glance(Drawn(10, grey, sky), "semantic").upright == (0, 1)


def test_the_middle_of_the_smaller_sides():
    images = Drawn(5, lambda k: np.zeros((20 + 10 * k, 50), np.uint8), lambda k: np.zeros((20 + 10 * k, 50), np.uint8))
    assert glance(images, "semantic").side == 40
