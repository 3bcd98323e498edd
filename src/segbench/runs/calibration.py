"""calibration.json: the polynomials that a checkpoint's probabilities go through, and what they were fitted on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Calibration(BaseModel):
    """Polynomials of one checkpoint, under one way of predicting.

    Attributes:
        checkpoint: SHA-256 of the file, and of those beside it, with a plus between them.
        tta: symmetries, and scales, that the fitted predictions were averaged over.
        precision: that they were computed in.
        images: of the training split, all of them.
        polynomials: a0 to a3 by head, of the probability of the second class.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    checkpoint: str
    tta: str
    precision: str
    images: int
    polynomials: dict[str, tuple[float, float, float, float]]

    def is_of(self, checkpoint: str, tta: str, precision: str) -> bool:
        """Whether it was fitted for this file, these symmetries and this precision."""
        return (self.checkpoint, self.tta, self.precision) == (checkpoint, tta, precision)


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
