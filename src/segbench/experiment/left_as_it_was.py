"""What a call from a program leaves behind: nothing of the environment, the threads and torch's settings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from segbench.runtime.signals import Stopped


@contextlib.contextmanager
def left_as_it_was() -> Iterator[None]:
    """Restore the environment, the thread counts and what a Trainer sets of torch.

    A signal that ended a run is Ctrl-C, not the end of the process.

    Raises:
        KeyboardInterrupt: in place of `Stopped`.
    """
    import cv2
    import numba
    import torch

    from segbench.training.precision import tf32_kept

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    environment = dict(os.environ)
    counts = numba.get_num_threads(), torch.get_num_threads(), cv2.getNumThreads()
    cudnn = torch.backends.cudnn
    of_cudnn = cudnn.benchmark, cudnn.deterministic
    tf32_as_it_was = tf32_kept()
    exact = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    except Stopped as stopped:
        raise KeyboardInterrupt(str(stopped)) from stopped
    finally:
        numba.set_num_threads(counts[0])
        torch.set_num_threads(counts[1])
        cv2.setNumThreads(counts[2])
        cudnn.benchmark, cudnn.deterministic = of_cudnn
        tf32_as_it_was()
        torch.use_deterministic_algorithms(exact[0], warn_only=exact[1])
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
