import math
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from torch import nn

from segbench.data.augment import Augmentation
from segbench.data.datamodule import SegmentationData
from segbench.data.raw import RawImage
from segbench.errors import SegbenchError
from segbench.losses import CrossEntropy, Dice, Focal, LovaszSoftmax, Sum
from segbench.metrics.confusion import Overlap
from segbench.models.unet import UNet
from segbench.runtime.log import log_to
from segbench.runtime.threads import use_threads
from segbench.spec import Batch, DatasetSpec, HeadSpec, ModalitySpec, TileGeometry
from segbench.training.optim import constant, sgd
from segbench.training.task import Evaluation, SegmentationTask, centre_crop

GREY = {"em": ModalitySpec(1, (100.0,), (50.0,), "grey level, 0 to 255")}
CELLS = {"semantic": HeadSpec(("membrane", "cell"), ((0, 0, 0), (255, 255, 255)))}


def spec(modalities=GREY, heads=CELLS):
    return DatasetSpec("d", modalities, heads, "", "", "p")


def unet(dropout=0.5):
    torch.manual_seed(0)
    return UNet(width=4, depth=2, dropout=dropout)


def task(model=None, described=None, lr=0.1, **settings):
    described = described or spec()
    return SegmentationTask(
        model=model or unet(),
        spec=described,
        losses=settings.pop("losses", {head: CrossEntropy() for head in described.heads}),
        measures={head: [Overlap(head_spec.class_names)] for head, head_spec in described.heads.items()},
        optimizer=lambda module: sgd(module, lr=lr, momentum=0.9),
        schedule=constant,
        evaluation=settings.pop("evaluation", Evaluation()),
        **settings,
    )


def training(task, step=0, rank=0, ranks=1, accumulated=1):
    """The task as it stands in the midst of a training."""
    task._trainer = SimpleNamespace(
        global_step=step,
        global_rank=rank,
        world_size=ranks,
        log_every_n_steps=1,
        accumulate_grad_batches=accumulated,
        num_training_batches=math.inf,
        sanity_checking=False,
    )
    task.log = lambda *arguments, **named: None
    return task.train()


def batch(*seeds, side=60, void=0):
    """Noise with noisy labels, one image a seed; that of seed 1 begins with `void` void rows."""
    generators = [np.random.default_rng(seed) for seed in seeds]
    labels = [torch.from_numpy(rng.integers(0, 2, (side, side))) for rng in generators]
    for seed, label in zip(seeds, labels, strict=True):
        label[: void * (seed == 1)] = 255
    return Batch(
        images={"em": torch.stack([torch.from_numpy(rng.random((1, side, side), np.float32)) for rng in generators])},
        targets={"semantic": torch.stack(labels)},
        ids=tuple(f"s{seed}" for seed in seeds),
        indices=tuple(seeds),
        sizes=((side, side),) * len(seeds),
    )


@pytest.mark.parametrize(("size", "output"), [((8, 10), (4, 6)), ((8, 10), (8, 10)), ((8, 10), (8, 2))])
def test_the_target_is_cropped_to_the_centre(size, output):
    target = torch.arange(size[0] * size[1]).reshape(1, *size)
    top, left = (size[0] - output[0]) // 2, (size[1] - output[1]) // 2
    cropped = centre_crop(target, torch.zeros(1, 2, *output))
    assert torch.equal(cropped, target[:, top : top + output[0], left : left + output[1]])


@pytest.mark.parametrize("output", [(12, 8), (7, 8)], ids=["larger", "off centre"])
def test_an_output_that_does_not_lie_in_the_targets_centre_is_refused(output):
    with pytest.raises(SegbenchError, match=r"for a target of 8x8\n.*even number of pixels\n.*geometry"):
        centre_crop(torch.zeros(1, 8, 8), torch.zeros(1, 2, *output))


def test_dropout_is_a_function_of_seed_step_and_rank():
    def loss(step=3, rank=0, seed=0):
        made = training(task(unet(), seed=seed), step, rank)
        torch.manual_seed(torch.randint(0, 10**6, ()).item())
        return made.training_step(batch(1), 0)["loss"].item()

    assert loss() == loss()
    assert len({loss(), loss(step=4), loss(rank=1), loss(seed=1)}) == 4


