"""The report: rows by layer, rectangles of units, a table, pictures."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from convext.receptive_field._reach import EMPTY
from convext.receptive_field._rows import IRREGULAR, Layer, Row, Units

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Rectangle:
    """Pixels of an image: rows from `top` up to, but without, `bottom`; columns from `left` up to, without, `right`.

    As Python's slices: ``image[..., top:bottom, left:right]``, which `slices` gives. Where a unit sees nothing (only
    padding), all four are 0.

    Example:
        >>> from convext.receptive_field import Rectangle
        >>> Rectangle(top=2, left=0, bottom=5, right=4).size
        (3, 4)
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.bottom - self.top, self.right - self.left)

    @property
    def center(self) -> tuple[float, float]:
        """(row, column) of the middle, as pixel indices; a half lies between two pixels."""
        return ((self.top + self.bottom - 1) / 2, (self.left + self.right - 1) / 2)

    @property
    def slices(self) -> tuple[slice, slice]:
        """For the last two dimensions of an image."""
        return (slice(self.top, self.bottom), slice(self.left, self.right))


@dataclass(frozen=True)
class Unit:
    """What one unit (position in the output of a layer, all channels) sees.

    Attributes:
        name: of the layer.
        index: (row, column) in the output of the layer.
        rectangle: exactly the pixels of this image that the unit depends on, or the smallest rectangle around them.
        unclipped: the same on an image without borders; beyond the image it is padding. Where all paths are global,
            or where fields do not move evenly, it is `rectangle`.
        global_view: as in `Row`.
    """

    name: str
    index: tuple[int, int]
    rectangle: Rectangle
    unclipped: Rectangle
    global_view: bool

    @property
    def center(self) -> tuple[float, float]:
        """(row, column) of the middle of the unclipped field, as pixel indices."""
        return self.unclipped.center


