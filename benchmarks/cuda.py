"""The CUDA kernels beside `F.conv2d` on one GPU: are they right, and how fast? Ten minutes, all in one run.

    python benchmarks/cuda.py                            # checks, then times the layers of convext/benchmark/shapes
    python benchmarks/cuda.py --network replknet31b      # only this one
    python benchmarks/cuda.py --dtype bf16 --pass forward --kernel tensor_cores   # only what this kernel would run
    python benchmarks/cuda.py --minutes 2 --output out   # whatever is done by then, written elsewhere
    compute-sanitizer --tool memcheck python benchmarks/cuda.py --sanitize        # or racecheck, synccheck, initcheck

Kernel times come from CUDA graphs that are replayed, all contenders in turns, so they hold no time of the host. Both of
convext's layouts are compared with torch's better one; torch runs with cudnn.benchmark on. Rows of dtype f32 compare
with TF32 off, rows of dtype tf32 compare convext under ``float32_precision("high")`` with TF32 on. Integers run alone:
torch has no convolution of them on CUDA. What a call costs the host is timed apart. Without a GPU, the script checks
only that it would run.
"""

from __future__ import annotations

import sys

if __name__ == "cuda":  # torch, imported by a script of this folder, looks for NVIDIA's package of that name
    raise ImportError("this is a benchmark, not NVIDIA's package `cuda`")
if sys.path[0].endswith("benchmarks"):
    sys.path.pop(0)  # this one may want that package itself

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import convext
from convext import _cuda_part, autograd
from convext._geometry import normalize
from convext.benchmark import pictures, report, shapes
from convext.benchmark.peers.torch_peer import TorchPeer
from convext.benchmark.report import Result
from convext.benchmark.shapes import DTYPES, Layer
from convext.benchmark.suite import LAYOUTS, PASSES, Job
from convext.benchmark.workload import Workload

RESULTS = Path(__file__).parent / "results"
#: Every layer. Rows of "tf32" are float32 tensors whose products may be rounded to 10 bits.
MAIN_DTYPES = ("f32", "tf32", "bf16")
#: Every fourth layer; integers forward only.
OTHER_DTYPES = ("f16", "f64", "i32", "u8")
#: The batch size is the largest up to this with which a pass takes no more than so many operations.
LARGEST_BATCH, MOST_FLOPS = 32, {"f64": 2e10, "i32": 5e9, "u8": 5e9}
USUAL_FLOPS = 1e11
#: Bound by memory: tensors far larger than any cache, a gigabyte and more for input and output together.
LARGE_IMAGES = """
layer                     ,  in, out, size, kernel, stride, padding, dilation, groups, batch, dtype, threads
depthwise 3x3 at 2048     ,  32,  32, 2048,      3,      1,       1,        1,     32, 1    , f32  ,     all
depthwise 5x5 at 2048     ,  32,  32, 2048,      5,      1,       2,        1,     32, 1    , f32  ,     all
depthwise 7x7 at 2048     ,  32,  32, 2048,      7,      1,       3,        1,     32, 1    , f32  ,     all
depthwise 3x3 /2 at 2048  ,  64,  64, 2048,      3,      2,       1,        1,     64, 1    , f32  ,     all
1x1 16 at 2048            ,  16,  16, 2048,      1,      1,       0,        1,      1, 2    , f32  ,     all
"""
#: What the plans are made for where there is no GPU: capability, multiprocessors, shared bytes of a block.
H100 = (90, 132, 232_448)

#: What conv2d takes besides the tensors, with its defaults.
GEOMETRY: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros"}

Function = Callable[[], object]


def networks() -> dict[str, list[Layer]]:
    """Those of ``convext/benchmark/shapes``, and the large images, first."""
    return {"large_images": shapes.parse("large_images", LARGE_IMAGES.splitlines()), **shapes.networks()}


def batch_of(layer: Layer, dtype: str) -> int:
    """How many images, so that no pass takes long."""
    if layer.network == "large_images":
        return layer.batches[0]
    return max(1, min(LARGEST_BATCH, int(MOST_FLOPS.get(dtype, USUAL_FLOPS) / layer.flops)))


def tensor_dtype(dtype: str) -> str:
    """Of the tensors of a row's dtype."""
    return "f32" if dtype == "tf32" else dtype


