"""``python -m convext check``: does every kernel compute what it should on this machine?

Each kernel is forced in turn. Its values and explicit gradients must equal the naive Python reference's on small
integers, where every sum is exact, and gradcheck and gradgradcheck must agree in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import gradcheck, gradgradcheck

import convext
from convext import reference

#: (name, channels in, channels out, kernel size, arguments)
CASES: list[tuple[str, int, int, tuple[int, int], dict[str, Any]]] = [
    ("plain", 2, 3, (3, 2), {}),
    ("strided", 2, 3, (3, 3), {"stride": (2, 3), "padding": 1}),
    ("dilated", 2, 2, (2, 3), {"dilation": (2, 1), "padding": (1, 2)}),
    ("grouped", 4, 6, (2, 2), {"groups": 2, "padding": ((1, 0), (0, 2))}),
    ("depthwise", 3, 3, (3, 3), {"groups": 3, "padding": 1}),
    ("reflect", 2, 2, (3, 3), {"padding": 2, "padding_mode": "reflect"}),
    ("replicate", 2, 2, (3, 3), {"padding": 2, "padding_mode": "replicate"}),
    ("circular", 2, 2, (3, 3), {"padding": 2, "padding_mode": "circular"}),
]


def _integers(shape: tuple[int, ...], channels_last: bool, generator: torch.Generator, device: str) -> torch.Tensor:
    values = torch.randint(-4, 5, shape, generator=generator).double().to(device)
    return values.contiguous(memory_format=torch.channels_last) if channels_last else values


def _check_case(
    channels_in: int,
    channels_out: int,
    kernel_size: tuple[int, int],
    arguments: dict[str, Any],
    channels_last: bool,
    device: str,
) -> str:
    """Returns what is wrong, or an empty string."""
    generator = torch.Generator().manual_seed(0)
    groups = arguments.get("groups", 1)
    weight_size = (channels_out, channels_in // groups, *kernel_size)
    input = _integers((2, channels_in, 6, 7), channels_last, generator, device).requires_grad_()
    weight = _integers(weight_size, channels_last, generator, device).requires_grad_()
    bias = _integers((channels_out,), False, generator, device).requires_grad_()
    output = convext.conv2d(input, weight, bias, **arguments)
    grad = _integers(output.shape, False, generator, device)
    grads = torch.autograd.grad(output, (input, weight, bias), grad)
    with torch.no_grad():
        if not torch.equal(output, reference.conv2d(input, weight, bias, **arguments)):
            return "forward differs from the reference"
        if not torch.equal(grads[0], reference.grad_input(grad, weight, input.shape[-2:], **arguments)):
            return "grad_input differs from the reference"
        if not torch.equal(grads[1], reference.grad_weight(grad, input, kernel_size, **arguments)):
            return "grad_weight differs from the reference"
        if not torch.equal(grads[2], reference.grad_bias(grad)):
            return "grad_bias differs from the reference"

    def function(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return convext.conv2d(x, w, b, **arguments)

    if not gradcheck(function, (input, weight, bias), check_forward_ad=True, raise_exception=False):
        return "gradcheck fails"
    if not gradgradcheck(function, (input, weight, bias), raise_exception=False):
        return "gradgradcheck fails"
    return ""


def run_checks(kernel_name: str | None = None) -> int:
    """Prints a line per kernel and case; returns 1 if anything is wrong."""
    passed = failed = skipped = 0
    print(f"{'kernel':<24} {'case':<11} {'layout':<14} result")
    for kernel in [*convext.available_kernels("cpu"), *convext.available_kernels("cuda")]:
        if kernel_name not in (None, kernel.name, kernel.qualified_name):
            continue
        with convext.force_kernel(kernel.qualified_name):
            for name, channels_in, channels_out, kernel_size, arguments in CASES:
                for channels_last in (False, True):
                    layout = "channels_last" if channels_last else "contiguous"
                    try:
                        problem = _check_case(
                            channels_in, channels_out, kernel_size, arguments, channels_last, kernel.device
                        )
                    except RuntimeError as error:
                        if "was forced" not in str(error):
                            raise
                        skipped += 1
                        result = "not run: " + str(error).rsplit(": ", 1)[-1]
                    else:
                        result = problem or "exact, gradients agree"
                        passed, failed = passed + (not problem), failed + bool(problem)
                    print(f"{kernel.qualified_name:<24} {name:<11} {layout:<14} {result}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0
