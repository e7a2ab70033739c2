"""The way to the kernels past torch's dispatcher, which on a small image takes longer than the correlation.

It is taken by plain tensors in eager code, when nothing listens to the dispatcher: no mode, no profiler. All other
calls go by the operators (`convext.ops`), and the result is the same.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from convext import _C, _cuda_part

_cuda = _cuda_part.module
_modes = torch._C._len_torch_dispatch_stack
_profiler_is_enabled = torch.autograd._profiler_enabled


def module_for(tensor: Any) -> Any:
    """The native module whose ``direct_corr2d`` and ``direct_gradients`` to try for a call with this tensor, or None
    where somebody would miss a call that the dispatcher does not see.

    A module declines, by returning None, all tensors that are not on its own device.
    """
    if _modes() or _profiler_is_enabled():
        return None
    if _cuda is None or not getattr(tensor, "is_cuda", False):
        return _C
    return _cuda


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
        for native in (_C, _cuda):
            if native is not None:
                native.enable_direct_calls(to_handle, from_handles, torch.Tensor, torch.nn.Parameter)


_enable()
