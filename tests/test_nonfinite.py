"""NaN and infinity reach exactly the results that they are a term of, wherever they stand and whatever the kernel."""

from __future__ import annotations

import math
from itertools import product

import cases
import pytest
import torch
import torch.nn.functional as F
from cases import Case
from conftest import KernelUnderTest

import convext

ops = torch.ops.convext
VALUES = [float("nan"), float("inf"), float("-inf")]

CASES = [
    Case("plain", (1, 2, 7, 19), 2, (3, 3)),
    Case("padded", (2, 1, 6, 17), 3, (3, 3), {"padding": 1}),
    Case("wide", (1, 1, 2, 40), 2, (1, 5), {"padding": (0, 2)}),
    Case("strided", (1, 2, 9, 20), 2, (3, 2), {"stride": 2, "padding": 1}),
    Case("stride-beyond-kernel", (1, 1, 9, 20), 2, (2, 2), {"stride": 3}),
    Case("dilated", (1, 1, 9, 21), 2, (3, 3), {"dilation": 2, "padding": 2}),
    Case("pointwise", (1, 9, 3, 7), 7, (1, 1)),
    Case("depthwise", (1, 4, 6, 18), 4, (3, 3), {"groups": 4, "padding": 1}),
    Case("grouped", (1, 4, 5, 9), 6, (3, 3), {"groups": 2, "padding": 1}),
    Case("reflect", (1, 1, 5, 12), 2, (3, 3), {"padding": 2, "padding_mode": "reflect"}),
    Case("circular", (1, 1, 5, 12), 2, (3, 3), {"padding": 2, "padding_mode": "circular"}),
]


def positions(shape: tuple[int, ...], step: int = 1) -> list[tuple[int, ...]]:
    return list(product(*map(range, shape)))[::step]


def assert_reaches(
    actual: torch.Tensor, clean: torch.Tensor, reached: torch.Tensor, value: float, where: object
) -> None:
    """Finite and unchanged where nothing reached; not finite where something did.

    Unchanged but for rounding: a kernel may take another way when it meets a weight that is not finite.
    """
    finite = actual.isfinite()
    assert torch.equal(finite, ~reached), where
    unchanged, wanted = actual[finite], clean[finite]
    assert torch.equal(unchanged, wanted) or torch.allclose(unchanged, wanted, rtol=1e-5, atol=1e-5), where
    if value != value:
        assert actual[reached].isnan().all(), where


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_the_input(case: Case, dtype: torch.dtype, kernel: KernelUnderTest) -> None:
    """At every position of the image: forward, and the gradient of the weight."""
    input = cases.normal(case.input_size, dtype, 1)
    weight = cases.normal(case.weight_size, dtype, 2)
    settings = cases.op_arguments(case)
    clean = kernel(ops.corr2d, input, weight, None, *settings)
    grad_output = torch.randn(cases.torch_conv2d(case, input.double(), weight.double()).shape, dtype=torch.float64).to(
        dtype
    )
    clean_grad = kernel(ops.corr2d_grad_weight, grad_output, input, case.kernel_size, *settings)
    if clean is None and clean_grad is None:
        pytest.skip(f"{kernel.name} refuses this problem")
    ones = cases.leaf(torch.ones(case.weight_size, dtype=torch.float64))
    for index, position in enumerate(positions(case.input_size)):
        value = VALUES[index % 3]
        dirty = input.clone()
        dirty[position] = value
        indicator = torch.zeros(case.input_size, dtype=torch.float64)
        indicator[position] = 1
        covered = cases.torch_conv2d(case, indicator, ones)
        if clean is not None:
            actual = kernel(ops.corr2d, dirty, weight, None, *settings)
            assert_reaches(actual, clean, covered > 0, value, (position, value))
        if clean_grad is not None:
            actual = kernel(ops.corr2d_grad_weight, grad_output, dirty, case.kernel_size, *settings)
            (taps,) = torch.autograd.grad(covered.sum(), ones)
            assert_reaches(actual, clean_grad, taps > 0, value, (position, value))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_the_gradient_of_the_output(case: Case, kernel: KernelUnderTest) -> None:
    input, weight = cases.normal(case.input_size, torch.float32, 1), cases.normal(case.weight_size, torch.float32, 2)
    settings = cases.op_arguments(case)
    leaf = torch.ones(case.input_size, dtype=torch.float64, requires_grad=True)
    output = cases.torch_conv2d(case, leaf, torch.ones(case.weight_size, dtype=torch.float64))
    grad_output = torch.randn(output.shape)
    clean = kernel(ops.corr2d_grad_input, grad_output, weight, case.input_size[-2:], *settings)
    clean_weight = kernel(ops.corr2d_grad_weight, grad_output, input, case.kernel_size, *settings)
    if clean is None and clean_weight is None:
        pytest.skip(f"{kernel.name} refuses this problem")
    for index, position in enumerate(positions(output.shape)):
        value = VALUES[index % 3]
        dirty = grad_output.clone()
        dirty[position] = value
        if clean is not None:
            actual = kernel(ops.corr2d_grad_input, dirty, weight, case.input_size[-2:], *settings)
            (window,) = torch.autograd.grad(output[position], leaf, retain_graph=True)
            assert_reaches(actual, clean, window > 0, value, (position, value))
        if clean_weight is not None:
            # Every tap of this output's channel was multiplied with it: with a pixel, or with a zero of the padding.
            actual = kernel(ops.corr2d_grad_weight, dirty, input, case.kernel_size, *settings)
            of_channel = torch.zeros(case.weight_size, dtype=torch.bool)
            of_channel[position[1]] = True
            assert_reaches(actual, clean_weight, of_channel, value, (position, value))
        bias_grad = kernel(ops.corr2d_grad_bias, dirty)
        assert bias_grad.isfinite().tolist() == [channel != position[1] for channel in range(case.out_channels)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_the_weight(case: Case, kernel: KernelUnderTest) -> None:
    input, weight = cases.normal(case.input_size, torch.float32, 1), cases.normal(case.weight_size, torch.float32, 2)
    settings = cases.op_arguments(case)
    leaf = torch.ones(case.input_size, dtype=torch.float64, requires_grad=True)
    grad_output = torch.randn(cases.torch_conv2d(case, input, weight).shape)
    clean = kernel(ops.corr2d, input, weight, None, *settings)
    clean_grad = kernel(ops.corr2d_grad_input, grad_output, weight, case.input_size[-2:], *settings)
    if clean is None and clean_grad is None:
        pytest.skip(f"{kernel.name} refuses this problem")
    for index, position in enumerate(positions(case.weight_size)):
        value = VALUES[index % 3]
        dirty = weight.clone()
        dirty[position] = value
        if clean is not None:
            # Every output of the channel: where the tap meets the padding, it is multiplied with a zero.
            of_channel = torch.zeros(clean.shape, dtype=torch.bool)
            of_channel[:, position[0]] = True
            actual = kernel(ops.corr2d, input, dirty, None, *settings)
            assert_reaches(actual, clean, of_channel, value, (position, value))
        if clean_grad is not None:
            indicator = torch.zeros(case.weight_size, dtype=torch.float64)
            indicator[position] = 1
            (read,) = torch.autograd.grad(cases.torch_conv2d(case, leaf, indicator).sum(), leaf)
            actual = kernel(ops.corr2d_grad_input, grad_output, dirty, case.input_size[-2:], *settings)
            assert_reaches(actual, clean_grad, read > 0, value, (position, value))


def test_in_the_bias(kernel: KernelUnderTest) -> None:
    input, weight = torch.randn(2, 3, 5, 6), torch.randn(9, 3, 3, 3)
    for channel in range(9):
        bias = torch.randn(9)
        bias[channel] = float("nan")
        output = kernel(convext.conv2d, input, weight, bias)
        if output is None:
            pytest.skip(f"{kernel.name} refuses this problem")
        assert output.isnan().any(dim=(0, 2, 3)).tolist() == [c == channel for c in range(9)]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("tap", [(0, 0), (1, 1), (2, 0)])
def test_the_zeros_of_the_padding_are_numbers(tap: tuple[int, int], value: float, kernel: KernelUnderTest) -> None:
    """Zero times infinity is NaN, with zeros from the padding as with zeros from the image."""
    input, weight = torch.randn(1, 2, 6, 18), torch.randn(3, 2, 3, 3)
    weight[1, 1][tap] = value
    implicit = kernel(convext.conv2d, input, weight, padding=2)
    explicit = kernel(convext.conv2d, F.pad(input, (2, 2, 2, 2)), weight)
    if implicit is None or explicit is None:
        pytest.skip(f"{kernel.name} refuses this problem")
    torch.testing.assert_close(implicit, explicit, equal_nan=True)
    assert implicit[0, 1].isnan().any() and not implicit[0, ::2].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [3, 5, 16])
