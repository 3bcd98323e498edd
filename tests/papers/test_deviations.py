"""What differs from the paper's protocol is named, what has no effect is not."""

import pytest

from segbench.papers.deviations import deviations, not_comparable

PROVENANCE = {"processor": "a processor", "cpus": 2}
RESULTS = {"timing": {"steps": 30000.0}, "protocol": {"precision": "32-true"}}


@pytest.fixture
def reference(compose, drawn_isbi):
    return compose("experiment=unet_isbi_em", "name=unet_isbi_em", f"data.root={drawn_isbi}")


def said(config, reference, results=RESULTS):
    return deviations(config, reference, results, PROVENANCE)


def test_the_row_itself_has_but_its_own_and_the_hardware(reference):
    assert said(reference, reference) == [*reference.paper.deviations, "hardware: GPU"]


def test_what_changes_no_score_is_not_named(reference):
    other = reference.replace(
        {
            **{"seed": 7, "threads": 1, "tile": 256, "name": "other"},
            **{"data.root": "elsewhere", "data.num_workers": 9, "data.eval_batch_size": 3},
            **{"trainer.devices": 4, "trainer.accelerator": "cpu", "trainer.val_check_interval": 7},
        }
    )
    assert said(other, reference)[2:] == ["hardware: a processor, 2 cores"]


def test_keys_groups_steps_precision_and_selection_are_named(reference, compose, drawn_isbi):
    cpu = compose("experiment=unet_isbi_em_cpu", "name=x", f"data.root={drawn_isbi}", "trainer.max_steps=50")
    cpu = cpu.replace({"callbacks.checkpoint.monitor": None})
    results = {"timing": {"steps": 40.0}, "protocol": {"precision": "bf16-mixed"}}
    named = said(cpu, reference, results)
    assert "model.width: 32 instead of 64" in named
    assert "trainer.max_steps: 50 instead of 30000" in named
    assert any(each.startswith("optimizer: adamw(lr 0.001") and "instead of sgd(lr 0.001" in each for each in named)
    assert "40 of the 50 configured steps" in named
    assert "computed in bf16-mixed, the paper in float32" in named
    assert "checkpoint chosen by nothing: the last one instead of val/mean_iu" in named


def test_another_augmentation_is_told_whole(reference):
    other = reference.replace({"augment.transforms": []})
    assert "augment: [] instead of [RigidElastic, RandomBrightnessContrast, RandomGamma]" in said(other, reference)
    other = reference.replace({"augment.transforms.0.sigma": 5, "task.train_only": ["head"], "task.compile": True})
    assert "task.train_only: ['head'] instead of None" in said(other, reference)
    assert "augment.transforms.0.sigma: 5 instead of 10" in said(other, reference)


def test_other_images_make_two_numbers_incomparable(reference):
    assert not_comparable(reference, reference) == [reference.paper.not_comparable]
    other = reference.replace({"data.fold": 3})
    assert "data.fold=3 where the row has None" in not_comparable(other, reference)
    assert len(not_comparable(other.replace({"paper": None}), reference)) == 1


def test_training_from_a_given_run_is_named(reference):
    staged = reference.replace({"stages": ["fcn32s_voc"]})
    assert "started from a given run instead of the earlier stages" in said(
        staged.replace({"init_from": "run"}), staged
    )
