from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.fixtures.numbered import SIZE, SPEC, Numbered, flips

from segbench.data.augment import Augmentation
from segbench.data.raw import RawImage
from segbench.data.sampler import Draw
from segbench.data.tiles import TrainTiles, WholeImages, normalise, to_sample, window
from segbench.data.weights import LossWeights
from segbench.inference.tiling import mirrored
from segbench.spec import ModalitySpec, collate


def tiles(tile=24, margin=4, augmentation=None, seed=0):
    return TrainTiles(Numbered(), SPEC, augmentation or Augmentation(), seed, tile, margin)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.float32, np.int64, np.float64]),
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 6)),
        elements=st.integers(0, 255),
    ),
    st.booleans(),
    st.booleans(),
)
def test_normalising_is_the_formula_in_float32_for_any_type_and_order(raw_HWC, divides, turned):
    channels = raw_HWC.shape[2]
    mean, std = (tuple(values[:channels]) for values in ((123.68, 116.779, 103.939, 7.8, 0, 1), (2, 3, 5, 7, 11, 13)))
    spec = ModalitySpec(channels, mean, std if divides else (1.0,) * channels, "")
    given_HWC = raw_HWC[:, ::-1] if turned else raw_HWC
    expected = (given_HWC.astype(np.float32) - np.float32(mean)) / np.float32(spec.std)
    assert np.array_equal(normalise(given_HWC, spec).numpy(), expected.transpose(2, 0, 1))


def test_normalised_is_raw_less_mean_over_std_with_channels_first():
    raw = np.array([[[10, 30], [20, 50]]], np.uint8)
    tensor = normalise(raw, ModalitySpec(2, (10.0, 20.0), (5.0, 10.0), "level"))
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == [[[0, 2]], [[1, 3]]]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3),
    channels=st.integers(1, 4),
    divides=st.booleans(),
    seed=st.integers(0, 99),
)
def test_bytes_that_are_normalised_as_a_batch_are_those_that_were_normalised_before(sizes, channels, divides, seed):
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(0, 255, channels), rng.uniform(1, 60, channels) if divides else np.ones(channels)
    modality = ModalitySpec(channels, tuple(mean), tuple(std), "")
    spec = replace(SPEC, modalities={"em": modality})
    shapes = [(*size, channels) if channels > 1 else size for size in sizes]
    raws = [
        RawImage(
            {"em": rng.integers(0, 256, shape).astype(np.uint8)},
            {"semantic": rng.integers(0, 2, shape[:2]).astype(np.uint8)},
            str(number),
        )
        for number, shape in enumerate(shapes)
    ]
    batch = collate([to_sample(raw, spec, 0) for raw in raws])
    assert (batch.images["em"].dtype, batch.targets["semantic"].dtype) == (torch.uint8, torch.uint8)
    mean_C11, std_C11 = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std))
    ready = batch.normalised({"em": (mean_C11, std_C11 if divides else None)})
    before = collate(
        [replace(to_sample(raw, spec, 0), images={"em": normalise(raw.images["em"], modality)}) for raw in raws]
    )
    assert ready.images["em"].dtype == torch.float32 and ready.targets["semantic"].dtype == torch.int64
    assert torch.equal(ready.images["em"], before.images["em"])
    assert torch.equal(ready.targets["semantic"], before.targets["semantic"].long())


def test_a_grey_image_gets_one_channel():
    assert normalise(np.zeros((3, 5), np.uint8), SPEC.modalities["em"]).shape == (1, 3, 5)


def test_a_sample_carries_all_that_is_known():
    raw = RawImage(
        {"em": np.zeros((2, 3), np.uint8)}, {"semantic": np.full((2, 3), 255, np.uint8)}, "x", np.ones((2, 3), np.int32)
    )
    sample = to_sample(raw, SPEC, 5, np.full((2, 3), 0.5, np.float32))
    assert (sample.id, sample.index) == ("x", 5)
    assert (sample.targets["semantic"].dtype, sample.targets["semantic"].max().item()) == (torch.uint8, 255)
    assert (sample.instances.dtype, sample.weight.dtype) == (torch.int32, torch.float32)


