"""What this machine builds with. Whatever is missing is said in one sentence, without a traceback."""

from __future__ import annotations

import importlib.util
import os
import platform
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

OLDEST_TORCH = (2, 10)


@dataclass(frozen=True)
class Compiler:
    command: list[str]
    version: str  # the compiler's own first line, e.g. "g++ (Debian 12.2.0-14) 12.2.0"
    is_clang: bool

    def accepts(self, flags: list[str]) -> bool:
        # -Werror: clang only warns about some flags that it does not know.
        probe = [*self.command, *flags, "-Werror", "-x", "c++", "-fsyntax-only", os.devnull]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Torch:
    version: str
    include: Path
    lib: Path


@dataclass(frozen=True)
class InstructionSet:
    name: str
    flags: list[str]


def find_compiler() -> Compiler:
    chosen = os.environ.get("CXX", "").strip()
    candidates = [shlex.split(chosen)] if chosen else [["g++"], ["c++"], ["clang++"]]
    for command in candidates:
        if shutil.which(command[0]) is None:
            continue
        output = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
        if output.returncode == 0 and output.stdout:
            return Compiler(command, output.stdout.splitlines()[0], "clang" in output.stdout)
    if chosen:
        raise SystemExit(f"convext: the C++ compiler named by CXX, '{chosen}', cannot be run; install it or unset CXX.")
    raise SystemExit(
        "convext: no C++ compiler was found; install g++ or clang++ "
        "(on Debian or Ubuntu: apt-get install g++) or name one with CXX."
    )


def find_torch() -> Torch:
    """The torch of this environment, found without importing it (which takes seconds)."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "convext: torch was not found by this build; install torch 2.10 or newer first and then build "
            "with `pip install --no-build-isolation .`, which lets the build see it."
        )
    package = Path(spec.origin).parent
    version = runpy.run_path(str(package / "version.py"))["__version__"]
    numbers = tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split("+")[0].split("."))
    if numbers[:2] < OLDEST_TORCH:
        raise SystemExit(
            f"convext: torch {version} is too old; install torch "
            f"{OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer (pip install --upgrade torch)."
        )
    return Torch(version, package / "include", package / "lib")


def find_pybind11() -> Path:
    try:
        import pybind11
    except ImportError:
        raise SystemExit("convext: pybind11 was not found; install it (pip install pybind11).") from None
    return Path(pybind11.get_include())


def find_ninja() -> str:
    try:
        import ninja

        program = Path(ninja.BIN_DIR) / "ninja"
        if program.exists():
            return str(program)
    except (ImportError, AttributeError):
        pass
    program_on_path = shutil.which("ninja")
    if program_on_path is None:
        raise SystemExit("convext: ninja was not found; install it (pip install ninja).")
    return program_on_path


def find_python_headers() -> Path:
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        raise SystemExit(
            f"convext: Python's C headers are missing ({include}/Python.h); install them "
            "(on Debian or Ubuntu: apt-get install python3-dev)."
        )
    return include


def architecture() -> str:
    if not sys.platform.startswith("linux"):
        raise SystemExit(f"convext: only Linux is supported so far, not {sys.platform}.")
    return platform.machine()


def baseline_flags(machine: str) -> list[str]:
    """The ABI's floor, said explicitly: some compilers are configured to assume more."""
    return {"x86_64": ["-march=x86-64"], "aarch64": ["-march=armv8-a"]}.get(machine, [])


def instruction_sets(compiler: Compiler, machine: str) -> list[InstructionSet]:
    """What the kernels are compiled for, the least capable first."""
    sets = [InstructionSet("baseline", [])]
    if machine == "x86_64":
        avx2 = ["-mavx2", "-mfma", "-mf16c"]
        avx512 = ["-mprfchw", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *avx2]
        if compiler.accepts(["-mprefer-vector-width=512"]):
            avx512.append("-mprefer-vector-width=512")
        sets += [InstructionSet("avx2", avx2), InstructionSet("avx512", avx512)]
        pairs = ["-mavx512bf16", *avx512]
        sets += [InstructionSet("avx512bf16", pairs)]
        sets += [InstructionSet("amxbf16", ["-mamx-tile", "-mamx-bf16", "-mavx512vbmi2", *pairs])]
    elif machine == "aarch64":
        sets += [InstructionSet("neon", [])]  # NEON is part of the architecture
    supported = []
    for isa in sets:
        if compiler.accepts(baseline_flags(machine) + isa.flags):
            supported.append(isa)
        else:
            print(f"convext: {compiler.version} cannot build for {isa.name}; its kernels are left out")
    return supported


if __name__ == "__main__":
    # Asked by the Makefile before it downloads anything.
    architecture()
    find_compiler()
    find_python_headers()
