from types import SimpleNamespace

import pytest
import torch.distributed as dist

from segbench.errors import SegbenchError
from segbench.runtime import signals as stopping
from segbench.runtime.signals import Stopped
from segbench.training.callbacks.in_step import InStep


def trainer(ranks=1):
    return SimpleNamespace(world_size=ranks)


def test_one_process_stops_before_its_next_batch(monkeypatch):
    callback = InStep({}, 60.0)
    callback.on_fit_start(trainer(), None)
    callback.on_train_batch_end(trainer(), None, None, None, 0)
    callback.on_train_batch_start(trainer(), None, None, 0)
    monkeypatch.setattr(stopping._Signals, "received", 15)
    callback.on_train_batch_end(trainer(), None, None, None, 0)
    with pytest.raises(Stopped) as stopped:
        callback.on_validation_batch_start(trainer(), None, None, 0)
    assert stopped.value.signum == 15


def test_a_signal_of_one_process_reaches_all_after_the_batch(on_ranks):
    def run(rank):
        dist.init_process_group("gloo")
        callback, begun = InStep({"a": 1}, 60.0), []
        callback.on_test_start(trainer(3), None)
        for number in range(4):
            if (rank, number) == (2, 1):
                stopping._Signals.received = 15
            try:
                callback.on_test_batch_start(trainer(3), None, None, number)
            except Stopped as stopped:
                return begun, stopped.signum
            begun.append(number)
            callback.on_test_batch_end(trainer(3), None, None, number)

    assert on_ranks(3, run) == [([0, 1], 15)] * 3


def test_what_one_process_asks_for_reaches_all_after_the_batch(on_ranks):
    def run(rank):
        dist.init_process_group("gloo")
        callback, agreed = InStep({"a": 1}, 60.0), []
        callback.on_fit_start(trainer(2), None)
        for number in range(4):
            callback.on_train_batch_start(trainer(2), None, None, number)
            agreed.append(callback.agreed)
            callback.asks = (rank, number) == (1, 1)
            callback.on_train_batch_end(trainer(2), None, None, None, number)
        return agreed

    assert on_ranks(2, run) == [[False, False, True, False]] * 2


def test_processes_with_other_settings_are_told_apart(on_ranks):
    def run(rank):
        dist.init_process_group("gloo")
        settings = {"threads": 1 + rank, "trainer": {"precision": "32-true", "max_steps": 3}, "directory": "/runs/a"}
        with pytest.raises(SegbenchError) as told:
            InStep(settings, 60.0).on_fit_start(trainer(2), None)
        return str(told.value)

    for told in on_ranks(2, run):
        assert told.startswith("threads=2 on rank 1, 1 on rank 0\n  expected: the same configuration and run directory")
        assert "threads=1" in told.splitlines()[2]
