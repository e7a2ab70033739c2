"""From the fields of a trace to the rows of a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from convext.receptive_field._reach import EMPTY, Law, Reach, is_over_image, merged_law
from convext.receptive_field._recorder import Place
from convext.receptive_field._trace import Seen

IRREGULAR = "irregular"


@dataclass
class Row:
    """The receptive field of the units of one layer. Every pair is (height, width), in pixels of the image.

    Attributes:
        name: of the module in ``named_modules``, with ``#2`` and so on for further calls; for a function, the name of
            the module that calls it and the function's name.
        kind: class of the module, or name of the function.
        size: pixels that a unit sees, on an image without borders; the larger one where units differ. Where all
            paths are global, or where the fields of units do not move evenly, the largest one on this image.
        jump: pixels from the field of a unit to that of the next one, also called effective stride; 0 where all units
            see the same. Where fields do not move evenly, the mean, or NaN if there is none.
        start: first pixel that unit 0 sees; negative where that is padding.
        output_size: units in a column and in a row.
        global_view: whether the units see the whole image, in height or width, on some path that reduces all of it
            (global pooling, a linear layer after flattening, attention). `size` is then that of the other paths.
        probed: whether the layer is unknown, and its gradients told what it sees.
        verified: what the check by gradients found; None where there was none.
        note: what else is to be said, mostly empty.
    """

    name: str
    kind: str
    size: tuple[int, int]
    jump: tuple[int | float, int | float]
    start: tuple[int, int]
    output_size: tuple[int, int]
    global_view: bool = False
    probed: bool = False
    verified: bool | None = None
    note: str = ""

    @property
    def padding(self) -> tuple[int, int]:
        """Effective padding: how far the field of unit 0 begins before the image."""
        return (-self.start[0], -self.start[1])

    @property
    def center(self) -> tuple[float, float]:
        """Centre of the field of unit 0, as a pixel index; a half lies between two pixels."""
        return (self.start[0] + (self.size[0] - 1) / 2, self.start[1] + (self.size[1] - 1) / 2)


@dataclass(frozen=True)
class Units:
    """What each unit of a layer sees along one side of the image.

    Attributes:
        bounds: int64, shape ``(4, units)``: near first, minus near last, far first, minus far last.
        axes: which axes of the layer's tensor the units lie along.
        sizes: of these axes.
    """

    bounds: torch.Tensor
    axes: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def count(self) -> int:
        return self.bounds.shape[1]


@dataclass(frozen=True)
class Layer:
    """A row with all that is needed to ask for its units."""

    row: Row
    place: Place
    dims: tuple[tuple[int, ...], ...]  #: the axes of each dimension of the layer's tensor
    rows: Units
    columns: Units
    is_row: bool = True  #: rather than a container

    def elements(self, output: torch.Tensor, index: tuple[int, int], sample: int = 0, samples: int = 1) -> torch.Tensor:
        """The elements of a layer's output that belong to a unit.

        Args:
            output: of the shape that was traced, but that one dimension may be `samples` times as large.
            index: (row, column) of the unit.
            sample: whose elements are wanted.
            samples: the size of the batch, if it is larger than the one that was traced.

        Raises:
            ValueError: if the output has no dimension for the samples.
        """
        sizes = [size for axes in self.dims for size in axes]
        picked: list[int | slice] = [slice(None)] * len(sizes)
        # Rows last: where rows and columns share an axis, the row is the index.
        for units, position in ((self.columns, index[1]), (self.rows, index[0])):
            for axis in reversed(units.axes):
                position, picked[axis] = divmod(position, sizes[axis])
        if samples > 1:
            dim = next((d for d, axes in enumerate(self.dims) if output.shape[d] == samples * math.prod(axes)), None)
            if dim is None or output.numel() != samples * math.prod(sizes):
                raise ValueError(f"{self.row.name} has no dimension for the samples of a batch")
            first = sum(len(axes) for axes in self.dims[:dim])
            sizes.insert(first, samples)
            picked.insert(first, sample)
        return output.reshape(sizes)[tuple(picked)]


def layers(seen: Sequence[Seen]) -> list[Layer]:
    """The rows of a trace in the order of the run, and the containers."""
    counter: Counter[str] = Counter()
    found = []
    for item in seen:
        place = item.place
        name = ".".join(part for part in (place.module, place.function) if part)
        counter[name] += 1
        if counter[name] > 1:
            name = f"{name}#{counter[name]}"
        found.append(_layer(name, item))
    return found


def _layer(name: str, item: Seen) -> Layer:
    seen = item.field
    row_axes, column_axes = (_axes_over_image(reach) for reach in (seen.rows, seen.columns))
    # Tokens behind a class token lie along one axis, and have one index.
    shared = bool(row_axes & column_axes)
    if shared:
        row_axes = column_axes = row_axes | column_axes
    rows, columns = _units(seen.rows, seen.sizes, row_axes), _units(seen.columns, seen.sizes, column_axes)
    reaches = (seen.rows, seen.columns)
    summaries = [_summary(reach, units) for reach, units in zip(reaches, (rows, columns), strict=True)]
    output_size = [rows.count, 1 if shared else columns.count]
    for side, units in enumerate((rows, columns)):
        if not units.axes and len(seen.shape) == 4:
            output_size[side] = seen.shape[2 + side]
    global_sides = [reach.is_global for reach in reaches]
    notes = []
    if any(global_sides) and not all(global_sides):
        notes.append(f"only in {'height' if global_sides[0] else 'width'}")
    if any(global_sides) and not all(reach.has_far for reach in reaches):
        notes.append("no local path")
    if not all(summary.is_regular for summary in summaries):
        notes.append(IRREGULAR)
    if any(event.lost for event in item.events[-1:]):
        notes.append("layers within that lost sight of the image are missing")
    if any(event.assumed for event in item.events):
        operators = sorted({event.operator.split("::")[-1] for event in item.events if event.assumed})
        notes.append(f"assumed: each output of {', '.join(operators)} sees all of its inputs")
    row = Row(
        name=name,
        kind=item.kind,
        size=(summaries[0].size, summaries[1].size),
        jump=(summaries[0].jump, summaries[1].jump),
        start=(summaries[0].start, summaries[1].start),
        output_size=(output_size[0], output_size[1]),
        global_view=any(global_sides),
        probed=any(event.probed for event in item.events),
        note=", ".join(notes),
    )
    return Layer(row, item.place, seen.dims, rows, columns, item.is_row)


def _axes_over_image(reach: Reach) -> set[int]:
    return {axis for axis, law in enumerate(reach.laws) if is_over_image(law)}


def _units(reach: Reach, sizes: Sequence[int], over_image: set[int]) -> Units:
    """The bounds along the axes that go over the image, united over all others (channels)."""
    axes = tuple(sorted(over_image))
    others = [axis + 1 for axis in range(len(reach.laws)) if axis not in axes]
    bounds = reach.bounds.amin(others, keepdim=True) if others else reach.bounds
    full = [4, *(size if axis in axes else 1 for axis, size in enumerate(sizes))]
    return Units(bounds.expand(full).reshape(4, -1), axes, tuple(sizes[axis] for axis in axes))


@dataclass(frozen=True)
class _Summary:
    size: int
    jump: int | float
    start: int
    is_regular: bool


def _summary(reach: Reach, units: Units) -> _Summary:
    """Size, jump and start along one side."""
    laws = [reach.laws[axis] for axis in units.axes]
    law: Law | None = Law(1, 0)
    inner_size = 1
    for own, size in zip(reversed(laws), reversed(units.sizes), strict=True):
        law = merged_law(own, size, law, inner_size)
        inner_size *= size
    is_regular = law is not None or not reach.has_far
    first, negative_last = units.bounds[2:] if is_regular and reach.has_far else units.bounds[:2]
    seen = first < EMPTY
    if not bool(seen.any()):
        return _Summary(0, 0, 0, is_regular)
    first, last = first[seen], -negative_last[seen]
    slope: int | float = 0
    if not is_regular:
        # The mean step, where the units are in one line.
        middle = (first + last) / 2
        slope = abs(float(middle[-1] - middle[0])) / max(len(middle) - 1, 1) if len(laws) == 1 else math.nan
    elif law is not None:
        exact = abs(law.slope)
        slope = exact.numerator if exact.denominator == 1 else float(exact)
    return _Summary(int((last - first).max()) + 1, slope, int(first[0]), is_regular)
