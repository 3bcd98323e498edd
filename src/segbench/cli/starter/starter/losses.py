"""A loss: any torch module from logits and classes to a number."""

import torch
from torch import nn


class Tversky(nn.Module):
    """One minus the Tversky index over all pixels; 0.5 is the Dice loss (arXiv:1706.05721).

    Args:
        beta: weight of missed pixels; extra ones weigh 1 - beta.
    """

    def __init__(self, beta: float = 0.7) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits BKHW and classes BHW, void pixels left out, to a scalar."""
        prob = logits.softmax(1)
        hot = nn.functional.one_hot(target, logits.shape[1]).movedim(-1, 1)
        hit, missed, extra = (each.sum() for each in (prob * hot, (1 - prob) * hot, prob * (1 - hot)))
        return 1 - hit / (hit + self.beta * missed + (1 - self.beta) * extra)
