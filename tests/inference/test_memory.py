import pytest
import torch
from torch import nn

from segbench.inference.memory import extrapolated_bytes, free_bytes, least_bytes_per_pixel


def test_the_widest_layer_counts_with_its_input_and_output():
    # 1 -> 4 channels is 20 bytes a pixel, 4 -> 8 is 48, 8 -> 2 is 40.
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 1)).eval()
    assert least_bytes_per_pixel(model, torch.zeros(1, 1, 6, 10)) == 48
    assert not any(layer._forward_hooks for layer in model)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)

    def forward(self, images):
        return self.layer(torch.cat([images["rgb"][:, :2], images["depth"]], 1))


def test_several_modalities_are_weighed_as_they_come():
    images = {"rgb": torch.zeros(1, 3, 4, 4), "depth": torch.zeros(1, 1, 4, 4)}
    assert least_bytes_per_pixel(TwoInputs().eval(), images) == 16


def test_a_wide_padding_counts_on_each_side_once():
    # 1 channel of (s + 200)^2 in, 3 out, each of 4 bytes.
    model = nn.Sequential(nn.ZeroPad2d(100), nn.Conv2d(1, 3, 1)).eval()
    needed = extrapolated_bytes(model, lambda side: torch.zeros(1, 1, side, side), 1000, 3000)
    assert needed == pytest.approx(16 * 1200 * 3200, rel=1e-6)


def test_free_memory_is_the_smaller_of_the_machines_and_the_containers(tmp_path):
    meminfo, limit, used = tmp_path / "meminfo", tmp_path / "max", tmp_path / "current"
    assert free_bytes(meminfo, limit, used) == float("inf")
    meminfo.write_text("MemTotal:       2000 kB\nMemAvailable:   1000 kB\n")
    assert free_bytes(meminfo, limit, used) == 1000 * 1024
    limit.write_text("max\n")
    used.write_text("1000\n")
    assert free_bytes(meminfo, limit, used) == 1000 * 1024
    limit.write_text("4000\n")
    assert free_bytes(meminfo, limit, used) == 3000
