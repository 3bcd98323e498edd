"""Whatever differs from the paper's protocol is named; only what is known to have no effect is not."""

from dataclasses import replace
from functools import cache

import hydra
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.config.composed import resolved
from segbench.config.composing import composing
from segbench.config.no_effect import is_without_effect
from segbench.config.paper import paper_blocks
from segbench.config.record import Config
from segbench.errors import SegbenchError
from segbench.experiment.stages import Stage
from segbench.papers.deviations import Conduct, deviations, looked_at, not_comparable
from segbench.runs.history import Leg

PROVENANCE = {"processor": "a processor", "cpus": 2, "versions": {"segbench": "1"}, "git": {"commit": "a" * 40}}
RESULTS = {"timing": {"steps": 30000.0}, "protocol": {"precision": "32-true"}}
ONE_LEG = (Leg(0, provenance=PROVENANCE),)
OF_SEVENS = "averaged over 8 symmetries (tta=d4), the paper averages over 7 turned copies"


def conduct(config, legs=ONE_LEG, results=RESULTS, stages=None):
    return Conduct(config, config.tree, legs, results, PROVENANCE, stages or {})


@pytest.fixture
def reference(compose, drawn_isbi):
    return compose("experiment=unet_isbi_em", "name=unet_isbi_em", f"data.root={drawn_isbi}")


def test_the_row_itself_has_its_own_deviations_and_the_hardware(reference):
    looked = f"test images that were looked at before: {reference.paper.looked_at['null']}"
    always = [*reference.paper.deviations, looked, OF_SEVENS, "hardware: a processor, 2 cores"]
    assert deviations(conduct(reference), reference) == always
    unseen = reference.replace({"data.fold": 2})
    assert looked_at(reference) is not None and looked_at(unseen) is None


def test_what_changes_no_score_is_not_named(reference):
    other = reference.replace(
        {
            **{"seed": 7, "threads": 1, "name": "other", "data.root": "elsewhere", "data.num_workers": 9},
            **{"data.eval_batch_size": 3, "trainer.accelerator": "cpu", "callbacks.panels": None},
            **{"task.compile": True, "logger.csv._target_": "lightning.pytorch.loggers.CSVLogger"},
        }
    )
    assert deviations(conduct(other), reference) == deviations(conduct(reference), reference)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model.width": 32}, "model.width: 32 instead of 64"),
        ({"tile": 256}, "tile: 256 instead of None"),
        ({"trainer.val_check_interval": 7}, "trainer.val_check_interval: 7 instead of 500"),
        ({"trainer.limit_test_batches": 2}, "trainer.limit_test_batches: 2 instead of None"),
        ({"trainer.fast_dev_run": True}, "trainer.fast_dev_run: True instead of None"),
        ({"metrics.v_rand": None}, "metrics.v_rand: None instead of VRand"),
        ({"loss.weight_map.balance": "none"}, "loss.weight_map.balance: none instead of image"),
        ({"optimizer.bias_lr_factor": 2.0}, "optimizer.bias_lr_factor: 2.0 instead of 1.0"),
        ({"augment.transforms.0.sigma": 5}, "augment.transforms.0.sigma: 5 instead of 10"),
        ({"callbacks.checkpoint.monitor": None}, "callbacks.checkpoint.monitor: None instead of val/rand_error"),
        ({"init_from": "run"}, "started from a given run"),
        ({"my_own": {"key": 1}}, "my_own.key: 1 instead of None"),
        ({"tta": "none"}, "not averaged over symmetries (tta=none), the paper averages over 7 turned copies"),
        (
            {"tta": "multiscale", "tta_scales": [0.5, 1]},
            "averaged over 2 scales, each also mirrored (tta=multiscale), the paper averages over 7 turned copies",
        ),
        ({"input_scale": 2.0}, "input_scale: 2.0 instead of None"),
        (
            {"callbacks.ema": {"_target_": "mine.Averaging", "decay": 0.9}},
            "callbacks.ema: mine.Averaging(decay 0.9) instead of None",
        ),
        (
            {"callbacks.panels": {"_target_": "mine.Averaging", "count": 4}},
            "callbacks.panels: mine.Averaging(count 4) instead of None",
        ),
        (
            {"augment.transforms": []},
            "augment.transforms: [] instead of [RigidElastic, RandomBrightnessContrast, RandomGamma]",
        ),
        (
            {"trainer.devices": 4, "trainer.accumulate_grad_batches": 2},
            "effective batch: 8 (devices 4 x nodes 1 x batch 1 x accumulation 2) instead of "
            "1 (devices 1 x nodes 1 x batch 1 x accumulation 1)",
        ),
        (
            {"scheduler": {"_target_": "segbench.training.optim.cosine", "final": 0.0}},
            "scheduler: cosine(final 0.0) instead of constant(warmup_steps 0)",
        ),
    ],
)
def test_any_other_setting_is_named(reference, changes, named):
    assert named in deviations(conduct(reference.replace(changes)), reference)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data.protocol": "trainaug"}, ["data.protocol: trainaug instead of seg11valid"]),
        (
            {"data.train": "trainaug", "data.test": "voc2012_val"},
            ["data.train: trainaug instead of None", "data.test: voc2012_val instead of None"],
        ),
    ],
)
def test_trainaug_is_another_protocol_than_the_papers(compose, changes, named):
    reference = compose("experiment=fcn32s_voc", "name=fcn32s_voc")
    other = reference.replace(changes)
    assert {*named} <= {*deviations(conduct(other), reference)} - {*deviations(conduct(reference), reference)}
    assert not_comparable(other, reference) and not not_comparable(reference, reference)


