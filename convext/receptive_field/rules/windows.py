"""Operators that slide a window: convolutions, pooling, padding, unfolding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from convext.receptive_field._field import Field
from convext.receptive_field._reach import NOWHERE
from convext.receptive_field.rules.call import Call, Unforeseen, base_name, rule


def pair(value: Any, length: int = 2) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * length if len(values) == 1 else values


def window_taps(outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> torch.Tensor:
    """Which elements each output of a sliding window takes, shape ``(kernel, outputs)``."""
    return torch.arange(outputs)[None] * stride - padding + torch.arange(kernel)[:, None] * dilation


def transposed_taps(outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> torch.Tensor:
    """The same for the transposed operation; NOWHERE where a tap falls between two elements."""
    position = torch.arange(outputs)[None] + padding - torch.arange(kernel)[:, None] * dilation
    between = position.remainder(stride) != 0
    return position.div(stride, rounding_mode="floor").masked_fill(between, NOWHERE)


def _padded(taps: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Where the value of a tap comes from under a padding mode."""
    if mode in ("zeros", "constant"):
        return taps
    if mode == "replicate":
        return taps.clamp(0, size - 1)
    if mode == "circular":
        return taps.remainder(size)
    period = max(2 * (size - 1), 1)
    folded = taps.remainder(period)
    return torch.minimum(folded, period - folded) if size > 1 else torch.zeros_like(taps)


