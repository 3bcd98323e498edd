import pytest

from segbench.runtime import workers
from segbench.runtime.hardware import impossible, settle
from segbench.runtime.workers import CORES, settle_workers


@pytest.fixture
def cores(monkeypatch):
    """`cores(count, quota, shared)`: what this machine has."""

    def there_are(count, quota=None, shared=2**33):
        monkeypatch.delenv(CORES, raising=False)
        monkeypatch.setattr(workers, "allowed_cores", lambda: set(range(count)))
        monkeypatch.setattr(workers, "cpu_quota", lambda: quota)
        monkeypatch.setattr(workers, "shared_memory", lambda: shared and (shared, 0))

    return there_are


@pytest.mark.parametrize(
    ("machine", "processes", "count"),
    [
        ((1,), 1, 0),
        ((2,), 1, 1),
        ((5,), 1, 4),
        ((64,), 1, 6),
        ((16,), 4, 3),
        ((8,), 8, 0),
        ((64, 3.5), 1, 2),
        ((64, None, 2**26), 1, 0),
        ((64, None, None), 1, 6),
    ],
)
def test_beside_a_gpu_the_cores_of_each_process_load_but_one(cores, machine, processes, count):
    cores(*machine)
    found, sentence = settle_workers(True, processes)
    assert found == count
    assert sentence.startswith(f"data.num_workers: {count} (")


def test_on_a_cpu_the_network_takes_the_cores(cores):
    cores(64)
    assert settle_workers(False, 1)[0] == 0


def test_a_sweep_divides_the_cores_among_its_jobs(cores, monkeypatch):
    cores(64)
    monkeypatch.setenv(CORES, "4")
    assert settle_workers(True, 1)[0] == 3


def test_the_number_is_settled_once_and_told(tiny_config, cores, gpus):
    gpus(2)
    cores(8)
    asked = tiny_config().replace(
        {"data.num_workers": "auto", "trainer.accelerator": "gpu", "trainer.devices": 2, "threads": 1}
    )
    settled, said = settle(asked)
    assert settled.data.num_workers == 3
    assert [sentence for sentence in said if "num_workers" in sentence] == [
        "data.num_workers: 3 (8 cores for 2 processes; data.num_workers=N sets another number)"
    ]
    again, said = settle(settled)
    assert again.data.num_workers == 3 and not any("num_workers" in sentence for sentence in said)


def test_a_resume_on_another_machine_settles_it_again(tiny_config, cores, gpus):
    gpus(1)
    cores(8)
    run = tiny_config().replace({"data.num_workers": 6, "trainer.accelerator": "gpu", "trainer.devices": 1})
    assert impossible(run, {"data.num_workers"}) == {}
    cores(2)
    assert impossible(run, {"data.num_workers"}) == {"data.num_workers": "auto"}
    # What the user asked for is not the machine's to change.
    assert impossible(run, set()) == {}
