"""The figure of `FeatureMaps.draw`.

Every block is one Axes whose unit is the inch, with an image for each map: so there are few Axes at any number of
channels, and maps of one pixel are laid out like those of a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches.
WIDTH = 10.0  #: of the blocks
MARGIN = 0.2
TITLE = 0.3
LABEL = 0.15  #: above each map
GAP = 0.08  #: between maps
BLOCK_GAP = 0.25
COLOR_BAR = 0.14
COLOR_BAR_SPACE = 0.9  #: to the right of the blocks, for the bar and its numbers
LEAST_COLOR_BAR = 0.5  #: high
IMAGE_WIDTH = 2.8
IMAGE_GAP = 0.5

LARGEST_SIDE = 60_000  #: pixels that matplotlib can draw


@dataclass
class _Block:
    """Maps that stand together under a title."""

    title: str
    tiles: list[torch.Tensor]  #: (H, W) numbers, or (H, W, 3) colours between 0 and 1
    labels: list[str]
    width: float
    colors: str = "viridis"
    limits: tuple[float, float] | None = None  #: of the shared scale, which gets a colour bar
    tile_limits: list[tuple[float, float]] = field(default_factory=list)
    columns: int = 0

    def __post_init__(self) -> None:
        if self.columns == 0:
            count = len(self.tiles)
            self.columns = max(4, count) if count <= 8 else 8 if count <= 32 else 16
            height, width = self.tiles[0].shape[:2]
            if 3 * height < width:
                self.columns = max(4, self.columns // 2)

    @property
    def tile_width(self) -> float:
        return (self.width - (self.columns - 1) * GAP) / self.columns

    @property
    def tile_height(self) -> float:
        height, width = self.tiles[0].shape[:2]
        return self.tile_width * min(2.0, max(0.25, height / width))

    @property
    def row_height(self) -> float:
        return self.tile_height + GAP + (LABEL if any(self.labels) else 0)

    @property
    def height(self) -> float:
        rows = math.ceil(len(self.tiles) / self.columns) * self.row_height
        return TITLE + (max(rows, LEAST_COLOR_BAR + LABEL + GAP) if self.limits else rows)

    @property
    def used_width(self) -> float:
        return min(len(self.tiles), self.columns) * (self.tile_width + GAP)


def draw(
    image: torch.Tensor,
    kernels: Mapping[str, torch.Tensor],
    maps: Mapping[str, torch.Tensor],
    max_channels: int,
    *,
    is_shared: bool,
) -> Figure:
    """Image (C, H, W), kernels (O, C, h, w) by layer and maps (C, H', W') by layer, from top to bottom."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('draw(): matplotlib is needed and not installed: pip install "convext[plot]"') from error
    top = [_image_block(image)]
    top += [_kernel_block(name, weight, max_channels, is_shared) for name, weight in kernels.items()]
    rows = [top, *([_map_block(name, tensor, max_channels, is_shared)] for name, tensor in maps.items())]
    width = 2 * MARGIN + WIDTH + COLOR_BAR_SPACE
    height = 2 * MARGIN + sum(max(block.height for block in row) + BLOCK_GAP for row in rows) - BLOCK_GAP
    figure = Figure(figsize=(width, height), dpi=min(100.0, LARGEST_SIDE / height))
    y = MARGIN
    for row in rows:
        x = MARGIN
        for block in row:
            _draw_block(figure, block, x, y)
            x += block.width + IMAGE_GAP
        y += max(block.height for block in row) + BLOCK_GAP
    return figure


def _image_block(image: torch.Tensor) -> _Block:
    pixels = _numbers(image)
    channels, height, width = pixels.shape
    title = f"image   {height} x {width}" + (f" x {channels} channels" if channels > 1 else "")
    if channels == 3:
        pixels = pixels.movedim(0, -1)
    else:
        pixels = pixels[0]
        title += ", channel 0" if channels > 1 else ""
    if image.dtype == torch.uint8:
        pixels = pixels / 255
    low, high = _limits(pixels)
    if low < 0 or high > 1:
        pixels = (pixels - low) / (high - low)
        title += ", rescaled"
    tile = pixels.clamp(0, 1).nan_to_num(0)
    return _Block(title, [tile], [""], IMAGE_WIDTH, "gray", tile_limits=[(0, 1)], columns=1)


