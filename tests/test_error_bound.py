"""How far floating-point results are from the exact ones.

Two promises: the error of each element is at most a small multiple of eps * (|weight| corr |input|), which is what
rounding costs a sum of that many terms of that size; and the root mean square of the errors is at most 1.25 times that
of torch's own convolution.
"""

from __future__ import annotations

import math
from collections import defaultdict

import cases
import numpy as np
import pytest
import torch
from cases import Case
from conftest import KernelUnderTest

import convext

ops = torch.ops.convext

CASES = [
    case
    for case in cases.SHAPES
    if case.name
    in {
        "deep-3x3",
        "deep",
        "stem",
        "narrow",
        "pointwise",
        "grouped-8",
        "large-kernel",
        "large-depthwise",
        "depthwise",
        "stride-and-dilation",
        "frame-5-reflect",
        "frame-dilated-grouped-circular",
        "width-33",
    }
] + [
    Case("long-sums", (2, 96, 9, 10), 16, (3, 3), {"padding": 1}),
    Case("many-pixels", (4, 3, 40, 41), 4, (3, 3), {"padding": 1}),
    Case("many-channels", (2, 64, 10, 11), 48, (3, 3), {"padding": 1}),
    Case("many-channels-reflect", (1, 130, 7, 8), 34, (3, 3), {"padding": 1, "padding_mode": "reflect"}),
    Case("small-image", (1, 32, 14, 15), 36, (3, 3), {"padding": 1}),
    Case("first-layer", (1, 3, 19, 87), 33, (3, 3), {"stride": 2, "padding": 1}),
    Case("spectrogram", (2, 1, 30, 90), 17, (9, 11), {"stride": (2, 1), "padding": (4, 0)}),
    Case("dilated-channels", (2, 48, 20, 17), 40, (3, 3), {"padding": 2, "dilation": 2}),
]

#: float32 on every shape: few terms and odd ones are where torch's own error is smallest.
RMS_CASES = [
    *[(case, torch.float32, "contiguous") for case in {case.name: case for case in [*cases.SHAPES, *CASES]}.values()],
    *[(case, dtype, "contiguous") for dtype in (torch.bfloat16, torch.float16) for case in CASES],
    # Few pixels, and enough of them for sums of tiles.
    (Case("channels-28", (1, 40, 28, 28), 34, (3, 3), {"padding": 1}), torch.float32, "channels_last"),
    (Case("channels-33", (1, 40, 33, 32), 34, (3, 3), {"padding": 1}), torch.float32, "channels_last"),
    *[(case, torch.float32, "channels_last") for case in CASES if case.name in {"first-layer", "spectrogram", "stem"}],
    (Case("eight-channels", (1, 8, 20, 21), 32, (2, 2), {}), torch.float32, "channels_last"),
]

PASSES = ["forward", "grad_input", "grad_weight"]


def passes_of(case: Case, tensors: list[torch.Tensor], kernel: KernelUnderTest | None) -> dict[str, torch.Tensor]:
    """The three results for (input, weight, grad_output), by convext's kernel or, without one, by torch."""
    input, weight, grad_output = tensors
    if kernel is None:
        input, weight = cases.leaf(input), cases.leaf(weight)
        output = cases.torch_conv2d(case, input, weight)
        results = (output.detach(), *torch.autograd.grad(output, (input, weight), grad_output))
    else:
        settings = cases.op_arguments(case)
        results = (
            kernel(ops.corr2d, input, weight, None, *settings),
            kernel(ops.corr2d_grad_input, grad_output, weight, case.input_size[-2:], *settings),
            kernel(ops.corr2d_grad_weight, grad_output, input, case.kernel_size, *settings),
        )
    return dict(zip(PASSES, results, strict=True))


def terms_of(case: Case) -> dict[str, int]:
    """How many products each element of each result is the sum of, at most."""
    channels, kernel = case.input_size[-3] // case.groups, math.prod(case.kernel_size)
    output = cases.torch_conv2d(case, torch.empty(case.input_size), torch.empty(case.weight_size))
    return {
        "forward": channels * kernel,
        # Padding filled from the image makes a pixel count once for every place that it fills.
        "grad_input": case.out_channels // case.groups * kernel * (1 if case.padding_mode == "zeros" else 9),
        "grad_weight": output.numel() // case.out_channels,
    }


def tensors_of(case: Case, dtype: torch.dtype, positive: bool) -> list[torch.Tensor]:
    shapes = (
        case.input_size,
        case.weight_size,
        cases.torch_conv2d(case, torch.empty(case.input_size), torch.empty(case.weight_size)).shape,
    )
    tensors = [cases.normal(shape, dtype, seed) for seed, shape in enumerate(shapes)]
    return [t.abs() for t in tensors] if positive else tensors


