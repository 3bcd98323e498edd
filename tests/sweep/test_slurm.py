import shutil
import subprocess

import pytest

from segbench.sweep.slurm import SlurmJobs, SlurmOptions, has_gpus

LISTING = "cpu* (null)\nlong (null)\na100 gpu:a100:4(S:0-1)\nmixed (null)\nmixed gpu:2\n"


@pytest.mark.parametrize(
    ("partition", "expected"),
    [(None, False), ("long", False), ("a100", True), ("mixed", True), ("cpu,a100", True), ("other", False)],
)
def test_partitions_with_gpus_are_known(partition, expected):
    assert has_gpus(LISTING, partition) is expected
    assert has_gpus("gpus* gpu:8\n", None)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(**options)`: jobs on a cluster whose partition a100 has GPUs."""
    pytest.importorskip("submitit", reason="submitit, which hands jobs to Slurm, is not installed")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    answer = subprocess.CompletedProcess([], 0, stdout=LISTING)
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **named: answer)

    def made(devices_per_job=None, **options):
        return SlurmJobs(tmp_path, tmp_path, SlurmOptions.read(options), devices_per_job=devices_per_job)

    return made


@pytest.mark.parametrize(
    ("accelerator", "options", "gpus", "why"),
    [
        ("auto", {"partition": "a100"}, 2, "trainer.accelerator=auto, and the partition has GPUs"),
        ("auto", {"partition": "long"}, 0, "the partition has none, by sinfo; gpus_per_node=N asks for some"),
        ("auto", {"partition": "a100", "gpus_per_node": 0}, 0, "hydra.launcher.slurm.gpus_per_node"),
        ("auto", {"partition": "a100", "devices_per_job": 4}, 4, "the partition has GPUs"),
        ("gpu", {"partition": "long"}, 2, "trainer.accelerator=gpu"),
        ("cpu", {"partition": "a100"}, 0, "trainer.accelerator=cpu"),
    ],
)
def test_gpus_are_asked_for_where_there_are_some(tiny_config, machine, accelerator, options, gpus, why):
    config = tiny_config().replace({"trainer.accelerator": accelerator, "trainer.devices": 2})
    jobs = machine(**options)
    assert jobs._size(config)["gpus_per_node"] == (gpus or None)
    (sentence,) = jobs.told({"0": config})
    assert sentence.startswith(f"1 job: {gpus} GPUs a node (")
    assert why in sentence


@pytest.mark.parametrize(
    ("workers", "threads", "asked", "cores"),
    [(0, "auto", None, 1), (7, "auto", None, 8), (2, 4, None, 4), (7, 1, 2, 2)],
)
def test_cores_are_those_of_the_loaders_or_threads(tiny_config, machine, workers, threads, asked, cores):
    config = tiny_config().replace({"data.num_workers": workers, "threads": threads})
    assert machine(cpus_per_task=asked)._size(config)["cpus_per_task"] == cores


@pytest.mark.parametrize(("accelerator", "cores"), [("cpu", 1), ("gpu", 7)])
def test_loaders_that_the_node_will_settle_get_cores_beside_a_gpu(tiny_config, machine, accelerator, cores):
    config = tiny_config().replace({"data.num_workers": "auto", "threads": "auto", "trainer.accelerator": accelerator})
    assert machine()._size(config)["cpus_per_task"] == cores
