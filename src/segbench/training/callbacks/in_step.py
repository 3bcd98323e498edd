"""The processes of a run in step: they begin at the same place with the same settings, and stop after the same step."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import lightning
import torch
import torch.distributed as dist

from segbench.config.flat import flatten
from segbench.errors import SegbenchError
from segbench.runtime.signals import Stopped, received


class InStep(lightning.Callback):
    """Stop all processes between the same two steps, whichever of them got a signal.

    Signals reach one process, or all at different moments. After each batch the processes exchange them on the CPU,
    beside the computation, so that none waits for a GPU; the result takes effect before the next batch. A request of
    the callbacks goes the same way, since clocks differ.

    Attributes:
        asks: whether this process asks the others for what its clock says is due.
        agreed: whether one of them asked after the last batch.

    Args:
        settings: what must be the same on all processes, nested: the configuration, the run's directory.
        timeout_s: how long a process waits for the others.
    """

    def __init__(self, settings: Mapping[str, Any], timeout_s: float) -> None:
        self._settings, self._patience = flatten(settings), timedelta(seconds=timeout_s)
        self._group: Any = None
        self._sent: tuple[torch.Tensor, Any] | None = None
        self.asks = self.agreed = False

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Check that all processes have the same settings.

        Raises:
            SegbenchError: they differ.
        """
        self._join(trainer)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """As `on_fit_start`."""
        self._join(trainer)

    def _join(self, trainer: lightning.Trainer) -> None:
        self._sent = None
        if trainer.world_size == 1:
            return
        if self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=self._patience)
        everywhere: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(everywhere, self._settings, group=self._group)
        first = everywhere[0]
        for rank, settings in enumerate(everywhere):
            differing = [key for key in sorted({*first, *settings}) if first.get(key) != settings.get(key)]
            if differing:
                raise SegbenchError(
                    "; ".join(
                        f"{key}={settings.get(key)} on rank {rank}, {first.get(key)} on rank 0" for key in differing
                    ),
                    "the same configuration and run directory on every process",
                    "start all with the same command on a shared file system, and set what is otherwise left to the "
                    "machine (trainer.precision=32-true threads=1)",
                )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the exchange."""
        self._send(trainer)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if any process got a signal."""
        self._stop_if_signalled(trainer)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *arguments: Any, **named: Any) -> None:
        """As in training."""
        self._send(trainer)

    def on_validation_batch_start(self, trainer: lightning.Trainer, *arguments: Any, **named: Any) -> None:
        """As in training."""
        self._stop_if_signalled(trainer)

    def on_test_batch_end(self, trainer: lightning.Trainer, *arguments: Any, **named: Any) -> None:
        """As in training."""
        self._send(trainer)

    def on_test_batch_start(self, trainer: lightning.Trainer, *arguments: Any, **named: Any) -> None:
        """As in training."""
        self._stop_if_signalled(trainer)

    def _send(self, trainer: lightning.Trainer) -> None:
        if trainer.world_size > 1:
            self._receive()
            said = torch.tensor([received(), int(self.asks)])
            self._sent = (said, dist.all_reduce(said, dist.ReduceOp.MAX, group=self._group, async_op=True))

    def _stop_if_signalled(self, trainer: lightning.Trainer) -> None:
        signum = received() if trainer.world_size == 1 else self._receive()
        if signum:
            raise Stopped(signum)

    def _receive(self) -> int:
        if self._sent is None:
            return 0
        (said, work), self._sent = self._sent, None
        work.wait()
        signum, asked = said.tolist()
        self.agreed = bool(asked)
        return int(signum)
