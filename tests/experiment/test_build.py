import lightning
import pytest
import torch

from segbench.cli.list import options
from segbench.config.packaged import conf_root
from segbench.config.record import Component
from segbench.errors import SegbenchError
from segbench.experiment.build import (
    build_data,
    build_dataset,
    build_dataset_spec,
    build_experiment,
    build_measures,
    build_model,
    build_task,
    make,
)
from segbench.experiment.trainer import build_trainer
from segbench.losses import Loss
from segbench.runs.directory import Run
from segbench.runtime.log import log_to
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec, TileGeometry
from segbench.training.checkpoint import load_weights

REFUSED = r"_target_: {}, which a config that was handed over.*\n.*packaged target.*\n.*SEGBENCH_TARGETS={}"


def spec(**heads):
    return DatasetSpec("d", {"em": ModalitySpec(1, (0.0,), (1.0,), "")}, heads, "", "", "")


@pytest.mark.parametrize("target", ["torch.hub.load", "os.system", "segbench.models.unet.tile_geometry"])
def test_a_target_that_no_packaged_config_names_is_refused(target):
    with pytest.raises(SegbenchError, match=REFUSED.format(target, target)):
        make(Component(target=target))


def test_a_target_hidden_inside_an_allowed_one_is_refused():
    transforms = [{"_target_": "os.system", "command": "true"}]
    hidden = Component(target="segbench.data.augment.Augmentation", transforms=transforms)
    with pytest.raises(SegbenchError, match=REFUSED.format(r"os\.system", r"os\.system")):
        make(hidden)


def test_a_config_that_is_nobodys_own_cannot_name_a_foreign_target(compose, tmp_path):
    given = compose("name=tiny", "model._target_=torch.hub.load", "+model.repo_or_dir=x", "+model.source=local")
    with pytest.raises(SegbenchError, match=r"torch\.hub\.load, which a config that was handed over"):
        build_task(given, build_dataset(given.data, given.weights).spec)


def test_a_metrics_target_is_checked_before_it_is_looked_at():
    with pytest.raises(SegbenchError, match=r"antigravity\.nothing, which a config that was handed over"):
        build_measures({"m": Component(target="antigravity.nothing")}, spec(semantic=HeadSpec(("a",), ((0, 0, 0),))))


def test_a_user_may_allow_a_target(monkeypatch):
    monkeypatch.setenv("SEGBENCH_TARGETS", "fractions.Fraction")
    assert make(Component(target="fractions.Fraction", numerator=3), denominator=6) == 0.5


def test_a_run_cannot_widen_the_list(tiny_config, tmp_path):
    recorded = tiny_config().replace({"SEGBENCH_TARGETS": "os.system", "model": {"_target_": "os.system"}})
    with Run.create(tmp_path / "run", recorded, []) as run:
        read = run.config()
    with pytest.raises(SegbenchError, match=r"os\.system, which a config that was handed over"):
        build_task(read, build_dataset(read.data, read.weights).spec)


def test_a_config_without_target_is_refused(tiny):
    with pytest.raises(SegbenchError, match=r"without model\._target_\n.*a value.*\n.*add model\._target_=\.\.\."):
        tiny.replace({"model": {"width": 3}})


def test_arguments_pass_as_they_are(tmp_path):
    # Hydra alone would turn dataclasses and paths into configs.
    made = make(Component(target="segbench.training.callbacks.pictures.Panels", count=2), directory=tmp_path)
    assert (made._directory, made._count) == (tmp_path, 2)


@pytest.mark.parametrize("name", options("loss", [conf_root()]))
def test_every_loss_is_built_with_the_heads_void_label(tiny_config, name):
    given = tiny_config(f"loss={name}")
    (loss,) = build_task(given, spec(semantic=HeadSpec(("a", "b"), ((0, 0, 0),) * 2, ignore_index=9))).losses.values()
    assert {part.ignore_index for part in loss.modules() if isinstance(part, Loss)} == {9}
    assert loss.additive


def test_the_factors_of_a_sum_and_its_terms_are_of_the_config(tiny_config):
    given = tiny_config("loss=cross_entropy_dice", "loss.weights.dice=0.5", "loss.terms.dice.squared=true")
    (loss,) = build_task(given, build_dataset(given.data, given.weights).spec).losses.values()
    assert loss.weights == {"cross_entropy": 1.0, "dice": 0.5}
    assert loss._terms["dice"].squared


