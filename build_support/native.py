"""Which source is compiled how, and the ninja run that does it.

Three kinds of sources make the one extension module:
- csrc/core, csrc/cpu: plain C++, compiled once at the ABI's floor;
- csrc/cpu/kernels: compiled once for each instruction set (see csrc/cpu/isa.h), its folder `specialised` for all
  but the baseline;
- csrc/torch: the only ones that see torch, pybind11 and Python.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

from build_support import toolchain
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
TORCH_ABI_FLAGS = ["-DTORCH_TARGET_VERSION=0x020a000000000000"]  # the stable ABI of torch 2.10

# Torch's libraries carry no path here: `convext` imports torch first, and the loader then takes the copies
# that are in the process already. --as-needed records only those that are really used.
LINK_FLAGS = ["-shared", "-Wl,--as-needed", "-Wl,-z,relro,-z,now"]
TORCH_LIBRARIES = ["-ltorch_cpu"]  # has the whole stable ABI


def build_extension_module(*, root: Path, destination: Path, version: str, jobs: int | None, verbose: bool) -> None:
    """Compiles what has changed and puts the module at `destination`."""
    build = root / "build" / "native"
    build.mkdir(parents=True, exist_ok=True)
    built = _write_ninja_file(root, build, version)
    _run_ninja(root, build, jobs, verbose)
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(built, destination)


def _write_ninja_file(root: Path, build: Path, version: str) -> Path:
    machine = toolchain.architecture()
    compiler = toolchain.find_compiler()
    torch = toolchain.find_torch()
    isas = toolchain.instruction_sets(compiler, machine)

    common = shlex.split(os.environ.get("CXXFLAGS", ""))  # first, so that what convext relies on wins
    common += COMMON_FLAGS + toolchain.baseline_flags(machine) + [f"-I{root / 'csrc'}"]
    common += [f"-DCONVEXT_BUILD_{isa.name.upper()}" for isa in isas if isa.name != "baseline"]
    if os.environ.get("CONVEXT_WERROR") == "1":
        common.append("-Werror")
    bridge = [
        *TORCH_ABI_FLAGS,
        f"-isystem{torch.include}",
        f"-isystem{toolchain.find_pybind11()}",
        f"-isystem{toolchain.find_python_headers()}",
    ]
    information = {
        "CONVEXT_VERSION": version,
        "CONVEXT_COMPILER": compiler.version,
        "CONVEXT_ISAS": ",".join(isa.name for isa in isas),
        "CONVEXT_CUDA_ARCHS": "",
        "CONVEXT_TORCH_VERSION": torch.version,
    }

    quick = QUICK_KERNEL_FLAGS if compiler.accepts(QUICK_KERNEL_FLAGS) else []
    ninja = NinjaFile(root, build, compiler.command)
    for source in _sources(root, "csrc/core", "csrc/cpu"):
        ninja.compile(source, f"{source.parent.name}/{source.stem}.o", common)
    for isa in isas:
        folders = ["csrc/cpu/kernels"]
        if isa.name != "baseline":
            folders.append("csrc/cpu/kernels/specialised")
        for source in _sources(root, *folders):
            flags = [*common, *quick, f"-DCONVEXT_ISA={isa.name}", *isa.flags]
            if isa.name == "baseline" and len(isas) > 1:
                flags.append("-O1")  # for CPUs older than 2013 alone: not worth everyone's time to compile
            ninja.compile(source, f"kernels/{isa.name}/{source.stem}.o", flags)
    for source in _sources(root, "csrc/torch"):
        flags = [*common, *bridge]
        if source.name == "module.cpp":
            flags += [f'-D{name}="{value}"' for name, value in information.items()]
        ninja.compile(source, f"torch/{source.stem}.o", flags)

    user_flags = shlex.split(os.environ.get("LDFLAGS", ""))
    exports = root / "build_support" / "exports.map"
    link = [*user_flags, *LINK_FLAGS, f"-Wl,--version-script={exports}", f"-L{torch.lib}", *TORCH_LIBRARIES]
    built = ninja.link(f"_C{sysconfig.get_config_var('EXT_SUFFIX')}", link, [exports])
    ninja.write()
    return built


def _sources(root: Path, *folders: str) -> list[Path]:
    return [source for folder in folders for source in sorted((root / folder).glob("*.cpp"))]


def _run_ninja(root: Path, build: Path, jobs: int | None, verbose: bool) -> None:
    jobs = jobs or int(os.environ.get("MAX_JOBS", 0)) or len(os.sched_getaffinity(0))
    ninja = [toolchain.find_ninja(), "-C", str(build)]
    # Objects of sources that are gone go, too.
    subprocess.run([*ninja, "-t", "cleandead"], cwd=root, capture_output=True, check=False)
    command = [*ninja, "-j", str(jobs), *(["-v"] if verbose else [])]
    if subprocess.run(command, cwd=root, check=False).returncode != 0:
        raise SystemExit("convext: the native build failed; the compiler's message is above.")
