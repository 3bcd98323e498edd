import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from segbench.data.cells import near_others
from segbench.data.weight_map import WeightMapCache, border_reach, class_balance, weight_map
from segbench.errors import SegbenchError


def brute_border(instances, w0, sigma):
    """The formula with one exact distance transform a cell, over the whole image, without any cut-off."""
    cells = np.unique(instances[instances > 0])
    if len(cells) < 2:
        return np.zeros(instances.shape)
    distances = np.sort([distance_transform_edt(instances != cell) for cell in cells], axis=0)
    return np.where(instances > 0, 0, w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2)))


def test_a_one_pixel_membrane_by_hand():
    # d1 = d2 = 1, so the term is 10 exp(-4 / 50).
    weight = weight_map(np.array([[1, 0, 2]], np.int32), balance="none")
    assert weight.dtype == np.float32
    assert weight[0].tolist() == pytest.approx([1, 1 + 10 * np.exp(-0.08), 1])


def test_balance_by_hand():
    # Three of four pixels are cell: 4 / (2 * 3) and 4 / (2 * 1), mean 1.
    weight = weight_map(np.array([[1, 1, 1, 0]], np.int32))
    assert weight[0].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert weight_map(np.array([[1, 0]], np.int32), balance=(3.0, 0.5))[0].tolist() == [0.5, 3.0]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6).filter(any))
def test_the_balance_has_mean_one_over_the_pixels(counts):
    balance = class_balance(counts)
    assert np.dot(balance, counts) == pytest.approx(sum(counts))
    shares = [weight * count for weight, count in zip(balance, counts, strict=True) if count]
    assert shares == pytest.approx([shares[0]] * len(shares))


def test_the_whole_data_sets_balance_is_the_papers():
    images = [np.array([[1, 0, 0, 2]], np.int32), np.array([[1, 1, 1, 1]], np.int32)]
    balance = class_balance([sum((i == 0).sum() for i in images), sum((i > 0).sum() for i in images)])
    assert balance == pytest.approx((8 / (2 * 2), 8 / (2 * 6)))
    assert weight_map(images[1], balance=balance)[0].tolist() == pytest.approx([2 / 3] * 4)


@settings(deadline=None, max_examples=100)
@given(
    arrays(np.int32, (11, 13), elements=st.sampled_from([0, 0, 0, 1, 2, 70000])),
    st.floats(0, 100),
    st.floats(0.3, 20),
)
def test_the_border_term_is_that_of_whole_image_transforms(instances, w0, sigma):
    found = weight_map(instances, w0, sigma, balance="none") - 1
    # 1e-6 for the cut-off, the rest for float32 around w0.
    assert np.abs(found - brute_border(instances, w0, sigma)).max() <= 1e-6 + 4e-7 * (1 + w0)


