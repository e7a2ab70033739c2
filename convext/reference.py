"""Cross-correlation and its gradients in plain Python: slow, and meant to be read.

Every native kernel is compared with these loops. They work for every dtype, integers and complex numbers included,
and take the same geometry arguments as `convext.conv2d`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from convext._geometry import Geometry, normalize


def corr2d(X: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """The textbook's loop: slide ``K`` of shape ``(h, w)`` over ``X`` of shape ``(H, W)``, multiply, add.

    Example:
        >>> import torch
        >>> from convext import reference
        >>> X = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
        >>> K = torch.tensor([[0, 1], [2, 3]])
        >>> reference.corr2d(X, K)
        tensor([[19, 25],
                [37, 43]])
    """
    h, w = K.shape
    Y = torch.zeros(X.shape[0] - h + 1, X.shape[1] - w + 1, dtype=torch.result_type(X, K))
    for i in range(Y.shape[0]):
        for j in range(Y.shape[1]):
            Y[i, j] = (X[i : i + h, j : j + w] * K).sum()
    return Y


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
) -> torch.Tensor:
    """What `convext.conv2d` computes, one output position at a time.

    ``input`` is ``(N, C, H, W)`` or ``(C, H, W)``, ``weight`` is ``(O, C / groups, h, w)``, ``bias`` is ``(O,)``.

    Example:
        >>> import torch
        >>> from convext import reference
        >>> reference.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3), padding=1)
        tensor([[[[4., 6., 4.],
                  [6., 9., 6.],
                  [4., 6., 4.]]]])
    """
    if input.dim() == 3:
        return conv2d(input[None], weight, bias, stride, padding, dilation, groups, padding_mode=padding_mode)[0]
    kernel_size = weight.shape[-2:]
    geometry = normalize(stride, padding, dilation, groups, padding_mode, input.shape[-2:], kernel_size)
    padded = pad(input, geometry)
    height, width = output_size(input.shape[-2:], kernel_size, geometry)
    output = input.new_zeros(input.shape[0], weight.shape[0], height, width)
    for o, channels in output_channels(weight.shape[0], input.shape[1], groups):
        for y, x, window in windows(height, width, kernel_size, geometry):
            output[:, o, y, x] = (padded[:, channels][window] * weight[o]).sum(dim=(1, 2, 3))
            if bias is not None:
                output[:, o, y, x] += bias[o]
    return output


def grad_input(
    grad_output: torch.Tensor,
    weight: torch.Tensor,
    input_size: Sequence[int],
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
) -> torch.Tensor:
    """The gradient of the input, of height and width ``input_size``: each output's gradient, times the weight, goes
    back to the window that the output was computed from.

    Example:
        >>> import torch
        >>> from convext import reference
        >>> reference.grad_input(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), (3, 3))
        tensor([[[[1., 2., 1.],
                  [2., 4., 2.],
                  [1., 2., 1.]]]])
    """
    kernel_size = weight.shape[-2:]
    geometry = normalize(stride, padding, dilation, groups, padding_mode, input_size, kernel_size)
    top, bottom, left, right = geometry.padding
    in_channels = weight.shape[1] * groups
    padded_size = (input_size[0] + top + bottom, input_size[1] + left + right)
    grad_padded = grad_output.new_zeros(grad_output.shape[0], in_channels, *padded_size)
    for o, channels in output_channels(weight.shape[0], in_channels, groups):
        for y, x, window in windows(grad_output.shape[2], grad_output.shape[3], kernel_size, geometry):
            grad_padded[:, channels][window] += grad_output[:, o, y, x][:, None, None, None] * weight[o]
    return unpad(grad_padded, input_size, geometry)


def grad_weight(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
) -> torch.Tensor:
    """The gradient of the weight, of height and width ``kernel_size``: each output's gradient times the window that
    the output was computed from, added over all outputs.

    Example:
        >>> import torch
        >>> from convext import reference
        >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
        >>> reference.grad_weight(torch.ones(1, 1, 2, 2), image, (2, 2))
        tensor([[[[ 8., 12.],
                  [20., 24.]]]])
    """
    geometry = normalize(stride, padding, dilation, groups, padding_mode, input.shape[-2:], kernel_size)
    padded = pad(input, geometry)
    grad = input.new_zeros(grad_output.shape[1], input.shape[1] // groups, *kernel_size)
    for o, channels in output_channels(grad_output.shape[1], input.shape[1], groups):
        for y, x, window in windows(grad_output.shape[2], grad_output.shape[3], kernel_size, geometry):
            grad[o] += (grad_output[:, o, y, x][:, None, None, None] * padded[:, channels][window]).sum(dim=0)
    return grad


def grad_bias(grad_output: torch.Tensor) -> torch.Tensor:
    """The gradient of the bias: each channel's output gradients, added up.

    Example:
        >>> import torch
        >>> from convext import reference
        >>> reference.grad_bias(torch.ones(2, 3, 4, 5))
        tensor([40., 40., 40.])
    """
    return torch.stack([grad_output[:, o].sum() for o in range(grad_output.shape[1])]).to(grad_output.dtype)


def output_size(input_size: Sequence[int], kernel_size: Sequence[int], geometry: Geometry) -> tuple[int, int]:
    """How many positions the kernel has on the padded input, downwards and across."""
    top, bottom, left, right = geometry.padding
    sizes = []
    for axis, total in ((0, top + bottom), (1, left + right)):
        extent = geometry.dilation[axis] * (kernel_size[axis] - 1) + 1
        sizes.append((input_size[axis] + total - extent) // geometry.stride[axis] + 1)
    return (sizes[0], sizes[1])


def output_channels(out_channels: int, in_channels: int, groups: int) -> Iterator[tuple[int, slice]]:
    """Each output channel with the input channels that it sees."""
    for o in range(out_channels):
        group = o // (out_channels // groups)
        width = in_channels // groups
        yield o, slice(group * width, (group + 1) * width)


def windows(
    height: int, width: int, kernel_size: Sequence[int], geometry: Geometry
) -> Iterator[tuple[int, int, tuple[slice, slice, slice, slice]]]:
    """Each output position (y, x) with its window in the padded input."""
    (stride_y, stride_x), (dilation_y, dilation_x) = geometry.stride, geometry.dilation
    everything = slice(None)
    for y in range(height):
        rows = slice(y * stride_y, y * stride_y + dilation_y * (kernel_size[0] - 1) + 1, dilation_y)
        for x in range(width):
            columns = slice(x * stride_x, x * stride_x + dilation_x * (kernel_size[1] - 1) + 1, dilation_x)
            yield y, x, (everything, everything, rows, columns)


def source_indices(size: int, before: int, after: int, padding_mode: str) -> list[int | None]:
    """For each position along one padded axis, the index it is copied from; None where it is zero."""
    indices: list[int | None] = []
    for position in range(-before, size + after):
        if 0 <= position < size:
            indices.append(position)
        elif padding_mode == "zeros":
            indices.append(None)
        elif padding_mode == "reflect":
            indices.append(-position if position < 0 else 2 * (size - 1) - position)
        elif padding_mode == "replicate":
            indices.append(0 if position < 0 else size - 1)
        else:
            indices.append(position % size)
    return indices


def pad(input: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """The input with its padding, row by row and column by column."""
    height, width = input.shape[-2:]
    top, bottom, left, right = geometry.padding
    padded = input.new_zeros(*input.shape[:-2], height + top + bottom, width + left + right)
    for y, row in enumerate(source_indices(height, top, bottom, geometry.padding_mode)):
        for x, column in enumerate(source_indices(width, left, right, geometry.padding_mode)):
            if row is not None and column is not None:
                padded[..., y, x] = input[..., row, column]
    return padded


def unpad(grad_padded: torch.Tensor, input_size: Sequence[int], geometry: Geometry) -> torch.Tensor:
    """The gradient of `pad`: what reached a padded position goes back to where that was copied from."""
    top, bottom, left, right = geometry.padding
    grad = grad_padded.new_zeros(*grad_padded.shape[:-2], *input_size)
    for y, row in enumerate(source_indices(input_size[0], top, bottom, geometry.padding_mode)):
        for x, column in enumerate(source_indices(input_size[1], left, right, geometry.padding_mode)):
            if row is not None and column is not None:
                grad[..., row, column] += grad_padded[..., y, x]
    return grad
