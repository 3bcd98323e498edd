"""Energy is added up from the machine's counters, round their wraps and over a resume."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from segbench.errors import SegbenchError
from segbench.training.callbacks import energy
from segbench.training.callbacks.energy import Energy, meters

FIRST = SimpleNamespace(is_global_zero=True)


@pytest.fixture
def powercap(tmp_path):
    """Two packages, one of them with a part that is counted in it."""
    for name, value in (("intel-rapl:0", 900), ("intel-rapl:0:0", 5), ("intel-rapl:1", 100)):
        folder = tmp_path / "powercap" / name
        folder.mkdir(parents=True)
        (folder / "energy_uj").write_text(f"{value}000000\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")
    return tmp_path / "powercap"


def set_joules(powercap, package, value):
    (powercap / f"intel-rapl:{package}" / "energy_uj").write_text(f"{value}000000\n")


def test_packages_are_added_and_wrap_round(powercap, tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "_EVERY_S", 0.0)
    assert len(meters(powercap)) == 2
    callback = Energy(tmp_path, powercap)
    callback.on_fit_start(FIRST, None)
    set_joules(powercap, 0, 50)
    set_joules(powercap, 1, 130)
    callback.on_train_batch_end(FIRST, None, None, None, 0)
    assert json.loads((tmp_path / "energy.json").read_text()) == {"joules": 180.0, "meters": 2}
    set_joules(powercap, 0, 60)
    callback.on_fit_end(FIRST, None)
    resumed = Energy(tmp_path, powercap)
    resumed.on_fit_start(FIRST, None)
    set_joules(powercap, 1, 135)
    resumed.on_fit_end(FIRST, None)
    assert json.loads((tmp_path / "energy.json").read_text())["joules"] == 195.0


def test_without_meters_and_on_other_ranks_nothing_is_written(powercap, tmp_path):
    for callback, trainer in (
        (Energy(tmp_path, tmp_path / "none"), FIRST),
        (Energy(tmp_path, powercap), SimpleNamespace(is_global_zero=False)),
    ):
        callback.on_fit_start(trainer, None)
        callback.on_train_batch_end(trainer, None, None, None, 0)
        callback.on_fit_end(trainer, None)
    assert not (tmp_path / "energy.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"joules": -1}', '{"joules": "a"}'])
def test_a_damaged_record_is_named(powercap, tmp_path, content):
    (tmp_path / "energy.json").write_text(content)
    with pytest.raises(SegbenchError, match=r"energy\.json is damaged"):
        Energy(tmp_path, powercap).on_fit_start(FIRST, None)


class NvmlError(Exception):
    """The class of NVML's own errors, which the stand-in module calls NVMLError."""


@pytest.fixture
def nvml(monkeypatch):
    """`nvml(joules, error=None)`: a stand-in of pynvml for GPUs of such counters, whose query may raise."""

    def installed(*joules, error=None):
        def consumed(device):
            if error is not None:
                raise error
            return joules[device] * 1000

        module = ModuleType("pynvml")
        module.NVMLError = NvmlError
        module.nvmlInit = lambda: None
        module.nvmlDeviceGetCount = lambda: len(joules)
        module.nvmlDeviceGetHandleByIndex = lambda index: index
        module.nvmlDeviceGetTotalEnergyConsumption = consumed
        monkeypatch.setitem(sys.modules, "pynvml", module)

    return installed


def test_counters_of_gpus_are_read_in_joules(nvml, tmp_path):
    nvml(7, 9)
    assert [meter() for meter in meters(tmp_path)] == [(7.0, None), (9.0, None)]


def test_a_gpu_without_a_counter_is_left_out_and_a_wrong_call_is_not(nvml, tmp_path):
    nvml(7, error=NvmlError("Not Supported"))
    assert meters(tmp_path) == []
    nvml(7, error=TypeError("a wrong argument"))
    with pytest.raises(TypeError, match="a wrong argument"):
        meters(tmp_path)


def test_without_the_module_there_are_no_meters_of_gpus(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert meters(tmp_path) == []
