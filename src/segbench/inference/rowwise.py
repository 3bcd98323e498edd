"""A network's forward pass in strips of rows that recomputes nothing.

A whole image needs too much memory at once, and overlapping tiles compute their overlaps twice. Here the image goes
through the network from top to bottom: each operation takes the rows that are new, keeps the few that the next strip
needs again, and gives the rows that are then complete. A convolution keeps two rows, a concatenation what its other
input is ahead. So the result is that of the whole image, with padding where the whole image has it.

The network's own `forward` runs once, on tensors that report the shape of the whole image and hold its first strip
(`_Rows`). What it does is kept and done again with each further strip, which takes a fraction of the time that its
modules and torch's dispatch need; what does not depend on the image, weights in another precision, is computed once. An
operation that is not in the table below refuses, and the caller takes another way.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from segbench.errors import SegbenchError

aten = torch.ops.aten

HEADROOM = 2
"""Rows that a strip has above it in memory, and the last one below: what a 3x3 convolution needs around it."""


_FORWARD = threading.Lock()


class NotRowwise(Exception):
    """The network does something that is not known to work row by row; says what."""


class RowwiseForward:
    """A forward pass over strips of one image, from top to bottom.

    Args:
        forward: of the network in eval mode, of one input BCHW or a mapping of them; called with the first strip.
        height: H of the image.
    """

    def __init__(self, forward: Callable[[Any], Any], height: int) -> None:
        self._forward, self._height = forward, height
        self._row = self._place = self._slots = 0
        self._states: list[_State] = []
        self._steps: list[_Step] = []
        self._outputs: dict[str, int] = {}

    def __call__(self, strips: Mapping[str, Tensor], heads: Callable[[Any], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Rows of the output that are complete with these strips.

        Args:
            strips: the next rows, B C rows W by modality; the last ones end at `height`.
            heads: the tensors to return, from what the network returns.

        Returns:
            B K rows w by head; those of successive calls follow each other, and may have no rows at first.

        Raises:
            NotRowwise: at the first call, for whatever the network does that tensors of strips cannot.
        """
        given = {name: _Rows.made(self, strip, self._row, self._height) for name, strip in strips.items()}
        self._row += next(iter(strips.values())).shape[-2]
        if self._steps:
            return self._again([*given.values()])
        try:
            # Bands share the network, whose own code may keep something between its lines.
            with _FORWARD:
                output = heads(self._forward(next(iter(given.values())) if len(given) == 1 else given))
        except (NotRowwise, SegbenchError, MemoryError):
            raise
        except Exception as error:
            # What is not an operation, such as an array from a tensor, ends in errors of any class.
            raise NotRowwise(f"{type(error).__name__}: {error}") from error
        if not all(isinstance(value, _Rows) for value in output.values()):
            raise NotRowwise("an output that does not depend on the image")
        self._outputs = {head: cast(_Rows, value).slot for head, value in output.items()}
        last_use = {slot: step for step in self._steps for slot in step.slots}
        for slot, step in last_use.items():
            if slot not in self._outputs.values():
                step.last.append(slot)
        return {head: cast(_Rows, value).strip for head, value in output.items()}

    def _again(self, given: Sequence[_Rows]) -> dict[str, Tensor]:
        """The steps of the first strip with another one."""
        self._place = 0
        rows = dict(enumerate(given))
        # What autocast converts is a step of its own.
        with torch.autocast(given[0].device.type, enabled=False):
            for step in self._steps:
                args = [_refilled(value, rows) for value in step.args]
                kwargs = {name: _refilled(value, rows) for name, value in step.kwargs.items()}
                output = step.known(step.func, *args, **kwargs)
                rows[step.slot] = output[0] if isinstance(output, tuple) else output
                for slot in step.last:
                    del rows[slot]
        return {head: rows[slot].strip for head, slot in self._outputs.items()}

    def slot(self) -> int:
        """The number of the tensor that is now made."""
        self._slots += 1
        return self._slots - 1

    def keep(self, step: _Step) -> None:
        """One more step of the first strip."""
        self._steps.append(step)

    def state(self) -> _State:
        """That of the operation that is now called, kept from strip to strip."""
        if self._place == len(self._states):
            self._states.append(_State())
        self._place += 1
        return self._states[self._place - 1]


