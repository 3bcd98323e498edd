import pytest
import torch

from segbench.errors import SegbenchError
from segbench.runtime import hardware
from segbench.runtime.hardware import impossible, machine, settle


@pytest.fixture
def tiny(tiny_config):
    return tiny_config()


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_gpu_asked_for_where_there_is_none_is_refused(tiny, monkeypatch, accelerator):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    tiny = tiny.replace({"trainer.accelerator": accelerator})
    with pytest.raises(
        SegbenchError, match=rf"trainer\.accelerator={accelerator} on a machine without.*\n.*\n.*trainer=cpu"
    ):
        settle(tiny)


def test_more_gpus_than_there_are_is_refused(tiny, gpus):
    gpus(1)
    tiny = tiny.replace({"trainer.accelerator": "gpu", "trainer.devices": 2})
    with pytest.raises(SegbenchError, match=r"trainer\.devices=2\n.*at most the 1 GPUs here"):
        settle(tiny)


@pytest.mark.parametrize(("bf16", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_takes_bf16_and_channels_last_where_the_cpu_has_them_and_says_so(tiny, monkeypatch, bf16, precision):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(hardware, "_cpu_computes_bf16", lambda: bf16)
    tiny = tiny.replace({"trainer.accelerator": "auto", "trainer.precision": "auto"})
    tiny = tiny.replace({"task.channels_last": "auto", "threads": "auto"})
    tiny, said = settle(tiny)
    assert (tiny.trainer.accelerator, tiny.trainer.precision) == ("cpu", precision)
    assert tiny.task.channels_last is bf16
    assert tiny.threads >= 1
    assert said[0] == "device: CPU"
    assert f"precision: {precision} (trainer.precision=32-true turns bf16 off)" in said
    assert f"channels_last: {bf16} (task.channels_last=false turns it off)" in said


def test_what_is_asked_for_stays(tiny):
    tiny, _ = settle(tiny)
    assert (tiny.trainer.precision, tiny.task.channels_last, tiny.threads) == ("32-true", False, 1)


@pytest.mark.parametrize(("devices", "resolved"), [(1, 1), (3, 3), ("auto", 3), (-1, 3), ([0, 2], [0, 2])], ids=str)
def test_gpus_are_counted(tiny, gpus, devices, resolved):
    gpus(3)
    tiny = tiny.replace({"trainer.accelerator": "gpu", "trainer.devices": devices})
    tiny, _ = settle(tiny)
    assert tiny.trainer.devices == resolved


@pytest.mark.parametrize("devices", [0, 4, [0, 3], [], "two"], ids=str)
def test_gpus_that_are_not_there_are_refused(tiny, gpus, devices):
    gpus(3)
    tiny = tiny.replace({"trainer.accelerator": "gpu", "trainer.devices": devices})
    with pytest.raises(SegbenchError, match=r"at most the 3 GPUs here, or their numbers, \[0\] to \[2\]"):
        settle(tiny)


@pytest.mark.parametrize(("devices", "resolved"), [(1, 1), (7, 7), ("auto", 1), (-1, 1)], ids=str)
def test_processes_on_a_cpu_may_be_more_than_its_cores(tiny, devices, resolved):
    tiny = tiny.replace({"trainer.devices": devices})
    tiny, _ = settle(tiny)
    assert tiny.trainer.processes == resolved


@pytest.mark.parametrize("devices", [0, -2, [0, 1], "two"], ids=str)
def test_no_number_of_processes_on_a_cpu_is_refused(tiny, devices):
    tiny = tiny.replace({"trainer.devices": devices})
    with pytest.raises(SegbenchError, match=r"on a CPU\n.*a number of processes, at least 1"):
        settle(tiny)


def test_several_machines_need_somebody_who_starts_processes_there(tiny):
    tiny = tiny.replace({"trainer.num_nodes": 2})
    with pytest.raises(SegbenchError, match=r"num_nodes=2 without torchrun or srun\n.*\n.*torchrun --nnodes 2"):
        settle(tiny)


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "said"),
    [
        (
            {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"},
            *(2, 3, "torchrun: 2 processes on each of 3 machines"),
        ),
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4"}, 4, 1, "torchrun: 4 processes"),
        (
            {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2"},
            *(2, 2, "srun: 2 processes on each of 2 machines"),
        ),
    ],
    ids=["torchrun on three", "torchrun", "srun"],
)
def test_processes_that_were_started_are_counted(tiny, monkeypatch, environment, devices, nodes, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tiny, sentences = settle(tiny)
    assert (tiny.trainer.devices, tiny.trainer.num_nodes) == (devices, nodes)
    assert said in sentences


FOUR_TASKS = {"SLURM_PROCID": "6", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize("told", [{"SLURM_GPUS_PER_TASK": "1"}, {"SLURM_GPUS_ON_NODE": "4"}], ids=str)
def test_tasks_of_srun_may_see_one_gpu_each(tiny, monkeypatch, gpus, told):
    gpus(1)
    for name, value in (FOUR_TASKS | told).items():
        monkeypatch.setenv(name, value)
    settled, _ = settle(tiny.replace({"trainer.accelerator": "gpu"}))
    assert (settled.trainer.devices, settled.trainer.num_nodes) == (4, 2)


def test_tasks_of_srun_that_share_a_gpu_are_refused(tiny, monkeypatch, gpus):
    gpus(1)
    for name, value in (FOUR_TASKS | {"SLURM_GPUS_ON_NODE": "1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SegbenchError, match=r"trainer\.devices=4\n.*at most the 1 GPUs here"):
        settle(tiny.replace({"trainer.accelerator": "gpu"}))


@pytest.mark.parametrize(
    ("accelerator", "devices", "expected"), [("gpu", 2, True), ("gpu", 1, False), ("cpu", 2, False)]
)
def test_norms_of_several_gpus_are_one(tiny, gpus, accelerator, devices, expected):
    gpus(2)
    tiny = tiny.replace({"trainer.accelerator": accelerator, "trainer.devices": devices})
    assert tiny.trainer.sync_batchnorm == "auto"
    tiny, _ = settle(tiny)
    assert tiny.trainer.sync_batchnorm is expected


def test_what_decides_about_the_last_bits_is_recorded(tiny):
    tiny = tiny.replace({"trainer.devices": 2})
    tiny, _ = settle(tiny)
    recorded = machine(tiny)
    assert recorded == {
        "device": "CPU",
        "cuda": None,
        "tf32": False,
        "benchmark": False,
        "cudnn": None,
        "processes": 2,
        "threads": 1,
        "precision": "32-true",
        "deterministic": False,
    }


def test_what_this_machine_cannot_do_is_left_to_it(tiny, monkeypatch, gpus):
    settled = {"trainer.accelerator", "trainer.devices", "trainer.precision", "task.channels_last"}
    gpus(4)
    elsewhere = {"trainer.accelerator": "gpu", "trainer.devices": 4, "trainer.precision": "bf16-mixed"}
    run = tiny.replace(elsewhere)
    assert impossible(run, settled) == {}
    gpus(2)
    assert impossible(run, settled) == {"trainer.devices": "auto"}
    gpus(2, computes_bf16=False)
    assert impossible(run, settled) == {"trainer.devices": "auto", "trainer.precision": "auto"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert impossible(run, settled) == {"trainer.accelerator": "auto", "trainer.devices": "auto"}
    gpus(4)
    monkeypatch.setattr("segbench.runtime.threads.allowed_cores", lambda: set(range(8)))
    # As many as one process had.
    assert impossible(run.replace({"threads": 8}), {"threads"}) == {"threads": "auto"}
    assert impossible(run.replace({"threads": 2}), {"threads"}) == {}
    # What the user asked for is not the machine's to change.
    assert impossible(run, {"task.channels_last"}) == {}


@pytest.mark.parametrize(("computes_bf16", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_that_emulates_bf16_computes_in_float32(tiny, gpus, computes_bf16, precision):
    gpus(1, computes_bf16)
    tiny, _ = settle(tiny.replace({"trainer.accelerator": "gpu", "trainer.precision": "auto"}))
    assert tiny.trainer.precision == precision


@pytest.mark.parametrize("deterministic", [True, "warn", False])
def test_cudnn_does_not_choose_by_time_where_runs_shall_be_equal(tiny, gpus, deterministic):
    gpus(1)
    asked = {"trainer.accelerator": "gpu", "trainer.benchmark": True, "trainer.deterministic": deterministic}
    settled, said = settle(tiny.replace(asked))
    assert settled.trainer.benchmark is not bool(deterministic)
    assert any(sentence.startswith("trainer.benchmark: off") for sentence in said) is bool(deterministic)


@pytest.mark.parametrize(
    ("accelerator", "tile", "deterministic", "on"),
    [
        ("gpu", 60, False, True),
        ("gpu", "auto", False, True),
        ("gpu", None, False, False),
        ("gpu", 60, True, False),
        ("gpu", 60, "warn", False),
        ("cpu", 60, False, False),
    ],
)
def test_cudnn_chooses_by_time_for_tiles_of_one_size(tiny, gpus, accelerator, tile, deterministic, on):
    gpus(1)
    asked = {"trainer.accelerator": accelerator, "data.tile": tile, "trainer.deterministic": deterministic}
    settled, said = settle(tiny.replace({"trainer.benchmark": "auto"} | asked))
    assert settled.trainer.benchmark is on
    assert machine(settled)["benchmark"] is on
    told = [sentence for sentence in said if "benchmark" in sentence]
    assert len(told) == (accelerator == "gpu" and not deterministic)


@pytest.mark.parametrize(
    ("asked", "settled", "recorded"),
    [("auto", False, False), (True, True, True), (False, False, False), (None, None, True)],
)
def test_tf32_is_settled_and_recorded(tiny, gpus, monkeypatch, asked, settled, recorded):
    # Of runs of older versions nothing is known: there it is torch's choice, which is to round in convolutions.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    gpus(1)
    config, said = settle(tiny.replace({"trainer.accelerator": "gpu", "trainer.allow_tf32": asked}))
    assert any(sentence.startswith("TF32: off (trainer.allow_tf32=true") for sentence in said) is (asked == "auto")
    assert config.trainer.allow_tf32 is settled
    assert machine(config) == {
        "device": "a GPU",
        "device_memory_gib": 80.0,
        "cuda": torch.version.cuda,
        "cudnn": 91002,
        "tf32": recorded,
        "benchmark": True,
        "processes": 1,
        "threads": 1,
        "precision": "32-true",
        "deterministic": False,
    }


def test_a_gpu_without_tf32_has_none(tiny, gpus, monkeypatch):
    gpus(1)
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: False)
    config, _ = settle(tiny.replace({"trainer.accelerator": "gpu", "trainer.allow_tf32": True}))
    assert machine(config)["tf32"] is False


@pytest.mark.gpu
def test_what_a_gpu_is_settled_to_is_recorded(tiny):
    settled, said = settle(tiny.replace({"trainer.accelerator": "gpu", "trainer.precision": "auto"}))
    assert settled.trainer.precision == ("bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "32-true")
    recorded = machine(settled)
    assert recorded["device"] == torch.cuda.get_device_name()
    assert recorded["device_memory_gib"] > 1
    assert recorded["cudnn"] > 0
    assert said[0] == f"device: {recorded['device']}"
