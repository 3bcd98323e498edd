"""Any module as a loss: it gets the pixel weights if it takes them, and never a void pixel that it does not know."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from segbench.errors import SegbenchError
from segbench.losses.loss import Loss
from segbench.spec import VOID

TAKES = "forward(logits_BKHW, target_BHW[, weight_BHW]) -> a scalar"


class Foreign(nn.Module):
    """A loss that is no `segbench.losses.Loss`.

    A loss with an attribute `ignore_index` (`torch.nn.CrossEntropyLoss`), or with an argument of that name in
    `forward`, handles void pixels itself. Any other one gets the labelled pixels alone where some are void, as one row:
    logits (1, K, 1, N), target and weight (1, 1, N). A sum or mean over pixels does not notice; a loss that looks at
    neighbours has to take `ignore_index`. A batch without a labelled pixel has loss 0.

    Args:
        module: called with logits in float32 and int64 labels.
        ignore_index: the void label.

    Raises:
        SegbenchError: `forward` does not take logits and target.
    """

    def __init__(self, module: nn.Module, ignore_index: int = VOID) -> None:
        super().__init__()
        self.module, self.ignore_index = module, ignore_index
        self.reduction = "sum" if getattr(module, "reduction", "mean") == "sum" else "mean"
        parameters = inspect.signature(module.forward).parameters
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        positional = [name for name, each in parameters.items() if each.kind in kinds]
        starred = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters.values())
        if len(positional) < 2 and not starred:
            raise SegbenchError(
                f"a loss {type(module).__name__} with forward({', '.join(parameters)})", TAKES, "correct its forward"
            )
        further = [name for name in positional[2:] if name != "ignore_index"]
        self.takes_weight = "weight" in parameters or bool(further and "weight" in further[0])
        self._named = {"ignore_index": ignore_index} if "ignore_index" in parameters else {}
        self._knows_void = bool(self._named) or hasattr(module, "ignore_index")
        if hasattr(module, "ignore_index"):
            setattr(module, "ignore_index", ignore_index)  # noqa: B010 - a type checker takes it for a submodule

    def forward(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None = None) -> Tensor:
        """The scalar loss of a batch."""
        logits_BKHW = logits_BKHW.to(torch.promote_types(logits_BKHW.dtype, torch.float32))
        labelled_BHW = target_BHW != self.ignore_index
        counted: Tensor | float = 1.0
        if self._knows_void:
            # Of void pixels alone most losses make NaN. To skip them the host would wait for the device: instead all
            # classes in turn stand in, and count nothing.
            counted = labelled_BHW.any()
            standing = torch.arange(target_BHW.numel(), device=target_BHW.device) % logits_BKHW.shape[1]
            target_BHW = torch.where(counted, target_BHW, standing.view_as(target_BHW))
        else:
            # How many are left is waited for, once.
            places_N = labelled_BHW.flatten().nonzero()[:, 0]
            if len(places_N) == 0:
                return logits_BKHW.sum() * 0.0
            if len(places_N) < labelled_BHW.numel():
                logits_BKHW = logits_BKHW.movedim(1, 0).flatten(1)[:, places_N][None, :, None]
                target_BHW = target_BHW.flatten()[places_N][None, None]
                weight_BHW = None if weight_BHW is None else weight_BHW.flatten()[places_N][None, None]
        weights: tuple[Any, ...] = (weight_BHW,) if self.takes_weight else ()
        loss: Tensor = self.module(logits_BKHW, target_BHW, *weights, **self._named)
        return loss * counted


def as_loss(module: nn.Module, ignore_index: int) -> nn.Module:
    """A loss as the task calls it: this package's own as it is, any other one as a `Foreign`."""
    return module if isinstance(module, Loss) else Foreign(module, ignore_index)


def check_loss(loss: nn.Module, classes: int, name: str) -> None:
    """Try a loss on noise, with a void pixel, before anything is trained.

    Args:
        loss: as the task calls it.
        classes: K.
        name: of the loss, for the error.

    Raises:
        SegbenchError: it fails, or gives no scalar with a gradient.
    """
    if not isinstance(loss, Foreign):
        return
    generator = torch.Generator().manual_seed(0)
    logits_BKHW = torch.randn(2, classes, 8, 8, generator=generator, requires_grad=True)
    target_BHW = torch.randint(classes, (2, 8, 8), generator=generator)
    target_BHW[0, 0, 0] = loss.ignore_index
    try:
        value = loss(logits_BKHW, target_BHW, torch.ones(2, 8, 8))
    except Exception as error:
        raise SegbenchError(
            f"loss {name} fails on logits (2, {classes}, 8, 8) and labels of 0 to {classes - 1}: "
            f"{type(error).__name__}: {' '.join(str(error).split())}",
            TAKES,
            "correct its forward; HYDRA_FULL_ERROR=1 shows the traceback",
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        given = f"a tensor of {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        given += "" if not isinstance(value, Tensor) or value.requires_grad else " without a gradient"
        raise SegbenchError(f"loss {name} gives {given}", TAKES, "reduce it to a mean or a sum, as a tensor")