class _Slot(int):
    """The number of a tensor of rows, in place of it."""


@dataclass(frozen=True)
class _Step:
    """An operation of the first strip.

    Attributes:
        known: how it is done.
        func: the operation.
        args: its arguments, with slots for rows.
        kwargs: the same of the named ones.
        slot: of what it gives.
        last: the slots that no later step needs.
    """

    known: Callable[..., Any]
    func: Any
    args: list[Any]
    kwargs: dict[str, Any]
    slot: int
    last: list[int] = field(default_factory=list)

    @property
    def slots(self) -> set[int]:
        """Those that it takes, and its own."""
        given = [*self.args, *self.kwargs.values()]
        several = (slot for each in given if type(each) is _Slots for slot in each)
        return {self.slot, *(each for each in (*given, *several) if type(each) is _Slot)}


class _Slots(list[Any]):
    """Tensors, those of rows by their number."""


def _emptied(value: Any) -> Any:
    """An argument, with slots for rows."""
    if isinstance(value, (list, tuple)) and any(isinstance(each, _Rows) for each in value):
        return _Slots(map(_emptied, value))
    return _Slot(value.slot) if isinstance(value, _Rows) else value


def _refilled(value: Any, rows: Mapping[int, _Rows]) -> Any:
    """An argument, with rows for slots."""
    if type(value) is _Slot:
        return rows[value]
    return [_refilled(each, rows) for each in value] if type(value) is _Slots else value


class _State:
    """Rows of an operation's inputs that it needs again.

    Attributes:
        queues: of each input.
        done: rows given so far.
        tail: the last `HEADROOM` rows given; zeros above the image.
    """

    def __init__(self) -> None:
        self.queues: list[_Queue] = []
        self.done = 0
        self.tail: Tensor | None = None

    def roomy(self, like: Tensor, channels: int, start: int, count: int, height: int) -> Tensor:
        """A tensor for `count` rows of a result from `start` on, below the last rows before them.

        A convolution that needs those again then takes them from there, without joining two tensors. Outside the image
        are zeros, as its padding has them.
        """
        below = HEADROOM if start + count == height else 0
        roomy = _empty(like, channels, HEADROOM + count + below)
        roomy[:, :, :HEADROOM] = 0 if self.tail is None else self.tail
        roomy[:, :, HEADROOM + count :] = 0
        return roomy

    def keep(self, roomy: Tensor, count: int) -> None:
        """The last rows of a result of `count`, for the next one."""
        self.tail = roomy[:, :, count : HEADROOM + count].clone()

    def take(self, inputs: Sequence[_Rows]) -> list[_Queue]:
        """The inputs' rows, those of this strip included."""
        if not self.queues:
            self.queues = [_Queue(rows.start) for rows in inputs]
        for queue, rows in zip(self.queues, inputs, strict=True):
            queue.add(rows)
        return self.queues


class _Queue:
    """Consecutive rows of a tensor in pieces."""

    def __init__(self, start: int) -> None:
        self.start = self.stop = start
        self._pieces: deque[Tensor] = deque()

    def add(self, rows: _Rows) -> None:
        if rows.start != self.stop:
            raise NotRowwise("rows that do not follow each other")
        self._pieces.append(rows.strip)
        self.stop += rows.strip.shape[2]

    def cuts(self) -> Iterator[int]:
        """The first row of each piece."""
        first = self.start
        for piece in self._pieces:
            yield first
            first += piece.shape[2]

    def get(self, start: int, stop: int) -> list[Tensor]:
        """Rows start to stop, as views."""
        parts: list[Tensor] = []
        first = self.start
        for piece in self._pieces:
            last = first + piece.shape[2]
            if (first < stop and last > start) or not parts:
                parts.append(piece[:, :, max(start - first, 0) : max(min(stop, last) - first, 0)])
            first = last
        return [part for part in parts if part.shape[2]] or parts[:1]

    def drop(self, before: int, copy: bool) -> None:
        """Forget the rows before one; `copy`: the others no longer hold on to what they are a view of."""
        while len(self._pieces) > 1 and self.start + self._pieces[0].shape[2] <= before:
            self.start += self._pieces.popleft().shape[2]
        first = self._pieces[0]
        cut = min(max(before - self.start, 0), first.shape[2])
        self.start += cut
        first = first[:, :, cut:]
        self._pieces[0] = first.clone() if copy and len(self._pieces) == 1 else first


