"""First and second derivatives against finite differences, in float64, for every kernel and every pass."""

from __future__ import annotations

from collections.abc import Callable

import cases
import pytest
import torch
from cases import Case
from conftest import PreferKernel
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import convext
from convext import autograd
from convext._geometry import Geometry


def leaves_of(case: Case, layout: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> tuple[Tensor, ...]:
    tensors = [
        cases.laid_out(torch.randn(case.input_size, dtype=dtype, device=device), layout),
        cases.laid_out(torch.randn(case.weight_size, dtype=dtype, device=device), layout),
    ]
    if case.bias:
        tensors.append(torch.randn(case.out_channels, dtype=dtype, device=device))
    return tuple(cases.leaf(t) for t in tensors)


def function_of(case: Case) -> Callable[..., Tensor]:
    def function(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return convext.conv2d(input, weight, bias, **case.arguments)

    return function


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("case", cases.TINY_CASES, ids=str)
def test_first_derivatives(case: Case, layout: str, preferred_kernel: PreferKernel) -> None:
    assert gradcheck(function_of(case), leaves_of(case, layout, device=preferred_kernel.device))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("case", cases.TINY_CASES, ids=str)
def test_second_derivatives(case: Case, layout: str, preferred_kernel: PreferKernel) -> None:
    assert gradgradcheck(function_of(case), leaves_of(case, layout, device=preferred_kernel.device), fast_mode=True)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("case", cases.TINY_CASES, ids=str)
def test_forward_mode_and_batched_derivatives(case: Case, layout: str, device: str) -> None:
    leaves = leaves_of(case, layout, device=device)
    assert gradcheck(
        function_of(case),
        leaves,
        check_forward_ad=True,
        check_backward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        check_undefined_grad=True,
        check_grad_dtypes=True,
        fast_mode=True,
    )
    # Forward mode over backward, and vmap over both.
    assert gradgradcheck(
        function_of(case),
        leaves,
        check_fwd_over_rev=True,
        check_rev_over_rev=True,
        check_batched_grad=True,
        fast_mode=True,
    )


@pytest.mark.parametrize("case", cases.TINY_CASES[::2], ids=str)
def test_second_derivatives_in_full(case: Case) -> None:
    """As above, but every entry of every Jacobian rather than a random projection of it."""
    assert gradgradcheck(function_of(case), leaves_of(case, "contiguous"))


@pytest.mark.parametrize("needs", ["input", "weight", "bias", "input weight", "input bias", "weight bias"])
def test_derivatives_of_some_arguments_only(needs: str) -> None:
    case = cases.TINY_CASES[0]
    leaves = leaves_of(case, "contiguous")
    for name, leaf in zip(("input", "weight", "bias"), leaves, strict=True):
        leaf.requires_grad_(name in needs.split())
    assert gradcheck(function_of(case), leaves, check_forward_ad=True)
    if needs != "bias":
        assert gradgradcheck(function_of(case), leaves)


@pytest.mark.parametrize("case", cases.TINY_CASES[::3], ids=str)
def test_complex_derivatives(case: Case) -> None:
    leaves = leaves_of(case, "contiguous", torch.complex128)
    assert gradcheck(function_of(case), leaves, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(function_of(case), leaves, fast_mode=True)


@pytest.mark.parametrize("case", [case for case in cases.TINY_CASES[::2] if len(case.input_size) == 4], ids=str)
def test_gradients_are_themselves_differentiable_functions(case: Case) -> None:
    """The gradient functions by themselves: their first and second derivatives, backward and forward."""
    input, weight, *_ = leaves_of(case, "contiguous")
    grad_output = cases.leaf(torch.randn_like(cases.torch_conv2d(case, input, weight)))
    stride, padding, dilation, groups, mode = cases.op_arguments(case)
    geometry = Geometry(stride, padding, dilation, groups, mode)

    def grad_input(g: Tensor, w: Tensor) -> Tensor:
        return autograd.corr2d_grad_input(g, w, case.input_size[-2:], geometry, False)

    def grad_weight(g: Tensor, x: Tensor) -> Tensor:
        return autograd.corr2d_grad_weight(g, x, case.kernel_size, geometry, False)

    for function, arguments in (
        (grad_input, (grad_output, weight)),
        (grad_weight, (grad_output, input)),
        (autograd.corr2d_grad_bias, (grad_output,)),
    ):
        assert gradcheck(
            function, arguments, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
        )
        assert gradgradcheck(function, arguments, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("case", cases.SHAPES[::5], ids=str)
def test_gradients_point_where_torchs_do(case: Case) -> None:
    """Cosine and signed bias against torch's gradients, on sizes that gradcheck is too slow for."""
    tensors = [cases.normal(case.input_size, torch.float32, 1), cases.normal(case.weight_size, torch.float32, 2)]
    ours, theirs = ([cases.leaf(t) for t in tensors] for _ in range(2))
    output, wanted = convext.conv2d(*ours, **case.arguments), cases.torch_conv2d(case, *theirs)
    grad_output = torch.randn_like(output)
    for grad, exact in zip(
        torch.autograd.grad(output, ours, grad_output), torch.autograd.grad(wanted, theirs, grad_output), strict=True
    ):
        if exact.count_nonzero() == 0:
            assert grad.count_nonzero() == 0
            continue
        assert torch.cosine_similarity(grad.flatten(), exact.flatten(), dim=0) > 1 - 1e-6
        assert (grad - exact).mean().abs() <= 1e-5 * exact.abs().mean()
