import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn

from segbench.errors import SegbenchError
from segbench.models import fcn32s
from segbench.training.optim import adamw, constant, cosine, freeze_others, poly, sgd


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1, bias=False))


def groups(optimizer):
    return {group["name"]: group for group in optimizer.param_groups}


def rates(schedule, steps, **arguments):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer, total_steps=steps, **arguments)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_every_trained_parameter_is_in_one_group(net):
    net[0].bias.requires_grad_(False)
    held = [id(p) for group in sgd(net, lr=0.1).param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters() if p.requires_grad)


def test_norms_and_biases_stand_together(net):
    by_name = groups(sgd(net, lr=0.1))
    assert {p.ndim for p in by_name["weight"]["params"]} == {4}
    assert {p.ndim for p in by_name["bias"]["params"]} == {1}


def test_biases_learn_twice_as_fast_and_undecayed_where_asked(net):
    by_name = groups(sgd(net, lr=0.1, weight_decay=5e-4, bias_lr_factor=2, bias_weight_decay=0.0))
    assert (by_name["weight"]["lr"], by_name["weight"]["weight_decay"]) == (0.1, 5e-4)
    assert (by_name["bias"]["lr"], by_name["bias"]["weight_decay"]) == (0.2, 0.0)


def test_sgd_decays_biases_as_weights_by_default(net):
    assert {group["weight_decay"] for group in sgd(net, lr=0.1, weight_decay=0.3).param_groups} == {0.3}


def test_adamw_spares_biases_and_norms_by_default(net):
    by_name = groups(adamw(net, lr=0.1))
    assert (by_name["weight"]["weight_decay"], by_name["bias"]["weight_decay"]) == (1e-2, 0.0)


def test_a_net_without_biases_has_one_group():
    assert [group["name"] for group in sgd(nn.Conv2d(1, 1, 1, bias=False), lr=0.1).param_groups] == ["weight"]


def test_two_steps_of_momentum_by_hand():
    # Gradient 1 throughout: v = 1, then 0.99 + 1; w = -0.1, then -0.1 - 0.1 * 1.99.
    net = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.zeros_(net.weight)
    optimizer = sgd(net, lr=0.1, momentum=0.99)
    for expected in (-0.1, -0.299):
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
        assert net.weight.item() == pytest.approx(expected)


def test_constant_rises_linearly_and_stays():
    assert rates(constant, 5) == [1.0] * 5
    assert rates(constant, 6, warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_cosine_falls_from_one_to_its_final_share():
    seen = rates(cosine, 100, final=0.1)
    assert seen[0] == 1.0
    assert seen[50] == pytest.approx(0.55)
    assert seen[99] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.99)))
    assert all(later < earlier for earlier, later in itertools.pairwise(seen))


def test_cosine_warms_up_first():
    seen = rates(cosine, 30, warmup_steps=10)
    assert seen[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert seen[10] == 1.0
    assert seen[20] == pytest.approx(0.5)


def test_cosine_shorter_than_its_warmup_never_divides_by_zero():
    assert rates(cosine, 2, warmup_steps=2) == pytest.approx([0.5, 1.0])


def test_poly_falls_by_its_power():
    # (1 - t)^0.9 at t = 0, 1/2 and 9/10; a power of 1 is a straight line; half of the way to a tenth is 0.55.
    seen = rates(poly, 10)
    assert (seen[0], seen[5], seen[9]) == pytest.approx((1.0, 0.535887, 0.125893), rel=1e-5)
    assert rates(poly, 4, power=1) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(poly, 4, power=1, final=0.1)[2] == pytest.approx(0.55)
    assert rates(poly, 4, power=2)[1] == pytest.approx(0.75**2)


def test_poly_warms_up_first():
    seen = rates(poly, 12, warmup_steps=4, power=1)
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert rates(poly, 2, warmup_steps=2) == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("schedule", [poly, cosine])
def test_a_schedule_rests_at_its_final_rate(schedule):
    # A resume may go on past the steps that the schedule was made for.
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    factor = schedule(optimizer, total_steps=10, final=0.2).lr_lambdas[0]
    assert [factor(step) for step in (10, 11, 99)] == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("power", [0, -1, math.nan])
def test_a_power_that_never_falls_is_refused(power):
    with pytest.raises(SegbenchError, match=r"scheduler\.power=.*\n.*above 0\n.*scheduler\.power=0\.9"):
        rates(poly, 4, power=power)


def test_a_schedule_scales_both_groups_alike():
    net = nn.Conv2d(1, 1, 1)
    optimizer = sgd(net, lr=1.0, bias_lr_factor=2)
    scheduler = cosine(optimizer, total_steps=2)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 1.0])


