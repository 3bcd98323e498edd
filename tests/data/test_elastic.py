import os
import pickle
import random

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.data.elastic import CoarseElastic, RigidElastic, albumentations
from segbench.errors import SegbenchError

RNG = np.random.default_rng(0)
IMAGE = cv2.GaussianBlur(RNG.integers(0, 256, (60, 80), dtype=np.uint8), (0, 0), 2)
LABEL = (IMAGE > 127).astype(np.uint8)
IDS = (cv2.connectedComponents(LABEL)[1] * 20_000_003).astype(np.int32)


def seeded(transform, seed):
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return transform


def moved(transform, **arrays):
    transform.add_targets({name: "mask" for name in arrays if name not in ("image", "mask")})
    return transform(**arrays)


def test_the_library_is_kept_from_asking_a_server():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


@pytest.mark.parametrize("transform", [CoarseElastic(sigma=0), RigidElastic(rotate=0, sigma=0)])
def test_without_displacement_nothing_changes(transform):
    before = {"image": IMAGE, "mask": LABEL, "ids": IDS, "weight": LABEL + np.float32(0.5)}
    after = moved(transform, **before)
    for name, array in before.items():
        assert (after[name] == array).all() and after[name].dtype == array.dtype


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(0, 50), st.floats(-1e4, 1e4))
def test_a_constant_stays_constant(seed, grid, sigma, value):
    transform = seeded(RigidElastic(scale=0.5, shift=30, grid=grid, sigma=sigma), seed)
    constant = np.full((31, 23), value, np.float32)
    result = transform(image=constant, mask=constant)
    assert np.allclose(result["image"], value, rtol=1e-5)
    assert np.allclose(result["mask"], value, rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_labels_and_ids_stay_a_subset_and_stay_together(seed):
    result = moved(seeded(RigidElastic(scale=0.3, shift=10), seed), image=IMAGE, mask=LABEL, ids=IDS)
    assert set(np.unique(result["ids"])) <= set(np.unique(IDS))
    assert ((result["ids"] > 0) == (result["mask"] > 0)).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_image_label_and_weight_move_alike(seed):
    smooth = cv2.GaussianBlur(RNG.normal(size=(60, 80)).astype(np.float32), (0, 0), 8)
    smooth /= np.abs(smooth).max()
    fine = np.rint(1e6 * smooth).astype(np.int32)
    result = moved(seeded(RigidElastic(), seed), image=smooth, mask=fine, weight=smooth)
    weight = result["weight"]
    # Nearest is off by half a pixel along each axis at the most.
    slope = max(np.abs(np.diff(smooth, axis=axis)).max() for axis in (0, 1))
    assert np.abs(result["image"] - weight).max() < 0.02
    assert np.abs(result["mask"] / 1e6 - weight).max() <= slope * 1.05 + 1e-3


def test_displacements_are_normal_with_the_papers_deviation():
    # The places of the image's corners and centre are the nodes themselves.
    ramp_x, ramp_y = (ramp.astype(np.float32) for ramp in np.meshgrid(np.arange(601.0), np.arange(401.0)))
    transform = seeded(CoarseElastic(interpolation="linear"), 0)
    draws = []
    for _ in range(300):
        places = transform(image=ramp_x, mask=ramp_y)
        draws.append([places["image"][200, 300] - 300, places["mask"][200, 300] - 200])
    draws = np.array(draws)
    assert np.abs(draws.mean(0)).max() < 2.5  # standard error 0.58
    assert np.abs(draws.std(0) - 10).max() < 1.7  # standard error 0.41
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.25


def test_the_ranges_are_reached_and_kept():
    angles, zooms, shifts = [], [], []
    transform = seeded(RigidElastic(rotate=30, shift=5, scale=0.25), 0)
    for _ in range(400):
        matrix = transform.matrix(101, 101)
        inverse = matrix[:, :2]
        zooms.append(np.linalg.det(inverse) ** -0.5)
        angles.append(np.rad2deg(np.arctan2(inverse[1, 0], inverse[0, 0])))
        shifts.append(np.linalg.inv(inverse) @ (50 - matrix[:, 2]) - 50)
    assert -30 <= min(angles) < -28 and 28 < max(angles) <= 30
    assert 0.8 - 1e-9 <= min(zooms) < 0.82 and 1.22 < max(zooms) <= 1.25 + 1e-9
    assert -5 - 1e-9 <= np.min(shifts) < -4.8 and 4.8 < np.max(shifts) <= 5 + 1e-9


def test_rigid_and_elastic_in_one_are_coarse_elastic_where_nothing_is_rigid():
    only = seeded(CoarseElastic(), 3)
    both = RigidElastic(rotate=0)
    both.set_random_state(*_after_uniforms(3))
    assert (only(image=IMAGE)["image"] == both(image=IMAGE)["image"]).all()


def _after_uniforms(seed):
    class Later(np.random.Generator):
        def uniform(self, *arguments):
            return np.zeros(4)

    return Later(np.random.PCG64(seed)), random.Random(seed)


def test_it_composes_with_the_librarys_own():
    compose = albumentations.Compose(
        [
            albumentations.OneOf([CoarseElastic(), RigidElastic()], p=1.0),
            albumentations.HorizontalFlip(p=1.0),
            albumentations.RandomCrop(32, 40),
        ],
        additional_targets={"weight": "mask"},
    )
    result = compose(image=IMAGE, mask=LABEL, weight=LABEL.astype(np.float32))
    assert result["image"].shape == result["mask"].shape == result["weight"].shape == (32, 40)
    assert set(np.unique(result["mask"])) <= {0, 1}


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_shapes_are_kept(channels):
    image = RNG.integers(0, 256, (40, 50, *channels), dtype=np.uint8)
    assert CoarseElastic()(image=image)["image"].shape == image.shape


def test_it_can_be_sent_to_a_worker():
    copies = [pickle.loads(pickle.dumps(RigidElastic())) for _ in range(2)]
    a, b = (seeded(copy, 5)(image=IMAGE)["image"] for copy in copies)
    assert (a == b).all()


def test_cubic_keeps_more_of_the_noise_than_linear():
    noise = RNG.normal(0, 1, (200, 200)).astype(np.float32)
    kept = {
        name: seeded(RigidElastic(interpolation=name), 1)(image=noise)["image"].std() for name in ("linear", "cubic")
    }
    assert kept["linear"] < 0.72 < 0.85 < kept["cubic"]


def test_a_grid_larger_than_the_image_is_refused():
    with pytest.raises(SegbenchError, match="an elastic grid of 61 nodes on an image side of 60 pixels"):
        CoarseElastic(grid=61)(image=IMAGE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": 0}, "grid=0 in an elastic transform"),
        ({"sigma": -1}, "sigma=-1"),
        ({"sigma": float("inf")}, "sigma=inf"),
        ({"rotate": 200}, "rotate=200"),
        ({"shift": -1}, "shift=-1"),
        ({"scale": -0.1}, r"scale=-0\.1"),
        ({"interpolation": "area"}, "interpolation=area"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(SegbenchError, match=message):
        RigidElastic(**arguments)
