"""Caffe's layers that differ from torch's defaults: pooling rounded up, LRN, upsampling by bilinear kernels.

Shape letters: B batch, C channels, K classes, H and W the input size, h and w the output size, k a kernel's side.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, linear, max_pool2d, pad, unfold
from torch.utils.weak import WeakTensorKeyDictionary

from segbench.errors import SegbenchError


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """`channels * width`, rounded to a multiple of `multiple`, at least `multiple`.

    Args:
        channels: of the published layer.
        width: fraction to build; 1 gives `channels`.
        multiple: groups of the convolutions on either side.
    """
    return multiple * max(1, round(channels * width / multiple))


def max_pool(features_BCHW: Tensor, kernel: int, stride: int, padding: int = 0) -> Tensor:
    """Max pooling with the pooled size rounded up, as in Caffe: h = ceil((H + 2 padding - kernel) / stride) + 1.

    The last window may reach past the map and ignores what is outside. With padding, Caffe drops a last window that
    would start beyond the map, as torch's `ceil_mode` does. torch refuses a map that pools to nothing.

    Without gradients on a CPU, pairs of an even map are compared in half the time: torch also writes the places.
    """
    # Asked last: an export with free sides takes a question about them for a promise.
    if (kernel, stride, padding) == (2, 2, 0) and plain_on_cpu(features_BCHW) and _even(features_BCHW):
        rows_BChW = torch.maximum(features_BCHW[..., ::2, :], features_BCHW[..., 1::2, :])
        return torch.maximum(rows_BChW[..., ::2], rows_BChW[..., 1::2])
    return max_pool2d(features_BCHW, kernel, stride, padding, ceil_mode=True)


def _even(features: Tensor) -> bool:
    return features.shape[-2] % 2 == features.shape[-1] % 2 == 0


def plain_on_cpu(features: Tensor) -> bool:
    """Whether a CPU computes it, without gradients, and not for an export."""
    return features.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_exporting()


def lrn(features_BCHW: Tensor) -> Tensor:
    """Local response normalisation across 5 channels: x / (1 + 1e-4 / 5 * sum of 5 squares)^0.75.

    AlexNet's paper (section 3.3) does not divide alpha by the size; Caffe and torch do. torch's `local_response_norm`
    sums by `avg_pool3d`, whose gradient has no deterministic form on a GPU; the same sums of shifted channels have.
    Computed in at least float32, also under autocast, and returned in the type of the features.
    """
    wide_BCHW = features_BCHW.to(torch.promote_types(features_BCHW.dtype, torch.float32))
    channels = features_BCHW.shape[1]
    # Two channels of zeros on either side.
    squares_BCHW = pad(wide_BCHW.square(), (0, 0, 0, 0, 2, 2))
    near = [squares_BCHW.narrow(1, first, channels) for first in range(5)]
    norm_BCHW = (sum(near[1:], start=near[0]) / 5).mul(1e-4).add(1.0).pow(0.75)
    return (wide_BCHW / norm_BCHW).to(features_BCHW.dtype)


def bilinear_kernel(size: int, device: torch.device | None = None) -> Tensor:
    """The kernel of a transposed convolution that interpolates bilinearly (FCN release, `surgery.py`).

    With f = (size + 1) // 2 and the centre c = f - 1 for an odd size, f - 0.5 for an even one:
    weight(i, j) = (1 - |i - c| / f) (1 - |j - c| / f).

    Returns:
        kernel_kk: float32, exact where f is a power of two (multiples of 1 / 4 f^2).
    """
    ramp_k = _ramp(torch.arange(size, device=device), size)
    return torch.outer(ramp_k, ramp_k)


def _ramp(place: Tensor, size: int) -> Tensor:
    """The kernel in one dimension at any places, 0 outside of 0 to size - 1."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    return (1 - (place.float() - centre).abs() / factor).clamp(min=0)


