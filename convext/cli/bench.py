"""``python -m convext bench``: times convext and other libraries on the layers of well-known networks."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

import convext
from convext.benchmark import peers, pictures, report, shapes, suite
from convext.benchmark.machine import Machine
from convext.benchmark.report import Result
from convext.benchmark.runner import Runner, allowances
from convext.benchmark.suite import Job, Selection
from convext.benchmark.timing import Cache, keep_freed_memory

#: With more results than this, the lines of the cases go to the file only.
MOST_LINES = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options; those that narrow take several values."""
    narrow = parser.add_argument_group("narrowing (an axis that is not given has the values of the files of shapes)")
    narrow.add_argument("--network", nargs="+", default=[], metavar="NAME", help="only these; --list shows them")
    narrow.add_argument("--filter", default="", metavar="TEXT", help="only layers whose name contains this")
    narrow.add_argument("--pass", nargs="+", default=[], dest="passes", choices=suite.PASSES, metavar="PASS")
    narrow.add_argument("--dtype", nargs="+", default=[], choices=shapes.DTYPES, metavar="DTYPE")
    narrow.add_argument("--layout", nargs="+", default=[], choices=suite.LAYOUTS, metavar="LAYOUT")
    narrow.add_argument("--batch", nargs="+", default=[], type=int, metavar="N")
    narrow.add_argument("--threads", nargs="+", default=[], type=int, metavar="N")
    narrow.add_argument(
        "--peer", nargs="+", default=[], choices=peers.PEERS, metavar="PEER", help="default: all but jax"
    )
    parser.add_argument("--list", action="store_true", help="show networks, passes, dtypes and peers, and stop")
    parser.add_argument("--minutes", type=float, default=14.0, help="the whole run's time (default: 14)")
    parser.add_argument("--seconds", type=float, default=0.6, help="the most that a case is timed for (default: 0.6)")
    parser.add_argument("--cold", action="store_true", help="evict the caches before every call")
    parser.add_argument(
        "--show", nargs="+", type=Path, metavar="FILE", help="time nothing; put these results.json together"
    )
    parser.add_argument("--output", type=Path, default=Path("convext-bench"), help="folder for JSON, table, pictures")


def run(options: argparse.Namespace) -> int:
    """Runs what the options ask for and returns the exit status."""
    if options.list:
        print_choices()
        return 0
    if options.show:
        return show(options.show, options.output)
    selection = Selection(
        *(options.network, options.filter, options.passes, options.dtype),
        *(options.layout, options.batch, options.threads),
    )
    begin = time.perf_counter()
    try:
        jobs = suite.jobs(selection, torch.get_num_threads())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not jobs:
        print("no case is left; --list shows what there is", file=sys.stderr)
        return 2
    found, missing = peers.load(options.peer or peers.DEFAULT_PEERS)
    for name, reason in missing.items():
        print(f"left out: {name}, since {reason}")
    machine = Machine.measure([job.threads for job in jobs])
    seconds = options.minutes * 60 - (time.perf_counter() - begin) - 10  # for the pictures
    before = torch.get_num_threads()
    keep_freed_memory()
    runner = Runner(found, Cache() if options.cold else None)
    results = measure(jobs, runner, len(found), seconds, options.seconds)
    machine = machine.joined(Machine.measure([job.threads for job in jobs]))
    torch.set_num_threads(before)
    information = {
        "build": convext.build_info(),
        "machine": machine.as_document(),
        "peers": {peer.name: peer.version for peer in found},
        "left_out": missing,
        "cold": options.cold,
    }
    present(results, machine, information, options.output)
    print(f"{time.perf_counter() - begin:.0f} s in all")
    return 0


def show(files: Sequence[Path], folder: Path) -> int:
    """Puts the results of earlier runs together."""
    results: list[Result] = []
    machine, information = Machine({}, {}), dict[str, Any]()
    for file in files:
        try:
            more, information = report.read_json(file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"{file} cannot be read as results: {error}", file=sys.stderr)
            return 2
        results += more
        machine = machine.joined(Machine.from_document(information["machine"]))
    present(results, machine, {**information, "machine": machine.as_document()}, folder)
    return 0


