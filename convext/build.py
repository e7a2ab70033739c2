"""What a bug report needs to know."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from convext import _C, _cuda_part


def build_info() -> dict[str, Any]:
    """Version, compiler, instruction sets built and in use, the CUDA part, and torch built against and running.

    ``cuda_loaded`` says why the CUDA part is not loaded, if it is not.

    Example:
        >>> import convext
        >>> convext.build_info()["version"] == convext.__version__
        True
    """
    native = _C.build_info()
    return {
        "version": native["version"],
        "compiler": native["compiler"],
        "isas_built": native["isas"].split(","),
        "isa_in_use": native["best_isa"],
        "CONVEXT_MAX_ISA": os.environ.get("CONVEXT_MAX_ISA"),
        **_cuda_part.describe(),
        "torch_built_against": native["torch_version"],
        "torch_running": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
    }
