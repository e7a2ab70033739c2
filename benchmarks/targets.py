"""How near the machine's limit single layers get, what a second thread gives, and whether the planner chooses well.

    python benchmarks/targets.py shares     # of the FMA peak, or of what the bytes allow, against a target each
    python benchmarks/targets.py scaling    # one thread to all, every layer above 50 MFLOP
    python benchmarks/targets.py planner    # every kernel that can run a layer, forced, against the planner's choice

What the machine can do is timed in the same turns as the layers: multiply-adds in registers, copies of as many bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import convext
from convext import _C
from convext.benchmark.shapes import Layer, networks
from convext.benchmark.suite import LAYOUTS, PASSES
from convext.benchmark.timing import Contender, in_turns, keep_freed_memory
from convext.benchmark.workload import Workload
from convext.precision import Precision

#: A layer below this many operations is not asked to scale.
LARGE = 50e6


@dataclass(frozen=True)
class Share:
    """A layer whose part of a limit has a target for each pass that is named."""

    title: str
    layer: Layer
    targets: dict[str, float]  #: by pass
    dtype: str = "f32"
    batch: int = 1
    precision: Precision = "highest"
    kernel: str = ""  #: the one to force; the planner's where empty
    of_bytes: bool = False  #: of the time of copying as many bytes; else of the FMA peak


def _layer(channels: tuple[int, int], size: int, kernel: int, stride: int = 1, groups: int = 1) -> Layer:
    def pair(value: int) -> tuple[int, int]:
        return (value, value)

    return Layer(
        *("targets", "", *channels, pair(size), pair(kernel), pair(stride), pair(kernel // 2), pair(1), groups),
        *((1,), ("f32",), ("all",)),
    )


def _passes(forward: float, gradients: float) -> dict[str, float]:
    return {"forward": forward, "grad_input": gradients, "grad_weight": gradients}


def shares() -> list[Share]:
    """All that have a target."""
    result = []
    for channels, size in ((64, 56), (128, 28), (256, 14)):
        layer, title = _layer((channels, channels), size, 3), f"{channels} at {size}^2, batch 8"
        fast = {"forward": 1.2, "grad_input": 1.2}, {"forward": 1.5, "grad_input": 1.5}
        result += [
            Share(f"3x3 direct, {title}", layer, _passes(0.85, 0.80), batch=8, kernel="implicit_gemm"),
            Share(f"3x3 winograd, {title}", layer, fast[0], batch=8),
            Share(f"3x3 winograd, high, {title}", layer, fast[1], batch=8, precision="high"),
        ]
    for (in_channels, out_channels), size in (((64, 256), 56), ((256, 64), 56), ((512, 128), 28), ((1024, 256), 14)):
        layer = _layer((in_channels, out_channels), size, 1)
        result.append(Share(f"1x1, {in_channels} -> {out_channels} at {size}^2", layer, _passes(0.80, 0.80)))
    depthwise7, depthwise31 = _layer((96, 96), 56, 7, groups=96), _layer((128, 128), 56, 31, groups=128)
    result += [
        Share("7x7 stride 2 stem", _layer((3, 64), 224, 7, stride=2), {"forward": 0.75}),
        Share("3x3, 512 at 7^2", _layer((512, 512), 7, 3), {"forward": 0.75}),
        Share("3x3, 32 groups of 8 at 28^2", _layer((256, 256), 28, 3, groups=32), {"forward": 0.55}),
        Share("31x31, one channel, 1024^2", _layer((1, 1), 1024, 31), {"forward": 0.80}),
        Share("depthwise 7x7, 96 at 56^2", depthwise7, _passes(0.65, 0.45)),
        Share("depthwise 31x31, 128 at 56^2", depthwise31, {"forward": 0.70}),
    ]
    for dtype, target in (("f64", 0.80), ("bf16", 0.65), ("f16", 0.65)):
        for kernel, size in ((3, 56), (5, 28)):
            layer = _layer((64, 64), size, kernel)
            result.append(Share(f"{dtype} {kernel}x{kernel}, 64 at {size}^2", layer, {"forward": target}, dtype))
    for dtype in ("f32", "f64"):
        depthwise3 = _layer((32, 32), 112, 3, groups=32)
        for batch in (1, 8):
            title = f"{dtype} depthwise 3x3, 32 at 112^2, batch {batch}"
            result.append(Share(title, depthwise3, _passes(0.6, 0.6), dtype, batch, of_bytes=True))
        for size in (2048, 4096):
            layer, targets = _layer((1, 1), size, 3), {"forward": 0.6, "grad_input": 0.6}
            result.append(Share(f"{dtype} 3x3 filter, {size}^2", layer, targets, dtype, of_bytes=True))
    return result


@contextlib.contextmanager
def _settings(kernel: str, precision: Precision) -> Iterator[None]:
    with convext.float32_precision(precision), convext.force_kernel(kernel) if kernel else contextlib.nullcontext():
        yield


def _forced(kernel: str, function: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        _C.set_forced_kernel(kernel)  # what the context manager does besides is not the kernel's time
        function()
        _C.set_forced_kernel("")

    return run


def measure_shares(seconds: float) -> list[dict[str, object]]:
    """Prints each share beside its target."""
    rows: list[dict[str, object]] = []
    threads = torch.get_num_threads()
    for share in shares():
        workload = Workload(share.layer, share.batch, share.dtype)
        for pass_name, target in share.targets.items():
            with _settings(share.kernel, share.precision):
                plan = workload.plan(pass_name, "contiguous")
                ours = [Contender(layout, workload.ours(pass_name, layout)) for layout in LAYOUTS]
                if share.of_bytes:
                    source = torch.ones(plan.bytes // 8)
                    limit = Contender("copy", partial(torch.zeros_like(source).copy_, source))
                    operations = 1.0
                else:
                    dtype = "float64" if share.dtype == "f64" else "float32"
                    limit = Contender("peak", partial(_C.run_fma_probe, dtype, 20_000))
                    operations = plan.flops / _C.run_fma_probe(dtype, 20_000)
                for contender in [*ours, limit]:
                    contender.run(1)
                in_turns([*ours, limit], seconds, None, least_rounds=5)
            reached = {contender.name: operations * limit.best / contender.best for contender in ours}
            row = {"title": share.title, "pass": pass_name, "target": target, "kernel": plan.kernel, **reached}
            rows.append(row | {"threads": threads, "of": "copy" if share.of_bytes else "peak"})
            text = "  ".join(f"{layout} {value:5.2f}" for layout, value in reached.items())
            print(f"{share.title:44} {pass_name:12} {plan.kernel:24} {text}  target {target}", flush=True)
    return rows


def _all_layers() -> Iterator[tuple[Layer, int]]:
    for layers in networks().values():
        for layer in layers:
            for batch in layer.batches:
                if batch <= 8:
                    yield layer, batch


def _on_threads(count: int, function: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        torch.set_num_threads(count)
        function()

    return run


def measure_scaling(seconds: float) -> list[dict[str, object]]:
    """Prints what all threads gain over one."""
    rows: list[dict[str, object]] = []
    threads = torch.get_num_threads()
    for layer, batch in _all_layers():
        if layer.flops * batch < LARGE:
            continue
        workload = Workload(layer, batch, "f32")
        for pass_name, layout in itertools.product(PASSES, LAYOUTS):
            function = workload.ours(pass_name, layout)
            one, all_ = (Contender(str(count), _on_threads(count, function)) for count in (1, threads))
            for contender in (one, all_):
                contender.run(1)
            in_turns([one, all_], seconds, None, least_rounds=4)
            gain = one.best / all_.best
            row = {"layer": str(layer), "batch": batch, "pass": pass_name, "layout": layout, "gain": gain}
            rows.append(row | {"seconds": all_.best, "kernel": workload.plan(pass_name, layout).kernel})
            print(f"{gain:5.2f}  {layer} batch {batch} {pass_name} {layout} {rows[-1]['kernel']}", flush=True)
    torch.set_num_threads(threads)
    low = [row for row in rows if float(str(row["gain"])) < 0.9 * threads]
    print(f"{threads} threads over one: {len(low)} of {len(rows)} cases gain less than {0.9 * threads:.1f}")
    return rows


def measure_planner(seconds: float) -> list[dict[str, object]]:
    """Prints where another kernel takes less time than the planner's."""
    rows: list[dict[str, object]] = []
    newest = {kernel.name: kernel.qualified_name for kernel in reversed(convext.available_kernels())}
    names = list(newest.values())
    for layer, batch in _all_layers():
        workload = Workload(layer, batch, "f32")
        for pass_name, layout in itertools.product(PASSES, LAYOUTS):
            chosen = workload.plan(pass_name, layout).kernel
            function = workload.ours(pass_name, layout)
            contenders = [Contender(chosen, _forced(chosen, function))]
            contenders[0].run(1)
            contenders[0].run(1)
            for name in names:
                other = Contender(name, _forced(name, function))
                if name != chosen:
                    with contextlib.suppress(RuntimeError):  # it cannot run this layer
                        other.run(1)
                        if other.best > 0.01 or other.run(1) < 2 * contenders[0].best:
                            contenders.append(other)
                    _C.set_forced_kernel("")
            contenders = [contender for contender in contenders if contender.best < 2 * contenders[0].best]
            if len(contenders) > 1:
                in_turns(contenders, seconds, None, least_rounds=4)
            best = min(contenders, key=lambda contender: contender.best)
            ratio = best.best / contenders[0].best
            row = {"layer": str(layer), "batch": batch, "pass": pass_name, "layout": layout, "kernel": chosen}
            rows.append(row | {"seconds": contenders[0].best, "best_kernel": best.name, "ratio": ratio})
            if ratio < 0.9:
                print(f"{ratio:5.2f}  {layer} batch {batch} {pass_name} {layout} {chosen}, not {best.name}", flush=True)
    low = [row for row in rows if float(str(row["ratio"])) < 0.9]
    print(f"planner: {len(low)} of {len(rows)} cases are more than 10 % slower than with another kernel")
    return rows


MEASUREMENTS = {"shares": measure_shares, "scaling": measure_scaling, "planner": measure_planner}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=MEASUREMENTS)
    parser.add_argument("--seconds", type=float, default=0.1, help="for each layer and pass (default: 0.1)")
    parser.add_argument("--output", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    rows = MEASUREMENTS[options.measurement](options.seconds)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
