"""From the fields of a trace to the rows of a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from convext.receptive_field._field import EMPTY, Field, Reach, _varies
from convext.receptive_field._recorder import Place
from convext.receptive_field._trace import Seen

Number = "int | float"


@dataclass
class Row:
    """The receptive field of the units of one layer. Every pair is (height, width), in pixels of the image.

    Attributes:
        name: of the module in ``named_modules``, with ``#2`` and so on for further calls; for a function, the name of
            the module that calls it and the function's name.
        kind: class of the module, or name of the function.
        size: pixels that a unit sees, on an image without borders; the larger one where units differ. Where all
            paths are global, or where the fields of units do not move evenly, the largest one on this image.
        jump: pixels from the field of a unit to that of the next one, also called effective stride; 0 where there is
            only one unit, or all see the same.
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
    """

    bounds: torch.Tensor
    axes: tuple[int, ...]

    @property
    def count(self) -> int:
        return self.bounds.shape[1]


@dataclass(frozen=True)
class Layer:
    """A row with all that is needed to ask for its units."""

    row: Row
    place: Place
    axis_sizes: tuple[int, ...]
    rows: Units
    columns: Units
    is_row: bool = field(default=True)

    def selection(self, index: tuple[int, int]) -> tuple[int | slice, ...]:
        """The index of a unit in the layer's tensor, once that has one dimension for each axis."""
        picked: list[int | slice] = [slice(None)] * len(self.axis_sizes)
        for units, position in ((self.columns, index[1]), (self.rows, index[0])):
            for axis in reversed(units.axes):
                position, picked[axis] = divmod(position, self.axis_sizes[axis])
        return tuple(picked)


def layers(seen: Sequence[Seen], image: tuple[int, int]) -> list[Layer]:
    """The rows of a trace in the order of the run, and the containers."""
    counter: Counter[str] = Counter()
    found = []
    for item in seen:
        place = item.place
        name = ".".join(part for part in (place.module, place.function) if part)
        counter[name] += 1
        if counter[name] > 1:
            name = f"{name}#{counter[name]}"
        found.append(_layer(name, item, image))
    return found


def _layer(name: str, item: Seen, image: tuple[int, int]) -> Layer:
    seen = item.field
    rows, columns = _units(seen.rows), _units(seen.columns)
    summaries = [
        _summary(reach, units, size)
        for reach, units, size in zip((seen.rows, seen.columns), (rows, columns), image, strict=True)
    ]
    notes = []
    global_sides = [reach.is_global for reach in (seen.rows, seen.columns)]
    if any(global_sides) and not all(global_sides):
        notes.append(f"global in {'height' if global_sides[0] else 'width'}")
    if any(global_sides) and not (seen.rows.has_far and seen.columns.has_far):
        notes.append("no local path")
    if not all(summary.is_regular for summary in summaries):
        notes.append("irregular")
    if any(event.assumed for event in item.events):
        operators = sorted({event.operator.split("::")[-1] for event in item.events if event.assumed})
        notes.append(f"assumed: each output of {', '.join(operators)} sees all of its inputs")
    output_size = [units.count for units in (rows, columns)]
    shape = seen.shape
    for side, units in enumerate((rows, columns)):
        if not units.axes and len(shape) == 4:
            output_size[side] = shape[2 + side]
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
    return Layer(row, item.place, seen.sizes, rows, columns, item.is_row)


def _units(reach: Reach) -> Units:
    """The bounds along the axes that go over the image, united over all others (channels)."""
    axes = tuple(axis for axis, law in enumerate(reach.laws) if _varies(law))
    others = [axis + 1 for axis in range(len(reach.laws)) if axis not in axes]
    bounds = reach.bounds.amin(others, keepdim=True) if others else reach.bounds
    return Units(bounds.reshape(4, -1), axes)


@dataclass(frozen=True)
class _Summary:
    size: int
    jump: int | float
    start: int
    is_regular: bool


def _summary(reach: Reach, units: Units, image: int) -> _Summary:
    """Size, jump and start along one side."""
    near, far = units.bounds[:2], units.bounds[2:]
    if not reach.has_far:
        first, last = int(near[0].min()), -int(near[1].min())
        return _Summary(last - first + 1 if first < EMPTY else 0, 0, first if first < EMPTY else 0, True)
    laws = [reach.laws[axis] for axis in units.axes]
    is_regular = all(law is not None for law in laws)
    if not is_regular:
        seen = near[0] < EMPTY
        first, last = near[0][seen], -near[1][seen]
        if not len(first):
            return _Summary(0, 0, 0, False)
        middle = (first + last) / 2
        steps = (float(middle[-1] - middle[0]) / (len(middle) - 1)) if len(middle) > 1 else 0.0
        return _Summary(int((last - first).max()) + 1, _tidy(abs(steps)), int(first[0]), False)
    seen = far[0] < EMPTY
    first, last = far[0][seen], -far[1][seen]
    # The innermost axis goes in the smallest steps; where a window was reduced to one value, it is an outer one.
    slope = abs(laws[-1].slope) if laws and laws[-1] is not None else 0
    if len(units.axes) > 1:
        inner = [(law.slope, axis) for law, axis in zip(laws, units.axes, strict=True) if law is not None]
        slope = min(abs(value) for value, _ in inner)
    return _Summary(int((last - first).max()) + 1, _tidy(float(slope)), int(first[0]), True)


def _tidy(value: float) -> int | float:
    return int(value) if math.isclose(value, round(value)) and value == int(value) else value
