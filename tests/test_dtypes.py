"""Every dtype: integers that wrap, 8-bit sums in 32 bits, promotion in `corr2d`, 16-bit floats, complex numbers."""

from __future__ import annotations

from itertools import product

import cases
import pytest
import torch
import torch.nn.functional as F
from conftest import KernelUnderTest

import convext

ALL_DTYPES = [*cases.FLOAT_DTYPES, *cases.INTEGER_DTYPES, torch.complex64, torch.complex128]


@pytest.mark.parametrize("dtype", cases.INTEGER_DTYPES, ids=str)
def test_integers_wrap_around_as_torchs_arithmetic_does(dtype: torch.dtype, kernel: KernelUnderTest) -> None:
    limits = torch.iinfo(dtype)
    input = torch.randint(limits.min, limits.max, (2, 3, 6, 7)).to(dtype)
    weight = torch.randint(limits.min, limits.max, (4, 3, 2, 3)).to(dtype)
    bias = torch.randint(limits.min, limits.max, (4,)).to(dtype)
    output = kernel(convext.conv2d, input, weight, bias)
    if output is None:
        pytest.skip(f"{kernel.name} refuses this problem")
    # The same sums by torch's elementwise arithmetic, in the dtype itself.
    wanted = bias.reshape(1, 4, 1, 1).expand(2, 4, 5, 5).clone()
    for c, i, j in product(range(3), range(2), range(3)):
        wanted += input[:, c : c + 1, i : i + 5, j : j + 5] * weight[:, c, i, j].reshape(1, 4, 1, 1)
    assert output.dtype == dtype
    assert torch.equal(output, wanted)