def precision(dtype: str) -> Any:
    """The setting that goes with a row's dtype."""
    return convext.float32_precision("high" if dtype == "tf32" else "highest")


# --- are they right? ----------------------------------------------------------------------------------------

#: (input, out channels, kernel, arguments of conv2d)
CHECKED: list[tuple[tuple[int, int, int, int], int, tuple[int, int], dict[str, Any]]] = [
    ((2, 3, 19, 23), 5, (3, 3), {"padding": 1}),
    ((1, 1, 130, 131), 1, (7, 7), {"padding": 3}),
    ((2, 33, 17, 18), 34, (3, 3), {"padding": 1, "stride": 2}),
    ((2, 64, 14, 14), 65, (1, 1), {}),
    ((2, 24, 20, 21), 24, (5, 5), {"padding": 2, "groups": 24}),
    ((1, 16, 40, 41), 16, (31, 31), {"padding": 15, "groups": 16}),
    ((2, 24, 13, 14), 36, (3, 3), {"padding": 1, "groups": 4}),
    ((2, 6, 21, 22), 12, (3, 3), {"padding": 4, "dilation": 4}),
    ((2, 5, 9, 10), 6, (4, 3), {"padding": ((3, 1), (2, 0)), "padding_mode": "reflect"}),
    ((2, 5, 9, 10), 6, (3, 3), {"padding": 2, "padding_mode": "circular", "stride": (1, 2)}),
]
CHECKED_DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.uint8]


def results_of(
    x: torch.Tensor, w: torch.Tensor, arguments: dict[str, Any], grad: torch.Tensor | None
) -> list[torch.Tensor]:
    """The output and, with a gradient for it, those of input, weight and bias."""
    if grad is None:
        return [convext.conv2d(x, w, **arguments)]
    bias = torch.arange(w.shape[0], device=x.device).remainder(5).to(x.dtype)
    leaves = [t.detach().requires_grad_() for t in (x, w, bias)]
    output = convext.conv2d(*leaves, **arguments)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad)]


def check(device: str, few: bool = False) -> list[str]:
    """Small integers, whose sums are exact: equal to the CPU's reference kernel, for every kernel. What is wrong."""
    wrong = []
    for (input_size, out_channels, kernel_size, arguments), dtype, layout in itertools.product(
        CHECKED[:2] if few else CHECKED, CHECKED_DTYPES[:2] if few else CHECKED_DTYPES, LAYOUTS
    ):
        generator = torch.Generator().manual_seed(1)
        memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        weight_size = (out_channels, input_size[1] // arguments.get("groups", 1), *kernel_size)
        x, w = (
            torch.randint(0, 3, size, generator=generator).to(dtype).contiguous(memory_format=memory_format)
            for size in (input_size, weight_size)
        )
        with convext.force_kernel("reference"):
            shape = convext.conv2d(x, w, **arguments).shape
            grad = torch.randint(0, 3, shape, generator=generator).to(dtype) if dtype.is_floating_point else None
            wanted = results_of(x, w, arguments, grad)
        there = [None if t is None else t.to(device) for t in (x, w, grad)]
        for kernel in convext.available_kernels(device):
            with convext.force_kernel(kernel.qualified_name):
                try:
                    actual = results_of(there[0], there[1], arguments, there[2])
                except RuntimeError as error:
                    if "was forced, but it cannot run" not in str(error):
                        raise
                    continue  # one of its passes
            for name, mine, exact in zip(("forward", "input", "weight", "bias"), actual, wanted, strict=False):
                if not torch.equal(mine.cpu(), exact):
                    wrong.append(f"{kernel.qualified_name} {name} {input_size} {arguments} {dtype} {layout}")
    return wrong


# --- for compute-sanitizer -------------------------------------------------------------------------------------

#: Vectors and what is left of them, in groups of one channel, of few and of many; strides; a frame that is not zeros.
SANITIZED: list[tuple[tuple[int, int, int, int], int, tuple[int, int], dict[str, Any]]] = [
    ((2, 32, 9, 10), 40, (3, 3), {"padding": 1}),
    ((2, 16, 12, 13), 16, (3, 3), {"padding": 1, "groups": 16}),
    ((2, 33, 9, 10), 34, (3, 3), {"padding": 1, "stride": 2}),
    ((2, 16, 9, 10), 24, (1, 1), {}),
    ((1, 8, 12, 13), 8, (7, 7), {"padding": 3, "groups": 8}),
    ((2, 9, 12, 13), 9, (5, 5), {"padding": 2, "groups": 9, "stride": 2}),
    ((1, 4, 20, 21), 4, (13, 13), {"padding": 6, "groups": 4}),
    ((2, 24, 13, 14), 36, (3, 3), {"padding": 1, "groups": 4}),
    ((2, 3, 19, 23), 32, (7, 7), {"padding": 3, "stride": 2}),
    ((1, 16, 9, 10), 16, (3, 3), {"padding": 2, "dilation": 2}),
    ((2, 5, 9, 10), 6, (4, 3), {"padding": ((3, 1), (2, 0)), "padding_mode": "reflect"}),
]
SANITIZED_DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32]