def test_a_tile_is_a_window_of_the_mirrored_image_and_its_label():
    sample = tiles()[Draw(1, 0, 3)]
    tile = sample.images["em"][0].numpy()
    centre = int(tile[4, 4])  # the first pixel of the output window lies inside the image
    y, x = divmod(centre, SIZE[1])
    image = Numbered().read(1).images["em"]
    mirrored = np.pad(image, 30, mode="reflect")[26 + y : 50 + y, 26 + x : 50 + x]
    np.testing.assert_array_equal(tile, mirrored)
    np.testing.assert_array_equal(sample.targets["semantic"].numpy(), mirrored > 600)


def test_a_surround_serves_the_augmentation_alone():
    seen = []

    class Watched(Augmentation):
        def __call__(self, images, *arguments):
            seen.append(images["em"])
            return super().__call__(images, *arguments)

    bare, surrounded = (
        TrainTiles(Numbered(), SPEC, Watched(), 0, 24, 4, surround=surround)[Draw(1, 0, 3)] for surround in (0, 5)
    )
    assert torch.equal(bare.images["em"], surrounded.images["em"])
    assert torch.equal(bare.targets["semantic"], surrounded.targets["semantic"])
    assert [image.shape for image in seen] == [(24, 24), (34, 34)]
    np.testing.assert_array_equal(seen[1][5:-5, 5:-5], seen[0])


def test_every_output_window_lies_inside_and_all_places_are_met():
    starts = set()
    for draw in range(600):
        tile = tiles()[Draw(0, 0, draw)].images["em"][0].numpy()
        starts.add(divmod(int(tile[4, 4]), SIZE[1]))
        inside = tile[4:-4, 4:-4]
        np.testing.assert_array_equal(np.diff(inside, axis=1), 1)
        np.testing.assert_array_equal(np.diff(inside, axis=0), SIZE[1])
    assert {y for y, _ in starts} == {*range(SIZE[0] - 16 + 1)}
    assert {x for _, x in starts} == {*range(SIZE[1] - 16 + 1)}


def test_an_image_smaller_than_the_window_is_mirrored_all_around():
    tile = tiles(tile=100, margin=10)[Draw(0, 0, 0)].images["em"][0].numpy()
    assert tile.shape == (100, 100)
    assert set(np.unique(tile)) == {*range(SIZE[0] * SIZE[1])}


def test_whole_images_are_taken_where_there_is_no_tile():
    assert tiles(tile=None)[Draw(2, 0, 0)].images["em"].shape == (1, *SIZE)


@pytest.mark.parametrize("change", [{"epoch": 1}, {"draw": 6}])
def test_another_epoch_or_draw_gives_another_tile(change):
    dataset = tiles(augmentation=flips())
    one, other = (dataset[Draw(0, 0, 5)], dataset[replace(Draw(0, 0, 5), **change)])
    assert not torch.equal(one.images["em"], other.images["em"])


def test_another_seed_gives_another_tile():
    one, other = (tiles(augmentation=flips(), seed=seed)[Draw(0, 0, 5)] for seed in (0, 1))
    assert not torch.equal(one.images["em"], other.images["em"])


def test_a_tile_depends_on_no_earlier_one():
    fresh = tiles(augmentation=flips())[Draw(3, 2, 1)]
    used = tiles(augmentation=flips())
    for draw in range(5):
        _ = used[Draw(0, 0, draw)]
    assert torch.equal(used[Draw(3, 2, 1)].images["em"], fresh.images["em"])


def test_padding_has_no_index():
    assert WholeImages(Numbered(), SPEC)[Draw(0, padding=True)].index == -1


