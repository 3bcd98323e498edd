import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segbench.errors import SegbenchError
from segbench.inference.finishing import CubicFit, Finishing, disk, rises
from segbench.inference.stream import predict_image
from segbench.inference.windows import Window


def both(second_HW):
    second_HW = torch.as_tensor(np.asarray(second_HW, np.float32))
    return {"semantic": torch.stack([1 - second_HW, second_HW])}


def test_a_polynomial_through_four_points_by_hand():
    # At 0, 1/3, 2/3 and 1 the shares of cell pixels are 0, 7/27, 20/27 and 1: p = -2 x^3 + 3 x^2.
    fit = CubicFit()
    for x, cells in ((0, 0), (1 / 3, 7), (2 / 3, 20), (1, 27)):
        label = np.zeros((3, 9), np.uint8)
        label.flat[:cells] = 1
        fit.add(np.full((3, 9), x), label, void=255)
    assert fit.coefficients() == pytest.approx((0, 0, 3, -2), abs=1e-9)


def test_void_pixels_do_not_count():
    alone, beside = CubicFit(), CubicFit()
    x = np.linspace(0, 1, 12).reshape(3, 4)
    label = (x > 0.4).astype(np.uint8)
    alone.add(x, label, 255)
    beside.add(np.vstack([x, x]), np.vstack([label, np.full_like(label, 255)]), 255)
    assert alone.coefficients() == beside.coefficients()
    with pytest.raises(SegbenchError, match="no training pixel is labelled"):
        CubicFit().coefficients()


@given(st.lists(st.integers(0, 16), min_size=2, max_size=40), st.integers(0, 99))
def test_it_is_the_fit_of_least_squares(sixteenths, seed):
    x = np.array(sixteenths, np.float64) / 16
    label = np.random.default_rng(seed).integers(0, 2, x.shape)
    fit = CubicFit()
    for half in (slice(0, None, 2), slice(1, None, 2)):
        fit.add(x[half], label[half], 255)
    powers = np.vander(x, 4, increasing=True)
    theirs = np.linalg.lstsq(powers, label, rcond=None)[0]
    errors = [float(((powers @ polynomial - label) ** 2).sum()) for polynomial in (fit.coefficients(), theirs)]
    assert errors[0] == pytest.approx(errors[1], abs=1e-6)


def test_a_network_that_gives_one_value_is_calibrated_to_the_share_of_cells():
    fit = CubicFit()
    fit.add(np.full((2, 4), 0.9), np.array([[1, 1, 1, 0], [1, 1, 1, 0]]), 255)
    finish = Finishing({"semantic": fit.coefficients()})
    assert finish(both(np.full((1, 1), 0.9)))["semantic"][1].item() == pytest.approx(0.75, abs=1e-6)


def test_a_polynomial_is_cut_at_0_and_1():
    finish = Finishing({"semantic": (-0.5, 2.0, 0.0, 0.0)})
    made = finish(both([[0.0, 0.25, 0.5, 0.9]]))["semantic"]
    assert made[1].tolist() == [[0.0, 0.0, 0.5, 1.0]]
    assert torch.equal(made.sum(0), torch.ones(1, 4))


def test_which_polynomials_rise():
    assert rises((0, 0, 3, -2)) and rises((0, 1, 0, 0)) and rises((0.5,))
    assert not rises((0, -1, 2, 0))


def test_the_disk_of_radius_two_has_thirteen_pixels():
    rows = ["..#..", ".###.", "#####", ".###.", "..#.."]
    assert disk(2).tolist() == [[sign == "#" for sign in row] for row in rows]


def test_the_median_by_hand():
    # Radius 1: the pixel and its four neighbours, mirrored about the border pixels.
    second = [[0.1, 0.9, 0.1], [0.2, 0.8, 0.3], [0.1, 0.2, 0.4]]
    made = Finishing(radius=1)(both(second))["semantic"][1]
    # Centre: 0.8 0.9 0.2 0.2 0.3 -> 0.3. Corner: 0.1 0.9 0.9 0.2 0.2 -> 0.2.
    assert made[1, 1].item() == pytest.approx(0.3)
    assert made[0, 0].item() == pytest.approx(0.2)


@given(arrays(np.float32, (6, 5), elements=st.floats(0, 1, width=32)), st.integers(1, 3))
def test_the_median_is_that_of_the_mirrored_disk(second_HW, radius):
    made = Finishing(radius=radius)(both(second_HW))["semantic"][1].numpy()
    padded = np.pad(second_HW, radius, mode="reflect")
    for y, x in np.ndindex(6, 5):
        around = padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1][disk(radius)]
        assert made[y, x] == np.median(around)


def test_calibration_comes_before_the_median():
    polynomial = (1.0, -1.0, 0.0, 0.0)
    second = np.random.default_rng(0).random((7, 8), np.float32)
    one = Finishing({"semantic": polynomial}, 2)(both(second))["semantic"]
    two = Finishing(radius=2)(Finishing({"semantic": polynomial})(both(second)))["semantic"]
    assert torch.equal(one, two)


@pytest.mark.parametrize("steps", [{"radius": 1}, {"sigma": 1.0}, {"polynomials": {"semantic": (0.0, 1.0, 0.0, 0.0)}}])
def test_what_a_network_gives_as_nan_stays_so(steps):
    given = both(torch.rand(6, 7))
    given["semantic"][:, 2, 3] = torch.nan
    found = Finishing(**steps)(given)["semantic"]
    assert found[:, 2, 3].isnan().all()


def test_windows_are_finished_across_their_borders():
    second = np.random.default_rng(0).random((2, 9, 7), np.float32)
    parts = [
        Window(key, y, x, {"semantic": both(second[key])["semantic"][:, y : y + 4, x : x + 3]})
        for key in range(2)
        for y in range(0, 9, 4)
        for x in range(0, 7, 3)
    ]
    finish = Finishing({"semantic": (0.0, 0.5, 0.5, 0.0)}, radius=2)
    sizes = {0: (9, 7), 1: (9, 7)}
    made = list(finish.windows(parts, sizes))
    # Keys hold images, which go when they are finished.
    assert not sizes
    assert [(window.key, window.y, window.x) for window in made] == [(0, 0, 0), (1, 0, 0)]
    for window in made:
        assert torch.equal(window.probabilities["semantic"], finish(both(second[window.key]))["semantic"])
    # Without a median filter windows come as they are.
    assert len(list(Finishing({"semantic": (0.0, 1.0, 0.0, 0.0)}).windows(parts, {}))) == 18


def test_an_image_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr("segbench.inference.finishing.free_bytes", lambda: 100.0)
    with pytest.raises(SegbenchError, match=r"median= on 9 x 7 pixels: .*\n.*across tiles\n.*median=0"):
        list(Finishing(radius=1).windows([Window(0, 0, 0, both(np.zeros((4, 3))))], {0: (9, 7)}))


class Shift(torch.nn.Module):
    """The image's value is the second class's score."""

    def forward(self, image_BCHW):
        return torch.cat([torch.zeros_like(image_BCHW), image_BCHW], 1)


def test_a_prediction_is_finished():
    image = torch.randn(1, 9, 8, generator=torch.Generator().manual_seed(0))
    plain = predict_image(Shift().eval(), {"em": image}, ["semantic"])
    finish = Finishing({"semantic": (0.1, 0.5, 0.0, 0.0)}, radius=1)
    made = predict_image(Shift().eval(), {"em": image}, ["semantic"], finish=finish)
    assert torch.equal(made["semantic"], finish(plain)["semantic"])
