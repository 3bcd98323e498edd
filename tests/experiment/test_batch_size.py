import pytest
import torch
from tests.fixtures.numbered import NumberedData

from segbench.errors import SegbenchError
from segbench.experiment.batch_size import largest, settle_batch_size, train_step
from segbench.experiment.build import build_task, refuse_misfits_of
from segbench.experiment.settled_by_data import asks_data, settle_by_data


@pytest.mark.parametrize(("fits", "bound", "found"), [(5, 64, 4), (8, 64, 8), (100, 64, 64), (100, 6, 4), (1, 64, 1)])
@pytest.mark.parametrize("spares", [True, False])
def test_the_largest_power_of_two_that_fits_is_found(fits, bound, found, spares):
    tried = []

    def step(size):
        tried.append(size)
        if size > fits and spares:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return size <= fits

    assert largest(step, bound) == found
    assert max(tried) <= bound


def test_an_image_alone_that_does_not_fit_is_an_error():
    def step(size):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        largest(step, 64)


def test_on_a_cpu_a_rule_stands_in_for_memory_and_is_recorded(tiny_config):
    config = tiny_config("data.batch_size=auto", "trainer.accelerator=cpu")
    assert asks_data(config)
    refuse_misfits_of(config)
    settled, (sentence,) = settle_by_data(config, NumberedData())
    assert settled.data.batch_size == 4
    assert sentence == "data.batch_size: 4 (on a CPU; optimizer.lr stays as it is)"
    assert settle_by_data(settled, NumberedData()) == (settled, [])


def test_images_of_many_sizes_are_refused(tiny_config):
    with pytest.raises(SegbenchError, match=r"data\.batch_size=auto without data\.tile\n.*\n.*data\.tile=auto"):
        settle_batch_size(tiny_config("data.batch_size=auto", "data.tile=null"), NumberedData())


def test_a_batch_on_a_gpu_is_tried_until_its_step_does_not_fit(tiny_config, gpus, monkeypatch):
    gpus(1)
    steps = []

    def step(task, config, size, device):
        steps.append((size, config.data.tile, str(device)))
        if size > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("segbench.experiment.batch_size.train_step", step)
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 2**30)
    config = tiny_config("data.batch_size=auto", "trainer.accelerator=gpu", "data.repeats=100")
    assert settle_batch_size(config, NumberedData())[0] == {"data.batch_size": 8}
    assert steps == [(size, 60, "cuda:0") for size in (1, 2, 4, 8, 16)]


@pytest.mark.parametrize(
    "overrides",
    [
        ("trainer.precision=bf16-mixed",),
        ("loss=weighted_cross_entropy", "optimizer=sgd"),
        ("trainer.precision=bf16-true",),
    ],
    ids=["mixed", "weighted", "bfloat16"],
)
def test_a_trial_is_a_whole_step(tiny_config, overrides):
    config = tiny_config(*overrides)
    task = build_task(config, NumberedData.spec)
    before = [each.detach().clone() for each in task.model.parameters()]
    train_step(task, config, 2, torch.device("cpu"))
    assert any(
        not torch.equal(old.to(new.dtype), new) for old, new in zip(before, task.model.parameters(), strict=True)
    )