def sanitize(device: str, every_case: bool) -> dict[str, set[str]]:
    """For every kernel, forced, the passes, layouts and dtypes that it has run: each with the first case that it takes,
    or with all. Nothing is compared or timed: a tool looks on."""
    ran: dict[str, set[str]] = {kernel.qualified_name: set() for kernel in convext.available_kernels(device)}
    for dtype, layout in itertools.product(SANITIZED_DTYPES, LAYOUTS):
        memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        for input_size, out_channels, kernel_size, arguments in SANITIZED:
            weight_size = (out_channels, input_size[1] // arguments.get("groups", 1), *kernel_size)
            x, w = (
                torch.randint(0, 3, size).to(dtype).contiguous(memory_format=memory_format)
                for size in (input_size, weight_size)
            )
            # Its shape alone, from the fake kernel.
            grad = torch.ones_like(convext.conv2d(x.to("meta"), w.to("meta"), **arguments), device="cpu")
            x, w, grad, bias = (t.to(device) for t in (x, w, grad, torch.ones(out_channels, dtype=dtype)))
            geometry = normalize(
                *(arguments.get(name, default) for name, default in GEOMETRY.items()), input_size[2:], kernel_size
            )
            last = layout == "channels_last"
            passes: dict[str, Function] = {
                "forward": partial(convext.conv2d, x, w, bias, **arguments),
                "grad_input": partial(autograd.corr2d_grad_input, grad, w, input_size[2:], geometry, last),
                "grad_weight": partial(autograd.corr2d_grad_weight, grad, x, kernel_size, geometry, last),
            }
            for kernel, (pass_name, call) in itertools.product(ran, passes.items()):
                what = f"{pass_name}/{layout}/{str(dtype).removeprefix('torch.')}"
                if what in ran[kernel] and not every_case:
                    continue
                with convext.force_kernel(kernel):
                    try:
                        call()
                    except RuntimeError as error:
                        if "was forced, but it cannot run" not in str(error):
                            raise
                        continue
                ran[kernel].add(what)
            autograd.corr2d_grad_bias(grad)
    return ran


# --- timing -------------------------------------------------------------------------------------------------


class OnGpu:
    """Times functions by graphs that are replayed."""

    device = "cuda"
    calls_in_a_row = 100

    def prepare(self, function: Function) -> Repeated:
        """The function as a graph, whose time is the device's alone."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # cudnn.benchmark tries its algorithms here
                function()
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            function()
            end.record()
        torch.cuda.synchronize()
        calls = max(1, min(50, math.ceil(0.5 / max(begin.elapsed_time(end), 1e-3))))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                function()
        return Repeated(graph.replay, calls)

    def seconds(self, function: Function) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def tidy(self) -> None:
        """Gives back what graphs have held, before there is no room for the next ones."""
        if torch.cuda.memory_reserved() > torch.cuda.mem_get_info()[1] / 3:
            torch.cuda.empty_cache()


class OnCpu:
    """The same by the clock, to check this script where there is no GPU."""

    device = "cpu"
    calls_in_a_row = 2

    def prepare(self, function: Function) -> Repeated:
        function()
        return Repeated(function, 1)

    def seconds(self, function: Function) -> float:
        begin = time.perf_counter()
        function()
        return time.perf_counter() - begin

    def synchronize(self) -> None:
        pass

    def tidy(self) -> None:
        pass


@dataclasses.dataclass
class Repeated:
    """A function that makes so many calls of another."""

    function: Function
    calls: int

    def __call__(self) -> object:
        return self.function()


def in_turns(timer: Any, functions: dict[str, Repeated], seconds: float = 0.05) -> dict[str, float]:
    """The least time of a call of each, over at least three rounds."""
    best = dict.fromkeys(functions, math.inf)
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or (rounds < 20 and time.perf_counter() < deadline):
        for name, function in functions.items():
            best[name] = min(best[name], timer.seconds(function) / function.calls)
        rounds += 1
    return best


def limits(timer: Any, buffer_bytes: int) -> dict[str, float]:
    """Bytes per second, read and written, between buffers of this size that exist already; operations per second of a
    large product. A graph may give a copy to the copy engines, which are slower than kernels, so the bandwidth is the
    best of several ways."""
    source = torch.ones(buffer_bytes // 4, device=timer.device)
    target = torch.empty_like(source)
    ways = {
        "copy": timer.prepare(partial(target.copy_, source)),
        "copy, no graph": Repeated(partial(target.copy_, source), 1),
        "negation": timer.prepare(partial(torch.neg, source, out=target)),
    }
    found = {f"bytes ({way})": 2.0 * buffer_bytes / seconds for way, seconds in in_turns(timer, ways, 0.3).items()}
    found["bytes"] = max(found.values())
    size = 8192 if timer.device == "cuda" else 256
    for dtype in ("f32", "tf32", "bf16", "f16", "f64"):
        a = torch.randn(size, size, device=timer.device).to(DTYPES[tensor_dtype(dtype)])
        out = torch.empty_like(a)
        allow_tf32(dtype == "tf32")
        best = in_turns(timer, {dtype: timer.prepare(partial(torch.mm, a, a, out=out))}, 0.1)[dtype]
        found[f"matmul {dtype}"] = 2.0 * size**3 / best
    return found


def device_information() -> dict[str, Any]:
    """The GPU and what it is driven by; rates that its clocks do not enter into."""
    if not torch.cuda.is_available():
        return {"name": "none"}
    properties = torch.cuda.get_device_properties()
    names = ("name", "total_memory", "multi_processor_count", "L2_cache_size", "memory_bus_width", "memory_clock_rate")
    found = {name: getattr(properties, name) for name in names if hasattr(properties, name)}
    found["capability"] = f"{properties.major}.{properties.minor}"
    found |= {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    asked = ("driver_version", "clocks.max.sm", "clocks.max.memory", "clocks.sm", "power.limit", "temperature.gpu")
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        found |= dict(zip(asked, (field.strip() for field in answer.splitlines()[0].split(",")), strict=True))
    with contextlib.suppress(KeyError, ValueError):
        # FMA of float32 and bytes of memory at the highest clocks: 128 lanes a multiprocessor from 8.6 on, and on 9.0.
        lanes = 64 if (properties.major, properties.minor) == (8, 0) else 128
        clock = float(found["clocks.max.sm"]) * 1e6
        found["most float32 operations per second"] = 2.0 * lanes * properties.multi_processor_count * clock
        if "memory_bus_width" in found:
            found["most bytes per second"] = float(found["clocks.max.memory"]) * 2e6 * properties.memory_bus_width / 8
    return found


def allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


class Measure:
    """Times jobs; those that follow each other on the same tensors share them."""

    def __init__(self, timer: Any) -> None:
        self.timer = timer
        self.key: object = None
        self.workload: Workload | None = None

    def workload_of(self, job: Job) -> Workload:
        key = (job.layer, job.batch, tensor_dtype(job.dtype))
        if self.workload is None or self.key != key:
            self.workload = None  # before the next one takes its place
            self.timer.tidy()
            self.workload = Workload(job.layer, job.batch, tensor_dtype(job.dtype), self.timer.device)
            self.key = key
        return self.workload

    def __call__(self, job: Job) -> list[Result]:
        """A result for each layout of convext's."""
        allow_tf32(job.dtype == "tf32")
        with precision(job.dtype):
            return measure(self.timer, job, self.workload_of(job))


def measure(timer: Any, job: Job, workload: Workload) -> list[Result]:
    """A result for each layout of convext's."""
    functions: dict[str, Repeated] = {}
    left_out = {}
    for layout in LAYOUTS:
        functions[f"convext {layout}"] = timer.prepare(workload.ours(job.pass_name, layout))
    if DTYPES[tensor_dtype(job.dtype)].is_floating_point:
        for layout, function in TorchPeer().variants(job, workload).items():
            try:
                functions[f"torch {layout}"] = timer.prepare(function)
            except RuntimeError as error:
                left_out[layout] = str(error).splitlines()[0]
    else:
        left_out["torch"] = "it has no convolution of integers on CUDA"
    times = in_turns(timer, functions)
    plans = {layout: workload.plan(job.pass_name, layout) for layout in LAYOUTS}
    layer = job.layer
    theirs = {layout: times[f"torch {layout}"] for layout in LAYOUTS if f"torch {layout}" in times}
    return [
        Result(
            layer.network,
            layer.name,
            str(layer),
            layer.kernel,
            (layer.in_channels, layer.out_channels),
            layer.groups,
            job.batch,
            job.dtype,
            job.pass_name,
            0,
            layout,
            times[f"convext {layout}"],
            {"torch": theirs} if theirs else {},
            left_out,
            plan.flops,
            plan.bytes,
            plan.workspace_bytes,
            plan.kernel,
        )
        for layout, plan in plans.items()
    ]


@dataclasses.dataclass(frozen=True)
class Selection:
    """What the user asks for; everything where it is empty."""

    networks: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    passes: Sequence[str] = ()
    kernels: Sequence[str] = ()


def spread(layers: Sequence[Layer]) -> list[Layer]:
    """In an order in which any beginning has early and late ones: by the reversed digits of their numbers."""
    digits = max(1, (len(layers) - 1).bit_length())
    return [layers[i] for i in sorted(range(len(layers)), key=lambda i: f"{i:0{digits}b}"[::-1])]


def jobs(selection: Selection = Selection()) -> Iterator[Job]:
    """One layer of each network in turn, so that all are covered whenever the time is up."""
    wanted = [layers for name, layers in networks().items() if not selection.networks or name in selection.networks]
    for number, layers in enumerate(itertools.zip_longest(*map(spread, wanted))):
        for layer in layers:
            if layer is None:
                continue
            usual = MAIN_DTYPES + (OTHER_DTYPES if number % 4 == 1 and layer.network != "large_images" else ())
            for dtype, pass_name in itertools.product(selection.dtypes or usual, selection.passes or PASSES):
                if pass_name == "forward" or DTYPES[tensor_dtype(dtype)].is_floating_point:
                    job = Job(layer, batch_of(layer, dtype), dtype, 0, pass_name)
                    if not selection.kernels or planned(job).intersection(selection.kernels):
                        yield job


def planned(job: Job) -> set[str]:
    """The kernels that would run a job, without the device in their names."""
    layer, dtype = job.layer, DTYPES[tensor_dtype(job.dtype)]
    settings = (layer.stride, layer.padding, layer.dilation, layer.groups)
    found = set()
    with precision(job.dtype):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x, w = (
                torch.empty(size, dtype=dtype, device="meta", memory_format=memory_format)
                for size in ((job.batch, layer.in_channels, *layer.size), layer.weight_shape)
            )
            plan = convext.explain(x, w, None, *settings, device="cuda" if _cuda_part.is_available() else "cpu")
            found.add(plan[job.pass_name].kernel.split("/")[0])
    return found


def latencies(timer: Any) -> dict[str, dict[str, float]]:
    """Seconds of the host for a call, eager: forward alone and with backward. That of convext's operator, by way of
    torch's dispatcher, is there to be compared with the direct call."""
    found: dict[str, dict[str, float]] = {}
    sizes = {
        "6x8, the chapter's": ((1, 1, 6, 8), (1, 1, 1, 2)),
        "8 channels, 8x8": ((1, 8, 8, 8), (8, 8, 3, 3)),
        "64 channels, 56x56": ((1, 64, 56, 56), (64, 64, 3, 3)),
    }
    functions = {"convext": convext.conv2d, "torch": F.conv2d, "operator": torch.ops.convext.corr2d.default}
    for name, (input_size, weight_size) in sizes.items():
        x = torch.randn(input_size, device=timer.device)
        w = torch.randn(weight_size, device=timer.device, requires_grad=True)
        grad = torch.ones_like(F.conv2d(x, w))
        calls: dict[tuple[str, str], Function] = {}
        for which, function in functions.items():

            def forward(function: Any = function, x: torch.Tensor = x, w: torch.Tensor = w) -> None:
                with torch.no_grad():
                    function(x, w)

            def backward(
                function: Any = function, x: torch.Tensor = x, w: torch.Tensor = w, grad: torch.Tensor = grad
            ) -> None:
                torch.autograd.grad(function(x, w), w, grad)

            calls["forward", which], calls["forward and backward", which] = forward, backward
        best = dict.fromkeys(calls, math.inf)
        for _ in range(15):  # in turns
            for key, call in calls.items():
                call()
                timer.synchronize()
                begin = time.perf_counter()
                for _ in range(timer.calls_in_a_row):
                    call()
                best[key] = min(best[key], (time.perf_counter() - begin) / timer.calls_in_a_row)
                timer.synchronize()
        for (what, which), seconds in best.items():
            found.setdefault(f"{name}, {what}", {})[which] = seconds
    return found


# --- the run ------------------------------------------------------------------------------------------------


def beside(result: Result, rates: dict[str, float]) -> Result:
    """With its share of the time that the product's rate and the memory's allow. (For integers, the memory's alone.)"""
    least = result.bytes / rates["bytes"]
    if f"matmul {result.dtype}" in rates:
        least = max(least, result.flops / rates[f"matmul {result.dtype}"])
    return dataclasses.replace(result, roofline=least / result.seconds)


def table_of_bounds(results: Sequence[Result]) -> str:
    """For each dtype, pass and layout: ratios to torch, and shares of the bound."""
    groups: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.dtype, result.pass_name, result.layout].append(result)
    lines = [f"{'':<36} {'cases':>6} {'/torch':>7} {'worst':>6} {'below 1':>8} {'of bound':>9} {'worst':>6}"]
    for key, rows in groups.items():
        ratios = [row.ratio_torch for row in rows if row.ratio_torch is not None]
        shares = [row.roofline for row in rows if row.roofline is not None]
        summary = report.Summary.of(ratios)
        compared = (
            f"{summary.mean:>7.2f} {summary.worst:>6.2f} {summary.slower:>8}"
            if ratios
            else f"{'-':>7} {'-':>6} {'-':>8}"
        )
        lines.append(
            f"{' '.join(key):<36} {len(rows):>6} {compared} "
            f"{report.geometric_mean(shares):>9.0%} {min(shares, default=math.nan):>6.0%}"
        )
    return "\n".join(lines)