def drawn_cells(side, across):
    """The Voronoi cells of a jittered grid, one pixel carved between them."""
    rng = np.random.default_rng(0)
    centres_2N = (np.mgrid[:across, :across].reshape(2, -1) + rng.uniform(0.2, 0.8, (2, across**2))) * side / across
    markers = np.full((side, side), 255, np.uint8)
    markers[tuple(centres_2N.astype(int))] = 0
    cells = cv2.distanceTransformWithLabels(markers, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    return np.where(near_others(cells), 0, cells)


def test_drawn_cells_at_full_size_are_exact():
    instances = drawn_cells(side=160, across=5)
    assert instances.max() == 25
    found = weight_map(instances, balance="none") - 1
    assert np.abs(found - brute_border(instances, 10, 5)).max() < 3e-6
    # The gap of one or two pixels between neighbours carries nearly all of w0.
    assert found[instances == 0].mean() > 7


def test_the_reach_leaves_out_less_than_a_millionth():
    assert border_reach(10, 5) == pytest.approx(28.388, abs=1e-3)
    assert 10 * np.exp(-(border_reach(10, 5) ** 2) / 50) == pytest.approx(1e-6)
    assert border_reach(0, 5) == 0


@pytest.mark.parametrize("cell", [0, 1])
def test_none_or_one_cell_has_no_border_term(cell):
    instances = np.zeros((6, 6), np.int32)
    assert (weight_map(instances) == 1).all()
    instances[2:4, 2:4] = cell
    assert (weight_map(instances, balance="none") == 1).all()


def test_an_image_that_is_all_cell():
    assert (weight_map(np.ones((4, 4), np.int32)) == 1).all()


def test_void_weighs_nothing_and_is_not_counted():
    instances = np.array([[1, 0, 0, 0, 2, 0, 0, 0]], np.int32)
    void = np.array([[False, False, False, False, False, True, True, True]])
    weight = weight_map(instances, void_HW=void)
    assert (weight[void] == 0).all()
    assert (weight[:, :5] == weight_map(instances[:, :5])).all()


def test_thousands_of_cells():
    side = 512
    crowd = np.zeros((side, side), np.int32)
    crowd[::4, ::4] = np.arange((side // 4) ** 2).reshape(side // 4, -1) + 1
    assert crowd.max() == 16384
    weight = weight_map(crowd, balance="none")
    # Half way between two neighbours, d1 = d2 = 2.
    assert weight[4, 6] == pytest.approx(1 + 10 * np.exp(-16 / 50))


def test_ids_may_be_sparse_and_of_any_integer_type():
    instances = np.array([[3, 0, 2_000_000_000]])
    for dtype in (np.int32, np.int64, np.uint32):
        assert (weight_map(instances.astype(dtype)) == weight_map(np.array([[1, 0, 2]], np.int32))).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0}, "sigma=0"),
        ({"sigma": float("nan")}, "sigma=nan"),
        ({"w0": -1}, "w0=-1"),
        ({"balance": "median"}, "balance=median"),
        ({"balance": (1.0, 2.0, 3.0)}, "balance="),
        ({"instances_HW": np.zeros((2, 2, 2), np.int32)}, r"shape \(2, 2, 2\)"),
        ({"instances_HW": np.zeros((2, 2), np.float32)}, "type float32"),
        ({"instances_HW": np.array([[-1, 1]])}, "instance id of -1"),
        ({"instances_HW": np.array([[0, 2**31]])}, "instance id of 2147483648"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(SegbenchError, match=message):
        weight_map(**{"instances_HW": np.array([[1, 0, 2]], np.int32), **change})


INSTANCES = np.array([[1, 0, 2, 0], [1, 0, 0, 3]], np.int32)


def test_the_cache_serves_the_same_map(tmp_path):
    cache = WeightMapCache(tmp_path / "maps")
    first = cache(INSTANCES)
    assert cache(INSTANCES.copy()) is first
    assert (first == weight_map(INSTANCES)).all()
    assert not first.flags.writeable
    # Another process finds the file, whole.
    stored = list((tmp_path / "maps").iterdir())
    assert [path.suffix for path in stored] == [".npy"]
    sentinel = np.full(INSTANCES.shape, 7, np.float32)
    np.save(stored[0], sentinel)
    assert (WeightMapCache(tmp_path / "maps")(INSTANCES) == sentinel).all()


def test_the_cache_tells_content_and_parameters_apart(tmp_path):
    void = np.zeros(INSTANCES.shape, bool)
    WeightMapCache(tmp_path)(INSTANCES)
    WeightMapCache(tmp_path)(INSTANCES + 1)
    WeightMapCache(tmp_path)(INSTANCES.reshape(4, 2))
    WeightMapCache(tmp_path)(INSTANCES, void)
    WeightMapCache(tmp_path)(INSTANCES, ~void)
    WeightMapCache(tmp_path, w0=9)(INSTANCES)
    WeightMapCache(tmp_path, sigma=4)(INSTANCES)
    WeightMapCache(tmp_path, balance="none")(INSTANCES)
    WeightMapCache(tmp_path, balance=[1, 2])(INSTANCES)
    assert len(list(tmp_path.iterdir())) == 9
    WeightMapCache(tmp_path, w0=10, sigma=5, balance="image")(INSTANCES.astype(np.int64))
    assert len(list(tmp_path.iterdir())) == 9


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array"])
def test_a_broken_file_is_made_again(tmp_path, content):
    expected = WeightMapCache(tmp_path)(INSTANCES)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert (WeightMapCache(tmp_path)(INSTANCES) == expected).all()
    assert (np.load(path) == expected).all()


def test_memory_holds_the_last_used(monkeypatch):
    made = []
    monkeypatch.setattr(
        "segbench.data.weight_map.weight_map", lambda i, *_: made.append(int(i[0, 0])) or i.astype("f4")
    )
    cache = WeightMapCache(in_memory=2)
    for identity in (1, 2, 1, 3, 1, 2):
        cache(np.full((1, 1), identity, np.int32))
    assert made == [1, 2, 3, 2]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SegbenchError, match="weight maps cannot be written to"):
        WeightMapCache(tmp_path / "file" / "maps")(INSTANCES)