class Report(Sequence[Row]):
    """The receptive fields of all layers of a model, for one image size.

    A sequence of `Row` in the order of the run; ``report["layer4.2.conv2"]`` gives a row by name, also that of a
    container, which is the field of what it returns. ``str(report)`` is a table, and rich prints a coloured one.

    Attributes:
        rows: one `Row` for each layer.
        input_size: (height, width) of the image.
    """

    def __init__(self, layers: Sequence[Layer], model: torch.nn.Module, image_shape: Sequence[int]) -> None:
        self.rows = [layer.row for layer in layers if layer.is_row]
        self.input_size: tuple[int, int] = (image_shape[-2], image_shape[-1])
        self._image_shape = tuple(image_shape)
        self._layers = {layer.row.name: layer for layer in layers}
        self._model = model

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._layer(key).row
        return self.rows[key]

    def __contains__(self, key: object) -> bool:
        return key in self._layers if isinstance(key, str) else key in self.rows

    @property
    def batch_size(self) -> int:
        """Of the image that was traced."""
        return self._image_shape[0]

    def _layer(self, name: str) -> Layer:
        if name in self._layers:
            return self._layers[name]
        close = difflib.get_close_matches(name, self._layers, n=3, cutoff=0.5)
        hint = f"; close names: {', '.join(close)}" if close else ""
        raise KeyError(f"there is no layer {name!r} that depends on the image{hint}")

    @property
    def mismatches(self) -> list[Row]:
        """The rows for which the check by gradients found something else."""
        return [row for row in self.rows if row.verified is False]

    def unit(self, name: str, index: tuple[int, int] | None = None) -> Unit:
        """What one unit of a layer sees.

        Args:
            name: of the layer.
            index: (row, column) of the unit in the output of the layer, negative ones from the end; None is the one
                in the middle.

        Raises:
            KeyError: if no layer has that name.
            IndexError: if the layer has no such unit.

        Example:
            >>> import torch, convext
            >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1))
            >>> unit = convext.receptive_field(model, 32).unit("0", (0, 5))
            >>> unit.rectangle
            Rectangle(top=0, left=9, bottom=2, right=12)
            >>> unit.unclipped
            Rectangle(top=-1, left=9, bottom=2, right=12)
        """
        layer = self._layer(name)
        row, column = self._position(layer, index)
        if set(layer.rows.axes) & set(layer.columns.axes):
            column = row
        near, far = [], []
        regular = IRREGULAR not in layer.row.note
        for units, position in ((layer.rows, row), (layer.columns, column)):
            own = _interval(units, position, 0)
            near.append(own)
            far.append(_interval(units, position, 2) if regular and units.bounds[2].min() < EMPTY else own)
        # What sees no row or no column sees nothing.
        near = [(0, 0), (0, 0)] if (0, 0) in near else near
        far = [(0, 0), (0, 0)] if (0, 0) in far else far
        return Unit(
            name,
            self._position(layer, index),
            Rectangle(near[0][0], near[1][0], near[0][1], near[1][1]),
            Rectangle(far[0][0], far[1][0], far[0][1], far[1][1]),
            layer.row.global_view,
        )

    def _position(self, layer: Layer, index: tuple[int, int] | None) -> tuple[int, int]:
        """A unit's index, checked and counted from the start; units that all see the same have one in common."""
        sizes = layer.row.output_size
        if index is None:
            index = (sizes[0] // 2, sizes[1] // 2)
        if (
            not isinstance(index, (tuple, list))
            or len(index) != 2
            or not all(isinstance(value, int) and not isinstance(value, bool) for value in index)
        ):
            raise TypeError(f"unit(): index must be a pair of ints (row, column), but it is {index!r}")
        for value, size in zip(index, sizes, strict=True):
            if not -size <= value < size:
                raise IndexError(
                    f"unit(): layer {layer.row.name!r} has {sizes[0]} x {sizes[1]} units, so index must be within "
                    f"that, but it is {tuple(index)}"
                )
        return (index[0] % sizes[0], index[1] % sizes[1])

    def effective_field(
        self,
        name: str,
        unit: tuple[int, int] | None = None,
        images: Any = None,
        *,
        samples: int = 16,
        seed: int = 0,
    ) -> torch.Tensor:
        """How much each pixel matters to a unit: the mean absolute gradient with the model's own weights.

        Args:
            name: of the layer.
            unit: (row, column) in its output; None is the one in the middle.
            images: shape ``(N, C, H, W)`` or ``(C, H, W)`` of the report's image size; None takes random ones from a
                normal distribution.
            samples: how many random images.
            seed: of the random images.

        Returns:
            float64, shape ``(H, W)``, on the CPU: the gradient of the sum of the unit's channels with respect to the
            image, its absolute value averaged over images and channels. Zero outside of the unit's rectangle.

        Raises:
            KeyError, IndexError: as `unit`.
            ValueError: if the images have another size.
            RuntimeError: if no gradient leads from the layer to the image.

        Source: Luo, Li, Urtasun and Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural
            Networks", arXiv:1701.04128.

        Example:
            >>> import torch, convext
            >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3))
            >>> field = convext.receptive_field(model, 16).effective_field("1", (5, 5))
            >>> [int(n) for n in field.nonzero().amin(0)], [int(n) for n in field.nonzero().amax(0)]
            ([5, 5], [9, 9])
        """
        from convext.receptive_field._gradients import effective_field

        layer = self._layer(name)
        position = self._position(layer, unit)
        return effective_field(self._model, layer, position, self._image_shape, images, samples, seed)

    def to_records(self) -> list[dict[str, Any]]:
        """The rows as flat dictionaries: ``pandas.DataFrame(report.to_records())``.

        Example:
            >>> import torch, convext
            >>> report = convext.receptive_field(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), 32)
            >>> report.to_records()[0]["size_height"]
            3
        """
        records = []
        for row in self.rows:
            record: dict[str, Any] = {"name": row.name, "kind": row.kind}
            for quantity in ("size", "jump", "start", "padding", "output_size"):
                for side, value in zip(("height", "width"), getattr(row, quantity), strict=True):
                    record[f"{quantity}_{side}"] = value
            record |= {"global_view": row.global_view, "probed": row.probed, "verified": row.verified, "note": row.note}
            records.append(record)
        return records

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Header and cells; a column that would be empty is left out."""
        columns: dict[str, list[str]] = {
            "layer": [row.name or "(model)" for row in self.rows],
            "kind": [row.kind for row in self.rows],
            "size": [_text(row.size) for row in self.rows],
            "jump": [_text(row.jump) for row in self.rows],
            "start": [_text(row.start) for row in self.rows],
            "output": [_text(row.output_size) for row in self.rows],
        }
        if any(row.verified is not None for row in self.rows):
            columns["verified"] = [{None: "-", True: "yes", False: "NO"}[row.verified] for row in self.rows]
        remarks = [
            ", ".join(["global"] * row.global_view + ["probed"] * row.probed + [row.note] * bool(row.note))
            for row in self.rows
        ]
        if any(remarks):
            columns["remarks"] = remarks
        return list(columns), [list(line) for line in zip(*columns.values(), strict=True)]

    @property
    def _title(self) -> str:
        return "Receptive fields for an image of {} x {} pixels".format(*self.input_size)

    def __str__(self) -> str:
        header, cells = self._table()
        widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
        ruler = ["-" * width for width in widths]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in [header, ruler, *cells]
        ]
        return "\n".join([self._title, *lines])

    def __repr__(self) -> str:
        return "<Report: {} layers, image of {} x {} pixels>".format(len(self.rows), *self.input_size)

    def __rich__(self) -> Any:
        from rich.table import Table

        header, cells = self._table()
        table = Table(title=self._title)
        for column in header:
            table.add_column(column, justify="right" if column in ("size", "jump", "start", "output") else "left")
        for row, line in zip(self.rows, cells, strict=True):
            style = "red" if row.verified is False else "yellow" if row.probed else "cyan" if row.global_view else None
            table.add_row(*line, style=style)
        return table

    def draw(
        self,
        name: str,
        unit: tuple[int, int] | None = None,
        image: Any = None,
        *,
        effective: bool = True,
        samples: int = 16,
    ) -> Figure:
        """A picture: the unit's rectangle on a photograph, and how much each pixel of it matters.

        Args:
            name: of the layer.
            unit: (row, column) in its output; None is the one in the middle.
            image: a photograph as a tensor or array ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)`` with values in 0..1 or
                0..255, or as a PIL image; it is resized to the report's image size. None draws on grey.
            effective: whether to draw the effective field beside it.
            samples: random images for the effective field.

        Returns:
            A matplotlib figure; ``figure.savefig("field.png")`` writes it.

        Raises:
            ImportError: without matplotlib.
            KeyError, IndexError: as `unit`.
            ValueError: if the image has no shape of those above.

        Example:
            >>> import torch, convext
            >>> report = convext.receptive_field(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), 32)
            >>> figure = report.draw("0", (3, 3))  # doctest: +SKIP
        """
        from convext.receptive_field._pictures import draw

        return draw(self, name, unit, image, effective, samples)


def _interval(units: Units, position: int, first: int) -> tuple[int, int]:
    """First pixel and the one after the last; (0, 0) where nothing is seen."""
    column = units.bounds[first : first + 2, position if units.axes else 0]
    start, stop = int(column[0]), 1 - int(column[1])
    return (start, stop) if start < EMPTY else (0, 0)


def _text(pair: tuple[int | float, int | float]) -> str:
    height, width = (f"{value:g}" if isinstance(value, float) else str(value) for value in pair)
    return height if height == width else f"{height} x {width}"