def any_integers(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Over the whole range of the dtype, its limits often."""
    limits = torch.iinfo(dtype)
    numbers = torch.randint(limits.min, limits.max, shape).to(dtype)
    numbers[torch.rand(shape) < 0.1] = limits.max
    numbers[torch.rand(shape) < 0.1] = limits.min
    return numbers


@pytest.mark.parametrize("dtype", cases.INTEGER_DTYPES, ids=str)
@pytest.mark.parametrize("case", cases.SHAPES, ids=str)
def test_every_kernel_wraps_around_as_the_reference_does(
    case: cases.Case, dtype: torch.dtype, kernels: list[KernelUnderTest]
) -> None:
    input, weight = any_integers(case.input_size, dtype), any_integers(case.weight_size, dtype)
    bias = any_integers((case.out_channels,), dtype) if case.bias else None
    for out_dtype in [dtype, torch.int32] if dtype.itemsize == 1 else [dtype]:
        arguments = {**case.arguments, "out_dtype": out_dtype}
        with convext.force_kernel("reference"):
            wanted = convext.conv2d(input, weight, bias, **arguments)
        assert wanted.dtype == out_dtype
        for layout in cases.LAYOUTS:
            x, w = cases.laid_out(input, layout), cases.laid_out(weight, layout)
            for kernel in kernels:
                actual = kernel(convext.conv2d, x, w, bias, **arguments)
                takes_it = kernel.runs_everything or kernel.name.startswith("integer_rows/")
                assert (actual is not None) == takes_it, kernel.name
                if actual is not None:
                    assert torch.equal(actual, wanted), f"{kernel.name} {layout} {out_dtype}"


def test_int64_agrees_with_torch() -> None:
    input, weight = torch.randint(-(2**62), 2**62, (2, 3, 6, 7)), torch.randint(-(2**62), 2**62, (4, 3, 2, 3))
    assert torch.equal(convext.conv2d(input, weight), F.conv2d(input, weight))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8], ids=str)
def test_8_bit_sums_in_32_bits_wrap_only_there(dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    input = torch.full((1, 600, 3, 3), limits.max, dtype=dtype)
    weight = torch.full((1, 600, 3, 3), limits.max, dtype=dtype)
    output = convext.conv2d(input, weight, out_dtype=torch.int32)
    assert output.item() == 600 * 9 * limits.max**2
    assert convext.conv2d(input, weight).item() == (600 * 9 * limits.max**2) % 2**8 - (
        2**8 if dtype == torch.int8 and (600 * 9 * limits.max**2) % 2**8 >= 2**7 else 0
    )


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_out_dtype_may_repeat_the_dtype(dtype: torch.dtype) -> None:
    input, weight = torch.ones(1, 1, 4, 4, dtype=dtype), torch.ones(1, 1, 2, 2, dtype=dtype)
    assert torch.equal(convext.conv2d(input, weight, out_dtype=dtype), convext.conv2d(input, weight))


@pytest.mark.parametrize("first, second", list(product([*ALL_DTYPES, torch.bool], repeat=2)), ids=str)
def test_corr2d_promotes_as_multiplication_does(first: torch.dtype, second: torch.dtype) -> None:
    X, K = torch.ones(4, 5).to(first), torch.ones(2, 3).to(second)
    if first == second == torch.bool:
        with pytest.raises(RuntimeError):
            convext.corr2d(X, K)
        return
    output = convext.corr2d(X, K)
    assert output.dtype == (X[:2, :3] * K).dtype
    assert torch.equal(output, torch.full((3, 3), 6).to(output.dtype))
    assert convext.convolve2d(X[None, None], K[None, None]).dtype == output.dtype


def test_corr2d_of_scalars_and_biases() -> None:
    X, K = torch.ones(3, 3, dtype=torch.int32), torch.ones(2, 2, dtype=torch.int32)
    assert convext.corr2d(X, K, torch.tensor([0.5])).dtype == torch.float32
    assert convext.corr2d(X, K, torch.tensor([0.5])).tolist() == [[4.5, 4.5], [4.5, 4.5]]
    assert convext.corr2d(X, K, torch.tensor(3)).tolist() == [[7, 7], [7, 7]]
    with pytest.raises(RuntimeError, match="bias"):
        convext.corr2d(X, K, torch.ones(2))
    for image, shape in (((3,), (2,)), ((3, 3), (1, 1, 2, 2)), ((1, 1, 3, 3), (2, 2)), ((), (2, 2))):
        with pytest.raises(RuntimeError):
            convext.corr2d(torch.ones(image), torch.ones(shape))


def test_gradients_flow_through_promotion() -> None:
    X = torch.ones(6, 8)
    X[:, 2:6] = 0
    K = torch.tensor([[1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    convext.corr2d(X, K).square().sum().backward()
    assert K.grad.dtype == torch.float64
    X = X.requires_grad_()
    convext.corr2d(X, torch.tensor([[1, -1]])).square().sum().backward()
    assert X.grad.dtype == torch.float32 and X.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_sums_are_kept_in_32(dtype: torch.dtype, kernel: KernelUnderTest) -> None:
    """Kept in 16 bits, a sum of ones stops at 256 or 2048."""
    ones = torch.ones(1, 40, 10, 10, dtype=dtype)
    output = kernel(convext.conv2d, ones, ones)
    if output is not None:
        assert output.item() == 4000
    ops = torch.ops.convext
    for gradient in (
        kernel(ops.corr2d_grad_weight, torch.ones(40, 1, 9, 11).to(dtype), torch.ones(40, 1, 9, 11).to(dtype), [1, 1]),
        kernel(ops.corr2d_grad_input, torch.ones(1, 3960, 1, 1).to(dtype), torch.ones(3960, 1, 1, 1).to(dtype), [1, 1]),
    ):
        if gradient is not None:
            assert gradient.item() == torch.tensor(3960.0).to(dtype).item()
    grad_bias = kernel(ops.corr2d_grad_bias, torch.ones(40, 1, 9, 11).to(dtype))
    assert grad_bias.item() == torch.tensor(3960.0).to(dtype).item()


def test_every_16_bit_number_passes_through_unchanged(kernel: KernelUnderTest) -> None:
    """Widened and narrowed again: all 65536 patterns, subnormal ones and infinities included; NaN stays NaN."""
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        numbers = patterns.view(dtype).reshape(1, 1, 256, 256)
        output = kernel(convext.conv2d, numbers, torch.ones(1, 1, 1, 1, dtype=dtype))
        if output is None:
            pytest.skip(f"{kernel.name} refuses this problem")
        assert torch.equal(output.isnan(), numbers.isnan())
        assert torch.equal(output[~numbers.isnan()], numbers[~numbers.isnan()])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_to_nearest_even(dtype: torch.dtype, kernel: KernelUnderTest) -> None:
    """Sums that fall exactly between two 16-bit numbers, and beside it."""
    bits = 7 if dtype == torch.bfloat16 else 10
    base = torch.arange(2**bits, 2 ** (bits + 1), dtype=torch.float32)
    for offset in (0.25, 0.5, 0.75):
        image = torch.stack([base, torch.full_like(base, offset)])[None, None].to(dtype)
        output = kernel(convext.conv2d, image, torch.ones(1, 1, 2, 1, dtype=dtype))
        if output is None:
            pytest.skip(f"{kernel.name} refuses this problem")
        assert torch.equal(output.flatten(), (base + offset).to(dtype))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("requires", ["input", "weight", "bias"])
def test_complex_gradients(dtype: torch.dtype, requires: str) -> None:
    tensors = {
        "input": torch.randn(2, 4, 5, 6, dtype=dtype),
        "weight": torch.randn(6, 2, 3, 2, dtype=dtype),
        "bias": torch.randn(6, dtype=dtype),
    }
    tensors[requires].requires_grad_()
    grads = []
    for convolution in (convext.conv2d, F.conv2d):
        output = convolution(*tensors.values(), padding=1, groups=2)
        assert output.dtype == dtype
        (grad,) = torch.autograd.grad((output * output.conj()).real.sum(), tensors[requires])
        grads.append(grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_dtypes_that_no_convolution_has() -> None:
    for dtype in (torch.bool, torch.float8_e4m3fn, torch.uint16):
        tensors = torch.zeros(1, 1, 3, 3).to(dtype), torch.zeros(1, 1, 2, 2).to(dtype)
        with pytest.raises((RuntimeError, NotImplementedError)):
            convext.conv2d(*tensors)