def test_scales_are_named_where_a_paper_averages_over_nothing(compose):
    reference = compose("experiment=fcn32s_voc", "name=fcn32s_voc")
    other = reference.replace({"tta": "multiscale"})
    named = {*deviations(conduct(other), reference)} - {*deviations(conduct(reference), reference)}
    assert named == {"tta: multiscale instead of none"}
    other = other.replace({"tta_scales": [1.0]})
    assert "tta_scales: [1.0] instead of None" in deviations(conduct(other), reference)


def test_what_the_machine_settled_is_no_deviation_and_what_the_user_set_is(reference):
    settled = reference.replace({"trainer.sync_batchnorm": True})
    by_machine = conduct(settled, (Leg(0, settled={"trainer.sync_batchnorm": True}, provenance=PROVENANCE),))
    named = "trainer.sync_batchnorm: True instead of auto"
    assert named not in deviations(by_machine, reference)
    assert named in deviations(conduct(settled), reference)
    # Version 0.1.0 recorded no history.
    assert named not in deviations(conduct(settled, ()), reference)


def test_what_the_data_settled_is_named_as_it_was_asked_for(reference):
    balance = {"data.balance": {"membrane": 0.5, "cell": 0.5}}
    balanced = reference.replace(balance)
    settled = {"data.balance": None, "data.balance.membrane": 0.5, "data.balance.cell": 0.5}
    named = deviations(conduct(balanced, (Leg(0, settled=settled, provenance=PROVENANCE),)), reference)
    assert "data.balance: auto instead of None" in named
    assert not any(each.startswith("data.balance.") for each in named)
    assert any(each.startswith("data.balance.cell: 0.5") for each in deviations(conduct(balanced), reference))
    # Tiles are drawn otherwise; what is scored stays.
    assert not_comparable(balanced, reference) == not_comparable(reference, reference)


def test_history_precision_and_code_are_named(reference):
    dirty = PROVENANCE | {"git": {"commit": "b" * 40, "dirty": True}, "own_code": {"mine.Loss": "c" * 64}}
    legs = (
        Leg(0, provenance=PROVENANCE),
        Leg(9, {"trainer.max_steps": 60}, provenance=dirty, accepted=("the class names differ",)),
    )
    ended = {
        "timing": {"steps": 40.0},
        "protocol": {"precision": "bf16-mixed", "ended_by": "trainer.max_time"},
    }
    done = Conduct(reference.replace({"trainer.max_steps": 60}), reference.tree, legs, ended, PROVENANCE, {})
    named = deviations(done, reference)
    for each in (
        "trainer.max_steps: 60 instead of 30000",
        "continued at step 9: trainer.max_steps 30000 -> 60, the class names differ",
        "40 of the 60 configured steps",
        "training was ended by trainer.max_time",
        "computed in bf16-mixed, the paper in float32",
        "code: changes that are in no commit, on top of bbbbbbbbbb",
        "code: goes on with commit bbbbbbbbbb of version 1, after aaaaaaaaaa of 1",
        "code: mine.Loss, a class of the user's (sha256 cccccccccccc)",
    ):
        assert each in named