def write(results: Sequence[Result], information: dict[str, Any], name: str, folder: Path) -> None:
    """JSON, then pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    report.write_json(folder / f"{name}.json", results, information)
    try:
        for dtype in dict.fromkeys(result.dtype for result in results):
            of_dtype = [result for result in results if result.dtype == dtype and result.ratio_torch is not None]
            rows = [result for result in of_dtype if result.network not in pictures.GRIDS]
            if rows:
                pictures.draw_networks(rows, folder / f"{name}_networks_{dtype}.png")
            for network, title in pictures.GRIDS.items():
                cells = [result for result in of_dtype if result.network == network]
                if cells:
                    pictures.draw_heat_map(cells, title, folder / f"{name}_heat_map_{title}_{dtype}.png")
    except ImportError as error:
        print(f"no pictures: {error.name} is not installed")
    print(f"{len(results)} cases written to {folder / name}.json")


def run(timer: Any, todo: Sequence[Job], buffer_bytes: int, deadline: float, name: str, folder: Path) -> None:
    """Everything but the check."""
    device = device_information()
    print("\n".join(f"{key}: {value}" for key, value in device.items()))
    torch.backends.cudnn.benchmark = True
    rates = limits(timer, buffer_bytes)
    print("  ".join(f"{key} {value / 1e12:.3f}e12/s" for key, value in rates.items()))
    host = latencies(timer)
    for what, times in host.items():
        print(f"{what:<45} " + "  ".join(f"{key} {seconds * 1e6:.1f} us" for key, seconds in times.items()))
    results: list[Result] = []
    failed: dict[str, str] = {}
    timed = Measure(timer)
    print(report.table_header())
    for done, job in enumerate(todo):
        if time.perf_counter() > deadline:
            print(f"time is up: {len(todo) - done} of {len(todo)} jobs were not run")
            break
        try:
            found = [beside(result, rates) for result in timed(job)]
        except RuntimeError as error:  # out of memory, most likely; the rest is still worth having
            failed[str(job)] = str(error).splitlines()[0]
            print(f"{job}: {failed[str(job)]}")
            continue
        results += found
        print("\n".join(map(report.table_line, found)), flush=True)
    print(report.summary_text(results), table_of_bounds(results), sep="\n\n")
    information = {"device": device, "build": convext.build_info(), "rates": rates, "host": host, "failed": failed}
    write(results, information, name, folder)


def check_itself() -> None:
    """What can be known without a GPU: the flow, on tiny layers by the CPU's clock, and the plans."""
    selected = Selection(networks=["lenet", "grid_dense", "large_images"])
    tiny = {"size": (9, 9), "in_channels": 2, "out_channels": 2, "groups": 1, "kernel": (3, 3)}
    todo = [
        dataclasses.replace(job, layer=dataclasses.replace(job.layer, **tiny), batch=1)
        for job in [*itertools.islice(jobs(selected), 9), *jobs(Selection(["lenet"], ["i32", "f16"], ["forward"]))]
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        run(OnCpu(), todo, 2**20, time.perf_counter() + 60, "self_check", Path(folder))
        written = json.loads((Path(folder) / "self_check.json").read_text())
        assert len(written["results"]) == 2 * len(todo) and not written["failed"], written["failed"]
        assert all(row["roofline"] > 0 for row in written["results"])
    everything = list(jobs())
    assert {job.layer.network for job in everything[:400]} == set(networks())
    assert {job.dtype for job in everything} == {*MAIN_DTYPES, *OTHER_DTYPES}
    narrowed = list(jobs(Selection(passes=["forward"], dtypes=["f32"], kernels=["no such kernel"])))
    assert narrowed == [] and planned(todo[0]) <= {kernel.name for kernel in convext.available_kernels()}
    assert check("cpu", few=True) == [] and sanitize("cpu", every_case=False)
    if not _cuda_part.is_built():
        return
    from convext import _cuda

    for layer in (layer for layers in networks().values() for layer in layers):
        for pass_name in PASSES:
            _cuda.plan(pass_name, described(layer), *H100)


def described(layer: Layer) -> tuple[Any, ...]:
    """The call as the planner takes it."""
    x = torch.empty((1, layer.in_channels, *layer.size), device="meta")
    w = torch.empty(layer.weight_shape, device="meta")
    (height, width), sizes = layer.padding, (*x.shape, *w.shape)
    return (
        *(list(sizes[:4]), list(x.stride()), list(sizes[4:]), list(w.stride()), False, "float32", "float32"),
        *(layer.stride, (height, height, width, width), layer.dilation, layer.groups, "zeros"),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", nargs="*", default=[], choices=list(networks()), metavar="NAME")
    parser.add_argument("--dtype", nargs="*", default=[], choices=MAIN_DTYPES + OTHER_DTYPES)
    parser.add_argument("--pass", nargs="*", default=[], choices=PASSES, dest="passes")
    parser.add_argument("--kernel", nargs="*", default=[], metavar="NAME", help="only what these kernels would run")
    parser.add_argument("--minutes", type=float, default=9.0, help="from the start, checks included")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument(
        "--sanitize",
        nargs="?",
        const="one",
        choices=["one", "all"],
        help="run one small case (or all of them) per kernel, pass, layout and dtype, and nothing else",
    )
    options = parser.parse_args()
    begin = time.perf_counter()
    if not convext.available_kernels("cuda"):
        check_itself()
        reason = _cuda_part.missing or "torch finds no CUDA device"
        print(f"Nothing was timed, since there is no GPU to be used here ({reason}); the script's own checks passed.")
        return 0
    if options.sanitize:
        ran = sanitize("cuda", options.sanitize == "all")
        torch.cuda.synchronize()
        print("\n".join(f"{kernel:<22} {' '.join(sorted(what))}" for kernel, what in ran.items()))
        return 0 if all(ran.values()) else 1
    print("\n".join(f"{key}: {value}" for key, value in convext.build_info().items()))
    wrong = check("cuda")
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    print(f"every kernel is exact on small integers ({time.perf_counter() - begin:.0f} s)")
    name = "cuda_" + torch.cuda.get_device_name().lower().replace(" ", "_").replace("-", "_")
    todo = list(jobs(Selection(options.network, options.dtype, options.passes, options.kernel)))
    run(OnGpu(), todo, 2**31, begin + 60 * options.minutes, name, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
