"""The Trainer and its callbacks, as a config asks for them."""

import importlib

import lightning
import pytest
import torch

from segbench.config.record import Component
from segbench.errors import SegbenchError
from segbench.experiment.build import build_data, build_dataset, build_task
from segbench.experiment.trainer import build_callbacks, build_trainer
from segbench.runtime.log import log_to
from segbench.training.callbacks.checkpoints import Checkpoints
from segbench.training.callbacks.in_step import InStep

DDP = "lightning.pytorch.strategies.DDPStrategy"


class Probabilities(lightning.Callback):
    """Keeps what each image was scored by, and writes how often a weight was cast until then."""

    def __init__(self, counted):
        self.counted, self.casts, self.prob_KHW = counted, [], []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.casts.append(len(self.counted.found))
        self.prob_KHW += [torch.from_numpy(result["semantic"].prob_KHW) for result in outputs["results"]]


def test_a_callbacks_target_is_checked_before_it_is_looked_at(tiny, tmp_path):
    callbacks = {"mine": Component(target="antigravity.nothing")}
    with pytest.raises(SegbenchError, match=r"antigravity\.nothing, which a config that was handed over"):
        build_callbacks(callbacks, tmp_path, build_task(tiny, build_dataset(tiny.data, tiny.weights).spec))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer.strategy": "nonsense"}, r"Trainer refuses its arguments: .*invalid strategy name"),
        ({"trainer.max_time": "soon"}, r"Trainer refuses its arguments: .*not a valid duration"),
        ({"trainer.gradient_clip_algorithm": "x"}, r"Trainer refuses its arguments: .*`gradient_clip_algorithm` x"),
    ],
)
def test_what_another_package_refuses_is_told_in_three_parts(tiny, tmp_path, changes, message):
    with pytest.raises(SegbenchError, match=message):
        build_trainer(tiny.replace(changes), tmp_path, [], [])


def test_clipping_and_accumulation_are_picks_of_the_trainer(tiny_config, tmp_path):
    picked = ("trainer.gradient_clip_val=0.5", "trainer.accumulate_grad_batches=3", "data.repeats=9")
    made = build_trainer(tiny_config(*picked), tmp_path, [], [])
    assert (made.gradient_clip_val, made.gradient_clip_algorithm, made.accumulate_grad_batches) == (0.5, "norm", 3)


@pytest.mark.parametrize(("monitor", "higher"), [("val/mean_iu", True), ("val/rand_error", False), ("val/x", True)])
def test_the_monitored_score_brings_its_direction(tiny_config, tmp_path, monitor, higher):
    given = tiny_config(f"callbacks.checkpoint.monitor={monitor}")
    callbacks = build_callbacks(
        given.callbacks, tmp_path, build_task(given, build_dataset(given.data, given.weights).spec)
    )
    (checkpoints,) = [callback for callback in callbacks if isinstance(callback, Checkpoints)]
    assert checkpoints._sign == (1.0 if higher else -1.0)


def test_a_callback_set_to_null_is_left_out(tiny_config, tmp_path):
    given = tiny_config("callbacks.panels=null", "callbacks.progress=null")
    callbacks = build_callbacks(
        given.callbacks, tmp_path, build_task(given, build_dataset(given.data, given.weights).spec)
    )
    assert {type(callback).__name__ for callback in callbacks}.isdisjoint({"Panels", "RunProgress"})
    assert all(isinstance(callback, lightning.Callback) for callback in callbacks)