def test_loss_weights_are_cut_with_the_tile(drawn_isbi):
    from segbench.data.isbi_em import IsbiEM
    from segbench.data.weights import LossWeights

    source = IsbiEM(drawn_isbi).split("train")
    spec = IsbiEM(drawn_isbi).spec
    weights = LossWeights(spec)
    sample = TrainTiles(source, spec, Augmentation(), 0, 40, 4, pixel_weights=weights)[Draw(2, 0, 0)]
    whole, image = weights(source.read(2)), source.read(2).images["em"]
    places = np.lib.stride_tricks.sliding_window_view(np.pad(image, 40, mode="reflect"), (40, 40))
    y, x = np.argwhere((places == sample.images["em"][0].numpy()).all((2, 3)))[0]
    np.testing.assert_array_equal(sample.weight.numpy(), np.pad(whole, 40, mode="reflect")[y : y + 40, x : x + 40])


@given(draw=st.integers(0, 200), label=st.integers(0, 1), tile=st.sampled_from([12, 24, 60]))
def test_a_tile_of_a_class_shows_it(draw, label, tile):
    sample = tiles(tile, margin=2)[Draw(1, 0, draw, label=label)]
    assert (sample.targets["semantic"][2:-2, 2:-2] == label).any()


def test_the_tiles_of_a_class_are_a_function_of_the_draw_and_reach_every_place():
    one, other = (tiles(12, margin=0)[Draw(0, 2, 7, label=1)] for _ in range(2))
    assert torch.equal(one.images["em"], other.images["em"])
    starts = [int(tiles(12, margin=0)[Draw(0, 0, draw, label=1)].images["em"][0, 0, 0]) for draw in range(200)]
    rows = {start // SIZE[1] for start in starts}
    # Class 1 begins in row 20: a tile of 12 rows shows it from row 9 on.
    assert min(rows) == 9 and max(rows) == SIZE[0] - 12


@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.bool_, np.float16, np.uint16, np.int32, np.float32, np.int64, np.complex128]),
        st.one_of(
            st.tuples(st.integers(1, 9), st.integers(1, 9)),
            st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 5, 513])),
        ),
        elements=st.integers(0, 1),
    ),
    starts=st.tuples(st.integers(-25, 12), st.integers(-25, 12)),
    side=st.integers(1, 30),
    turned=st.booleans(),
)
def test_a_window_is_the_mirrored_array_by_its_indices(array, starts, side, turned):
    array = np.arange(array.size).reshape(array.shape).astype(array.dtype)
    array = array.swapaxes(0, 1)[::-1] if turned else array
    ys, xs = (mirrored(start, start + side, size) for start, size in zip(starts, array.shape, strict=False))
    cut = window(array, starts, side)
    assert cut.dtype == array.dtype and not np.shares_memory(cut, array)
    np.testing.assert_array_equal(cut, array[np.ix_(ys, xs)])


@pytest.mark.parametrize("recompute", [False, True])
def test_a_weighted_tile_is_the_one_cut_by_indices_from_a_map_computed_anew(drawn_isbi, monkeypatch, recompute):
    """What is kept and how tiles are cut changes no bit."""
    from segbench.data.elastic import RigidElastic
    from segbench.data.isbi_em import IsbiEM

    data = IsbiEM(drawn_isbi)

    def samples(fresh):
        weights = LossWeights(data.spec)
        augmentation = Augmentation([RigidElastic()], recompute_weight=recompute)
        cut = TrainTiles(data.split("train"), data.spec, augmentation, 0, 60, 20, pixel_weights=weights)
        for draw in range(6):
            if fresh:
                cut._pixel_weights = LossWeights(data.spec)
            yield cut[Draw(draw % 2, 1, draw)]

    now = list(samples(fresh=False))

    def by_indices(array, starts, side):
        return array[np.ix_(*(mirrored(at, at + side, size) for at, size in zip(starts, array.shape, strict=False)))]

    monkeypatch.setattr("segbench.data.tiles.window", by_indices)
    for one, former in zip(now, samples(fresh=True), strict=True):
        assert torch.equal(one.images["em"], former.images["em"])
        assert torch.equal(one.targets["semantic"], former.targets["semantic"])
        assert torch.equal(one.weight, former.weight)
