"""Which source is compiled how, and the ninja run that does it.

Sources of these kinds make the extension modules `_C` and, where there is a CUDA compiler, `_cuda`:
- csrc/core: plain C++ at the ABI's floor, in both;
- csrc/cpu: the same, in `_C`;
- csrc/cpu/kernels: compiled once for each instruction set (see csrc/cpu/isa.h), its folder `specialised` for all
    but the baseline, its folders `bfloat16` and `amx` only for processors that multiply pairs, or tiles, of bfloat16;
- csrc/cuda: plain C++ and CUDA (see build_support/cuda.py), in `_cuda`;
- csrc/torch: the only ones that see torch, pybind11 and Python: in both modules, in `_C` (csrc/torch/cpu) or in
  `_cuda` (csrc/torch/cuda).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

from build_support import cuda, toolchain
from build_support.ninja_file import NinjaFile

# No option here may change what a floating-point expression means: contraction into FMA is off, because it
# would make results depend on the compiler; kernels that want an FMA say so.
COMMON_FLAGS = [
    "-std=c++17",
    "-O2",  # kernels unroll and vectorise by themselves: -O3 is no faster here and compiles for twice as long
    "-DNDEBUG",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
]
# Passes of GCC that look for what kernels have been written without. They take a fifth of the time that compiling
# a kernel takes, and its loops are as fast without them.
QUICK_KERNEL_FLAGS = ["-fno-tree-pre", "-fno-tree-vrp", "-fno-thread-jumps"]
# Instruction sets that add one kind of instruction to another set, for which one folder of kernels is written.
ONLY_FOLDERS = {"avx512bf16": "bfloat16", "amxbf16": "amx"}
TORCH_ABI_FLAGS = ["-DTORCH_TARGET_VERSION=0x020a000000000000"]  # the stable ABI of torch 2.10

# Torch's libraries carry no path here: `convext` imports torch first, and the loader then takes the copies
# that are in the process already. --as-needed records only those that are really used.
LINKER_FLAGS = ["--as-needed", "-zrelro", "-znow"]
TORCH_LIBRARIES = ["-ltorch_cpu"]  # has the whole stable ABI


def build_modules(*, root: Path, version: str, jobs: int | None, verbose: bool) -> dict[str, Path]:
    """Compiles what has changed and returns the modules by name: `_C`, and `_cuda` if it could be built."""
    build = root / "build" / "native"
    build.mkdir(parents=True, exist_ok=True)
    modules = _write_ninja_file(root, build, version)
    if _run_ninja(root, build, [], jobs, verbose):
        return modules
    # Whatever is wrong with the CUDA part, the other is worth having.
    if "_cuda" in modules and not cuda.required() and _run_ninja(root, build, [modules["_C"]], jobs, verbose):
        cuda.warn("nvcc failed; its message is above")
        return {"_C": modules["_C"]}
    raise SystemExit("convext: the native build failed; the compiler's message is above.")


def _write_ninja_file(root: Path, build: Path, version: str) -> dict[str, Path]:
    machine = toolchain.architecture()
    compiler = toolchain.find_compiler()
    torch = toolchain.find_torch()
    isas = toolchain.instruction_sets(compiler, machine)
    nvcc, without_cuda = cuda.find_nvcc(compiler)

    common = shlex.split(os.environ.get("CXXFLAGS", ""))  # first, so that what convext relies on wins
    common += COMMON_FLAGS + toolchain.baseline_flags(machine) + [f"-I{root / 'csrc'}"]
    common += [f"-DCONVEXT_BUILD_{isa.name.upper()}" for isa in isas if isa.name != "baseline"]
    if os.environ.get("CONVEXT_WERROR") == "1":
        common.append("-Werror")
    bridge = [
        *TORCH_ABI_FLAGS,
        # Before torch's folder, which has a copy that refuses to be used with the stable ABI (torch 2.11).
        f"-isystem{toolchain.find_pybind11()}",
        f"-isystem{torch.include}",
        f"-isystem{toolchain.find_python_headers()}",
    ]
    information = {
        "CONVEXT_VERSION": version,
        "CONVEXT_COMPILER": compiler.version,
        "CONVEXT_ISAS": ",".join(isa.name for isa in isas),
        "CONVEXT_CUDA_ARCHS": ",".join(nvcc.codes) if nvcc else "",
        "CONVEXT_WITHOUT_CUDA": without_cuda,
        "CONVEXT_TORCH_VERSION": torch.version,
    }

    quick = QUICK_KERNEL_FLAGS if compiler.accepts(QUICK_KERNEL_FLAGS) else []
    ninja = NinjaFile(root, build, compiler.command)
    exports = root / "build_support" / "exports.map"
    linker_flags = [*LINKER_FLAGS, f"--version-script={exports}"]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")

    def compile_all(folder: str, flags: list[str]) -> list[Path]:
        sources = sorted((root / "csrc" / folder).glob("*.cpp"))
        return [ninja.compile(source, f"{folder}/{source.stem}.o", flags) for source in sources]

    in_both = [*compile_all("core", common), *compile_all("torch", [*common, *bridge])]
    modules = {}
    if nvcc is not None:  # first: the slowest of its sources should not be the last that is compiled
        objects = cuda.compile_kernels(ninja, root, nvcc, toolchain.baseline_flags(machine))
        objects += compile_all("torch/cuda", [*common, *bridge])
        libraries = [f"-L{torch.lib}", *TORCH_LIBRARIES]
        modules["_cuda"] = cuda.link(ninja, [*in_both, *objects], f"_cuda{suffix}", linker_flags, libraries, exports)

    described = [f'-D{name}="{value}"' for name, value in information.items()]
    objects = [*compile_all("torch/cpu", [*common, *bridge, *described]), *compile_all("cpu", common)]
    for isa in isas:
        for source in _kernel_sources(root, isa.name):
            flags = [*common, *quick, f"-DCONVEXT_ISA={isa.name}", *isa.flags]
            if isa.name == "baseline" and len(isas) > 1:
                flags.append("-O1")  # for CPUs older than 2013 alone: not worth everyone's time to compile
            objects.append(ninja.compile(source, f"kernels/{isa.name}/{source.stem}.o", flags))
    link = [*shlex.split(os.environ.get("LDFLAGS", "")), "-shared"]
    link += [f"-Wl,{flag}" for flag in linker_flags] + [f"-L{torch.lib}", *TORCH_LIBRARIES]
    modules["_C"] = ninja.link(f"_C{suffix}", [*in_both, *objects], link, [exports])
    ninja.write()
    return modules


def _kernel_sources(root: Path, isa: str) -> list[Path]:
    kernels = root / "csrc" / "cpu" / "kernels"
    if isa in ONLY_FOLDERS:
        folders = [kernels / ONLY_FOLDERS[isa]]
    else:
        folders = [kernels] if isa == "baseline" else [kernels, kernels / "specialised"]
    return [source for folder in folders for source in sorted(folder.glob("*.cpp"))]


def _run_ninja(root: Path, build: Path, targets: list[Path], jobs: int | None, verbose: bool) -> bool:
    jobs = jobs or int(os.environ.get("MAX_JOBS", 0)) or len(os.sched_getaffinity(0))
    ninja = [toolchain.find_ninja(), "-C", str(build)]
    # Objects of sources that are gone go, too.
    subprocess.run([*ninja, "-t", "cleandead"], cwd=root, capture_output=True, check=False)
    command = [*ninja, "-j", str(jobs), *(["-v"] if verbose else []), *map(str, targets)]
    return subprocess.run(command, cwd=root, check=False).returncode == 0
