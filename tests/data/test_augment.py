import pickle
import random
from collections import Counter
from pathlib import Path

import albumentations
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from segbench.data.augment import Augmentation
from segbench.data.cells import connected_cells
from segbench.data.elastic import CoarseElastic, RigidElastic
from segbench.data.weight_map import weight_map
from segbench.errors import SegbenchError
from segbench.experiment.build import make

CONF = Path(__file__).parents[2] / "conf"
RNG = np.random.default_rng(0)
H, W = 48, 48
EM = RNG.integers(0, 256, (H, W), dtype=np.uint8)
RGB = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
DEPTH = RNG.uniform(1, 9, (H, W, 1)).astype(np.float32)
LABEL = (np.add.outer(np.arange(H) // 8, np.arange(W) // 8) % 2).astype(np.uint8)
INSTANCES = connected_cells(LABEL)
WEIGHT = weight_map(INSTANCES)
GREY = [
    albumentations.RandomBrightnessContrast(brightness_limit=(0.3, 0.4), p=1.0),
    albumentations.GaussNoise(p=1.0),
]


def equal(a, b):
    return all(
        (x is None and y is None) or (x.dtype == y.dtype and np.array_equal(x, y))
        for x, y in zip(flat(a), flat(b), strict=True)
    )


def flat(result):
    images, labels, instances, weight = result
    return [*images.values(), *labels.values(), instances, weight]


def sample(augmentation, seed, **change):
    given = {"images": {"em": EM}, "labels": {"semantic": LABEL}, "instances": INSTANCES, "weight": WEIGHT, **change}
    return augmentation(**given, rng_seed=seed)


def configured(name):
    config = OmegaConf.load(CONF / "augment" / f"{name}.yaml")
    # A name for the record, which a run replaces beside the transforms.
    config.pop("pick", None)
    return instantiate(config)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "augment").glob("*.yaml")))
def test_every_config_makes_a_sample_of_the_same_structure(name):
    images, labels, instances, weight = sample(configured(name), 1, images={"rgb": RGB, "depth": DEPTH})
    for after, before in ((images["rgb"], RGB), (images["depth"], DEPTH), (labels["semantic"], LABEL)):
        assert after.shape == before.shape and after.dtype == before.dtype
    assert instances.dtype == np.int32 and weight.dtype == np.float32
    assert set(np.unique(instances)) <= set(np.unique(INSTANCES))
    # The label and the ids moved alike.
    assert ((instances > 0) == (labels["semantic"] > 0)).all()


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "loss").glob("[a-z]*.yaml")))
def test_every_loss_config_names_a_loss(name, compose):
    loss = make(compose(f"loss={name}", "name=x").loss_of("semantic"), ignore_index=7)
    assert loss.ignore_index == 7


def test_the_unet_config_is_the_papers():
    warp = configured("unet").transforms[0]
    assert isinstance(warp, RigidElastic)
    assert (warp.grid, warp.sigma, warp.rotate) == (3, 10, 180)


def test_no_transform_leaves_the_sample():
    assert equal(sample(Augmentation(), 3), ({"em": EM}, {"semantic": LABEL}, INSTANCES, WEIGHT))


def test_parts_may_be_missing():
    images, labels, instances, weight = Augmentation([CoarseElastic()])({"em": EM}, {})
    assert images["em"].shape == EM.shape
    assert (labels, instances, weight) == ({}, None, None)


def test_the_seed_alone_decides():
    augmentation = configured("unet")
    first = [sample(augmentation, seed) for seed in range(5)]
    for seed in (3, 0, 4, 4, 1):  # another order, after other calls
        assert equal(sample(augmentation, seed), first[seed])
    assert equal(sample(configured("unet"), 2), first[2])
    assert equal(sample(pickle.loads(pickle.dumps(augmentation)), 2), first[2])
    assert not equal(first[0], first[1])


def test_global_random_states_are_neither_read_nor_moved():
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    state, python_state = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first = sample(configured("unet"), 1)
    assert (np.random.get_state()[1] == state).all() and random.getstate() == python_state  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert equal(sample(configured("unet"), 1), first)


def test_other_arrays_do_not_change_the_warp():
    augmentation = Augmentation([RigidElastic()])
    with_all = sample(augmentation, 1)
    alone = augmentation({"em": EM}, {}, rng_seed=1)
    assert (with_all[0]["em"] == alone[0]["em"]).all()


def test_two_flips_are_drawn_apart():
    # Compose.set_random_seed gives each transform the same number: both flips or none.
    flips = Augmentation([albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)])
    picture = np.arange(4, dtype=np.uint8).reshape(2, 2)
    seen = Counter(tuple(flips({"em": picture}, {}, rng_seed=seed)[0]["em"].ravel().tolist()) for seed in range(400))
    assert set(seen) == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}
    assert min(seen.values()) > 60  # of 100 expected


def test_values_change_in_images_alone():
    images, labels, instances, weight = sample(Augmentation(GREY), 0)
    assert (images["em"] != EM).mean() > 0.9
    assert equal(({}, labels, instances, weight), ({}, {"semantic": LABEL}, INSTANCES, WEIGHT))