def test_the_named_layers_biases_alone_are_treated_apart():
    net = nn.ModuleDict({"conv1": nn.Conv2d(1, 2, 3), "score_fr": nn.Conv2d(2, 2, 1)})
    optimizer = sgd(net, lr=0.1, weight_decay=5e-4, bias_lr_factor=2, bias_weight_decay=0.0, bias_layers=["score_*"])
    by_name = groups(optimizer)
    assert [p is net["score_fr"].bias for p in by_name["bias"]["params"]] == [True]
    assert {id(p) for p in by_name["weight"]["params"]} == {
        id(net["conv1"].weight),
        id(net["conv1"].bias),
        id(net["score_fr"].weight),
    }


def test_bias_layers_that_match_nothing_are_refused(net):
    with pytest.raises(SegbenchError, match=r"optimizer\.bias_layers: no layer score_\*\n.*patterns of 0, 1\n"):
        sgd(net, lr=0.1, bias_layers=["score_*", "0"])


def test_only_the_named_layers_change_in_a_step():
    torch.manual_seed(0)
    net = fcn32s(num_classes=2, width=0.02, upsampling="learnable", dropout=0.0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trained, frozen = freeze_others(net, ["score_*"])
    assert trained == ["score_fr"]
    assert {"conv1_1", "fc7", "upscore"} <= set(frozen)
    optimizer = sgd(net, lr=0.1, weight_decay=0.1)
    net(torch.randn(1, 3, 8, 8)).square().sum().backward()
    net.score_fr.weight.grad += 1
    optimizer.step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"score_fr.weight"}
    assert {name for name, p in net.named_parameters() if p.grad is not None} == {"score_fr.weight", "score_fr.bias"}


def test_a_frozen_norm_keeps_its_statistics(net):
    freeze_others(net, ["2"])
    net(torch.randn(2, 1, 8, 8) + 5)
    assert not net[1].running_mean.any()
    assert all(group["params"] == [net[2].weight] for group in sgd(net, lr=0.1).param_groups)


def test_training_layers_that_are_not_there_is_refused(net):
    with pytest.raises(SegbenchError, match=r"task\.train_only: no layer conv\*\n.*patterns of 0, 1, 2\n.*correct"):
        freeze_others(net, ["conv*"])


def trained(make, order=torch.contiguous_format, state_order=None, resume=None, **arguments):
    """Weights after three steps with drawn gradients; the state may be saved and read in between, in another order."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4)).to(memory_format=order)
    optimizer = make(net, lr=0.1, weight_decay=0.1, **arguments)
    for step in range(3):
        torch.manual_seed(step)
        for parameter in net.parameters():
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()
        if state_order is not None:
            saved = optimizer.state_dict()
            for state in saved["state"].values():
                for name, each in state.items():
                    state[name] = each.contiguous(memory_format=state_order) if each.ndim == 4 else each
            optimizer = make(net, lr=0.1, weight_decay=0.1, **(resume or arguments))
            optimizer.load_state_dict(saved)
    return torch.cat([parameter.detach().reshape(-1) for parameter in net.parameters()])


@pytest.mark.parametrize(
    "make",
    [partial(sgd, bias_lr_factor=2.0), partial(sgd, nesterov=True, momentum=0.9), adamw],
    ids=["biases", "nesterov", "adamw"],
)
def test_a_fused_step_is_the_step_in_every_memory_order(make):
    plain = trained(make, fused=False)
    for order, state_order in itertools.product((torch.contiguous_format, torch.channels_last), repeat=2):
        # Gradients here are contiguous, whatever the weights are.
        assert torch.allclose(trained(make, order, state_order), plain, rtol=0, atol=1e-6)


def test_a_checkpoint_of_a_plain_optimiser_goes_on_as_it_began():
    plain = trained(adamw, fused=False)
    resumed = trained(adamw, state_order=torch.contiguous_format, resume={"fused": True}, fused=False)
    assert torch.equal(resumed, plain)


def test_no_fused_step_where_there_is_none(net):
    assert adamw(net.to("meta"), lr=0.1).param_groups[0]["fused"] is None