def test_tasks_of_srun_that_see_one_gpu_each_train_together(tiny, tmp_path, monkeypatch, gpus):
    gpus(1)
    tasks = {"PROCID": "6", "LOCALID": "2", "NODEID": "1", "NTASKS": "8", "STEP_NUM_TASKS": "8", "GPUS_PER_TASK": "1"}
    for name, value in (tasks | {"NTASKS_PER_NODE": "4", "NNODES": "2", "JOB_ID": "1", "NODELIST": "a"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    changes = {"trainer.accelerator": "gpu", "trainer.devices": 4, "trainer.num_nodes": 2, "trainer.strategy": "ddp"}
    # The process's own rank, which the trainer sets.
    for module in ("lightning.fabric.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero"):
        monkeypatch.setattr(importlib.import_module(module).rank_zero_only, "rank", 0)
    trainer = build_trainer(tiny.replace({**changes, "trainer.sync_batchnorm": False}), tmp_path, [], [])
    assert (trainer.world_size, trainer.global_rank) == (8, 6)
    assert trainer.strategy.root_device == torch.device("cuda:0")


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ("ddp", {"gradient_as_bucket_view": True}),
        ("ddp_find_unused_parameters_true", {"find_unused_parameters": True}),
        ({"_target_": DDP, "static_graph": True, "bucket_cap_mb": 5}, {"static_graph": True, "bucket_cap_mb": 5}),
    ],
    ids=["ddp", "another name", "a class with arguments"],
)
def test_options_of_ddp_are_ours_by_name_and_the_users_by_class(tiny, tmp_path, asked, options):
    changes = {"trainer.strategy": asked, "trainer.sync_batchnorm": False}
    trainer = build_trainer(tiny.replace(changes), tmp_path, [], [])
    assert trainer.strategy._ddp_kwargs == options


@pytest.mark.parametrize(("on_gpu", "waits"), [(False, 7.0), (True, 67.0)])
def test_nccls_watchdog_comes_after_the_waits_on_the_cpu(tiny_config, tmp_path, monkeypatch, on_gpu, waits):
    from segbench.config.record import Trainer
    from segbench.experiment import trainer as trainers

    told = []
    monkeypatch.setattr(trainers, "wait_at_most", lambda trainer, seconds: told.append(seconds))
    monkeypatch.setattr(Trainer, "on_gpu", on_gpu)
    config = tiny_config("runtime.timeout_s=7", "trainer.accelerator=cpu")
    trainer = build_trainer(config, tmp_path, [], [])
    (in_step,) = (each for each in trainer.callbacks if isinstance(each, InStep))
    assert (told, in_step._patience.total_seconds()) == ([waits], 7.0)


def test_validations_cast_the_weights_once_each_and_never_stale(tiny_config, tmp_path, casts, monkeypatch):
    from segbench.experiment import trainer as trainers

    def scored(name):
        config = tiny_config("trainer.precision=bf16-mixed", "optimizer.lr=0.1", "scheduler.warmup_steps=0")
        torch.manual_seed(0)
        dataset = build_dataset(config.data, config.weights)
        task = build_task(config, dataset.spec)
        weight = max((each for each in task.model.parameters()), key=torch.numel)
        seen = Probabilities(casts(torch.float32, weight.numel()))
        changes = {"trainer.max_steps": 2, "trainer.val_check_interval": 1, "callbacks": {}}
        trainer = build_trainer(config.replace(changes), tmp_path / name, [seen], [])
        with log_to(None), seen.counted:
            trainer.fit(task, build_data(config, dataset, task.model.geometry))
        assert not torch.is_autocast_enabled("cpu")
        assert torch.autocast_increment_nesting() - 1 == torch.autocast_decrement_nesting() == 0
        return seen

    once = scored("once")
    monkeypatch.setattr(trainers, "evaluate_within", lambda trainer, context: None)
    each = scored("each")
    images = len(once.casts) // 2
    # A training step casts too; within a validation only the first image does.
    assert images > 1
    for pass_ in (once.casts[:images], once.casts[images:]):
        assert len(set(pass_)) == 1
    assert len(set(each.casts)) == 2 * images
    assert len(once.prob_KHW) == len(each.prob_KHW)
    assert all(torch.equal(one, other) for one, other in zip(once.prob_KHW, each.prob_KHW, strict=True))
    assert not torch.equal(once.prob_KHW[0], once.prob_KHW[images])


def test_a_validation_that_fails_keeps_no_casts(tiny_config, tmp_path):
    class Failing(lightning.Callback):
        def on_validation_batch_end(self, *arguments, **named):
            raise RuntimeError("as asked")

    config = tiny_config("trainer.precision=bf16-mixed").replace({"callbacks": {}})
    dataset = build_dataset(config.data, config.weights)
    task = build_task(config, dataset.spec)
    with log_to(None), pytest.raises(RuntimeError, match="as asked"):
        build_trainer(config, tmp_path, [Failing()], []).validate(
            task, build_data(config, dataset, task.model.geometry)
        )
    assert torch.autocast_increment_nesting() == 1
    torch.autocast_decrement_nesting()