class _Rows(Tensor):
    """A strip of the rows of a BCHW tensor, of which it reports the shape.

    Attributes:
        owner: the pass.
        strip: the rows from `start` on.
        start: the first one.
        slot: its number in the pass.
        shared: whether another tensor may be a view of it, so that it cannot be changed in place.
        roomy: the strip with `above` rows above it, and some below.
        above: how many.
    """

    roomy: Tensor
    owner: RowwiseForward
    strip: Tensor
    start: int
    shared: bool
    slot: int
    above: int

    @staticmethod
    def made(owner: RowwiseForward, strip: Tensor, start: int, height: int) -> _Rows:
        B, C, _, W = strip.shape
        made: Any = Tensor._make_wrapper_subclass(_Rows, (B, C, height, W), dtype=strip.dtype, device=strip.device)
        made.owner, made.strip, made.start, made.shared, made.slot = owner, strip, start, False, owner.slot()
        made.roomy, made.above = strip, 0
        return cast(_Rows, made)

    @staticmethod
    def within(owner: RowwiseForward, roomy: Tensor, start: int, count: int, height: int) -> _Rows:
        """Rows of which others are around."""
        made = _Rows.made(owner, roomy[:, :, HEADROOM : HEADROOM + count], start, height)
        made.roomy, made.above = roomy, HEADROOM
        return made

    def like(self, strip: Tensor, start: int | None = None, height: int | None = None) -> _Rows:
        return _Rows.made(
            self.owner, strip, self.start if start is None else start, self.shape[2] if height is None else height
        )

    def part(self, start: int, stop: int, fill: float) -> Tensor | None:
        """Rows start to stop, if they are at hand in one piece; `fill` outside the image."""
        first = self.start - self.above
        inside = 0 <= start and stop <= self.shape[2]
        if start < first or stop > first + self.roomy.shape[2] or not (inside or fill == 0):
            return None
        return self.roomy[:, :, start - first : stop - first]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        kwargs = kwargs or {}
        if known := _KNOWN.get(func):
            # Before it is done: rows that are changed in place are the same afterwards.
            emptied = [*map(_emptied, args)], {name: _emptied(value) for name, value in kwargs.items()}
            output = known(func, *args, **kwargs)
            rows = output[0] if isinstance(output, tuple) else output
            rows.owner.keep(_Step(known, func, *emptied, rows.slot))
            return output
        # In inference mode, composed operations arrive whole.
        output = func.decompose(*args, **kwargs)
        if output is NotImplemented:
            raise NotRowwise(str(func))
        return output


def _pointwise(func: Any, rows: _Rows, *args: Any, **kwargs: Any) -> Any:
    """Of one tensor: each row of the result depends on that row alone."""
    if not isinstance(rows, _Rows) or any(isinstance(each, _Rows) for each in (*args, *kwargs.values())):
        raise NotRowwise(f"{func} of several tensors")
    output = func(rows.strip, *args, **kwargs)
    if isinstance(output, tuple):
        return (rows.like(output[0]), *output[1:])
    return rows.like(output)


def _changed(func: Any, rows: _Rows, *args: Any, **kwargs: Any) -> _Rows:
    """In place; the strip itself stays, since an operation before may have kept it."""
    if rows.shared:
        raise NotRowwise(f"{func} of a view")
    if func is aten.relu_.default:
        state, (channels, count) = rows.owner.state(), rows.strip.shape[1:3]
        rows.roomy, rows.above = state.roomy(rows.strip, channels, rows.start, count, rows.shape[2]), HEADROOM
        rows.strip = torch.clamp_min(rows.strip, 0, out=rows.roomy[:, :, HEADROOM : HEADROOM + count])
        state.keep(rows.roomy, count)
    else:
        rows.strip = rows.roomy = func(rows.strip.clone(), *args, **kwargs)
        rows.above = 0
    return rows


def _added_to(func: Any, rows: Any, other: Any, **kwargs: Any) -> _Rows:
    """An elementwise operation of two, in place."""
    if not isinstance(rows, _Rows) or rows.shared:
        raise NotRowwise(f"{func} of a view or of what does not depend on the image")
    output = _together(_APART[func], rows, other, **kwargs)
    if output.shape != rows.shape:
        raise NotRowwise(f"{func} with a larger tensor")
    rows.strip = rows.roomy = output.strip.to(rows.dtype)
    rows.start, rows.above = output.start, 0
    return rows


