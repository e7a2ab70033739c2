"""Arguments that make no sense, or barely any: the outcome is torch's, or one clear sentence of the same type.

Each case is a function of ``conv2d``, called with convext's and with torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import convext

Call = Callable[[Callable[..., Tensor]], Tensor]

HUGE = 2**62
X = torch.arange(2 * 4 * 6 * 7, dtype=torch.float32).reshape(2, 4, 6, 7) / 100
W = torch.arange(6 * 4 * 3 * 3, dtype=torch.float32).reshape(6, 4, 3, 3) / 100
B = torch.arange(6, dtype=torch.float32)


def tall(rows: int) -> Tensor:
    """An image of this many rows that takes no memory."""
    return torch.ones(1).expand(1, 1, rows, 1)


#: torch refuses these; so must convext, with the same type of exception.
REFUSED: dict[str, Call] = {
    "stride 0": lambda f: f(X, W, stride=0),
    "stride (1, 0)": lambda f: f(X, W, stride=(1, 0)),
    "stride -1": lambda f: f(X, W, stride=-1),
    "stride (2, -3)": lambda f: f(X, W, stride=(2, -3)),
    "stride of three": lambda f: f(X, W, stride=(1, 1, 1)),
    "stride of none": lambda f: f(X, W, stride=()),
    "stride is a float": lambda f: f(X, W, stride=1.5),
    "stride has a float": lambda f: f(X, W, stride=(1, 1.5)),
    "stride is a string": lambda f: f(X, W, stride="2"),
    "stride is None": lambda f: f(X, W, stride=None),
    "stride does not fit 64 bits": lambda f: f(X, W, stride=2**64),
    "padding -1": lambda f: f(X, W, padding=-1),
    "padding (0, -1)": lambda f: f(X, W, padding=(0, -1)),
    "padding of three": lambda f: f(X, W, padding=(1, 1, 1)),
    "padding is a float": lambda f: f(X, W, padding=0.5),
    "padding is None": lambda f: f(X, W, padding=None),
    "padding is an unknown word": lambda f: f(X, W, padding="full"),
    "padding does not fit 64 bits": lambda f: f(X, W, padding=2**65),
    "dilation 0": lambda f: f(X, W, dilation=0),
    "dilation (0, 1)": lambda f: f(X, W, dilation=(0, 1)),
    "dilation -1": lambda f: f(X, W, dilation=-1),
    "dilation of three": lambda f: f(X, W, dilation=(1, 2, 3)),
    "dilation is a float": lambda f: f(X, W, dilation=2.0),
    "dilation that pushes the kernel out": lambda f: f(X, W, dilation=4),
    "dilation 2**62": lambda f: f(X, W, dilation=HUGE),
    "groups 0": lambda f: f(X, W, groups=0),
    "groups -1": lambda f: f(X, W, groups=-1),
    "groups 3 of 4 channels": lambda f: f(X, W[:, :1], groups=3),
    "groups 4 of 6 outputs": lambda f: f(X, W[:, :1], groups=4),
    "groups 2 with the weight of 1": lambda f: f(X, W, groups=2),
    "groups 2**62": lambda f: f(X, W, groups=HUGE),
    "groups is a float": lambda f: f(X, W, groups=2.0),
    "groups is a pair": lambda f: f(X, W, groups=(2, 2)),
    "groups is None": lambda f: f(X, W, groups=None),
    "kernel larger than the input": lambda f: f(X, torch.ones(6, 4, 7, 3)),
    "kernel wider than the padded input": lambda f: f(X, torch.ones(6, 4, 3, 12), padding=2),
    "kernel of height 0": lambda f: f(X, torch.ones(6, 4, 0, 3)),
    "kernel of width 0": lambda f: f(X, torch.ones(6, 4, 3, 0)),
    "too few channels": lambda f: f(X[:, :3], W),
    "too many channels": lambda f: f(torch.cat([X, X], 1), W),
    "no channels in the input": lambda f: f(X[:, :0], W),
    "empty rows": lambda f: f(X[:, :, :0], W),
    "empty columns": lambda f: f(X[..., :0], W),
    "input 0-D": lambda f: f(torch.ones(()), W),
    "input 1-D": lambda f: f(torch.ones(4), W),
    "input 2-D": lambda f: f(torch.ones(6, 7), W),
    "input 5-D": lambda f: f(X[None], W),
    "weight 2-D": lambda f: f(X, torch.ones(3, 3)),
    "weight 3-D": lambda f: f(X, torch.ones(4, 3, 3)),
    "weight 5-D": lambda f: f(X, W[None]),
    "weight 0-D": lambda f: f(X, torch.ones(())),
    "bias too short": lambda f: f(X, W, B[:5]),
    "bias too long": lambda f: f(X, W, torch.ones(7)),
    "bias of one": lambda f: f(X, W, torch.ones(1)),
    "bias empty": lambda f: f(X, W, torch.ones(0)),
    "bias 2-D": lambda f: f(X, W, torch.ones(6, 1)),
    "bias 0-D": lambda f: f(X, W, torch.ones(())),
    "weight of another dtype": lambda f: f(X, W.double()),
    "bias of another dtype": lambda f: f(X, W, B.double()),
    "input float, weight integer": lambda f: f(X, W.long()),
    "input complex, weight real": lambda f: f(X.to(torch.complex64), W),
    "input bool": lambda f: f(X.bool(), W.bool()),
    "input float8": lambda f: f(X.to(torch.float8_e4m3fn), W.to(torch.float8_e4m3fn)),
    "input quantized": lambda f: f(torch.quantize_per_tensor(X, 0.1, 0, torch.quint8), W),
    "input sparse": lambda f: f(X.to_sparse(), W),
    "weight sparse": lambda f: f(X, W.to_sparse()),
    "input is a list": lambda f: f([[1.0]], W),
    "input is an array": lambda f: f(X.numpy(), W),
    "input is None": lambda f: f(None, W),
    "input is a number": lambda f: f(3.0, W),
    "weight is an array": lambda f: f(X, W.numpy()),
    "weight is None": lambda f: f(X, None),
    "bias is a number": lambda f: f(X, W, 1.0),
    "bias is a list": lambda f: f(X, W, [1.0] * 6),
    "bias is True": lambda f: f(X, W, True),
    "unknown keyword": lambda f: f(X, W, strides=2),
    "no weight": lambda f: f(X),
    "too many positional arguments": lambda f: f(X, W, None, 1, 0, 1, 1, "zeros", None, 5),
    "kernel of 2**31 rows by dilation": lambda f: f(tall(2**31), torch.ones(1, 1, 2, 1), dilation=(2**31, 1)),
    "output of 2**62 elements": lambda f: f(X, W, padding=2**30),
}

#: torch computes these; convext must give the same numbers, shapes and dtypes.
COMPUTED: dict[str, Call] = {
    "stride of one": lambda f: f(X, W, stride=(2,)),
    "stride is a list": lambda f: f(X, W, stride=[2, 1]),
    "stride is a torch.Size": lambda f: f(X, W, stride=torch.Size([2, 1])),
    "stride is a NumPy integer": lambda f: f(X, W, stride=np.int64(2)),
    "stride is a tensor": lambda f: f(X, W, stride=(torch.tensor(2), 1)),
    "stride 2**60": lambda f: f(X, W, stride=2**60),
    "stride larger than the input": lambda f: f(X, W, stride=100),
    "padding larger than the input": lambda f: f(X, W, padding=20),
    "padding of one": lambda f: f(X, W, padding=(2,)),
    "padding is a list": lambda f: f(X, W, padding=[2, 0]),
    "dilation is a list": lambda f: f(X, W, dilation=[1, 2]),
    "dilation 2**40 of a kernel of one": lambda f: f(X, W[:, :, :1, :1], dilation=2**40),
    "groups is a NumPy integer": lambda f: f(X, W[:, :2], groups=np.int32(2)),
    "kernel exactly as large as the input": lambda f: f(X, torch.ones(6, 4, 6, 7)),
    "empty batch": lambda f: f(X[:0], W, B),
    "empty batch without a bias": lambda f: f(X[:0], W, padding=1),
    "one pixel": lambda f: f(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)),
    "expanded input": lambda f: f(torch.ones(1).expand(2, 4, 6, 7), W),
    "expanded weight": lambda f: f(X, torch.ones(1).expand(6, 4, 3, 3)),
    "overlapping input": lambda f: f(torch.arange(50.0).as_strided((2, 4, 6, 7), (3, 2, 2, 1)), W),
    "input and weight share memory": lambda f: f(W, W),
    "transposed input": lambda f: f(X.transpose(2, 3), W),
    "requires_grad": lambda f: f(X.clone().requires_grad_(), W).detach(),
    "inference tensors": lambda f: inference(f),
    "a parameter": lambda f: f(X, torch.nn.Parameter(W)).detach(),
    "both on the meta device": lambda f: f(X.to("meta"), W.to("meta"), B.to("meta"), stride=2),
    "unbatched": lambda f: f(X[0], W, B),
    "unbatched channels of one": lambda f: f(X[0, :1], W[:, :1]),
    "padding is the word same": lambda f: f(X, W, padding="same"),
    "padding is the word valid": lambda f: f(X, W, padding="valid"),
    "same with an even kernel": lambda f: f(X, W[:, :, :2, :2], padding="same"),
    "a very tall image, one pixel of it read": lambda f: f(tall(2**20), torch.ones(1, 1, 1, 1), stride=2**20),
    "NaN": lambda f: f(torch.full_like(X, float("nan")), W).isnan(),
    "infinity": lambda f: f(torch.full_like(X, float("inf")), torch.ones_like(W)),
}


#: Here torch reads memory that nobody has written, or pretends that all is well; convext refuses.
REFUSED_THOUGH_TORCH_DOES_NOT: dict[str, Call] = {
    "dilation 2**63 - 1": lambda f: f(X, W, dilation=2**63 - 1),
    "input on the meta device only": lambda f: f(X.to("meta"), W),
    "weight on the meta device only": lambda f: f(X, W.to("meta")),
    "stride 2**62": lambda f: f(X, W, stride=HUGE),
}


def inference(function: Callable[..., Tensor]) -> Tensor:
    with torch.inference_mode():
        return function(X.clone(), W.clone()).clone()


def outcome(function: Callable[..., Tensor], call: Call) -> Tensor | Exception:
    try:
        return call(function)
    except Exception as error:
        return error


@pytest.mark.parametrize("name", REFUSED)
def test_refused_as_torch_refuses(name: str) -> None:
    theirs, ours = outcome(F.conv2d, REFUSED[name]), outcome(convext.conv2d, REFUSED[name])
    assert isinstance(theirs, Exception), "torch computes this now; it belongs to COMPUTED"
    assert isinstance(ours, Exception), f"torch raises {type(theirs).__name__}: {theirs}"
    assert type(ours) is type(theirs), f"{ours!r}, but torch raises {theirs!r}"
    message = str(ours)
    assert 10 < len(message) < 400 and "\n" not in message, message
    assert "INTERNAL ASSERT" not in message


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_as_torch_computes(name: str) -> None:
    theirs, ours = outcome(F.conv2d, COMPUTED[name]), outcome(convext.conv2d, COMPUTED[name])
    assert isinstance(theirs, Tensor), f"torch raises {theirs!r}; this belongs to REFUSED"
    assert isinstance(ours, Tensor), repr(ours)
    assert (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device)
    if theirs.device.type != "meta":
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", REFUSED_THOUGH_TORCH_DOES_NOT)
def test_refused_though_torch_does_not(name: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        REFUSED_THOUGH_TORCH_DOES_NOT[name](convext.conv2d)
    assert "\n" not in str(caught.value)


def test_there_are_many_cases() -> None:
    assert len(REFUSED) + len(COMPUTED) >= 100


MESSAGES: dict[str, tuple[Call, tuple[str, ...]]] = {
    "stride": (lambda f: f(X, W, stride=(0, 2)), ("stride", "(0, 2)", "positive")),
    "padding": (lambda f: f(X, W, padding=(-3, 0)), ("padding", "-3")),
    "dilation": (lambda f: f(X, W, dilation=(1, -2)), ("dilation", "-2", "positive")),
    "groups": (lambda f: f(X, W, groups=-5), ("groups", "-5", "positive")),
    "channels": (lambda f: f(X[:, :3], W), ("input", "weight", "[2, 3, 6, 7]", "[6, 4, 3, 3]", "groups")),
    "kernel": (lambda f: f(X, torch.ones(6, 4, 9, 3)), ("kernel", "9", "6")),
    "ranks": (lambda f: f(X, torch.ones(4, 3, 3)), ("weight", "4-D", "[4, 3, 3]")),
    "dtypes": (lambda f: f(X, W.double()), ("input", "weight", "float32", "float64")),
    "bias": (lambda f: f(X, W, B[:5]), ("bias", "6", "5")),
    "mode": (lambda f: convext.conv2d(X, W, padding=1, padding_mode="mirror"), ("padding_mode", "mirror", "reflect")),
    "array": (lambda f: f(X.numpy(), W), ("input", "Tensor", "ndarray")),
    "device": (lambda f: f(X, W.to("meta")), ("input", "weight", "cpu", "meta")),
    "sparse": (lambda f: f(X.to_sparse(), W), ("input", "sparse")),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_name_the_argument_and_what_it_was(name: str) -> None:
    call, words = MESSAGES[name]
    with pytest.raises((RuntimeError, TypeError, ValueError, NotImplementedError)) as caught:
        call(convext.conv2d)
    assert all(word in str(caught.value) for word in words), str(caught.value)


#: Arguments that F.conv2d does not have.
OWN: dict[str, tuple[Call, type[Exception]]] = {
    "padding of three sides": (lambda f: f(X, W, padding=((1, 1), (1,))), RuntimeError),
    "padding of a pair and a number": (lambda f: f(X, W, padding=((1, 1), 1)), RuntimeError),
    "padding negative on one side": (lambda f: f(X, W, padding=((0, 0), (0, -1))), RuntimeError),
    "padding has a float": (lambda f: f(X, W, padding=((0, 0), (0, 1.5))), TypeError),
    "padding overflows in sum": (lambda f: f(X, W, padding=((2**62, 2**62), (0, 0))), RuntimeError),
    "same with stride 0": (lambda f: f(X, W, padding="same", stride=0), RuntimeError),
    "same with dilation 0": (lambda f: f(X, W, padding="same", dilation=0), RuntimeError),
    "same with a 2-D weight": (lambda f: f(X, torch.ones(3, 3), padding="same"), RuntimeError),
    "same with a 1-D input": (lambda f: f(torch.ones(3), W, padding="same"), RuntimeError),
    "reflect beyond the image": (lambda f: f(X, W, padding=6, padding_mode="reflect"), RuntimeError),
    "circular beyond the image": (lambda f: f(X, W, padding=7, padding_mode="circular"), RuntimeError),
    "replicate of nothing": (lambda f: f(X[:, :, :0], W, padding=2, padding_mode="replicate"), RuntimeError),
    "unknown padding_mode": (lambda f: f(X, W, padding_mode="constant"), ValueError),
    "padding_mode is None": (lambda f: f(X, W, padding_mode=None), ValueError),
    "out_dtype of floats": (lambda f: f(X, W, out_dtype=torch.float64), RuntimeError),
    "out_dtype int64 of int8": (lambda f: f(X.to(torch.int8), W.to(torch.int8), out_dtype=torch.int64), RuntimeError),
    "out_dtype int32 of int16": (
        lambda f: f(X.to(torch.int16), W.to(torch.int16), out_dtype=torch.int32),
        RuntimeError,
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_arguments_beyond_torchs(name: str) -> None:
    call, error = OWN[name]
    with pytest.raises(error) as caught:
        call(convext.conv2d)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_integers_that_require_grad_cannot_exist() -> None:
    with pytest.raises(RuntimeError):
        X.long().requires_grad_()
    output = convext.conv2d(X.long(), W.long())
    assert not output.requires_grad


def test_tensor_subclass() -> None:
    class Marked(torch.Tensor):
        pass

    ours, theirs = convext.conv2d(X.as_subclass(Marked), W), F.conv2d(X.as_subclass(Marked), W)
    assert type(ours) is type(theirs) is Marked
    torch.testing.assert_close(ours.as_subclass(torch.Tensor), theirs.as_subclass(torch.Tensor))


def test_objects_with_torch_function() -> None:
    calls = []

    class Recorder:
        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(function)
            return "handled"

    assert convext.conv2d(Recorder(), W) == "handled"
    assert convext.conv2d(X, Recorder()) == "handled"
    assert calls == [convext.conv2d, convext.conv2d]


def test_operators_check_their_arguments_too() -> None:
    """torch.ops.convext.* can be called by anyone."""
    ops = torch.ops.convext
    g = torch.ones(2, 6, 4, 5)
    bad: list[Callable[[], Tensor]] = [
        lambda: ops.corr2d(X, W, None, [0, 1]),
        lambda: ops.corr2d(X, W, None, [1, 1], [1, 1, 1]),
        lambda: ops.corr2d(X, W, None, [1, 1], []),
        lambda: ops.corr2d(X, W, None, [1, 1], [0, 0, 0, -1]),
        lambda: ops.corr2d(X, W, None, [1, 1], [0], [1, 1], 0),
        lambda: ops.corr2d(X, W, None, [1, 1], [0], [1, 1], 1, "mirror"),
        lambda: ops.corr2d(X, W, B[:3]),
        lambda: ops.corr2d(X.to(torch.complex64), W.to(torch.complex64)),
        lambda: ops.corr2d_grad_input(g, W, [6, 8]),
        lambda: ops.corr2d_grad_input(g, W, [5, 7]),
        lambda: ops.corr2d_grad_input(g, W, [-6, 7]),
        lambda: ops.corr2d_grad_input(g[:, :5], W, [6, 7]),
        lambda: ops.corr2d_grad_input(g.double(), W, [6, 7]),
        lambda: ops.corr2d_grad_input(g, W, [2**62, 2**62]),
        lambda: ops.corr2d_grad_weight(g, X, [3, 2]),
        lambda: ops.corr2d_grad_weight(g, X, [0, 3]),
        lambda: ops.corr2d_grad_weight(g, X, [-3, 3]),
        lambda: ops.corr2d_grad_weight(g[:1], X, [3, 3]),
        lambda: ops.corr2d_grad_weight(g[0], X, [3, 3]),
        lambda: ops.corr2d_grad_weight(g, X, [3, 3], [1, 1], [0], [1, 1], 4),
        lambda: ops.corr2d_grad_bias(torch.ones(3)),
        lambda: ops.corr2d_grad_bias(torch.ones(1, 2, 3, 4, 5)),
    ]
    for call in bad:
        with pytest.raises(RuntimeError):
            call()
    for good in (ops.corr2d(X, W), ops.corr2d_grad_input(g, W, [6, 7]), ops.corr2d_grad_weight(g, X, [3, 3])):
        assert good.isfinite().all()


@pytest.mark.parametrize(
    "shape, arguments",
    [
        ((1, 1, 2**31 + 8, 1), {"stride": (2**30, 1)}),
        ((1, 1, 1, 2**33), {"stride": (1, 2**31)}),
        ((2**32, 1, 1, 1), None),
        ((1, 1, 2**40, 2**20), {"stride": (2**39, 2**19)}),
    ],
    ids=str,
)
def test_index_arithmetic_beyond_32_bits(shape: tuple[int, ...], arguments: dict[str, Any] | None) -> None:
    """Images that take one element of memory but whose positions do not fit 32 bits."""
    if arguments is None:
        # Such a batch has as many outputs; a few of them, far apart, stand for the rest.
        image = torch.arange(5.0).reshape(5, 1, 1, 1)
        far = torch.zeros(2**26 + 3)[:: 2**25].reshape(-1, 1, 1, 1)
        assert convext.conv2d(far, torch.ones(1, 1, 1, 1)).shape == far.shape
        assert torch.equal(convext.conv2d(image, torch.full((1, 1, 1, 1), 2.0)), 2 * image)
        return
    image = torch.full((1,), 3.0).expand(shape)
    output = convext.conv2d(image, torch.full((1, 1, 1, 1), 2.0), **arguments)
    assert output.unique().tolist() == [6.0]
    wanted = [(size - 1) // step + 1 for size, step in zip(shape[2:], arguments["stride"], strict=True)]
    assert list(output.shape[2:]) == wanted


def test_memory_that_cannot_be_had_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        convext.conv2d(torch.ones(1).expand(2**20, 1, 2**20, 2**10), torch.ones(1, 1, 1, 1))
    assert torch.equal(convext.conv2d(X, W), convext.conv2d(X, W))
