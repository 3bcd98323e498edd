import errno

import pytest
import torch
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException

from segbench.config.explain import explained, of_torch
from segbench.config.hydra_errors import near, of_hydra
from segbench.errors import SegbenchError


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError("a bug"), OSError("no file"), KeyError("x"), InstantiationException("x")),
        ModuleNotFoundError("x", name="x"),
    ],
)
def test_a_fault_of_the_program_is_not_explained(error):
    assert explained(error) is None


def test_an_error_in_three_parts_stays_as_it_is():
    error = SegbenchError("a", "b", "c")
    assert explained(error) is error


def raised_over(first, error):
    """The error as a library raises it that handles another."""
    error.__context__ = first
    return error


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(errno.EACCES, "Permission denied", "a/file"), "a/file: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a/" + "é" * 200), "a name of 400 bytes in a path: éé"),
        (OSError(errno.ENOSPC, "No space left on device"), "a file cannot be written: No space left on device"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "No usable temporary"),
        (ValueError("embedded null byte"), "a path with a NUL byte"),
        (UnicodeEncodeError("utf-8", "a\ud800", 1, 2, "surrogates not allowed"), r"a name that is no text: a\ud800"),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "a/program"), "the machine's memory ran out"),
        (ImportError("a.so: failed to map segment from shared object"), "the machine's memory ran out"),
        (SystemError("error return without exception set"), "the machine's memory ran out"),
        (RuntimeError("can't start new thread"), "a thread cannot be started: memory ran out, or the number of proc"),
        (raised_over(MemoryError(), OSError("no library")), "the machine's memory ran out"),
        (HydraException("odd\nthing"), "odd thing"),
        (MisconfigurationException("not\ntogether"), "not together"),
        (ModuleNotFoundError("a class needs psutil"), "a class needs psutil"),
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79 GiB"
            ),
            "the GPU's memory ran out: 2.50 GiB more were needed",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 800 bytes."),
            "the machine's memory ran out: 800 bytes more were needed",
        ),
        (
            RuntimeError("adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set"),
            "trainer.deterministic=true and adaptive_avg_pool2d_backward_cuda",
        ),
    ],
)
def test_what_the_system_and_hydra_refuse_is(error, found):
    told = explained(error)
    assert told.found.startswith(found)
    assert told.expected and told.action


def test_the_cause_counts_where_hydra_says_nothing():
    error = ConfigCompositionException()
    error.__cause__ = HydraException("the cause")
    assert explained(error).found == "the cause"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("model.widht", "model.width"),
        ("width", "model.width"),
        ("experimnt", "experiment"),
        ("xyz", None),
    ],
)
def test_the_name_that_was_meant(name, meant):
    assert near(name, ["seed", "experiment", "model.depth", "model.width"]) == meant


def test_what_hydra_breaks_on_is_named_with_its_type():
    assert of_hydra(RuntimeError("odd"), "train").found == "RuntimeError: odd"


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (
            RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
            "a loading process ended: (pid 12) is killed by signal: Killed",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"),
            "a loading process ended: (pid(s) 12, 13) exited unexpectedly",
        ),
        (
            MemoryError(
                "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):"
            ),
            "a loading process ran out of memory",
        ),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process.\nunable to mmap 7 bytes: Cannot allocate memory (12)"
            ),
            "a loading process ran out of memory",
        ),
        (
            RuntimeError("Caught _ArrayMemoryError in DataLoader worker process 0.\nOriginal Traceback"),
            "a loading process ran out of memory",
        ),
        (MemoryError("Unable to allocate 8.00 TiB"), "the machine's memory ran out: 8.00 TiB more were needed"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the machine's memory ran out"),
    ],
)
def test_a_loading_process_that_ended_is_told_with_the_remedy(error, found):
    told = of_torch(error)
    assert told.found == found
    assert "data.num_workers" in told.action and "data.tile=" in told.action
