"""Receptive fields: what the units of each layer see of the image, found from one run of the model.

How it works and what it promises is in ``docs/receptive_field.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from convext.receptive_field._rows import Row, layers
from convext.receptive_field._trace import as_for_inference, trace
from convext.receptive_field.report import Rectangle, Report, Unit

__all__ = ["Rectangle", "Report", "Row", "Unit", "receptive_field"]


class _Function(nn.Module):
    """A plain function in the place of a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: torch.Tensor) -> Any:
        return self.function(image)


def receptive_field(
    model: nn.Module | Callable[..., Any], input_size: int | Sequence[int], *, verify: bool = False
) -> Report:
    """What the units of each layer of a model see of the image: size, jump and start of their receptive fields.

    The model runs once, on a random image, in evaluation mode; every operator says what its result sees. So the
    report follows what the model does, not how its modules are listed: branches, residuals, concatenations, functional
    calls, in-place operations. The model is left as it was.

    Args:
        model: takes images ``(N, C, H, W)``; a module or any function of a tensor.
        input_size: of the image, in pixels: an int for a square, ``(H, W)``, ``(C, H, W)`` or ``(N, C, H, W)``. Where
            the channels are not given, they are those of the model's first convolution.
        verify: whether to check every row by gradients, in float64 with positive weights: the corner, middle and last
            unit of each layer must depend on exactly the pixels of their rectangles (on the smallest rectangle around
            them, where there are gaps). ``row.verified`` tells, and a warning names the rows that fail. This takes
            three forward and backward passes for every row.

    Returns:
        A `Report` with a `Row` for each call of a layer, and for each function that looks further or joins branches.

    Raises:
        TypeError: if the model cannot be called or input_size holds something else than ints.
        ValueError: if input_size is not positive or of another length, or if the channels cannot be found.
        RuntimeError: if the model does not run on such an image.

    Source: Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019,
        doi:10.23915/distill.00021, for the definitions.

    Example:
        >>> import torch, convext
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 7, stride=2, padding=3), torch.nn.MaxPool2d(3, 2, 1), torch.nn.Conv2d(8, 8, 3)
        ... )
        >>> report = convext.receptive_field(model, 64)
        >>> report["2"].size, report["2"].jump, report["2"].start
        ((19, 19), (4, 4), (-5, -5))
        >>> report.unit("2", (0, 0)).rectangle
        Rectangle(top=0, left=0, bottom=14, right=14)
    """
    if not callable(model):
        raise TypeError(
            f"receptive_field(): model must be a torch.nn.Module or a function, but it is a {type(model).__name__}"
        )
    if not isinstance(model, nn.Module):
        model = _Function(model)
    # The module inside of what torch.compile made; compiled code would not show its layers.
    model = getattr(model, "_orig_mod", model)
    shape = _image_shape(model, input_size)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    dtype = torch.float32 if parameter is None else parameter.dtype
    with as_for_inference(model, device):
        image = torch.rand(shape, dtype=dtype, device=device)
        try:
            seen = trace(model, image)
        except Exception as error:
            is_guess = isinstance(input_size, int) or len(input_size) == 2
            hint = " (channels as in its first convolution; pass (C, H, W) if it takes others)" if is_guess else ""
            raise RuntimeError(
                f"receptive_field(): the model does not run on an image of shape {list(shape)}{hint}: {error}"
            ) from error
    found = layers(seen)
    report = Report(found, model, shape)
    if verify:
        from convext.receptive_field._verify import check

        with as_for_inference(model, device):
            check(report, model, found, shape)
    return report


def _image_shape(model: nn.Module, input_size: Any) -> tuple[int, int, int, int]:
    """The shape ``(N, C, H, W)`` that an `input_size` means."""
    sizes = [input_size] * 2 if isinstance(input_size, int) else input_size
    if isinstance(input_size, bool) or not isinstance(sizes, (tuple, list)):
        raise TypeError(f"receptive_field(): input_size must be an int or a sequence of ints, but it is {input_size!r}")
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes):
        raise TypeError(f"receptive_field(): input_size must hold ints, but it is {input_size!r}")
    if len(sizes) not in (2, 3, 4):
        raise ValueError(
            "receptive_field(): input_size must be an int, (H, W), (C, H, W) or (N, C, H, W), but it has "
            f"{len(sizes)} entries: {input_size!r}"
        )
    if min(sizes) < 1:
        raise ValueError(f"receptive_field(): input_size must be positive, but it is {input_size!r}")
    if len(sizes) == 2:
        sizes = [_channels(model), *sizes]
    batch, channels, height, width = (1, *sizes) if len(sizes) == 3 else sizes
    return (batch, channels, height, width)


def _channels(model: nn.Module) -> int:
    for module in model.modules():
        weight = getattr(module, "weight", None)
        channels = getattr(module, "in_channels", None)
        if isinstance(channels, int) and channels > 0 and isinstance(weight, torch.Tensor) and weight.dim() == 4:
            return channels
    raise ValueError(
        "receptive_field(): input_size must be (C, H, W), since the model has no convolution that says how many "
        "channels the image has"
    )
