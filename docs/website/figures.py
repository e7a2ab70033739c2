"""The figures of the benchmark as tables in Markdown, made of the files in benchmarks/results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convext.benchmark.report import Result, Summary, read_json, summaries
from convext.benchmark.shapes import DTYPES

PASSES = ("forward", "grad_input", "grad_weight")


def figures(files: Sequence[Path]) -> str:
    """A section for each file: the machine, then geometric mean and worst ratio of each network and pass."""
    return "\n\n".join(section(file) for file in files)


def section(file: Path) -> str:
    """The section of one file."""
    results, information = read_json(file)
    parts = [f"### {file.stem}", _machine(results, information)]
    for dtype, of_dtype in _by_dtype(results).items():
        parts.append(f"{_name(dtype)}, {len(of_dtype)} cases:")
        parts.append(table(of_dtype))
    return "\n\n".join(parts)


def _machine(results: Sequence[Result], information: dict[str, Any]) -> str:
    """The machine, the libraries and what was timed, in a sentence."""
    build = information["build"]
    host = f"{build['machine']}, {build['isa_in_use']}, {build['platform']}, {build['compiler']}"
    gpu = information.get("device", {}).get("name")
    clauses = [f"Measured on {gpu} beside {host}" if gpu else f"Measured on {host}"]
    peaks = [flops for dtype, _, flops in information.get("machine", {}).get("peak", []) if dtype == "f32"]
    if peaks:
        clauses.append(f"peak {max(peaks) / 1e9:.0f} GFLOP/s in float32")
    peers = information.get("peers", {"torch": build["torch_running"]})
    clauses.append("with " + ", ".join(f"{name} {version}" for name, version in peers.items()))
    threads = sorted({result.threads for result in results if result.threads})
    if threads:
        clauses.append(f"{' and '.join(map(str, threads))} thread(s)")
    return "; ".join(clauses) + "."


def _name(dtype: str) -> str:
    """torch's name for a dtype of the benchmark."""
    return str(DTYPES[dtype]).removeprefix("torch.") if dtype in DTYPES else dtype


def _by_dtype(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.dtype, []).append(result)
    return groups


def table(results: Sequence[Result]) -> str:
    """Networks down, passes across; each entry is the geometric mean with the worst ratio in brackets."""
    by_network = summaries(results, lambda result: (result.network, result.pass_name))
    everything = summaries(results, lambda result: ("all", result.pass_name))
    networks = list(dict.fromkeys(result.network for result in results))
    passes = [name for name in PASSES if any(result.pass_name == name for result in results)]
    rows = [["layers of", *passes], ["---"] * (len(passes) + 1)]
    for network in networks:
        rows.append([network, *(_entry(by_network.get((network, name))) for name in passes)])
    if len(networks) > 1:
        rows.append(["**all**", *(_entry(everything.get(("all", name))) for name in passes)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _entry(summary: Summary | None) -> str:
    return "" if summary is None else f"{summary.mean:.2f} ({summary.worst:.2f})"
