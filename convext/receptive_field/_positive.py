"""Linear, positive stand-ins for functions of torch: each depends on the same elements, and no gradient vanishes.

They have the parameters of what they replace, as far as those matter, and are found by its name. One that cannot stand
in for a call returns None, and the function itself runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from convext.receptive_field.rules import pair

_ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid",
    "hardtanh", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "prelu", "rrelu", "threshold", "hardshrink",
    "softshrink", "tanhshrink", "clamp", "clip", "clamp_min", "clamp_max", "exp", "log", "log1p", "sqrt", "rsqrt",
    "abs", "erf", "square", "sign", "neg",
)  # fmt: skip


def _activation(input: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return input * 1


def _inplace_activation(input: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return input


def _with_mean(input: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    return input + input.mean(list(dims), keepdim=True) if dims else input * 1


def _max_pool(
    input: torch.Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The mean over each window."""
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    result, indices = F.max_pool2d(input.detach(), *settings, return_indices=True)
    kernel, before, gaps = pair(kernel_size), pair(padding), pair(dilation)
    steps = pair(stride) if stride not in (None, [], ()) else kernel
    padded_sides = []
    for side in (1, 0):
        span = (result.shape[-2 + side] - 1) * steps[side] + gaps[side] * (kernel[side] - 1) + 1
        padded_sides += [before[side], span - input.shape[-2 + side] - before[side]]
    images = F.pad(input, padded_sides)
    mean = input.new_full((1, 1, *kernel), 1 / (kernel[0] * kernel[1]))
    pooled = F.conv2d(images.reshape(-1, 1, *images.shape[-2:]), mean, stride=steps, dilation=gaps)
    pooled = pooled.reshape(result.shape)
    return (pooled, indices) if return_indices else pooled


def _adaptive_max_pool(input: torch.Tensor, output_size: Any, return_indices: bool = False) -> torch.Tensor | None:
    return None if return_indices else F.adaptive_avg_pool2d(input, output_size)


def _interpolate(input: torch.Tensor, size: Any = None, scale_factor: Any = None, *args: Any, **kwargs: Any) -> Any:
    """By the absolute values of the weights, without those that are rounding errors."""
    if input.dim() != 4:
        return None
    weights = []
    for side in (0, 1):
        # Impulses along one side; the other one has two pixels, which stay.
        impulses = torch.eye(input.shape[2 + side], dtype=input.dtype, device=input.device)
        impulses = impulses[:, None, :, None].expand(-1, -1, -1, 2)
        sizes = None if size is None else (pair(size)[side], 2)
        factors = None if scale_factor is None else (pair(scale_factor)[side], 1)
        response = F.interpolate(impulses, sizes, factors, *args, **kwargs)[:, 0, :, 0].abs()
        weights.append(torch.where(response > 1e-9, response, 0))
    return torch.einsum("nchw,hp,wq->ncpq", input, *weights)


def _softmax(input: torch.Tensor, dim: int | None = None, *_: Any, **__: Any) -> torch.Tensor | None:
    return None if dim is None else _with_mean(input, [dim])


def _batch_norm(
    input: torch.Tensor, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, *_: Any, **__: Any,
) -> torch.Tensor:  # fmt: skip
    uses_the_batch = training or running_mean is None
    return _with_mean(input, [0, *range(2, input.dim())] if uses_the_batch else [])


def _layer_norm(input: torch.Tensor, normalized_shape: Any, *_: Any, **__: Any) -> torch.Tensor:
    return _with_mean(input, range(-len(tuple(normalized_shape)), 0))


def _group_norm(input: torch.Tensor, num_groups: int, *_: Any, **__: Any) -> torch.Tensor:
    groups = input.unflatten(1, (num_groups, -1))
    return _with_mean(groups, range(2, groups.dim())).flatten(1, 2)


def _instance_norm(input: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return _with_mean(input, range(2, input.dim()))


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    def heads(tensor: torch.Tensor) -> torch.Tensor:
        shared = tensor.dim() >= 3 and tensor.shape[-3] not in (1, query.shape[-3])
        return tensor.mean(-3, keepdim=True) if shared else tensor

    seen = heads(key).mean((-2, -1), keepdim=True) + heads(value).mean(-2, keepdim=True)
    return query.mean(-1, keepdim=True) + seen


def _where(condition: torch.Tensor, input: Any = None, other: Any = None) -> Any:
    return None if input is None else input + other + torch.zeros_like(condition, dtype=torch.float64)


def _extremum_over(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.mean(input, *args, **kwargs)


def _larger(input: torch.Tensor, other: Any = None, *_: Any, **__: Any) -> torch.Tensor | None:
    return input + other if isinstance(other, torch.Tensor) else None


def _max(input: torch.Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    if isinstance(dim, torch.Tensor) or other is not None:
        return _larger(input, dim if other is None else other)
    if dim is None:
        return input.mean()
    _, indices = torch.max(input.detach(), dim, keepdim)
    return torch.return_types.max((input.mean(dim, keepdim=keepdim), indices))  # type: ignore[attr-defined]


#: By the name of the function.
STAND_INS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_ACTIVATIONS, _activation),
    **{f"{name}_": _inplace_activation for name in _ACTIVATIONS},
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices", "_max_pool2d"), _max_pool),
    **dict.fromkeys(("adaptive_max_pool2d", "_adaptive_max_pool2d"), _adaptive_max_pool),
    **dict.fromkeys(("interpolate", "upsample"), _interpolate),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("amax", "amin"), _extremum_over),
    **dict.fromkeys(("maximum", "minimum"), _larger),
    **dict.fromkeys(("max", "min"), _max),
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "scaled_dot_product_attention": _attention,
    "where": _where,
}


def stand_in(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """What the stand-in for a function returns, None if there is none."""
    replacement = STAND_INS.get(getattr(function, "__name__", ""))
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if replacement is None or not any(tensor.is_floating_point() for tensor in tensors):
        return None
    return replacement(*args, **kwargs)
