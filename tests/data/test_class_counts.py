import numpy as np
import pytest
from tests.fixtures.numbered import Numbered

from segbench.data.class_counts import absent, balanced_weights, class_counts, of_classes
from segbench.errors import SegbenchError
from segbench.spec import HeadSpec

HEAD = HeadSpec(("sky", "car"), ((0, 0, 0), (255, 255, 255)))


class Labelled:
    """Labels alone, as a data set gives them."""

    def __init__(self, *labels):
        self.labels = [np.array(label, np.uint8) for label in labels]
        self.ids = tuple(map(str, range(len(labels))))

    def __len__(self):
        return len(self.labels)

    def read(self, index):
        return type("Raw", (), {"labels": {"semantic": self.labels[index]}})()


def test_pixels_of_each_class_in_each_image_without_void():
    source = Labelled([[0, 0, 1], [255, 255, 255]], [[1, 1, 1], [1, 1, 1]])
    assert class_counts(source, "semantic", 2).tolist() == [[2, 1], [0, 6]]
    assert class_counts(Numbered(), "semantic", 3).tolist() == [[601, 599, 0], *[[600, 600, 0]] * 3]


def test_median_frequency_balancing_by_hand():
    # Class 0: 2 of the 3 labelled pixels of the only image that shows it. Class 1: 7 of 9. The third has no pixel.
    counts = np.array([[2, 1, 0], [0, 6, 0]])
    middle = (2 / 3 + 7 / 9) / 2
    assert balanced_weights(counts).tolist() == pytest.approx([middle / (2 / 3), middle / (7 / 9), 1])
    assert absent(counts, ("a", "b", "c")) == ["c"]


def test_numbers_by_name_in_the_order_of_the_labels():
    assert of_classes({"car": 3}, HEAD, "loss.class_weights", 1.0) == [1.0, 3.0]
    with pytest.raises(SegbenchError, match=r"data\.balance names bus\n.*sky, car\n.*correct data\.balance"):
        of_classes({"bus": 1, "car": 2}, HEAD, "data.balance", 0.0)