def bound_factor(terms: int) -> float:
    """c of the bound. Roundings of a sum of n terms do not all go the same way: they add up like a random walk."""
    return 4 + math.sqrt(terms) / 2


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_error_of_each_element(case: Case, dtype: torch.dtype, positive: bool, kernels: list[KernelUnderTest]) -> None:
    tensors = tensors_of(case, dtype, positive)
    if dtype == torch.float16:
        tensors = [t / 8 for t in tensors]  # so that long sums stay below 65504
    exact = passes_of(case, [t.double() for t in tensors], None)
    sizes = passes_of(case, [t.double().abs() for t in tensors], None)
    terms = terms_of(case)
    for kernel in kernels:
        for name, actual in passes_of(case, tensors, kernel).items():
            if actual is None:
                continue
            # 16-bit floats are summed as float32 and rounded once.
            bound = bound_factor(terms[name]) * torch.finfo(torch.float32).eps * sizes[name]
            if dtype != torch.float32:
                finfo = torch.finfo(dtype)
                bound = bound * 1.01 + finfo.eps / 2 * exact[name].abs() + finfo.smallest_normal * finfo.eps
            error = (actual.double() - exact[name]).abs()
            worst = (error / bound).max().item()
            assert (error <= bound).all(), f"{name}, {kernel.name}: {worst:.2f} times the bound"


def longdouble_forward(case: Case, input: torch.Tensor, weight: torch.Tensor) -> np.ndarray:
    """A plain correlation in extended precision: window by window, since there is no torch dtype for it."""
    (top, bottom), (left, right) = cases.four_sides(case)
    x = np.pad(input.numpy().astype(np.longdouble), ((0, 0), (0, 0), (top, bottom), (left, right)))
    w = weight.numpy().astype(np.longdouble)
    stride, dilation = cases.pair(case.arguments.get("stride", 1)), cases.pair(case.arguments.get("dilation", 1))
    out = cases.torch_conv2d(case, input, weight).shape
    y = np.zeros(out, np.longdouble)
    for i in range(case.kernel_size[0]):
        for j in range(case.kernel_size[1]):
            rows = slice(i * dilation[0], i * dilation[0] + (out[2] - 1) * stride[0] + 1, stride[0])
            columns = slice(j * dilation[1], j * dilation[1] + (out[3] - 1) * stride[1] + 1, stride[1])
            y += np.einsum("nchw,oc->nohw", x[:, :, rows, columns], w[:, :, i, j])
    return y


@pytest.mark.skipif(np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps, reason="no extended precision here")
@pytest.mark.parametrize("name", ["deep-3x3", "stem", "narrow", "stride-and-dilation", "large-kernel"])
def test_error_of_float64(name: str, kernel: KernelUnderTest) -> None:
    case = next(case for case in cases.SHAPES if case.name == name)
    input, weight, _ = tensors_of(case, torch.float64, positive=False)
    output = kernel(ops.corr2d, input, weight, None, *cases.op_arguments(case))
    if output is None:
        pytest.skip(f"{kernel.name} refuses this problem")
    error = np.abs(output.numpy() - longdouble_forward(case, input, weight))
    sizes = longdouble_forward(case, input.abs(), weight.abs())
    assert (error <= bound_factor(terms_of(case)["forward"]) * torch.finfo(torch.float64).eps * sizes).all()


def rms(error: torch.Tensor) -> float:
    return error.double().square().mean().sqrt().item()


@pytest.mark.parametrize(("case", "dtype", "layout"), RMS_CASES, ids=str)
def test_rms_error_is_no_worse_than_torchs(
    case: Case, dtype: torch.dtype, layout: str, kernels: list[KernelUnderTest]
) -> None:
    """Over as many inputs as it takes that a few lucky roundings of torch's decide nothing.

    Where torch runs code with fused multiply-adds, builds without them are left out: they round each product too.
    """
    torch_fuses = torch.backends.cpu.get_cpu_capability() != "DEFAULT"
    tested = [
        kernel
        for kernel in kernels
        if kernel.name == "reference/baseline" or not (torch_fuses and kernel.description.isa == "baseline")
    ]
    squares: dict[tuple[str, str], float] = defaultdict(float)
    shapes = [t.shape for t in tensors_of(case, dtype, False)]
    smallest_result = min(shape.numel() for shape in shapes)
    for seed in range(max(6, min(800, 10_000 // smallest_result))):
        torch.manual_seed(seed)
        tensors = [cases.laid_out(torch.randn(shape, dtype=torch.float64).to(dtype), layout) for shape in shapes]
        exact = passes_of(case, [t.double() for t in tensors], None)
        for kernel in (None, *tested):
            for name, result in passes_of(case, tensors, kernel).items():
                if result is not None:
                    squares[kernel.name if kernel else "torch", name] += rms(result - exact[name]) ** 2
    for (kernel_name, name), ours in squares.items():
        ratio = math.sqrt(ours / squares["torch", name])
        assert ratio <= 1.25, f"{name}, {kernel_name}: {ratio:.2f} times torch's"


def test_precision_setting_does_not_break_the_bound_of_highest() -> None:
    input, weight = torch.randn(1, 8, 20, 20), torch.randn(8, 8, 3, 3)
    before = convext.conv2d(input, weight)
    with convext.float32_precision("high"):
        fast = convext.conv2d(input, weight)
    assert torch.equal(convext.conv2d(input, weight), before)
    torch.testing.assert_close(fast, before, rtol=1e-4, atol=1e-3)
