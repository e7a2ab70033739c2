"""The layers that are timed: plain files in ``shapes/``, one for each network, one row for each layer."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch

#: The short names of dtypes in the files, in tables and on the command line.
DTYPES = {
    "f32": torch.float32,
    "f64": torch.float64,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "i32": torch.int32,
    "u8": torch.uint8,
}


@dataclass(frozen=True)
class Layer:
    """A row of a file: a convolution, and what it is timed with unless the user says otherwise."""

    network: str
    name: str
    in_channels: int
    out_channels: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    batches: tuple[int, ...]
    dtypes: tuple[str, ...]
    threads: tuple[str, ...]  #: numbers, or "all"

    @property
    def shape(self) -> tuple[object, ...]:
        """What distinguishes it from other layers, without its name."""
        return (
            *(self.in_channels, self.out_channels, self.size, self.kernel),
            *(self.stride, self.padding, self.dilation, self.groups),
        )

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        return tuple(  # type: ignore[return-value]
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(O, C / groups, h, w)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def is_depthwise(self) -> bool:
        """One filter for each channel, and more than one channel."""
        return self.groups == self.in_channels == self.out_channels > 1

    @property
    def flops(self) -> float:
        """Of one image and one pass, two for each multiply-add."""
        height, width = self.output_size
        out, channels, kernel_height, kernel_width = self.weight_shape
        return 2.0 * out * channels * kernel_height * kernel_width * height * width

    def __str__(self) -> str:
        def text(pair: tuple[int, int]) -> str:
            return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"

        parts = [
            f"{self.in_channels}->{self.out_channels}",
            f"{self.size[0]}x{self.size[1]}",
            f"k{text(self.kernel)}",
            f"s{text(self.stride)}" if self.stride != (1, 1) else "",
            f"p{text(self.padding)}" if self.padding != (0, 0) else "",
            f"d{text(self.dilation)}" if self.dilation != (1, 1) else "",
            f"g{self.groups}" if self.groups > 1 else "",
        ]
        return " ".join(part for part in parts if part)


def _pair(text: str) -> tuple[int, int]:
    """``"3"`` or ``"1x7"``."""
    numbers = [int(number) for number in text.split("x")]
    return (numbers[0], numbers[-1])


def parse(network: str, lines: Iterable[str]) -> list[Layer]:
    """The layers of a file; lines that start with ``#`` are comments."""
    rows = csv.DictReader((line for line in lines if line.strip() and not line.startswith("#")), skipinitialspace=True)
    layers = []
    for row in rows:
        cells = {str(key).strip(): (value or "").strip() for key, value in row.items()}
        layers.append(
            Layer(
                network,
                cells["layer"],
                int(cells["in"]),
                int(cells["out"]),
                _pair(cells["size"]),
                _pair(cells["kernel"]),
                _pair(cells["stride"]),
                _pair(cells["padding"]),
                _pair(cells["dilation"]),
                int(cells["groups"]),
                tuple(int(batch) for batch in cells["batch"].split()),
                tuple(cells["dtype"].split()),
                tuple(cells["threads"].split()),
            )
        )
    return layers


@cache
def networks() -> dict[str, list[Layer]]:
    """Every file's layers, by the file's name without its ending."""
    folder = files("convext.benchmark") / "shapes"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".csv"))
    return {
        name.removesuffix(".csv"): parse(name.removesuffix(".csv"), (folder / name).read_text().splitlines())
        for name in names
    }
