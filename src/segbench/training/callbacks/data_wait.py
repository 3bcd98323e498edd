"""How long a training waits for its batches, and what to do about it."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import lightning

from segbench.runtime.threads import allowed_cores

log = logging.getLogger(__name__)

TOLD_ABOVE = 0.1
"""The share of the training's time that is told."""
_AT_LEAST_S = 1.0
"""What a run of a few steps waits is no sign of the next one."""


class DataWait(lightning.Callback):
    """Measures the waiting for batches, the first of each process left out, and reports a large one at the end.

    Attributes:
        waited_s: seconds so far, those before a resume included; of this process.
        trained_s: seconds of training steps, the waiting included, validations left out.
    """

    def __init__(self) -> None:
        self.waited_s = self.trained_s = 0.0
        self._since: float | None = None
        self._counted = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Both numbers."""
        return {"waited_s": self.waited_s, "trained_s": self.trained_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them."""
        self.waited_s, self.trained_s = state_dict["waited_s"], state_dict["trained_s"]

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any, **named: Any) -> None:
        """Add up, from the end of the first batch on."""
        now, waited = time.monotonic(), getattr(trainer.train_dataloader, "waited_s", 0.0)
        if self._since is not None:
            self.trained_s += now - self._since
            self.waited_s += waited - self._counted
        self._since, self._counted = now, waited

    def on_validation_start(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        """Stop the clock."""
        if self._since is not None:
            self.trained_s += time.monotonic() - self._since

    def on_validation_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        """Start the clock again."""
        if self._since is not None:
            self._since = time.monotonic()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Report a share above `TOLD_ABOVE`."""
        self._since = None
        if trainer.is_global_zero and self.waited_s >= _AT_LEAST_S and self.waited_s > TOLD_ABOVE * self.trained_s:
            workers = getattr(trainer.train_dataloader, "num_workers", 0)
            log.warning(
                "%s", remedy(self.waited_s, self.trained_s, workers, len(allowed_cores()) // trainer.num_devices)
            )


def remedy(waited_s: float, trained_s: float, workers: int, cores: int) -> str:
    """What was waited, and how to wait less.

    Args:
        waited_s: for batches.
        trained_s: altogether.
        workers: `data.num_workers`.
        cores: of this process.
    """
    computed_s = max(trained_s - waited_s, 1e-9)
    # Each of them loads while the network computes.
    needed = math.ceil((trained_s * workers if workers else waited_s) / computed_s)
    enough = min(needed, cores)
    steps = [f"set data.num_workers={enough} (now {workers})"] if enough > workers else []
    if not steps or needed > cores:
        steps.append("choose a cheaper augment=, or store smaller images")
    share = f"{waited_s / trained_s:.0%} of its time ({waited_s:.0f} of {trained_s:.0f} s)"
    return f"training waited for data {share}: {', and '.join(steps)}"
