"""Upsampling and downsampling by interpolation."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch

from convext.receptive_field.rules.call import Call, rule


@rule(
    "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", significant=True,
)  # fmt: skip
def _upsample(call: Call) -> Any:
    (field,) = call.fields
    scales = (call.get("scales_h"), call.get("scales_w"))
    for dim, scale in zip((len(field.dims) - 2, len(field.dims) - 1), scales, strict=True):
        size, outputs = field.shape[dim], call.shape[dim]
        near, far, step = resampling_taps(
            call.function, size, outputs, call.get("align_corners", None), None if scale is None else float(scale)
        )
        field = field.gathered(dim, near, far, step)
    return field


@lru_cache(maxsize=64)
def resampling_taps(
    function: Any, size: int, outputs: int, align_corners: bool | None, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int] | None]:
    """First and last element that each output of a resampling takes, here and on a line without end."""
    near = _hull(_responses(function, size, outputs, align_corners, scale))
    if align_corners:
        ratio = Fraction(size - 1, outputs - 1) if outputs > 1 else None
    elif scale is not None:
        ratio = Fraction(1 / scale).limit_denominator(4096)
    else:
        ratio = Fraction(size, outputs)
    if ratio is None or ratio == 0:
        return near, near, None
    # A longer line with the same ratio has, in its middle, the taps that this one would have without borders.
    step = (ratio.denominator, ratio.numerator)
    margin = -(-max(8, 4 * math.ceil(ratio)) // step[1])
    longer = size + 2 * margin * step[1], outputs + 2 * margin * step[0]
    far = _hull(_responses(function, *longer, align_corners, scale))
    middle = far[:, margin * step[0] : margin * step[0] + outputs] - margin * step[1]
    inner = (near > 0).all(0) & (near < size - 1).all(0)
    if bool((near.amin(0) != middle.amin(0))[inner].any() or (near.amax(0) != middle.amax(0))[inner].any()):
        return near, near, None
    return near, middle, step


def _responses(function: Any, size: int, outputs: int, align_corners: bool | None, scale: float | None) -> torch.Tensor:
    """Which outputs an impulse at each element reaches, shape ``(size, outputs)``; rounding errors are none."""
    # Two columns: torch 2.13 resamples a single one wrongly with antialiasing.
    impulses = torch.eye(size, dtype=torch.float64)[:, None, :, None].expand(-1, -1, -1, 2)
    arguments: list[Any] = [impulses, [outputs, 2]]
    if align_corners is not None:
        arguments.append(align_corners)
    result = function(*arguments, scale, None)
    return result[:, 0, :, 0].abs() > 1e-9


def _hull(responses: torch.Tensor) -> torch.Tensor:
    """All elements from the first to the last that an output takes, shape ``(taps, outputs)``."""
    size = responses.shape[0]
    index = torch.arange(size)[:, None].expand_as(responses)
    first = torch.where(responses, index, size).amin(0)
    last = torch.where(responses, index, -1).amax(0)
    longest = int((last - first).max()) + 1
    return torch.minimum(first + torch.arange(longest)[:, None], last)
