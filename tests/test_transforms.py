"""torch.func transforms: the same code with convext's and with torch's convolution gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, stack_module_state, vjp, vmap

import convext

Convolution = Callable[..., Tensor]

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded-strided": {"padding": (1, 0), "stride": (2, 1)},
    "dilated": {"padding": 1, "dilation": 2},
    "grouped": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4, "padding": 1, "stride": 2},
}


@pytest.fixture(params=SETTINGS, ids=str)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SETTINGS[request.param]


def tensors(settings: dict[str, Any], batch: tuple[int, ...] = (2,)) -> list[Tensor]:
    """Input, weight and bias."""
    out_channels = 8
    shapes = ((*batch, 4, 5, 6), (out_channels, 4 // settings.get("groups", 1), 3, 2), (out_channels,))
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def both(program: Callable[[Convolution], Any]) -> None:
    """Runs the program with each convolution and compares what it returns."""
    torch.manual_seed(1)
    ours = program(convext.conv2d)
    torch.manual_seed(1)
    theirs = program(F.conv2d)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", ["batched", "shared", "none"])
@pytest.mark.parametrize("which", ["input", "weight", "input weight", "none"])
@pytest.mark.parametrize("unbatched", [False, True])
def test_vmap_over_some_arguments(settings: dict[str, Any], which: str, bias: str, unbatched: bool) -> None:
    if which == "none" and bias != "batched":
        return  # nothing to map over

    def program(convolution: Convolution) -> Tensor:
        x, w, b = tensors(settings, () if unbatched else (2,))
        if "input" in which:
            x = torch.randn(3, *x.shape, dtype=x.dtype)
        if "weight" in which:
            w = torch.randn(3, *w.shape, dtype=w.dtype)
        if bias == "batched":
            b = torch.randn(3, *b.shape, dtype=b.dtype)
        in_dims = (0 if "input" in which else None, 0 if "weight" in which else None)
        if bias == "none":
            return vmap(lambda x, w: convolution(x, w, **settings), in_dims)(x, w)
        bias_dim = 0 if bias == "batched" else None
        return vmap(lambda x, w, b: convolution(x, w, b, **settings), (*in_dims, bias_dim))(x, w, b)

    both(program)


@pytest.mark.parametrize("input_dim, weight_dim, out_dim", list(product([0, 1, 3, -1], [0, 2, -1], [0, 2, -1])))
def test_vmap_over_other_axes(input_dim: int, weight_dim: int, out_dim: int) -> None:
    def program(convolution: Convolution) -> Tensor:
        x = torch.randn(3, 2, 4, 5, 6, dtype=torch.float64).movedim(0, input_dim)
        w = torch.randn(3, 8, 4, 3, 2, dtype=torch.float64).movedim(0, weight_dim)
        return vmap(lambda x, w: convolution(x, w, padding=1), (input_dim, weight_dim), out_dim)(x, w)

    both(program)


def test_nested_vmap(settings: dict[str, Any]) -> None:
    def program(convolution: Convolution) -> tuple[Tensor, ...]:
        x, w, b = tensors(settings)
        xs = torch.randn(3, 2, *x.shape, dtype=x.dtype)
        ws = torch.randn(2, *w.shape, dtype=w.dtype)

        def apply(x: Tensor, w: Tensor) -> Tensor:
            return convolution(x, w, b, **settings)

        return (
            vmap(vmap(apply, (0, None)), (0, None))(xs, w),
            vmap(vmap(apply), (0, None))(xs, ws),
            vmap(vmap(apply, (None, 0)), (0, None))(xs[:, 0], ws),
            vmap(vmap(apply, (0, None)), (1, 0))(xs, ws),
        )

    both(program)


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["input", "weight", "bias"])
def test_jacobians(settings: dict[str, Any], argument: int) -> None:
    def program(convolution: Convolution) -> tuple[Tensor, ...]:
        arguments = tensors(settings, (1,))

        def function(*arguments: Tensor) -> Tensor:
            return convolution(*arguments, **settings)

        return (
            jacrev(function, argument)(*arguments),
            jacfwd(function, argument)(*arguments),
            jacrev(function, argument, chunk_size=3)(*arguments),
        )

    both(program)


def test_jacobians_of_all_arguments_agree_with_each_other(settings: dict[str, Any]) -> None:
    arguments = tuple(tensors(settings, ()))

    def function(*arguments: Tensor) -> Tensor:
        return convext.conv2d(*arguments, **settings)

    torch.testing.assert_close(jacrev(function, (0, 1, 2))(*arguments), jacfwd(function, (0, 1, 2))(*arguments))


@pytest.mark.parametrize("name", ["plain", "padded-strided", "grouped"])
def test_hessians(name: str) -> None:
    settings = SETTINGS[name]

    def program(convolution: Convolution) -> tuple[Any, ...]:
        x = torch.randn(1, 4, 4, 4, dtype=torch.float64)
        w = torch.randn(4, 4 // settings.get("groups", 1), 2, 2, dtype=torch.float64)

        def loss(x: Tensor, w: Tensor) -> Tensor:
            return convolution(x, w, **settings).sin().sum()

        return (
            hessian(loss, (0, 1))(x, w),
            jacrev(jacrev(loss, 1), 0)(x, w),
            jacfwd(jacfwd(loss, 0), 1)(x, w),
            jacrev(jacfwd(loss, 1), 1)(x, w),
        )

    both(program)


def test_jvp_vjp_and_linearize(settings: dict[str, Any]) -> None:
    def program(convolution: Convolution) -> tuple[Any, ...]:
        primals = tuple(tensors(settings))
        tangents = tuple(torch.randn_like(t) for t in primals)

        def function(*arguments: Tensor) -> Tensor:
            return convolution(*arguments, **settings)

        output, tangent = jvp(function, primals, tangents)
        value, pull_back = vjp(function, *primals)
        linear_output, linear = linearize(function, *primals)
        _, second = jvp(lambda t: jvp(function, primals, (t, *tangents[1:]))[1], (tangents[0],), (tangents[0],))
        return output, tangent, value, pull_back(torch.randn_like(value)), linear_output, linear(*tangents), second

    both(program)


def test_jvp_of_some_arguments(settings: dict[str, Any]) -> None:
    def program(convolution: Convolution) -> list[Any]:
        x, w, b = tensors(settings)
        return [
            jvp(lambda x: convolution(x, w, b, **settings), (x,), (torch.randn_like(x),)),
            jvp(lambda w: convolution(x, w, b, **settings), (w,), (torch.randn_like(w),)),
            jvp(lambda b: convolution(x, w, b, **settings), (b,), (torch.randn_like(b),)),
            jvp(lambda x, b: convolution(x, w, b, **settings), (x, b), (torch.randn_like(x), torch.randn_like(b))),
            vmap(lambda t: jvp(lambda w: convolution(x, w, **settings), (w,), (t,))[1])(
                torch.randn(3, *w.shape).double()
            ),
        ]

    both(program)


def test_dual_numbers_without_a_transform(settings: dict[str, Any]) -> None:
    def program(convolution: Convolution) -> tuple[Tensor, ...]:
        x, w, b = tensors(settings)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.randn_like(x))
            return tuple(torch.autograd.forward_ad.unpack_dual(convolution(dual, w, b, **settings)))

    both(program)


def test_gradients_per_sample(settings: dict[str, Any]) -> None:
    def program(convolution: Convolution) -> tuple[Any, ...]:
        x, w, b = tensors(settings, (5,))
        target = torch.randn(5, dtype=torch.float64)

        def loss(w: Tensor, b: Tensor, x: Tensor, target: Tensor) -> Tensor:
            return (convolution(x, w, b, **settings).tanh().sum() - target) ** 2

        unbatched = vmap(grad(loss, (0, 1)), (None, None, 0, 0))(w, b, x, target)
        batched = vmap(grad(loss, (0, 1)), (None, None, 0, 0))(w, b, x[:, None], target)
        return unbatched, batched

    both(program)


def test_gradients_per_sample_are_those_of_each_sample_alone() -> None:
    x, w, b = tensors({"padding": 1}, (4,))

    def loss(w: Tensor, x: Tensor) -> Tensor:
        return convext.conv2d(x, w, b, padding=1).square().sum()

    together = vmap(grad(loss), (None, 0))(w, x)
    for sample, alone in zip(together, x, strict=True):
        torch.testing.assert_close(sample, grad(loss)(w, alone), rtol=1e-12, atol=1e-12)


def test_vmap_over_grad_of_grad(settings: dict[str, Any]) -> None:
    def program(convolution: Convolution) -> Tensor:
        x, w, _ = tensors(settings, (3,))

        def loss(x: Tensor, w: Tensor) -> Tensor:
            return convolution(x, w, **settings).pow(3).sum()

        def squared_gradient(x: Tensor, w: Tensor) -> Tensor:
            return grad(loss)(x, w).square().sum()

        return vmap(grad(squared_gradient, 1), (0, None))(x, w)

    both(program)


def test_ensembles_of_models() -> None:
    def program(convolution: Convolution) -> tuple[Tensor, Any]:
        torch.manual_seed(3)
        layer = convext.Conv2D if convolution is convext.conv2d else torch.nn.Conv2d
        models = [
            torch.nn.Sequential(layer(3, 6, 3, padding=1), torch.nn.ReLU(), layer(6, 4, 3, stride=2, groups=2)).double()
            for _ in range(3)
        ]
        parameters, buffers = stack_module_state(models)
        base = models[0]
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

        def apply(parameters: Any, buffers: Any, x: Tensor) -> Tensor:
            return functional_call(base, (parameters, buffers), (x,))

        def loss(parameters: Any, x: Tensor) -> Tensor:
            return functional_call(base, parameters, (x,)).square().mean()

        return vmap(apply, (0, 0, None))(parameters, buffers, x), vmap(grad(loss), (0, None))(parameters, x)

    both(program)


def test_one_kernel_for_each_image() -> None:
    """The question of the forum: a batch of images, each with a kernel of its own."""
    images, kernels = torch.randn(5, 2, 9, 9), torch.randn(5, 3, 2, 3, 3)
    together = vmap(convext.conv2d)(images, kernels)
    for image, kernel, output in zip(images, kernels, together, strict=True):
        torch.testing.assert_close(output, F.conv2d(image, kernel))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_under_transforms(mode: str) -> None:
    def program(convolution: Convolution) -> tuple[Any, ...]:
        x, w = torch.randn(3, 2, 5, 5, dtype=torch.float64), torch.randn(3, 4, 2, 3, 3, dtype=torch.float64)

        def apply(x: Tensor, w: Tensor) -> Tensor:
            if convolution is convext.conv2d:
                return convolution(x, w, padding=2, padding_mode=mode)
            return convolution(F.pad(x[None], (2, 2, 2, 2), mode=mode), w)[0]

        return vmap(apply)(x, w), vmap(jacrev(apply, 1))(x, w), jacfwd(apply)(x[0], w[0])

    both(program)


def test_complex_under_transforms() -> None:
    def program(convolution: Convolution) -> tuple[Any, ...]:
        x, w = torch.randn(3, 2, 5, 5, dtype=torch.complex128), torch.randn(3, 4, 2, 3, 3, dtype=torch.complex128)

        def loss(x: Tensor, w: Tensor) -> Tensor:
            return convolution(x, w).abs().sum()

        return vmap(convolution)(x, w), vmap(grad(loss, (0, 1)))(x, w)

    both(program)


def test_randomness_and_no_grad_inside_transforms() -> None:
    x, w = torch.randn(2, 1, 5, 5), torch.randn(1, 1, 3, 3)

    def loss(w: Tensor) -> Tensor:
        with torch.no_grad():
            constant = convext.conv2d(x, w)
        return (convext.conv2d(x, w) * constant).sum()

    def with_torch(w: Tensor) -> Tensor:
        with torch.no_grad():
            constant = F.conv2d(x, w)
        return (F.conv2d(x, w) * constant).sum()

    torch.testing.assert_close(grad(loss)(w), grad(with_torch)(w))
