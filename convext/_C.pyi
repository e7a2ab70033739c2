# What csrc/torch/module.cpp offers to Python.
from collections.abc import Sequence
from typing import Any

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