def test_float_images_keep_their_values_unless_named():
    depth_first = {"depth": DEPTH, "rgb": RGB}
    images = sample(Augmentation(GREY), 0, images=depth_first)[0]
    assert (images["depth"] == DEPTH).all() and (images["rgb"] != RGB).any()
    images = sample(Augmentation(GREY), 0, images={"depth": DEPTH})[0]
    assert (images["depth"] == DEPTH).all()
    named = Augmentation([albumentations.InvertImg(p=1.0)], photometric=["unit"])
    unit = DEPTH / 10
    images = sample(named, 0, images={"rgb": RGB, "unit": unit})[0]
    assert np.allclose(images["unit"], 1 - unit) and (images["rgb"] == RGB).all()


def test_all_images_are_warped_alike():
    grey = np.ascontiguousarray(RGB[..., 0])
    pair = {"rgb": RGB, "grey": grey, "float": grey.astype(np.float32), "again": RGB}
    augmentation = Augmentation([RigidElastic(interpolation="nearest"), albumentations.D4(p=1.0)])
    images = sample(augmentation, 4, images=pair)[0]
    for name in ("grey", "float"):
        assert (images[name] == images["rgb"][..., 0]).all()
    assert (images["again"] == images["rgb"]).all()


def test_a_modality_may_change_its_type_between_samples():
    augmentation = Augmentation(GREY)
    sample(augmentation, 0, images={"em": EM})
    images = sample(augmentation, 0, images={"em": EM.astype(np.float32)})[0]
    assert (images["em"] == EM).all()


def test_the_symmetries_are_exact_and_all_occur():
    augmentation = configured("flips")
    seen = set()
    for seed in range(60):
        images, _, _, weight = sample(augmentation, seed, weight=EM.astype(np.float32))
        assert (images["em"] == weight).all()
        seen.add(images["em"].tobytes())
    assert seen == {np.rot90(picture, turns).tobytes() for picture in (EM, EM[:, ::-1]) for turns in range(4)}


def test_hflip_keeps_the_sky_above():
    augmentation = configured("hflip")
    seen = {sample(augmentation, seed)[0]["em"].tobytes() for seed in range(20)}
    assert seen == {EM.tobytes(), EM[:, ::-1].tobytes()}


def test_a_warped_weight_stays_on_its_label():
    # Far from every edge, the interpolated weight is the one of its label.
    flat_weight = np.where(LABEL > 0, np.float32(2), np.float32(5))
    _, labels, _, weight = sample(Augmentation([RigidElastic()]), 2, weight=flat_weight)
    label = labels["semantic"].astype(int)
    inner = np.ones((H, W), bool)
    for y in (-2, -1, 0, 1, 2):
        for x in (-2, -1, 0, 1, 2):
            inner &= np.roll(label, (y, x), (0, 1)) == label
    inner[[0, 1, -1, -2]] = inner[:, [0, 1, -1, -2]] = False
    assert inner.sum() > 100
    assert np.allclose(weight[inner], np.where(label > 0, 2, 5)[inner], atol=1e-4)


def test_pixel_weights_can_be_recomputed():
    augmentation = Augmentation([RigidElastic()], recompute_weight=True)
    _, labels, instances, weight = augmentation(
        {"em": EM}, {"semantic": LABEL}, INSTANCES, None, 5, reweigh=lambda labels, instances: weight_map(instances)
    )
    assert (weight == weight_map(instances)).all()
    assert equal(({}, labels, instances, None), ({}, *sample(Augmentation([RigidElastic()]), 5)[1:3], None))


def test_recomputing_pixel_weights_requires_a_function():
    with pytest.raises(SegbenchError, match=r"augment\.recompute_weight=true, and no function"):
        sample(Augmentation(recompute_weight=True), 0)


def test_cached_maps_are_given_out_as_copies():
    shared = WEIGHT.copy()
    shared.flags.writeable = False
    weight = sample(Augmentation(), 0, weight=shared)[3]
    assert weight.flags.writeable and (weight == shared).all()


def test_the_input_is_not_changed():
    before = [array.copy() for array in (EM, LABEL, INSTANCES, WEIGHT)]
    sample(Augmentation([RigidElastic(), *GREY]), 0)
    assert all((a == b).all() for a, b in zip(before, (EM, LABEL, INSTANCES, WEIGHT), strict=True))


def test_nested_transforms_are_reached():
    augmentation = Augmentation([albumentations.OneOf([albumentations.Sequential(GREY), CoarseElastic()], p=1.0)])
    results = [sample(augmentation, seed) for seed in range(12)]
    warped = [not np.array_equal(result[3], WEIGHT) for result in results]
    assert 0 < sum(warped) < 12
    for result, moved in zip(results, warped, strict=True):
        assert np.array_equal(result[2], INSTANCES) != moved


def test_arrays_of_different_size_are_refused():
    with pytest.raises(SegbenchError, match=r"label:semantic \(10, 48\)"):
        sample(Augmentation(), 0, labels={"semantic": LABEL[:10]})