def test_accumulated_batches_drop_other_units():
    """Batch 4 is the first of its step where two are accumulated, and as without accumulation."""
    given = batch(1)
    losses = [
        training(task(unet()), accumulated=2).training_step(given, position)["loss"].item() for position in (4, 5, 6)
    ]
    assert losses[0] == losses[2] == training(task(unet())).training_step(given, 0)["loss"].item()
    assert losses[1] != losses[0]


def fitted(batches, loss=CrossEntropy, lr=0.1, **settings):
    """A net without dropout after one epoch of those batches by the Trainer, and its parameters before."""
    made = task(unet(dropout=0), losses={"semantic": loss()}, lr=lr)
    before = [parameter.detach().clone() for parameter in made.model.parameters()]
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    with log_to(None):
        trainer.fit(made, torch.utils.data.DataLoader(batches, batch_size=None), [])
    steps = [(old - new).detach() / lr for old, new in zip(before, made.model.parameters(), strict=True)]
    return torch.cat([step.flatten() for step in steps]), trainer.global_step


def gradient_of(*batches, loss=CrossEntropy):
    made = training(task(unet(dropout=0), losses={"semantic": loss()}))
    total = sum(made.training_step(given, 0)["loss"] for given in batches) / len(batches)
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, list(made.model.parameters()))])


