"""CONVEXT_VERBOSE: a line for every pass that runs, whichever way the call takes to the kernel."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch

import convext

HEADER = ["convext", "event", "device", "pass", "kernel", "dtype", "layout", "problem", "threads", "result"]


def _output(code: str, level: str | None) -> str:
    """What the code prints in a process of its own, with this value of the variable."""
    environment = {name: value for name, value in os.environ.items() if name != "CONVEXT_VERBOSE"}
    if level is not None:
        environment["CONVEXT_VERBOSE"] = level
    code = "import torch, convext\ntorch.set_num_threads(1)\n" + code
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return process.stdout


def _rows(code: str, level: str) -> list[dict[str, str]]:
    lines = _output(code, level).splitlines()
    assert lines[0].split(",") == HEADER
    rows = list(csv.DictReader(lines))
    for row in rows:
        assert row["convext"] == "convext" and None not in row and None not in row.values(), row
    return rows


@pytest.mark.parametrize("level", [None, "", "0"])
def test_off(level: str | None) -> None:
    assert _output("convext.corr2d(torch.ones(4, 4), torch.ones(2, 2)); print('done')", level) == "done\n"


def test_the_fields() -> None:
    code = """
x = torch.randn(2, 4, 9, 10).contiguous(memory_format=torch.channels_last)
convext.conv2d(x, torch.randn(6, 2, 3, 1), torch.randn(6), (1, 2), ((1, 2), (0, 3)), 2, 2, padding_mode="reflect")
x = torch.ones(1, 1, 5, 5, dtype=torch.uint8)
with convext.force_kernel("reference"):
    convext.conv2d(x, x[..., :2, :2], out_dtype=torch.int32)
"""
    first, second = _rows(code, "1")
    assert float(first.pop("result").removesuffix(" ms")) > 0
    assert first.pop("kernel") in {kernel.qualified_name for kernel in convext.available_kernels()}
    assert first == {
        "convext": "convext",
        "event": "exec",
        "device": "cpu",
        "pass": "forward",
        "dtype": "float32",
        "layout": "channels_last/contiguous/channels_last",
        "problem": "n2 c4 h9 w10 o6 oh8 ow7 k3x1 s1x2 d2x2 p1:2:0:3 g2 reflect bias",
        "threads": "1",
    }
    assert second["kernel"] == "reference/baseline" and second["dtype"] == "uint8>int32"
    assert second["problem"] == "n1 c1 h5 w5 o1 oh4 ow4 k2x2 s1x1 d1x1 p0:0:0:0 g1 zeros"
    assert second["layout"] == "contiguous/strided/contiguous"  # a corner of the image is the weight


def test_every_way_to_a_kernel_prints() -> None:
    code = """
x, w, b = torch.randn(1, 2, 8, 8), torch.randn(3, 2, 3, 3), torch.randn(3)
for way in (
    lambda: convext.conv2d(x, w, b),  # past the dispatcher
    lambda: torch.ops.convext.corr2d(x, w, b),  # the operator
    lambda: torch.vmap(lambda image: convext.conv2d(image, w, b))(x),
    lambda: torch.compile(convext.conv2d, backend="eager")(x, w, b),
):
    print("marker,,,,,,,,,", flush=True)
    way()
print("marker,,,,,,,,,", flush=True)
convext.conv2d(*(tensor.requires_grad_() for tensor in (x, w, b))).sum().backward()
print("marker,,,,,,,,,", flush=True)
torch.compile(convext.conv2d, backend="aot_eager")(x, w, b).sum().backward()
"""
    output = _output(code, "1").splitlines()[1:]
    ways: list[Counter[str]] = []
    for row in csv.DictReader(output, HEADER):
        if row["convext"] == "marker":
            ways.append(Counter())
        else:
            ways[-1][row["pass"]] += 1
            assert row["event"] == "exec" and float(row["result"].removesuffix(" ms")) >= 0
    assert ways[:4] == [Counter(forward=1)] * 4
    assert ways[4:] == [Counter(forward=1, grad_input=1, grad_weight=1, grad_bias=1)] * 2


def test_the_gradient_of_the_bias() -> None:
    (row,) = _rows("torch.ops.convext.corr2d_grad_bias(torch.ones(2, 3, 4, 5, dtype=torch.float64))", "yes")
    assert (row["pass"], row["kernel"], row["dtype"]) == ("grad_bias", "bias_gradient", "float64")
    assert (row["layout"], row["problem"], row["threads"]) == ("contiguous", "n2 o3 oh4 ow5", "1")


def test_level_2_adds_what_explain_says_of_the_other_kernels() -> None:
    x, w = torch.empty(2, 64, 12, 12, device="meta"), torch.empty(64, 64, 3, 3, device="meta")
    code = "convext.conv2d(torch.randn(2, 64, 12, 12), torch.randn(64, 64, 3, 3), padding=1)"
    *rejected, executed = _rows(code, "2")
    plan = convext.explain(x, w, padding=1)["forward"]
    assert executed["event"] == "exec" and executed["kernel"] == plan.kernel
    assert [(row["event"], row["kernel"], row["result"]) for row in rejected] == [
        ("rejected", kernel, reason.replace(",", ";")) for kernel, reason in plan.rejected
    ]
    assert all(row["problem"] == executed["problem"] and row["threads"] == "-" for row in rejected)
    assert len(_rows(code, "1")) == 1


def test_lines_of_several_threads_stay_whole() -> None:
    code = """
import threading
x, w = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 3, 3)
def work():
    for _ in range(200):
        convext.conv2d(x, w)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    executed = [row for row in _rows(code, "2") if row["event"] == "exec"]
    assert len(executed) == 8 * 200
    assert len({(row["kernel"], row["problem"], row["layout"]) for row in executed}) == 1


def test_nothing_is_printed_where_nothing_runs() -> None:
    code = """
convext.conv2d(torch.empty(0, 1, 4, 4), torch.ones(1, 1, 2, 2))
convext.conv2d(torch.empty(1, 1, 4, 4, device="meta"), torch.empty(1, 1, 2, 2, device="meta"))
convext.explain(torch.empty(1, 1, 4, 4), torch.ones(1, 1, 2, 2))
"""
    assert _rows(code, "2") == []


@pytest.mark.skipif(not convext.available_kernels("cuda"), reason="needs a GPU")
def test_on_a_gpu_the_time_is_not_known() -> None:
    code = """
x = torch.randn(1, 2, 8, 8, device="cuda")
layer = convext.Conv2D(2, 3, 3, device="cuda")
layer(x).sum().backward()
"""
    rows = _rows(code, "1")
    assert [row["pass"] for row in rows] == ["forward", "grad_weight", "grad_bias"]
    assert all(row["device"] == "cuda:0" and row["result"] == row["threads"] == "-" for row in rows)
