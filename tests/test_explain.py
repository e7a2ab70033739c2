"""`explain` as a text, the floor of the machine, measured times, and the command line."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

import convext
from convext import _explanation_text, floor
from convext.__main__ import main
from convext.floor import Floor, cpu_floor


def _meta(*sizes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(sizes, dtype=dtype, device="meta")


def test_the_text_says_what_was_asked_and_why() -> None:
    x = _meta(8, 64, 56, 56).contiguous(memory_format=torch.channels_last)
    plan = convext.explain(x, _meta(64, 64, 3, 3), _meta(64), padding=1)
    text = str(plan)
    assert text.startswith(
        "conv2d: input (8, 64, 56, 56), weight (64, 64, 3, 3), padding 1, bias, float32, channels_last\n"
        "output shape: (8, 64, 56, 56)\n"
    )
    for row in plan.passes:
        (section,) = re.findall(rf"^{row.name}: {row.kernel}\n(?:    .*\n)+", text, flags=re.MULTILINE)
        assert "1.85 GFLOP on 13 MB of tensors: 142 FLOP per byte" in section
        assert f"{row.threads} thread" in section
        for kernel, reason in row.rejected:
            (line,) = [line for line in section.splitlines() if kernel in line]
            assert line.endswith(f": {reason}")
    assert "floor" not in text and "measured" not in text
    assert max(len(line) for line in text.splitlines() if "not " not in line) <= _explanation_text.WIDTH


def test_a_kernel_that_has_no_words_is_printed_with_its_description() -> None:
    plan = convext.explain(_meta(1, 3, 8, 8), _meta(4, 3, 3, 3))
    row = dataclasses.replace(plan["forward"], kernel="brand_new/avx2", description="a kernel of tomorrow")
    assert "    a kernel of tomorrow\n" in str(dataclasses.replace(plan, passes=(row,)))


def test_half_empty_vectors_give_way_to_narrower_ones() -> None:
    x = _meta(1, 8, 28, 28).contiguous(memory_format=torch.channels_last)
    row = convext.explain(x, _meta(8, 8, 5, 5), padding=2)["forward"]
    assert row.kernel != "grouped/avx512"
    if "half of its lanes" in dict(row.rejected).get("grouped/avx512", ""):
        assert row.kernel == "grouped/avx2"


def test_explain_alone_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convext.benchmark.machine.Machine, "measure", lambda *_: pytest.fail("it measured"))
    row = convext.explain(_meta(2, 3, 8, 8), _meta(4, 3, 3, 3))["forward"]
    assert row.floor is None and row.measured_seconds is None and row.share_of_floor is None
    assert row.intensity == row.flops / row.bytes


def test_the_floor_is_the_longer_of_arithmetic_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "_peak", lambda dtype: {"f32": 2e9, "f64": 1e9, "bf16": 4e9}[dtype])
    monkeypatch.setattr(floor, "_bandwidth", lambda size, threads: 1e9)
    assert cpu_floor(1e9, 10**8, torch.float16, 1) == Floor(2e9, 1e9, 0.5, 0.1)
    assert cpu_floor(1e9, 10**8, torch.bfloat16, 1) == Floor(4e9, 1e9, 0.25, 0.1)
    assert cpu_floor(1e9, 10**8, torch.float64, 4).flops_seconds == 0.25  # four threads
    arithmetic, memory = cpu_floor(1e9, 10**8, torch.float32, 1), cpu_floor(1e7, 10**8, torch.float32, 1)
    assert (arithmetic.bound, arithmetic.seconds) == ("arithmetic", 0.5)
    assert (memory.bound, memory.seconds) == ("memory", 0.1)
    integers = cpu_floor(1e12, 10**8, torch.uint8, 1)
    assert integers.flops_seconds is None and (integers.bound, integers.seconds) == ("memory", 0.1)

    plan = convext.explain(_meta(8, 64, 56, 56), _meta(64, 64, 1, 1), floor=True)
    assert "bound by arithmetic: arithmetic takes 103 ms at " in str(plan)
    plan = convext.explain(_meta(1, 1, 64, 64, dtype=torch.int32), _meta(1, 1, 3, 3, dtype=torch.int32), floor=True)
    assert "the peak of integer arithmetic is not measured" in " ".join(str(plan).split())


def test_the_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    measure = convext.benchmark.machine.Machine.measure

    def counted(*args: object) -> convext.benchmark.machine.Machine:
        calls.append(args)
        return measure(*args)

    floor._peak.cache_clear()
    floor._bandwidth.cache_clear()
    monkeypatch.setattr(convext.benchmark.machine.Machine, "measure", counted)
    threads = torch.get_num_threads()
    first = convext.explain(_meta(1, 3, 40, 40), _meta(4, 3, 3, 3), floor=True)
    assert len(calls) == 2  # peak and bandwidth, for three passes
    assert convext.explain(_meta(1, 3, 40, 40), _meta(4, 3, 3, 3), floor=True) == first and len(calls) == 2
    assert torch.get_num_threads() == threads
    found = first["forward"].floor
    assert found is not None and found.flops_per_second is not None
    assert found.flops_per_second > 1e8 and found.bytes_per_second > 1e7


@pytest.mark.parametrize(
    ("x", "w", "settings"),
    [
        (torch.randn(2, 4, 12, 10), torch.randn(6, 2, 3, 3), {"groups": 2, "stride": (2, 1), "padding": 1}),
        (_meta(3, 9, 9, dtype=torch.bfloat16), _meta(4, 3, 3, 3, dtype=torch.bfloat16), {"padding": "same"}),
        (_meta(1, 2, 9, 9, dtype=torch.complex64), _meta(3, 2, 3, 3, dtype=torch.complex64), {}),
        (torch.ones(1, 1, 1, 1).expand(1, 2, 9, 9), torch.randn(3, 2, 3, 3), {"dilation": 2}),
        (_meta(1, 1, 9, 9, dtype=torch.int8), _meta(1, 1, 3, 3, dtype=torch.int8), {"out_dtype": torch.int32}),
        (_meta(0, 3, 9, 9), _meta(4, 3, 3, 3), {}),
    ],
)
def test_measured(x: torch.Tensor, w: torch.Tensor, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convext._pass_timing.SECONDS", 0.0)
    state = torch.get_rng_state()
    plan = convext.explain(x, w, **settings, measure=True)
    assert torch.equal(torch.get_rng_state(), state)
    for row in plan.passes:
        assert row.measured_seconds is not None and 0 < row.measured_seconds < 10
        assert row.floor is not None and row.share_of_floor == row.floor.seconds / row.measured_seconds
        assert f"{row.share_of_floor:.0%} of the speed that the floor allows" in str(plan)


def test_what_is_measured_is_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators that run, and on what."""
    monkeypatch.setattr("convext._pass_timing.SECONDS", 0.0)
    calls: dict[str, list[tuple]] = {}
    for name in ("corr2d", "corr2d_grad_input", "corr2d_grad_weight"):
        function = getattr(convext.autograd, name)

        def record(*args, name=name, function=function):  # type: ignore[no-untyped-def]
            calls.setdefault(name, []).append(args)
            return function(*args)

        monkeypatch.setattr(convext.autograd, name, record)
    x = _meta(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    convext.explain(x, _meta(6, 2, 3, 3), None, 2, 1, groups=2, measure=True)
    assert set(calls) == {"corr2d", "corr2d_grad_input", "corr2d_grad_weight"}
    grad, weight, size, geometry, is_channels_last = calls["corr2d_grad_input"][0]
    assert grad.shape == (2, 6, 4, 4) and weight.shape == (6, 2, 3, 3) and size == (8, 8) and is_channels_last
    assert geometry == ((2, 2), (1, 1, 1, 1), (1, 1), 2, "zeros")
    grad, images, kernel, _, is_channels_last = calls["corr2d_grad_weight"][0]
    assert images.stride() == x.stride() and kernel == (3, 3) and is_channels_last


def test_on_a_gpu_the_floor_is_not_known() -> None:
    plan = convext.explain(_meta(1, 3, 8, 8), _meta(4, 3, 3, 3))
    row = dataclasses.replace(plan["forward"], kernel="generic/cuda", threads=0, floor_is_unknown=True)
    text = str(dataclasses.replace(plan, passes=(row,)))
    assert "floor     not known: neither peak nor bandwidth of a GPU is measured here" in text
    assert "the GPU, with" in text


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "explain --input 8,64,56,56 --weight 64,32,3,3 --stride 1 --padding 1 --dilation 2,1 --groups 2"
    assert main([*arguments.split(), "--channels-last", "--dtype", "bfloat16", "--bias"]) == 0
    x, w = _meta(8, 64, 56, 56, dtype=torch.bfloat16), _meta(64, 32, 3, 3, dtype=torch.bfloat16)
    x, w = x.contiguous(memory_format=torch.channels_last), w.contiguous(memory_format=torch.channels_last)
    plan = convext.explain(x, w, _meta(64, dtype=torch.bfloat16), padding=1, dilation=(2, 1), groups=2)
    assert capsys.readouterr().out == f"{plan}\n"

    threads = torch.get_num_threads()
    arguments = "explain --input 3,9,9 --weight 4,3,3,3 --padding 1,0,2,1 --measure --threads 1"
    assert main(arguments.split()) == 0
    printed = capsys.readouterr().out
    assert "padding ((1, 0), (2, 1))" in printed and printed.count("measured  ") == 3 and "1 thread, " in printed
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--input 1,3,9,9 --weight 4,2,3,3", "input must have weight.shape"),
        ("--input 9,9 --weight 4,2,3,3", "input must be 3-D or 4-D"),
        ("--input 1,3,9,x --weight 4,3,3,3", "must be integers with commas between, but it is '1,3,9,x'"),
        ("--input 1,3,9,9 --weight 4,3,3,3 --padding circle", "but it is 'circle'"),
        ("--input 1,3,9,9 --weight 4,3,3,3 --threads 0", "positive"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["explain", *arguments.split()])
    except SystemExit as error:
        status = int(error.code or 0)
    captured = capsys.readouterr()
    assert status == 2 and message in captured.err and captured.out == ""
