"""Which kernels there are, which one runs a call and why, and how to force another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from convext import _C, _cuda_part
from convext._explanation_text import text_of
from convext._geometry import Padding, normalize
from convext._pass_timing import measured_seconds
from convext.floor import Floor, cpu_floor


@dataclass(frozen=True)
class Kernel:
    """One build of one algorithm: ``name`` compiled for the instruction set ``isa``, which is "cuda" on a GPU."""

    name: str
    isa: str
    description: str
    available: bool  #: whether this machine, and for CPU kernels the environment variable CONVEXT_MAX_ISA, allow it

    @property
    def qualified_name(self) -> str:
        """``name/isa``, which `force_kernel` takes as well as ``name`` alone."""
        return f"{self.name}/{self.isa}"

    @property
    def device(self) -> str:
        """The type of the device that it runs on."""
        return "cuda" if self.isa == "cuda" else "cpu"


def available_kernels(device: str | torch.device = "cpu", *, all_isas: bool = False) -> list[Kernel]:
    """The kernels that this machine can run, in the order in which they are tried.

    Args:
        device: the device of the tensors, of which only the type counts: ``"cpu"`` or ``"cuda"``.
        all_isas: also list those built for instruction sets or devices that this machine lacks.

    Raises:
        ValueError: for a device of another type.

    Example:
        >>> import convext
        >>> convext.available_kernels()[-1].name
        'reference'
    """
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', but it is '{kind}'")
    kernels = [Kernel(*fields) for fields in (_C.kernels() if kind == "cpu" else _cuda_part.kernels())]
    return [kernel for kernel in kernels if kernel.available or all_isas]


def _set_forced_kernel(name: str) -> None:
    _C.set_forced_kernel(name)
    if _cuda_part.module is not None:
        _cuda_part.module.set_forced_kernel(name)


@contextlib.contextmanager
def force_kernel(name: str) -> Iterator[None]:
    """Within the ``with`` block, runs the kernel of this name for every pass, in the whole process.

    Args:
        name: ``"implicit_gemm"`` (its best build for this CPU), ``"implicit_gemm/avx2"`` or ``"generic/cuda"``.

    Raises:
        ValueError: if there is no kernel of that name.
        RuntimeError: raised by a call in the block that the kernel cannot run, with its reason; a kernel for the CPU
            cannot run a call with CUDA tensors, and the other way round.

    Example:
        >>> import torch, convext
        >>> with convext.force_kernel("reference"):
        ...     convext.corr2d(torch.ones(2, 2), torch.ones(2, 2))
        tensor([[4.]])
    """
    known = [*available_kernels("cpu", all_isas=True), *available_kernels("cuda", all_isas=True)]
    if not any(name in (kernel.name, kernel.qualified_name) for kernel in known):
        names = sorted({kernel.name for kernel in known})
        raise ValueError(f"name must be one of {names}, alone or as name/isa, but it is {name!r}")
    previous = _C.forced_kernel()
    _set_forced_kernel(name)
    try:
        yield
    finally:
        _set_forced_kernel(previous)


@dataclass(frozen=True)
class PassPlan:
    """How one pass of a call would run."""

    name: str  #: "forward", "grad_input" or "grad_weight"
    kernel: str  #: qualified name of the kernel that runs it
    description: str
    rejected: tuple[tuple[str, str], ...]  #: kernels tried before it, with the reason why each cannot run it
    flops: float  #: 2 per multiply-add
    bytes: int  #: of the tensors read and written, each once
    workspace_bytes: int  #: scratch that the kernel asks for
    threads: int  #: of the CPU; 0 for a kernel that runs on a GPU
    floor: Floor | None = None  #: the least time on this machine; None unless it was asked for, and on a GPU
    floor_is_unknown: bool = False  #: it was asked for, but the pass would run on a GPU
    measured_seconds: float | None = None  #: None unless it was asked for

    @property
    def intensity(self) -> float:
        """FLOPs for each byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def share_of_floor(self) -> float | None:
        """The floor's time over the measured one: 1 is as fast as the machine allows. None where one is missing."""
        if self.floor is None or self.measured_seconds is None:
            return None
        return self.floor.seconds / self.measured_seconds


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; prints as a text that explains each pass."""

    output_shape: tuple[int, ...]
    passes: tuple[PassPlan, ...]
    call: str = ""  #: what was asked about, in one line

    def __getitem__(self, name: str) -> PassPlan:
        for plan in self.passes:
            if plan.name == name:
                return plan
        raise KeyError(name)

    def __str__(self) -> str:
        return text_of(self)


def _call_text(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: object,
    padding: object,
    dilation: object,
    groups: int,
    padding_mode: str,
) -> str:
    """The call in one line, without the arguments that have their default values."""
    settings = {"stride": (stride, 1), "padding": (padding, 0), "dilation": (dilation, 1), "groups": (groups, 1)}
    parts = [f"{name} {value}" for name, (value, default) in settings.items() if value != default]
    parts += [padding_mode] if padding_mode != "zeros" else []
    images = input if input.dim() == 4 else input.unsqueeze(0)
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    layout = next((name for name, form in layouts.items() if images.is_contiguous(memory_format=form)), "other strides")
    parts += ["bias"] if bias is not None else []
    dtype = str(input.dtype).removeprefix("torch.")
    return ", ".join([f"conv2d: input {tuple(input.shape)}, weight {tuple(weight.shape)}", *parts, dtype, layout])


def explain(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    out_dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    floor: bool = False,
    measure: bool = False,
) -> Explanation:
    """Which kernel runs each pass of this call, which were rejected and why, and what it costs; print it to read.

    Takes the arguments of `convext.conv2d`; only shapes, strides and dtypes matter, so meta tensors will do.
    Complex tensors are explained as the real correlation over twice the channels that they become.

    Args:
        device: where the call would run; by default where the input is, and the CPU for meta tensors.
        floor: also the least time that each pass can take on this machine's CPU (see `convext.floor`). What is not
            known yet is measured, which takes some tenths of a second, and remembered for the process.
        measure: also the time of each pass, the least of several runs on random numbers, and the floor.

    Raises:
        RuntimeError, TypeError, ValueError: as `convext.conv2d`.

    Example:
        >>> import torch, convext
        >>> plan = convext.explain(torch.ones(1, 3, 32, 32), torch.ones(8, 3, 3, 3))
        >>> plan.output_shape, plan["forward"].flops
        ((1, 8, 30, 30), 388800.0)
        >>> plan = convext.explain(torch.ones(1, 3, 32, 32), torch.ones(8, 3, 3, 3), floor=True)
        >>> 0 < plan["forward"].floor.seconds < 1
        True
    """
    if input.dim() not in (3, 4) or weight.dim() != 4:
        raise RuntimeError(
            f"explain(): input must be 3-D or 4-D and weight 4-D, but they have shapes {list(input.shape)} and "
            f"{list(weight.shape)}"
        )
    target = torch.device(device) if device is not None else input.device
    asked = _call_text(input, weight, bias, stride, padding, dilation, groups, padding_mode)
    dtype, out_channels = input.dtype, weight.shape[0]
    if dtype.is_complex:
        dtype = torch.float32 if dtype == torch.complex64 else torch.float64
        input = torch.empty((*input.shape[:-3], 2 * input.shape[-3], *input.shape[-2:]), dtype=dtype, device="meta")
        out, channels, height, width = weight.shape
        weight = torch.empty((2 * out, 2 * channels, height, width), dtype=dtype, device="meta")
    geometry = normalize(stride, padding, dilation, groups, padding_mode, input.shape[-2:], weight.shape[-2:])
    images = input if input.dim() == 4 else input.unsqueeze(0)
    result_dtype = out_dtype or dtype
    passes = []
    output_shape: tuple[int, ...] = ()
    for name in ("forward", "grad_input", "grad_weight"):
        if name != "forward" and not dtype.is_floating_point:
            continue  # integers have no gradients
        call = (
            list(images.shape),
            list(images.stride()),
            list(weight.shape),
            list(weight.stride()),
            bias is not None and name == "forward",
            str(dtype).removeprefix("torch."),
            str(result_dtype).removeprefix("torch."),
            *geometry,
        )
        on_gpu = target.type == "cuda"
        plan = _cuda_part.plan(name, call, target) if on_gpu else _C.plan(name, call)
        output_shape = (*input.shape[:-3], out_channels, *plan["output_size"])
        output_elements = images.shape[0] * weight.shape[0] * plan["output_size"][0] * plan["output_size"][1]
        flops, threads = 2.0 * plan["multiply_adds"], plan["workers"]
        bytes_ = (input.numel() + weight.numel()) * dtype.itemsize + output_elements * result_dtype.itemsize
        wants_floor = floor or measure
        passes.append(
            PassPlan(
                name,
                plan["kernel"],
                plan["description"],
                tuple(plan["rejected"]),
                flops,
                bytes_,
                plan["workspace_bytes"],
                threads,
                cpu_floor(flops, bytes_, dtype, threads) if wants_floor and not on_gpu else None,
                wants_floor and on_gpu,
                measured_seconds(name, images, weight, bias, geometry, out_dtype, target) if measure else None,
            )
        )
    return Explanation(output_shape, tuple(passes), asked)
