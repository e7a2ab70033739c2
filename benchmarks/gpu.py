"""The CUDA kernels beside `F.conv2d` on one GPU: are they right, and how fast? Ten minutes, all in one run.

    python benchmarks/gpu.py                            # checks, then times the layers of convext/benchmark/shapes
    python benchmarks/gpu.py --network replknet31b      # only this one
    python benchmarks/gpu.py --minutes 2 --output out   # whatever is done by then, written elsewhere

Kernel times come from CUDA graphs that are replayed, all contenders in turns, so they hold no time of the host. Both of
convext's layouts are compared with torch's better one; torch runs with cudnn.benchmark on. Rows of dtype f32 compare
with TF32 off, rows of dtype tf32 compare convext under ``float32_precision("high")`` with TF32 on. What a call costs
the host is timed apart. Without a GPU, the script checks only that it would run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import convext
from convext import _cuda_part
from convext.benchmark import pictures, report
from convext.benchmark.peers.torch_peer import TorchPeer
from convext.benchmark.report import Result
from convext.benchmark.shapes import Layer, networks
from convext.benchmark.suite import LAYOUTS, PASSES, Job
from convext.benchmark.workload import Workload

RESULTS = Path(__file__).parent / "results"
#: Rows of "tf32" are float32 tensors whose products may be rounded to 10 bits.
DTYPES = ("f32", "tf32", "bf16")
#: The batch size is the largest up to this with which a pass takes no more than so many operations.
LARGEST_BATCH, MOST_FLOPS = 32, 1e11
#: What the plans are made for where there is no GPU: capability, multiprocessors, shared bytes of a block.
H100 = (90, 132, 232_448)

Function = Callable[[], object]


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


# --- timing -------------------------------------------------------------------------------------------------


class OnGpu:
    """Times functions by graphs that are replayed."""

    device = "cuda"
    calls_in_a_row = 50

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
    """Bytes per second of a copy of such buffers, counting both; operations per second of a large product."""
    source = torch.ones(buffer_bytes // 4, device=timer.device)
    copy = timer.prepare(partial(torch.empty_like(source).copy_, source))
    found = {"copy_bytes": 2.0 * buffer_bytes / in_turns(timer, {"copy": copy}, 0.2)["copy"]}
    size = 8192 if timer.device == "cuda" else 256
    for dtype in DTYPES:
        a = torch.randn(size, size, device=timer.device).to(torch.bfloat16 if dtype == "bf16" else torch.float32)
        allow_tf32(dtype == "tf32")
        best = in_turns(timer, {dtype: timer.prepare(partial(torch.mm, a, a))}, 0.2)[dtype]
        found[f"matmul_{dtype}"] = 2.0 * size**3 / best
    return found


def allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def measure(timer: Any, job: Job) -> list[Result]:
    """A result for each layout of convext's."""
    tensors = "f32" if job.dtype == "tf32" else job.dtype
    workload = Workload(job.layer, job.batch, tensors, timer.device)
    allow_tf32(job.dtype == "tf32")
    with convext.float32_precision("high" if job.dtype == "tf32" else "highest"):
        functions: dict[str, Repeated] = {}
        left_out = {}
        for layout in LAYOUTS:
            functions[f"convext {layout}"] = timer.prepare(workload.ours(job.pass_name, layout))
        for layout, function in TorchPeer().variants(job, workload).items():
            try:
                functions[f"torch {layout}"] = timer.prepare(function)
            except RuntimeError as error:
                left_out[layout] = str(error).splitlines()[0]
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


def jobs(selected: Sequence[str]) -> Iterator[Job]:
    """One layer of each network in turn, so that all are covered whenever the time is up."""
    found = [layers for name, layers in networks().items() if not selected or name in selected]
    for layers in itertools.zip_longest(*found):
        for layer in layers:
            if layer is None:
                continue
            batch = max(1, min(LARGEST_BATCH, int(MOST_FLOPS / layer.flops)))
            for dtype, pass_name in itertools.product(DTYPES, PASSES):
                yield Job(layer, batch, dtype, 0, pass_name)