class FixedUpsampling(nn.Module):
    """Bilinear upsampling of each class; the kernel is computed, so nothing is trained or saved.

    The released dense (K, K, k, k) blob is zero off its diagonal, and its kernel is the product of two ramps: rows and
    columns are interpolated by a matrix product each, in half to a fortieth of the time of a transposed convolution
    with a group for each class, which exports keep for their free sizes. Scores are interpolated in float32 even under
    autocast: bfloat16 loses the differences between classes, which decide.

    Args:
        channels: K.
        kernel: k.
        stride: pixels between two inputs in the output.
    """

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.channels, self.kernel, self.stride = channels, kernel, stride

    def extra_repr(self) -> str:
        """The sizes, for `print(model)`."""
        return f"{self.channels}, kernel={self.kernel}, stride={self.stride}"

    def forward(self, score_BKHW: Tensor) -> Tensor:
        """Scores of any float type, BKHW, to BKhw of at least float32; h = (H - 1) stride + k, and w likewise."""
        device = score_BKHW.device
        autocast = torch.amp.is_autocast_available(device.type)  # not on the meta device
        with torch.autocast(device.type, enabled=False) if autocast else nullcontext():
            score_BKHW = score_BKHW.to(torch.promote_types(score_BKHW.dtype, torch.float32))
            if torch.compiler.is_exporting():
                kernel_kk = bilinear_kernel(self.kernel, device).to(score_BKHW.dtype)
                weight_K1kk = kernel_kk.expand(self.channels, 1, -1, -1)
                return conv_transpose2d(score_BKHW, weight_K1kk, stride=self.stride, groups=self.channels)
            height, width = score_BKHW.shape[-2:]
            rows_hH, columns_wW = (self._matrix(size, score_BKHW) for size in (height, width))
            return rows_hH @ (score_BKHW @ columns_wW.T)

    def _matrix(self, size: int, like: Tensor) -> Tensor:
        """The weight of each of `size` inputs in each output."""
        # Computed each time (microseconds): a buffer would be broadcast between ranks at every step.
        outputs = torch.arange((size - 1) * self.stride + self.kernel, device=like.device)
        inputs = torch.arange(size, device=like.device) * self.stride
        return _ramp(outputs[:, None] - inputs, self.kernel).to(like.dtype)

    def dense_weight(self) -> Tensor:
        """This layer's blob in a Caffe net, (K, K, k, k) float32: the kernel on the diagonal."""
        return _diagonal(self.channels, bilinear_kernel(self.kernel))


class LearnableUpsampling(nn.ConvTranspose2d):
    """Upsampling by a trained dense kernel (K, K, k, k), initially bilinear on its diagonal; no bias.

    Args:
        channels: K.
        kernel: k.
        stride: pixels between two inputs in the output.
    """

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(channels, channels, kernel, stride, bias=False)

    def reset_parameters(self) -> None:
        """Set the bilinear kernels."""
        kernel_kk = bilinear_kernel(self.kernel_size[0], self.weight.device)
        with torch.no_grad():
            self.weight.copy_(_diagonal(self.in_channels, kernel_kk))


def _diagonal(channels: int, kernel_kk: Tensor) -> Tensor:
    eye_KK = torch.eye(channels, device=kernel_kk.device)
    return eye_KK[:, :, None, None] * kernel_kk


def crop(features_BChw: Tensor, offset: int, height: int, width: int) -> Tensor:
    """Caffe's Crop layer: `height` x `width` pixels from row and column `offset` on.

    Raises:
        SegbenchError: the map is too small, which the padding of 100 pixels prevents for every image size.
    """
    h, w = features_BChw.shape[-2:]
    # Sizes are unknown during an export.
    if not torch.compiler.is_exporting() and (offset + height > h or offset + width > w):
        raise SegbenchError(
            f"a map of {h}x{w} to be cropped at {offset} to {height}x{width}",
            f"at least {offset + height}x{offset + width}",
            "correct the backbone's padding or its crop offset",
        )
    return features_BChw[..., offset : offset + height, offset : offset + width]


class MatrixConv2d(nn.Conv2d):
    """An unpadded convolution of stride 1, computed on a CPU as windows times weights.

    fc6 has 7x7 windows of 512 channels, 4096 outputs and few positions (16x16 for 500x500 pixels). As a matrix product
    its backward pass takes half the time of oneDNN's convolution: a tenth of the whole training step of FCN-8s. fc7's
    forward pass takes half the time too: a convolution arranges its weights at each call. Other
    devices, maps whose windows would outweigh the weights, and exports, where sizes are unknown, use `nn.Conv2d`. Equal
    to it up to rounding, with the same state dict.

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
        if self.weight.is_contiguous() and k > 1:
            windows_BNL = unfold(features_BCHW, k)  # N = C k k, L = h w
            product_BOL = torch.matmul(_kept(self.weight, self.weight.flatten(1)), windows_BNL)
            if self.bias is not None:
                product_BOL = product_BOL + self.bias[:, None]
            return product_BOL.view(batch, -1, h, w)
        # Weights in channels_last: a window's channels lie together in both factors.
        windows_BhwCkk = features_BCHW.permute(0, 2, 3, 1).unfold(1, k, 1).unfold(2, k, 1)
        windows_LN = windows_BhwCkk.permute(0, 1, 2, 4, 5, 3).reshape(batch * h * w, -1)
        weight_ON = _kept(self.weight, self.weight.permute(0, 2, 3, 1).flatten(1))
        return linear(windows_LN, weight_ON, self.bias).view(batch, h, w, -1).permute(0, 3, 1, 2)


_MATRICES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _kept(weight: Tensor, view: Tensor) -> Tensor:
    """A view of a weight, without gradients as the same tensor at each call: autocast keeps no casts of views."""
    if torch.is_grad_enabled():
        return view
    kept: Tensor | None = _MATRICES.get(weight)  # type: ignore[no-untyped-call]
    alike = kept is not None and (kept.data_ptr(), kept.dtype, kept.shape) == (view.data_ptr(), view.dtype, view.shape)
    if kept is None or not alike or kept.requires_grad != weight.requires_grad:
        # `data` has the view's memory and is none.
        kept = _MATRICES[weight] = view.data.requires_grad_(weight.requires_grad)
    return kept
