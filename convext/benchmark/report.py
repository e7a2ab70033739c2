"""Results as JSON and as text: a line for each case, then geometric means and the worst."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from convext.benchmark.machine import Machine


@dataclass(frozen=True)
class Result:
    """What was measured for a case. Ratios are a peer's time divided by convext's: above 1, convext is quicker."""

    network: str
    layer: str
    shape: str
    kernel_size: tuple[int, int]
    channels: tuple[int, int]  #: in, out
    groups: int
    batch: int
    dtype: str
    pass_name: str
    threads: int
    layout: str  #: convext's; each peer has its best one
    seconds: float
    peers: dict[str, dict[str, float]]  #: seconds of each peer's variants
    left_out: dict[str, str]  #: peers and variants that were not timed, with the reason
    flops: float  #: of direct summation
    bytes: int
    workspace_bytes: int
    kernel: str
    roofline: float | None = None  #: share of what peak and bandwidth allow; filled in when both are known

    @property
    def torch(self) -> dict[str, float]:
        """torch's times by layout."""
        return self.peers.get("torch", {})

    @property
    def ratio_torch(self) -> float | None:
        """To torch's better layout."""
        return min(self.torch.values()) / self.seconds if self.torch else None

    @property
    def best_peer(self) -> str | None:
        """The name of the quickest."""
        return min(self.peers, key=lambda peer: min(self.peers[peer].values()), default=None)

    @property
    def ratio(self) -> float | None:
        """To the best peer."""
        return None if self.best_peer is None else min(self.peers[self.best_peer].values()) / self.seconds

    @property
    def gflops(self) -> float:
        """Operations of direct summation in the time taken, 1e9 per second."""
        return self.flops / self.seconds / 1e9

    def merged(self, again: Result) -> Result:
        """What is known after a second measurement: of every time, the lesser."""
        peers = {peer: dict(variants) for peer, variants in self.peers.items()}
        for peer, variants in again.peers.items():
            known = peers.setdefault(peer, {})
            for variant, seconds in variants.items():
                known[variant] = min(seconds, known.get(variant, seconds))
        return replace(self, seconds=min(self.seconds, again.seconds), peers=peers)

    def beside(self, machine: Machine) -> Result:
        """With its share of the roofline."""
        least = machine.least_seconds(self.dtype, self.threads, self.flops, self.bytes)
        return replace(self, roofline=None if least is None else least / self.seconds)


def geometric_mean(values: Iterable[float]) -> float:
    """NaN for no values."""
    logarithms = [math.log(value) for value in values]
    return math.exp(math.fsum(logarithms) / len(logarithms)) if logarithms else math.nan


@dataclass(frozen=True)
class Summary:
    """Ratios of a set of cases."""

    cases: int
    mean: float  #: geometric
    worst: float
    slower: int  #: cases below 1

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Summary:
        return cls(
            len(ratios), geometric_mean(ratios), min(ratios, default=math.nan), sum(ratio < 1 for ratio in ratios)
        )


#: The ratio that a table is about.
Ratio = Callable[[Result], float | None]


def to_torch(result: Result) -> float | None:
    return result.ratio_torch


def to_best_peer(result: Result) -> float | None:
    return result.ratio


def summaries(results: Iterable[Result], key: Callable[[Result], Any], ratio: Ratio = to_torch) -> dict[Any, Summary]:
    """A summary for each value of the key, in the order in which they first occur."""
    ratios: dict[Any, list[float]] = defaultdict(list)
    for result in results:
        value = ratio(result)
        if value is not None:
            ratios[key(result)].append(value)
    return {value: Summary.of(found) for value, found in ratios.items()}


def worst(results: Iterable[Result], count: int, ratio: Ratio = to_torch) -> list[Result]:
    """The cases with the lowest ratios, the lowest first."""
    compared = [result for result in results if ratio(result) is not None]
    return sorted(compared, key=ratio)[:count]  # type: ignore[arg-type]


