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

from convext.receptive_field._gradients import Capture
from convext.receptive_field._positive import stand_in
from convext.receptive_field._rows import Layer

if TYPE_CHECKING:
    from convext.receptive_field.report import Report

#: Pixels of all copies of the image that go through the model at once; memory grows with it.
PIXELS_AT_ONCE = 1 << 19


class PositiveCapture(Capture):
    """Captures outputs of a run in which gradients neither vanish nor cancel."""

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        replaced = stand_in(function, args, kwargs)
        return function(*args, **kwargs) if replaced is None else replaced


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
        except Exception:  # whatever a model raises that does not take a batch
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
    except Exception:  # whatever a model raises that cannot be run in float64
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
