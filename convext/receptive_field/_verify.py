"""The check of a report by gradients.

A gradient that is not zero proves that a unit depends on a pixel; that it is zero proves nothing, since a ReLU may be
closed and terms may cancel. So the check runs the model in float64 in such a way that nothing closes or cancels:
weights are positive, activations are left out, maxima become sums over the same window, and norms become positive
linear maps of the same elements. Then the pixels with a gradient are those that the unit depends on, and the smallest
rectangle around them must be the one of the report.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from convext.receptive_field import rules
from convext.receptive_field._gradients import Capture
from convext.receptive_field._rows import Layer

if TYPE_CHECKING:
    from convext.receptive_field.report import Report

#: Pixels of all copies of the image that go through the model at once; memory grows with it.
PIXELS_AT_ONCE = 1 << 19

_ACTIVATIONS = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "selu_", "celu", "celu_", "gelu",
    "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "hardtanh_", "sigmoid", "sigmoid_", "tanh", "tanh_",
    "softplus", "softsign", "logsigmoid", "prelu", "rrelu", "rrelu_", "threshold", "threshold_", "hardshrink",
    "softshrink", "tanhshrink", "clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_max", "clamp_min_",
    "clamp_max_", "exp", "log", "log1p", "sqrt", "rsqrt", "abs", "erf", "square", "sign", "neg",
}  # fmt: skip


def _linear_norm(input: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    return input + input.mean(list(dims), keepdim=True) if dims else input


def _max_pool(input: torch.Tensor, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The mean over each window of a pooling by maxima."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given: dict[str, Any] = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    indices = given.pop("return_indices", False)
    result = F.max_pool2d(input.detach(), **{key: value for key, value in given.items() if key != "input"})
    kernel, stride, padding, dilation = (
        rules.pair(given.get(name) if given.get(name) is not None else other)
        for name, other in (("kernel_size", 1), ("stride", given["kernel_size"]), ("padding", 0), ("dilation", 1))
    )
    stride = stride or kernel
    sizes, needed = result.shape[-2:], []
    for side in (1, 0):
        span = (sizes[side] - 1) * stride[side] + dilation[side] * (kernel[side] - 1) + 1
        needed += [padding[side], span - input.shape[-2 + side] - padding[side]]
    images = F.pad(input, needed).reshape(-1, 1, input.shape[-2] + needed[2] + needed[3],
                                          input.shape[-1] + needed[0] + needed[1])  # fmt: skip
    ones = input.new_ones((1, 1, *kernel)) / (kernel[0] * kernel[1])
    pooled = F.conv2d(images, ones, stride=stride, dilation=dilation).reshape(result.shape)
    if not indices:
        return pooled
    return pooled, F.max_pool2d(
        input.detach(), **{**given, "return_indices": True}
    )[1]  # fmt: skip


def _interpolated(input: torch.Tensor, args: Any, kwargs: Any) -> torch.Tensor | None:
    """Resampling by weights that are all positive, where the real ones are not all zero."""
    names = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
    given: dict[str, Any] = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    given.pop("input", None)
    if input.dim() != 4:
        return None
    weights = []
    for side in (0, 1):
        size = input.shape[2 + side]
        line = dict(given)
        for name in ("size", "scale_factor"):
            value = line.get(name)
            if value is not None:
                pair = rules.pair(value)
                line[name] = (pair[side], 2 if name == "size" else 1)
        impulses = torch.eye(size, dtype=torch.float64, device=input.device)[:, None, :, None].expand(-1, -1, -1, 2)
        response = F.interpolate(impulses, **line)[:, 0, :, 0].abs()
        weights.append(torch.where(response > 1e-9, response, 0).to(input.dtype))
    return torch.einsum("nchw,hp,wq->ncpq", input, *weights)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    def heads(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() >= 3 and tensor.shape[-3] not in (1, query.shape[-3]):
            return tensor.mean(-3, keepdim=True)
        return tensor

    seen = heads(key).mean((-2, -1), keepdim=True) + heads(value).mean(-2, keepdim=True)
    return query.mean(-1, keepdim=True) + seen


class PositiveCapture(Capture):
    """Captures outputs of a run in which gradients neither vanish nor cancel."""

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        replaced = self._positive(function, args, kwargs)
        return function(*args, **kwargs) if replaced is None else replaced

    def _positive(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        name = getattr(function, "__name__", "")
        if name == "where" and len(args) == 3:
            return args[1] + args[2] + torch.zeros_like(args[0], dtype=torch.float64)
        input = args[0] if args else kwargs.get("input")
        if not isinstance(input, torch.Tensor) or not input.is_floating_point():
            return None
        if name in _ACTIVATIONS:
            return input * 1 if not name.endswith("_") else input
        if name.startswith("max_pool2d") or name == "_max_pool2d":
            return _max_pool(input, function, args, kwargs)
        if name.startswith("adaptive_max_pool2d"):
            size = args[1] if len(args) > 1 else kwargs["output_size"]
            return F.adaptive_avg_pool2d(input, size) if "with_indices" not in name else None
        if name in ("interpolate", "upsample"):
            return _interpolated(input, args, kwargs)
        if name in ("softmax", "log_softmax"):
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            return None if dim is None else _linear_norm(input, [dim])
        if name == "layer_norm" or name == "rms_norm":
            shape = args[1] if len(args) > 1 else kwargs["normalized_shape"]
            return _linear_norm(input, range(-len(tuple(shape)), 0))
        if name == "group_norm":
            groups = args[1] if len(args) > 1 else kwargs["num_groups"]
            split = input.unflatten(1, (groups, -1))
            return _linear_norm(split, range(2, split.dim())).flatten(1, 2)
        if name == "instance_norm":
            return _linear_norm(input, range(2, input.dim()))
        if name == "batch_norm":
            return self._batch_norm(input, args, kwargs)
        if name == "scaled_dot_product_attention":
            return _attention(*args, **kwargs)
        if name in ("amax", "amin"):
            return torch.mean(input, *args[1:], **kwargs)
        other = args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("dim"))
        if name in ("max", "min") and isinstance(other, int):
            kind = torch.return_types.max if name == "max" else torch.return_types.min
            keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
            return kind((input.mean(other, keepdim=keep), function(input.detach(), other, keep)[1]))
        if name in ("maximum", "minimum", "max", "min") and isinstance(other, torch.Tensor):
            return input + other
        return None

    def _batch_norm(self, input: torch.Tensor, args: Any, kwargs: Any) -> Any:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if given.get("training") or given.get("running_mean") is None:
            return _linear_norm(input, [0, *range(2, input.dim())])
        return input * 1


def positive_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers in float64 to run a model with: positive, and so small that values stay near 1."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not tensor.is_floating_point():
            continue
        own = name.rpartition(".")[2]
        if own in ("running_mean", "running_var"):
            value = torch.full(tensor.shape, float(own == "running_var"), dtype=torch.float64)
        elif not isinstance(tensor, nn.Parameter):
            value = tensor.detach().double()
        elif tensor.dim() >= 2:
            random = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5
            value = random / max(math.prod(tensor.shape[1:]), 1)
        else:
            # Positive biases keep products with a padded zero from hiding the other factor.
            value = torch.full(tensor.shape, 0.1 if own == "bias" else 1.0, dtype=torch.float64)
        state[name] = value.to(tensor.device)
    return state


def _positions(layer: Layer) -> list[tuple[int, int]]:
    """Corner, middle and last unit."""
    height, width = layer.row.output_size
    return list(dict.fromkeys([(0, 0), (height // 2, width // 2), (height - 1, width - 1)]))


def check(report: Report, model: nn.Module, layers: Sequence[Layer], image_shape: Sequence[int]) -> None:
    """Sets `verified` of every row, and warns of those that fail."""
    state = positive_state(model)
    wanted = [(layer, position) for layer in layers if layer.is_row for position in _positions(layer)]
    batch, channels, height, width = image_shape
    at_once = max(1, PIXELS_AT_ONCE // (height * width)) if batch == 1 else 1
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found: dict[str, list[bool | None]] = {}
    for start in range(0, len(wanted), at_once):
        group = wanted[start : start + at_once]
        shape = (len(group), channels, height, width) if batch == 1 else tuple(image_shape)
        image = torch.rand(shape, dtype=torch.float64, device=device) + 0.5
        try:
            gradients = _gradients(model, state, group, image)
        except (RuntimeError, ValueError):
            gradients = [None] * len(group)
        for unit, gradient in zip(group, gradients, strict=True):
            agrees = gradient is not None and _agrees(report, *unit, gradient)
            # On its own where it did not work in a batch: some models mix its samples, or want just one.
            found.setdefault(unit[0].row.name, []).append(agrees or _check_alone(report, (model, state), unit, image))
    for layer in layers:
        results = found.get(layer.row.name)
        if results:
            layer.row.verified = False if False in results else None if None in results else True
    if report.mismatches:
        names = [row.name for row in report.mismatches]
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        warnings.warn(
            f"receptive_field(): gradients and report disagree for {len(names)} of {len(report)} rows: {listed}",
            stacklevel=3,
        )


def _check_alone(
    report: Report,
    model: tuple[nn.Module, dict[str, torch.Tensor]],
    unit: tuple[Layer, tuple[int, int]],
    images: torch.Tensor,
) -> bool | None:
    """Whether the gradient of one unit agrees with the report; None where there is no gradient."""
    try:
        (gradient,) = _gradients(*model, [unit], images[:1].detach() if report.batch_size == 1 else images.detach())
    except (RuntimeError, ValueError):
        return None
    return None if gradient is None else _agrees(report, *unit, gradient)


def _gradients(
    model: nn.Module,
    state: dict[str, torch.Tensor],
    group: Sequence[tuple[Layer, tuple[int, int]]],
    image: torch.Tensor,
) -> list[torch.Tensor | None]:
    """For each unit the gradient by its own copy of the image, summed over channels; None if there is none."""
    single = len(image) != len(group) or len(group) == 1
    with torch.enable_grad():
        image.requires_grad_()
        capture = PositiveCapture([layer for layer, _ in group])
        with capture.watch(model):
            torch.func.functional_call(model, state, (image * 1,))
        total = []
        for sample, (layer, position) in enumerate(group):
            output = capture.outputs.get(layer.place)
            if output is not None:
                total.append(layer.elements(output, position, sample, 1 if single else len(group)).sum())
        if not total:
            return [None] * len(group)
        (gradient,) = torch.autograd.grad(torch.stack(total).sum(), image)
    gradient = gradient.abs().sum(1)
    return [
        (gradient.sum(0) if single else gradient[sample]) if layer.place in capture.outputs else None
        for sample, (layer, _) in enumerate(group)
    ]


def _agrees(report: Report, layer: Layer, position: tuple[int, int], gradient: torch.Tensor) -> bool:
    rectangle = report.unit(layer.row.name, position).rectangle
    seen = gradient != 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    if not len(rows):
        return rectangle.size == (0, 0)
    return (rectangle.top, rectangle.bottom, rectangle.left, rectangle.right) == (
        int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1,
    )  # fmt: skip
