"""Properties that hold for any arguments, tried on arguments that hypothesis makes up."""

from __future__ import annotations

import os
from typing import Any

import cases
import pytest
import torch
from cases import Case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import convext
from convext import reference

# In CI, the same examples every time. At home: HYPOTHESIS_PROFILE=explore for new ones.
settings.register_profile("ci", derandomize=True, max_examples=60, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

KERNELS = [kernel.qualified_name for kernel in convext.available_kernels()]


@st.composite
def calls(draw: st.DrawFn, batched: bool = False) -> Case:
    """Any call that makes sense, with at most a few hundred outputs."""

    def pairs(low: int, high: int) -> tuple[int, int]:
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups = draw(st.integers(1, 3))
    size, mode = pairs(1, 9), draw(st.sampled_from(cases.PADDING_MODES))
    largest = {"zeros": (4, 4), "reflect": (size[0] - 1, size[1] - 1), "replicate": (4, 4), "circular": size}[mode]
    sides = tuple(tuple(draw(st.integers(0, min(4, limit))) for _ in range(2)) for limit in largest)
    dilation = pairs(1, 3)
    kernel_size = tuple(
        draw(st.integers(1, min(5, (size[axis] + sum(sides[axis]) - 1) // dilation[axis] + 1))) for axis in (0, 1)
    )
    arguments: dict[str, Any] = {
        "stride": pairs(1, 4),
        "padding": sides,
        "dilation": dilation,
        "groups": groups,
        "padding_mode": mode,
    }
    # Few channels and many have different kernels.
    per_group = st.integers(1, 4) | st.integers(8, 33)
    channels, outputs = groups * draw(per_group), groups * draw(per_group)
    batch = (draw(st.integers(1, 3)),) if batched or draw(st.booleans()) else ()
    return Case("drawn", (*batch, channels, *size), outputs, kernel_size, arguments)


def integers(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return cases.small_integers(shape, torch.float64, seed)


def convolve(case: Case, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return convext.conv2d(input, weight, bias, **case.arguments)


seeds = st.integers(0, 2**31)


@pytest.mark.parametrize("name", KERNELS)
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    case=calls(),
    seed=seeds,
    dtype=st.sampled_from(cases.FLOAT_DTYPES + [torch.int32]),
    layout=st.sampled_from(cases.LAYOUTS),
)
def test_any_call_agrees_with_the_reference(name: str, case: Case, seed: int, dtype: torch.dtype, layout: str) -> None:
    """Exactly: the numbers are small integers. Forward and all gradients."""
    input, weight = integers(case.input_size, seed), integers(case.weight_size, seed + 1)
    bias = integers((case.out_channels,), seed + 2)
    wanted = reference.conv2d(input, weight, bias, **case.arguments)
    grad_output = integers(tuple(wanted.shape), seed + 3)
    x, w, g = (cases.laid_out(t.to(dtype), layout) for t in (input, weight, grad_output))
    ops, others = torch.ops.convext, cases.op_arguments(case)
    kernel_size, input_size = case.kernel_size, case.input_size[-2:]
    runs = [
        (lambda: ops.corr2d(x, w, bias.to(dtype), *others), wanted),
        (
            lambda: ops.corr2d_grad_input(g, w, input_size, *others),
            reference.grad_input(grad_output, weight, input_size, **case.arguments),
        ),
        (
            lambda: ops.corr2d_grad_weight(g, x, kernel_size, *others),
            reference.grad_weight(grad_output, input, kernel_size, **case.arguments),
        ),
    ]
    with convext.force_kernel(name):
        for run, exact in runs:
            try:
                actual = run()
            except RuntimeError as error:
                assert "was forced, but it cannot run" in str(error)
                continue
            assert torch.equal(actual.double(), exact.to(dtype).double())


@given(case=calls(), seed=seeds, scale=st.integers(-3, 3))
def test_linear_in_the_input_and_in_the_weight(case: Case, seed: int, scale: int) -> None:
    x, y = integers(case.input_size, seed), integers(case.input_size, seed + 1)
    w, v = integers(case.weight_size, seed + 2), integers(case.weight_size, seed + 3)
    assert torch.equal(convolve(case, scale * x + y, w), scale * convolve(case, x, w) + convolve(case, y, w))
    assert torch.equal(convolve(case, x, scale * w + v), scale * convolve(case, x, w) + convolve(case, x, v))


@given(case=calls(), seed=seeds)
def test_gradients_are_the_adjoints(case: Case, seed: int) -> None:
    """<conv(x, w), g> = <x, grad_input(g, w)> = <w, grad_weight(g, x)>, exactly."""
    x, w = cases.leaf(integers(case.input_size, seed)), cases.leaf(integers(case.weight_size, seed + 1))
    output = convolve(case, x, w)
    g = integers(tuple(output.shape), seed + 2)
    grad_x, grad_w = torch.autograd.grad(output, (x, w), g)
    inner = (output.detach() * g).sum()
    assert inner == (x.detach() * grad_x).sum() == (w.detach() * grad_w).sum()


@given(
    seed=seeds,
    rows=st.integers(0, 4),
    columns=st.integers(0, 4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_shifting_the_image_shifts_the_output(seed: int, rows: int, columns: int, kernel: tuple[int, int]) -> None:
    x, w = integers((1, 2, 9, 10), seed), integers((3, 2, *kernel), seed + 1)
    whole, shifted = convext.conv2d(x, w), convext.conv2d(x[..., rows:, columns:], w)
    assert torch.equal(shifted, whole[..., rows:, columns:])
    # On a torus, with circular padding, nothing is cut off.
    rolled = convext.conv2d(x.roll((rows, columns), (2, 3)), w, padding="same", padding_mode="circular")
    there = convext.conv2d(x, w, padding="same", padding_mode="circular").roll((rows, columns), (2, 3))
    assert torch.equal(rolled, there)


@given(case=calls(batched=True), seed=seeds)
def test_batches_channels_and_bias_are_independent(case: Case, seed: int) -> None:
    x, w, b = (
        integers(case.input_size, seed),
        integers(case.weight_size, seed + 1),
        integers((case.out_channels,), seed),
    )
    whole = convolve(case, x, w, b)
    assert torch.equal(whole, torch.stack([convolve(case, image, w, b) for image in x]))
    assert torch.equal(whole, convolve(case, x, w) + b.reshape(-1, 1, 1))
    inputs, outputs = x.chunk(case.groups, 1), w.chunk(case.groups, 0)
    alone = Case("", case.input_size, case.out_channels, case.kernel_size, {**case.arguments, "groups": 1})
    by_group = [convolve(alone, part, weights) for part, weights in zip(inputs, outputs, strict=True)]
    assert torch.equal(whole, torch.cat(by_group, 1) + b.reshape(-1, 1, 1))


@given(case=calls(batched=True), seed=seeds)
def test_a_stride_picks_from_the_outputs_without_it(case: Case, seed: int) -> None:
    x, w = integers(case.input_size, seed), integers(case.weight_size, seed + 1)
    down, right = case.arguments["stride"]
    dense = Case("", case.input_size, case.out_channels, case.kernel_size, {**case.arguments, "stride": 1})
    assert torch.equal(convolve(case, x, w), convolve(dense, x, w)[..., ::down, ::right])


@given(case=calls(batched=True), seed=seeds)
def test_dilation_is_a_kernel_with_zeros_between(case: Case, seed: int) -> None:
    x, w = integers(case.input_size, seed), integers(case.weight_size, seed + 1)
    down, right = case.arguments["dilation"]
    spread = w.new_zeros(*w.shape[:2], down * (w.shape[2] - 1) + 1, right * (w.shape[3] - 1) + 1)
    spread[..., ::down, ::right] = w
    dense = Case("", case.input_size, case.out_channels, tuple(spread.shape[2:]), {**case.arguments, "dilation": 1})
    assert torch.equal(convolve(case, x, w), convolve(dense, x, spread))


@given(case=calls(batched=True), seed=seeds)
def test_mirroring_the_image_and_the_kernel_mirrors_the_output(case: Case, seed: int) -> None:
    (top, bottom), (left, right) = case.arguments["padding"]
    x, w = integers(case.input_size, seed), integers(case.weight_size, seed + 1)
    arguments = {**case.arguments, "stride": 1}
    mirrored = {**arguments, "padding": ((bottom, top), (right, left))}
    wanted = convext.conv2d(x, w, **arguments).flip((2, 3))
    assert torch.equal(convext.conv2d(x.flip((2, 3)), w.flip((2, 3)), **mirrored), wanted)


@given(case=calls(), seed=seeds)
def test_explain_knows_the_shape(case: Case, seed: int) -> None:
    x, w = torch.empty(case.input_size, device="meta"), torch.empty(case.weight_size, device="meta")
    plan = convext.explain(x, w, **case.arguments)
    output = convolve(case, integers(case.input_size, seed), integers(case.weight_size, seed))
    assert tuple(plan.output_shape) == tuple(output.shape) == tuple(convolve(case, x, w).shape)