def _together(func: Any, first: Any, second: Any, **kwargs: Any) -> Any:
    """An elementwise operation of two tensors or a tensor and a number."""
    both = [each for each in (first, second) if isinstance(each, _Rows)]
    if len(both) == 2 and both[0].shape[2] == both[1].shape[2]:
        strips, start = _aligned(func, both)
        return both[0].like(func(*strips, **kwargs), start)
    other = second if isinstance(first, _Rows) else first
    if len(both) == 2 or (isinstance(other, Tensor) and other.dim() >= 2 and other.shape[-2] != 1):
        raise NotRowwise(f"{func} of tensors of unlike height")
    return both[0].like(func(*(each.strip if isinstance(each, _Rows) else each for each in (first, second)), **kwargs))


def _aligned(func: Any, inputs: Sequence[_Rows]) -> tuple[list[Tensor], int]:
    """The rows that all have, and the first of them."""
    state = inputs[0].owner.state()
    queues = state.take(inputs)
    start, stop = state.done, min(queue.stop for queue in queues)
    strips = [_joined(queue.get(start, stop)) for queue in queues]
    for queue in queues:
        queue.drop(stop, copy=False)
    state.done = stop
    return strips, start


def _joined(parts: Sequence[Tensor], before: int = 0, after: int = 0, fill: float = 0.0) -> Tensor:
    """Rows one below the other, with rows of `fill` before and after them."""
    if len(parts) == 1 and before <= 0 and after <= 0:
        return parts[0]
    # torch.cat goes pixel by pixel where rows are stored as HWC.
    ends = [max(before, 0)]
    for part in parts:
        ends.append(ends[-1] + part.shape[2])
    joined = _empty(parts[-1], parts[-1].shape[1], ends[-1] + max(after, 0))
    for part, (first, last) in zip(parts, pairwise(ends), strict=True):
        joined[:, :, first:last] = part
    joined[:, :, : ends[0]] = fill
    joined[:, :, ends[-1] :] = fill
    return joined


def _empty(like: Tensor, channels: int, count: int) -> Tensor:
    """Rows stored as those of another tensor."""
    packed = like.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        (like.shape[0], channels, count, like.shape[3]),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last if packed else torch.contiguous_format,
    )


def _cat(func: Any, tensors: Sequence[Any], dim: int = 0) -> _Rows:
    if dim not in (1, -3) or len({rows.shape[2] for rows in tensors}) > 1:
        raise NotRowwise(f"{func} of rows")
    if not all(isinstance(rows, _Rows) for rows in tensors):
        raise NotRowwise(f"{func} with a tensor that does not depend on the image")
    owner, height = tensors[0].owner, tensors[0].shape[2]
    state = owner.state()
    queues = state.take(tensors)
    start, stop = state.done, min(queue.stop for queue in queues)
    roomy = state.roomy(tensors[0].strip, sum(rows.shape[1] for rows in tensors), start, stop - start, height)
    joined = roomy[:, :, HEADROOM : HEADROOM + stop - start]
    cuts = sorted({start, stop, *(cut for queue in queues for cut in queue.cuts() if start < cut < stop)})
    for first, last in pairwise(cuts):
        _put_together([queue.get(first, last)[0] for queue in queues], joined[:, :, first - start : last - start])
    for queue in queues:
        queue.drop(stop, copy=False)
    state.done = stop
    state.keep(roomy, stop - start)
    return _Rows.within(owner, roomy, start, stop - start, height)


def _put_together(parts: Sequence[Tensor], output: Tensor) -> None:
    """Concatenate channels; of one image as HWC where it is stored so, for which torch has a faster way."""
    if len(output) == 1 and all(part.is_contiguous(memory_format=torch.channels_last) for part in (*parts, output)):
        torch.cat([part[0].permute(1, 2, 0) for part in parts], 2, out=output[0].permute(1, 2, 0))
    else:
        torch.cat([*parts], 1, out=output)


