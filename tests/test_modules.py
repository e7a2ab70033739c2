"""`Conv2D` is an `nn.Conv2d` in everything but the kernels, and `replace_conv2d` puts it into models."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import cases
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import convext
from convext import Conv2D, replace_conv2d

CONSTRUCTORS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((3, 4, 3), {}),
    ((3, 4, (3, 2)), {"stride": (2, 1), "padding": (1, 0)}),
    ((4, 8, 3), {"groups": 4, "bias": False}),
    ((4, 6, 3), {"groups": 2, "dilation": 2, "padding": "same"}),
    ((3, 4, 5), {"padding": "valid"}),
    ((3, 4, 3), {"padding": 1, "padding_mode": "reflect"}),
    ((3, 4, 3), {"padding": (2, 1), "padding_mode": "replicate"}),
    ((3, 4, 3), {"padding": 2, "padding_mode": "circular"}),
    ((3, 4, 4), {"padding": "same", "padding_mode": "reflect"}),
    ((3, 4, 3), {"dtype": torch.float64}),
]


def twins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Conv2D, nn.Conv2d]:
    torch.manual_seed(0)
    ours = Conv2D(*args, **kwargs)
    torch.manual_seed(0)
    return ours, nn.Conv2d(*args, **kwargs)


@pytest.mark.parametrize("args, kwargs", CONSTRUCTORS)
def test_same_initialisation_results_and_gradients(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    ours, theirs = twins(args, kwargs)
    assert isinstance(ours, nn.Conv2d)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    x = torch.randn(2, args[0], 9, 8, dtype=ours.weight.dtype)
    for image in (x, x[0]):
        actual, wanted = ours(image), theirs(image)
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5)
        actual.square().sum().backward()
        wanted.square().sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("args, kwargs", CONSTRUCTORS)
def test_repr_says_the_same_but_for_the_name(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    ours, theirs = twins(args, kwargs)
    assert repr(ours) == repr(theirs).replace("Conv2d", "Conv2D", 1)


def test_state_dicts_are_exchanged() -> None:
    ours, theirs = Conv2D(3, 4, 3), nn.Conv2d(3, 4, 3)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight", "bias"]
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours.weight, theirs.weight)
    ours.load_state_dict(nn.Conv2d(3, 4, 3).state_dict(), strict=True)
    with pytest.raises(RuntimeError, match="size mismatch"):
        ours.load_state_dict(nn.Conv2d(3, 5, 3).state_dict())


def through_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def through_torch_save(module: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("clone", [copy.deepcopy, copy.copy, through_pickle, through_torch_save])
def test_copies(clone: Any) -> None:
    layer = Conv2D(3, 4, 3, stride=2, padding=((1, 0), (0, 2)), padding_mode="circular")
    other = clone(layer)
    x = torch.randn(1, 3, 7, 7)
    assert type(other) is Conv2D
    assert torch.equal(other(x), layer(x))
    if clone is not copy.copy:
        with torch.no_grad():
            other.weight.zero_()
        assert not torch.equal(other(x), layer(x))


def test_hooks() -> None:
    layer = Conv2D(1, 1, 3)
    seen = []
    layer.register_forward_pre_hook(lambda module, args: seen.append("before") or (args[0] * 2,))
    layer.register_forward_hook(lambda module, args, output: seen.append("after") or output + 1)
    layer.register_full_backward_hook(lambda module, grad_input, grad_output: seen.append("backward"))
    x = torch.randn(1, 1, 5, 5, requires_grad=True)
    output = layer(x)
    torch.testing.assert_close(output, convext.conv2d(2 * x, layer.weight, layer.bias) + 1)
    output.sum().backward()
    assert seen == ["before", "after", "backward"]


def test_pruning() -> None:
    layer = Conv2D(3, 4, 3)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    assert (layer.weight == 0).float().mean() == 0.5
    x = torch.randn(1, 3, 5, 5)
    pruned = layer(x)
    torch.testing.assert_close(pruned, convext.conv2d(x, layer.weight_orig * layer.weight_mask, layer.bias))
    pruned.sum().backward()
    assert (layer.weight_orig.grad[layer.weight_mask == 0] == 0).all()
    prune.remove(layer, "weight")
    assert torch.equal(layer(x), pruned)


@pytest.mark.parametrize("register", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrizations(register: Any) -> None:
    ours, theirs = twins((3, 4, 3), {})
    torch.manual_seed(1)
    register(ours)
    torch.manual_seed(1)
    register(theirs)
    x = torch.randn(2, 3, 6, 6)
    actual, wanted = ours(x), theirs(x)
    torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)
    actual.sum().backward()
    wanted.sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4)


def test_moves_between_dtypes_and_layouts() -> None:
    layer = Conv2D(3, 4, 3).double().to(memory_format=torch.channels_last)
    output = layer(torch.randn(2, 3, 6, 6, dtype=torch.float64))
    assert output.dtype == torch.float64
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert layer.bfloat16()(torch.randn(1, 3, 6, 6).bfloat16()).dtype == torch.bfloat16


def test_on_the_meta_device_and_materialised() -> None:
    with torch.device("meta"):
        layer = Conv2D(3, 4, 3, padding=1)
    assert layer(torch.empty(2, 3, 6, 6, device="meta")).shape == (2, 4, 6, 6)
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert layer(torch.randn(2, 3, 6, 6)).isfinite().all()


def test_defaults_and_required_arguments() -> None:
    layer = Conv2D(kernel_size=(1, 2))
    assert (layer.in_channels, layer.out_channels, layer.kernel_size) == (1, 1, (1, 2))
    for missing in ({}, {"in_channels": 3, "out_channels": 4}, {"kernel_size": 3, "kernal_size": 3}):
        with pytest.raises(TypeError, match="kernel_size"):
            Conv2D(**missing)
    with pytest.raises(TypeError):
        Conv2D(kernel_sise=3)
    for wrong in ({"groups": 2}, {"padding_mode": "mirror"}, {"padding": "full"}, {"groups": 0}):
        with pytest.raises(ValueError):
            Conv2D(3, 3, 3, **wrong)
        with pytest.raises(ValueError):
            nn.Conv2d(3, 3, 3, **wrong)


def test_padding_that_torch_does_not_have() -> None:
    x = torch.randn(1, 1, 7, 10)
    layer = Conv2D(kernel_size=3, padding=((2, 0), (1, 3)))
    assert layer(x).shape == (1, 1, 7, 12)
    assert torch.equal(layer(x), convext.conv2d(x, layer.weight, layer.bias, padding=((2, 0), (1, 3))))
    layer = Conv2D(kernel_size=3, padding="same", stride=(2, 3))
    assert layer(x).shape == (1, 1, 4, 4)
    assert "same" in repr(layer) and "stride=(2, 3)" in repr(layer)
    assert torch.equal(through_pickle(layer)(x), layer(x))
    assert repr(Conv2D(kernel_size=3, padding=((2, 0), (1, 3))))


@pytest.mark.parametrize("mode", cases.PADDING_MODES)
def test_padding_on_four_sides_in_every_mode(mode: str) -> None:
    x = torch.randn(2, 2, 6, 7)
    layer = Conv2D(2, 3, 3, padding=((2, 0), (1, 3)), padding_mode=mode)
    padded = nn.functional.pad(x, (1, 3, 2, 0), mode="constant" if mode == "zeros" else mode)
    wanted = nn.functional.conv2d(padded, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)


def test_plain_images() -> None:
    assert Conv2D(kernel_size=3)(torch.randn(5, 6)).shape == (3, 4)
    assert Conv2D(1, 7, 3)(torch.randn(5, 6)).shape == (7, 3, 4)
    assert Conv2D(kernel_size=3)(torch.randn(1, 5, 6)).shape == (1, 3, 4)
    with pytest.raises(RuntimeError):
        Conv2D(3, 1, 3)(torch.randn(5, 6))
    with pytest.raises(RuntimeError):
        Conv2D(kernel_size=3)(torch.randn(5))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), nn.ReLU())
        self.shared = nn.Conv2d(6, 6, 3, padding="same", groups=3)
        self.again = self.shared
        self.head = nn.ModuleList([nn.Conv2d(6, 2, 1), nn.Conv1d(3, 3, 1), nn.ConvTranspose2d(2, 2, 2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head[2](self.head[0](self.again(self.shared(self.stem(x)))))


def test_replace_conv2d() -> None:
    model = Model()
    original = copy.deepcopy(model)
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    assert replace_conv2d(model) is model
    assert [name for name, module in model.named_modules() if isinstance(module, Conv2D)] == [
        "stem.0",
        "shared",
        "head.0",
    ]
    assert type(model.head[1]) is nn.Conv1d and type(model.head[2]) is nn.ConvTranspose2d
    assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert list(dict(model.named_modules())) == list(modules)
    assert model.again is model.shared
    x = torch.randn(2, 3, 8, 8)
    for step in range(3):
        actual, wanted = model(x), original(x)
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4, msg=f"step {step}")
        optimiser.zero_grad()
        original.zero_grad()
        actual.square().mean().backward()
        wanted.square().mean().backward()
        optimiser.step()
        with torch.no_grad():
            for parameter in original.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad


def test_replace_conv2d_leaves_subclasses_and_keeps_hooks_and_modes() -> None:
    class Special(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 0

    model = nn.Sequential(Special(1, 1, 3), nn.Conv2d(1, 1, 3).eval(), nn.Conv2d(1, 1, 1).requires_grad_(False))
    seen = []
    model[1].register_forward_hook(lambda *_: seen.append(1))
    replace_conv2d(model)
    assert [type(module) for module in model] == [Special, Conv2D, Conv2D]
    model(torch.randn(1, 1, 6, 6))
    assert seen == [1]
    assert not model[1].training and model[0].training
    assert not model[2].weight.requires_grad
    replace_conv2d(model)
    assert isinstance(replace_conv2d(nn.Conv2d(1, 1, 1)), Conv2D)


def test_replace_conv2d_with_parametrized_and_lazy_layers() -> None:
    normalised = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 3, 3)))
    x = torch.randn(1, 2, 6, 6)
    wanted = normalised(x)
    torch.testing.assert_close(replace_conv2d(normalised)(x), wanted, rtol=1e-5, atol=1e-5)
    lazy = nn.Sequential(nn.LazyConv2d(4, 3))
    replace_conv2d(lazy)
    assert lazy(x).shape == (1, 4, 4, 4)
    replace_conv2d(lazy)
    assert isinstance(lazy[0], Conv2D)


@pytest.mark.parametrize("with_grad", [False, True], ids=["no_grad", "grad"])
def test_jit_trace(with_grad: bool) -> None:
    layer = Conv2D(2, 3, 3, padding=1)
    x = torch.randn(1, 2, 6, 6)
    with torch.set_grad_enabled(with_grad):
        traced = torch.jit.trace(layer, x)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    assert torch.equal(torch.jit.load(buffer)(x), layer(x))


def test_data_parallel_style_replicas_share_parameters() -> None:
    layer = Conv2D(2, 3, 3)
    replica = layer.__class__.__new__(layer.__class__)
    replica.__dict__ = layer.__dict__.copy()
    assert torch.equal(replica(torch.ones(1, 2, 5, 5)), layer(torch.ones(1, 2, 5, 5)))
