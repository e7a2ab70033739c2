"""Memory layouts: results lie in memory as torch's would on the CPU, and inputs may lie anywhere in any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases
import pytest
import torch
import torch.nn.functional as F
from conftest import KernelUnderTest
from torch import Tensor

import convext

ops = torch.ops.convext

SHAPES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 6, 7), (4, 3, 3, 3), {}),
    ((2, 2, 9, 9), (2, 2, 3, 3), {"dilation": 2, "padding": 1}),
    ((2, 4, 6, 7), (6, 2, 3, 3), {"groups": 2, "stride": 2}),
    # Layouts that are both contiguous and channels_last: axes of size 1.
    ((2, 1, 6, 7), (4, 1, 3, 3), {}),
    ((1, 3, 1, 1), (4, 3, 1, 1), {}),
    ((2, 3, 1, 7), (4, 3, 1, 3), {}),
    ((2, 3, 6, 1), (1, 3, 3, 1), {}),
    ((1, 1, 6, 7), (1, 1, 3, 3), {}),
    ((2, 3, 6, 7), (4, 3, 1, 1), {}),
    ((2, 3, 6, 7), (4, 3, 6, 7), {}),
    ((2, 4, 6, 7), (4, 1, 3, 3), {"groups": 4}),
    ((2, 1, 1, 1), (3, 1, 1, 1), {}),
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    # Without a batch.
    ((3, 6, 7), (4, 3, 3, 3), {}),
    ((1, 6, 7), (1, 1, 3, 3), {}),
]


def meaningful_strides(tensor: Tensor) -> list[int]:
    """Strides of the axes along which one can step. torch's kernels disagree among themselves about the others."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


@pytest.mark.parametrize("weight_layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("input_layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("input_size, weight_size, arguments", SHAPES)
def test_results_have_torchs_strides(
    input_size: tuple[int, ...],
    weight_size: tuple[int, ...],
    arguments: dict[str, Any],
    dtype: torch.dtype,
    input_layout: str,
    weight_layout: str,
    device: str,
) -> None:
    """On every device those of the CPU: channels_last if input or weight is. cuDNN has another rule for float64 and for
    sizes of 1, and not the same one in every version."""
    input = cases.laid_out(torch.randn(input_size).to(dtype), input_layout)
    weight = cases.laid_out(torch.randn(weight_size).to(dtype), weight_layout)
    here = cases.leaf(input), cases.leaf(weight)
    there = cases.leaf(cases.on_device(input, device)), cases.leaf(cases.on_device(weight, device))
    assert [t.stride() for t in there] == [t.stride() for t in here]
    ours, theirs = convext.conv2d(*there, **arguments), F.conv2d(*here, **arguments)
    assert ours.device.type == device
    assert ours.stride() == theirs.stride()
    our_grads = torch.autograd.grad(ours.sum(), there)
    their_grads = torch.autograd.grad(theirs.sum(), here)
    for name, grad, wanted in zip(("input", "weight"), our_grads, their_grads, strict=True):
        assert meaningful_strides(grad) == meaningful_strides(wanted), name


@pytest.mark.parametrize("input_layout", ["contiguous", "channels_last"])
def test_integers_follow_the_same_rule(input_layout: str) -> None:
    input = cases.laid_out(torch.ones(2, 3, 5, 6, dtype=torch.int16), input_layout)
    weight = torch.ones(4, 3, 3, 3, dtype=torch.int16)
    wanted = F.conv2d(input.float(), weight.float())
    assert convext.conv2d(input, weight).stride() == wanted.stride()


def test_complex_follows_the_same_rule() -> None:
    input = torch.randn(2, 3, 5, 6, dtype=torch.complex64)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.complex64)
    assert convext.conv2d(input, weight).is_contiguous()
    assert convext.conv2d(input.to(memory_format=torch.channels_last), weight).is_contiguous(
        memory_format=torch.channels_last
    )


def in_the_middle_of_a_storage(tensor: Tensor, bytes_before: int = 0) -> Tensor:
    """A view whose first element is ``bytes_before`` bytes into an allocation."""
    storage = torch.empty(tensor.numel() * tensor.itemsize + bytes_before, dtype=torch.uint8)
    view = storage[bytes_before:].view(tensor.dtype).view(tensor.shape)
    return view.copy_(tensor)


