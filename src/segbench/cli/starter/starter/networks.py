"""A network: any torch module from images to logits."""

import torch
from torch import nn


class ConvNet(nn.Module):
    """Three convolutions, the second one dilated.

    Args:
        in_channels: channels of an image; the data set gives it.
        num_classes: K; the data set gives it.
        width: channels inside.
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(width, num_classes, 3, padding=1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images BCHW to logits BKHW."""
        logits: torch.Tensor = self.layers(images)
        return logits
