"""`conv2d` with the signature of ``torch.nn.functional.conv2d``, and the textbook's `corr2d` and `convolve2d`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.overrides import handle_torch_function, has_torch_function_variadic

from convext import _cuda_part, autograd
from convext._geometry import DEFAULT_GEOMETRY, Geometry, Padding, normalize, recall

_ZERO, _ONE = 0, 1
_DTYPES = {
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.complex64,
    torch.complex128,
}
_any_autocast_is_enabled = torch._C._is_any_autocast_enabled


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """2-D cross-correlation of a batch of images, as ``torch.nn.functional.conv2d`` computes it.

    Args:
        input: images of shape ``(N, C, H, W)`` or ``(C, H, W)``; float32, float64, bfloat16, float16, complex64,
            complex128, uint8, int8, int16, int32 or int64, in any memory layout.
        weight: kernels of shape ``(O, C / groups, h, w)``, of the same dtype.
        bias: one number per output channel, shape ``(O,)``, of the same dtype.
        stride: step between outputs in pixels, an int or ``(height, width)``.
        padding: pixels added around the image: an int, ``(height, width)``, ``((top, bottom), (left, right))``,
            ``"valid"`` (none) or ``"same"`` (an output of size ``ceil(input / stride)``; where the total is odd
            the larger half goes to the end).
        dilation: distance between kernel taps in pixels, an int or ``(height, width)``.
        groups: number of groups that channels are split into; both channel counts are multiples of it.
        padding_mode: what the added pixels hold: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        out_dtype: ``torch.int32`` gives exact sums for 8-bit inputs, which otherwise wrap around.

    Returns:
        Images of shape ``(N, O, H', W')`` (without ``N`` where the input has none), where
        ``H' = floor((H + padding - dilation * (h - 1) - 1) / stride) + 1``; channels_last if the input or the
        weight is. Sums of bfloat16 and float16 are kept in float32, sums of integers wrap around.

    Raises:
        RuntimeError: for shapes, sizes, dtypes or devices that do not fit together.
        TypeError: for arguments of a wrong Python type.
        ValueError: for an unknown ``padding_mode``.

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.

    Example:
        >>> import torch, convext
        >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
        >>> kernel = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> convext.conv2d(image, kernel)
        tensor([[[[19., 25.],
                  [37., 43.]]]])
    """
    if has_torch_function_variadic(input, weight, bias):
        return handle_torch_function(
            conv2d,
            (input, weight, bias),
            input,
            weight,
            bias,
            stride,
            padding,
            dilation,
            groups,
            padding_mode=padding_mode,
            out_dtype=out_dtype,
        )
    if not isinstance(input, torch.Tensor):
        raise TypeError(f"conv2d(): input must be a Tensor, but it is a {type(input).__name__}")
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"conv2d(): weight must be a Tensor, but it is a {type(weight).__name__}")
    if bias is not None and not isinstance(bias, torch.Tensor):
        raise TypeError(f"conv2d(): bias must be a Tensor or None, but it is a {type(bias).__name__}")

    if _any_autocast_is_enabled():
        input, weight, bias = _autocast(input, weight, bias)
    # The plainest call skips all that it does not need: on a small image this function is most of the time.
    # (`is`, since True == 1 == 1.0; where a small integer is not the same object, the general way is right too.)
    if stride is _ONE and padding is _ZERO and dilation is _ONE and groups is _ONE and padding_mode == "zeros":
        geometry = DEFAULT_GEOMETRY
    elif (known := recall(stride, padding, dilation, groups, padding_mode)) is not None:
        geometry = known
    else:
        if input.dim() not in (3, 4) or weight.dim() != 4:
            _check_ranks(input, weight)
        geometry = normalize(stride, padding, dilation, groups, padding_mode, input.shape[-2:], weight.shape[-2:])
    if input.is_complex():
        if out_dtype is not None and out_dtype != input.dtype:
            raise RuntimeError(
                f"conv2d(): out_dtype must be the dtype of the input, {input.dtype}, or torch.int32 for an 8-bit "
                f"input, but it is {out_dtype}"
            )
        return _complex_conv2d(input, weight, bias, geometry)
    try:
        return autograd.corr2d(input, weight, bias, geometry, out_dtype)
    except RuntimeError:
        _check_kind_of_tensors(input, weight, bias)
        raise


def _check_kind_of_tensors(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Says in one sentence what torch's dispatcher says in a page, in the exception type that torch raises.

    Called only where a call has failed, so that calls that succeed do not pay for it.
    """
    tensors = [("input", input), ("weight", weight)]
    if bias is not None:
        tensors.append(("bias", bias))
    for name, tensor in tensors:
        if tensor.layout != torch.strided:
            raise RuntimeError(f"conv2d(): {name} must be a dense tensor, but its layout is {tensor.layout}")
        if tensor.device != input.device:
            raise RuntimeError(
                f"conv2d(): input and {name} must be on the same device, but input is on {input.device} and {name} "
                f"is on {tensor.device}"
            )
    if input.device.type == "cuda" and _cuda_part.module is None:
        raise NotImplementedError(f"conv2d(): input is on {input.device}, but {_cuda_part.missing}")
    if input.device.type not in ("cpu", "cuda", "meta"):
        raise NotImplementedError(
            f"conv2d(): there are kernels for the CPU and for CUDA devices, but input is on {input.device}"
        )
    for name, tensor in tensors:
        if tensor.dtype == input.dtype and tensor.dtype not in _DTYPES:
            raise NotImplementedError(
                f"conv2d(): {name} must be of a floating-point, integer or complex dtype, but it is {tensor.dtype}"
            )