def test_a_sum_with_a_weighted_term_gets_the_map(tiny_config):
    given = tiny_config("loss=weighted_cross_entropy_dice")
    dataset = build_dataset(given.data, given.weights)
    (loss,) = build_task(given, dataset.spec).losses.values()
    data = build_data(given, dataset, TileGeometry(4, 12, 20, 8, 20))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert loss.needs_weight and batch.weight.max() > 1
    given = given.replace({"loss.weight_map": None})
    with pytest.raises(SegbenchError, match=r"weighted loss without loss\.weight_map"):
        build_task(given, dataset.spec)


@pytest.mark.parametrize("name", options("scheduler", [conf_root()]))
def test_every_schedule_warms_up_over_the_runs_own_steps(tiny_config, tmp_path, name):
    given = tiny_config(f"scheduler={name}", "scheduler.warmup_steps=4", "optimizer.lr=1.0", "trainer.max_steps=8")
    task = build_task(given, build_dataset(given.data, given.weights).spec)
    task.trainer = build_trainer(given, tmp_path, [], [])
    schedule = task.configure_optimizers()["lr_scheduler"]["scheduler"]
    factors = [schedule.lr_lambdas[0](step) for step in range(9)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert factors[8] == (1 if name == "constant" else 0)


def test_a_training_without_an_end_is_told(tiny_config, tmp_path):
    given = tiny_config("trainer.max_steps=-1", "trainer.max_epochs=-1")
    task = build_task(given, build_dataset(given.data, given.weights).spec)
    task.trainer = build_trainer(given, tmp_path, [], [])
    with pytest.raises(SegbenchError, match=r"max_steps=-1 and .*\n.*steps or of epochs\n.*trainer\.max_steps=N"):
        task.configure_optimizers()


def test_the_data_set_sizes_the_model(tiny):
    two = DatasetSpec(
        "d",
        {"rgb": ModalitySpec(3, (0.0,) * 3, (1.0,) * 3, "")},
        {"s": HeadSpec(tuple("abcde"), ((0, 0, 0),) * 5)},
        "",
        "",
        "",
    )
    model = build_model(tiny.model, two)
    assert (model.conv_d0a_b.in_channels, model.conv_u0d_score.out_channels) == (3, 5)


def test_a_measure_learns_the_heads_class_names():
    head = HeadSpec(("sky", "road"), ((0, 0, 0), (1, 1, 1)), excluded=(1,))
    given = {"confusion": Component(target="segbench.metrics.confusion.Overlap"), "off": None}
    (measure,) = build_measures(given, spec(semantic=head))["semantic"]
    assert (measure.class_names, measure.excluded, measure.name) == (("sky", "road"), (1,), "confusion")


def test_weights_are_a_function_of_the_seed(tiny_config):
    def first_weights(seed):
        given = tiny_config(f"seed={seed}")
        return build_task(given, build_dataset(given.data, given.weights).spec).model.conv_d0a_b.weight

    assert torch.equal(first_weights(0), first_weights(0))
    assert not torch.equal(first_weights(0), first_weights(1))


def test_seed_0_is_a_seed(tiny):
    torch.manual_seed(123)
    one = build_task(tiny, build_dataset(tiny.data, tiny.weights).spec).model.conv_d0a_b.weight
    torch.manual_seed(456)
    assert torch.equal(one, build_task(tiny, build_dataset(tiny.data, tiny.weights).spec).model.conv_d0a_b.weight)


def test_a_weighted_loss_without_a_map_is_refused(tiny_config):
    given = tiny_config("loss=weighted_cross_entropy")
    given = given.replace({"loss.weight_map": None})
    with pytest.raises(
        SegbenchError, match=r"a weighted loss without loss\.weight_map\n.*\n.*loss=weighted_cross_entropy"
    ):
        build_task(given, build_dataset(given.data, given.weights).spec)


def test_a_weighted_loss_brings_its_map_to_the_samples(tiny_config):
    given = tiny_config("loss=weighted_cross_entropy")
    dataset = build_dataset(given.data, given.weights)
    data = build_data(given, dataset, build_task(given, dataset.spec).model.geometry)
    batch = next(iter(data.train_dataloader()))
    assert batch.weight.shape == batch.targets["semantic"].shape
    assert batch.weight.max() > 1


def test_a_tile_that_the_model_does_not_take_is_refused(tiny_config):
    given = tiny_config("data.tile=61")
    dataset = build_dataset(given.data, given.weights)
    with pytest.raises(SegbenchError, match=r"61 pixels \(data\.tile\)\n.*12 \+ 4 k pixels.*\n.*use 60 or 64"):
        build_data(given, dataset, build_task(given, dataset.spec).model.geometry)


def test_a_run_tells_its_data_set(tiny_run, tiny):
    assert build_dataset_spec(Run.open(tiny_run)) == build_dataset(tiny.data, tiny.weights).spec


def test_a_run_that_does_not_is_refused(tmp_path):
    with pytest.raises(SegbenchError, match=r"no .*dataset\.json\n.*written at the run's start\n.*train it again"):
        build_dataset_spec(Run(tmp_path))


def test_weights_load_from_a_checkpoint(tiny, tiny_run):
    task = build_task(tiny.replace({"seed": 9}), build_dataset(tiny.data, tiny.weights).spec)
    path = Run.open(tiny_run).checkpoint("last")
    assert load_weights(task.model, path) == 3
    stored = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, stored[f"model.{name}"]) for name, value in task.model.state_dict().items())