def same_direction_and_size(step, expected):
    torch.testing.assert_close(step, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("loss", [CrossEntropy, Focal, LovaszSoftmax])
def test_two_accumulated_batches_with_as_many_labels_are_one_of_twice_the_size(loss):
    step, taken = fitted([batch(0), batch(2)], loss, accumulate_grad_batches=2)
    assert taken == 1
    same_direction_and_size(step, gradient_of(batch(0, 2), loss=loss))


def test_accumulated_batches_with_other_numbers_of_labels_count_alike():
    step, _ = fitted([batch(0), batch(1, void=29)], accumulate_grad_batches=2)
    same_direction_and_size(step, gradient_of(batch(0), batch(1, void=29)))
    together = gradient_of(batch(0, 1, void=29))
    assert (step - together).norm() > 0.02 * together.norm()


def test_an_accumulated_sum_over_pixels_is_one_part_of_the_large_batchs():
    def loss():
        return CrossEntropy("sum")

    step, _ = fitted([batch(0), batch(2)], loss, lr=1e-4, accumulate_grad_batches=2)
    same_direction_and_size(step, gradient_of(batch(0, 2), loss=loss) / 2)


INCOMPLETE = [batch(0), batch(2)]
"""What is left of an epoch where a step takes more."""


@pytest.mark.parametrize("loss", [CrossEntropy, Focal, LovaszSoftmax])
def test_a_step_of_the_batches_that_are_left_is_their_mean(loss):
    step, taken = fitted(INCOMPLETE, loss, accumulate_grad_batches=7)
    assert taken == 1
    same_direction_and_size(step, gradient_of(batch(0, 2), loss=loss))


def test_a_step_of_the_batches_that_are_left_divides_a_sum_over_pixels_by_their_number():
    def loss():
        return CrossEntropy("sum")

    step, _ = fitted(INCOMPLETE, loss, lr=1e-4, accumulate_grad_batches=7)
    same_direction_and_size(step, gradient_of(batch(0, 2), loss=loss) / 2)


@pytest.mark.parametrize("limit", [2, 0.5], ids=["batches", "share"])
def test_a_limit_on_an_epochs_batches_leaves_fewer_too(limit):
    step, taken = fitted([*INCOMPLETE, batch(3), batch(4)], accumulate_grad_batches=3, limit_train_batches=limit)
    assert taken == 1
    same_direction_and_size(step, gradient_of(batch(0, 2)))


def test_the_gradient_that_is_clipped_is_that_of_the_batches_that_are_left():
    gradient = gradient_of(batch(0, 2))
    # Divided by seven the gradient would be within the limit.
    clip = float(gradient.norm()) / 2
    step, _ = fitted(INCOMPLETE, accumulate_grad_batches=7, gradient_clip_val=clip)
    same_direction_and_size(step, gradient / 2)


def test_mixed_precision_takes_the_same_step_of_the_batches_that_are_left():
    whole, _ = fitted(INCOMPLETE, accumulate_grad_batches=2, precision="bf16-mixed")
    step, _ = fitted(INCOMPLETE, accumulate_grad_batches=4, precision="bf16-mixed")
    assert torch.equal(step, whole)


def test_a_batch_tells_its_own_loss_whatever_its_step_divides_it_by():
    made = training(task(unet(dropout=0)), accumulated=4)
    made.trainer.num_training_batches = 6
    complete, left = made.training_step(batch(1), 3), made.training_step(batch(1), 4)
    assert complete["loss"] == complete["batch_loss"] == left["batch_loss"]
    torch.testing.assert_close(left["loss"], 2 * left["batch_loss"])


def test_gradients_are_clipped_by_norm_or_by_value():
    gradient = gradient_of(batch(0))
    clip = float(gradient.norm()) / 3
    by_norm, _ = fitted([batch(0)], gradient_clip_val=clip)
    same_direction_and_size(by_norm, gradient / 3)
    clip = float(gradient.abs().max()) / 3
    by_value, _ = fitted([batch(0)], gradient_clip_val=clip, gradient_clip_algorithm="value")
    same_direction_and_size(by_value, gradient.clamp(-clip, clip))


def test_a_validation_without_a_labelled_pixel_is_told_once_and_leaves_its_scores_undefined(caplog):
    made = training(task(unet(dropout=0))).eval()
    made.log_dict = lambda *arguments, **named: None
    void = batch(1, void=60)
    with caplog.at_level("WARNING"):
        for _ in range(2):
            made.on_validation_epoch_start()
            made.validation_step(void, 0)
            made.on_validation_epoch_end()
    assert all(math.isnan(value) for value in made.scores["val"].values())
    (told,) = caplog.messages
    assert told.startswith("no pixel of the val images is labelled, all are void (semantic: 255)")
    assert "no best checkpoint is chosen; check the label files" in told


def test_the_loss_is_that_of_the_cropped_target():
    made = training(task(unet(dropout=0)))
    given = batch(1)
    logits = made.model(given.images["em"])
    expected = nn.functional.cross_entropy(logits, given.targets["semantic"][:, 20:-20, 20:-20], ignore_index=255)
    torch.testing.assert_close(made.training_step(given, 0)["loss"], expected)


OVER_RANKS = {
    "mean": CrossEntropy,
    "sum": lambda: CrossEntropy("sum"),
    "dice": Dice,
    "lovasz": LovaszSoftmax,
    "terms": lambda: Sum({"a": Focal(), "b": Dice(squared=True)}, {"a": 2.0, "b": 0.5}),
}


@pytest.mark.parametrize("loss", OVER_RANKS.values(), ids=OVER_RANKS)
def test_two_ranks_learn_what_one_with_twice_the_batch_learns(loss):
    def made(ranks=1, rank=0):
        return training(task(unet(dropout=0), losses={"semantic": loss()}), rank=rank, ranks=ranks)

    # Rank 1 has fewer labelled pixels: a mean of means would weigh them double.
    alone = made()
    expected = alone.training_step(batch(0, 1, void=29), 0)["loss"]
    expected.backward()
    ranks = [made(2, rank) for rank in range(2)]
    sent = []
    for gathered in (lambda own: sent.append(own) or own[None], lambda own: torch.stack(sent)):
        for rank, mine in zip(ranks, [batch(0, void=29), batch(1, void=29)], strict=True):
            rank.zero_grad()
            rank.all_gather = gathered
            value = rank.training_step(mine, 0)["loss"]
            value.backward()
    # The last loss is, on every rank, that of both.
    torch.testing.assert_close(value, expected)
    for single, first, second in zip(*(each.model.parameters() for each in (alone, *ranks)), strict=True):
        # DDP averages gradients.
        scale = float(single.grad.abs().max())
        torch.testing.assert_close((first.grad + second.grad) / 2, single.grad, rtol=0, atol=1e-5 * scale)


class Foreign(nn.Module):
    """A loss that knows nothing of sums."""

    def forward(self, logits_BKHW, target_BHW, weight_BHW=None):
        return logits_BKHW.square().mean()


def test_several_processes_refuse_a_loss_that_is_no_function_of_sums():
    loss = LovaszSoftmax(per_image=False)
    training(task(losses={"semantic": loss})).on_fit_start()
    with pytest.raises(SegbenchError, match=r"a loss of semantic on 2 processes .*\n.*\n.*trainer\.devices=1"):
        training(task(losses={"semantic": loss}), ranks=2).on_fit_start()


def test_several_processes_average_a_loss_that_is_not_ours_and_say_so(caplog):
    training(task(losses={"semantic": Foreign()}), ranks=2).on_fit_start()
    assert "averaged over 2 processes, each by its own pixels" in caplog.text


def test_any_module_is_a_loss_on_one_process():
    made = training(task(unet(dropout=0), losses={"semantic": Foreign()}))
    torch.testing.assert_close(
        made.training_step(batch(1), 0)["loss"], made(batch(1).images)["semantic"].square().mean()
    )


@pytest.mark.parametrize("heads", [("semantic",), ("semantic", "geometric")])
def test_each_term_of_a_sum_is_logged_apart(heads):
    described = spec(SCENES.modalities, {head: SCENES.heads[head] for head in heads})
    losses = {head: Sum({"a": CrossEntropy(), "b": Dice()}, {"a": 1, "b": 2}) for head in heads}
    made = training(task(TwoStreams(), described, losses=losses))
    logged = {}
    made.log = lambda name, value, **named: logged.update({name: value.item()})
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(1, m.channels, 8, 8, generator=generator) for name, m in SCENES.modalities.items()}
    given = Batch(
        images, {head: torch.randint(2, (1, 8, 8), generator=generator) for head in heads}, ("",), (0,), ((8, 8),)
    )
    loss = made.training_step(given, 0)["loss"].item()
    terms = {name: value for name, value in logged.items() if name != "train/loss"}
    middle = ("semantic/", "geometric/") if len(heads) > 1 else ("",)
    assert set(terms) == {f"train/{head}loss/{name}" for head in middle for name in "ab"}
    assert logged["train/loss"] == loss
    assert loss == pytest.approx(sum(value * (2 if name.endswith("b") else 1) for name, value in terms.items()))


