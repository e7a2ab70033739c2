"""The CUDA part, `convext._cuda`: which nvcc compiles it, for which architectures, and how.

It is built wherever nvcc is found, also beside a torch without CUDA. CONVEXT_CUDA=0 leaves it out; CONVEXT_CUDA=1
makes it an error that it cannot be built, which otherwise is a warning: the CPU part does not need it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from build_support.ninja_file import NinjaFile
from build_support.toolchain import Compiler

OLDEST_CUDA = (12, 0)  # the first that knows all of Hopper

#: Native code for Ampere and what follows it (8.x) and for Hopper, and PTX, which the driver compiles when it is
#: loaded, for all that is newer. All from what Ampere can: the longest step of the compilation is that to PTX.
DEFAULT_ARCH, DEFAULT_CODES = "compute_80", ["sm_80", "sm_90", "compute_80"]

#: What only Hopper has (wgmma, TMA) is in sources of this kind, which are compiled for nothing else.
HOPPER_SOURCES, HOPPER_CODE = ".sm90a.cu", "sm_90a"

FLAGS = [
    "-std=c++17",
    "-O3",
    "-DNDEBUG",
    "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra",
    "-Xptxas=-v",  # registers and spills of each kernel, for the report
]

#: Kernels that are there for completeness: half the time of compiling is worth more than their last percents.
FALLBACK_SOURCES, FALLBACK_FLAG = {"generic.cu"}, "--Ofast-compile=min"

REPORT = "cuda_report.txt"
USUAL_PLACE = "/usr/local/cuda/bin/nvcc"


class _NotBuilt(Exception):
    """Why there is no CUDA part, as a clause."""


@dataclass(frozen=True)
class Nvcc:
    command: list[str]
    version: str  # "13.0"
    codes: list[str]  # what it generates: "sm_80" is native code, "compute_80" PTX
    fallback_flags: list[str]


def required() -> bool:
    return os.environ.get("CONVEXT_CUDA") == "1"


def warn(reason: str) -> None:
    """Says why there is no CUDA part, and goes on; or, if it was required, does not."""
    if required():
        raise SystemExit(f"convext: CONVEXT_CUDA=1, but the CUDA part cannot be built: {reason}.")
    print(f"convext: built without CUDA: {reason}.", file=sys.stderr)


def find_nvcc(compiler: Compiler) -> tuple[Nvcc | None, str]:
    """The compiler, or why the CUDA part is not built, as a clause."""
    if os.environ.get("CONVEXT_CUDA") == "0":
        return None, "CONVEXT_CUDA=0 switched it off"
    try:
        return _find_nvcc(compiler), ""
    except _NotBuilt as reason:
        warn(str(reason))
        return None, str(reason)


def _find_nvcc(compiler: Compiler) -> Nvcc:
    program = _find_program()
    if program is None:
        raise _NotBuilt("nvcc was not found (set CUDA_HOME, or put it on the PATH)")
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise _NotBuilt(f"{program} cannot be run ({error.strerror})") from None
    match = re.search(r"release (\d+)\.(\d+)", output.stdout)
    if output.returncode != 0 or match is None:
        raise _NotBuilt(f"{program} --version fails")
    release = (int(match[1]), int(match[2]))
    version = f"{release[0]}.{release[1]}"
    if release < OLDEST_CUDA:
        raise _NotBuilt(f"{program} is of CUDA {version}, and {OLDEST_CUDA[0]}.{OLDEST_CUDA[1]} is needed")
    help_ = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    fallback_flags = [FALLBACK_FLAG] if FALLBACK_FLAG.split("=")[0] in help_ else []
    return Nvcc([program, *_host_compiler(compiler)], version, _codes(), fallback_flags)


def _find_program() -> str | None:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if home and (Path(home) / "bin/nvcc").exists():
            return str(Path(home) / "bin/nvcc")
    return shutil.which("nvcc") or shutil.which(USUAL_PLACE)


def _host_compiler(compiler: Compiler) -> list[str]:
    """That of the rest where it is a g++; of clang, nvcc accepts few versions, and then finds a g++ by itself."""
    if compiler.is_clang or "NVCC_CCBIN" in os.environ or "ccbin" in os.environ.get("NVCC_PREPEND_FLAGS", ""):
        return []
    path = shutil.which(compiler.command[-1])  # behind a launcher such as ccache
    return ["-ccbin", path] if path else []


def _codes() -> list[str]:
    """What TORCH_CUDA_ARCH_LIST asks for, in torch's form: "8.0;9.0a+PTX"."""
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip()
    if not wanted:
        return DEFAULT_CODES
    codes = []
    for arch in re.split(r"[;,\s]+", wanted):
        match = re.fullmatch(r"(\d+)\.(\d[af]?)(\+PTX)?", arch)
        if match is None:
            raise _NotBuilt(f"TORCH_CUDA_ARCH_LIST holds '{arch}', which is not like 9.0, 9.0a or 9.0+PTX")
        number = match[1] + match[2]
        codes += [f"sm_{number}"] + ([f"compute_{number}"] if match[3] else [])
    return codes


