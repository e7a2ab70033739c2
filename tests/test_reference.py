"""The naive reference is right: it agrees with torch, and its gradients with autograd's."""

from __future__ import annotations

import subprocess
import sys

import cases
import pytest
import torch
import torch.nn.functional as F
from cases import Case

from convext import reference


def without_batch_or_bias(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    return cases.normal(case.input_size, torch.float64, 1), cases.normal(case.weight_size, torch.float64, 2)


@pytest.mark.parametrize("case", cases.TINY_CASES, ids=str)
def test_forward_agrees_with_torch(case: Case) -> None:
    input, weight = without_batch_or_bias(case)
    bias = cases.normal((case.out_channels,), torch.float64, 3) if case.bias else None
    actual = reference.conv2d(input, weight, bias, **case.arguments)
    torch.testing.assert_close(actual, cases.torch_conv2d(case, input, weight, bias), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("case", cases.TINY_CASES, ids=str)
def test_gradients_agree_with_autograd_through_the_loops_and_through_torch(case: Case, dtype: torch.dtype) -> None:
    input, weight = (torch.randn_like(t, dtype=dtype).requires_grad_() for t in without_batch_or_bias(case))
    bias = torch.randn(case.out_channels, dtype=dtype, requires_grad=True)
    loops = reference.conv2d(input, weight, bias, **case.arguments)
    grad_output = torch.randn_like(loops)
    with torch.no_grad():
        explicit = (
            reference.grad_input(grad_output, weight, input.shape, **case.arguments),
            reference.grad_weight(grad_output, input, case.kernel_size, **case.arguments),
            reference.grad_bias(grad_output),
        )
    by_loops = torch.autograd.grad(loops, (input, weight, bias), grad_output)
    by_torch = torch.autograd.grad(cases.torch_conv2d(case, input, weight, bias), (input, weight, bias), grad_output)
    for ours, autograd, theirs in zip(explicit, by_loops, by_torch, strict=True):
        torch.testing.assert_close(ours, autograd, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", cases.INTEGER_DTYPES, ids=str)
def test_integers_wrap_around(dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    input = torch.randint(limits.min, limits.max, (2, 3, 4, 5)).to(dtype)
    weight = torch.randint(limits.min, limits.max, (2, 3, 2, 2)).to(dtype)
    actual = reference.conv2d(input, weight)
    assert actual.dtype == dtype
    # Python's integers do not overflow; & cuts them to the dtype's width, as the hardware does.
    mask = (1 << limits.bits) - 1
    for n, o, y, x in [(0, 0, 0, 0), (1, 1, 2, 3), (0, 1, 1, 2)]:
        window = input[n, :, y : y + 2, x : x + 2].flatten().tolist()
        total = sum(a * b for a, b in zip(window, weight[o].flatten().tolist(), strict=True))
        assert actual[n, o, y, x].item() & mask == total & mask


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_floats_are_added_up_in_32(dtype: torch.dtype) -> None:
    input, weight = torch.ones(1, 1, 1, 2000, dtype=dtype), torch.ones(1, 1, 1, 2000, dtype=dtype)
    assert reference.conv2d(input, weight).item() == 2000  # kept in the dtype itself, bfloat16 stops at 256


def test_empty_batch_and_no_channels() -> None:
    assert reference.conv2d(torch.ones(0, 2, 4, 4), torch.ones(3, 2, 2, 2)).shape == (0, 3, 3, 3)
    assert reference.grad_input(torch.ones(0, 3, 3, 3), torch.ones(3, 2, 2, 2), (0, 2, 4, 4)).shape == (0, 2, 4, 4)
    assert torch.equal(
        reference.grad_weight(torch.ones(0, 3, 3, 3), torch.ones(0, 2, 4, 4), 2), torch.zeros(3, 2, 2, 2)
    )


@pytest.mark.parametrize("mode", cases.PADDING_MODES)
def test_pad_agrees_with_torch(mode: str) -> None:
    image = torch.randn(2, 3, 5, 6)
    wanted = F.pad(image, (3, 1, 0, 4), mode="constant" if mode == "zeros" else mode)
    assert torch.equal(reference.pad(image, ((0, 4), (3, 1)), mode), wanted)


def test_impossible_arguments_are_refused() -> None:
    image, kernel = torch.ones(1, 2, 3, 3), torch.ones(4, 2, 2, 2)
    with pytest.raises(ValueError, match="does not fit"):
        reference.conv2d(image, torch.ones(1, 2, 4, 4))
    with pytest.raises(ValueError, match="groups"):
        reference.conv2d(image, kernel, groups=3)
    with pytest.raises(ValueError, match="padding_mode"):
        reference.conv2d(image, kernel, padding=1, padding_mode="mirror")
    with pytest.raises(ValueError, match="padding must be"):
        reference.conv2d(image, kernel, padding="full")


def test_the_reference_does_not_need_the_native_part() -> None:
    script = (
        "import importlib.util, sys, torch\n"
        f"spec = importlib.util.spec_from_file_location('reference', {reference.__file__!r})\n"
        "module = sys.modules['reference'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(module.corr2d(torch.ones(2, 2), torch.ones(2, 2)).item(), 'convext' in sys.modules)\n"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["4.0", "False"]