def test_the_raw_image_comes_back_from_the_normalised():
    raw = np.array([[[0, 128, 255]]], np.float32)
    images = {"em": torch.from_numpy((raw - 100) / 50)}
    np.testing.assert_allclose(task().raw(images), raw, rtol=1e-6)


def test_images_padded_to_one_size_count_as_alone():
    made = task().eval()
    one, two = batch(1, side=20), batch(2, side=13)
    padded = Batch(
        images={"em": torch.cat([one.images["em"], nn.functional.pad(two.images["em"], (0, 7, 0, 7), value=9.0)])},
        targets={
            "semantic": torch.cat(
                [one.targets["semantic"], nn.functional.pad(two.targets["semantic"], (0, 7, 0, 7), value=255)]
            )
        },
        ids=("s1", "s2"),
        indices=(1, 2),
        sizes=((20, 20), (13, 13)),
    )
    made.validation_step(padded, 0)
    together = made.per_image("val")
    for state in made.states_of("val").values():
        state.reset()
    made.validation_step(one, 0)
    made.validation_step(two, 1)
    apart = made.per_image("val")
    np.testing.assert_array_equal(together[0], apart[0])
    np.testing.assert_array_equal(together[1]["semantic/confusion/matrix"], apart[1]["semantic/confusion/matrix"])


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_the_thread_count_is_in_force_before_the_first_step(stage):
    made = task(evaluation=Evaluation(threads=2))
    assert torch.get_num_threads() != 2
    try:
        made.setup(stage)
        assert torch.get_num_threads() == 2
    finally:
        use_threads(1)