def _check_ranks(input: torch.Tensor, weight: torch.Tensor) -> None:
    if weight.dim() != 4:
        raise RuntimeError(
            f"conv2d(): weight must be 4-D (out_channels, in_channels / groups, height, width), but it has shape "
            f"{list(weight.shape)}"
        )
    raise RuntimeError(
        f"conv2d(): input must be 4-D (batch, channels, height, width) or 3-D (channels, height, width), but it "
        f"has shape {list(input.shape)}"
    )


def _autocast(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Casts as autocast casts the arguments of ``conv2d``: floating-point ones but float64."""
    device_type = input.device.type
    if not torch.is_autocast_enabled(device_type):
        return input, weight, bias
    dtype = torch.get_autocast_dtype(device_type)

    def cast(tensor: torch.Tensor | None) -> torch.Tensor | None:
        if tensor is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
            return tensor
        return tensor.to(dtype) if tensor.device.type == device_type else tensor

    return cast(input), cast(weight), cast(bias)  # type: ignore[return-value]


def _complex_conv2d(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry
) -> torch.Tensor:
    """A complex correlation is a real one over twice the channels: (real, imaginary) of each, side by side."""
    tensors = [("weight", weight)] if bias is None else [("weight", weight), ("bias", bias)]
    for name, tensor in tensors:
        if tensor.dtype != input.dtype:
            raise RuntimeError(
                f"conv2d(): input and {name} must have the same dtype, but input is {input.dtype} and {name} is "
                f"{tensor.dtype}"
            )
    if input.dim() not in (3, 4) or weight.dim() != 4:
        _check_ranks(input, weight)
    parts = torch.view_as_real(input.resolve_conj()).movedim(-1, -3)  # (..., C, 2, H, W)
    real, imaginary = torch.view_as_real(weight.resolve_conj()).unbind(-1)
    to_real = torch.stack((real, -imaginary), dim=2)
    to_imaginary = torch.stack((imaginary, real), dim=2)
    weights = torch.stack((to_real, to_imaginary), dim=1)  # (O, 2, C / groups, 2, h, w)
    biases = None if bias is None else torch.view_as_real(bias.resolve_conj()).flatten()
    output = autograd.corr2d(parts.flatten(-4, -3), weights.flatten(2, 3).flatten(0, 1), biases, geometry)
    output = output.unflatten(-3, (-1, 2)).movedim(-3, -1)
    result = torch.view_as_complex(output.contiguous())
    if input.dim() == 4 and (autograd.ops.is_channels_last(input) or autograd.ops.is_channels_last(weight)):
        result = result.contiguous(memory_format=torch.channels_last)
    return result


def corr2d(
    X: torch.Tensor,
    K: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
) -> torch.Tensor:
    """The textbook's cross-correlation: slide the kernel ``K`` over ``X``, multiply, add.

    Args:
        X: an image of shape ``(H, W)``, or images as `conv2d` takes them.
        K: a kernel of shape ``(h, w)`` for a 2-D ``X``, otherwise ``(O, C / groups, h, w)``.
        bias: a number that is added everywhere (a tensor with one element) for a 2-D ``X``, otherwise ``(O,)``.
        stride, padding, dilation, groups, padding_mode: as in `conv2d`.

    Returns:
        An image of shape ``(H', W')`` for a 2-D ``X``, otherwise what `conv2d` returns. Operands of different
        dtypes are promoted as ``X * K`` would promote them.

    Raises:
        RuntimeError, TypeError, ValueError: as `conv2d`.

    Source: Zhang, Lipton, Li and Smola, "Dive into Deep Learning", section 7.2 (5.1 in the first edition).

    Example:
        >>> import torch, convext
        >>> X = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
        >>> K = torch.tensor([[0, 1], [2, 3]])
        >>> convext.corr2d(X, K)
        tensor([[19, 25],
                [37, 43]])
    """
    if has_torch_function_variadic(X, K, bias):
        return handle_torch_function(
            corr2d, (X, K, bias), X, K, bias, stride, padding, dilation, groups, padding_mode=padding_mode
        )
    for name, tensor in (("X", X), ("K", K)):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"corr2d(): {name} must be a Tensor, but it is a {type(tensor).__name__}")
    if bias is not None and not isinstance(bias, torch.Tensor):
        raise TypeError(f"corr2d(): bias must be a Tensor or None, but it is a {type(bias).__name__}")
    # What torch.result_type gives for tensors with axes, in a form that torch.compile can trace.
    dtype = torch.promote_types(X.dtype, K.dtype)
    if bias is not None:
        dtype = torch.promote_types(dtype, bias.dtype) if bias.dim() else _with_number(dtype, bias.dtype)
        bias = bias.to(dtype)
    if dtype == torch.bool:
        raise RuntimeError("corr2d(): X or K must be of a number dtype, but both are bool")
    X, K = X.to(dtype), K.to(dtype)
    settings: dict[str, Any] = {"padding_mode": padding_mode}
    if X.dim() == 2 or K.dim() == 2:
        if X.dim() != 2 or K.dim() != 2:
            raise RuntimeError(
                f"corr2d(): X and K must both be 2-D, or X 3-D or 4-D and K 4-D, but they have shapes "
                f"{list(X.shape)} and {list(K.shape)}"
            )
        if bias is not None:
            if bias.numel() != 1:
                raise RuntimeError(
                    f"corr2d(): bias must have one element for a 2-D X, but it has shape {list(bias.shape)}"
                )
            bias = bias.reshape(1)
        output = conv2d(X[None, None], K[None, None], bias, stride, padding, dilation, groups, **settings)
        return output[0, 0]
    return conv2d(X, K, bias, stride, padding, dilation, groups, **settings)


def _with_number(dtype: torch.dtype, number: torch.dtype) -> torch.dtype:
    """The dtype of a tensor with axes plus one without: the latter counts only if it is of a higher kind."""

    def kind(dtype: torch.dtype) -> int:
        return 3 if dtype.is_complex else 2 if dtype.is_floating_point else int(dtype != torch.bool)

    return torch.promote_types(dtype, number) if kind(number) > kind(dtype) else dtype


def convolve2d(
    X: torch.Tensor,
    K: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
) -> torch.Tensor:
    """True convolution: `corr2d` with the kernel flipped left to right and top to bottom.

    Takes and returns what `corr2d` does. A learned layer does not care which of the two it computes: it learns
    the flipped kernel.

    Example:
        >>> import torch, convext
        >>> X = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
        >>> K = torch.tensor([[0, 1], [2, 3]])
        >>> convext.convolve2d(X, K)
        tensor([[ 5, 11],
                [23, 29]])
    """
    if has_torch_function_variadic(X, K, bias):
        return handle_torch_function(
            convolve2d, (X, K, bias), X, K, bias, stride, padding, dilation, groups, padding_mode=padding_mode
        )
    if not isinstance(K, torch.Tensor):
        raise TypeError(f"convolve2d(): K must be a Tensor, but it is a {type(K).__name__}")
    if K.dim() < 2:
        raise RuntimeError(f"convolve2d(): K must be 2-D or 4-D, but it has shape {list(K.shape)}")
    return corr2d(X, K.flip((-2, -1)), bias, stride, padding, dilation, groups, padding_mode=padding_mode)
