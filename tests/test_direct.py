"""The way past torch's dispatcher: the same bits as the operators, and taken only where nobody would miss the call."""

from __future__ import annotations

import gc
import sys
from typing import Any

import cases
import pytest
import torch
from cases import Case
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import convext
from convext import _C, _cuda_part, _direct, autograd

ops = torch.ops.convext


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def settings_of(case: Case) -> tuple[Any, ...]:
    return autograd._as_geometry(*cases.op_arguments(case))


def native_of(device: str) -> Any:
    """The module that takes this device's tensors."""
    return _cuda_part.module if device == "cuda" else _C


def test_it_is_switched_on_here(device: str) -> None:
    x, w = torch.rand(1, 1, 3, 3, device=device), torch.rand(1, 1, 2, 2, device=device)
    native = _direct.module_for(x)
    assert native is native_of(device)
    assert native.direct_corr2d(x, w, None, ()).device == x.device
    gradients = native.direct_gradients(torch.rand(1, 1, 2, 2, device=device), x, w, (), True, True, True)
    assert all(gradient.device == x.device for gradient in gradients)


def test_calls_take_it(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward without gradients, forward with them, and backward."""
    taken = []

    class Counting:
        def __init__(self, native: Any) -> None:
            self.native = native

        def __getattr__(self, name: str) -> Any:
            taken.append(name)
            return getattr(self.native, name)

    for name in ("_C", "_cuda"):
        if getattr(_direct, name) is not None:
            monkeypatch.setattr(_direct, name, Counting(getattr(_direct, name)))
    x, w = torch.rand(1, 1, 5, 5, device=device), torch.rand(1, 1, 2, 2, device=device, requires_grad=True)
    with torch.no_grad():
        convext.conv2d(x, w)
    assert taken == ["direct_corr2d"]
    output = convext.conv2d(x, w).sum()
    assert taken == ["direct_corr2d"] * 2
    output.backward()
    assert taken == ["direct_corr2d", "direct_corr2d", "direct_gradients"]


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("case", cases.SHAPES, ids=str)
def test_same_bits_and_layout_as_the_operators(case: Case, channels_last: bool, device: str) -> None:
    input, weight, bias = (
        cases.normal(size, torch.float32, seed).to(device)
        for seed, size in enumerate((case.input_size, case.weight_size, (case.out_channels,)))
    )
    if channels_last and input.dim() == 4:
        input = input.contiguous(memory_format=torch.channels_last)
    native, settings = native_of(device), settings_of(case)
    expected = ops.corr2d(input, weight, bias, *settings)
    actual = native.direct_corr2d(input, weight, bias, settings)
    assert actual is not None
    assert torch.equal(actual, expected) and actual.stride() == expected.stride()

    grad = torch.randn_like(expected)
    last = autograd.ops.is_channels_last(input) or autograd.ops.is_channels_last(weight)
    wanted = (
        ops.corr2d_grad_input(grad, weight, input.shape[-2:], *settings, last),
        ops.corr2d_grad_weight(grad, input, weight.shape[-2:], *settings, last),
        ops.corr2d_grad_bias(grad),
    )
    gradients = native.direct_gradients(grad, input, weight, settings, True, True, True)
    assert gradients is not None
    for gradient, expected in zip(gradients, wanted, strict=True):
        assert torch.equal(gradient, expected) and gradient.stride() == expected.stride()
    assert native.direct_gradients(grad, input, weight, settings, False, False, False) == (None, None, None)


def test_modes_and_profilers_see_every_call(device: str) -> None:
    x, w = torch.rand(1, 1, 5, 5, device=device), torch.rand(1, 1, 2, 2, device=device, requires_grad=True)
    with Recorder() as recorder:
        convext.conv2d(x, w).sum().backward()
        convext.conv2d(x, w.detach())
    assert recorder.seen.count("convext.corr2d.default") == 2
    assert recorder.seen.count("convext.corr2d_grad_weight.default") == 1
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        convext.conv2d(x, w.detach())
    assert "convext::corr2d" in {event.key for event in profiler.key_averages()}


def test_only_plain_tensors_are_taken(device: str) -> None:
    class Subclass(torch.Tensor):
        pass

    x, w = torch.rand(1, 1, 5, 5, device=device), torch.rand(1, 1, 2, 2, device=device)
    native = native_of(device)
    negative = torch.complex(x, x).conj().imag
    assert negative.is_neg()
    for other in (x.as_subclass(Subclass), x.to("meta"), x.to_sparse(), negative, x.bool(), None, 3):
        assert native.direct_corr2d(other, w, None, ()) is None
        assert native.direct_corr2d(x, other, None, ()) is None
        assert native.direct_gradients(other, x, w, (), True, True, True) is None
    assert torch.equal(convext.conv2d(negative, w), -convext.conv2d(x, w))
    assert type(convext.conv2d(x.as_subclass(Subclass), w)) is Subclass


def test_tensors_of_another_device_are_not_taken(device: str) -> None:
    """Nor any that are spread over both devices, of which the operators say what is wrong."""
    there = torch.rand(1, 1, 5, 5, device="meta" if device == "cpu" else "cpu")
    here = torch.rand(1, 1, 5, 5, device=device)
    native = native_of(device)
    for tensors in ((there, there), (here, there), (there, here)):
        assert native.direct_corr2d(*tensors, None, ()) is None
        assert native.direct_gradients(tensors[0], *tensors, (), True, True, True) is None
    assert native.direct_corr2d(here, here, there[0, 0, 0, :1], ()) is None
    if device == "cuda":
        for tensors in ((here, there), (there, here)):
            with pytest.raises(RuntimeError, match="must be on the same device"):
                convext.conv2d(*tensors)


@pytest.mark.parametrize(
    "settings",
    [None, (1,), ((1, 1), (0, 0)), ((1, 1.0),), ((True, 1),), ((2**70, 1),), ((1, 1),) * 7, ((0, 1),)],
    ids=repr,
)
def test_what_it_cannot_read_is_left_to_the_operators(settings: Any, device: str) -> None:
    x, w = torch.rand(1, 1, 5, 5, device=device), torch.rand(1, 1, 2, 2, device=device)
    assert native_of(device).direct_corr2d(x, w, None, settings) is None
    assert native_of(device).direct_corr2d(x, w) is None


def test_results_are_ordinary_tensors(device: str) -> None:
    x, w = torch.rand(1, 1, 5, 5, device=device), torch.rand(1, 1, 2, 2, device=device)
    y = convext.conv2d(x, w)
    y.resize_(100)  # its storage belongs to torch
    with torch.inference_mode():
        assert convext.conv2d(x, w).is_inference()
    parameter = torch.nn.Parameter(w)
    assert convext.conv2d(x, parameter).requires_grad


def test_nothing_leaks(device: str) -> None:
    native = native_of(device)
    x, w, grad = (torch.rand(1, 1, size, size, device=device) for size in (5, 2, 4))
    references = sys.getrefcount(x), sys.getrefcount(w), sys.getrefcount(grad)
    for call in (
        lambda: native.direct_corr2d(x, w, None, ()),
        lambda: native.direct_gradients(grad, x, w, (), True, True, True),
        lambda: native.direct_corr2d(x, w, None, (3,)),
        lambda: native.direct_corr2d(x, w, None, ((0, 1),)),
    ):
        call()
        gc.collect()
        objects = len(gc.get_objects())
        for _ in range(1000):
            call()
        gc.collect()
        assert len(gc.get_objects()) - objects < 100
    assert references == (sys.getrefcount(x), sys.getrefcount(w), sys.getrefcount(grad))


def test_known_arguments_are_told_from_equal_ones_of_another_type() -> None:
    """Geometry is recalled by the identity of its arguments: 1.0 and True equal 1, but are no integers."""
    x, weight = torch.randn(1, 1, 5, 5), torch.randn(1, 1, 3, 3)
    for _ in range(2):
        assert convext.conv2d(x, weight, None, (2, 2), (1, 1)).shape == (1, 1, 3, 3)
        with pytest.raises(TypeError, match="stride must be made of integers"):
            convext.conv2d(x, weight, None, (2.0, 2.0), (1, 1))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="padding must be made of integers"):
            convext.conv2d(x, weight, None, (2, 2), (True, True))


def test_a_list_of_arguments_may_change_between_calls() -> None:
    x, weight, stride = torch.randn(1, 1, 5, 5), torch.randn(1, 1, 3, 3), [1, 1]
    assert convext.conv2d(x, weight, None, stride).shape == (1, 1, 3, 3)
    stride[0] = 2
    assert convext.conv2d(x, weight, None, stride).shape == (1, 1, 2, 3)


def test_arguments_beyond_those_that_are_kept() -> None:
    x, weight = torch.randn(1, 1, 5, 5), torch.randn(1, 1, 3, 3)
    known = convext._geometry._known
    for padding in range(2 * convext._geometry._MOST_KNOWN):
        convext._geometry.normalize((1, 1), (padding, 1), (1, 1), 1, "zeros", (5, 5), (3, 3))
        assert len(known) <= convext._geometry._MOST_KNOWN
    assert convext.conv2d(x, weight, None, (1, 1), (1, 1)).shape == (1, 1, 5, 5)
