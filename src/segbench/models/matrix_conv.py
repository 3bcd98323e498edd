"""A convolution as one matrix product, for a classifier's first fully connected layer made convolutional."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, unfold


class MatrixConv2d(nn.Conv2d):
    """An unpadded convolution of stride 1, computed on a CPU as windows times weights.

    fc6 has 7x7 windows of 512 channels, 4096 outputs and few positions (16x16 for 500x500 pixels). As a matrix product
    its backward pass takes half the time of oneDNN's convolution: a tenth of the whole training step of FCN-8s. Other
    devices, maps so large that their windows would outweigh the weights, and exports, which have no sizes yet, go the
    usual way. Equal to `nn.Conv2d` up to rounding, and in its state dict.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: k, of a square window.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        if torch.compiler.is_exporting():
            return super().forward(features_BCHW)
        batch, _, height, width = features_BCHW.shape
        k = self.kernel_size[0]
        h, w = height - k + 1, width - k + 1
        if features_BCHW.device.type != "cpu" or h < 1 or w < 1 or batch * h * w > self.out_channels:
            return super().forward(features_BCHW)
        if self.weight.is_contiguous():
            windows_BNL = unfold(features_BCHW, k)  # N = C k k, L = h w
            product_BOL = torch.matmul(self.weight.flatten(1), windows_BNL)
            if self.bias is not None:
                product_BOL = product_BOL + self.bias[:, None]
            return product_BOL.view(batch, -1, h, w)
        # Weights in channels_last: a window's channels lie together in both factors.
        windows_BhwCkk = features_BCHW.permute(0, 2, 3, 1).unfold(1, k, 1).unfold(2, k, 1)
        windows_LN = windows_BhwCkk.permute(0, 1, 2, 4, 5, 3).reshape(batch * h * w, -1)
        weight_ON = self.weight.permute(0, 2, 3, 1).flatten(1)
        return linear(windows_LN, weight_ON, self.bias).view(batch, h, w, -1).permute(0, 3, 1, 2)
