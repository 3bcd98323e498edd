"""A torchvision that is of another build of torch: it breaks whatever imports torchmetrics."""

from __future__ import annotations

import importlib
import importlib.util

from segbench.config.explain import of_torchvision


def refuse_broken_torchvision() -> None:
    """Import torchvision where it is installed, as torchmetrics will.

    Raises:
        SegbenchError: it cannot be imported.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        # However it is broken: torchmetrics would raise the same.
        raise of_torchvision(error) from error
