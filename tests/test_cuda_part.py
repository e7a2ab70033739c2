"""What of the CUDA part needs no GPU: it loads, lists its kernels, plans, and says what is missing.

Where there is a GPU, its kernels are tested by all other tests together with those for the CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import convext
from convext import _cuda_part, functional

ROOT = Path(__file__).resolve().parent.parent


def run_python(program: str) -> str:
    """In a process of its own: the module registers operators for as long as the process lives."""
    if not _cuda_part.is_built():
        pytest.skip(f"the CUDA part was not built: {_cuda_part.missing}")
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_it_loads_without_a_device() -> None:
    run_python("""
        import torch, convext
        from convext import _cuda

        kernels = _cuda.kernels()
        assert kernels[-1][0] == "generic" and all(isa == "cuda" for _, isa, _ in kernels)
        assert _cuda.versions()[0] >= 12000
        for name in ("corr2d", "corr2d_grad_input", "corr2d_grad_weight", "corr2d_grad_bias"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"convext::{name}", "CUDA")
        if not torch.cuda.is_available():
            try:
                _cuda.device(0)
            except RuntimeError as error:
                assert str(error).startswith("CUDA device 0 cannot be used: "), error
            else:
                raise AssertionError("a device without a driver")
        x, w = torch.arange(9.0).reshape(3, 3), torch.arange(4.0).reshape(2, 2)
        assert convext.corr2d(x, w).tolist() == [[19.0, 25.0], [37.0, 43.0]]
    """)


def test_its_direct_calls_take_no_cpu_tensors() -> None:
    """Switched on or not; and those of the other module are not switched by it."""
    run_python("""
        import torch, convext
        from convext import _C, _cuda

        x, w = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2)
        conversions = torch._C._aoti
        to_handle = conversions.unsafe_alloc_void_ptr_from_tensor
        from_handles = conversions.alloc_tensors_by_stealing_from_void_ptrs
        for _ in range(2):
            assert _cuda.direct_corr2d(x, w, None, ()) is None
            assert _cuda.direct_gradients(torch.ones(1, 1, 2, 2), x, w, (), True, True, True) is None
            assert _C.direct_corr2d(x, w, None, ()).tolist() == [[[[4.0, 4.0], [4.0, 4.0]]]]
            _cuda.enable_direct_calls(to_handle, from_handles, torch.Tensor, torch.nn.Parameter)
        try:
            _cuda.enable_direct_calls(to_handle, from_handles, torch.Tensor, None)
        except TypeError:
            pass
        else:
            raise AssertionError("None was taken for a type")
    """)


def test_plans_for_a_device_that_is_not_here() -> None:
    run_python("""
        from convext import _cuda

        H100 = (90, 132, 232448)
        names = [f"{name}/cuda" for name, *_ in _cuda.kernels()]

        def call(dtype, out_dtype=None, padding_mode="zeros"):
            return ([2, 8, 9, 10], [720, 90, 10, 1], [6, 4, 3, 3], [36, 9, 3, 1], dtype[0] != "g", dtype,
                    out_dtype or dtype, (2, 1), (1, 1, 0, 2), (1, 1), 2, padding_mode)

        for dtype in ("float32", "float64", "bfloat16", "float16"):
            for name in ("forward", "grad_input", "grad_weight"):
                plan = _cuda.plan(name, call(dtype), *H100)
                assert plan["kernel"] in names and plan["workspace_bytes"] >= 0
                assert plan["output_size"] == (5, 10)
                assert [kernel for kernel, _ in plan["rejected"]] == names[: names.index(plan["kernel"])]
                assert all(reason for _, reason in plan["rejected"])
        for dtype in ("uint8", "int8", "int16", "int32", "int64"):
            assert _cuda.plan("forward", call(dtype), *H100)["kernel"] in names
        assert _cuda.plan("forward", call("uint8", "int32", "reflect"), *H100)["kernel"] in names

        for forced in ("generic", "generic/cuda"):
            _cuda.set_forced_kernel(forced)
            plan = _cuda.plan("forward", call("float32"), *H100)
            assert plan["kernel"] == "generic/cuda"
            assert all(reason for _, reason in plan["rejected"])
        _cuda.set_forced_kernel("reference")
        try:
            _cuda.plan("forward", call("float32"), *H100)
        except RuntimeError as error:
            assert str(error) == ("kernel 'reference' was forced, but it cannot run this problem: "
                                  "it is no CUDA kernel, and the tensors are on a CUDA device"), error
        else:
            raise AssertionError("a CPU kernel was planned for CUDA tensors")
        for wrong, error in ((("sideways", call("float32")), ValueError), (("forward", call("bool")), ValueError),
                             (("forward", call("float32", "int32")), RuntimeError)):
            try:
                _cuda.plan(*wrong, *H100)
            except error:
                continue
            raise AssertionError(wrong)
    """)


def test_a_cuda_kernel_cannot_be_forced_on_cpu_tensors() -> None:
    run_python("""
        import torch, convext
        from convext import _C

        _C.set_forced_kernel("generic/cuda")
        try:
            convext.corr2d(torch.ones(3, 3), torch.ones(2, 2))
        except RuntimeError as error:
            assert str(error) == ("kernel 'generic/cuda' was forced, but it cannot run this problem: "
                                  "it is no CPU kernel, and the tensors are on the CPU"), error
        else:
            raise AssertionError("a CUDA kernel ran on CPU tensors")
    """)


def test_what_is_missing_is_said_in_one_sentence() -> None:
    on_gpu = SimpleNamespace(device=torch.device("cuda", 0), layout=torch.strided, dtype=torch.float32)
    if _cuda_part.module is None:
        with pytest.raises(NotImplementedError, match=r"^conv2d\(\): input is on cuda:0, but .*; (build|install) .*$"):
            functional._check_kind_of_tensors(on_gpu, on_gpu, None)  # type: ignore[arg-type]
        with pytest.raises(NotImplementedError, match="there are no CUDA kernels here: "):
            convext.explain(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2), device="cuda")
        with pytest.raises(ValueError, match="name must be one of"), convext.force_kernel("generic/cuda"):
            pass
        assert convext.available_kernels("cuda", all_isas=True) == []
    else:
        functional._check_kind_of_tensors(on_gpu, on_gpu, None)  # type: ignore[arg-type]
    cpu = SimpleNamespace(device=torch.device("cpu"), layout=torch.strided, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="input is on cuda:0 and weight is on cpu"):
        functional._check_kind_of_tensors(on_gpu, cpu, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("without_cuda", "built", "torch_cuda", "error", "expected"),
    [
        ("nvcc was not found", False, "13.0", None, "built without CUDA (nvcc was not found); build it again where"),
        ("", False, "13.0", None, "built without CUDA (nvcc failed); build it again with CONVEXT_CUDA=1"),
        ("", True, None, None, "is a build without CUDA; install one"),
        ("", True, "13.0", ImportError("undefined symbol: f"), "could not be loaded (undefined symbol: f); build"),
        ("", True, "13.0", RuntimeError("registered twice"), "could not be loaded (registered twice); build"),
        ("", True, "13.0", None, "does not give its CUDA stream"),
    ],
    ids=["no nvcc", "nvcc failed", "torch", "symbol", "registration", "stream"],
)
def test_a_failed_load_is_a_reason_and_no_exception(
    without_cuda: str,
    built: bool,
    torch_cuda: str | None,
    error: Exception | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def import_module(name: str) -> object:
        assert name == "convext._cuda"
        if error is not None:
            raise error
        return SimpleNamespace(torch_has_cuda=lambda: False)

    monkeypatch.setattr(_cuda_part, "_C", SimpleNamespace(build_info=lambda: {"without_cuda": without_cuda}))
    monkeypatch.setattr(_cuda_part, "is_built", lambda: built)
    monkeypatch.setattr(_cuda_part, "importlib", SimpleNamespace(import_module=import_module))
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    module, missing = _cuda_part._load()
    assert module is None
    assert expected in missing


def test_build_info_tells_of_it() -> None:
    info = convext.build_info()
    assert info["cuda_loaded"] == "yes" or info["cuda_loaded"] == f"no: {_cuda_part.missing}"
    assert bool(info["cuda_archs_built"]) == _cuda_part.is_built()
    assert ("cuda_driver" in info) == (_cuda_part.module is not None)
    printed = subprocess.run(
        [sys.executable, "-m", "convext", "info"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout
    assert "cuda_loaded:" in printed and "CPU kernels, in the order" in printed


def test_kernels_are_listed_by_device() -> None:
    assert {kernel.device for kernel in convext.available_kernels()} == {"cpu"}
    assert {kernel.isa for kernel in convext.available_kernels("cuda", all_isas=True)} <= {"cuda"}
    assert convext.available_kernels(torch.device("cpu")) == convext.available_kernels()
    with pytest.raises(ValueError, match="device must be 'cpu' or 'cuda', but it is 'meta'"):
        convext.available_kernels("meta")


needs_gpu = pytest.mark.skipif(not convext.available_kernels("cuda"), reason="no CUDA device, or the part is not built")


@needs_gpu
def test_streams_devices_and_graphs() -> None:
    """Work goes to the current stream, and can be captured in a graph; tensors on two devices are refused."""
    x, w = torch.randn(2, 8, 17, 19, device="cuda"), torch.randn(6, 8, 3, 3, device="cuda", requires_grad=True)
    wanted = convext.conv2d(x, w, padding=1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        late = x * 2
        doubled = convext.conv2d(late, w, padding=1)
        (late_gradient,) = torch.autograd.grad(doubled, w, torch.ones_like(doubled))
    stream.synchronize()
    assert torch.equal(doubled, wanted * 2)
    assert torch.equal(late_gradient, 2 * torch.autograd.grad(wanted, w, torch.ones_like(wanted))[0])

    graph = torch.cuda.CUDAGraph()
    still = x.clone()
    with torch.cuda.graph(graph), torch.no_grad():
        captured = convext.conv2d(still, w, padding=1)
    still.copy_(2 * x)
    graph.replay()
    assert torch.equal(captured, wanted * 2)

    for call in (lambda: convext.conv2d(x, w.cpu()), lambda: convext.conv2d(x.cpu(), w)):
        with pytest.raises(RuntimeError, match="must be on the same device"):
            call()
    with pytest.raises(RuntimeError, match="input and weight must be on the same device, but input is on cuda:0"):
        torch.ops.convext.corr2d(x, w.cpu())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA devices")
def test_the_tensors_device_need_not_be_the_current_one() -> None:
    wanted = None
    for device in ("cuda:0", "cuda:1"):
        x = torch.arange(162.0, device=device).reshape(2, 1, 9, 9)
        w = torch.arange(9.0, device=device).reshape(1, 1, 3, 3).requires_grad_()
        output = convext.conv2d(x, w)
        (gradient,) = torch.autograd.grad(output, w, torch.ones_like(output))
        assert output.device == gradient.device == x.device
        assert torch.cuda.current_device() == 0
        if wanted is None:
            wanted = output.cpu(), gradient.cpu()
        assert torch.equal(output.cpu(), wanted[0]) and torch.equal(gradient.cpu(), wanted[1])


@needs_gpu
def test_forced_and_explained_on_a_gpu() -> None:
    x, w = torch.randn(2, 8, 17, 19, device="cuda"), torch.randn(6, 8, 3, 3, device="cuda")
    names = [kernel.qualified_name for kernel in convext.available_kernels("cuda")]
    assert convext.explain(x, w)["forward"].kernel in names
    assert convext.explain(x.to("meta"), w.to("meta"), device="cuda")["grad_weight"].kernel in names
    with convext.force_kernel("reference"), pytest.raises(RuntimeError, match="it is no CUDA kernel"):
        convext.conv2d(x, w)
    with convext.force_kernel("generic/cuda"), pytest.raises(RuntimeError, match="it is no CPU kernel"):
        convext.conv2d(x.cpu(), w.cpu())
    complexes = torch.complex(x, x), torch.complex(w, w)
    torch.testing.assert_close(convext.conv2d(*complexes), torch.nn.functional.conv2d(*complexes), rtol=1e-3, atol=1e-3)
    image, kernel = torch.randn(6, 8, device="cuda"), torch.randn(2, 3, device="cuda")
    torch.testing.assert_close(convext.corr2d(image, kernel), convext.reference.corr2d(image, kernel))
