"""Loads the CUDA part, `convext._cuda`, or knows why it is not to be had. `import convext` never fails for it.

The module registers the operators for CUDA tensors when it is imported. It is loaded only where torch has CUDA; for
that it needs neither a driver nor a device.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

import torch

from convext import _C


def _load() -> tuple[ModuleType | None, str]:
    """The module, or None and what is missing and what to do, as a clause."""
    native = _C.build_info()
    if native["without_cuda"]:
        return None, f"convext was built without CUDA ({native['without_cuda']}); build it again where nvcc is found"
    if not is_built():
        return None, "convext was built without CUDA (nvcc failed); build it again with CONVEXT_CUDA=1 to see why"
    if torch.version.cuda is None:
        return None, f"torch {torch.__version__} is a build without CUDA; install one with it"
    try:
        loaded = importlib.import_module("convext._cuda")
    except Exception as error:
        return None, f"convext's CUDA part could not be loaded ({error}); build convext again beside this torch"
    if not loaded.torch_has_cuda():
        return None, f"torch {torch.__version__} does not give its CUDA stream to extensions; install another one"
    return loaded, ""


def is_built() -> bool:
    """Whether the module's file is there."""
    return importlib.util.find_spec("convext._cuda") is not None


def is_available() -> bool:
    """Whether a call with CUDA tensors can succeed here."""
    return module is not None and torch.cuda.is_available()


def kernels() -> list[tuple[str, str, str, bool]]:
    """(name, "cuda", description, available) of every CUDA kernel, in the order in which they are tried."""
    return [] if module is None else [(*fields, is_available()) for fields in module.kernels()]


def plan(pass_name: str, call: tuple[Any, ...], device: torch.device) -> dict[str, Any]:
    """Which kernel runs a pass of a call on this device."""
    if module is None:
        raise NotImplementedError(f"explain(): there are no CUDA kernels here: {missing}")
    index = device.index
    if index is None:
        index = torch.cuda.current_device() if torch.cuda.is_available() else 0
    return module.plan(pass_name, call, *module.device(index))


def describe() -> dict[str, Any]:
    """For `build_info`."""
    native = _C.build_info()
    info: dict[str, Any] = {
        "cuda_archs_built": [arch for arch in native["cuda_archs"].split(",") if arch] if is_built() else [],
        "cuda_loaded": "yes" if module is not None else f"no: {missing}",
    }
    if module is not None:
        runtime, driver = (f"{version // 1000}.{version % 1000 // 10}" for version in module.versions())
        info["cuda_runtime"] = runtime
        info["cuda_driver"] = driver if driver != "0.0" else "none"
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        info["cuda_devices"] = [
            f"{torch.cuda.get_device_name(i)} (sm_{''.join(map(str, torch.cuda.get_device_capability(i)))})"
            for i in range(count)
        ]
    return info


module: Any
module, missing = _load()
