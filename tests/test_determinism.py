"""Same bits: from run to run, for any number of threads, and for a sample alone or in any batch."""

from __future__ import annotations

from typing import Any

import cases
import pytest
import torch
from cases import Case
from conftest import KernelUnderTest

import convext

ops = torch.ops.convext

#: Large enough to be worth several threads, and odd enough to leave remainders everywhere.
CASES = [
    Case("dense", (2, 13, 19, 23), 21, (3, 3), {"padding": 1}),
    Case("strided", (2, 11, 29, 31), 20, (5, 3), {"padding": 2, "stride": 2}),
    Case("dilated", (2, 10, 21, 23), 19, (3, 3), {"padding": 2, "dilation": 2}),
    Case("pointwise", (2, 40, 23, 25), 33, (1, 1)),
    Case("grouped", (2, 24, 19, 21), 36, (3, 3), {"padding": 1, "groups": 4}),
    Case("depthwise", (2, 33, 23, 27), 33, (5, 5), {"padding": 2, "groups": 33}),
    Case("image-filter", (2, 1, 90, 97), 1, (7, 7), {"padding": 3}),
    Case("reflect", (2, 6, 21, 22), 12, (5, 5), {"padding": 2, "padding_mode": "reflect"}),
    Case("deep-and-narrow", (2, 100, 7, 7), 21, (3, 3), {"padding": 1}),
]


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and torch.equal(
        first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8)
    )


def tensors_of(case: Case, dtype: torch.dtype, layout: str) -> list[torch.Tensor]:
    output = cases.torch_conv2d(case, torch.empty(case.input_size), torch.empty(case.weight_size))
    shapes = (case.input_size, case.weight_size, tuple(output.shape))
    tensors = [cases.laid_out(cases.normal(shape, dtype, seed), layout) for seed, shape in enumerate(shapes)]
    return [*tensors, cases.normal((case.out_channels,), dtype, 9)]


def results(case: Case, tensors: list[torch.Tensor], kernel: Any) -> dict[str, torch.Tensor | None]:
    input, weight, grad_output, bias = tensors
    settings = cases.op_arguments(case)
    return {
        "forward": kernel(ops.corr2d, input, weight, bias, *settings),
        "grad_input": kernel(ops.corr2d_grad_input, grad_output, weight, case.input_size[-2:], *settings),
        "grad_weight": kernel(ops.corr2d_grad_weight, grad_output, input, case.kernel_size, *settings),
        "grad_bias": kernel(ops.corr2d_grad_bias, grad_output),
    }


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_threads_and_runs(case: Case, dtype: torch.dtype, layout: str, kernel: KernelUnderTest) -> None:
    tensors = tensors_of(case, dtype, layout)
    torch.set_num_threads(1)
    wanted = results(case, tensors, kernel)
    if wanted["forward"] is wanted["grad_input"] is wanted["grad_weight"] is None:
        pytest.skip(f"{kernel.name} refuses this problem in every pass")
    for threads in (1, 2, 5, 5):
        torch.set_num_threads(threads)
        for name, result in results(case, tensors, kernel).items():
            if result is not None:
                assert same_bits(result, wanted[name]), f"{name} with {threads} threads"


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sample_alone_or_in_a_batch(case: Case, dtype: torch.dtype, layout: str, kernel: KernelUnderTest) -> None:
    torch.set_num_threads(2)
    tensors = tensors_of(case, dtype, layout)
    input, weight, grad_output, bias = tensors
    settings = cases.op_arguments(case)

    def per_sample(x: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor | None]:
        return [
            kernel(ops.corr2d, x, weight, bias, *settings),
            kernel(ops.corr2d_grad_input, g, weight, case.input_size[-2:], *settings),
        ]

    def laid_out(t: torch.Tensor) -> torch.Tensor:
        return cases.laid_out(t, layout)

    together = per_sample(input, grad_output)
    if together == [None, None]:
        pytest.skip(f"{kernel.name} refuses this problem in both passes")
    for sample in range(case.input_size[0]):
        alone = per_sample(laid_out(input[sample : sample + 1]), laid_out(grad_output[sample : sample + 1]))
        # The same sample last in a batch of four, among others.
        order = [(sample + shift) % case.input_size[0] for shift in (1, 1, 0)] + [sample]
        among_others = per_sample(laid_out(input[order]), laid_out(grad_output[order]))
        unbatched = per_sample(alone_of(input, sample, layout), alone_of(grad_output, sample, layout))
        for whole, single, other, plain in zip(together, alone, among_others, unbatched, strict=True):
            if whole is not None:
                assert same_bits(single[0], whole[sample])
                assert same_bits(other[-1], whole[sample])
                assert same_bits(plain, whole[sample])


def alone_of(tensor: torch.Tensor, sample: int, layout: str) -> torch.Tensor:
    return cases.laid_out(tensor[sample], layout)


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_a_training_step_is_reproducible(case: Case, device: str) -> None:
    """With torch's demand for determinism on, which raises wherever it is not met."""
    torch.use_deterministic_algorithms(True)
    input, weight, grad_output, bias = (t.to(device) for t in tensors_of(case, torch.float32, "contiguous"))
    grads = []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        leaves = [cases.leaf(t.clone()) for t in (input, weight, bias)]
        output = convext.conv2d(*leaves, **case.arguments)
        grads.append([output.detach(), *torch.autograd.grad(output, leaves, grad_output)])
    for first, second in zip(*grads, strict=True):
        assert same_bits(first, second)


def test_the_layout_of_other_calls_leaves_no_trace() -> None:
    """No cache: a call gives the same bits whatever was computed in between, and sees writes through ``.data``."""
    input, weight = torch.randn(2, 3, 9, 9), torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    before = convext.conv2d(input, weight).detach()
    for size in (5, 12, 31):
        convext.conv2d(torch.randn(1, 3, size, size), torch.randn(7, 3, 3, 3))
    assert same_bits(convext.conv2d(input, weight).detach(), before)
    version = weight._version
    weight.data.mul_(2)
    assert weight._version == version
    assert torch.equal(convext.conv2d(input, weight), 2 * before)
