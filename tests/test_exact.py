"""Small integers, whose sums are exact in every dtype: results must be equal to torch's, not close to them.

This finds wrong indices that a tolerance would hide.
"""

from __future__ import annotations

import cases
import pytest
import torch
from cases import Case
from conftest import KernelUnderTest

import convext

ops = torch.ops.convext


def expected(case: Case, dtype: torch.dtype, *tensors: torch.Tensor | None) -> list[torch.Tensor]:
    """The output and the gradients of input, weight and bias, by torch in float64, rounded once to ``dtype``."""
    input, weight, bias, grad_output = (None if t is None else t.double() for t in tensors)
    input.requires_grad_()
    weight.requires_grad_()
    output = cases.torch_conv2d(case, input, weight, bias)
    grads = torch.autograd.grad(output, (input, weight), grad_output)
    results = [output.detach(), *grads, grad_output.sum(dim=(-2, -1) if grad_output.dim() == 3 else (0, 2, 3))]
    if dtype.is_floating_point:
        return [result.to(dtype) for result in results]
    return [result.to(torch.int64).to(dtype) for result in results]  # through int64, since that wraps around


def tensors_of(case: Case, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    input = cases.small_integers(case.input_size, dtype, 1)
    weight = cases.small_integers(case.weight_size, dtype, 2)
    bias = cases.small_integers((case.out_channels,), dtype, 3) if case.bias else None
    output_size = cases.torch_conv2d(case, input.double(), weight.double()).shape
    return input, weight, bias, cases.small_integers(output_size, dtype, 4)


@pytest.mark.parametrize("dtype", cases.FLOAT_DTYPES + cases.INTEGER_DTYPES, ids=str)
@pytest.mark.parametrize("case", cases.SHAPES + cases.TINY_CASES, ids=str)
def test_every_pass_of_every_kernel(case: Case, dtype: torch.dtype, kernels: list[KernelUnderTest]) -> None:
    tensors = tensors_of(case, dtype)
    names = ("forward", "grad_input", "grad_weight", "grad_bias")
    wanted = dict(zip(names, expected(case, dtype, *tensors), strict=True))
    input, weight, bias, grad_output = tensors
    settings = cases.op_arguments(case)
    for layout in cases.LAYOUTS:
        x, w, g = (cases.laid_out(t, layout) for t in (input, weight, grad_output))
        for kernel in kernels:
            actual = {
                "forward": kernel(convext.conv2d, x, w, bias, **case.arguments),
                "grad_input": kernel(ops.corr2d_grad_input, g, w, case.input_size[-2:], *settings),
                "grad_weight": kernel(ops.corr2d_grad_weight, g, x, case.kernel_size, *settings),
                "grad_bias": kernel(ops.corr2d_grad_bias, g),
            }
            for name, result in actual.items():
                if result is None:
                    assert not kernel.runs_everything
                    continue
                assert result.dtype == dtype and result.shape == wanted[name].shape, f"{name}, {layout}, {kernel.name}"
                assert torch.equal(result, wanted[name]), f"{name}, {layout}, {kernel.name}"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8], ids=str)
@pytest.mark.parametrize("case", cases.SHAPES[::3], ids=str)
def test_out_dtype_int32(case: Case, dtype: torch.dtype, kernels: list[KernelUnderTest]) -> None:
    generator = torch.Generator().manual_seed(0)
    limits = torch.iinfo(dtype)
    shapes = (case.input_size, case.weight_size, (case.out_channels,))
    input, weight, bias = (
        torch.randint(limits.min, limits.max + 1, shape, generator=generator).to(dtype) for shape in shapes
    )
    wanted = cases.torch_conv2d(case, input.double(), weight.double(), bias.double())
    for kernel in kernels:
        actual = kernel(convext.conv2d, input, weight, bias, **case.arguments, out_dtype=torch.int32)
        if actual is None:
            assert not kernel.runs_everything
            continue
        assert actual.dtype == torch.int32
        assert torch.equal(actual.double(), wanted), kernel.name


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("case", cases.TINY_CASES, ids=str)
def test_complex(case: Case, layout: str, dtype: torch.dtype, device: str) -> None:
    def gaussian_integers(shape: tuple[int, ...], seed: int) -> torch.Tensor:
        real, imaginary = (cases.small_integers(shape, torch.float64, seed + part) for part in (0, 100))
        return torch.complex(real, imaginary).to(device)

    tensors = [gaussian_integers(case.input_size, 1), gaussian_integers(case.weight_size, 2)]
    if case.bias:
        tensors.append(gaussian_integers((case.out_channels,), 3))
    wanted_leaves = [cases.leaf(t) for t in tensors]
    leaves = [cases.leaf(cases.laid_out(t.to(dtype), layout) if t.dim() > 1 else t.to(dtype)) for t in tensors]
    wanted = cases.torch_conv2d(case, *wanted_leaves)
    actual = convext.conv2d(*leaves, **case.arguments)
    grad_output = gaussian_integers(wanted.shape, 4)
    wanted.backward(grad_output)
    actual.backward(grad_output.to(dtype))
    assert actual.dtype == dtype
    assert torch.equal(actual, wanted.to(dtype))
    for name, leaf, wanted_leaf in zip(("input", "weight", "bias"), leaves, wanted_leaves, strict=False):
        assert torch.equal(leaf.grad, wanted_leaf.grad.to(dtype)), name


@pytest.mark.parametrize("case", cases.SHAPES[::4], ids=str)
def test_autograd_gives_what_the_operators_give(case: Case, device: str) -> None:
    tensors = tensors_of(case, torch.float32)
    wanted = [t.to(device) for t in expected(case, torch.float32, *tensors)]
    input, weight, bias, grad_output = (None if t is None else t.to(device) for t in tensors)
    leaves = [input.requires_grad_(), weight.requires_grad_()] + ([bias.requires_grad_()] if bias is not None else [])
    output = convext.conv2d(*leaves, **case.arguments)
    grads = torch.autograd.grad(output, leaves, grad_output)
    for actual, exact in zip((output, *grads), wanted, strict=False):
        assert torch.equal(actual, exact)
