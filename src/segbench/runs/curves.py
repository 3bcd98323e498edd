"""Reading metrics.csv: scores and losses over steps."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from segbench.config.handed_over import text_of
from segbench.errors import SegbenchError


def rows(directory: Path) -> list[tuple[int, dict[str, float]]]:
    """The whole rows written so far: the last step before each, and its values by key.

    Args:
        directory: of the run.

    Raises:
        SegbenchError: the file is damaged.
    """
    path = directory / "metrics.csv"
    if not path.is_file():
        return []
    found, text = [], text_of(path, str(path))
    try:
        # The file may still be written: an incomplete line may hold half a number.
        table = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        if "step" not in (table.fieldnames or ["step"]):
            raise ValueError("it has no column step")
        for row in table:
            if step := row.pop("step", None):
                found.append((int(step), {key: float(value) for key, value in row.items() if value}))
    except (ValueError, TypeError, OverflowError, csv.Error) as error:
        raise SegbenchError(
            f"{path} is damaged: {error}", "the table as the run wrote it", "restore it from a copy, or remove it"
        ) from error
    return found


def validation_of(directory: Path, checkpoint_step: float = math.inf) -> dict[str, float]:
    """The scores of the validation that a checkpoint had: the last one before it was written.

    Args:
        directory: of the run.
        checkpoint_step: of the checkpoint.
    """
    scores: dict[str, float] = {}
    for step, values in rows(directory):
        of_validation = {key: value for key, value in values.items() if key.startswith("val/")}
        if of_validation and step < checkpoint_step:
            scores = of_validation
    return scores
