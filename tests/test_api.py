"""The public surface: names, signatures, introspection, threads, memory, profiler, FLOP counter."""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import convext

PUBLIC = {
    "Conv2D",
    "CrossCorrelation2d",
    "available_kernels",
    "build_info",
    "conv2d",
    "convolve2d",
    "corr2d",
    "explain",
    "float32_precision",
    "force_kernel",
    "reference",
    "replace_conv2d",
    "set_float32_precision",
}


def test_public_names() -> None:
    assert set(convext.__all__) >= PUBLIC
    assert all(hasattr(convext, name) for name in convext.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", convext.__version__)


def test_conv2d_has_torchs_parameters_in_torchs_order() -> None:
    parameters = inspect.signature(convext.conv2d).parameters
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]
    assert [p.default for p in parameters.values()][2:7] == [None, 1, 0, 1, 1]
    x, w, b = torch.randn(2, 4, 6, 7), torch.randn(6, 2, 3, 3), torch.randn(6)
    wanted = F.conv2d(x, w, b, 2, 1, 1, 2)
    torch.testing.assert_close(convext.conv2d(x, w, b, 2, 1, 1, 2), wanted)
    named = {"input": x, "weight": w, "bias": b, "stride": 2, "padding": 1, "dilation": 1, "groups": 2}
    torch.testing.assert_close(convext.conv2d(**named), wanted)


def test_module_has_torchs_parameters_in_torchs_order() -> None:
    ours = [p for p in inspect.signature(convext.Conv2D.__init__).parameters if p != "kernal_size"]
    assert ours == list(inspect.signature(torch.nn.Conv2d.__init__).parameters)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"reference", "CrossCorrelation2d"}))
def test_type_hints(name: str) -> None:
    item = getattr(convext, name)
    function = item.__init__ if inspect.isclass(item) else inspect.unwrap(item)
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.name == "self" or parameter.annotation is not parameter.empty, parameter.name
    assert (Path(convext.__file__).parent / "py.typed").exists()


