import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from tests.fixtures.numbered import Numbered, NumberedData, flips

from segbench.config.explain import of_torch
from segbench.data.datamodule import SegmentationData
from segbench.errors import memory_ran_out
from segbench.spec import TileGeometry


def loader(monkeypatch, source=Numbered):
    monkeypatch.setattr(NumberedData, "split", lambda self, name: source())
    data = SegmentationData(NumberedData(), TileGeometry(), flips(), seed=0, batch_size=2, num_workers=1)
    made = data.evaluation_loader("test")
    # Of a reader that waits for ever: an error that is none of those expected.
    made.timeout = 20
    return made


def test_a_batch_that_does_not_fit_into_shared_memory_is_told_and_not_waited_for(monkeypatch):
    def full(self, *rest):
        raise RuntimeError("unable to mmap 7200 bytes from file </torch_12_1_2>: Cannot allocate memory (12)")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    with pytest.raises(RuntimeError, match="in DataLoader worker process") as caught:
        list(loader(monkeypatch))
    told = of_torch(caught.value)
    assert told.found == "a loading process ran out of memory"
    assert "fewer data.num_workers" in told.action and "train resume=RUN" in told.action


class Crowded(Numbered):
    def read(self, index):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**20,) * 2)
        torch.zeros(2**25)
        return super().read(index)


def test_a_loading_process_without_memory_says_so(monkeypatch):
    with pytest.raises(RuntimeError, match="in DataLoader worker process") as caught:
        list(loader(monkeypatch, Crowded))
    assert memory_ran_out(caught.value)
    assert of_torch(caught.value).found == "a loading process ran out of memory"


class Killed(Numbered):
    def read(self, index):
        assert multiprocessing.parent_process() is not None
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_loading_process_that_the_system_kills_is_told_with_the_remedy(monkeypatch):
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid") as caught:
        list(loader(monkeypatch, Killed))
    told = of_torch(caught.value)
    assert told.found.startswith("a loading process ended: (pid") and "fewer data.num_workers" in told.action
