"""``python -m convext bench``: a short speed table against ``torch.nn.functional.conv2d``.

Both are timed in one process, in turns, and torch gets the better of its two memory layouts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer

import convext


@dataclass(frozen=True)
class Case:
    """A convolution to time; shapes are (N, C, H, W) and (O, C / groups, h, w)."""

    name: str
    input: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    arguments: dict[str, Any]
    dtype: torch.dtype = torch.float32


CASES = [
    Case("image 3x3", (1, 1, 1024, 1024), (1, 1, 3, 3), {"padding": 1}),
    Case("image 7x7", (1, 1, 1024, 1024), (1, 1, 7, 7), {"padding": 3}),
    Case("image 31x31", (1, 1, 512, 512), (1, 1, 31, 31), {"padding": 15}),
    Case("image 3x3 float64", (1, 1, 1024, 1024), (1, 1, 3, 3), {"padding": 1}, torch.float64),
    Case("stem 7x7 stride 2", (1, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    Case("dense 3x3, 64 channels", (1, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    Case("dense 3x3, 512 channels", (1, 512, 7, 7), (512, 512, 3, 3), {"padding": 1}),
    Case("dense 1x1, 256 to 64", (1, 256, 56, 56), (64, 256, 1, 1), {}),
    Case("dense 3x3 float64", (1, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}, torch.float64),
    Case("dense 3x3 bfloat16", (1, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}, torch.bfloat16),
    Case("depthwise 3x3", (1, 96, 56, 56), (96, 1, 3, 3), {"padding": 1, "groups": 96}),
    Case("depthwise 7x7", (1, 96, 56, 56), (96, 1, 7, 7), {"padding": 3, "groups": 96}),
    Case("grouped 32 x (8 to 8)", (1, 256, 28, 28), (256, 8, 3, 3), {"padding": 1, "groups": 32}),
]


@dataclass(frozen=True)
class Result:
    """Median times in seconds, and torch's divided by convext's."""

    case: str
    pass_name: str
    convext: float
    torch: float
    torch_layout: str
    ratio: float
    kernel: str
    gflops: float


def _median(function: Callable[[], object], seconds: float) -> float:
    timer = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=seconds).median


def _torch_backward(case: Case, grad: torch.Tensor, x: torch.Tensor, w: torch.Tensor, mask: list[bool]) -> Any:
    geometry = convext._geometry.normalize(
        case.arguments.get("stride", 1), case.arguments.get("padding", 0), 1, 1, "zeros", x.shape[-2:], w.shape[-2:]
    )
    padding = [geometry.padding[0], geometry.padding[2]]
    groups = case.arguments.get("groups", 1)
    return torch.ops.aten.convolution_backward(
        grad, x, w, None, list(geometry.stride), padding, [1, 1], False, [0, 0], groups, mask
    )


def _in_layout(tensor: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """A copy in the layout, also where there is one channel: ``contiguous(memory_format=torch.channels_last)`` would
    return such a tensor as it is, and torch would then take its slow kernels for contiguous images."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(tensor.shape, dtype=tensor.dtype, memory_format=layout).copy_(tensor)


def _functions(case: Case, pass_name: str, channels_last: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    """The pass as convext computes it and as torch does, on the same tensors."""
    x, w = (_in_layout(torch.randn(shape, dtype=case.dtype), channels_last) for shape in (case.input, case.weight))
    if pass_name == "forward":
        return lambda: convext.conv2d(x, w, **case.arguments), lambda: F.conv2d(x, w, **case.arguments)
    grad = _in_layout(torch.randn_like(F.conv2d(x, w, **case.arguments)), channels_last)
    geometry = convext._geometry.normalize(
        case.arguments.get("stride", 1),
        case.arguments.get("padding", 0),
        1,
        case.arguments.get("groups", 1),
        "zeros",
        x.shape[-2:],
        w.shape[-2:],
    )
    if pass_name == "grad_input":
        return (
            lambda: convext.autograd.corr2d_grad_input(grad, w, x.shape[-2:], geometry, channels_last),
            lambda: _torch_backward(case, grad, x, w, [True, False, False]),
        )
    return (
        lambda: convext.autograd.corr2d_grad_weight(grad, x, w.shape[-2:], geometry, channels_last),
        lambda: _torch_backward(case, grad, x, w, [False, True, False]),
    )


def measure(case: Case, pass_name: str, seconds: float) -> Result:
    """Times one pass: three rounds of convext and torch in turn, the best median of each."""
    ours, theirs = math.inf, {False: math.inf, True: math.inf}
    functions = {channels_last: _functions(case, pass_name, channels_last) for channels_last in (False, True)}
    for _ in range(3):
        ours = min(ours, _median(functions[False][0], seconds / 3))
        for channels_last, (_, torch_function) in functions.items():
            theirs[channels_last] = min(theirs[channels_last], _median(torch_function, seconds / 3))
    best = min(theirs, key=theirs.__getitem__)
    plan = convext.explain(
        torch.empty(case.input, dtype=case.dtype), torch.empty(case.weight, dtype=case.dtype), **case.arguments
    )[pass_name]
    return Result(
        case.name,
        pass_name,
        ours,
        theirs[best],
        "channels_last" if best else "contiguous",
        theirs[best] / ours,
        plan.kernel,
        plan.flops / ours / 1e9,
    )


def print_table(cases: list[Case], passes: tuple[str, ...], seconds: float) -> list[Result]:
    """Measures and prints line by line."""
    print(f"{torch.get_num_threads()} thread(s), contiguous input for convext, torch's better layout beside it")
    print(f"{'case':<26} {'pass':<12} {'convext':>10} {'torch':>10} {'speed-up':>9}  {'GF/s':>6}  kernel")
    results = []
    for case in cases:
        for pass_name in passes:
            result = measure(case, pass_name, seconds)
            results.append(result)
            print(
                f"{result.case:<26} {result.pass_name:<12} {result.convext * 1e3:>7.3f} ms "
                f"{result.torch * 1e3:>7.3f} ms {result.ratio:>8.2f}x  {result.gflops:>6.1f}  {result.kernel}",
                flush=True,
            )
    ratios = [result.ratio for result in results]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"geometric mean {mean:.2f}x, worst {min(ratios):.2f}x")
    return results


def run_benchmark(name_filter: str, seconds: float, json_file: Path | None) -> int:
    """Runs every case whose name contains the filter, all three passes."""
    cases = [case for case in CASES if name_filter in case.name]
    if not cases:
        print(f"no case's name contains {name_filter!r}; there are: {', '.join(case.name for case in CASES)}")
        return 2
    results = print_table(cases, ("forward", "grad_input", "grad_weight"), seconds)
    if json_file is not None:
        document = {"build": convext.build_info(), "results": [asdict(result) for result in results]}
        json_file.write_text(json.dumps(document, indent=2) + "\n")
        print(f"written to {json_file}")
    return 0
