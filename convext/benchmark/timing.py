"""Timing several functions in one process, in turns, so that what disturbs one disturbs the others."""

from __future__ import annotations

import ctypes
import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat

import torch


@dataclass
class Contender:
    """A function, and the best time of a call in seconds so far."""

    name: str
    function: Callable[[], object]
    pool: str = "torch"  #: whose threads it runs on
    best: float = math.inf

    def run(self, calls: int) -> float:
        """Seconds for each of so many calls."""
        function = self.function
        begin = time.perf_counter()
        for _ in repeat(None, calls):
            function()
        elapsed = (time.perf_counter() - begin) / calls
        self.best = min(self.best, elapsed)
        return elapsed


#: Threads of one pool may spin for a while after their work and take a core from the next.
POOL_CHANGE = 0.015
#: A turn takes at least so long, in calls of one contender.
TURN = 0.004


@contextmanager
def quiet() -> Iterator[None]:
    """Without the garbage collector."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def keep_freed_memory() -> None:
    """Has malloc (glibc's) give nothing back to the system, for all contenders alike.

    Else a result's pages may be mapped and cleared anew in every call, which can take longer than computing it, and
    it depends on what else lies on the heap whose calls those are.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_mmap_max, 0)


class Cache:
    """Evicts what the CPU's caches hold, for cold timings."""

    def __init__(self, bytes_: int = 256 * 2**20) -> None:
        self._buffer = torch.ones(bytes_ // 4)

    def evict(self) -> None:
        """Reads and writes more than any cache holds."""
        self._buffer.add_(1.0)


def in_turns(contenders: Sequence[Contender], seconds: float, cache: Cache | None, least_rounds: int = 2) -> None:
    """Times all of them, round after round, until the seconds are used up; at least so many rounds.

    Each contender keeps the minimum over the rounds. With a cache to evict, each call is timed for itself.
    """
    threads = torch.get_num_threads()
    deadline = time.perf_counter() + seconds
    pool = contenders[0].pool
    with quiet():
        rounds = 0
        while rounds < least_rounds or (rounds < 50 and time.perf_counter() < deadline):
            for contender in contenders:
                if contender.pool != pool and threads > 1:
                    time.sleep(POOL_CHANGE)
                pool = contender.pool
                if cache is not None:
                    cache.evict()
                    contender.run(1)
                    continue
                if contender.best < TURN:
                    contender.function()  # warms what the others have cooled
                calls = max(1, min(10_000, round(TURN / contender.best))) if math.isfinite(contender.best) else 1
                contender.run(calls)
            rounds += 1