def _kernel_block(name: str, weight: torch.Tensor, max_channels: int, is_shared: bool) -> _Block:
    out_channels, in_channels, height, width = weight.shape
    shown = _numbers(weight[:max_channels])
    title = f"{name}   {_range('kernels', len(shown), out_channels)}   {height} x {width}"
    width_left = WIDTH - IMAGE_WIDTH - IMAGE_GAP
    labels = [str(index) for index in range(len(shown))]
    if in_channels == 3:
        furthest = [_symmetric(kernel)[1] for kernel in shown]
        if is_shared:
            furthest = [max(furthest)] * len(shown)
        tiles = [
            (0.5 + kernel.movedim(0, -1) / (2 * most)).clamp(0, 1).nan_to_num(0)
            for kernel, most in zip(shown, furthest, strict=True)
        ]
        return _Block(title + ", in colour: zero is grey", tiles, labels, width_left)
    if in_channels > 1:
        title += f", channel 0 of {in_channels}"
    tiles = list(shown[:, 0])
    limits = [_symmetric(tile) for tile in tiles]
    shared = _symmetric(shown[:, 0]) if is_shared else None
    return _Block(title, tiles, labels, width_left, "RdBu", shared, limits)


def _map_block(name: str, maps: torch.Tensor, max_channels: int, is_shared: bool) -> _Block:
    channels, height, width = maps.shape
    shown = _numbers(maps[:max_channels])
    title = f"{name}   {_range('channels', len(shown), channels)}   {height} x {width}"
    if maps.is_complex():
        title += ", magnitude"
    tiles = list(shown)
    labels = [str(index) for index in range(len(tiles))]
    limits = [_limits(tile) for tile in tiles]
    return _Block(title, tiles, labels, WIDTH, "viridis", _limits(shown) if is_shared else None, limits)


def _range(noun: str, shown: int, count: int) -> str:
    if count == 1:
        return f"1 {noun.removesuffix('s')}"
    return f"{count} {noun}" if shown == count else f"{noun} 0 to {shown - 1} of {count}"


def _numbers(tensor: torch.Tensor) -> torch.Tensor:
    """What matplotlib can draw."""
    tensor = tensor.detach().cpu()
    if tensor.is_complex():
        tensor = tensor.abs()
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _limits(values: torch.Tensor) -> tuple[float, float]:
    """Least and greatest finite value, never the same."""
    finite = values[values.isfinite()]
    low, high = (finite.min().item(), finite.max().item()) if finite.numel() else (0.0, 1.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _symmetric(values: torch.Tensor) -> tuple[float, float]:
    """Limits with zero in the middle."""
    finite = values[values.isfinite()]
    most = finite.abs().max().item() if finite.numel() else 0.0
    return (-(most or 1.0), most or 1.0)


def _draw_block(figure: Any, block: _Block, x: float, y: float) -> None:
    """Draws the block with its upper left corner at (x, y) from the figure's, and its colour bar to the right of it."""
    figure_width, figure_height = figure.get_size_inches()

    def add_axes(left: float, top: float, width: float, height: float) -> Any:
        bottom = figure_height - top - height
        return figure.add_axes(
            (left / figure_width, bottom / figure_height, width / figure_width, height / figure_height)
        )

    axes = add_axes(x, y + TITLE, block.width, block.height - TITLE)
    axes.set_title(block.title, loc="left", fontsize=9, pad=4)
    axes.axis("off")
    drawn = None
    label_height = block.row_height - block.tile_height - GAP
    for index, tile in enumerate(block.tiles):
        row, column = divmod(index, block.columns)
        left = column * (block.tile_width + GAP)
        top = row * block.row_height
        if block.labels[index]:
            axes.text(left, top + label_height - 0.02, block.labels[index], fontsize=6.5, color="#555555")
        top += label_height
        height, width = tile.shape[:2]
        inches = min(block.tile_width / width, block.tile_height / height)  # for each pixel
        left += (block.tile_width - width * inches) / 2
        extent = (left, left + width * inches, top + height * inches, top)
        style: dict[str, Any] = {}
        if tile.dim() == 2:
            low, high = block.limits or block.tile_limits[index]
            style = {"cmap": block.colors, "vmin": low, "vmax": high}
        drawn = axes.imshow(tile.numpy(), extent=extent, aspect="auto", **style)
    axes.set_xlim(0, block.width)
    axes.set_ylim(block.height - TITLE, 0)
    if block.limits is not None and drawn is not None:
        # Beside the maps, where these have labels above them; no higher than two or three rows.
        tall = min(block.height - TITLE - label_height - GAP, 2.5)
        bar = add_axes(x + block.used_width, y + TITLE + label_height, COLOR_BAR, tall)
        figure.colorbar(drawn, cax=bar).ax.tick_params(labelsize=7)