def test_one_sample_does_not_change_the_bits_of_another(
    channels: int, dtype: torch.dtype, kernel: KernelUnderTest
) -> None:
    """What a kernel does about a number that is not finite must be done to its sample alone."""
    input = torch.randn(3, channels, 9, 33, dtype=dtype)
    input[1, channels - 1, 4, 7] = math.inf
    weight = torch.randn(24, channels, 3, 3, dtype=dtype)
    together = kernel(convext.conv2d, input, weight, stride=2, padding=1)
    if together is None:
        pytest.skip(f"{kernel.name} refuses this problem")
    for sample in range(3):
        alone = kernel(convext.conv2d, input[sample : sample + 1], weight, stride=2, padding=1)
        torch.testing.assert_close(together[sample : sample + 1], alone, rtol=0, atol=0, equal_nan=True)
    assert not together[::2].isinf().any() and together[1].isinf().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_very_large_and_very_small_numbers(dtype: torch.dtype, kernel: KernelUnderTest) -> None:
    """Overflow of a result gives infinity; subnormal numbers are not flushed to zero."""
    finfo = torch.finfo(dtype)
    large = torch.full((1, 1, 4, 18), finfo.max, dtype=dtype)
    tiny = torch.full((1, 1, 4, 18), finfo.smallest_normal / 8, dtype=dtype)
    ones = torch.ones(1, 1, 2, 2, dtype=dtype)
    output = kernel(convext.conv2d, large, ones)
    if output is None:
        pytest.skip(f"{kernel.name} refuses this problem")
    assert output.isinf().all()
    assert torch.equal(
        kernel(convext.conv2d, tiny, ones), torch.full((1, 1, 3, 17), finfo.smallest_normal / 2, dtype=dtype)
    )
    one = torch.zeros_like(ones)
    one[0, 0, 1, 0] = 1
    assert torch.equal(kernel(convext.conv2d, large, one), large[..., 1:, :-1])
