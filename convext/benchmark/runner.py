"""Runs jobs: convext and every peer in turns, and what comes out as results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from convext.benchmark.peers import Peer
from convext.benchmark.report import Result
from convext.benchmark.suite import Job
from convext.benchmark.timing import Cache, Contender, in_turns
from convext.benchmark.workload import Workload

#: Jobs with more arithmetic than this are tried on a part of their rows first.
WORTH_TRYING = 1e8
#: A variant that by this would take longer, and much longer than another of its peer, is left out.
LONG = 0.3
#: What takes longer, and many times the quickest, is called once and not again.
SHORT = 0.02
MANY = 4


@dataclass
class _Measured:
    """The contenders of a job, and why some are missing."""

    ours: dict[str, Contender] = field(default_factory=dict)
    peers: dict[str, dict[str, Contender]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def best(self, peer: str) -> Contender:
        return min(self.peers[peer].values(), key=lambda contender: contender.best)

    def best_peer(self) -> str | None:
        return min(self.peers, key=lambda peer: self.best(peer).best, default=None)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class Runner:
    """Keeps the tensors of the last job, since the next often needs the same."""

    def __init__(self, peers: Sequence[Peer], cache: Cache | None = None) -> None:
        self._peers = peers
        self._cache = cache
        self._workload: Workload | None = None
        self._tensors: tuple[object, ...] | None = None

    def run(self, job: Job, seconds: float) -> list[Result]:
        """One result for each layout, measured in about so many seconds where one call does not take longer."""
        torch.set_num_threads(job.threads)
        if self._workload is None or self._tensors != job.tensors:
            self._workload = None  # the old tensors go before the new ones come
            self._workload, self._tensors = Workload.of(job), job.tensors
        measured = _Measured()
        estimates = self._estimates(job)
        self._enter_contenders(job, self._workload, estimates, measured)
        contenders = list(measured.ours.values()) + [c for peer in measured.peers.values() for c in peer.values()]
        quickest = min(contender.best for contender in contenders)
        in_turns([c for c in contenders if c.best < max(SHORT, MANY * quickest)], seconds, self._cache)
        for ours in measured.ours.values():
            self._measure_again(ours, measured)
        return [self._result(job, layout, measured) for layout in job.layouts]

    def _functions(
        self, job: Job, workload: Workload, left_out: dict[str, str]
    ) -> Iterator[tuple[str, str, str, Callable[[], object]]]:
        """(peer or "", layout or variant, pool, function) of everything that can do the job."""
        for layout in job.layouts:
            yield "", layout, "torch", workload.ours(job.pass_name, layout)
        for peer in self._peers:
            reason = peer.why_not(job)
            if reason is not None:
                left_out[peer.name] = reason
                continue
            try:
                variants = peer.variants(job, workload)
            except Exception as error:  # whatever a peer raises leaves it out and stops nothing
                left_out[peer.name] = _first_line(error)
                continue
            for variant, function in variants.items():
                yield peer.name, variant, peer.pool, function

    def _estimates(self, job: Job) -> dict[str, float]:
        """What each will about take, for a job that is not small."""
        if job.flops < WORTH_TRYING:
            return {}
        part = job.shrunk()
        scale = job.flops / part.flops
        costly = [peer.name for peer in self._peers if not peer.quick_to_prepare]
        estimates = {}
        runner = Runner([peer for peer in self._peers if peer.name not in costly])
        for owner, variant, pool, function in runner._functions(part, Workload.of(part), {}):
            contender = Contender(f"{owner} {variant}", function, pool)
            with suppress(Exception):  # the job itself will say why
                contender.run(1)
                estimates[contender.name] = contender.run(1) * scale
        return estimates

    def _enter_contenders(self, job: Job, workload: Workload, estimates: dict[str, float], measured: _Measured) -> None:
        """Calls each function twice, or once where that takes long, and leaves out what is hopeless."""
        for owner, variant, pool, function in self._functions(job, workload, measured.left_out):
            contender = Contender(f"{owner} {variant}", function, pool)
            estimate = estimates.get(contender.name, 0.0)
            siblings = [value for name, value in estimates.items() if name.split(" ")[0] == owner]
            if owner and estimate > LONG and estimate > MANY * min(siblings):
                measured.left_out[contender.name] = f"would take about {estimate:.1f} s"
                continue
            try:
                if contender.run(1) < LONG / 2:
                    contender.run(1)
            except Exception as error:
                if not owner:
                    raise
                measured.left_out[contender.name] = _first_line(error)
                continue
            if owner:
                measured.peers.setdefault(owner, {})[variant] = contender
            else:
                measured.ours[variant] = contender

    def _measure_again(self, ours: Contender, measured: _Measured) -> None:
        """A case that convext loses is measured again, alone with the best peer, up to three times."""
        for _ in range(3):
            peer = measured.best_peer()
            if peer is None:
                return
            theirs = measured.best(peer)
            if theirs.best >= ours.best or theirs.best + ours.best > LONG:
                return
            in_turns([ours, theirs], 0.05, self._cache)
            if theirs.best < 0.85 * ours.best:
                return  # no disturbance: it is slower

    def _result(self, job: Job, layout: str, measured: _Measured) -> Result:
        assert self._workload is not None
        plan = self._workload.plan(job.pass_name, layout)
        return Result(
            network=job.layer.network,
            layer=job.layer.name,
            shape=str(job.layer),
            kernel_size=job.layer.kernel,
            channels=(job.layer.in_channels, job.layer.out_channels),
            groups=job.layer.groups,
            batch=job.batch,
            dtype=job.dtype,
            pass_name=job.pass_name,
            threads=job.threads,
            layout=layout,
            seconds=measured.ours[layout].best,
            peers={
                peer: {variant: contender.best for variant, contender in variants.items()}
                for peer, variants in measured.peers.items()
            },
            left_out=measured.left_out,
            flops=plan.flops,
            bytes=plan.bytes,
            workspace_bytes=plan.workspace_bytes,
            kernel=plan.kernel,
        )


def allowances(jobs: Sequence[Job], contenders: int, seconds: float, most: float) -> Iterator[float]:
    """Seconds for each job, shared out by what a job costs; what one leaves or overdraws goes to those after it."""
    costs = [0.05 + contenders * (0.03 + 4 * job.flops / 60e9) for job in jobs]
    left, deadline = math.fsum(costs), time.perf_counter() + seconds
    for cost in costs:
        share = (deadline - time.perf_counter()) * cost / left
        yield max(0.0, min(most, 0.6 * share))  # the rest goes into making tensors and first calls
        left -= cost
