"""The arguments of a cross-correlation that are no tensors: normalised once, passed on as one value."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

#: What the ``padding`` argument may be: an int, ``(height, width)``, ``((top, bottom), (left, right))``,
#: ``"valid"`` or ``"same"``.
Padding = int | Sequence[int] | Sequence[Sequence[int]] | str


class Geometry(NamedTuple):
    """How the kernel moves over the input, in the form and order that the operators take."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    padding_mode: str = "zeros"


DEFAULT_GEOMETRY = Geometry()


def operator_arguments(geometry: Geometry) -> tuple[Any, ...]:
    """The geometry as positional arguments, without trailing ones that equal the operator's defaults.

    An argument left out costs nothing; a list that is passed costs a microsecond.
    """
    if geometry.padding_mode != "zeros":
        return geometry
    if geometry.groups != 1:
        return geometry[:4]
    if geometry.dilation != (1, 1):
        return geometry[:3]
    if geometry.padding != (0, 0, 0, 0):
        return geometry[:2]
    if geometry.stride != (1, 1):
        return geometry[:1]
    return ()


def _integer(value: Any, name: str) -> int:
    if isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"conv2d(): {name} must fit into 64 bits, but it has {value}")
        return value
    if isinstance(value, (bool, float, str)) or value is None:
        raise TypeError(f"conv2d(): {name} must be made of integers, but it has {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"conv2d(): {name} must be made of integers, but it has a {type(value).__name__}") from None


def pair(value: Any, name: str) -> tuple[int, int]:
    """``value`` as ``(height, width)``; one number stands for both."""
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            value = (value[0], value[0])
        if len(value) != 2:
            raise RuntimeError(f"conv2d(): {name} must be one integer or two (height, width), but it is {value!r}")
        return (_integer(value[0], name), _integer(value[1], name))
    number = _integer(value, name)
    return (number, number)


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's rule, which for stride 1 is torch's: the odd row or column goes to the end."""
    if stride <= 0 or size <= 0:
        return (0, 0)  # the operator refuses both with a better message
    total = dilation * (kernel - 1) - (size - 1) % stride
    total = torch.sym_max(0, total)
    return (total // 2, total - total // 2)


def normalize_padding(
    padding: Padding,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int, int, int]:
    """``padding`` as ``(top, bottom, left, right)``; sizes are ``(height, width)``."""
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0, 0, 0)
        if padding == "same":
            top, bottom = _same_padding(input_size[0], kernel_size[0], stride[0], dilation[0])
            left, right = _same_padding(input_size[1], kernel_size[1], stride[1], dilation[1])
            return (top, bottom, left, right)
        raise RuntimeError(f"conv2d(): padding must be 'valid' or 'same' where it is a string, but it is {padding!r}")
    if isinstance(padding, (tuple, list)) and any(isinstance(side, (tuple, list)) for side in padding):
        if len(padding) != 2 or not all(isinstance(side, (tuple, list)) and len(side) == 2 for side in padding):
            raise RuntimeError(
                "conv2d(): padding must be an integer, (height, width), ((top, bottom), (left, right)), "
                f"'valid' or 'same', but it is {padding!r}"
            )
        (top, bottom), (left, right) = padding  # type: ignore[misc]
        return (
            _integer(top, "padding"),
            _integer(bottom, "padding"),
            _integer(left, "padding"),
            _integer(right, "padding"),
        )
    height, width = pair(padding, "padding")
    return (height, height, width, width)


def _is_plain(value: Any) -> bool:
    """Whether a value can neither change nor depend on anything: an integer, or a tuple of integers."""
    return type(value) is int or (type(value) is tuple and all(type(number) is int for number in value))


#: What calls with these very objects came to, which are kept so that no other can take their place. A module passes the
#: same tuples in every call, and to look at each of their numbers takes longer than a small correlation.
_known: dict[tuple[int, ...], tuple[Geometry, tuple[Any, ...]]] = {}
_MOST_KNOWN = 4096


def recall(stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: Any) -> Geometry | None:
    """What `normalize` made of these very objects, if it was asked before and sizes do not matter."""
    if torch.compiler.is_compiling():
        return None
    known = _known.get((id(stride), id(padding), id(dilation), id(groups), id(padding_mode)))
    return None if known is None else known[0]


def _remember(geometry: Geometry, arguments: tuple[Any, ...]) -> None:
    if torch.compiler.is_compiling() or not all(map(_is_plain, arguments[:4])):
        return
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    if geometry == DEFAULT_GEOMETRY:
        geometry = DEFAULT_GEOMETRY  # which is recognised by identity
    _known[tuple(map(id, arguments))] = (geometry, arguments)


def normalize(
    stride: Any,
    padding: Padding,
    dilation: Any,
    groups: Any,
    padding_mode: str,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
) -> Geometry:
    """All geometry arguments of a call as a `Geometry`; sizes are ``(height, width)``."""
    arguments = (stride, padding, dilation, groups, padding_mode)
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"conv2d(): padding_mode must be one of {PADDING_MODES}, but it is {padding_mode!r}")
    stride = pair(stride, "stride")
    dilation = pair(dilation, "dilation")
    geometry = Geometry(
        stride,
        normalize_padding(padding, input_size, kernel_size, stride, dilation),
        dilation,
        _integer(groups, "groups"),
        padding_mode,
    )
    _remember(geometry, arguments)
    return geometry
