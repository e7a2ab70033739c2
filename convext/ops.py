"""The operators ``torch.ops.convext.*``: loads them and tells torch what it must know to trace them.

Their kernels are native (``csrc/torch/ops.cpp``). Here are the fake kernels (shapes and strides without
data) and the FLOP formulas; derivatives are in `convext.autograd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from convext import _C as _C  # registers the operators
from convext import _cuda_part as _cuda_part  # and those of CUDA tensors

corr2d = torch.ops.convext.corr2d.default
corr2d_grad_input = torch.ops.convext.corr2d_grad_input.default
corr2d_grad_weight = torch.ops.convext.corr2d_grad_weight.default
corr2d_grad_bias = torch.ops.convext.corr2d_grad_bias.default


def is_channels_last(tensor: torch.Tensor) -> bool:
    """Whether torch calls this image or weight channels_last, as ``suggest_memory_format`` does."""
    if tensor.stride(-3) != 1:
        return False
    sizes, strides = tuple(tensor.shape), tuple(tensor.stride())
    if len(sizes) == 3:
        sizes, strides = (1, *sizes), (sizes[0] * strides[0], *strides)
    if len(sizes) != 4 or strides[1] == 0:
        return False
    smallest = 0
    for axis in (1, 3, 2, 0):
        if sizes[axis] == 0 or strides[axis] < smallest:
            return False
        if axis == 0 and smallest == strides[1]:
            return False
        smallest = strides[axis] * (sizes[axis] if sizes[axis] > 1 else 1)
    return True


def _four_sides(padding: Sequence[int]) -> tuple[int, int, int, int]:
    if len(padding) == 4:
        top, bottom, left, right = padding
        return (top, bottom, left, right)
    return (padding[0], padding[0], padding[-1], padding[-1])


def _output_size(
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:
    """The native part's formula once more, since here a size may be symbolic."""
    top, bottom, left, right = _four_sides(padding)
    sizes = []
    for axis, total in ((0, top + bottom), (1, left + right)):
        room = input_size[axis] + total - dilation[axis] * (kernel_size[axis] - 1) - 1
        torch._check(room >= 0, lambda: "kernel size must not exceed the padded input size")
        sizes.append(room // stride[axis] + 1)
    return (sizes[0], sizes[1])


def _dense(like: torch.Tensor, shape: Sequence[int], channels_last: bool, dtype: torch.dtype) -> torch.Tensor:
    """An empty tensor in the layout that the native operators give their results."""
    if len(shape) == 3:  # an image without a batch axis
        return _dense(like, (1, *shape), channels_last, dtype)[0]
    strides = [0, 0, 0, 0]
    elements = 1
    for axis in (1, 3, 2, 0) if channels_last else (3, 2, 1, 0):
        strides[axis] = elements
        elements = elements * torch.sym_max(shape[axis], 1)
    return like.new_empty_strided(shape, strides, dtype=dtype)


@torch.library.register_fake("convext::corr2d")
def _corr2d_fake(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    torch._check(
        input.dim() in (3, 4) and weight.dim() == 4,
        lambda: f"input must be 3-D or 4-D and weight 4-D, but they are {input.dim()}-D and {weight.dim()}-D",
    )
    torch._check(
        input.device == weight.device and (bias is None or bias.device == input.device),
        lambda: "input, weight and bias must be on the same device",
    )
    torch._check(
        input.dtype == weight.dtype and (bias is None or bias.dtype == input.dtype),
        lambda: "input, weight and bias must have the same dtype",
    )
    torch._check(groups > 0, lambda: f"groups must be a positive integer, but it is {groups}")
    torch._check(
        input.shape[-3] == weight.shape[1] * groups,
        lambda: (
            f"input must have weight.shape[1] * groups channels, but input has shape {list(input.shape)}, "
            f"weight has shape {list(weight.shape)} and groups is {groups}"
        ),
    )
    size = _output_size(input.shape[-2:], weight.shape[-2:], stride, padding, dilation)
    shape = (*input.shape[:-3], weight.shape[0], *size)
    return _dense(input, shape, is_channels_last(input) or is_channels_last(weight), out_dtype or input.dtype)


@torch.library.register_fake("convext::corr2d_grad_input")
def _corr2d_grad_input_fake(
    grad_output: torch.Tensor,
    weight: torch.Tensor,
    input_size: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
) -> torch.Tensor:
    shape = (*grad_output.shape[:-3], weight.shape[1] * groups, *input_size)
    return _dense(grad_output, shape, channels_last, grad_output.dtype)


@torch.library.register_fake("convext::corr2d_grad_weight")
def _corr2d_grad_weight_fake(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
) -> torch.Tensor:
    shape = (grad_output.shape[-3], input.shape[-3] // groups, *kernel_size)
    return _dense(grad_output, shape, channels_last, grad_output.dtype)


@torch.library.register_fake("convext::corr2d_grad_bias")
def _corr2d_grad_bias_fake(grad_output: torch.Tensor) -> torch.Tensor:
    return grad_output.new_empty((grad_output.shape[-3],))


def _multiply_adds(output_shape: Sequence[int], weight_shape: Sequence[int]) -> int:
    batch = output_shape[0] if len(output_shape) == 4 else 1
    plane = output_shape[-2] * output_shape[-1]
    return batch * plane * weight_shape[0] * weight_shape[1] * weight_shape[2] * weight_shape[3]


@register_flop_formula(torch.ops.convext.corr2d)
def _corr2d_flops(input_shape: Any, weight_shape: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    return 2 * _multiply_adds(out_shape, weight_shape)


@register_flop_formula(torch.ops.convext.corr2d_grad_input)
def _corr2d_grad_input_flops(grad_shape: Any, weight_shape: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    return 2 * _multiply_adds(grad_shape, weight_shape)


@register_flop_formula(torch.ops.convext.corr2d_grad_weight)
def _corr2d_grad_weight_flops(grad_shape: Any, input_shape: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    return 2 * _multiply_adds(grad_shape, out_shape)
