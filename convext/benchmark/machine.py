"""What the machine can do: arithmetic peak and copy bandwidth, measured in the same run as everything else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from convext import _C

#: Bytes read and written by a copy, from what a core's cache holds to what none does.
COPY_SIZES = [2**17, 2**20, 2**22, 2**24, 2**26, 2**28]


#: The dtypes whose peak is measured.
PROBED = {"f32": "float32", "f64": "float64", "bf16": "bfloat16"}


class _Copy:
    """Copies often enough that the clock's resolution does not matter."""

    def __init__(self, size: int) -> None:
        self._source = torch.ones(size // 8)
        self._target = torch.zeros(size // 8)
        self._repeats = max(1, 2**22 // size)
        self.bytes = size * self._repeats

    def __call__(self) -> None:
        for _ in range(self._repeats):
            self._target.copy_(self._source)


def _least_times(functions: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """The least time of a call of each."""
    best = [math.inf] * len(functions)
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < 5 or time.perf_counter() < deadline:
        for index, function in enumerate(functions):
            function()  # warms caches, and threads
            begin = time.perf_counter()
            function()
            best[index] = min(best[index], time.perf_counter() - begin)
        rounds += 1
    return best


@dataclass(frozen=True)
class Machine:
    """Rates by the number of threads."""

    peak: dict[tuple[str, int], float]  #: operations per second, by dtype ("f32", "f64", "bf16") and threads
    bandwidth: dict[int, dict[int, float]]  #: bytes per second, by threads and by bytes moved

    @classmethod
    def measure(
        cls,
        threads: Sequence[int],
        seconds: float = 0.25,
        copy_sizes: Sequence[int] = COPY_SIZES,
        dtypes: Collection[str] = PROBED.keys(),
    ) -> Machine:
        """Takes about twice the seconds for each number of threads."""
        peak, bandwidth = {}, {}
        before = torch.get_num_threads()
        for count in sorted(set(threads)):
            torch.set_num_threads(count)
            probes = {name: partial(_C.run_fma_probe, PROBED[name], 20_000) for name in dtypes}
            copies = {size: _Copy(size) for size in copy_sizes}
            # In turns, several times over: threads that are new may share a core for a while.
            times = _least_times([*probes.values(), *copies.values()], seconds * 2)
            for (name, probe), time_ in zip(probes.items(), times, strict=False):
                peak[name, count] = probe() / time_
            bandwidth[count] = {
                size: copy.bytes / time_
                for (size, copy), time_ in zip(copies.items(), times[len(probes) :], strict=True)
            }
        torch.set_num_threads(before)
        return cls(peak, bandwidth)

    def peak_of(self, dtype: str, threads: int) -> float | None:
        """None for integers, whose peak is not measured. float16 is computed in float32, and so is bfloat16 where it
        was not measured."""
        if dtype in ("i32", "u8"):
            return None
        return self.peak.get((dtype, threads), self.peak.get(("f32", threads)))

    def bandwidth_of(self, bytes_: float, threads: int) -> float:
        """Copying so many bytes, between the measured sizes on a logarithmic scale."""
        rates = self.bandwidth[threads]
        sizes = sorted(rates)
        if bytes_ <= sizes[0]:
            return rates[sizes[0]]
        for low, high in pairwise(sizes):
            if bytes_ <= high:
                part = math.log(bytes_ / low) / math.log(high / low)
                return rates[low] ** (1 - part) * rates[high] ** part
        return rates[sizes[-1]]

    def least_seconds(self, dtype: str, threads: int, flops: float, bytes_: float) -> float | None:
        """The roofline: what the arithmetic takes at peak, or the bytes at the bandwidth, whichever is longer."""
        peak = self.peak_of(dtype, threads)
        return None if peak is None else max(flops / peak, bytes_ / self.bandwidth_of(bytes_, threads))

    def as_document(self) -> dict[str, Any]:
        """For JSON, which has text for keys."""
        return {
            "peak": [[dtype, threads, rate] for (dtype, threads), rate in self.peak.items()],
            "bandwidth": [
                [threads, size, rate] for threads, rates in self.bandwidth.items() for size, rate in rates.items()
            ],
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Machine:
        """What `as_document` was made of."""
        bandwidth: dict[int, dict[int, float]] = {}
        for threads, size, rate in document["bandwidth"]:
            bandwidth.setdefault(threads, {})[size] = rate
        return cls({(dtype, threads): rate for dtype, threads, rate in document["peak"]}, bandwidth)

    def joined(self, other: Machine) -> Machine:
        """The better of two measurements of the same machine."""
        peak, bandwidth = dict(self.peak), {threads: dict(rates) for threads, rates in self.bandwidth.items()}
        for key, rate in other.peak.items():
            peak[key] = max(rate, peak.get(key, 0.0))
        for threads, rates in other.bandwidth.items():
            mine = bandwidth.setdefault(threads, {})
            for size, rate in rates.items():
                mine[size] = max(rate, mine.get(size, 0.0))
        return Machine(peak, bandwidth)

    def __str__(self) -> str:
        lines = []
        for threads, rates in self.bandwidth.items():
            smallest, largest = min(rates), max(rates)
            lines.append(
                f"{threads} thread(s): FMA peak {self.peak['f32', threads] / 1e9:.0f} GF/s float32, "
                f"{self.peak['f64', threads] / 1e9:.0f} float64; copy {rates[smallest] / 1e9:.0f} GB/s "
                f"({smallest // 1024} KiB) to {rates[largest] / 1e9:.0f} GB/s ({largest // 2**20} MiB)"
            )
        return "\n".join(lines)
