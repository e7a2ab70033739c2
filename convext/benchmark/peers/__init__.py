"""The libraries that convext is compared with. Each is imported only when it is asked for, and left out, with the
reason, where it is not installed or cannot do a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from convext.benchmark.suite import Job
from convext.benchmark.workload import Workload


class Peer(Protocol):
    """Another library."""

    name: str
    pool: str  #: whose threads it runs on
    version: str
    quick_to_prepare: bool  #: whether trying it on a part of a job costs little

    def why_not(self, job: Job) -> str | None:
        """Why it cannot do the job, or None."""

    def variants(self, job: Job, workload: Workload) -> dict[str, Callable[[], object]]:
        """The ways in which it can do the job, by name; the quickest counts. Runs on as many threads as the job."""


#: Each peer's module here, and the packages that it needs.
PEERS = {
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "opencv": ("cv2",),
    "scipy": ("scipy",),
    "jax": ("jax",),
}
#: What is timed unless the user says otherwise: compiling every case for XLA would take longer than all the rest.
DEFAULT_PEERS = ("torch", "onnxruntime", "opencv", "scipy")


def load(names: Sequence[str]) -> tuple[list[Peer], dict[str, str]]:
    """The peers of these names, and for those that cannot be had the reason."""
    peers: list[Peer] = []
    missing: dict[str, str] = {}
    for name in names:
        if name not in PEERS:
            raise ValueError(f"there is no peer {name!r}; there are: {', '.join(PEERS)}")
        absent = [package for package in PEERS[name] if find_spec(package) is None]
        if absent:
            missing[name] = f"{' and '.join(absent)} cannot be imported"
            continue
        peers.append(import_module(f"convext.benchmark.peers.{name}_peer").make())
    return peers, missing
