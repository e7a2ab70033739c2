"""How accurate float32 results must be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from convext import _C, _cuda_part

Precision = Literal["highest", "high"]
_current: Precision = "highest"


def set_float32_precision(precision: Precision) -> None:
    """Sets, for the whole process, how accurate float32 results must be.

    Args:
        precision: ``"highest"``, the default: an error no worse than that of direct summation; or ``"high"``:
            faster algorithms with a bounded, documented error may be used.

    Raises:
        ValueError: for anything else.

    Example:
        >>> import convext
        >>> convext.set_float32_precision("highest")
    """
    global _current
    if precision not in ("highest", "high"):
        raise ValueError(f"precision must be 'highest' or 'high', but it is {precision!r}")
    _C.set_high_float32_precision(precision == "high")
    if _cuda_part.module is not None:
        _cuda_part.module.set_high_float32_precision(precision == "high")
    _current = precision


def get_float32_precision() -> Precision:
    """What `set_float32_precision` was last told."""
    return _current


@contextlib.contextmanager
def float32_precision(precision: Precision) -> Iterator[None]:
    """Within the ``with`` block, `set_float32_precision` to ``precision``, for the whole process.

    Example:
        >>> import convext
        >>> with convext.float32_precision("high"):
        ...     convext.get_float32_precision()
        'high'
    """
    previous = _current
    set_float32_precision(precision)
    try:
        yield
    finally:
        set_float32_precision(previous)
