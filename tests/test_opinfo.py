"""torch's own samples: of `F.conv2d`, with its error inputs, for the function; of `nn.Conv2d` for the module."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils._pytree

pytest.importorskip("expecttest", reason="torch.testing._internal needs it")
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import convext

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    OP_INFO = next(op for op in op_db if op.name == "nn.functional.conv2d")
    MODULE_INFO = next(info for info in module_db if info.module_cls is torch.nn.Conv2d)

DTYPES = sorted(OP_INFO.dtypes, key=str)


def torch_conv2d(*tensors_and_settings: Any, **kwargs: Any) -> torch.Tensor:
    """`F.conv2d`, of integers on the CPU: torch has it for no other device."""
    input = tensors_and_settings[0]
    if input.dtype.is_floating_point or input.dtype.is_complex:
        return F.conv2d(*tensors_and_settings, **kwargs)
    args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.cpu, (tensors_and_settings, kwargs))
    return F.conv2d(*args, **kwargs).to(input.device)


def assert_within_bound(
    actual: Any, wanted: Any, input: torch.Tensor, weight: torch.Tensor, args: Any, kwargs: Any
) -> None:
    """Both results are within rounding errors of the exact one, so at most that far apart."""
    if not wanted.dtype.is_floating_point and not wanted.dtype.is_complex:
        assert torch.equal(actual, wanted)
        return
    eps = torch.finfo(wanted.dtype).eps
    bias, *rest = args if args else (kwargs.get("bias"),)
    others = {name: value for name, value in kwargs.items() if name != "bias"}
    bias = None if bias is None else bias.abs().double()
    size = F.conv2d(input.abs().double(), weight.abs().double(), bias, *rest, **others)
    assert ((actual - wanted).abs() <= 8 * eps * size + torch.finfo(wanted.dtype).smallest_normal).all()


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples(dtype: torch.dtype, requires_grad: bool, device: str, record_property: Any) -> None:
    if requires_grad and not (dtype.is_floating_point or dtype.is_complex):
        requires_grad = False
    samples = list(OP_INFO.sample_inputs(device, dtype, requires_grad=requires_grad))
    assert len(samples) >= 10
    for sample in samples:
        input, (weight, *args), kwargs = sample.input, sample.args, sample.kwargs
        theirs = torch_conv2d(input, weight, *args, **kwargs)
        ours = convext.conv2d(input, weight, *args, **kwargs)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), sample
        assert_within_bound(ours.detach(), theirs.detach(), input.detach(), weight.detach(), args, kwargs)
        if requires_grad:
            leaves = [t for t in (input, weight, *args, *kwargs.values()) if isinstance(t, torch.Tensor)]
            grad_output = torch.randn_like(theirs)
            our_grads = torch.autograd.grad(ours, leaves, grad_output)
            their_grads = torch.autograd.grad(theirs, leaves, grad_output)
            for ours_, theirs_ in zip(our_grads, their_grads, strict=True):
                tolerance = 64 * torch.finfo(dtype).eps
                torch.testing.assert_close(ours_, theirs_, rtol=tolerance, atol=tolerance * theirs_.abs().max().item())
    record_property("samples", len(samples))
    print(f"{len(samples)} OpInfo samples for {dtype}, requires_grad={requires_grad}")


def test_error_inputs(device: str, record_property: Any) -> None:
    count = 0
    for error_input in OP_INFO.error_inputs(device):
        sample = error_input.sample_input
        with pytest.raises(error_input.error_type) as theirs:
            F.conv2d(sample.input, *sample.args, **sample.kwargs)
        with pytest.raises(error_input.error_type) as ours:
            convext.conv2d(sample.input, *sample.args, **sample.kwargs)
        assert type(ours.value) is type(theirs.value), str(theirs.value)
        count += 1
    assert count >= 5
    record_property("error_inputs", count)
    print(f"{count} OpInfo error inputs")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", sorted(MODULE_INFO.dtypes, key=str) + [torch.bfloat16, torch.complex64], ids=str)
def test_module_samples(dtype: torch.dtype, training: bool, device: str, record_property: Any) -> None:
    inputs = MODULE_INFO.module_inputs_func(MODULE_INFO, device, dtype, requires_grad=True, training=training)
    count = 0
    for sample in inputs:
        args, kwargs = sample.constructor_input.args, sample.constructor_input.kwargs
        theirs = torch.nn.Conv2d(*args, **kwargs).to(device, dtype).train(training)
        ours = convext.Conv2D(*args, **kwargs).to(device, dtype).train(training)
        ours.load_state_dict(theirs.state_dict())
        forward_args, forward_kwargs = sample.forward_input.args, sample.forward_input.kwargs
        tolerance = 64 * torch.finfo(dtype).eps
        wanted, actual = theirs(*forward_args, **forward_kwargs), ours(*forward_args, **forward_kwargs)
        torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance)
        assert actual.stride() == wanted.stride()
        for module, output in ((theirs, wanted), (ours, actual)):
            output.backward(torch.ones_like(output))
            assert all(parameter.grad is not None for parameter in module.parameters())
        for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            torch.testing.assert_close(
                mine.grad, other.grad, rtol=tolerance, atol=tolerance * other.grad.abs().max().item(), msg=name
            )
        count += 1
    assert count >= 4
    record_property("module_samples", count)
    print(f"{count} ModuleInfo samples for {dtype}, training={training}")
