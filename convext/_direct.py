"""The way to the kernels past torch's dispatcher, which on a small image takes longer than the correlation.

It is taken by plain tensors in eager code, when nothing listens to the dispatcher: no mode, no profiler. All other
calls go by the operators (`convext.ops`), and the result is the same.
"""

from __future__ import annotations

import sys

import torch

from convext import _C

corr2d = _C.direct_corr2d
gradients = _C.direct_gradients

_modes = torch._C._len_torch_dispatch_stack
_profiler_is_enabled = torch.autograd._profiler_enabled


def is_possible() -> bool:
    """Whether nobody would miss a call that the dispatcher does not see."""
    return _modes() == 0 and not _profiler_is_enabled()


def _enable() -> None:
    """Tries the two conversions that the calls are made of, and switches the calls on if this torch has them."""
    conversions = getattr(torch._C, "_aoti", None)
    try:
        to_handle = conversions.unsafe_alloc_void_ptr_from_tensor  # type: ignore[union-attr]
        # (The function for a single tensor returns it with a reference too many in torch 2.13.)
        from_handles = conversions.alloc_tensors_by_stealing_from_void_ptrs  # type: ignore[union-attr]
        tensor = torch.zeros(1)
        references = sys.getrefcount(tensor)
        works = from_handles([to_handle(tensor)])[0] is tensor and sys.getrefcount(tensor) == references
    except (AttributeError, TypeError):
        return
    if works:
        _C.enable_direct_calls(to_handle, from_handles, torch.Tensor, torch.nn.Parameter)


_enable()
