# What csrc/torch/module.cpp offers to Python.
from collections.abc import Sequence
from typing import Any

import torch

def kernels() -> list[tuple[str, str, str, bool]]: ...
def plan(
    pass_name: str,
    input_sizes: Sequence[int],
    input_strides: Sequence[int],
    weight_sizes: Sequence[int],
    weight_strides: Sequence[int],
    has_bias: bool,
    dtype: str,
    out_dtype: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    padding_mode: str,
) -> dict[str, Any]: ...
def set_forced_kernel(name: str) -> None: ...
def forced_kernel() -> str: ...
def set_high_float32_precision(high: bool) -> None: ...
def build_info() -> dict[str, str]: ...
def enable_direct_calls(
    handle_from_tensor: Any, tensors_from_handles: Any, tensor_type: type, parameter_type: type
) -> None: ...
def direct_corr2d(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, settings: tuple[Any, ...], /
) -> torch.Tensor | None: ...
def direct_gradients(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    settings: tuple[Any, ...],
    needs_input: bool,
    needs_weight: bool,
    needs_bias: bool,
    /,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None] | None: ...
def run_fma_probe(dtype: str, steps: int) -> float: ...
