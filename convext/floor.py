"""The least time that a pass can take on this machine's CPU, from two rates that are measured when asked for.

A pass must do its FLOPs, at no more than the peak of the multiply-add units, and must move its bytes, at no more than
the bandwidth of a copy. Whichever takes longer is the floor (the roofline model).

Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52 (2009).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch

#: Bytes moved by the copies that are timed: the power of two next to what a pass moves, between these.
LEAST_COPY, MOST_COPY = 2**17, 2**27
#: Seconds for each of the two rates.
SECONDS = 0.03

#: Which peak a dtype is computed at, where that is not float32's.
PEAKS = {torch.float64: "f64", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Floor:
    """What bounds a pass on this machine, and how."""

    flops_per_second: float | None  #: peak of all threads; None for integers, whose peak is not measured
    bytes_per_second: float  #: read and written by a copy of as many bytes as the pass moves
    flops_seconds: float | None  #: that the FLOPs take at the peak
    bytes_seconds: float  #: that the bytes take at the bandwidth of a copy

    @property
    def seconds(self) -> float:
        """The longer of the two: no kernel that does these FLOPs and moves these bytes takes less."""
        return max(self.flops_seconds or 0.0, self.bytes_seconds)

    @property
    def bound(self) -> str:
        """``"arithmetic"`` or ``"memory"``, whichever takes longer."""
        return "arithmetic" if (self.flops_seconds or 0.0) > self.bytes_seconds else "memory"


def cpu_floor(flops: float, bytes_: int, dtype: torch.dtype, threads: int) -> Floor:
    """Measures what is not known yet, about a tenth of a second, and remembers it for the process.

    Args:
        flops: of the pass, 2 for each multiply-add.
        bytes_: of the tensors that it reads and writes.
        dtype: of the tensors; float32 stands for 16-bit floats, which are computed in it.
        threads: that the pass runs on.

    Example:
        >>> import torch
        >>> from convext.floor import cpu_floor
        >>> cpu_floor(2e9, 1000, torch.float32, 1).bound
        'arithmetic'
    """
    bandwidth = _bandwidth(_copy_size(bytes_), threads)
    peak = threads * _peak(PEAKS.get(dtype, "f32")) if dtype.is_floating_point else None
    return Floor(peak, bandwidth, None if peak is None else flops / peak, bytes_ / bandwidth)


def _copy_size(bytes_: int) -> int:
    return min(MOST_COPY, max(LEAST_COPY, 2 ** round(math.log2(max(1, bytes_)))))


@cache
def _peak(dtype: str) -> float:
    """Of one thread. Threads do arithmetic independently, and a core that something else uses at this moment would
    make little of a quick measurement with all of them."""
    from convext.benchmark.machine import Machine

    return Machine.measure([1], SECONDS, [], [dtype]).peak[dtype, 1]


@cache
def _bandwidth(size: int, threads: int) -> float:
    """Of all threads together, which share the memory; at least that of one."""
    from convext.benchmark.machine import Machine

    measured = Machine.measure([threads], SECONDS, [size], []).bandwidth[threads][size]
    return measured if threads == 1 else max(measured, _bandwidth(size, 1))
