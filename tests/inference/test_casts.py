import pytest
import torch
from torch import nn

from segbench.inference.casts import kept_casts
from segbench.inference.in_turn import in_turn


@pytest.mark.parametrize("enabled", [False, True])
def test_autocast_stays_on_or_off(enabled):
    layer, row = nn.Linear(3, 2), torch.ones(1, 3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        with kept_casts("cpu"):
            assert layer(row).dtype == (torch.bfloat16 if enabled else torch.float32)


def test_regions_within_it_cast_a_weight_once_and_those_after_it_again(casts):
    layer, row = nn.Linear(30, 20), torch.ones(1, 30)
    answers = []
    with torch.no_grad(), casts(torch.float32, 600) as counted:
        for passes in (1, 2):
            with kept_casts("cpu"):
                for _ in range(3):
                    with torch.autocast("cpu", torch.bfloat16):
                        answers.append(layer(row))
            assert len(counted.found) == passes
            layer.weight.mul_(2)
            layer.bias.mul_(2)
    assert torch.equal(answers[0], answers[2])
    assert torch.equal(2 * answers[0], answers[3])


def test_threads_that_take_turns_cast_a_weight_once_each(casts):
    layer = nn.Linear(30, 20)

    def cast(row):
        with torch.no_grad(), casts(torch.float32, 600) as counted:
            layer(row)
        return torch.is_autocast_enabled("cpu"), len(counted.found)

    with torch.autocast("cpu", torch.bfloat16):
        given = ((0, torch.ones(1, 30)) for _ in range(3))
        assert [answer for _, answer in in_turn([cast], given, [None])] == [(True, 1), (True, 0), (True, 0)]