def test_the_function_by_hand() -> None:
    x = torch.randn(2, 4, 6, 7, dtype=torch.float64, requires_grad=True)
    w = torch.randn(6, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert issubclass(convext.CrossCorrelation2d, torch.autograd.Function)
    output = convext.CrossCorrelation2d.apply(x, w, b, 2, 1, 1, 2)
    torch.testing.assert_close(output, F.conv2d(x, w, b, 2, 1, 1, 2))
    assert torch.autograd.gradcheck(lambda *t: convext.CrossCorrelation2d.apply(*t, 2, 1, 1, 2), (x, w, b))
    reflected = convext.CrossCorrelation2d.apply(x, w, None, 1, (2, 1), 1, 2, "reflect")
    assert torch.equal(reflected, convext.conv2d(x, w, padding=(2, 1), groups=2, padding_mode="reflect"))
    assert torch.equal(convext.CrossCorrelation2d.apply(x, w, None, 1, 0, 1, 2), convext.conv2d(x, w, groups=2))


def test_kernels_are_listed_in_the_order_of_preference() -> None:
    kernels = convext.available_kernels()
    assert kernels[-1].name == "reference"
    assert len({kernel.qualified_name for kernel in kernels}) == len(kernels)
    for kernel in kernels:
        assert kernel.available and kernel.description and kernel.isa
        assert kernel.qualified_name == f"{kernel.name}/{kernel.isa}"
    everything = convext.available_kernels(all_isas=True)
    assert {kernel.qualified_name for kernel in everything} >= {kernel.qualified_name for kernel in kernels}


def test_force_kernel() -> None:
    x, w = torch.randn(1, 2, 8, 8), torch.randn(3, 2, 3, 3)

    def chosen() -> str:
        return convext.explain(x, w)["forward"].kernel

    usual = chosen()
    with convext.force_kernel("reference"):
        assert chosen() == "reference/baseline"
        for kernel in convext.available_kernels():
            with convext.force_kernel(kernel.qualified_name):
                try:
                    assert chosen() == kernel.qualified_name
                except RuntimeError as error:
                    assert kernel.name in str(error)
        assert chosen() == "reference/baseline"
    assert chosen() == usual
    with pytest.raises(ValueError, match="reference"), convext.force_kernel("no_such_kernel"):
        pass
    with pytest.raises(ValueError), convext.force_kernel("reference/no_such_isa"):
        pass
    with pytest.raises(KeyError), convext.force_kernel("reference"):
        raise KeyError
    assert chosen() == usual


def test_a_forced_kernel_that_cannot_run_says_why() -> None:
    x, w = torch.ones(1, 2, 8, 8, dtype=torch.int64), torch.ones(3, 2, 3, 3, dtype=torch.int64)
    refusals = 0
    for kernel in convext.available_kernels():
        with convext.force_kernel(kernel.qualified_name):
            try:
                assert convext.conv2d(x, w).unique().tolist() == [18]
            except RuntimeError as error:
                refusals += 1
                assert re.search(rf"'{kernel.qualified_name}' was forced, but it cannot run .*: .+", str(error))
    assert refusals >= 1


def test_explain() -> None:
    x, w, b = torch.randn(2, 4, 9, 10), torch.randn(6, 2, 3, 3), torch.randn(6)
    plan = convext.explain(x, w, b, stride=2, padding=1, groups=2)
    assert tuple(plan.output_shape) == (2, 6, 5, 5)
    names = {kernel.qualified_name for kernel in convext.available_kernels(all_isas=True)}
    for name in ("forward", "grad_input", "grad_weight"):
        row = plan[name]
        assert row.kernel in names
        assert row.flops == 2 * 2 * 6 * 5 * 5 * 2 * 9
        assert row.bytes == 4 * (x.numel() + w.numel() + 2 * 6 * 5 * 5)
        assert row.workspace_bytes >= 0
        assert all(kernel in names and reason for kernel, reason in row.rejected)
        assert name in str(plan) and row.kernel in str(plan)
    with convext.force_kernel("reference"):
        assert convext.explain(x, w, groups=2)["forward"].kernel == "reference/baseline"
    with pytest.raises(RuntimeError, match="channels"):
        convext.explain(x, w)
    with pytest.raises(KeyError):
        plan["sideways"]


def test_explain_takes_what_conv2d_takes() -> None:
    x, w = torch.randn(4, 9, 10, dtype=torch.complex64), torch.randn(6, 4, 3, 3, dtype=torch.complex64)
    assert tuple(convext.explain(x, w, padding="same", padding_mode="circular").output_shape) == (6, 9, 10)
    x, w = torch.ones(1, 1, 9, 9, dtype=torch.int8), torch.ones(1, 1, 3, 3, dtype=torch.int8)
    plan = convext.explain(x, w, out_dtype=torch.int32)
    assert tuple(plan.output_shape) == (1, 1, 7, 7) and [row.name for row in plan.passes] == ["forward"]


def test_reasons_are_printed() -> None:
    """A problem that the vector kernels refuse: the table says so, kernel by kernel."""
    plan = convext.explain(torch.ones(1, 1, 5, 5, dtype=torch.int64), torch.ones(1, 1, 3, 3, dtype=torch.int64))
    row = plan["forward"]
    assert row.rejected
    assert all(kernel in str(plan) and reason in str(plan) for kernel, reason in row.rejected)


def test_build_info() -> None:
    info = convext.build_info()
    assert info["version"] == convext.__version__
    assert info["torch_running"] == torch.__version__
    assert info["isa_in_use"] in info["isas_built"] and "baseline" in info["isas_built"]
    assert info["compiler"] and info["torch_built_against"]


def test_precision_setting() -> None:
    with pytest.raises(ValueError, match="highest"):
        convext.set_float32_precision("medium")
    with convext.float32_precision("high"):
        assert convext.get_float32_precision() == "high"
        with convext.float32_precision("highest"):
            assert convext.get_float32_precision() == "highest"
        assert convext.get_float32_precision() == "high"
    with pytest.raises(KeyError), convext.float32_precision("high"):
        raise KeyError
    assert convext.get_float32_precision() == "highest"


def in_a_new_process(script: str, **environment: str) -> str:
    root = str(Path(convext.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_environment_caps_the_instruction_set() -> None:
    script = (
        "import convext, torch\n"
        "print(*sorted({k.isa for k in convext.available_kernels()}), convext.build_info()['isa_in_use'])\n"
        "assert convext.conv2d(torch.ones(1, 1, 5, 5), torch.ones(1, 1, 3, 3)).unique().tolist() == [9.0]\n"
    )
    assert in_a_new_process(script, CONVEXT_MAX_ISA="baseline").split() == ["baseline", "baseline"]


def test_import_warns_about_nothing() -> None:
    assert (
        in_a_new_process("import warnings; warnings.simplefilter('error'); import convext; print('ok')").strip() == "ok"
    )


def test_several_python_threads_at_once() -> None:
    """Each thread its own sizes, all at the same time, forward and backward; the GIL is released inside."""
    torch.set_num_threads(2)
    tasks = []
    for seed in range(24):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(1 + seed % 3, 4, 20 + seed, 18, generator=generator, requires_grad=True)
        w = torch.randn(5 + seed % 4, 4, 3, 3, generator=generator, requires_grad=True)
        tasks.append((x, w))

    def work(task: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
        output = convext.conv2d(*task, padding=1)
        return [output.detach(), *torch.autograd.grad(output.square().sum(), task)]

    alone = [work(task) for task in tasks]
    barrier = threading.Barrier(6)

    def together(chunk: int) -> list[list[torch.Tensor]]:
        barrier.wait()
        return [work(task) for _ in range(5) for task in tasks[chunk::6]]

    with ThreadPoolExecutor(6) as pool:
        for chunk, results in enumerate(pool.map(together, range(6))):
            for result, wanted in zip(results, alone[chunk::6] * 5, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(result, wanted, strict=True))


@pytest.mark.parametrize(
    "input_size, weight_size, arguments",
    [
        ((2, 3, 9, 10), (4, 3, 3, 3), {}),
        ((2, 4, 9, 10), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
        ((1, 4, 9, 10), (4, 1, 3, 3), {"groups": 4, "stride": 2}),
        ((1, 2, 12, 11), (3, 2, 3, 2), {"dilation": 2}),
    ],
)
@pytest.mark.parametrize("needs", [(True, True), (False, True), (True, False)])
def test_flop_counter_agrees_with_torchs(
    input_size: tuple[int, ...], weight_size: tuple[int, ...], arguments: dict[str, int], needs: tuple[bool, bool]
) -> None:
    counts = []
    for convolution in (convext.conv2d, F.conv2d):
        x, w = (
            torch.randn(size, requires_grad=need) for size, need in zip((input_size, weight_size), needs, strict=True)
        )
        with FlopCounterMode(display=False) as counter:
            forward = convolution(x, w, **arguments)
            after_forward = counter.get_total_flops()
            forward.sum().backward()
        counts.append((after_forward, counter.get_total_flops()))
    if arguments.get("groups", 1) == 1:
        assert counts[0] == counts[1]
    else:
        # torch's formula for the gradient of a grouped weight forgets the groups; forward does not.
        assert counts[0][0] == counts[1][0]
        assert counts[0][1] == counts[0][0] * (1 + sum(needs))


def test_profiler_shows_the_operators() -> None:
    x, w, b = (torch.randn(size, requires_grad=True) for size in ((1, 2, 6, 6), (3, 2, 3, 3), (3,)))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        convext.conv2d(x, w, b).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert {f"convext::corr2d{suffix}" for suffix in ("", "_grad_input", "_grad_weight", "_grad_bias")} <= names


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_ten_thousand_calls_leak_nothing() -> None:
    x, w, b = (torch.randn(size, requires_grad=True) for size in ((1, 1, 40, 40), (4, 1, 3, 3), (4,)))

    def step(index: int) -> None:
        if index % 4 == 0:
            torch.autograd.grad(convext.conv2d(x, w, b, padding=1, padding_mode="reflect").sum(), (x, w, b))
        elif index % 4 == 1:
            with torch.no_grad():
                convext.conv2d(x, w, b, stride=(2, 1))
        elif index % 4 == 2:
            with contextlib.suppress(RuntimeError):
                convext.conv2d(x, w, b, groups=7)
        else:
            convext.corr2d(x[0, 0], w[0, 0])

    growth = []
    for _ in range(6):
        gc.collect()
        before, objects = resident_bytes(), len(gc.get_objects())
        for index in range(2000):
            step(index)
        gc.collect()
        growth.append((resident_bytes() - before, len(gc.get_objects()) - objects))
    # The allocator takes memory now and then; a leak takes some every time, 2000 times 32 bytes being the least.
    assert min(size for size, _ in growth) < 64_000, growth
    assert min(objects for _, objects in growth) < 100, growth


def test_results_do_not_keep_what_they_do_not_need() -> None:
    """Without gradients nothing is saved; with them, the inputs and no copies of them."""
    import weakref

    x, w = torch.randn(1, 1, 6, 6), torch.randn(1, 1, 3, 3)
    watched = weakref.ref(x)
    output = convext.conv2d(x, w)
    del x
    assert watched() is None and output.grad_fn is None
    saved: list[torch.Tensor] = []
    x, w = torch.randn(1, 1, 6, 6), torch.randn(1, 1, 3, 3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        convext.conv2d(x, w, padding=2, padding_mode="reflect")
    assert {t.data_ptr() for t in saved} <= {x.data_ptr(), w.data_ptr()}


def test_in_place_changes_of_saved_tensors_are_noticed() -> None:
    x, w = torch.randn(1, 1, 6, 6), torch.randn(1, 1, 3, 3, requires_grad=True)
    output = convext.conv2d(x, w)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_backward_twice_needs_retain_graph() -> None:
    w = torch.randn(1, 1, 3, 3, requires_grad=True)
    output = convext.conv2d(torch.randn(1, 1, 6, 6), w).sum()
    output.backward(retain_graph=True)
    output.backward()
    with pytest.raises(RuntimeError, match="second time"):
        output.backward()