def _channels_mixed(field: Field, dim: int, groups: int, outputs: int) -> Field:
    """Each of the output channels sees all input channels of its group."""
    channels = field.shape[dim]
    before, after = field.dims[:dim], field.dims[dim + 1 :]
    split = field.single(dim).with_axes([*before, (groups,), (channels // groups,), *after])
    mixed = split.reduced([dim + 1])
    shape = [*mixed.shape]
    shape[dim + 1] = outputs // groups
    expanded = mixed.expanded(shape)
    return expanded.with_axes([*before, (groups, outputs // groups), *after]).single(dim)


def _convolved(field: Field, call: Call, weight: torch.Tensor, transposed: bool, mode: str = "zeros") -> Field:
    spatial = weight.dim() - 2
    channel_dim = len(field.dims) - spatial - 1
    groups = call["groups"]
    field = _channels_mixed(field, channel_dim, groups, call.shape[channel_dim])
    stride, dilation = pair(call["stride"], spatial), pair(call["dilation"], spatial)
    padding = pair(call["padding"], spatial)
    # convext pads each side on its own: top, bottom, left, right.
    before = padding[::2] if len(padding) == 2 * spatial else padding
    for index in range(spatial):
        dim = channel_dim + 1 + index
        kernel, size, outputs = weight.shape[2 + index], field.shape[dim], call.shape[dim]
        geometry = (outputs, kernel, stride[index], before[index], dilation[index])
        far = transposed_taps(*geometry) if transposed else window_taps(*geometry)
        step = (stride[index], 1) if transposed else (1, stride[index])
        field = field.gathered(dim, _padded(far, size, mode), far, step)
    return field


@rule("convolution", "_convolution", "convolution_overrideable", significant=True)
def _convolution(call: Call) -> Any:
    field = call.field("input")
    if field is None or call.field("weight") is not None:
        raise Unforeseen("a convolution whose kernel depends on the image")
    return _convolved(field, call, call["weight"], call["transposed"])


@rule("convext::corr2d", significant=True)
def _corr2d(call: Call) -> Any:
    field = call.field("input")
    if field is None or call.field("weight") is not None:
        raise Unforeseen("a convolution whose kernel depends on the image")
    return _convolved(field, call, call["weight"], False, call["padding_mode"])


@rule(
    "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "mkldnn_max_pool2d", "quantized_max_pool2d", significant=True,
)  # fmt: skip
def _pool(call: Call) -> Any:
    (field,) = call.fields
    kernel = call["kernel_size"]
    spatial = {"1": 1, "2": 2, "3": 3}[base_name(call.function).split("pool")[1][0]]
    kernel = pair(kernel, spatial)
    stride = pair(call["stride"], spatial) if call["stride"] else kernel
    padding, dilation = pair(call["padding"], spatial), pair(call.get("dilation", 1), spatial)
    for index in range(spatial):
        dim = len(field.dims) - spatial + index
        taps = window_taps(call.shape[dim], kernel[index], stride[index], padding[index], dilation[index])
        field = field.gathered(dim, taps, step=(1, stride[index]))
    return [field for _ in call.results]


@rule("_adaptive_avg_pool2d", "adaptive_max_pool2d", "mkldnn_adaptive_avg_pool2d", significant=True)
def _adaptive_pool(call: Call) -> Any:
    (field,) = call.fields
    for dim in (len(field.dims) - 2, len(field.dims) - 1):
        size, outputs = field.shape[dim], call.shape[dim]
        if outputs == 1:
            field = field.reduced([dim])
            continue
        index = torch.arange(outputs)
        start = index * size // outputs
        stop = -(-(index + 1) * size // outputs)
        longest = int((stop - start).max())
        taps = start + torch.arange(longest)[:, None]
        taps = torch.minimum(taps, stop - 1)
        divisor = math.gcd(size, outputs)
        field = field.gathered(dim, taps, step=(outputs // divisor, size // divisor))
    return [field for _ in call.results]


@rule("constant_pad_nd", significant=True)
@rule("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", significant=True)
def _pad(call: Call) -> Any:
    (field,) = call.fields
    name = base_name(call.function)
    mode = "constant" if "constant" in name else "reflect" if "reflection" in name else "replicate"
    padding = call["pad"] if mode == "constant" else call["padding"]
    return padded(field, padding, mode)


def padded(field: Field, padding: Sequence[int], mode: str) -> Field:
    """After ``F.pad``: last dimension first, before and after."""
    for index in range(len(padding) // 2):
        before, after = padding[2 * index], padding[2 * index + 1]
        if before == after == 0:
            continue
        dim = len(field.dims) - 1 - index
        size = field.shape[dim]
        far = torch.arange(-before, size + after)[None]
        field = field.gathered(dim, _padded(far, size, mode), far, (1, 1))
    return field


@rule("im2col", significant=True)
def _im2col(call: Call) -> Any:
    (field,) = call.fields
    *batch, _, height, width = field.shape
    kernel, stride = pair(call["kernel_size"]), pair(call["stride"])
    padding, dilation = pair(call["padding"]), pair(call["dilation"])
    outputs = [
        (size + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i, size in enumerate((height, width))
    ]
    first = len(batch) + 1
    for i, dim in ((1, first + 1), (0, first)):
        taps = window_taps(outputs[i], kernel[i], stride[i], padding[i], dilation[i])
        parts = [field.gathered(dim, tap[None], step=(1, stride[i])) for tap in taps]
        parts = [part.with_axes([*part.dims[:dim], (1,), *part.dims[dim:]]) for part in parts]
        field = Field.concatenated(parts, [1] * kernel[i], dim)
    return field.permuted([*range(first), first, first + 2, first + 1, first + 3]).reshaped(call.shape)


@rule("col2im", significant=True)
def _col2im(call: Call) -> Any:
    (field,) = call.fields
    kernel, stride = pair(call["kernel_size"]), pair(call["stride"])
    padding, dilation = pair(call["padding"]), pair(call["dilation"])
    size = list(call["output_size"])
    windows = [(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    *batch, channels, _ = field.shape
    channels //= kernel[0] * kernel[1]
    field = field.reshaped((*batch, channels, kernel[0], kernel[1], windows[0], windows[1]))
    first = len(batch) + 1
    for i, (kernel_dim, window_dim) in enumerate(((first, first + 2), (first + 1, first + 3))):
        # Each tap has windows of its own; the pixel sees the union over the taps that fall on it.
        parts = []
        for tap in range(kernel[i]):
            far = transposed_taps(size[i], 1, stride[i], padding[i] - tap * dilation[i], 1)
            part = field.sliced(kernel_dim, tap, 1)
            parts.append(part.gathered(window_dim, far, far, (stride[i], 1)))
        field = Field.union(parts, parts[0].shape)
    return field.with_axes([*field.dims[:first], *field.dims[first + 2 :]])