def _slice(
    func: Any, rows: _Rows, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> _Rows:
    rows.shared = True
    dim %= 4
    if dim != 2:
        cut = rows.like(func(rows.strip, dim, start, end, step))
    else:
        first, last, step = slice(start, end, step).indices(rows.shape[2])
        if step != 1:
            raise NotRowwise(f"{func} of every {step}th row")
        stop = rows.start + rows.strip.shape[2]
        inside = slice(min(max(first, rows.start), stop) - rows.start, max(min(last, stop), rows.start) - rows.start)
        last = max(first, last)
        cut = rows.like(rows.strip[:, :, inside], min(max(rows.start, first), last) - first, last - first)
    cut.shared = True
    return cut


def _windows(
    func: Any, rows: _Rows, kernel: int, stride: int, padding: int, dilation: int, fill: float,
    run: Callable[[Tensor], Tensor],
) -> _Rows:  # fmt: skip
    """Convolutions and poolings: output row o is of the input rows from o * stride - padding on."""
    state = rows.owner.state()
    (queue,) = state.take([rows])
    height, reach = rows.shape[2], dilation * (kernel - 1) + 1
    rows_out = (height + 2 * padding - reach) // stride + 1
    known = height + padding if queue.stop == height else queue.stop
    start, stop = state.done, min((known + padding - reach) // stride + 1, rows_out)
    if stop <= start:
        # Nothing yet: the shape and type of a result without rows.
        like = run(rows.strip.new_zeros(*rows.strip.shape[:2], reach, rows.strip.shape[3]))
        return rows.like(like[:, :, :0], start, rows_out)
    first, last = start * stride - padding, (stop - 1) * stride - padding + reach
    strip = rows.part(first, last, fill)
    if strip is None:
        strip = _joined(queue.get(max(first, 0), min(last, height)), -first, last - height, fill)
    output = run(strip)
    queue.drop(stop * stride - padding, copy=True)
    state.done = stop
    return rows.like(output, start, rows_out)


def _convolution(
    func: Any, rows: Any, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> _Rows:  # fmt: skip
    if not isinstance(rows, _Rows) or len(stride) != 2:
        raise NotRowwise(f"{func} of weights")

    def run(strip: Tensor) -> Tensor:
        return cast(
            Tensor,
            func(strip, weight, bias, stride, [0, padding[1]], dilation, transposed, output_padding, groups),
        )

    if not transposed:
        return _windows(func, rows, weight.shape[2], stride[0], padding[0], dilation[0], 0.0, run)
    if any(output_padding):
        raise NotRowwise(f"{func} with an output padding")
    state = rows.owner.state()
    (queue,) = state.take([rows])
    height, reach = rows.shape[2], dilation[0] * (weight.shape[2] - 1) + 1
    rows_out = (height - 1) * stride[0] - 2 * padding[0] + reach
    start = state.done
    stop = rows_out if queue.stop == height else min(max(queue.stop * stride[0] - padding[0], start), rows_out)
    first = max(math.ceil((start + padding[0] - reach + 1) / stride[0]), 0)
    last = min((stop - 1 + padding[0]) // stride[0] + 1, queue.stop)
    if stop <= start:
        like = run(rows.strip.new_zeros(*rows.strip.shape[:2], 1, rows.strip.shape[3]))
        return rows.like(like[:, :, :0], start, rows_out)
    output = run(_joined(queue.get(first, last)))
    skipped = start - (first * stride[0] - padding[0])
    queue.drop(max(math.ceil((stop + padding[0] - reach + 1) / stride[0]), 0), copy=True)
    state.done = stop
    return rows.like(output[:, :, skipped : skipped + stop - start], start, rows_out)


def _upsampled(func: Any, rows: _Rows, size: Sequence[int] | None, *more: Any) -> _Rows:
    """Nearest or bilinear, by a power of two: only there every strip rounds as the whole image does."""
    *corners, scales = more
    height, bilinear = rows.shape[2], bool(corners)
    factor = scales[0] if size is None else size[0] / height
    if factor not in (2, 4, 8, 16, 32) or any(corners):
        raise NotRowwise(f"{func} by {factor:g}" + " with align_corners" * any(corners))
    factor = int(factor)
    # The centre of a row lies at (row + 0.5) * factor; what is between two of them is a mixture of both.
    reach = factor // 2 if bilinear else 0
    state = rows.owner.state()
    (queue,) = state.take([rows])
    start, rows_out = state.done, height * factor
    stop = rows_out if queue.stop == height else max(queue.stop * factor - reach, start)
    first = max((start - reach) // factor, 0)
    strip = _joined(queue.get(first, queue.stop))
    run = strip if strip.shape[2] else rows.strip.new_zeros(*rows.strip.shape[:2], 1, rows.strip.shape[3])
    sides = None if size is None else [run.shape[2] * factor, size[1]]
    output = func(run, sides, *corners, scales)
    queue.drop(max((stop - reach) // factor, 0), copy=True)
    state.done = stop
    return rows.like(output[:, :, start - first * factor : stop - first * factor], start, rows_out)


def _padded(func: Any, rows: _Rows, pad: Sequence[int], *value: Any) -> _Rows:
    if any(pad[2:]):
        raise NotRowwise(f"{func} of rows")
    return rows.like(func(rows.strip, pad, *value))


def _softmax(func: Any, rows: _Rows, dim: int, *more: Any) -> _Rows:
    if dim % 4 not in (1, 3):
        raise NotRowwise(f"{func} over rows or images")
    return rows.like(func(rows.strip, dim, *more))


def _pair(values: Any) -> tuple[int, int]:
    return (values[0], values[-1]) if isinstance(values, (list, tuple)) else (values, values)


def _max_pool(
    func: Any, rows: _Rows, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> tuple[_Rows, Tensor]:
    if ceil:
        raise NotRowwise(f"{func} with ceil_mode")
    (kernel_h, _), (pad_h, pad_w), (dilation_h, _) = _pair(kernel), _pair(padding), _pair(dilation)
    stride_h, _ = _pair(stride or kernel)

    def run(strip: Tensor) -> Tensor:
        return cast(Tensor, func(strip, kernel, stride, [0, pad_w], dilation, False)[0])

    pooled = _windows(func, rows, kernel_h, stride_h, pad_h, dilation_h, -math.inf, run)
    return pooled, pooled.strip


def _average_pool(
    func: Any, rows: _Rows, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, *more: Any
) -> _Rows:
    if ceil or any(_pair(padding)):
        raise NotRowwise(f"{func} with ceil_mode or padding")

    def run(strip: Tensor) -> Tensor:
        return cast(Tensor, func(strip, kernel, stride, padding, ceil, *more))

    return _windows(func, rows, _pair(kernel)[0], _pair(stride or kernel)[0], 0, 1, 0.0, run)


def _same(func: Any, rows: _Rows, *args: Any, **kwargs: Any) -> _Rows:
    """A view of all of it."""
    rows.shared = True
    same = rows.like(rows.strip)
    same.shared = True
    return same


def _batch_norm(
    func: Any, rows: _Rows, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *more: Any
) -> tuple[Any, ...]:
    if training:
        raise NotRowwise(f"{func} in training mode")
    output = func(rows.strip, weight, bias, mean, var, training, *more)
    return (rows.like(output[0]), *output[1:])


_UNARY = (
    *("relu", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus", "sigmoid", "tanh"),
    *("hardtanh", "hardswish", "hardsigmoid", "clamp", "exp", "log", "neg"),
)
_BINARY = ("add", "sub", "mul", "div")
_APART = {
    getattr(getattr(aten, f"{name}_"), kind): getattr(getattr(aten, name), kind)
    for name in _BINARY
    for kind in ("Tensor", "Scalar")
}
"""What an operation in place does, with a tensor of its own for the result."""

_KNOWN: dict[Any, Callable[..., Any]] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten.native_batch_norm.default: _batch_norm,
    aten.cat.default: _cat,
    aten.slice.Tensor: _slice,
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.constant_pad_nd.default: _padded,
    aten._softmax.default: _softmax,
    aten._to_copy.default: _pointwise,
    aten.clone.default: _pointwise,
    aten._prelu_kernel.default: _pointwise,
    aten.upsample_nearest2d.vec: _upsampled,
    aten.upsample_bilinear2d.vec: _upsampled,
    **{getattr(aten, name).default: _pointwise for name in _UNARY},
    **{getattr(aten, f"{name}_").default: _changed for name in _UNARY if hasattr(aten, f"{name}_")},
    **{getattr(getattr(aten, name), kind): _together for name in _BINARY for kind in ("Tensor", "Scalar")},
    **dict.fromkeys(_APART, _added_to),
}
"""What is known of an operation, called with it and its arguments."""
