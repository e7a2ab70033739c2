"""What Winograd's convolution must not lose: it computes with sums and differences of neighbouring pixels and taps, so
values that an output does not depend on, or hardly, could show in it."""

from __future__ import annotations

import cases
import pytest
import torch
import torch.nn.functional as F
from conftest import KERNELS, KernelUnderTest
from torch import Tensor

import convext

ops = torch.ops.convext
PADDED = ([1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros")
INF, NAN = float("inf"), float("nan")
C, OUT = 96, 96  # enough for gradients of small images, too


@pytest.fixture(
    params=[kernel for kernel in KERNELS if kernel.name == "winograd"],
    ids=lambda kernel: kernel.qualified_name.replace("/", "-"),
)
def winograd(request: pytest.FixtureRequest) -> KernelUnderTest:
    return KernelUnderTest(request.param)


def forward(kernel: KernelUnderTest, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    result = kernel(ops.corr2d, x, w, bias, *PADDED)
    assert result is not None
    return result


def grad_input(kernel: KernelUnderTest, g: Tensor, w: Tensor) -> Tensor:
    result = kernel(ops.corr2d_grad_input, g, w, g.shape[-2:], *PADDED)
    assert result is not None
    return result


def grad_weight(kernel: KernelUnderTest, g: Tensor, x: Tensor, size: int = 3) -> Tensor:
    padding = [size // 2] * 4
    result = kernel(ops.corr2d_grad_weight, g, x, (size, size), [1, 1], padding, [1, 1], 1, "zeros")
    assert result is not None
    return result


def error_and_size(kernel: KernelUnderTest, x: Tensor, w: Tensor, pass_name: str) -> tuple[Tensor, Tensor]:
    """The error of each element and the sum of the absolute values of its terms."""
    if pass_name == "forward":
        actual = forward(kernel, x, w)
    else:
        actual = grad_input(kernel, x, w.transpose(0, 1))
        w = w.flip(2, 3)
    x, w = x.double(), w.double()
    return (actual.double() - F.conv2d(x, w, padding=1)).abs(), F.conv2d(x.abs(), w.abs(), padding=1)


def assert_within_bound(kernel: KernelUnderTest, x: Tensor, w: Tensor) -> None:
    """With the constant that test_error_bound.py has for sums of this length."""
    for pass_name in ("forward", "grad_input"):
        error, size = error_and_size(kernel, x, w, pass_name)
        bound = (4 + (9 * w.shape[1]) ** 0.5 / 2) * torch.finfo(torch.float32).eps * size
        assert (error <= bound).all(), f"{pass_name}: {(error / bound).nan_to_num(0).max().item():.2f} times the bound"


def unlike(shape: tuple[int, ...], decades: float) -> Tensor:
    """Numbers of both signs whose logarithms are uniform over this many decades."""
    return torch.randn(shape).sign() * 10 ** (decades * (torch.rand(shape) - 0.5))


@pytest.mark.parametrize("value", [100, 150, 200, 400, 1e3, 1e8, 1e30])
@pytest.mark.parametrize("position", [(0, 0), (3, 2), (4, 5), (6, 6)])
def test_one_huge_pixel(value: float, position: tuple[int, int], winograd: KernelUnderTest) -> None:
    x, w = torch.randn(2, C, 7, 7), torch.randn(OUT, C, 3, 3)
    x[0, 5][position] = value
    assert_within_bound(winograd, x, w)


@pytest.mark.parametrize("decades", [4, 8, 11, 16])
@pytest.mark.parametrize("what", ["pixels", "weights", "both", "planes", "channels"])
def test_large_next_to_small(decades: float, what: str, winograd: KernelUnderTest) -> None:
    x, w = torch.randn(2, C, 10, 11), torch.randn(OUT, C, 3, 3)
    if what in ("pixels", "both"):
        x = unlike(tuple(x.shape), decades)
    if what in ("weights", "both"):
        w = unlike(tuple(w.shape), decades)
    if what == "planes":
        x = x * unlike((1, 1, 10, 11), decades)
    if what == "channels":
        x = x * unlike((1, C, 1, 1), decades)
    assert_within_bound(winograd, x, w)


def test_a_huge_pixel_beside_windows_without_it(winograd: KernelUnderTest) -> None:
    """Rows and columns of a tile that an output does not read contribute nothing to its rounding errors."""
    x, w = torch.randn(1, C, 8, 8), torch.randn(OUT, C, 3, 3)
    x[:, :, 3] *= 1e10
    x[:, :, :, 6] *= 1e20
    assert_within_bound(winograd, x, w)


@pytest.mark.parametrize("kind", ["dirac", "masked", "cross", "one-large-tap", "tiny-columns", "zero-channels"])
def test_uneven_kernels(kind: str, winograd: KernelUnderTest) -> None:
    """Of a mask, nothing must come through; a kernel that copies the image must copy it."""
    x, w = torch.randn(1, C, 9, 9) * unlike((1, 1, 9, 9), 6), torch.randn(OUT, C, 3, 3)
    if kind == "dirac":
        torch.nn.init.dirac_(w)
        assert torch.equal(forward(winograd, x, w), x)
    elif kind == "masked":
        w[:, :, 1, 1:] = 0
        w[:, :, 2] = 0
    elif kind == "cross":
        w[:, :, ::2, ::2] = 0
    elif kind == "one-large-tap":
        w[7, :, 0, 2] *= 1e6
    elif kind == "tiny-columns":
        w[:, :, :, 1] *= 1e-6
    else:
        w[3:9] = 0
        assert (forward(winograd, x, w)[:, 3:9] == 0).all()
    assert_within_bound(winograd, x, w)


def test_sparse_images(winograd: KernelUnderTest) -> None:
    x, w = torch.randn(1, C, 12, 12), torch.randn(OUT, C, 3, 3)
    x[torch.rand_like(x) < 0.995] = 0
    assert_within_bound(winograd, x, w)
    impulse = torch.zeros(1, C, 12, 12)
    impulse[0, 3, 5, 6] = 1
    expected = F.conv2d(impulse, w, padding=1)
    assert torch.equal(forward(winograd, impulse, w), expected)


@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_non_finite_at_each_place_of_a_tile(precision: str, layout: str, winograd: KernelUnderTest) -> None:
    """Infinities keep their sign where they meet no other."""
    x, w = torch.randn(2, 32, 7, 6), torch.randn(OUT, 32, 3, 3)
    for index in range(42):
        for value in ([NAN], [INF], [-INF], [INF, -INF])[index % 4]:
            dirty = cases.laid_out(x, layout)
            dirty[1, 9, index // 6, index % 6] = value
            expected = F.conv2d(dirty.double(), w.double(), padding=1)
            with convext.float32_precision(precision):
                actual = forward(winograd, dirty, w)
            torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-3, equal_nan=True)
            dirty_grad = cases.laid_out(x.new_zeros(2, OUT, 7, 6).normal_(), layout)
            dirty_grad[1, 9, index // 6, index % 6] = value
            expected = F.conv_transpose2d(dirty_grad.double(), w.double(), padding=1)
            with convext.float32_precision(precision):
                actual = grad_input(winograd, dirty_grad, w)
            torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_what_overflows_in_a_transform_need_not_overflow(precision: str, winograd: KernelUnderTest) -> None:
    x, w = torch.randn(2, 32, 6, 6) * 1e38, torch.randn(32, 32, 3, 3) * 1e-3
    x.clamp_(-3e38, 3e38)
    with convext.float32_precision(precision):
        actual = forward(winograd, x, w)
    assert actual.isfinite().all()
    expected = F.conv2d(x.double(), w.double(), padding=1)
    assert (actual.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_subnormal_weights(winograd: KernelUnderTest) -> None:
    """Sums and differences of subnormal numbers are exact; quarters of them would not be."""
    x, w = torch.randn(1, C, 6, 6) * 1e20, torch.randint(-9, 10, (OUT, C, 3, 3)) * 2.0**-149
    assert_within_bound(winograd, x, w)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_an_outlier_changes_no_other_sample(precision: str, winograd: KernelUnderTest) -> None:
    x, w = torch.randn(3, C, 9, 10), torch.randn(OUT, C, 3, 3)
    with convext.float32_precision(precision):
        clean = forward(winograd, x, w)
        for value in (1e8, NAN):
            dirty = x.clone()
            dirty[1, 5, 4, 4] = value
            actual = forward(winograd, dirty, w)
            assert torch.equal(actual[::2], clean[::2])
            assert torch.equal(actual[1].nan_to_num(7), forward(winograd, dirty[1:2], w)[0].nan_to_num(7))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("size", [(32, 5, 5, 33), (64, 14, 13, 64), (48, 30, 31, 40), (128, 9, 9, 256)])
def test_error_of_high_precision(size: tuple[int, int, int, int], layout: str, winograd: KernelUnderTest) -> None:
    """At most six times direct summation's; and the same bits for any batch and number of threads."""
    channels, height, width, out_channels = size
    ratios = []
    for pass_name in ("forward", "grad_input"):
        torch.manual_seed(0)
        x = cases.laid_out(torch.randn(3, channels, height, width), layout)
        w = torch.randn(out_channels, channels, 3, 3)
        with convext.float32_precision("high"):
            error, terms = error_and_size(winograd, x, w, pass_name)
            assert (error <= 32 * torch.finfo(torch.float32).eps * terms).all()
            if pass_name == "forward":
                whole = forward(winograd, x, w)
                torch.set_num_threads(3)
                assert torch.equal(forward(winograd, x, w), whole)
                assert torch.equal(forward(winograd, cases.laid_out(x[2:], layout), w), whole[2:])
        w_of_pass = w if pass_name == "forward" else w.flip(2, 3)
        direct = F.conv2d(x, w_of_pass, padding=1).double() - F.conv2d(x.double(), w_of_pass.double(), padding=1)
        ratios.append((error.square().mean() / direct.square().mean()).sqrt().item())
    assert max(ratios) <= 6, ratios


@pytest.mark.parametrize("channels", [32, 64, 256, 512])
@pytest.mark.parametrize("size", [1, 7, 14, 56])
def test_the_choice_of_kernel_does_not_depend_on_the_batch(channels: int, size: int) -> None:
    weight = torch.empty(channels, channels, 3, 3, device="meta")
    chosen = set()
    for batch in (1, 2, 8, 300):
        plans = convext.explain(torch.empty(batch, channels, size, size, device="meta"), weight, padding=1)
        chosen.add((plans["forward"].kernel, plans["grad_input"].kernel))
    assert len(chosen) == 1


class TestLargeKernels:
    """Cut into blocks of three and two taps, whose sums are transformed together; and kernels of one row or column."""

    def assert_within_bound(self, kernel: KernelUnderTest, x: Tensor, w: Tensor) -> None:
        height, width = w.shape[2:]
        pad, channels = (height // 2, width // 2), w.shape[0]
        rest = ([1, 1], [pad[0], pad[0], pad[1], pad[1]], [1, 1], 1, "zeros")
        g = F.pad(x, [0, 1 - width % 2, 0, 1 - height % 2])  # even kernels make the output larger by one
        actual = kernel(ops.corr2d, x, w, None, *rest)
        gradient = kernel(ops.corr2d_grad_input, g, w, x.shape[-2:], *rest)
        assert actual is not None and gradient is not None
        bound = (4 + (height * width * channels) ** 0.5 / 2) * torch.finfo(torch.float32).eps
        for result, correlation, source in ((actual, F.conv2d, x), (gradient, F.conv_transpose2d, g)):
            exact = correlation(source.double(), w.double(), padding=pad)
            terms = correlation(source.double().abs(), w.double().abs(), padding=pad)
            error = (result.double() - exact).abs() / (bound * terms)
            assert (error.nan_to_num(0) <= 1).all(), f"{error.nan_to_num(0).max().item():.2f} times the bound"

    @pytest.fixture(params=[(5, 5, 96), (5, 7, 16), (9, 9, 16), (4, 8, 96), (1, 7, 96), (3, 1, 96)], ids=str)
    def shape(self, request: pytest.FixtureRequest) -> tuple[int, int, int, int]:
        height, width, channels = request.param
        return channels, channels, height, width

    @pytest.mark.parametrize("decades", [4, 16])
    @pytest.mark.parametrize("what", ["pixels", "weights", "both", "planes", "taps", "blocks"])
    def test_large_next_to_small(
        self, what: str, decades: float, shape: tuple[int, int, int, int], winograd: KernelUnderTest
    ) -> None:
        x, w = torch.randn(1, shape[0], 24, 25), torch.randn(shape)
        if what in ("pixels", "both"):
            x = unlike(tuple(x.shape), decades)
        if what in ("weights", "both"):
            w = unlike(tuple(w.shape), decades)
        if what in ("planes", "blocks"):
            x = x * unlike((1, 1, 24, 25), decades)
        if what == "taps":
            w = w * unlike((1, 1, *shape[2:]), decades)
        if what == "blocks":
            w[:, :, :3, :3] *= 25
        self.assert_within_bound(winograd, x, w)

    @pytest.mark.parametrize("kind", ["huge row", "huge column", "huge pixel", "sparse", "masked", "causal", "step"])
    def test_uneven_images_and_kernels(
        self, kind: str, shape: tuple[int, int, int, int], winograd: KernelUnderTest
    ) -> None:
        x, w = torch.randn(1, shape[0], 24, 25), torch.randn(shape)
        if kind == "huge row":
            x[:, :, 7] *= 1e8
        elif kind == "huge column":
            x[..., 9] *= 1e8
        elif kind == "huge pixel":
            x[0, 3, 8, 9] = 1e9
        elif kind == "sparse":
            x[torch.rand_like(x) < 0.99] = 0
        elif kind == "masked":
            w[:, :, shape[2] // 2 :, 1:] = 0
        elif kind == "causal":
            w[:, :, shape[2] // 2 + 1 :] = 0
        else:
            x[..., 11:] *= 1e-9
        self.assert_within_bound(winograd, x, w)

    def test_ordinary_corners_do_not_fall_back(
        self, shape: tuple[int, int, int, int], winograd: KernelUnderTest
    ) -> None:
        """Corners see few pixels with each block of the kernel, but enough with all of it."""
        x, w = torch.randn(4, shape[0], 24, 25).relu(), torch.randn(shape)
        padding = [shape[2] // 2, shape[2] // 2, shape[3] // 2, shape[3] // 2]
        rest = ([1, 1], padding, [1, 1], 1, "zeros")
        isa = winograd.description.isa
        direct = KernelUnderTest(next(k for k in KERNELS if k.name == "implicit_gemm" and k.isa == isa))
        actual, other = winograd(ops.corr2d, x, w, None, *rest), direct(ops.corr2d, x, w, None, *rest)
        assert actual is not None and other is not None
        for sample in range(4):
            assert not torch.equal(actual[sample], other[sample])

    @pytest.mark.parametrize("value", [NAN, INF])
    def test_non_finite_numbers(
        self, value: float, shape: tuple[int, int, int, int], winograd: KernelUnderTest
    ) -> None:
        x, w, pad = torch.randn(2, shape[0], 32, 33), torch.randn(shape), (shape[2] // 2, shape[3] // 2)
        for row, column in ((0, 0), (28, 9), (31, 3)):
            dirty = x.clone()
            dirty[1, 9, row, column] = value
            expected = F.conv2d(dirty.double(), w.double(), padding=pad)
            actual = winograd(ops.corr2d, dirty, w, None, [1, 1], [pad[0], pad[0], pad[1], pad[1]], [1, 1], 1, "zeros")
            assert actual is not None
            torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-3, equal_nan=True)


class TestGradientOfTheWeight:
    """Winograd's products mix the pairs of a tile; a tap has four of the 64, for each block of a larger kernel."""

    SIZE = (2, 32, 30, 32)  # smaller maps are not for 5x5 taps

    def assert_within_bound(self, kernel: KernelUnderTest, x: Tensor, g: Tensor) -> None:
        for size in (3, 5):

            def exact(x: Tensor, g: Tensor, size: int = size) -> Tensor:
                w = x.new_zeros(g.shape[1], x.shape[1], size, size)
                return torch.nn.grad.conv2d_weight(x, w.shape, g, padding=size // 2)

            error = (grad_weight(kernel, g, x, size).double() - exact(x.double(), g.double())).abs()
            terms = g.numel() / g.shape[1]
            bound = (4 + terms**0.5 / 2) * torch.finfo(torch.float32).eps * exact(x.double().abs(), g.double().abs())
            assert (error <= bound).all(), f"{(error / bound).nan_to_num(0).max().item():.2f} times the bound"

    @pytest.mark.parametrize("decades", [2, 4, 6, 8, 12, 16])
    @pytest.mark.parametrize("what", ["input", "gradient", "both", "places", "places of each image"])
    def test_large_next_to_small(self, decades: float, what: str, winograd: KernelUnderTest) -> None:
        batch, _, *image = self.SIZE
        x, g = torch.randn(self.SIZE), torch.randn(self.SIZE)
        if what in ("input", "both"):
            x = unlike(self.SIZE, decades)
        if what in ("gradient", "both"):
            g = unlike(self.SIZE, decades)
        if what.startswith("places"):
            shape = (1 if what == "places" else batch, 1, *image)
            x, g = x * unlike(shape, decades), g * unlike(shape, decades)
        self.assert_within_bound(winograd, x, g)

    @pytest.mark.parametrize("share", [0.5, 0.2, 0.1, 0.05, 0.01, 0.001])
    @pytest.mark.parametrize("what", ["input", "gradient", "both", "pixels"])
    def test_sparse(self, share: float, what: str, winograd: KernelUnderTest) -> None:
        x, g = torch.randn(self.SIZE), torch.randn(self.SIZE)
        if what in ("input", "both"):
            x[torch.rand(self.SIZE) > share] = 0
        if what in ("gradient", "both"):
            g[torch.rand(self.SIZE) > share] = 0
        if what == "pixels":
            x, g = x.relu(), g * (torch.rand(self.SIZE[0], 1, *self.SIZE[2:]) < share)
        self.assert_within_bound(winograd, x, g)

    @pytest.mark.parametrize("value", [10, 100, 1e3, 1e8, 1e30])
    @pytest.mark.parametrize("is_input", [True, False], ids=["input", "gradient"])
    def test_one_huge_pixel(self, value: float, is_input: bool, winograd: KernelUnderTest) -> None:
        x, g = torch.randn(self.SIZE), torch.randn(self.SIZE).relu()
        (x if is_input else g)[1, 5, 3, 2] = value
        self.assert_within_bound(winograd, x, g)

    @pytest.mark.parametrize("factor", [0, 1e-6, 1e-3, 0.1])
    @pytest.mark.parametrize("kind", ["rows", "columns", "phases", "halves", "images"])
    def test_large_inputs_and_gradients_in_different_places(
        self, kind: str, factor: float, winograd: KernelUnderTest
    ) -> None:
        x, g = torch.randn(self.SIZE), torch.randn(self.SIZE)
        if kind == "rows":
            x[:, :, ::2] *= factor
            g[:, :, 1::2] *= factor
        elif kind == "columns":
            x[..., 1::2] *= factor
            g[..., 1::2] *= factor
        elif kind == "phases":
            x[:, :, 1::2, ::2] *= factor
            g[:, :, ::2, 1::2] *= factor
        elif kind == "halves":
            middle = self.SIZE[-1] // 2
            x[..., :middle] *= factor
            g[..., middle:] *= factor
        else:
            x[::2] *= factor
            g[1::2] *= factor
        self.assert_within_bound(winograd, x, g)

    @pytest.mark.parametrize("value", [NAN, INF, -INF])
    @pytest.mark.parametrize("is_input", [True, False], ids=["input", "gradient"])
    def test_non_finite_numbers_stay_with_their_taps(
        self, value: float, is_input: bool, winograd: KernelUnderTest
    ) -> None:
        """Past the edge of the gradient nothing is multiplied, not even by zero."""
        x, g = torch.randn(2, 32, 9, 11), torch.randn(2, 33, 9, 11)
        for place in ((0, 0), (4, 5), (8, 10), (8, 3)):
            dirty = (x if is_input else g).clone()
            dirty[1, 9][place] = value
            tensors = (g, dirty) if is_input else (dirty, x)
            expected = torch.nn.grad.conv2d_weight(tensors[1].double(), (33, 32, 3, 3), tensors[0].double(), padding=1)
            actual = grad_weight(winograd, *tensors)
            torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-3, equal_nan=True)

    def test_what_overflows_in_a_transform_need_not_overflow(self, winograd: KernelUnderTest) -> None:
        x, g = torch.rand(2, 32, 10, 10) * 3e38, torch.randn(2, 32, 10, 10) * 1e-3
        actual = grad_weight(winograd, g, x)
        expected = torch.nn.grad.conv2d_weight(x.double(), (32, 32, 3, 3), g.double(), padding=1)
        assert actual.isfinite().all()
        assert (actual.double() - expected).abs().max() <= 1e-5 * expected.abs().max()