def compile_kernels(ninja: NinjaFile, root: Path, nvcc: Nvcc, host_flags: list[str]) -> list[Path]:
    """csrc/cuda and the report on it. nvcc also takes the plain C++: it knows where CUDA's headers are."""
    command = shlex.join(nvcc.command).replace("$", "$$")
    # What ptxas says of each kernel goes to a file beside the object; all else that nvcc says is shown.
    ninja.rule(
        "nvcc",
        f"{command} $flags -MD -MF $out.d -c $in -o $out > $out.txt 2>&1; status=$$?; "
        "grep -v -e '^ptxas info' -e 'bytes stack frame' $out.txt >&2; exit $$status",
        depfile="$out.d",
        deps="gcc",
    )
    ninja.rule("nvcc_link", f"{command} $in $flags -o $out")
    demangle = "| c++filt" if shutil.which("c++filt") else ""
    ninja.rule("report", f"cat $flags {demangle} > $out")
    flags = [*FLAGS, *(f"-Xcompiler={flag}" for flag in host_flags), f"-I{root / 'csrc'}"]
    if os.environ.get("CONVEXT_WERROR") == "1":
        flags += ["--Werror=all-warnings", "-Xcompiler=-Werror"]
    objects = []
    folder = root / "csrc" / "cuda"
    for source in sorted([*folder.glob("**/*.cu"), *folder.glob("**/*.cpp")]):
        codes = [HOPPER_CODE] if source.name.endswith(HOPPER_SOURCES) else nvcc.codes
        own = [*_arch_flags(codes), *(nvcc.fallback_flags if source.name in FALLBACK_SOURCES else [])]
        name = str(source.relative_to(root / "csrc").with_suffix(".o"))
        objects.append(ninja.compile(source, name, [*flags, *own], rule="nvcc"))
    ninja.edge("report", [], REPORT, [f"{path}.txt" for path in objects], objects)
    return objects


def _arch_flags(codes: list[str]) -> list[str]:
    by_arch: dict[str, list[str]] = {}
    for code in codes:
        arch = DEFAULT_ARCH if codes == DEFAULT_CODES else f"compute_{code.split('_')[1]}"
        by_arch.setdefault(arch, []).append(code)
    return [f"-gencode=arch={arch},code=[{','.join(of_arch)}]" for arch, of_arch in by_arch.items()]


def link(
    ninja: NinjaFile, objects: list[Path], name: str, linker_flags: list[str], libraries: list[str], exports: Path
) -> Path:
    """CUDA's runtime is linked in: a shared one would have to be that of the torch that is used later."""
    flags = ["-shared", "-cudart=static", *(f"-Xlinker={flag}" for flag in linker_flags), *libraries]
    return ninja.link(name, objects, flags, [exports], rule="nvcc_link")