def present(results: Sequence[Result], machine: Machine, information: dict[str, Any], folder: Path) -> None:
    """Prints the summary and writes JSON, table and pictures into the folder."""
    print(machine)
    results = [result.beside(machine) for result in results]
    summary = report.summary_text(results)
    lines = [report.table_header(), *map(report.table_line, results)]
    if len(results) <= MOST_LINES:
        print("\n".join(lines) + "\n")
    print(summary)
    folder.mkdir(parents=True, exist_ok=True)
    report.write_json(folder / "results.json", results, information)
    (folder / "table.txt").write_text("\n".join([str(machine), "", *lines, "", summary]) + "\n")
    try:
        pictures.draw_all(results, machine, folder)
    except ImportError as error:
        print(f"no pictures: {error.name} is not installed")
    print(f"{len(results)} cases written to {folder.resolve()}")


def print_short_table(jobs: Sequence[Job], seconds: float) -> None:
    """Measures beside torch and prints line by line, for those who do not want the whole benchmark."""
    keep_freed_memory()
    runner = Runner(peers.load(["torch"])[0])
    print(f"{jobs[0].threads} thread(s), contiguous input for convext, torch's better layout beside it")
    print(f"{'layer':<26} {'shape':<28} {'convext':>10} {'torch':>10} {'speed-up':>9}  {'GF/s':>6}  kernel")
    ratios = []
    for job in jobs:
        for result in runner.run(job, seconds):
            theirs, ratio = min(result.torch.values()), result.ratio_torch or math.nan
            ratios.append(ratio)
            print(
                f"{result.layer:<26} {result.shape:<28} {result.seconds * 1e3:>7.3f} ms {theirs * 1e3:>7.3f} ms "
                f"{ratio:>8.2f}x  {result.gflops:>6.1f}  {result.kernel}",
                flush=True,
            )
    print(f"geometric mean {report.geometric_mean(ratios):.2f}x, worst {min(ratios):.2f}x")


def print_choices() -> None:
    """What the narrowing options take."""
    for name, layers in shapes.networks().items():
        print(f"{name:<16} {len(layers):>3} layers")
    print(f"passes: {', '.join(suite.PASSES)}\nlayouts: {', '.join(suite.LAYOUTS)}")
    print(f"dtypes: {', '.join(shapes.DTYPES)}\npeers: {', '.join(peers.PEERS)}")


def measure(jobs: Sequence[Job], runner: Runner, peer_count: int, seconds: float, most: float) -> list[Result]:
    """Runs the jobs with a progress bar, and in the time that is left once more those that convext loses, the worst
    first: another moment may be a quieter one. Stops early, with what there is, when interrupted."""
    deadline = time.perf_counter() + seconds
    results: dict[Job, list[Result]] = {}
    with progress_bar(len(jobs)) as bar:
        try:
            for job, allowance in zip(jobs, allowances(jobs, 3 + peer_count, 0.9 * seconds, most), strict=True):
                bar.show(job)
                results[job] = runner.run(job, allowance)
            for job in lost(results):
                if time.perf_counter() > deadline:
                    break
                bar.show(job)
                again = runner.run(job, min(most, 0.1))
                results[job] = [result.merged(other) for result, other in zip(results[job], again, strict=True)]
        except KeyboardInterrupt:
            print("interrupted; these are the cases until here", file=sys.stderr)
    return [result for found in results.values() for result in found]


def lost(results: dict[Job, list[Result]]) -> list[Job]:
    """The jobs with a ratio below 1, the lowest first."""
    lowest = {job: min((r.ratio for r in found if r.ratio is not None), default=1.0) for job, found in results.items()}
    return sorted((job for job in results if lowest[job] < 1), key=lowest.__getitem__)


class Bar(Protocol):
    def show(self, job: Job) -> None:
        """Called before each job."""


class _Lines:
    """Without rich, or where nobody watches: a line for each network."""

    def __init__(self, count: int) -> None:
        self._count, self._done, self._text = count, 0, ""

    def show(self, job: Job) -> None:
        again = self._done >= self._count
        text = "once more what convext loses" if again else job.layer.network
        if text != self._text:
            self._text = text
            print(f"[{min(self._done, self._count)}/{self._count}] {text}", file=sys.stderr, flush=True)
        self._done += 1


@contextmanager
def progress_bar(count: int) -> Iterator[Bar]:
    """rich's, where it is installed and the output is a terminal."""
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield _Lines(count)
        return
    if not sys.stderr.isatty():
        yield _Lines(count)
        return
    from rich.console import Console

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    # Drawn between jobs only: a thread that redraws would run while others are timed.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        task = progress.add_task("", total=count)

        class RichBar:
            done = 0

            def show(self, job: Job) -> None:
                again = "once more " if self.done >= count else ""
                progress.update(task, completed=min(self.done, count), description=f"{again}{job}", refresh=True)
                self.done += 1

        yield RichBar()
        progress.update(task, completed=count, description="", refresh=True)