def misaligned(tensor: Tensor) -> Tensor:
    """An address that is not even a multiple of the element size."""
    holder = bytearray(tensor.numel() * tensor.itemsize + 65)
    view = torch.frombuffer(holder, dtype=tensor.dtype, count=tensor.numel(), offset=1).view(tensor.shape)
    return view.copy_(tensor)


def flipped_in_memory(tensor: Tensor) -> Tensor:
    """torch has no negative strides; a flip is a copy, so this only permutes every axis twice."""
    return tensor.flip(-1).flip(-1)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows and columns exchanged": lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2),
    "batch and channels exchanged": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "axes reversed": lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "every third column": lambda t: t.repeat_interleave(3, -1)[..., ::3],
    "every second row": lambda t: t.repeat_interleave(2, -2)[..., ::2, :],
    "every second channel": lambda t: t.repeat_interleave(2, 1)[:, ::2],
    "every second sample": lambda t: t.repeat_interleave(2, 0)[::2],
    "a window of a larger image": lambda t: F.pad(t, (3, 5, 2, 1))[..., 2:-1, 3:-5],
    "a window of a larger channels_last image": lambda t: F.pad(t, (3, 5, 2, 1)).to(memory_format=torch.channels_last)[
        ..., 2:-1, 3:-5
    ],
    "some channels of a channels_last image": lambda t: torch.cat([t, t, t], 1).to(memory_format=torch.channels_last)[
        :, t.shape[1] : 2 * t.shape[1]
    ],
    "one element into the storage": lambda t: in_the_middle_of_a_storage(t, t.itemsize),
    "three elements into the storage": lambda t: in_the_middle_of_a_storage(t, 3 * t.itemsize),
    "odd address": misaligned,
    "flipped twice": flipped_in_memory,
    "sizes of 1 with strange strides": lambda t: t.as_strided(
        t.shape, [s if n > 1 else 12345 for n, s in zip(t.shape, t.contiguous().stride(), strict=True)]
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_any_view(name: str, dtype: torch.dtype, kernel: KernelUnderTest) -> None:
    view = VIEWS[name]
    arguments = {"stride": (1, 2), "padding": (1, 2)}
    settings = ((1, 2), (1, 2), (1, 1), 1, "zeros")
    refused = 0
    for input_size, weight_size in [
        ((2, 3, 6, 19), (5, 3, 3, 4)),
        ((1, 1, 5, 6), (1, 1, 1, 3)),
        ((1, 4, 1, 9), (7, 4, 1, 2)),
    ]:
        input, weight = cases.small_integers(input_size, dtype, 1), cases.small_integers(weight_size, dtype, 2)
        output = convext.conv2d(input, weight, **arguments)
        grad_output = cases.small_integers(tuple(output.shape), dtype, 3)
        calls: list[tuple[Any, tuple[Tensor, ...], tuple[Any, ...]]] = [
            (ops.corr2d, (input, weight), (None, *settings)),
            (ops.corr2d_grad_input, (grad_output, weight), (input_size[-2:], *settings)),
            (ops.corr2d_grad_weight, (grad_output, input), (weight_size[-2:], *settings)),
        ]
        for op, tensors, rest in calls:
            wanted = op(*tensors, *rest)
            for views in ([view(t) for t in tensors], [view(tensors[0]), tensors[1]], [tensors[0], view(tensors[1])]):
                for tensor, other in zip(views, tensors, strict=True):
                    assert torch.equal(tensor, other)
                actual = kernel(op, *views, *rest)
                if actual is None:
                    refused += 1
                else:
                    assert torch.equal(actual, wanted), (op, input_size)
    if refused == 27:
        pytest.skip(f"{kernel.name} refuses this")
    assert torch.equal(kernel(ops.corr2d_grad_bias, view(grad_output)), ops.corr2d_grad_bias(grad_output))


def test_expanded_tensors(kernel: KernelUnderTest) -> None:
    image = cases.small_integers((1, 1, 6, 1), torch.float32, 1).expand(3, 4, 6, 9)
    weight = cases.small_integers((1, 1, 1, 1), torch.float32, 2).expand(5, 4, 3, 3)
    bias = torch.ones(1).expand(5)
    wanted = F.conv2d(image.contiguous(), weight.contiguous(), bias.contiguous(), padding=1)
    output = kernel(convext.conv2d, image, weight, bias, padding=1)
    if output is None:
        pytest.skip(f"{kernel.name} refuses this")
    assert torch.equal(output, wanted)


@pytest.mark.parametrize("channels, width", [(3, 12), (3, 70), (8, 12), (32, 20)])
def test_overlapping_windows(channels: int, width: int, kernel: KernelUnderTest) -> None:
    """A view whose channels and columns both are neighbours, as sliding windows over a signal are."""
    size, strides = (2, channels, 10, width), (999, 1, width + channels, 1)
    image = cases.small_integers((4000,), torch.float32, 1).as_strided(size, strides)
    weight = cases.small_integers((32, channels, 3, 3), torch.float32, 2)
    few = cases.small_integers((channels, 3, 3, 3), torch.float32, 3)
    settings = cases.op_arguments(cases.Case("", size, 32, (3, 3), {"padding": 1}))
    grad_output = cases.small_integers((2, 32, 10, width), torch.float32, 4)
    calls: list[tuple[Any, tuple[Tensor, ...], tuple[Any, ...]]] = [
        (ops.corr2d, (image, weight), (None, *settings)),
        (ops.corr2d_grad_input, (image, few), (size[-2:], *settings)),
        (ops.corr2d_grad_weight, (grad_output, image), ((3, 3), *settings)),
    ]
    results = [(kernel(op, *tensors, *rest), op, tensors, rest) for op, tensors, rest in calls]
    if all(actual is None for actual, *_ in results):
        pytest.skip(f"{kernel.name} refuses this")
    with convext.force_kernel("reference"):
        for actual, op, tensors, rest in results:
            if actual is not None:
                assert torch.equal(actual, op(*(t.contiguous() for t in tensors), *rest)), op


def test_gradient_that_is_expanded(kernel: KernelUnderTest) -> None:
    """What ``sum().backward()`` sends: one number with strides of 0."""
    input, weight = (
        cases.small_integers(shape, torch.float32, seed) for seed, shape in ((1, (2, 3, 6, 9)), (2, (4, 3, 3, 3)))
    )
    one = torch.ones(()).expand(2, 4, 4, 7)
    settings = ([1, 1], [0], [1, 1])
    for op, other, size in ((ops.corr2d_grad_input, weight, (6, 9)), (ops.corr2d_grad_weight, input, (3, 3))):
        actual = kernel(op, one, other, size, *settings)
        if actual is not None:
            assert torch.equal(actual, op(one.contiguous(), other, size, *settings))
    assert kernel(ops.corr2d_grad_bias, one).tolist() == [56.0] * 4


def test_overlapping_windows_as_the_input(kernel: KernelUnderTest) -> None:
    """Rows of the image that share memory, as `unfold` gives them."""
    signal = cases.small_integers((30,), torch.float32, 1)
    image = signal.unfold(0, 12, 3)[None, None]
    weight = cases.small_integers((2, 1, 3, 3), torch.float32, 2)
    output = kernel(convext.conv2d, image, weight)
    if output is None:
        pytest.skip(f"{kernel.name} refuses this")
    assert torch.equal(output, F.conv2d(image.contiguous(), weight))


def test_bias_with_a_stride(device: str) -> None:
    bias = torch.arange(12.0, device=device)[::3]
    image, weight = torch.zeros(1, 1, 3, 3, device=device), torch.ones(4, 1, 3, 3, device=device)
    output = convext.conv2d(image, weight, bias)
    assert output.flatten().tolist() == [0.0, 3.0, 6.0, 9.0]


def test_lazily_conjugated_and_negated_tensors() -> None:
    input, weight = torch.randn(1, 2, 5, 5, dtype=torch.complex128), torch.randn(3, 2, 2, 2, dtype=torch.complex128)
    torch.testing.assert_close(convext.conv2d(input.conj(), weight.conj()), F.conv2d(input.conj(), weight.conj()))
    negated = input.conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(convext.conv2d(negated, weight.real), F.conv2d(negated, weight.real))


def test_nothing_is_written_to_the_inputs() -> None:
    input, weight, bias = torch.randn(2, 3, 6, 7), torch.randn(4, 3, 3, 3), torch.randn(4)
    copies = [t.clone() for t in (input, weight, bias)]
    leaves = [t.requires_grad_() for t in (input, weight, bias)]
    convext.conv2d(*leaves, padding=1).sum().backward()
    assert all(torch.equal(t, copy) for t, copy in zip(leaves, copies, strict=True))
