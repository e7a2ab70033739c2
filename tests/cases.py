"""Shapes and arguments that the tests share, and the answer computed independently by torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FLOAT_DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INTEGER_DTYPES = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
PADDING_MODES = ["zeros", "reflect", "replicate", "circular"]
LAYOUTS = ["contiguous", "channels_last", "strided"]

Sides = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Case:
    """One call of conv2d."""

    name: str
    input_size: tuple[int, ...]  # (N, C, H, W) or (C, H, W)
    out_channels: int
    kernel_size: tuple[int, int]
    arguments: dict[str, Any] = field(default_factory=dict)
    bias: bool = True

    @property
    def groups(self) -> int:
        return self.arguments.get("groups", 1)

    @property
    def padding_mode(self) -> str:
        return self.arguments.get("padding_mode", "zeros")

    @property
    def weight_size(self) -> tuple[int, int, int, int]:
        return (self.out_channels, self.input_size[-3] // self.groups, *self.kernel_size)

    def __str__(self) -> str:
        return self.name


def _with_modes(name: str, *args: Any, **arguments: Any) -> list[Case]:
    return [Case(f"{name}-{mode}", *args, {**arguments, "padding_mode": mode}) for mode in PADDING_MODES]


#: The smallest problems that still have every feature: for gradcheck and other slow tests.
TINY_CASES = [
    Case("tiny", (2, 2, 4, 5), 3, (2, 3)),
    Case("tiny-no-bias", (2, 2, 3, 4), 2, (2, 2), {}, bias=False),
    Case("tiny-unbatched", (2, 4, 4), 2, (3, 2), {"padding": 1}),
    Case("tiny-strided", (1, 2, 5, 6), 2, (3, 2), {"stride": (2, 3), "padding": (1, 0)}),
    Case("tiny-dilated", (1, 2, 5, 6), 2, (2, 2), {"dilation": (2, 3), "padding": (1, 2)}),
    Case("tiny-strided-and-dilated", (1, 1, 6, 6), 2, (2, 3), {"stride": 2, "dilation": 2, "padding": 1}),
    Case("tiny-grouped", (2, 4, 3, 4), 6, (2, 2), {"groups": 2, "padding": 1}),
    Case("tiny-depthwise", (1, 3, 4, 4), 3, (3, 3), {"groups": 3, "padding": 1}),
    Case("tiny-asymmetric", (1, 2, 4, 4), 2, (3, 3), {"padding": ((2, 0), (0, 1))}),
    Case("tiny-same", (1, 1, 4, 5), 2, (2, 4), {"padding": "same"}),
    Case("tiny-same-strided", (1, 1, 5, 6), 2, (3, 3), {"padding": "same", "stride": 2}),
    Case("tiny-pointwise", (2, 3, 3, 3), 2, (1, 1)),
    *_with_modes("tiny-padded", (1, 2, 4, 5), 2, (3, 3), padding=((2, 1), (1, 3))),
    *_with_modes(
        "tiny-padded-strided-dilated-grouped", (1, 2, 5, 4), 2, (2, 3), padding=2, stride=2, dilation=2, groups=2
    ),
]

#: Problems around the boundaries that kernels block by: vector widths, tiles of pixels and of channels.
SHAPES = [
    Case("chapter", (1, 1, 6, 8), 1, (1, 2)),
    Case("one-pixel", (1, 1, 1, 1), 1, (1, 1)),
    Case("one-output", (2, 3, 5, 7), 4, (5, 7)),
    Case("one-output-by-padding", (2, 3, 3, 3), 4, (5, 5), {"padding": 1}),
    Case("mostly-padding", (1, 2, 2, 3), 3, (3, 3), {"padding": 6}),
    Case("empty-windows", (1, 2, 3, 3), 3, (2, 2), {"padding": 5, "stride": 3}),
    *[Case(f"width-{w}", (1, 2, 3, w + 2), 3, (2, 3)) for w in (3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 65)],
    *[
        Case(f"out-channels-{o}", (1, 3, 5, 9), o, (3, 3), {"padding": 1})
        for o in (1, 2, 5, 6, 7, 8, 12, 13, 16, 17, 33)
    ],
    *[Case(f"in-channels-{c}", (1, c, 4, 6), 5, (3, 3), {"padding": 1}) for c in (1, 2, 3, 4, 8, 15, 16, 17, 40)],
    Case("deep", (1, 300, 3, 5), 9, (1, 1)),
    Case("deep-3x3", (2, 70, 5, 5), 20, (3, 3), {"padding": 1}),
    Case("batch", (5, 3, 6, 7), 4, (3, 3), {"padding": 1}),
    Case("narrow", (3, 16, 7, 7), 24, (3, 3), {"padding": 1}),
    Case("tiny-map", (3, 12, 4, 4), 18, (3, 3), {"padding": 1}),
    Case("tall", (1, 2, 70, 2), 3, (5, 1), {"padding": (2, 0)}),
    Case("wide", (1, 1, 3, 150), 2, (3, 5), {"padding": (1, 2)}),
    Case("stem", (2, 3, 23, 25), 16, (7, 7), {"stride": 2, "padding": 3}),
    Case("pointwise", (2, 32, 7, 9), 17, (1, 1)),
    Case("pointwise-strided", (2, 8, 9, 11), 16, (1, 1), {"stride": 2}),
    Case("stride-beyond-kernel", (2, 3, 11, 13), 4, (2, 2), {"stride": (3, 4)}),
    Case("stride-3-1", (1, 4, 11, 20), 6, (3, 5), {"stride": (3, 1), "padding": (1, 2)}),
    Case("stride-1-2", (1, 4, 8, 35), 6, (3, 5), {"stride": (1, 2), "padding": (1, 2)}),
    Case("dilation-2", (1, 4, 12, 21), 6, (3, 3), {"dilation": 2, "padding": 2}),
    Case("dilation-5-1", (1, 3, 14, 10), 5, (3, 3), {"dilation": (5, 1), "padding": (5, 1)}),
    Case("dilation-beyond-input", (1, 3, 5, 5), 2, (2, 2), {"dilation": 7, "padding": 4}),
    Case("stride-and-dilation", (2, 3, 15, 17), 5, (3, 3), {"stride": 2, "dilation": 3, "padding": 3}),
    Case("large-kernel", (1, 1, 20, 21), 2, (11, 13), {"padding": 5}),
    Case("large-depthwise", (1, 4, 17, 18), 4, (9, 9), {"padding": 4, "groups": 4}),
    Case("depthwise", (2, 9, 12, 17), 9, (3, 3), {"padding": 1, "groups": 9}),
    Case("depthwise-strided", (1, 10, 13, 15), 10, (3, 3), {"padding": 1, "groups": 10, "stride": 2}),
    Case("depthwise-multiplier", (1, 5, 8, 9), 15, (3, 3), {"padding": 1, "groups": 5}),
    Case("grouped", (2, 12, 7, 9), 18, (3, 3), {"padding": 1, "groups": 3}),
    Case("grouped-8", (1, 32, 6, 10), 32, (3, 3), {"padding": 1, "groups": 4}),
    Case("grouped-pointwise", (1, 12, 7, 9), 8, (1, 1), {"groups": 4}),
    Case("asymmetric", (2, 3, 8, 9), 5, (3, 4), {"padding": ((0, 2), (3, 1))}),
    Case("asymmetric-strided", (2, 3, 9, 12), 5, (3, 4), {"padding": ((2, 0), (1, 3)), "stride": (2, 3)}),
    Case("valid", (1, 3, 8, 9), 5, (3, 4), {"padding": "valid"}),
    Case("same-even", (1, 3, 8, 9), 5, (2, 4), {"padding": "same"}),
    Case("same-dilated", (1, 3, 8, 9), 5, (4, 3), {"padding": "same", "dilation": (1, 3)}),
    *[Case(f"same-stride-{s}", (1, 2, 10, 13), 3, (3, 4), {"padding": "same", "stride": s}) for s in (2, 3, 4, 7)],
    Case("unbatched", (3, 8, 9), 5, (3, 3), {"padding": 1}),
    *_with_modes("frame", (2, 3, 7, 18), 5, (3, 3), padding=1),
    *_with_modes("frame-5", (1, 2, 6, 8), 4, (5, 5), padding=((4, 2), (1, 5)), stride=(1, 2)),
    *_with_modes("frame-dilated-grouped", (1, 4, 7, 9), 6, (3, 3), padding=3, dilation=2, groups=2),
    *_with_modes("frame-same", (1, 2, 7, 11), 3, (4, 4), padding="same"),
    *_with_modes("frame-full", (1, 2, 4, 5), 3, (3, 3), padding=((3, 3), (3, 3))),
]


assert len({case.name for case in SHAPES + TINY_CASES}) == len(SHAPES + TINY_CASES)


def four_sides(case: Case) -> Sides:
    """The case's padding as ((top, bottom), (left, right)), written down once more, independently of the package."""
    padding = case.arguments.get("padding", 0)
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        stride, dilation = pair(case.arguments.get("stride", 1)), pair(case.arguments.get("dilation", 1))
        sides = []
        for axis, size in enumerate(case.input_size[-2:]):
            outputs = -(-size // stride[axis])  # ceil(size / stride)
            needed = (outputs - 1) * stride[axis] + dilation[axis] * (case.kernel_size[axis] - 1) + 1
            total = max(0, needed - size)
            sides.append((total // 2, total - total // 2))
        return sides[0], sides[1]
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    if isinstance(padding[0], int):
        return (padding[0], padding[0]), (padding[1], padding[1])
    return padding


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def torch_conv2d(case: Case, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The case computed by torch: `F.pad`, then `F.conv2d`. Differentiable."""
    (top, bottom), (left, right) = four_sides(case)
    if top or bottom or left or right:
        mode = "constant" if case.padding_mode == "zeros" else case.padding_mode
        input = F.pad(input, (left, right, top, bottom), mode=mode)
    arguments = {name: case.arguments[name] for name in ("stride", "dilation", "groups") if name in case.arguments}
    return F.conv2d(input, weight, bias, **arguments)


def op_arguments(case: Case) -> tuple[Any, ...]:
    """What follows the tensors (and sizes) in a call of ``torch.ops.convext.*``."""
    (top, bottom), (left, right) = four_sides(case)
    return (
        pair(case.arguments.get("stride", 1)),
        (top, bottom, left, right),
        pair(case.arguments.get("dilation", 1)),
        case.groups,
        case.padding_mode,
    )


def small_integers(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Integers so small that no sum over a case's window is rounded."""
    generator = torch.Generator().manual_seed(seed)
    low = 0 if dtype == torch.uint8 else -4
    return torch.randint(low, 5, shape, generator=generator).to(dtype)


def normal(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values, in memory as ``layout`` says."""
    if layout == "contiguous":
        return tensor.clone(memory_format=torch.contiguous_format)
    if layout == "channels_last":
        if tensor.dim() == 3:
            return tensor.unsqueeze(0).clone(memory_format=torch.channels_last).squeeze(0)
        return tensor.clone(memory_format=torch.channels_last)
    assert layout == "strided"
    # Rows and columns exchanged in memory, gaps everywhere, and a first element in the middle of the storage.
    shape = list(tensor.shape)
    shape[-1], shape[-2] = shape[-2] * 2 + 1, shape[-1] * 3 + 2
    holder = torch.full(shape, 77, dtype=tensor.dtype, device=tensor.device).transpose(-1, -2)
    view = holder[..., 1::2, 2::3]
    view.copy_(tensor)
    return view


def on_device(tensor: Tensor, device: str) -> Tensor:
    """The tensor in a copy of its whole storage there, so with the same strides and offset; itself if it is there."""
    if tensor.device.type == device:
        return tensor
    storage = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage())
    return storage.to(device).as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def leaf(tensor: Tensor, requires_grad: bool = True) -> Tensor:
    """A leaf of the autograd graph with the same values and the same strides."""
    return tensor.detach().requires_grad_(requires_grad)
