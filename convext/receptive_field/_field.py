"""What each element of a tensor sees of the image: intervals of rows and of columns, in a compact form.

A `Field` describes one tensor. It has two `Reach`es, one for the rows of the image and one for its columns, and each
holds for every element the first and the last row (column) that the element depends on. That is done twice:

- *near*: what an element of this very tensor sees, of an image of this very size;
- *far*: what it would see if the image had no end, which is what papers call the receptive field.

The arrays are small, since along most axes of a tensor nothing varies: the rows that an element of an ``(N, C, H, W)``
tensor sees usually depend on its ``H`` only, and the array then has the shape ``(1, 1, H, 1)``.

A dimension of a tensor is a product of *axes*: after ``x.flatten(2)`` the last dimension has the axes ``(H, W)``. So a
view regroups axes and copies nothing, and ``(B, H * W, C)`` tokens still know their rows and columns.

The far intervals must be known beyond the border, where the taps of a padded convolution lie. There they follow from a
`Law`: after `period` elements the same pattern repeats, `advance` pixels further.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
        """The union along these axes, which keep the size 1; global if no other axis goes over the image."""
        if not axes:
            return self
        before = any(moves(law) for law in self.laws)
        bounds = self.bounds.amin([axis + 1 for axis in axes], keepdim=True)
        laws = [CONSTANT if axis in axes else law for axis, law in enumerate(self.laws)]
        # Where the union levels all that varied (the queries of an attention), nothing varies any more.
        for axis, law in enumerate(laws):
            if law is None:
                first = bounds.narrow(axis + 1, 0, 1)
                if bool((bounds == first).all()):
                    bounds, laws[axis] = first, _level(law)
        if before and not any(moves(law) for law in laws):
            near = bounds[:2]
            return Reach(torch.cat((near, torch.full_like(near, EMPTY))), tuple(laws), True).compressed()
        return replace(self, bounds=bounds, laws=tuple(laws))

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


@dataclass(frozen=True)
class Field:
    """What each element of a tensor sees.

    Attributes:
        dims: for each dimension of the tensor the sizes of its axes.
        rows: first and last row of the image, for each element.
        columns: first and last column.
    """

    dims: tuple[tuple[int, ...], ...]
    rows: Reach
    columns: Reach

    @staticmethod
    def of_image(shape: Sequence[int]) -> Field:
        """Each pixel of an image ``(..., H, W)`` sees itself."""
        rank = len(shape)

        def reach(axis: int) -> Reach:
            index = torch.arange(shape[axis]).reshape([-1 if other == axis else 1 for other in range(rank)])
            bounds = torch.stack((index, -index, index, -index))
            return Reach(bounds, tuple(Law(1, 1, True) if other == axis else CONSTANT for other in range(rank)))

        return Field(tuple((size,) for size in shape), reach(rank - 2), reach(rank - 1))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(axes) for axes in self.dims)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of all axes."""
        return tuple(size for axes in self.dims for size in axes)

    def axes_of(self, dim: int) -> list[int]:
        """The numbers of the axes of a dimension."""
        first = sum(len(axes) for axes in self.dims[:dim])
        return list(range(first, first + len(self.dims[dim])))

    def map(self, function: Callable[[Reach], Reach], dims: Sequence[Sequence[int]] | None = None) -> Field:
        """The same change of rows and columns."""
        new = self.dims if dims is None else tuple(tuple(axes) for axes in dims)
        return Field(new, function(self.rows), function(self.columns))

    # Movement of data: nothing is computed, so nothing new is seen.

    def reshaped(self, shape: Sequence[int]) -> Field:
        """After ``view(shape)``."""
        return self.with_axes(_regrouped(self.sizes, shape))

    def with_axes(self, dims: Sequence[Sequence[int]]) -> Field:
        """The same elements in the same order, as other dimensions with other axes."""
        dims = tuple(tuple(axes) for axes in dims)
        if dims == self.dims:
            return self
        target = [size for axes in dims for size in axes]
        return self.map(lambda reach: _refactored(reach, self.sizes, target), dims)

    def single(self, dim: int) -> Field:
        """The same with one axis for this dimension."""
        if len(self.dims[dim]) == 1:
            return self
        return self.with_axes([(math.prod(axes),) if d == dim else axes for d, axes in enumerate(self.dims)])

    def permuted(self, order: Sequence[int]) -> Field:
        axes = [axis for dim in order for axis in self.axes_of(dim)]
        return self.map(
            lambda reach: replace(
                reach,
                bounds=reach.bounds.permute(0, *(axis + 1 for axis in axes)),
                laws=tuple(reach.laws[axis] for axis in axes),
            ),
            [self.dims[dim] for dim in order],
        )

    def expanded(self, shape: Sequence[int]) -> Field:
        """After ``expand(shape)``: new dimensions in front, and dimensions of size 1 repeated."""
        new = len(shape) - len(self.dims)
        field = self.reshaped((*(1 for _ in range(new)), *self.shape)) if new else self
        dims = [axes if math.prod(axes) == size else (size,) for axes, size in zip(field.dims, shape, strict=True)]
        repeated = [dim for dim, axes in enumerate(dims) if axes != field.dims[dim]]
        for dim in repeated:
            field = field.single(dim)
        axes = [axis for dim in repeated for axis in field.axes_of(dim)]
        return field.map(
            lambda reach: replace(
                reach, laws=tuple(CONSTANT if axis in axes else law for axis, law in enumerate(reach.laws))
            ),
            dims,
        )

    def gathered(
        self, dim: int, near: torch.Tensor, far: torch.Tensor | None = None, step: tuple[int, int] | None = None
    ) -> Field:
        """The union over the taps ``(taps, outputs)`` along a dimension; see `Reach.gathered`."""
        field = self.single(dim)
        (axis,) = field.axes_of(dim)
        size = field.sizes[axis]
        dims = [(near.shape[1],) if d == dim else axes for d, axes in enumerate(field.dims)]
        return field.map(lambda reach: reach.gathered(axis, size, near, near if far is None else far, step), dims)

    def sliced(self, dim: int, start: int, size: int, step: int = 1) -> Field:
        taps = torch.arange(start, start + size * step, step)[None] if size else torch.empty((1, 0), dtype=torch.int64)
        return self.gathered(dim, taps, step=(1, step))

    def moved(self, source: torch.Tensor, onto: Field | None = None) -> Field:
        """Any movement of data: element ``i`` of the result is the element ``source[i]`` of this tensor, flattened.

        Where ``source[i]`` is negative, it is the element ``i`` of `onto`, or sees nothing. This holds the bounds of
        every element, and so is for what has no rule of its own.
        """
        field = self.with_axes([(size,) for size in self.shape])
        old = None if onto is None else onto.with_axes([(size,) for size in onto.shape])
        own = torch.arange(source.numel()).reshape(source.shape).masked_fill(source >= 0, -1)

        def move(reach: Reach, below: Reach | None) -> Reach:
            flat = reach.bounds.expand(4, *self.shape).flatten(1)
            rest = torch.tensor(EMPTY) if below is None else below.bounds.expand(4, *source.shape)
            bounds = torch.where(source < 0, rest, flat[:, source.clamp(min=0)])
            is_global = reach.is_global or (below is not None and below.is_global)
            over_image = _axes_over_image(reach, self.shape, source)
            if below is not None:
                over_image |= _axes_over_image(below, tuple(source.shape), own)
            unknown = Reach(bounds, (None,) * source.dim(), is_global).compressed()
            return replace(unknown, laws=tuple(_fitted_law(unknown, a, a in over_image) for a in range(source.dim())))

        return Field(
            tuple((size,) for size in source.shape),
            move(field.rows, old and old.rows),
            move(field.columns, old and old.columns),
        )

    # Unions.

    def reduced(self, dims: Sequence[int]) -> Field:
        """The union along these dimensions, which keep the size 1."""
        axes = [axis for dim in dims for axis in self.axes_of(dim)]
        field = self.map(lambda reach: reach.reduced(axes))
        sizes = [tuple(1 for _ in axes) if d in dims else axes for d, axes in enumerate(self.dims)]
        field = Field(tuple(sizes), field.rows, field.columns)
        return field.with_axes([(1,) if d in dims else axes for d, axes in enumerate(sizes)])

    def mixed(self, dims: Sequence[int]) -> Field:
        """Each element sees what all elements along these dimensions saw; the shape stays."""
        return self.reduced(dims).expanded(self.shape)

    @staticmethod
    def union(fields: Sequence[Field], shape: Sequence[int]) -> Field:
        """What the elements of an elementwise result of this shape see; operands are broadcast."""
        fields = _aligned([_with_rank(field, len(shape)) for field in fields], shape)
        sizes = [size for axes in fields[0].dims for size in axes]
        dims = [max(axes, key=math.prod) for axes in zip(*(field.dims for field in fields), strict=True)]
        # An operand of size 1 may be all there is; the other operands, without a field, give the shape.
        dims = [axes if math.prod(axes) == size else (size,) for axes, size in zip(dims, shape, strict=True)]
        sizes = [size for axes in dims for size in axes]
        return Field(
            tuple(dims),
            _union([(field.rows, field.sizes) for field in fields], sizes),
            _union([(field.columns, field.sizes) for field in fields], sizes),
        )

    @staticmethod
    def concatenated(parts: Sequence[Field | None], sizes: Sequence[int], dim: int) -> Field:
        """After ``cat``; a part without a field sees nothing."""
        present = [part.single(dim) for part in parts if part is not None]
        shape = [1 if d == dim else size for d, size in enumerate(present[0].shape)]
        slim = _aligned(present, shape, skip=dim)
        fields = iter(slim)
        ordered = [None if part is None else next(fields) for part in parts]
        (axis,) = slim[0].axes_of(dim)
        dims = [(sum(sizes),) if d == dim else axes for d, axes in enumerate(slim[0].dims)]
        return Field(
            tuple(dims),
            _concatenated([None if field is None else field.rows for field in ordered], sizes, axis),
            _concatenated([None if field is None else field.columns for field in ordered], sizes, axis),
        )

    def only_near(self) -> Field:
        """As after a reduction of everything: whole image, no local path."""

        def change(reach: Reach) -> Reach:
            near = reach.near
            return Reach(torch.cat((near, torch.full_like(near, EMPTY))), reach.laws, True).compressed()

        return self.map(change)


