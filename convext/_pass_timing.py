"""Times one pass of a call, for `convext.explain`."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from convext import autograd
from convext._geometry import Geometry

#: Runs go on for so many seconds, but no fewer than LEAST_RUNS.
SECONDS = 0.1
LEAST_RUNS = 3


def measured_seconds(
    pass_name: str,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    out_dtype: torch.dtype | None,
    device: torch.device,
) -> float:
    """The least time of several runs, on small random integers in tensors of these shapes, strides and dtypes.

    Args:
        pass_name: ``"forward"``, ``"grad_input"`` or ``"grad_weight"``.
        device: where to run; the CPU for meta.
    """
    device = torch.device("cpu") if device.type == "meta" else device
    x, w = _random_like(input, device), _random_like(weight, device)
    b = None if bias is None else torch.zeros(weight.shape[0], dtype=w.dtype, device=device)
    with torch.no_grad():
        run = _pass(pass_name, x, w, b, geometry, out_dtype)
        run()  # the first call warms the caches
        best, runs, deadline = float("inf"), 0, time.perf_counter() + SECONDS
        while runs < LEAST_RUNS or time.perf_counter() < deadline:
            _wait(device)
            begin = time.perf_counter()
            run()
            _wait(device)
            best = min(best, time.perf_counter() - begin)
            runs += 1
    return best


def _pass(
    name: str,
    x: torch.Tensor,
    w: torch.Tensor,
    b: torch.Tensor | None,
    geometry: Geometry,
    out_dtype: torch.dtype | None,
) -> Callable[[], torch.Tensor]:
    if name == "forward":
        return lambda: autograd.corr2d(x, w, b, geometry, out_dtype)
    grad = torch.ones_like(autograd.corr2d(x, w, None, geometry))
    is_channels_last = grad.is_contiguous(memory_format=torch.channels_last) and not grad.is_contiguous()
    size, kernel = tuple(x.shape[-2:]), tuple(w.shape[-2:])
    if name == "grad_input":
        return lambda: autograd.corr2d_grad_input(grad, w, size, geometry, is_channels_last)
    return lambda: autograd.corr2d_grad_weight(grad, x, kernel, geometry, is_channels_last)


def _random_like(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Also for meta tensors, and for strides that let elements share memory; the caller's random numbers stay."""
    if tensor.numel() == 0:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    generator = torch.Generator().manual_seed(0)
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    numbers = torch.randint(0, 10, (span,), generator=generator)
    return numbers.to(device, tensor.dtype).as_strided(tensor.shape, tensor.stride())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