def test_a_damaged_checkpoint_is_refused(tiny, tiny_run, tmp_path):
    whole = Run.open(tiny_run).checkpoint("last").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    task = build_task(tiny, build_dataset(tiny.data, tiny.weights).spec)
    with pytest.raises(
        SegbenchError, match=r"half\.ckpt cannot be read: (.|\n)*whole checkpoint.*\n.*checkpoint=best\|last"
    ):
        load_weights(task.model, tmp_path / "half.ckpt")


def test_a_checkpoint_that_would_run_code_is_refused(tiny, tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": {}, "global_step": 0, "code": Code()}, tmp_path / "code.ckpt")
    with pytest.raises(SegbenchError, match=r"code\.ckpt cannot be read"):
        load_weights(build_task(tiny, build_dataset(tiny.data, tiny.weights).spec).model, tmp_path / "code.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_no_checkpoint_of_ours_is_refused(tiny, tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(SegbenchError, match=r"other\.ckpt holds no state_dict.*\n.*\n.*own checkpoint"):
        load_weights(build_task(tiny, build_dataset(tiny.data, tiny.weights).spec).model, tmp_path / "other.ckpt")


def test_weights_of_another_network_are_refused(tiny_config, tiny_run):
    given = tiny_config("model.width=6")
    task = build_task(given, build_dataset(given.data, given.weights).spec)
    with pytest.raises(
        SegbenchError, match=r"last\.ckpt: \d+ weights do not fit the network, first conv_d0a_b\..*\n.*\n.*run=RUN"
    ):
        load_weights(task.model, Run.open(tiny_run).checkpoint("last"))


@pytest.mark.parametrize(
    ("precision", "clip", "fused"),
    [("16-mixed", 1.0, None), ("16-mixed", None, True), ("bf16-mixed", 1.0, True), ("32-true", 1.0, True)],
)
def test_scaled_gradients_that_are_clipped_take_no_fused_step(tiny, precision, clip, fused):
    config = tiny.replace(
        {"trainer.accelerator": "gpu", "trainer.precision": precision, "trainer.gradient_clip_val": clip}
    )
    task = build_task(config, spec(a=HeadSpec(("x", "y"), ((0, 0, 0), (1, 1, 1)))))
    assert task._optimizer(task.model).param_groups[0]["fused"] is fused


@pytest.mark.parametrize(
    ("precision", "optimizer", "told"),
    [
        ("16-true", "adamw", True),
        ("16-true", "sgd", False),
        ("32-true", "adamw", False),
        ("bf16-true", "adamw", False),
    ],
)
@pytest.mark.filterwarnings("ignore:.*for historical reasons")
def test_an_epsilon_that_the_precision_rounds_to_nothing_is_told(
    tiny_config, tmp_path, caplog, precision, optimizer, told
):
    config = tiny_config(f"optimizer={optimizer}", f"trainer.precision='{precision}'").replace({"callbacks": {}})
    build_experiment(config, tmp_path)
    found = [line for line in caplog.messages if "optimizer.eps" in line]
    assert len(found) == told
    if told:
        assert "trainer.precision=16-true rounds optimizer.eps=1e-08 to 0" in found[0]


@pytest.mark.parametrize(("tile", "measured"), [(None, False), (60, True)])
def test_cudnn_measures_no_whole_images_that_a_training_scores(tiny_config, tmp_path, monkeypatch, tile, measured):
    seen = []

    class Seen(lightning.Callback):
        def on_train_batch_end(self, *arguments, **named):
            seen.append(("train", torch.backends.cudnn.benchmark))

        def on_validation_batch_end(self, *arguments, **named):
            seen.append(("val", torch.backends.cudnn.benchmark))

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    asked = {
        "trainer.benchmark": True,
        "tile": tile,
        "callbacks": {},
        "trainer.max_steps": 1,
        "trainer.val_check_interval": 1,
    }
    experiment = build_experiment(tiny_config().replace(asked), tmp_path)
    experiment.trainer.callbacks.append(Seen())
    with log_to(None):
        experiment.trainer.fit(experiment.task, experiment.data)
    assert set(seen) == {("train", True), ("val", measured)}