def latencies(timer: Any) -> dict[str, dict[str, float]]:
    """Seconds of the host for a call, eager, forward alone and with backward."""
    found: dict[str, dict[str, float]] = {}
    shapes = {
        "6x8, the chapter's": ((1, 1, 6, 8), (1, 1, 1, 2)),
        "64 channels, 56x56": ((1, 64, 56, 56), (64, 64, 3, 3)),
    }
    for name, (input_size, weight_size) in shapes.items():
        x = torch.randn(input_size, device=timer.device)
        w = torch.randn(weight_size, device=timer.device, requires_grad=True)
        for function in (convext.conv2d, F.conv2d):

            def forward(function: Any = function, x: torch.Tensor = x, w: torch.Tensor = w) -> None:
                with torch.no_grad():
                    function(x, w)

            def backward(function: Any = function, x: torch.Tensor = x, w: torch.Tensor = w) -> None:
                torch.autograd.grad(function(x, w).sum(), w)

            for what, call in (("forward", forward), ("forward and backward", backward)):
                best = math.inf
                for _ in range(5):
                    call()
                    timer.synchronize()
                    begin = time.perf_counter()
                    for _ in range(timer.calls_in_a_row):
                        call()
                    best = min(best, (time.perf_counter() - begin) / timer.calls_in_a_row)
                    timer.synchronize()
                found.setdefault(f"{name}, {what}", {})[function.__module__.split(".")[0]] = best
    return found


# --- the run ------------------------------------------------------------------------------------------------


def beside(result: Result, rates: dict[str, float]) -> Result:
    """With its share of the time that the product's rate and the copy's allow."""
    least = max(result.flops / rates[f"matmul_{result.dtype}"], result.bytes / rates["copy_bytes"])
    return dataclasses.replace(result, roofline=least / result.seconds)


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
    torch.backends.cudnn.benchmark = True
    rates = limits(timer, buffer_bytes)
    print("  ".join(f"{key} {value / 1e12:.3f}e12/s" for key, value in rates.items()))
    host = latencies(timer)
    for what, times in host.items():
        print(f"{what:<45} " + "  ".join(f"{key} {seconds * 1e6:.1f} us" for key, seconds in times.items()))
    results: list[Result] = []
    failed: dict[str, str] = {}
    print(report.table_header())
    for done, job in enumerate(todo):
        if time.perf_counter() > deadline:
            print(f"time is up: {len(todo) - done} of {len(todo)} jobs were not run")
            break
        try:
            found = [beside(result, rates) for result in measure(timer, job)]
        except RuntimeError as error:  # out of memory, most likely; the rest is still worth having
            failed[str(job)] = str(error).splitlines()[0]
            print(f"{job}: {failed[str(job)]}")
            continue
        results += found
        print("\n".join(map(report.table_line, found)), flush=True)
    print(report.summary_text(results))
    information = {"build": convext.build_info(), "rates": rates, "host": host, "failed": failed}
    write(results, information, name, folder)


def check_itself() -> None:
    """What can be known without a GPU: the flow, on tiny layers by the CPU's clock, and the plans."""
    todo = [
        Job(
            dataclasses.replace(job.layer, size=(9, 9), in_channels=2, out_channels=2, groups=1, kernel=(3, 3)),
            1,
            *rest,
        )
        for job in itertools.islice(jobs(["lenet", "grid_dense"]), 9)
        for rest in [(job.dtype, 0, job.pass_name)]
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        run(OnCpu(), todo, 2**20, time.perf_counter() + 60, "self_check", Path(folder))
        written = json.loads((Path(folder) / "self_check.json").read_text())
        assert len(written["results"]) == 2 * len(todo) and not written["failed"], written["failed"]
    assert check("cpu", few=True) == []
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
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    begin = time.perf_counter()
    if not convext.available_kernels("cuda"):
        check_itself()
        reason = _cuda_part.missing or "torch finds no CUDA device"
        print(f"Nothing was timed, since there is no GPU to be used here ({reason}); the script's own checks passed.")
        return 0
    print("\n".join(f"{key}: {value}" for key, value in convext.build_info().items()))
    wrong = check("cuda")
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    print(f"every kernel is exact on small integers ({time.perf_counter() - begin:.0f} s)")
    name = "cuda_" + torch.cuda.get_device_name().lower().replace(" ", "_").replace("-", "_")
    run(OnGpu(), list(jobs(options.network)), 2**30, begin + 60 * options.minutes, name, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