def _axes_over_image(reach: Reach, shape: Sequence[int], source: torch.Tensor) -> set[int]:
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


def _fitted_law(reach: Reach, axis: int, over_image: bool) -> Law | None:
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


def _regrouped(sizes: Sequence[int], shape: Sequence[int]) -> list[list[int]]:
    """The axes for each dimension of a view, so that as few axes as possible are split or merged."""
    pending = [size for size in sizes if size != 1]
    dims = []
    for size in shape:
        axes = []
        remaining = size
        while remaining > 1:
            head = pending.pop(0)
            if remaining % head == 0:
                axes.append(head)
                remaining //= head
            elif head % remaining == 0:
                axes.append(remaining)
                pending.insert(0, head // remaining)
                remaining = 1
            else:
                pending[0] *= head
        dims.append(axes or [1])
    return dims


def _refactored(reach: Reach, sizes: Sequence[int], target: Sequence[int]) -> Reach:
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


def _with_rank(field: Field, rank: int) -> Field:
    missing = rank - len(field.dims)
    return field.with_axes([(1,)] * missing + [*field.dims]) if missing else field


def _aligned(fields: Sequence[Field], shape: Sequence[int], skip: int = -1) -> list[Field]:
    """The fields with the same axes for each dimension (of size 1 where a field has that size)."""
    dims: list[list[tuple[int, ...]]] = [list(field.dims) for field in fields]
    for d in range(len(shape)):
        if d == skip:
            continue
        full = [axes[d] for axes in dims if math.prod(axes[d]) > 1]
        common = _common_axes(full) if full else (1,)
        for axes in dims:
            axes[d] = common if math.prod(axes[d]) > 1 else (1,) * len(common)
    return [field.with_axes(axes) for field, axes in zip(fields, dims, strict=True)]


def _common_axes(candidates: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The coarsest axes that all these can be split into, or a single one."""
    if len(set(candidates)) == 1:
        return candidates[0]
    products = set()
    for axes in candidates:
        product = 1
        for size in reversed(axes):
            product *= size
            products.add(product)
    sizes, inner = [], 1
    for product in sorted(products - {1}):
        if product % inner:
            return (math.prod(candidates[0]),)
        sizes.append(product // inner)
        inner = product
    return tuple(reversed(sizes))


def _union(operands: Sequence[tuple[Reach, Sequence[int]]], sizes: Sequence[int]) -> Reach:
    bounds = operands[0][0].bounds
    for reach, _ in operands[1:]:
        bounds = torch.minimum(bounds, reach.bounds)
    # What sees the whole image has no far bounds, and so no say in how they go on.
    local = [(reach, own) for reach, own in operands if reach.has_far]
    laws = []
    for axis, size in enumerate(sizes):
        own = [reach.laws[axis] if of[axis] == size else CONSTANT for reach, of in local]
        laws.append(_common_law(own) if own else CONSTANT)
    return Reach(bounds, tuple(laws), any(reach.is_global for reach, _ in operands)).compressed()


def _concatenated(parts: Sequence[Reach | None], sizes: Sequence[int], axis: int) -> Reach:
    present = [part for part in parts if part is not None]
    rank = len(present[0].laws)
    others = [max(part.bounds.shape[1 + a] for part in present) for a in range(rank)]
    pieces = []
    for part, size in zip(parts, sizes, strict=True):
        shape = [4, *others]
        shape[axis + 1] = size
        pieces.append(torch.full(shape, EMPTY) if part is None else part.bounds.expand(shape))
    local = [part for part in present if part.has_far]
    laws: list[Law | None] = []
    for a in range(rank):
        own = [part.laws[a] for part in local]
        if a != axis:
            laws.append(_common_law(own) if own else CONSTANT)
        else:
            still = all(law is not None and law.advance == 0 for law in own)
            laws.append(Law(sum(sizes), 0) if still else None)
    bounds = torch.cat(pieces, dim=axis + 1)
    result = Reach(bounds, tuple(laws), any(part.is_global for part in present)).compressed()
    if all(size == 1 for size in sizes) and len(sizes) > 2:
        # Rows that were taken apart and put together again are rows once more, not channels.
        law = _fitted_law(result, axis, True)
        if moves(law) and law is not None:
            return replace(result, laws=tuple(law if a == axis else own for a, own in enumerate(result.laws)))
    return result
