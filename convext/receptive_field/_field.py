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

import torch

from convext.receptive_field._reach import (
    CONSTANT,
    EMPTY,
    Law,
    Reach,
    axes_over_image,
    concatenated,
    fitted_law,
    refactored,
    united,
)


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
        return self.map(lambda reach: refactored(reach, self.sizes, target), dims)

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
            over_image = axes_over_image(reach, self.shape, source)
            if below is not None:
                over_image |= axes_over_image(below, tuple(source.shape), own)
            unknown = Reach(bounds, (None,) * source.dim(), is_global).compressed()
            return replace(unknown, laws=tuple(fitted_law(unknown, a, a in over_image) for a in range(source.dim())))

        return Field(
            tuple((size,) for size in source.shape),
            move(field.rows, None if old is None else old.rows),
            move(field.columns, None if old is None else old.columns),
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
        fields = [_with_rank(field, len(shape)) for field in fields]
        found = _union_of_aligned(_aligned(fields, shape), shape)
        # One operand may have windows where the other has one axis. As one axis, both may go on evenly.
        apart = [d for d in range(len(shape)) if len({f.dims[d] for f in fields if f.shape[d] > 1}) > 1]
        if apart and any(None in reach.laws for reach in (found.rows, found.columns)):
            for d in apart:
                fields = [field.single(d) for field in fields]
            as_one_axis = _union_of_aligned(_aligned(fields, shape), shape)
            if not any(None in reach.laws for reach in (as_one_axis.rows, as_one_axis.columns)):
                return as_one_axis
        return found

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
            concatenated([None if field is None else field.rows for field in ordered], sizes, axis),
            concatenated([None if field is None else field.columns for field in ordered], sizes, axis),
        )

    def accumulated(self, dim: int, reverse: bool = False) -> Field:
        """Each element sees what those before it along the dimension saw, and itself; or those behind it."""
        field = self.single(dim)
        (axis,) = field.axes_of(dim)
        return field.map(lambda reach: reach.accumulated(axis, field.sizes[axis], reverse))


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


def _with_rank(field: Field, rank: int) -> Field:
    missing = rank - len(field.dims)
    return field.with_axes([(1,)] * missing + [*field.dims]) if missing else field


def _union_of_aligned(fields: Sequence[Field], shape: Sequence[int]) -> Field:
    dims = [max(axes, key=math.prod) for axes in zip(*(field.dims for field in fields), strict=True)]
    # An operand of size 1 may be all there is; the other operands, without a field, give the shape.
    dims = [axes if math.prod(axes) == size else (size,) for axes, size in zip(dims, shape, strict=True)]
    sizes = [size for axes in dims for size in axes]
    return Field(
        tuple(dims),
        united([(field.rows, field.sizes) for field in fields], sizes),
        united([(field.columns, field.sizes) for field in fields], sizes),
    )


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