def test_stages_that_are_skipped_replaced_or_run_otherwise_are_named(reference):
    staged = reference.replace({"stages": ["first", "second"]})
    stages = (Stage("first", reference, []), Stage("second", reference, []))
    as_the_row = {name: conduct(reference.replace({"init_from": f"run/stages/{name}"})) for name in ("first", "second")}
    assert not [each for each in deviations(conduct(staged, stages=as_the_row), staged, stages) if "stage" in each]
    other = as_the_row | {"second": conduct(reference.replace({"model.width": 8}))}
    assert "stage second: model.width: 8 instead of 64" in deviations(conduct(staged, stages=other), staged, stages)
    assert "stages left out: first, second" in deviations(conduct(staged), staged, stages)
    given_run = staged.replace({"init_from": "run", "stages": None})
    assert "started from a given run instead of the stages first, second" in deviations(
        conduct(given_run), staged, stages
    )
    more = as_the_row | {"third": conduct(reference)}
    assert "a stage that the row does not have: third" in deviations(conduct(staged, stages=more), staged, stages)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data.fold": 3}, "data.fold=3 where the row has None"),
        ({"data.of_tomorrow": 1}, "data.of_tomorrow=1 where the row has None"),
        ({"metrics.rand_error._target_": "mine.Rand"}, "metrics.rand_error._target_=mine.Rand where the row has"),
    ],
)
def test_other_images_labels_or_definitions_make_two_numbers_incomparable(reference, changes, reason):
    assert not_comparable(reference, reference) == [reference.paper.not_comparable]
    found = not_comparable(reference.replace(changes), reference)
    assert any(each.startswith(reason) for each in found)


def test_how_the_data_train_leaves_the_score_comparable(reference):
    other = reference.replace({"data.batch_size": 9, "data.tile": 188, "data.repeats": 3})
    assert not_comparable(other, reference) == [reference.paper.not_comparable]


@cache
def rows():
    """Every experiment of a row, with the row's own."""
    composed = {}

    def once(name):
        if name not in composed:
            overrides = [f"experiment={name}", f"name={name}", "data.root=folder"]
            with composing("train", overrides):
                composed[name] = Config.of(resolved(hydra.compose("train", overrides)))
        return composed[name]

    return {name: (once(name), once(block.get("experiment", name))) for name, block in paper_blocks().items()}


def _others(value):
    """Values of other kinds and of the same, one of which a key may have instead."""
    numbers = [value + 1, value * 2 + 1] if isinstance(value, int | float) and not isinstance(value, bool) else []
    flipped = [not value] if isinstance(value, bool) else []
    return [*flipped, *numbers, "rot4", "other", 3, 0.5, True, False, None, [], ["other"], {"key": 1}]


@settings(max_examples=200, deadline=None)
@given(picks=st.tuples(*[st.integers(0, 2**16)] * 3))
def test_each_setting_of_every_experiment_is_named_or_known_to_have_no_effect(picks):
    name = sorted(rows())[picks[0] % len(rows())]
    config, reference = rows()[name]
    keys = [key for key in config.flat if key.split(".")[0] != "paper"]
    key = keys[picks[1] % len(keys)]
    others = [each for each in _others(config.flat[key]) if each != config.flat[key]]
    value = others[picks[2] % len(others)]
    try:
        other = config.replace({key: value})
    except SegbenchError:
        return
    if key == "trainer.devices" and other.trainer.processes == config.trainer.processes:
        # Other devices, as many.
        return
    before, after = (deviations(conduct(each), reference) for each in (config, other))
    # 0 and False are one value, where a number is meant.
    same_as_the_row = other.flat.get(key) == reference.flat.get(key)
    # Another class under a known key may do anything.
    hidden = all(is_without_effect(key, each.flat) for each in (config, other) if key in each.flat)
    hidden = hidden or key in ("trainer.accelerator", "trainer.precision", "trainer.allow_tf32")
    assert (before == after) == hidden or same_as_the_row, (name, key, value)


@pytest.mark.parametrize(("monitor", "scored", "named"), [("val/rand_error", "last", True), (None, "last", False)])
def test_another_checkpoint_than_the_run_s_own_is_named(reference, monitor, scored, named):
    results = RESULTS | {"protocol": {"precision": "32-true", "checkpoint": scored}}
    done = replace(conduct(reference.replace({"callbacks.checkpoint.monitor": monitor})), results=results)
    assert ("scored by its last checkpoint instead of its best one" in deviations(done, reference)) == named


@pytest.mark.parametrize(
    ("metrics", "reported", "named"),
    [
        ({"test/rand_error": 0.1}, "last", False),
        ({"test/rand_error": 0.1, "val/rand_error": 0.1}, "last", True),
        ({"test/rand_error": 0.1}, "best", True),
    ],
)
def test_where_nothing_is_validated_the_last_checkpoint_is_the_run_s_own(reference, metrics, reported, named):
    results = RESULTS | {"metrics": metrics, "protocol": {"precision": "32-true", "checkpoint": reported}}
    evaluation = RESULTS | {"protocol": {"precision": "32-true", "checkpoint": "last"}, "provenance": PROVENANCE}
    done = replace(conduct(reference), results=results, evaluation=evaluation)
    assert ("scored by its last checkpoint instead of its best one" in deviations(done, reference)) == named


def test_precision_is_named_by_what_the_run_computed_in(reference):
    half = replace(conduct(reference), results=RESULTS | {"protocol": {"precision": "16-mixed"}})
    assert "computed in 16-mixed, the paper in float32" in deviations(half, reference)
