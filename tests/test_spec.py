import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segbench.errors import SegbenchError
from segbench.spec import Batch, DatasetSpec, HeadSpec, ModalitySpec, Sample, TileGeometry, collate, of_class

PAPER = TileGeometry(step=16, offset=60, margin=92, minimum=8, context=92)


def sample(height, width, index=0, **more):
    return Sample(
        images={"em": torch.full((1, height, width), float(index + 1))},
        targets={"semantic": torch.full((height, width), index)},
        id=f"s{index}",
        index=index,
        **more,
    )


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("iu/cell", ("iu", "cell")),
        ("test/dice/cell", ("dice", "cell")),
        ("test/semantic/iu/tree", ("iu", "tree")),
        ("val/iu/dice", ("iu", "dice")),
        ("test/dice/a/b", ("dice", "a/b")),
        ("test/mean_iu", None),
        ("test/iu", None),
        ("train/loss/dice", None),
    ],
)
def test_a_score_of_a_class_is_told_from_one_over_all(key, found):
    assert of_class(key) == found


def test_an_error_has_three_parts_also_after_pickling():
    error = pickle.loads(pickle.dumps(SegbenchError("a", "b", "c")))
    assert (error.found, error.expected, error.action) == ("a", "b", "c")
    assert str(error) == "a\n  expected: b\n  to do:    c"
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_a_modality_has_one_mean_and_std_a_channel(name):
    values = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), name: (1.0,)}
    with pytest.raises(SegbenchError, match=rf"{name} has 1 values for 3 channels\n.*one value per channel\n.*{name}"):
        ModalitySpec(3, unit="grey level", **values)


def test_a_data_set_comes_back_from_json():
    import json

    spec = DatasetSpec(
        name="two",
        modalities={
            "rgb": ModalitySpec(3, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "level"),
            "d": ModalitySpec(1, (0.0,), (1.0,), "m"),
        },
        heads={"semantic": HeadSpec(("sky", "road"), ((0, 0, 0), (1, 2, 3)), 254, (1,))},
        citation="c",
        licence="l",
        protocol="p",
    )
    assert DatasetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_head_counts_its_classes():
    assert HeadSpec(("a", "b", "c"), ((0, 0, 0),) * 3).num_classes == 3


def test_samples_of_one_size_are_stacked():
    batch = collate([sample(2, 3, 0), sample(2, 3, 1)])
    assert batch.images["em"].shape == (2, 1, 2, 3)
    assert batch.targets["semantic"].tolist() == [[[0] * 3] * 2, [[1] * 3] * 2]
    assert (batch.ids, batch.indices, batch.sizes) == (("s0", "s1"), (0, 1), ((2, 3), (2, 3)))
    assert batch.instances is None
    assert batch.weight is None


def test_smaller_samples_are_padded_with_void_below_and_on_the_right():
    batch = collate([sample(2, 2, 0), sample(1, 3, 1)], {"semantic": 254})
    assert batch.targets["semantic"].tolist() == [[[0, 0, 254], [0, 0, 254]], [[1, 1, 1], [254, 254, 254]]]
    assert batch.images["em"][:, 0].tolist() == [[[1, 1, 0], [1, 1, 0]], [[2, 2, 2], [0, 0, 0]]]
    assert batch.sizes == ((2, 2), (1, 3))


@pytest.mark.parametrize("widths", [(3,), (3, 3), (3, 2)])
def test_colours_keep_the_order_of_their_pixels(widths):
    def coloured(width, index):
        image_HWC = torch.arange(2.0 * width * 3).reshape(2, width, 3) + 100 * index
        return Sample({"rgb": image_HWC.permute(2, 0, 1)}, {}, f"s{index}", index)

    samples = [coloured(width, index) for index, width in enumerate(widths)]
    batch = collate(samples).images["rgb"]
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for image_CHW, one in zip(batch, samples, strict=True):
        width = one.images["rgb"].shape[-1]
        assert torch.equal(image_CHW[:, :, :width], one.images["rgb"])
        assert not image_CHW[:, :, width:].any()


def test_void_is_255_where_no_head_says_otherwise():
    assert collate([sample(1, 1), sample(1, 2, 1)]).targets["semantic"].tolist() == [[[0, 255]], [[1, 1]]]


def test_weight_and_instances_are_padded_with_nothing():
    more = {"weight": torch.ones(1, 1), "instances": torch.ones(1, 1, dtype=torch.int32)}
    wide = {"weight": torch.ones(1, 2), "instances": torch.ones(1, 2, dtype=torch.int32)}
    batch = collate([sample(1, 1, **more), sample(1, 2, 1, **wide)])
    assert batch.weight.tolist() == [[[1, 0]], [[1, 1]]]
    assert batch.instances.tolist() == [[[1, 0]], [[1, 1]]]
    assert batch.instances.dtype == torch.int32


def test_a_batch_moves_all_its_tensors_and_nothing_else():
    batch = collate([sample(1, 2, weight=torch.ones(1, 2))]).to("meta")
    assert isinstance(batch, Batch)
    assert {batch.images["em"].device.type, batch.targets["semantic"].device.type, batch.weight.device.type} == {"meta"}
    assert batch.ids == ("s0",)
    assert batch.instances is None


def test_the_published_net_makes_388_of_572():
    assert PAPER.output_size(572) == 388
    assert PAPER.input_for(388) == 572
    assert PAPER.nearest(512) == (508, 524)


def test_a_wrong_size_names_the_nearest_right_ones_and_their_outputs():
    with pytest.raises(
        SegbenchError, match=r"512 pixels\n.*60 \+ 16 k pixels, k >= 8\n.*508 or 524 \(output 324 or 340\)"
    ):
        PAPER.output_size(512)


def test_below_the_smallest_size_only_that_is_named():
    with pytest.raises(SegbenchError, match=r"100 pixels\n.*\n.*use 188 \(output 4\)"):
        PAPER.output_size(100)


def test_a_network_without_geometry_takes_any_size():
    assert [TileGeometry().output_size(size) for size in (1, 17, 500)] == [1, 17, 500]


geometries = st.builds(
    TileGeometry,
    step=st.integers(1, 32),
    offset=st.integers(0, 100),
    margin=st.integers(0, 20),
    minimum=st.integers(3, 12),
)


@given(geometries, st.integers(0, 2000))
def test_nearest_sizes_are_valid_and_enclose_the_asked_one(geometry, size):
    below, above = geometry.nearest(size)
    assert geometry.is_valid(above)
    assert above >= size
    assert not any(geometry.is_valid(between) for between in range(size, above))
    if below is None:
        assert not any(geometry.is_valid(smaller) for smaller in range(size + 1))
    else:
        assert geometry.is_valid(below)
        assert above - below in (0, geometry.step)


@given(geometries, st.integers(1, 1000))
def test_the_input_for_an_output_covers_it(geometry, output):
    size = geometry.input_for(output)
    assert geometry.output_size(size) >= output
