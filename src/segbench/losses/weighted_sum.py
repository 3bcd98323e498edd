"""A weighted sum of losses, each logged separately."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from segbench.errors import SegbenchError, check
from segbench.losses.loss import Loss, Sums
from segbench.spec import VOID


class Sum(Loss):
    """L = the sum over terms of factor times term; pixel weights apply to all terms.

    Args:
        terms: losses by name; None leaves one out (`loss.terms.NAME=null`).
        weights: a factor >= 0 for each term.
        ignore_index: the void label, of all terms.
        class_weights: of all terms that have none of their own.

    Raises:
        SegbenchError: no terms, a term without a factor or the reverse, or a factor out of range.
    """

    def __init__(
        self,
        terms: Mapping[str, Loss | None],
        weights: Mapping[str, float],
        ignore_index: int = VOID,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        kept = {name: term for name, term in terms.items() if term is not None}
        check("loss.terms", dict(terms), bool(kept), "losses by name", "{cross_entropy: ...}")
        unmatched = [name for name in kept if name not in weights] + [name for name in weights if name not in terms]
        if unmatched:
            raise SegbenchError(
                f"loss.terms of {', '.join(terms)} and loss.weights of {', '.join(weights) or 'none'}",
                "a factor for each term, and a term for each factor",
                f"correct loss.terms.{unmatched[0]} or loss.weights.{unmatched[0]}",
            )
        for name, weight in weights.items():
            check(f"loss.weights.{name}", weight, 0 <= weight < math.inf, "a finite number, 0 or more", 1)
        self._terms = nn.ModuleDict(kept)
        for module in self.modules():
            if isinstance(module, Loss):
                module.ignore_index = ignore_index
                if module.class_weights is None:
                    module.weigh_classes(class_weights)
        self.weights = {name: float(weights[name]) for name in kept}
        self.needs_weight = any(term.needs_weight for term in kept.values())
        self.reduction = "sum" if any(term.reduction == "sum" for term in kept.values()) else "mean"
        self.additive = all(term.additive for term in kept.values())

    def terms(self, sums: Sums) -> dict[str, Tensor]:
        """Each term's value, before its factor."""
        return {
            name: term.value({key.removeprefix(f"{name}/"): x for key, x in sums.items() if key.startswith(f"{name}/")})
            for name, term in self._losses()
        }

    def value(self, sums: Sums) -> Tensor:
        """The weighted sum."""
        weighted = [self.weights[name] * term for name, term in self.terms(sums).items()]
        return sum(weighted[1:], start=weighted[0])

    def _sums(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None) -> Sums:
        return {
            f"{name}/{key}": x
            for name, term in self._losses()
            for key, x in term.sums(logits_BKHW, target_BHW, weight_BHW).items()
        }

    def _losses(self) -> list[tuple[str, Loss]]:
        return [(name, term) for name, term in self._terms.items() if isinstance(term, Loss)]