def write_json(file: Path, results: Sequence[Result], information: dict[str, Any]) -> None:
    """The results, a line each, and whatever else the reader needs to know."""
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in information.items()]
    rows = ",\n".join(json.dumps({**asdict(result), **_derived(result)}) for result in results)
    file.write_text("{" + ",\n".join([*lines, f'"results": [\n{rows}\n]']) + "}\n")


_DERIVED = ("ratio_torch", "best_peer", "ratio", "gflops")


def _derived(result: Result) -> dict[str, Any]:
    """What other programs that read the file should not have to work out."""
    return {name: getattr(result, name) for name in _DERIVED}


def read_json(file: Path) -> tuple[list[Result], dict[str, Any]]:
    """The results and the information of a file that `write_json` wrote."""
    information = json.loads(file.read_text())
    rows = information.pop("results")
    for row in rows:
        for name in _DERIVED:
            row.pop(name, None)
        row["kernel_size"], row["channels"] = tuple(row["kernel_size"]), tuple(row["channels"])
    return [Result(**row) for row in rows], information


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.3f}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


_HEADER = (
    f"{'network':<15} {'layer':<27} {'shape':<30} {'N':>3} {'type':<4} {'T':>2} {'pass':<11} {'layout':<13} "
    f"{'ms':>9} {'torch':>9} {'torch CL':>9} {'best peer':<18} {'/torch':>7} {'/best':>6} {'GF/s':>7} {'roof':>5} "
    f"{'work kB':>8}  kernel"
)


def table_header() -> str:
    """Above `table_line`."""
    return _HEADER


def table_line(result: Result) -> str:
    """A case, in a line."""
    best = ""
    if result.best_peer is not None:
        seconds = min(result.peers[result.best_peer].values())
        best = f"{result.best_peer} {_time(seconds)}"
    roofline = "-" if result.roofline is None else f"{result.roofline:.0%}"
    return (
        f"{result.network:<15} {result.layer:<27} {result.shape:<30} {result.batch:>3} {result.dtype:<4} "
        f"{result.threads:>2} {result.pass_name:<11} {result.layout:<13} {_time(result.seconds):>9} "
        f"{_time(result.torch.get('contiguous')):>9} {_time(result.torch.get('channels_last')):>9} {best:<18} "
        f"{_number(result.ratio_torch):>7} {_number(result.ratio):>6} {result.gflops:>7.1f} {roofline:>5} "
        f"{result.workspace_bytes / 1e3:>8.0f}  {result.kernel}"
    )


def summary_lines(title: str, table: dict[Any, Summary]) -> list[str]:
    """A small table of geometric means and worst ratios."""
    lines = [f"{title:<28} {'cases':>6} {'mean':>6} {'worst':>6} {'below 1':>8}"]
    for key, summary in table.items():
        name = " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
        lines.append(f"{name:<28} {summary.cases:>6} {summary.mean:>6.2f} {summary.worst:>6.2f} {summary.slower:>8}")
    return lines


def summary_text(results: Sequence[Result]) -> str:
    """Everything that is said at the end of a run."""
    blocks = []
    by_network = summaries(results, lambda result: (result.network, result.pass_name))
    by_dtype = summaries(results, lambda result: (result.dtype, result.pass_name))
    blocks.append(summary_lines("to torch's better layout", by_network))
    if len({result.network for result in results}) > 1:
        blocks.append(summary_lines("by dtype", by_dtype))
        blocks.append(summary_lines("by pass", summaries(results, lambda result: result.pass_name)))
    blocks.append(summary_lines("all", summaries(results, lambda _: "to torch")))
    peers = summaries(results, lambda _: "to the best peer", to_best_peer)
    if any(len(result.peers) > 1 for result in results):
        blocks[-1] += summary_lines("", peers)[1:]
    blocks.append(["the ten worst cases, to torch", table_header(), *map(table_line, worst(results, 10))])
    if any(len(result.peers) > 1 for result in results):
        lowest = worst(results, 10, to_best_peer)
        blocks.append(["the ten worst cases, to the best peer", table_header(), *map(table_line, lowest)])
    return "\n\n".join("\n".join(block) for block in blocks)
