"""The losses, one per head; `loss.py` is what they share."""

from segbench.losses.cross_entropy import CrossEntropy, WeightedCrossEntropy
from segbench.losses.dice import Dice
from segbench.losses.focal import Focal
from segbench.losses.foreign import Foreign
from segbench.losses.loss import Loss
from segbench.losses.lovasz import LovaszSoftmax
from segbench.losses.tversky import Tversky
from segbench.losses.weighted_sum import Sum

__all__ = [
    "CrossEntropy",
    "Dice",
    "Focal",
    "Foreign",
    "Loss",
    "LovaszSoftmax",
    "Sum",
    "Tversky",
    "WeightedCrossEntropy",
]
