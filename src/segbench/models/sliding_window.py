"""The sliding-window network (Ciresan, Giusti, Gambardella, Schmidhuber: NIPS 2012): a window gives its centre's class.

Shape letters: B batch, C channels, K classes, H and W the input size, h and w the output size, F the side of the field
that a window sees, N windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

from segbench.errors import SegbenchError, check
from segbench.spec import TileGeometry

_AT_ONCE = 128
"""Windows that go through the network together where an image is applied window by window."""


class SpacedConv2d(nn.Conv2d):
    """An unpadded convolution of pixels that may lie some pixels apart."""

    def forward(self, maps_BCHW: Tensor, apart: int = 1) -> Tensor:
        """The maps; `apart` is the dilation."""
        return conv2d(maps_BCHW, self.weight, self.bias, dilation=apart)


class SlidingWindow(nn.Module):
    """Convolutions and 2x2 max-pooling on a window, then two fully connected layers: the class of its centre pixel.

    N4, the paper's largest network, has window 95 and kernels 4, 5, 4, 4: maps of 92, 46, 42, 21, 18, 9, 6 and 3
    pixels, then 200 neurons, then K.

    An image larger than a window gives the scores of every window in it. They are computed once for all windows: a
    pooling that moves by one pixel instead of two leaves its results twice as far apart, so the layers after it are
    dilated by two, and so on. The numbers are those of one window at a time. That is what `segbench predict tile=1`
    computes, and what training on tiles of one window does.

    Foveation and non-uniform sampling give each pixel of an image another value in each window that it is in, so no
    two windows share a computation: such a network goes through an image window by window.

    Weights are drawn from N(0, 2/N), N the inputs of one neuron; biases start at zero. Both, and the ReLU, are
    ours: what the paper took is not known to us.

    Args:
        in_channels: C of the image.
        num_classes: K.
        window: side of the window that the layers take, in pixels; odd.
        kernels: sides of the convolutions' kernels; 2x2 pooling follows each.
        maps: channels of each convolution.
        hidden: neurons of the first fully connected layer.
        foveation: blurs the window more, the farther from its centre: the standard deviation in pixels at the
            border of its field, 0 for none; it grows linearly along each axis. The kernel is ours.
        field: side of the square of the image that a window is sampled from, in pixels; odd. None: the window itself.
            A larger one is sampled at every pixel in the centre and ever more coarsely to the border: the sample at u
            pixels from the window's centre lies at u + (f - v) (u / v)^3, with f and v half the sides; ours again.

    Attributes:
        geometry: any side from the field on; the output is smaller by the field less one pixel.

    Raises:
        SegbenchError: an argument out of range, or kernels that do not fit the window.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        window: int = 95,
        kernels: Sequence[int] = (4, 5, 4, 4),
        maps: int = 48,
        hidden: int = 200,
        foveation: float = 0.0,
        field: int | None = None,
    ) -> None:
        for key, value, usual in (
            ("in_channels", in_channels, 1),
            ("num_classes", num_classes, 2),
            ("maps", maps, 48),
            ("hidden", hidden, 200),
        ):
            check(f"model.{key}", value, value >= 1, "at least 1", usual)
        check("model.window", window, window >= 3 and window % 2 == 1, "an odd number of pixels", 95)
        check(
            "model.foveation",
            foveation,
            0 <= foveation < math.inf,
            "a finite standard deviation in pixels, 0 for none",
            2,
        )
        odd = f"an odd number of pixels, at least the window's {window}"
        check("model.field", field, field is None or (field >= window and field % 2 == 1), odd, None)
        super().__init__()
        self.window, self.field, self.foveation = window, field or window, foveation
        self.has_lens = foveation > 0 or self.field > window
        margin = self.field // 2
        self.geometry = TileGeometry(offset=self.field - 1, margin=margin, context=margin)
        side, channels = window, in_channels
        self.convolutions = nn.ModuleList()
        for kernel in kernels:
            self.convolutions.append(SpacedConv2d(channels, maps, kernel))
            side, channels = side - kernel + 1, maps
            if kernel < 1 or side < 2 or side % 2:
                raise SegbenchError(
                    f"model.kernels={list(kernels)} on model.window={window}: a map of {side} pixels before a pooling",
                    "an even number of pixels before each 2x2 pooling",
                    "set model.window=95 model.kernels=[4,5,4,4], or model.window=65 model.kernels=[4,4,5]",
                )
            side //= 2
        self.full = SpacedConv2d(channels, hidden, side)
        self.score = nn.Conv2d(hidden, num_classes, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Redraw all weights from N(0, 2/N), N the inputs of one neuron; zero the biases."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.weight[0].numel()))
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Class scores of the centre of every window.

        Args:
            image_BCHW: float; H and W at least the field's side.

        Returns:
            logits_BKhw; h = H - 2 * geometry.margin, and w likewise: 1 for a window.

        Raises:
            SegbenchError: a smaller input, or an export of a network with a lens for more than one window.
        """
        height, width = image_BCHW.shape[-2:]
        for side in (height, width):
            self.geometry.output_size(side)
        exporting = torch.compiler.is_exporting()
        if not self.has_lens:
            # Dilation is right for any side; a single window is faster in strides.
            return self._layers(image_BCHW, dense=exporting or (height, width) != (self.window, self.window))
        if (height, width) == (self.field, self.field):
            return self._layers(self._seen(image_BCHW), dense=False)
        if exporting:
            raise SegbenchError(
                "a network with foveation or non-uniform sampling, for images larger than its field",
                f"a file that takes one window: {self.field}x{self.field} pixels",
                f"set size=[{self.field},{self.field}]",
            )
        rows = (image_BCHW[:, :, top : top + self.field] for top in range(height - self.field + 1))
        return torch.stack([self._row(row_BCFW) for row_BCFW in rows], dim=2)

    def _row(self, row_BCFW: Tensor) -> Tensor:
        """The scores BKw of a row of windows."""
        batch, channels = row_BCFW.shape[:2]
        windows_BCFwF = row_BCFW.unfold(3, self.field, 1)
        windows_NCFF = windows_BCFwF.permute(0, 3, 1, 2, 4).reshape(-1, channels, self.field, self.field)
        scores_NK = torch.cat(
            [self._layers(self._seen(part), dense=False).flatten(1) for part in torch.split(windows_NCFF, _AT_ONCE)]
        )
        return scores_NK.view(batch, -1, scores_NK.shape[1]).transpose(1, 2)

    def _layers(self, image_BCHW: Tensor, dense: bool) -> Tensor:
        """The layers on a window, or, dense, on all windows of an image at once."""
        maps, apart = image_BCHW, 1
        for layer in self.convolutions:
            maps = layer(maps, apart)
            # Pooled before the ReLU, which changes nothing and leaves it a quarter of the work.
            maps = max_pool2d(maps, 2, stride=1, dilation=apart) if dense else max_pool2d(maps, 2)
            maps = relu(maps, inplace=True)
            apart *= 2 if dense else 1
        scores: Tensor = self.score(relu(self.full(maps, apart), inplace=True))
        return scores

    def _seen(self, fields_NCFF: Tensor) -> Tensor:
        """What windows see of their fields."""
        lens_VF = self.lens(fields_NCFF.device).to(fields_NCFF.dtype)
        return lens_VF @ fields_NCFF @ lens_VF.T

    def lens(self, device: torch.device | None = None) -> Tensor:
        """Each of the window's samples along one axis as a mixture of the field's pixels, (window, F) float32.

        Rows sum to 1: a Gaussian whose deviation grows with the distance from the centre, interpolated linearly where
        a sample lies between two pixels.
        """
        half, reach = self.window // 2, self.field // 2
        pixels_F = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32)
        samples_V = torch.arange(-half, half + 1, device=device, dtype=torch.float32)
        samples_V = samples_V + (reach - half) * (samples_V / half) ** 3
        sampling_VF = (1 - (samples_V[:, None] - pixels_F).abs()).clamp(min=0)
        # Below a thousandth of a pixel it is none.
        deviation_F = (self.foveation * pixels_F.abs() / reach).clamp(min=1e-3)
        blur_FF = (-0.5 * ((pixels_F - pixels_F[:, None]) / deviation_F[:, None]) ** 2).exp()
        return sampling_VF @ (blur_FF / blur_FF.sum(1, keepdim=True))
