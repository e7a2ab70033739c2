# What csrc/torch/module.cpp offers to Python.
from typing import Any

def kernels() -> list[tuple[str, str, str, bool]]: ...
def plan(
    pass_name: str,
    input_sizes: list[int],
    input_strides: list[int],
    weight_sizes: list[int],
    weight_strides: list[int],
    has_bias: bool,
    dtype: str,
    out_dtype: str,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    padding_mode: str,
) -> dict[str, Any]: ...
def set_forced_kernel(name: str) -> None: ...
def forced_kernel() -> str: ...
def set_high_float32_precision(high: bool) -> None: ...
def build_info() -> dict[str, str]: ...
