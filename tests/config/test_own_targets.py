"""Overrides that name another class: no plus signs, and no arguments of the class that was replaced."""

import inspect

import lightning
import pytest

from segbench.config import own_targets
from segbench.config.own_targets import AXES, TRAINER, opened, without_leftovers
from segbench.config.packaged import conf_root, read_yaml
from segbench.config.trust import handed_over
from segbench.errors import SegbenchError


def test_the_trainers_arguments_are_those_of_lightning():
    axes = {"callbacks", "logger", "use_distributed_sampler"}
    # Ours alone: it would count padded samples twice.
    assert set(TRAINER) | axes == set(inspect.signature(lightning.Trainer).parameters)


def test_the_axes_are_those_of_the_config():
    picked = {
        key for entry in read_yaml(conf_root() / "train.yaml")["defaults"] if isinstance(entry, dict) for key in entry
    }
    assert set(AXES) <= picked


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["trainer.fast_dev_run=true"], ["++trainer.fast_dev_run=true"]),
        (["weights.path=a.pth", "weights.nmae=a"], ["++weights.path=a.pth", "weights.nmae=a"]),
        (["trainer.fast_dev_rum=true"], ["trainer.fast_dev_rum=true"]),
        (["optimizer.momentum=0.9"], ["optimizer.momentum=0.9"]),
        (
            ["optimizer._target_=torch.optim.RMSprop", "optimizer.momentum=0.9"],
            ["++optimizer._target_=torch.optim.RMSprop", "++optimizer.momentum=0.9"],
        ),
        (["callbacks.a._target_=x.Y", "callbacks.b.c=1"], ["++callbacks.a._target_=x.Y", "callbacks.b.c=1"]),
        (["metrics.f={_target_: x.Y, c: [1,2]}"], ["++metrics.f={_target_: x.Y, c: [1,2]}"]),
        (
            ["loss={_target_: x.Y, c: {_target_: z.Z}}", "loss.d=1"],
            ["loss={_target_: x.Y, c: {_target_: z.Z}}", "++loss.d=1"],
        ),
        (["loss={_target_: x.Y},{_target_: z.Z}"], ["loss={_target_: x.Y},{_target_: z.Z}"]),
        (["data.classes={a: 1}", "loss={_target_: "], ["data.classes={a: 1}", "loss={_target_: "]),
        (
            ["mine._target_=x.Y", "model=unet", "~loss.reduction"],
            ["mine._target_=x.Y", "model=unet", "~loss.reduction"],
        ),
    ],
)
def test_keys_of_a_class_that_is_named_need_no_plus_sign(given, expected):
    assert opened(given) == expected


@pytest.mark.parametrize("axis", ["callbacks", "logger", "metrics"])
@pytest.mark.parametrize("given", ["{}._target_=x.Y", "{}={{_target_: x.Y}}"])
def test_a_class_of_an_axis_of_several_has_a_name(axis, given):
    with pytest.raises(SegbenchError, match=rf"{axis}._target_=x.Y.*\n.*\n.*write {axis}.NAME._target_=x.Y"):
        opened([given.format(axis)])


def test_what_a_mapping_replaces_is_left_out_too(capsys):
    own_targets._tell.cache_clear()
    tree = {"optimizer": {"_target_": "torch.optim.RMSprop", "lr": 1.0, "betas": [0, 1]}}
    left = without_leftovers(tree, ["optimizer={_target_: torch.optim.RMSprop, lr: 1.0}"])
    assert left == {"optimizer": {"_target_": "torch.optim.RMSprop", "lr": 1.0}}
    assert "optimizer.betas left out" in capsys.readouterr().err
    assert without_leftovers(tree, ["optimizer={_target_: torch.optim.RMSprop, betas: [0,1]}"]) == tree


def test_what_came_with_the_replaced_class_is_left_out_and_told_once(capsys):
    own_targets._tell.cache_clear()
    tree = {"optimizer": {"_target_": "torch.optim.RMSprop", "lr": 1.0, "betas": [0, 1], "bias_lr_factor": 2.0}}
    given = ["++optimizer._target_=torch.optim.RMSprop"]
    for _ in range(2):
        left = without_leftovers(tree, given)
    assert left == {"optimizer": {"_target_": "torch.optim.RMSprop", "lr": 1.0, "bias_lr_factor": 2.0}}
    assert capsys.readouterr().err == "optimizer.betas left out: torch.optim.RMSprop does not take them\n"
    # What is typed stays, and is refused later; so does what a file names.
    assert without_leftovers(tree, [*given, "optimizer.betas=[0,1]"]) == tree
    assert without_leftovers(tree, []) == tree


def test_what_a_file_names_is_not_imported():
    tree = {"model": {"_target_": "antigravity.nothing", "a": 1}}
    with handed_over():
        assert without_leftovers(tree, ["model._target_=antigravity.nothing"]) == tree


def test_a_misspelt_argument_of_the_trainer_is_told_the_right_one(call):
    code, _, err = call("train", "trainer.fast_dev_rum=true")
    assert code == 1 and "did you mean trainer.fast_dev_run=true?" in err
