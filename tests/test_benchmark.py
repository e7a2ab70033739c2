"""The benchmark's files of shapes, its bookkeeping and its output. How long anything takes decides nothing here."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import convext
from convext.__main__ import main
from convext.benchmark import peers, report, runner, shapes, suite, timing
from convext.benchmark.machine import COPY_SIZES, Machine
from convext.benchmark.report import Result, Summary
from convext.benchmark.shapes import Layer
from convext.benchmark.suite import Job, Selection
from convext.benchmark.workload import Workload, in_layout
from convext.cli import bench

LAYERS = [layer for layers in shapes.networks().values() for layer in layers]
FAKE_MACHINE = Machine({("f32", 1): 1e11, ("f64", 1): 5e10}, {1: dict.fromkeys(COPY_SIZES, 1e10)})
MEASURED = FAKE_MACHINE.bandwidth[1]


def small_layer(**changes: Any) -> Layer:
    values: dict[str, Any] = {
        "network": "tiny",
        "name": "layer",
        "in_channels": 4,
        "out_channels": 6,
        "size": (9, 11),
        "kernel": (3, 2),
        "stride": (2, 1),
        "padding": (1, 0),
        "dilation": (1, 2),
        "groups": 2,
        "batches": (1, 3),
        "dtypes": ("f32", "f64"),
        "threads": ("1", "all"),
    }
    return Layer(**{**values, **changes})


FILTER = small_layer(
    in_channels=3, out_channels=3, groups=3, kernel=(5, 7), padding=(2, 3), stride=(1, 1), dilation=(1, 1)
)


def result(**changes: Any) -> Result:
    values: dict[str, Any] = {
        "network": "tiny",
        "layer": "layer",
        "shape": "4->6",
        "kernel_size": (3, 3),
        "channels": (4, 6),
        "groups": 1,
        "batch": 1,
        "dtype": "f32",
        "pass_name": "forward",
        "threads": 1,
        "layout": "contiguous",
        "seconds": 1.0,
        "peers": {"torch": {"contiguous": 2.0, "channels_last": 3.0}},
        "left_out": {},
        "flops": 1e9,
        "bytes": 1000,
        "workspace_bytes": 0,
        "kernel": "reference/baseline",
    }
    return Result(**{**values, **changes})


class TestShapes:
    def test_there_are_enough_and_names_are_unique(self):
        assert len({layer.shape for layer in LAYERS}) >= 250
        names = [(layer.network, layer.name) for layer in LAYERS]
        assert len(set(names)) == len(names)

    @pytest.mark.parametrize("network", shapes.networks())
    def test_every_row_is_a_problem_that_torch_takes(self, network):
        for layer in shapes.networks()[network]:
            assert set(layer.dtypes) <= set(shapes.DTYPES) and layer.batches and layer.dtypes, layer
            assert all(text == "all" or text.isdigit() for text in layer.threads), layer
            image = torch.empty((layer.batches[0], layer.in_channels, *layer.size), device="meta")
            weight = torch.empty(layer.weight_shape, device="meta")
            output = F.conv2d(image, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
            assert output.shape == (layer.batches[0], layer.out_channels, *layer.output_size), layer

    def test_parsing(self):
        text = """# a comment

        layer, in, out, size,  kernel, stride, padding, dilation, groups, batch, dtype,   threads
        one  ,  4,   6, 9x11,  3x2,    2x1,    1x0,     1x2,      2,      1 3,   f32 f64, 1 all"""
        assert shapes.parse("tiny", (line.strip() for line in text.splitlines())) == [small_layer(name="one")]

    def test_text(self):
        assert str(small_layer()) == "4->6 9x11 k3x2 s2x1 p1x0 d1x2 g2"


class TestSuite:
    def test_by_default_extra_dtypes_and_threads_have_the_first_batch_only(self, monkeypatch):
        monkeypatch.setattr(suite, "networks", lambda: {"tiny": [small_layer()]})
        jobs = suite.jobs(Selection(passes=["forward"]), available_threads=2)
        assert [(job.batch, job.dtype, job.threads) for job in jobs] == [
            *((1, "f32", 1), (1, "f32", 2), (3, "f32", 2)),
            (1, "f64", 2),
        ]

    def test_what_is_asked_for_replaces_what_the_file_says(self, monkeypatch):
        monkeypatch.setattr(suite, "networks", lambda: {"tiny": [small_layer()]})
        jobs = suite.jobs(Selection(dtypes=["f16"], batches=[5, 7], threads=[3], passes=["grad_input"]), 2)
        assert [(job.batch, job.dtype, job.threads) for job in jobs] == [(5, "f16", 3), (7, "f16", 3)]

    def test_integers_have_no_gradients(self, monkeypatch):
        monkeypatch.setattr(suite, "networks", lambda: {"tiny": [small_layer()]})
        jobs = suite.jobs(Selection(dtypes=["i32"]), 1)
        assert {job.pass_name for job in jobs} == {"forward"}

    def test_there_are_enough_cases(self):
        jobs = suite.jobs(Selection(), 2)
        assert sum(len(job.layouts) for job in jobs) >= 1000
        assert {job.threads for job in jobs} == {1, 2}
        assert {job.dtype for job in jobs} == set(shapes.DTYPES)

    def test_unknown_networks_are_refused(self):
        with pytest.raises(ValueError, match="there is no network 'nothing'"):
            suite.jobs(Selection(networks=["nothing"]), 1)

    @pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.network}-{layer.name}")
    def test_a_part_of_a_job_is_a_valid_problem(self, layer):
        part = Job(layer, 8, "f32", 1, "forward").shrunk()
        assert min(part.layer.output_size) >= 1 and part.flops <= 8 * layer.flops


class TestWorkload:
    def test_channels_last_is_real_with_one_channel(self):
        assert in_layout(torch.rand(1, 1, 4, 6), "channels_last").stride() == (24, 1, 6, 1)
        assert in_layout(torch.rand(1, 1, 4, 6), "contiguous").stride() == (24, 24, 6, 1)

    @pytest.mark.parametrize("pass_name", suite.PASSES)
    @pytest.mark.parametrize("name", peers.PEERS)
    @pytest.mark.parametrize("layer", [small_layer(), FILTER, small_layer(kernel=(1, 1), groups=1)], ids=str)
    def test_peers_compute_the_same(self, name, pass_name, layer):
        found, missing = peers.load([name])
        if missing:
            pytest.skip(missing[name])
        job = Job(layer, 2, "f32", len(os.sched_getaffinity(0)) if name == "jax" else 1, pass_name)
        reason = found[0].why_not(job)
        if reason is not None:
            pytest.skip(reason)
        workload = Workload.of(job)
        expected = workload.ours(pass_name, "contiguous")()
        assert torch.allclose(workload.ours(pass_name, "channels_last")(), expected, atol=1e-4)
        for variant, function in found[0].variants(job, workload).items():
            answer = function()
            if name == "torch":
                answer = next(tensor for tensor in answer if tensor is not None) if pass_name != "forward" else answer
            else:
                answer = torch.tensor(__import__("numpy").asarray(answer))
                if variant == "NHWC":
                    answer = answer.permute(3, 2, 0, 1) if pass_name == "grad_weight" else answer.permute(0, 3, 1, 2)
            assert torch.allclose(answer.reshape(expected.shape), expected, atol=1e-4), variant


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def spending(self, seconds: list[float]) -> Any:
        """A function that takes these times in turn, and then the last for ever."""

        def function() -> None:
            self.now += seconds.pop(0) if len(seconds) > 1 else seconds[0]

        return function


class TestTiming:
    @pytest.fixture
    def clock(self, monkeypatch):
        clock = FakeClock()
        monkeypatch.setattr(timing, "time", clock)
        return clock

    def test_the_minimum_of_the_rounds_counts(self, clock):
        contenders = [
            timing.Contender("a", clock.spending([3.0, 1.0, 2.0])),
            timing.Contender("b", clock.spending([5.0, 6.0, 4.0])),
        ]
        timing.in_turns(contenders, seconds=0, cache=None, least_rounds=3)
        assert [contender.best for contender in contenders] == [1.0, 4.0]

    def test_short_functions_are_called_often(self, clock):
        contender = timing.Contender("a", clock.spending([1e-5]))
        contender.run(1)
        before = clock.now
        timing.in_turns([contender], seconds=0, cache=None, least_rounds=1)
        assert clock.now - before == pytest.approx(timing.TURN, rel=0.01)
        assert contender.best == pytest.approx(1e-5)

    def test_cold_calls_are_timed_without_the_eviction(self, clock):
        class Cache(timing.Cache):
            def __init__(self) -> None:
                self.evictions = 0

            def evict(self) -> None:
                self.evictions += 1
                clock.now += 100

        contender, cache = timing.Contender("a", clock.spending([1e-5])), Cache()
        timing.in_turns([contender], seconds=0, cache=cache, least_rounds=4)
        assert cache.evictions == 4
        assert contender.best == pytest.approx(1e-5)


class FakePeer:
    """A peer whose variants take what it is told."""

    name, pool, version, quick_to_prepare = "torch", "torch", "1", True

    def __init__(self, variants: dict[str, Any]) -> None:
        self._variants = variants

    def why_not(self, job: Job) -> str | None:
        return None

    def variants(self, job: Job, workload: Workload) -> dict[str, Any]:
        return self._variants


class TestRunner:
    @pytest.fixture
    def clock(self, monkeypatch):
        clock = FakeClock()
        monkeypatch.setattr(timing, "time", clock)
        return clock

    def run(self, monkeypatch, ours: Any, peer: FakePeer) -> list[Result]:
        monkeypatch.setattr(Workload, "ours", lambda self, pass_name, layout: ours)
        return runner.Runner([peer]).run(Job(small_layer(), 1, "f32", 1, "forward"), 0.0)

    def test_the_better_layout_counts(self, monkeypatch, clock):
        peer = FakePeer({"contiguous": clock.spending([0.006]), "channels_last": clock.spending([0.004])})
        results = self.run(monkeypatch, clock.spending([0.001]), peer)
        assert [result.layout for result in results] == ["contiguous", "channels_last"]
        for result in results:
            assert result.seconds == pytest.approx(0.001)
            assert result.torch == pytest.approx({"contiguous": 0.006, "channels_last": 0.004})
            assert result.ratio_torch == result.ratio == pytest.approx(4)
            assert result.gflops == pytest.approx(result.flops / 1e6)

    def test_a_lost_case_is_measured_again(self, monkeypatch, clock):
        disturbed = [0.0065] * 10 + [0.004]  # calls; then the disturbance is over
        peer = FakePeer({"contiguous": clock.spending([0.006])})
        result = self.run(monkeypatch, clock.spending(disturbed), peer)[0]
        assert result.seconds == pytest.approx(0.004)
        assert result.ratio_torch == pytest.approx(1.5)

    def test_a_variant_that_fails_is_left_out_with_the_reason(self, monkeypatch, clock):
        def fail() -> None:
            raise RuntimeError("not implemented\nand more")

        peer = FakePeer({"contiguous": fail, "channels_last": clock.spending([0.002])})
        result = self.run(monkeypatch, clock.spending([0.001]), peer)[0]
        assert result.left_out == {"torch contiguous": "not implemented"}
        assert result.torch == pytest.approx({"channels_last": 0.002})

    def test_without_a_peer_there_is_no_ratio(self, monkeypatch, clock):
        def fail() -> None:
            raise RuntimeError

        result = self.run(monkeypatch, clock.spending([0.001]), FakePeer({"contiguous": fail}))[0]
        assert result.ratio is None and result.ratio_torch is None and result.best_peer is None
        assert report.worst([result], 10) == []
        assert "RuntimeError" in result.left_out["torch contiguous"]
        assert report.table_line(result)

    def test_a_hopeless_variant_is_left_out(self, monkeypatch, clock):
        monkeypatch.setattr(runner, "WORTH_TRYING", 0.0)
        peer = FakePeer({"contiguous": clock.spending([1.0]), "channels_last": clock.spending([0.01])})
        result = self.run(monkeypatch, clock.spending([0.01]), peer)[0]
        assert list(result.torch) == ["channels_last"]
        assert "would take about" in result.left_out["torch contiguous"]

    def test_allowances_share_out_what_is_left(self, monkeypatch):
        clock = FakeClock()
        monkeypatch.setattr(runner, "time", clock)
        jobs = [Job(small_layer(), 1, "f32", 1, "forward")] * 4
        allowances = runner.allowances(jobs, 4, 40.0, 100.0)
        first = next(allowances)
        assert 0 < first < 10
        clock.now = 25.0  # overdrawn: 15 s for the other three
        assert next(allowances) == pytest.approx(first / 2)
        clock.now = 60.0
        assert next(allowances) == 0
        assert next(runner.allowances(jobs, 4, 40.0, 0.5)) == 0.5

    def test_what_was_lost_is_run_once_more(self, monkeypatch):
        jobs = [Job(small_layer(name=name), 1, "f32", 1, "forward") for name in ("won", "lost", "lost by much")]
        first = {"won": 1.0, "lost": 4.0, "lost by much": 8.0}
        runs: list[str] = []

        class FakeRunner(runner.Runner):
            def run(self, job: Job, seconds: float) -> list[Result]:
                runs.append(job.layer.name)
                again = runs.count(job.layer.name) > 1
                return [result(layer=job.layer.name, seconds=0.5 if again else first[job.layer.name])]

        results = bench.measure(jobs, FakeRunner([]), 1, 60.0, 0.0)
        assert runs == ["won", "lost", "lost by much", "lost by much", "lost"]
        assert [(r.layer, r.seconds) for r in results] == [("won", 1.0), ("lost", 0.5), ("lost by much", 0.5)]


class TestReport:
    def test_what_follows_from_the_times(self):
        case = result(seconds=2.0, flops=4e9, peers={"torch": {"a": 3.0, "b": 1.0}, "jax": {"a": 0.5}})
        assert (case.ratio_torch, case.best_peer, case.ratio, case.gflops) == (0.5, "jax", 0.25, 2.0)

    def test_of_two_measurements_the_lesser_times_count(self):
        merged = result(seconds=2.0, peers={"torch": {"a": 3.0, "b": 1.0}}).merged(
            result(seconds=3.0, peers={"torch": {"a": 2.0}, "jax": {"a": 5.0}})
        )
        assert merged.seconds == 2.0 and merged.peers == {"torch": {"a": 2.0, "b": 1.0}, "jax": {"a": 5.0}}

    def test_geometric_mean_and_worst(self):
        ratios = [0.5, 2.0, 8.0]
        assert Summary.of(ratios) == Summary(3, pytest.approx(2.0), 0.5, 1)
        assert math.isnan(report.geometric_mean([]))

    def test_summaries_by_key(self):
        results = [
            result(pass_name="forward", seconds=4.0),
            result(pass_name="forward", seconds=1.0),
            result(pass_name="grad_input", peers={"torch": {"contiguous": 3.0}, "jax": {"NCHW": 1.5}}),
            result(pass_name="grad_input", peers={}),
        ]
        by_pass = report.summaries(results, lambda result: result.pass_name)
        assert by_pass["forward"] == Summary(2, pytest.approx(1.0), 0.5, 1)
        assert by_pass["grad_input"].cases == 1
        assert report.summaries(results[2:], lambda _: "all", report.to_best_peer)["all"].worst == 1.5
        assert [r.ratio_torch for r in report.worst(results, 2)] == [0.5, 2.0]

    def test_json_and_back(self, tmp_path):
        results = [result(), result(peers={}, roofline=0.5, left_out={"jax": "absent"})]
        report.write_json(tmp_path / "results.json", results, {"build": {"version": "0"}})
        assert report.read_json(tmp_path / "results.json") == (results, {"build": {"version": "0"}})

    def test_text_has_the_mean_and_the_worst(self):
        text = report.summary_text([result(seconds=8.0, layer="bad"), result(seconds=0.5, layer="good")])
        assert "1.00   0.25        1" in text
        assert text.index("bad") < text.index("good")


class TestMachine:
    def test_bandwidth_between_measured_sizes(self):
        machine = Machine({("f32", 1): 1e11}, {1: {2**10: 8e9, 2**14: 2e9}})
        assert machine.bandwidth_of(1, 1) == 8e9
        assert machine.bandwidth_of(2**12, 1) == pytest.approx(4e9)
        assert machine.bandwidth_of(2**30, 1) == 2e9

    def test_the_longer_of_arithmetic_and_bytes(self):
        assert FAKE_MACHINE.least_seconds("f32", 1, 1e11, 1) == pytest.approx(1.0)
        assert FAKE_MACHINE.least_seconds("f64", 1, 1, 1e10) == pytest.approx(1.0)
        assert FAKE_MACHINE.least_seconds("i32", 1, 1, 1) is None
        assert result(flops=5e10, bytes=1, seconds=2.0).beside(FAKE_MACHINE).roofline == pytest.approx(0.25)

    def test_the_better_of_two_measurements(self):
        other = Machine({("f32", 1): 2e11}, {2: {1: 1.0}})
        joined = FAKE_MACHINE.joined(other)
        assert joined.peak == {("f32", 1): 2e11, ("f64", 1): 5e10}
        assert joined.bandwidth == {**FAKE_MACHINE.bandwidth, 2: {1: 1.0}}
        assert Machine.from_document(joined.as_document()) == joined

    def test_probes(self):
        machine = Machine.measure([1], seconds=0.01)
        assert machine.peak["f32", 1] > 0 and machine.peak["f64", 1] > 0
        assert all(rate > 0 for rate in machine.bandwidth[1].values())
        assert torch.get_num_threads() == 1
        assert "float32" in str(machine)


class TestCommand:
    @pytest.fixture
    def tiny(self, monkeypatch):
        layers = [
            small_layer(threads=("1",)),
            dataclasses.replace(FILTER, name="filter", threads=("1",), batches=(1,)),
        ]
        grid = [small_layer(network="grid_dense", name=f"{c}", in_channels=c, groups=1) for c in (1, 2)]
        monkeypatch.setattr(suite, "networks", lambda: {"tiny": layers, "grid_dense": grid})
        monkeypatch.setattr(
            Machine, "measure", classmethod(lambda cls, threads: Machine(FAKE_MACHINE.peak, {1: MEASURED}))
        )

    def test_a_run_writes_everything(self, tiny, tmp_path, capsys):
        status = main(
            ["bench", "--minutes", "0.2", "--seconds", "0", "--peer", "torch", "--threads", "1"]
            + ["--output", str(tmp_path)]
        )
        assert status == 0
        results, information = report.read_json(tmp_path / "results.json")
        # f32 with every batch and f64 with the first, in three passes and two layouts
        assert len(results) == 6 * (3 + 2 + 2 * 3)
        assert {(r.dtype, r.batch) for r in results if r.layer == "layer"} == {("f32", 1), ("f32", 3), ("f64", 1)}
        assert all(r.ratio_torch and r.ratio_torch == min(r.torch.values()) / r.seconds for r in results)
        assert information["build"]["version"] and information["peers"]["torch"]
        assert Machine.from_document(information["machine"]).peak == FAKE_MACHINE.peak
        assert "the ten worst cases" in (tmp_path / "table.txt").read_text()
        printed = capsys.readouterr()
        assert "the ten worst cases" in printed.out and "tiny forward" in printed.out

    def test_pictures(self, tiny, tmp_path):
        pytest.importorskip("matplotlib")
        arguments = ["bench", "--seconds", "0", "--minutes", "0.1", "--threads", "1", "--peer", "torch", "--batch", "1"]
        assert main([*arguments, "--output", str(tmp_path)]) == 0
        pictures = {path.name for path in tmp_path.glob("*.png")}
        assert pictures == {"roofline.png", "networks.png", "heat_map_dense.png", "network_tiny.png"}
        assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)

    def test_narrowing_and_cold(self, tiny, tmp_path):
        narrow = ["--network", "tiny", "--filter", "filt", "--pass", "grad_weight", "--dtype", "f64", "--batch", "2"]
        arguments = ["--layout", "channels_last", "--cold", "--seconds", "0", "--peer", "torch", "--threads", "1"]
        assert main(["bench", *narrow, *arguments, "--output", str(tmp_path)]) == 0
        (only,), information = report.read_json(tmp_path / "results.json")
        assert information["cold"]
        assert (only.layer, only.pass_name, only.dtype, only.batch) == ("filter", "grad_weight", "f64", 2)
        assert only.layout == "channels_last"

    def test_results_of_several_runs_are_put_together(self, tiny, tmp_path, capsys):
        information = {"machine": FAKE_MACHINE.as_document()}
        files = [tmp_path / "a.json", tmp_path / "b.json"]
        report.write_json(files[0], [result(layer="one")], information)
        report.write_json(files[1], [result(layer="two", seconds=4.0)], information)
        assert main(["bench", "--show", *map(str, files), "--output", str(tmp_path / "both")]) == 0
        results, _ = report.read_json(tmp_path / "both" / "results.json")
        assert [result.layer for result in results] == ["one", "two"]
        assert "2   1.00   0.50        1" in capsys.readouterr().out
        assert main(["bench", "--show", str(tmp_path / "none.json"), "--output", str(tmp_path / "both")]) == 2

    def test_nothing_left_is_an_error(self, tiny, capsys):
        assert main(["bench", "--filter", "no such layer"]) == 2
        assert main(["bench", "--network", "nothing"]) == 2
        assert "there is no network 'nothing'" in capsys.readouterr().err

    def test_list(self, capsys):
        assert main(["bench", "--list"]) == 0
        printed = capsys.readouterr().out
        assert "resnet50" in printed and "grad_weight" in printed and "onnxruntime" in printed

    def test_a_peer_that_is_not_installed_is_reported(self, monkeypatch):
        monkeypatch.setitem(peers.PEERS, "scipy", ("no_such_package_anywhere",))
        found, missing = peers.load(["torch", "scipy"])
        assert [peer.name for peer in found] == ["torch"]
        assert missing == {"scipy": "no_such_package_anywhere cannot be imported"}


@pytest.mark.parametrize("script", ["cuda", "overhead", "targets"])
def test_scripts_start(script: str) -> None:
    """Beside a file cuda.py, where torch looks for NVIDIA's package of that name."""
    path = Path(__file__).parent.parent / "benchmarks" / f"{script}.py"
    environment = os.environ | {"PYTHONPATH": str(Path(convext.__file__).parent.parent)}
    result = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout
