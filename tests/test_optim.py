import itertools
import math

import pytest
import torch
from torch import nn

from segbench.optim import adamw, constant, cosine, sgd


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


def test_a_schedule_scales_both_groups_alike():
    net = nn.Conv2d(1, 1, 1)
    optimizer = sgd(net, lr=1.0, bias_lr_factor=2)
    scheduler = cosine(optimizer, total_steps=2)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 1.0])
