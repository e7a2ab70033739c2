"""The build: what the objects may share, what the package says of itself, and what a user is told."""

from __future__ import annotations

import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = ROOT / "build" / "native"
KERNEL_OBJECTS = sorted((OBJECTS / "kernels").glob("*/*.o"))

needs_checkout = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the tests are not in a checkout")
needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("g++", "c++", "clang++")), reason="no C++ compiler here"
)


def run(*command: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


def requires(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed")
    return path


def kernel_objects() -> list[Path]:
    if not KERNEL_OBJECTS:
        pytest.skip("no objects in build/native: the package was not built in this checkout")
    return KERNEL_OBJECTS


def global_symbols(path: Path) -> list[tuple[str, str]]:
    """(type letter, demangled name) of what this object offers to the linker."""
    listing = run(requires("nm"), "--demangle", "--defined-only", "--extern-only", "--format=posix", str(path))
    assert listing.returncode == 0, listing.stderr
    # "name type value size"; a demangled name may contain spaces.
    matches = [re.match(r"(.*) ([A-Za-z]) [0-9a-f]*(?: [0-9a-f]*)?$", line) for line in listing.stdout.splitlines()]
    assert all(matches), listing.stdout
    return [(match[2], match[1]) for match in matches if match]


def listed_kernels(isa: str) -> set[str]:
    code = re.sub(r"//.*|\\\n", "", (ROOT / "csrc/cpu/kernel_list.h").read_text())
    lists = {name: re.findall(r"\bX\((\w+)\)", body) for name, body in re.findall(r"#define (\w+)\(X\) (.*)", code)}
    # The probe is compiled like a kernel, and is none.
    only = {"avx512bf16": "CONVEXT_BFLOAT16_KERNELS", "amxbf16": "CONVEXT_TILE_KERNELS"}
    if isa in only:
        return {*lists[only[isa]], "fma_probe"}
    specialised = [] if isa == "baseline" else lists["CONVEXT_SPECIALISED_KERNELS"]
    return {*specialised, *lists["CONVEXT_GENERAL_KERNELS"], "fma_probe"}


def test_kernels_of_different_instruction_sets_share_nothing():
    """A symbol that two objects define is merged by the linker, and an older CPU might be given the newer copy."""
    defined: dict[str, set[str]] = {}
    for path in kernel_objects():
        isa = path.parent.name
        for kind, name in global_symbols(path):
            assert kind in "RDB", (
                f"{isa}/{path.name} defines {name} (type {kind}), which the linker could merge or call"
            )
            match = re.fullmatch(rf"convext::{isa}_isa::(\w+)", name)
            assert match, f"{isa}/{path.name} defines {name}, which is not a kernel in namespace convext::{isa}_isa"
            defined.setdefault(isa, set()).add(match[1])
    assert "baseline" in defined
    for isa, kernels in defined.items():
        assert kernels == listed_kernels(isa)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="looks for x86-64's vector registers")
def test_no_object_uses_more_than_its_instruction_set():
    kernel_objects()
    objdump = requires("objdump")
    for path in sorted(OBJECTS.glob("**/*.o")):
        isa = path.parent.name
        if isa.startswith(("avx512", "amx")):
            continue
        forbidden = r"%zmm|%k[0-7]\b" if isa == "avx2" else r"%[yz]mm|%k[0-7]\b"
        code = run(objdump, "--disassemble", "--no-show-raw-insn", str(path))
        assert code.returncode == 0, code.stderr
        found = re.search(forbidden, code.stdout)
        assert not found, f"{path.relative_to(OBJECTS)} uses {found[0] if found else ''}"


@pytest.mark.parametrize("module", sorted(OBJECTS.glob("*.so")), ids=lambda path: path.name)
def test_the_module_offers_nothing_but_its_entry(module):
    names = [name for _, name in global_symbols_of_module(module)]
    assert names == [f"PyInit_{module.name.split('.')[0]}"]


def global_symbols_of_module(path: Path) -> list[tuple[str, str]]:
    listing = run(requires("nm"), "--dynamic", "--defined-only", "--format=posix", str(path))
    assert listing.returncode == 0, listing.stderr
    return [(line.split()[1], line.split()[0]) for line in listing.stdout.splitlines()]


def test_runs_with_the_baseline_only():
    program = """
        import torch, convext
        assert convext.build_info()["isa_in_use"] == "baseline"
        X, K = torch.arange(9.0).reshape(3, 3), torch.arange(4.0).reshape(2, 2)
        assert convext.corr2d(X, K).tolist() == [[19.0, 25.0], [37.0, 43.0]]
    """
    result = run(
        sys.executable, "-c", textwrap.dedent(program), cwd=ROOT, env={**os.environ, "CONVEXT_MAX_ISA": "baseline"}
    )
    assert result.returncode == 0, result.stderr


@needs_checkout
def test_metadata(tmp_path):
    """What `pip install --no-build-isolation .` reads before it builds."""
    pytest.importorskip("setuptools")
    import convext

    program = "import sys; from setuptools import build_meta; build_meta.prepare_metadata_for_build_wheel(sys.argv[1])"
    result = run(sys.executable, "-c", program, str(tmp_path), cwd=ROOT)
    assert result.returncode == 0, result.stderr
    (file,) = tmp_path.glob("convext-*.dist-info/METADATA")
    metadata = email.message_from_string(file.read_text(encoding="utf-8"))
    assert metadata["Name"] == "convext"
    assert metadata["Version"] == convext.__version__
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == ">=3.10"
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert required == ["torch>=2.10"]


@needs_checkout
@pytest.mark.parametrize(
    ("find", "environment", "advice"),
    [
        ("find_compiler", {"PATH": "/nowhere"}, "install g++ or clang++"),
        ("find_compiler", {"CXX": "/nowhere/g++"}, "named by CXX, '/nowhere/g++'"),
        ("find_torch", {}, "pip install --no-build-isolation ."),
        ("find_pybind11", {}, "pip install pybind11"),
        ("find_ninja", {"PATH": "/nowhere"}, "pip install ninja"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(find, environment, advice):
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from build_support import toolchain; toolchain.{find}()"
    python = Path(sys.executable).resolve()  # not the virtual environment's, and without any site-packages
    result = run(str(python), "-I", "-S", "-c", program, env={"PATH": os.environ["PATH"], **environment})
    assert result.returncode == 1
    assert result.stderr.startswith("convext: ")
    assert result.stderr.count("\n") == 1
    assert advice in result.stderr


@needs_checkout
def test_an_old_torch_is_refused(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").touch()
    (tmp_path / "torch/version.py").write_text("__version__ = '2.9.1+cu128'\n")
    program = "from build_support import toolchain; toolchain.find_torch()"
    result = run(sys.executable, "-c", program, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert result.returncode == 1
    assert result.stderr.startswith("convext: torch 2.9.1+cu128 is too old; install torch 2.10 or newer")


@pytest.fixture
def small_project(tmp_path):
    """A project with one source of each kind, laid out as this one."""
    sources = {
        "csrc/core/answer.h": "#pragma once\nint answer();\n",
        "csrc/core/answer.cpp": '#include "core/answer.h"\nint answer() { return 42; }\n',
        "csrc/cpu/kernels/sum.cpp": '#include "core/answer.h"\n',
        "csrc/torch/cpu/module.cpp": """
            #include <Python.h>
            #include "core/answer.h"
            static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1,
                                             nullptr, nullptr, nullptr, nullptr, nullptr};
            PyMODINIT_FUNC PyInit__C() {
              PyObject* module = PyModule_Create(&definition);
              PyModule_AddIntConstant(module, "answer", answer());
              PyModule_AddStringConstant(module, "isas", CONVEXT_ISAS);
              PyModule_AddStringConstant(module, "without_cuda", CONVEXT_WITHOUT_CUDA);
              return module;
            }
        """,
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    (tmp_path / "build_support").symlink_to(ROOT / "build_support")
    return tmp_path


def build(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent("""
        import shutil
        from pathlib import Path
        from build_support.native import build_modules
        Path("out").mkdir(exist_ok=True)
        for name, module in build_modules(root=Path.cwd(), version="1.2", jobs=None, verbose=False).items():
            shutil.copyfile(module, Path("out", f"{name}.so"))
    """)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CONVEXT_CUDA": "0", **environment}
    return run(sys.executable, "-c", program, cwd=project, env=environment)


@needs_checkout
@needs_compiler
def test_builds_incrementally(small_project):
    first = build(small_project)
    assert first.returncode == 0, first.stdout + first.stderr
    loaded = run(sys.executable, "-c", "import _C; print(_C.answer, _C.isas)", cwd=small_project / "out")
    assert loaded.stdout.startswith("42 baseline"), loaded.stderr

    assert "no work to do" in build(small_project).stdout

    (small_project / "csrc/core/answer.cpp").write_text('#include "core/answer.h"\nint answer() { return 7; }\n')
    again = build(small_project).stdout
    assert "core/answer.o" in again
    assert "kernels/" not in again
    assert "torch/" not in again

    (small_project / "csrc/core/answer.h").write_text("#pragma once\nint answer();  // changed\n")
    again = build(small_project).stdout
    assert "core/answer.o" in again
    assert "kernels/baseline/sum.o" in again
    assert "torch/cpu/module.o" in again

    (small_project / "csrc/cpu/kernels/sum.cpp").unlink()
    assert build(small_project).returncode == 0
    assert not list(small_project.glob("build/native/kernels/*/*.o"))


@needs_checkout
@needs_compiler
def test_a_compile_error_is_shown(small_project):
    (small_project / "csrc/core/answer.cpp").write_text("int answer() { return forty_two; }\n")
    result = build(small_project)
    assert result.returncode == 1
    assert "forty_two" in result.stdout
    assert result.stderr == "convext: the native build failed; the compiler's message is above.\n"


def fake_nvcc(folder: Path, text: str) -> str:
    """A CUDA_HOME whose nvcc is a shell script."""
    program = folder / "cuda" / "bin" / "nvcc"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n" + text)
    program.chmod(0o755)
    return str(folder / "cuda")


SAYS_13 = "[ $1 = --version ] && { echo 'Cuda compilation tools, release 13.0, V13.0.88'; exit 0; }\n"


@needs_checkout
@needs_compiler
@pytest.mark.parametrize(
    ("nvcc", "environment", "reason"),
    [
        ("exit 1\n", {}, "nvcc --version fails"),
        ("echo release 11.8, V11.8.89\n", {}, "is of CUDA 11.8, and 12.0 is needed"),
        (SAYS_13, {"TORCH_CUDA_ARCH_LIST": "Hopper"}, "TORCH_CUDA_ARCH_LIST holds 'Hopper'"),
        (SAYS_13 + "echo internal compiler error; exit 1\n", {}, "nvcc failed; its message is above"),
    ],
    ids=["broken", "old", "arch", "fails"],
)
def test_without_a_cuda_compiler_that_works_the_rest_is_built(small_project, tmp_path, nvcc, environment, reason):
    (small_project / "csrc/cuda").mkdir()
    (small_project / "csrc/cuda/kernel.cu").write_text("int kernel;\n")
    environment = {**environment, "CUDA_HOME": fake_nvcc(tmp_path, nvcc)}
    result = build(small_project, **environment, CONVEXT_CUDA="")
    assert result.returncode == 0, result.stdout + result.stderr
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("convext: built without CUDA: ")]
    assert reason in sentence and sentence.endswith(".")
    assert [path.name for path in (small_project / "out").iterdir()] == ["_C.so"]
    if "internal" in nvcc:
        assert "internal compiler error" in result.stdout
    else:
        loaded = run(sys.executable, "-c", "import _C; print(_C.without_cuda)", cwd=small_project / "out")
        assert reason in loaded.stdout

    demanded = build(small_project, **environment, CONVEXT_CUDA="1")
    assert demanded.returncode == 1
    assert demanded.stderr.splitlines()[-1].startswith("convext: ")


@needs_checkout
def test_the_cuda_part_can_be_left_out(monkeypatch, tmp_path, capsys):
    from build_support import cuda, toolchain

    gcc = toolchain.Compiler(["ccache", "g++"], "g++", is_clang=False)
    monkeypatch.setenv("CUDA_HOME", fake_nvcc(tmp_path, SAYS_13))
    monkeypatch.setenv("CONVEXT_CUDA", "0")
    assert cuda.find_nvcc(gcc) == (None, "CONVEXT_CUDA=0 switched it off")
    assert capsys.readouterr().err == ""

    monkeypatch.delenv("CONVEXT_CUDA")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6;9.0a+PTX 10.0")
    nvcc, reason = cuda.find_nvcc(gcc)
    assert reason == "" and nvcc is not None and nvcc.version == "13.0"
    assert nvcc.codes == ["sm_86", "sm_90a", "compute_90a", "sm_100"]
    assert nvcc.command[0] == f"{tmp_path}/cuda/bin/nvcc"
    # clang takes turns with nvcc's own choice of a host compiler.
    other, _ = cuda.find_nvcc(toolchain.Compiler(["clang++"], "clang", is_clang=True))
    assert other is not None and other.command == nvcc.command[:1]

    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(cuda, "USUAL_PLACE", "/nowhere/nvcc")
    assert "nvcc was not found" in cuda.find_nvcc(gcc)[1]
    monkeypatch.setenv("CONVEXT_CUDA", "1")
    with pytest.raises(SystemExit, match="CONVEXT_CUDA=1, but the CUDA part cannot be built: nvcc was not found"):
        cuda.find_nvcc(gcc)


def test_the_cuda_part_needs_no_cuda_library():
    """So that one build serves every torch with CUDA, and can be made beside one without."""
    module = importlib.util.find_spec("convext._cuda")
    if module is None:
        pytest.skip("the CUDA part was not built")
    needed = run(requires("readelf"), "--dynamic", module.origin).stdout
    libraries = re.findall(r"\(NEEDED\).*\[(.*)\]", needed)
    assert "libtorch_cpu.so" in libraries
    assert not [name for name in libraries if "cuda" in name], libraries


def test_the_build_reports_registers():
    if not list(OBJECTS.glob("_cuda*.so")):
        pytest.skip("the CUDA part was not built here")
    report = (OBJECTS / "cuda_report.txt").read_text()
    assert "Used " in report and "spill stores" in report
