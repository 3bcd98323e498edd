import numpy as np
import pytest

from segbench.runs.partial import Partial, counted_ids


@pytest.mark.parametrize(
    ("visits", "of", "found"),
    [
        ([1, 1, 1], 3, None),
        ([], 0, None),
        ([1, 1], 3, Partial(2, 3)),
        ([], 3, Partial(0, 3)),
        ([1, 2, 1], 3, Partial(3, 3, 1)),
        ([2, 3], 3, Partial(2, 3, 2)),
    ],
)
def test_a_split_is_whole_if_each_image_was_counted_once(visits, of, found):
    assert Partial.of_visits(visits, of) == found


def test_names_tell_it_too():
    assert Partial.of_ids(["b", "a"], ["a", "b"]) is None
    assert Partial.of_ids(["b"], ["a", "b", "c"]) == Partial(1, 3)
    # What is in no split counts for nothing.
    assert Partial.of_ids(["b", "x", "y"], ["a", "b", "c"]) == Partial(1, 3)


def test_it_is_recorded_and_read_back():
    assert Partial(2, 231).record() == {"counted": 2, "of": 231}
    for partial in (Partial(2, 231), Partial(3, 3, 1)):
        assert Partial.of_record(partial.record()) == partial
    assert Partial.of_record(None) is None


def test_it_is_printed():
    assert str(Partial(2, 231)) == "2 of 231 images"
    assert str(Partial(3, 3, 1)) == "3 of 3 images, 1 of them more than once"


def test_images_are_read_from_the_counts(tmp_path):
    path = tmp_path / "per_image.npz"
    assert counted_ids(path) is None
    np.savez(path, ids=np.array(["a", "b"]), split=np.array("val"))
    assert counted_ids(path) == ("val", ["a", "b"])
    path.write_bytes(b"no archive")
    assert counted_ids(path) is None
