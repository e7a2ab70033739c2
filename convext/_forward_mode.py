"""Forward-mode derivatives under ``torch.func.jvp``, nested to any depth.

torch runs an autograd function's ``jvp`` with forward mode switched off, so a ``jvp`` of a ``jvp`` through a custom
function gives zeros. Here the innermost ``jvp`` is taken off by hand instead: its dual numbers are split into value
and tangent, the operation and its tangent are computed one transform further out, where the same happens again,
and the results are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch._C._functorch import TransformType, _unwrap_for_grad, _wrap_for_grad, peek_interpreter_stack
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
from torch.autograd import forward_ad

Tensors = tuple[torch.Tensor | None, ...]


def product_rule(call: Callable[..., torch.Tensor], tensors: Tensors, tangents: Tensors) -> torch.Tensor | None:
    """The tangent of a multilinear ``call``: one term for each tensor that has a tangent; None if none has."""
    result = None
    for index, tangent in enumerate(tangents):
        if tangent is not None:
            term = call(*tensors[:index], tangent, *tensors[index + 1 :])
            result = term if result is None else result + term
    return result


def is_innermost_transform() -> bool:
    """Whether the innermost active ``torch.func`` transform is ``jvp``."""
    interpreter = peek_interpreter_stack()
    return interpreter is not None and interpreter.key() == TransformType.Jvp


def split_and_call(
    call: Callable[..., torch.Tensor],
    tangent_of: Callable[[Callable[..., torch.Tensor], Tensors, Tensors], torch.Tensor | None],
    tensors: Sequence[torch.Tensor | None],
) -> torch.Tensor:
    """``call(*tensors)`` on dual numbers of the innermost ``jvp``.

    ``tangent_of(call, values, tangents)`` gives the tangent of the result, or None where it is zero.
    """
    interpreter = retrieve_current_functorch_interpreter()
    level = interpreter.level()

    def unwrap(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else _unwrap_for_grad(tensor, level)

    pairs = [(None, None) if tensor is None else tuple(forward_ad.unpack_dual(tensor, level=0)) for tensor in tensors]
    with interpreter.lower():
        values = tuple(unwrap(value) for value, _ in pairs)
        tangents = tuple(unwrap(tangent) for _, tangent in pairs)
        result = call(*values)
        tangent = tangent_of(call, values, tangents)
    wrapped = _wrap_for_grad(result, level)
    if tangent is None:
        return wrapped
    return forward_ad.make_dual(wrapped, _wrap_for_grad(tangent, level), level=0)
