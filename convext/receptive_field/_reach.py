"""First and last row (or column) that each element of a tensor sees; see `convext.receptive_field._field`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

import torch

#: The value of a bound where nothing is seen. Bounds are minima, so it takes no part in a union.
EMPTY = 1 << 40
#: An index that no axis has: a tap that is not there.
NOWHERE = -(1 << 50)


class Law(NamedTuple):
    """Along an axis, ``bound(i + period) == bound(i) + advance``.

    `over_image` tells axes of positions in the image from others (channels, heads). Units lie along the former, even
    where they all see the same.
    """

    period: int
    advance: int
    over_image: bool = False

    @property
    def slope(self) -> Fraction:
        return Fraction(self.advance, self.period)


CONSTANT = Law(1, 0)


def moves(law: Law | None) -> bool:
    """Whether what is seen moves over the image along the axis."""
    return law is None or law.advance != 0


def is_over_image(law: Law | None) -> bool:
    return law is None or law.over_image


def _level(law: Law | None) -> Law:
    """The law once nothing varies along the axis."""
    return Law(1, 0, is_over_image(law))


def _common_law(laws: Sequence[Law | None]) -> Law | None:
    """The law of a union of intervals, None if they drift apart."""
    known = [law for law in laws if law is not None]
    if len(known) < len(laws) or len({law.slope for law in known}) > 1:
        return None
    period = math.lcm(*(law.period for law in known))
    return Law(period, int(known[0].slope * period), any(law.over_image for law in known))


def merged_law(outer: Law | None, outer_size: int, inner: Law | None, inner_size: int) -> Law | None:
    """The law along the product of two axes, None if it starts again and again (columns, along ``H * W``)."""
    if outer is None or inner is None:
        return None
    if outer_size == 1 and outer.advance == 0:
        return inner
    if outer.advance == 0 and inner.advance != 0:
        return None
    if outer.period == 1 and inner_size % inner.period == 0 and inner.slope * inner_size == outer.advance:
        return inner._replace(over_image=inner.over_image or outer.over_image)
    return Law(inner_size * outer.period, outer.advance, inner.over_image or outer.over_image)


@dataclass(frozen=True)
class Reach:
    """First and last row (or column) that the elements of a tensor see.

    Attributes:
        bounds: int64, shape ``(4, *axes)``: near first, minus near last, far first, minus far last. With the signs,
            a union of intervals is a minimum of all four. An axis along which nothing varies has size 1 here.
        laws: for each axis; None where there is none.
        is_global: whether the elements see the whole image on some path that reduced all of it. Their far bounds are
            of the other paths alone, and EMPTY where there are none.
    """

    bounds: torch.Tensor
    laws: tuple[Law | None, ...]
    is_global: bool = False

    @property
    def near(self) -> torch.Tensor:
        return self.bounds[:2]

    @property
    def far(self) -> torch.Tensor:
        return self.bounds[2:]

    @property
    def has_far(self) -> bool:
        return bool((self.far < EMPTY).any())

    def expanded(self, axis: int, size: int) -> torch.Tensor:
        """The bounds with as many elements along this axis as the tensor has."""
        sizes = list(self.bounds.shape)
        sizes[axis + 1] = size
        return self.bounds.expand(sizes)

    def compressed(self) -> Reach:
        """The same with size 1 along every axis where nothing varies."""
        bounds, laws = self.bounds, list(self.laws)
        has_far = self.has_far
        for axis, law in enumerate(laws):
            if bounds.shape[axis + 1] > 1 and (law is None or law.advance == 0 or not has_far):
                first = bounds.narrow(axis + 1, 0, 1)
                if bool((bounds == first).all()):
                    bounds, laws[axis] = first, _level(law)
            elif bounds.shape[axis + 1] == 1 and not has_far:
                laws[axis] = _level(law)
        return replace(self, bounds=bounds, laws=tuple(laws))

    def reduced(self, axes: Sequence[int]) -> Reach:
        """The union along these axes, which keep the size 1; global if these are the ones that go over all the image.

        Positions may lie along several axes: windows, and positions within a window. A union over the inner axis is
        local, one over the outer axis is global, even if the inner one remains.
        """
        if not axes:
            return self
        bounds = self.bounds.amin([axis + 1 for axis in axes], keepdim=True)
        laws = [CONSTANT if axis in axes else law for axis, law in enumerate(self.laws)]
        # Where the union levels all that varied (the queries of an attention), nothing varies any more.
        for axis, law in enumerate(laws):
            if law is None:
                first = bounds.narrow(axis + 1, 0, 1)
                if bool((bounds == first).all()):
                    bounds, laws[axis] = first, _level(law)
        united = [self._step(axis) for axis in axes if moves(self.laws[axis])]
        levelled = [axis for axis, law in enumerate(laws) if moves(self.laws[axis]) and not moves(law)]
        remaining = [self._step(axis) for axis, law in enumerate(laws) if moves(law)]
        if levelled and max(united, default=0) >= max(remaining, default=0):
            return replace(self, bounds=bounds, laws=tuple(laws)).without_far()
        return replace(self, bounds=bounds, laws=tuple(laws))

    def _step(self, axis: int) -> float:
        """How far one step along an axis moves what is seen, roughly where there is no law."""
        law, size = self.laws[axis], self.bounds.shape[axis + 1]
        if law is not None:
            return abs(float(law.slope))
        first = self.far[0]
        known = first < EMPTY
        highest = first.masked_fill(~known, -EMPTY).amax(axis)
        span = (highest - first.amin(axis)).masked_fill(~known.any(axis), 0)
        return float(span.max()) / max(size - 1, 1)

    def without_far(self) -> Reach:
        """The same with no local path: all was reduced, and an image without end has no such union."""
        near = self.near
        laws = (Law(self.bounds.shape[axis + 1], 0, True) if moves(law) else law for axis, law in enumerate(self.laws))
        return Reach(torch.cat((near, torch.full_like(near, EMPTY))), tuple(laws), True).compressed()

    def accumulated(self, axis: int, size: int, reverse: bool = False) -> Reach:
        """Each element sees what the elements before it (behind it, if reverse) and it itself saw."""
        bounds = self.expanded(axis, size)
        bounds = bounds.flip(axis + 1) if reverse else bounds
        bounds = bounds.cummin(axis + 1).values
        result = replace(self, bounds=bounds.flip(axis + 1) if reverse else bounds)
        return result.without_far() if moves(self.laws[axis]) else result.compressed()

    def gathered(
        self, axis: int, size: int, near: torch.Tensor, far: torch.Tensor, step: tuple[int, int] | None
    ) -> Reach:
        """The union over taps: element ``i`` sees what the elements ``near[:, i]`` of this axis saw.

        Args:
            axis: along which the taps lie.
            size: of that axis.
            near: int64, shape ``(taps, outputs)``; a tap outside of the axis is ignored.
            far: the same for the image without end; a tap outside is extrapolated, unless it is NOWHERE.
            step: ``(a, b)`` if the taps of output ``i + a`` are those of output ``i`` plus ``b``, or None.
        """
        bounds = self.expanded(axis, size).movedim(axis + 1, -1)
        inside = (near >= 0) & (near < size)
        near_bounds = bounds[:2][..., near.clamp(0, size - 1)].masked_fill(~inside, EMPTY).amin(-2)
        far_bounds = _extrapolated(bounds[2:], far, self.laws[axis]).amin(-2)
        laws = list(self.laws)
        laws[axis] = _law_after(self.laws[axis], step)
        gathered = torch.cat((near_bounds, far_bounds)).movedim(-1, axis + 1)
        return Reach(gathered, tuple(laws), self.is_global).compressed()


def _law_after(law: Law | None, step: tuple[int, int] | None) -> Law | None:
    if law is not None and law.advance == 0 and (step is None or law.period == 1):
        return _level(law)
    if law is None or step is None:
        return None
    outputs, inputs = step
    repeats = law.period // math.gcd(law.period, inputs)
    return Law(outputs * repeats, law.advance * (inputs * repeats // law.period), law.over_image)


def _extrapolated(values: torch.Tensor, index: torch.Tensor, law: Law | None) -> torch.Tensor:
    """``values[..., index]``, also for an index beyond the ends of the last axis.

    Args:
        values: int64, shape ``(2, ..., size)``: first, minus last.
        index: int64, any shape.
        law: along the last axis.
    """
    size = values.shape[-1]
    period, advance = (law.period, law.advance) if law is not None else (1, 0)
    residue = index.remainder(period)
    last = residue + (size - 1 - residue).div(period, rounding_mode="floor") * period
    outside = torch.where(index < 0, residue, last)
    source = torch.where((index >= 0) & (index < size), index, outside)
    known = (source >= 0) & (source < size) & (index != NOWHERE)
    if law is None:
        known &= source == index
    source = torch.where(known, source, 0)
    shift = torch.where(known, (index - source).div(period, rounding_mode="floor") * advance, 0)
    found = values[..., source]
    sign = torch.tensor([1, -1]).reshape(2, *(1 for _ in range(found.dim() - 1)))
    return torch.where((found >= EMPTY) | ~known, EMPTY, found + sign * shift)


def axes_over_image(reach: Reach, shape: Sequence[int], source: torch.Tensor) -> set[int]:
    """Along which axes of the result the position in the image changes, if its elements come from `source`."""
    found = set()
    known, inner = source >= 0, 1
    for axis in reversed(range(len(shape))):
        if is_over_image(reach.laws[axis]):
            position = source.div(inner, rounding_mode="floor").remainder(shape[axis])
            lowest, highest = position.masked_fill(~known, EMPTY), position.masked_fill(~known, -1)
            found |= {a for a in range(source.dim()) if bool((highest.amax(a) > lowest.amin(a)).any())}
        inner *= shape[axis]
    return found


def fitted_law(reach: Reach, axis: int, over_image: bool) -> Law | None:
    """The law that the far bounds obey along an axis, with the shortest period; None if none is seen twice."""
    first, last = reach.far.movedim(axis + 1, -1)
    size = first.shape[-1]
    if size == 1 or not over_image:
        return Law(size, 0, over_image)
    if bool((first >= EMPTY).any()):
        return None
    for period in range(1, size // 2 + 1):
        ahead, behind = first[..., period:] - first[..., :-period], last[..., :-period] - last[..., period:]
        advance = int(ahead.flatten()[0])
        if advance and bool((ahead == advance).all()) and bool((behind == advance).all()):
            return Law(period, advance, True)
    return None


def refactored(reach: Reach, sizes: Sequence[int], target: Sequence[int]) -> Reach:
    """Splits and merges the axes of these sizes into axes of the target sizes, in the same order."""
    bounds = reach.bounds
    new_shape: list[int] = []
    new_laws: list[Law | None] = []
    pieces = list(zip(sizes, bounds.shape[1:], reach.laws, strict=True))
    # Step by step, a group of axes whose product is that of a group of target axes.
    source, wanted = 0, 0
    while wanted < len(target) or source < len(pieces):
        if source < len(pieces) and pieces[source][0] == 1:
            if wanted < len(target) and target[wanted] == 1:
                new_shape.append(1)
                new_laws.append(pieces[source][2])
                wanted += 1
            source += 1
            continue
        if wanted < len(target) and target[wanted] == 1:
            new_shape.append(1)
            new_laws.append(CONSTANT)
            wanted += 1
            continue
        first, first_wanted = source, wanted
        product, product_wanted = pieces[source][0], target[wanted]
        source, wanted = source + 1, wanted + 1
        while product != product_wanted:
            if product < product_wanted:
                product *= pieces[source][0]
                source += 1
            else:
                product_wanted *= target[wanted]
                wanted += 1
        group, sizes_wanted = pieces[first:source], target[first_wanted:wanted]
        if all(size == 1 and law == CONSTANT for _, size, law in group):
            new_shape += [1] * len(sizes_wanted)
            new_laws += [CONSTANT] * len(sizes_wanted)
            continue
        law, inner_size = group[-1][2], group[-1][0]
        for size, _, outer in reversed(group[:-1]):
            law = merged_law(outer, size, law, inner_size)
            inner_size *= size
        # Expand the group to its full size in the array; the axes before and after it stay as they are.
        axis = 1 + first
        full = list(bounds.shape)
        full[axis : axis + len(group)] = [size for size, _, _ in group]
        bounds = bounds.expand(full)
        new_shape += sizes_wanted
        inner = product
        for size in sizes_wanted:
            inner //= size
            new_laws.append(CONSTANT if size == 1 else _law_after(law, (1, inner)))
    bounds = bounds.reshape(4, *new_shape)
    return replace(reach, bounds=bounds, laws=tuple(new_laws)).compressed()


def united(operands: Sequence[tuple[Reach, Sequence[int]]], sizes: Sequence[int]) -> Reach:
    """The union of broadcast operands, each given with the sizes of its axes, for a result with axes of `sizes`."""
    bounds = operands[0][0].bounds
    for reach, _ in operands[1:]:
        bounds = torch.minimum(bounds, reach.bounds)
    # What sees the whole image has no far bounds, and so no say in how they go on.
    local = [(reach, own) for reach, own in operands if reach.has_far] or operands
    laws = [
        _common_law([reach.laws[axis] if own[axis] == size else CONSTANT for reach, own in local])
        for axis, size in enumerate(sizes)
    ]
    return Reach(bounds, tuple(laws), any(reach.is_global for reach, _ in operands)).compressed()


def concatenated(parts: Sequence[Reach | None], sizes: Sequence[int], axis: int) -> Reach:
    """The parts one after the other along an axis, where they have these sizes; None sees nothing."""
    present = [part for part in parts if part is not None]
    rank = len(present[0].laws)
    others = [max(part.bounds.shape[1 + a] for part in present) for a in range(rank)]
    pieces = []
    for part, size in zip(parts, sizes, strict=True):
        shape = [4, *others]
        shape[axis + 1] = size
        pieces.append(torch.full(shape, EMPTY) if part is None else part.bounds.expand(shape))
    local = [part for part in present if part.has_far] or present
    laws: list[Law | None] = []
    for a in range(rank):
        own = [part.laws[a] for part in local]
        if a != axis:
            laws.append(_common_law(own))
        else:
            still = all(law is not None and law.advance == 0 for law in own)
            laws.append(Law(sum(sizes), 0) if still else None)
    bounds = torch.cat(pieces, dim=axis + 1)
    result = Reach(bounds, tuple(laws), any(part.is_global for part in present)).compressed()
    if all(size == 1 for size in sizes) and len(sizes) > 2:
        # Rows that were taken apart and put together again are rows once more, not channels.
        law = fitted_law(result, axis, True)
        if moves(law) and law is not None:
            return replace(result, laws=tuple(law if a == axis else own for a, own in enumerate(result.laws)))
    return result