def test_a_score_is_keyed_by_split_and_by_head_where_there_are_several():
    assert task().key("test", "semantic", "mean_iu") == "test/mean_iu"
    two = task(TwoStreams(), described=SCENES)
    assert two.key("val", "geometric", "pixel_acc") == "val/geometric/pixel_acc"
    two.test_split = "val"
    assert two.key("test", "semantic", "mean_iu") == "val/semantic/mean_iu"


def test_scores_that_are_for_the_test_only_cost_no_validation():
    slow = Overlap(("a", "b"), name="slow", test_only=True)
    made = SegmentationTask(unet(), spec(), {}, {"semantic": [slow]}, sgd, constant, Evaluation())
    assert (len(made.states_of("val")), len(made.states_of("test"))) == (0, 1)
    assert "test/mean_iu" in made.infos("test")
    assert made.infos("val") == {}


def test_channels_last_changes_the_layout_and_not_the_result():
    plain, last = task(unet()), task(unet(), channels_last=True)
    last.load_state_dict(plain.state_dict())
    assert last.model.conv_d0b_c.weight.is_contiguous(memory_format=torch.channels_last)
    given = batch(1).images
    torch.testing.assert_close(plain.eval()(given), last.eval()(given))


SCENES = spec(
    {"rgb": ModalitySpec(3, (0.0,) * 3, (255.0,) * 3, "level"), "depth": ModalitySpec(1, (2.0,), (1.0,), "m")},
    {
        "semantic": HeadSpec(("sky", "road", "tree"), ((0, 0, 0), (1, 1, 1), (2, 2, 2))),
        "geometric": HeadSpec(("flat", "upright"), ((0, 0, 0), (1, 1, 1))),
    },
)


class TwoStreams(nn.Module):
    """Two modalities in, two heads out, any size."""

    geometry = TileGeometry()

    def __init__(self):
        super().__init__()
        self.semantic, self.geometric = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 2, 1)

    def forward(self, images):
        both = torch.cat([images["rgb"], images["depth"]], 1)
        return {"semantic": self.semantic(both), "geometric": self.geometric(both)}


class Scenes:
    """Three images of other sizes; the labels follow from red and from depth."""

    spec = SCENES
    ids = ("a", "b", "c")

    def split(self, name):
        return self

    def __len__(self):
        return 3

    def read(self, index):
        rng = np.random.default_rng(index)
        rgb = rng.integers(0, 256, (8 + index, 9, 3), dtype=np.uint8)
        depth = rng.random((8 + index, 9), np.float32) * 4
        labels = {"semantic": (rgb[..., 0] // 86).astype(np.uint8), "geometric": (depth > 2).astype(np.uint8)}
        return RawImage({"rgb": rgb, "depth": depth}, labels, self.ids[index])


def test_two_modalities_and_two_heads_train_and_score(tmp_path):
    made = task(TwoStreams(), described=SCENES)
    data = SegmentationData(
        Scenes(), TileGeometry(), Augmentation(), seed=0, batch_size=3, repeats=4, eval_batch_size=2
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=30,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    with log_to(None):
        trainer.test(made, data, verbose=False)
        before = dict(made.scores["test"])
        trainer.fit(made, data)
        trainer.test(made, data, verbose=False)
    after = made.scores["test"]
    assert set(after) >= {"test/semantic/mean_iu", "test/geometric/mean_iu", "test/semantic/iu/tree"}
    assert after["test/geometric/mean_iu"] > max(0.9, before["test/geometric/mean_iu"])
    assert after["test/semantic/pixel_acc"] > before["test/semantic/pixel_acc"]
    indices, counts = made.per_image("test")
    assert indices.tolist() == [0, 1, 2]
    assert counts["semantic/confusion/matrix"].shape == (3, 3, 3)
    assert counts["geometric/confusion/matrix"].sum((1, 2)).tolist() == [72, 81, 90]
