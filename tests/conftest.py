"""Fixtures: each kernel of this machine, each device, and a fixed number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cases
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import convext

KERNELS = [*convext.available_kernels("cpu"), *convext.available_kernels("cuda")]
DEVICES = sorted({kernel.device for kernel in KERNELS})

# Tests run side by side (pytest -n) and are small. Those that need more threads ask for them.
torch.set_num_threads(1)

# What tests compare with is float32 on a GPU, too: by default cuDNN may round its factors to 10 bits.
torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


class KernelUnderTest:
    """Runs calls on one kernel only, with tensors that are on the CPU, wherever the kernel itself runs."""

    def __init__(self, kernel: convext.plan.Kernel) -> None:
        self.name = kernel.qualified_name
        self.device = kernel.device
        self.description = kernel
        self.runs_everything = self.name in ("reference/baseline", "generic/cuda")

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the function returns, or None if it calls for something that the kernel says it cannot run."""
        there = [cases.on_device(arg, self.device) if isinstance(arg, torch.Tensor) else arg for arg in args]
        with convext.force_kernel(self.name):
            try:
                return function(*there, **kwargs).cpu()
            except RuntimeError as error:
                if "was forced, but it cannot run" not in str(error):
                    raise
                return None


@pytest.fixture(params=KERNELS, ids=lambda kernel: kernel.qualified_name.replace("/", "-"))
def kernel(request: pytest.FixtureRequest) -> KernelUnderTest:
    return KernelUnderTest(request.param)


@pytest.fixture(scope="session")
def kernels() -> list[KernelUnderTest]:
    """All of them, for tests whose expected result is too dear to compute once for each."""
    return [KernelUnderTest(kernel) for kernel in KERNELS]


class PreferKernel(TorchDispatchMode):
    """Within the block, every convext operator runs on this kernel where it can, and as planned elsewhere.

    A kernel that has no backward pass can so be tested within a whole training step.
    """

    def __init__(self, name: str, device: str) -> None:
        super().__init__()
        self.name = name
        self.device = device  #: where the tensors of the training step must be
        self.calls = 0  #: that ran on the kernel

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace != "convext":
            return func(*args, **(kwargs or {}))
        with convext.force_kernel(self.name):
            try:
                result = func(*args, **(kwargs or {}))
            except RuntimeError as error:
                if "was forced, but it cannot run" not in str(error):
                    raise
            else:
                self.calls += 1
                return result
        return func(*args, **(kwargs or {}))


@pytest.fixture
def preferred_kernel(kernel: KernelUnderTest) -> Iterator[PreferKernel]:
    with PreferKernel(kernel.name, kernel.device) as mode:
        yield mode
    if mode.calls == 0:
        pytest.skip(f"{kernel.name} refuses this problem")


@pytest.fixture(autouse=True)
def default_state() -> Iterator[None]:
    """Every test starts from the same random numbers, and leaves the settings of the process as it found them."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    assert convext.get_float32_precision() == "highest"
