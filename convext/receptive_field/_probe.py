"""What an operator or a module sees that nothing is known of: its gradients tell.

Inside of a dispatch mode there are no gradients, so the probe runs in a thread of its own, where no mode is active.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from convext.receptive_field import rules
from convext.receptive_field._field import Field
from convext.receptive_field._reach import NOWHERE
from convext.receptive_field._recorder import tensors_in

#: Points at which a function is probed: an activation may be flat at one of them.
POINTS = 3

Sources = Sequence[tuple[torch.Tensor, Field]]


def of_operator(call: rules.Call, args: Any, kwargs: Any) -> list[Field | None]:
    """The fields of the results of an operator.

    Raises:
        Unforeseen: if what is seen of one operand is decided by the values of another (the grid of ``grid_sample``).
    """
    sources = [(tensor, field) for tensor in call.operands if (field := call.field_of(tensor)) is not None]
    return _probed(call.function, args, kwargs, sources, call.results)


def of_module(
    module: torch.nn.Module, args: Any, kwargs: Any, sources: Sources, outputs: Sequence[torch.Tensor]
) -> list[Field | None]:
    """The fields of the outputs of a module; raises as `of_operator`."""
    return _probed(module, args, kwargs, sources, outputs)


def _probed(
    function: Callable[..., Any], args: Any, kwargs: Any, sources: Sources, results: Sequence[torch.Tensor]
) -> list[Field | None]:
    if len(sources) > 1 and not all(tensor.is_floating_point() for tensor, _ in sources):
        raise rules.Unforeseen("integers that depend on the image may be indices")

    def run(changed: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        return tensors_in(function(*_replaced(args, changed), **_replaced(kwargs, changed)))

    return _in_a_thread(lambda: _union_over(sources, run, results))


def _in_a_thread(function: Callable[[], Any]) -> Any:
    state = torch.get_rng_state()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(function).result()
    torch.set_rng_state(state)
    return found


def _replaced(value: Any, changed: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    """The same nested structure with other tensors in the place of some."""
    for old, new in changed:
        if value is old:
            return new
    if isinstance(value, dict):
        return {key: _replaced(item, changed) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_replaced(item, changed) for item in value)
    return value


def _random_like(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(tensor.shape, generator=generator).to(tensor) * 2 + 0.1


def _union_over(
    sources: Sources,
    run: Callable[[Sequence[tuple[torch.Tensor, torch.Tensor]]], list[torch.Tensor]],
    results: Sequence[torch.Tensor],
) -> list[Field | None]:
    """For each result the union of what it sees through each of the source tensors."""
    fields: list[Field | None] = []
    for index, result in enumerate(results):
        seen = []
        for tensor, field in sources:
            others = [other for other, _ in sources if other is not tensor]

            def function(
                value: torch.Tensor,
                point: int = 0,
                tensor: torch.Tensor = tensor,
                others: Sequence[torch.Tensor] = others,
                index: int = index,
            ) -> torch.Tensor:
                changed = [(other, _random_like(other, 100 + point) if point else other.clone()) for other in others]
                return run([(tensor, value), *changed])[index]

            found = _through(function, tensor, field, result, is_only=not others)
            if found is not None:
                seen.append(found)
        fields.append(Field.union(seen, tuple(result.shape)) if seen else None)
    return fields


def _through(
    function: Callable[..., torch.Tensor], source: torch.Tensor, field: Field, result: torch.Tensor, is_only: bool
) -> Field | None:
    """What a result sees through one tensor, None if it does not depend on it."""
    shape = tuple(result.shape)
    if not _depends(function, source):
        return None
    if source.dim() != result.dim() or source.dim() not in (3, 4):
        return rules.everything([field], [shape])[0]
    patterns = _dependence(function, source, is_only)
    if patterns is None:
        return rules.everything([field], [shape])[0]
    if not any(bool(pattern.any()) for pattern in patterns):
        return None
    rank = source.dim()
    lead = list(range(rank - 2))
    mixed = field.reduced(lead)
    for dim, pattern in zip((rank - 2, rank - 1), patterns, strict=True):
        if pattern.shape[1] > 1 and bool(pattern.all()):
            mixed = mixed.reduced([dim])
        else:
            near, far, step = taps_of(pattern)
            mixed = mixed.gathered(dim, near, far, step)
    return mixed.expanded(shape)


def _depends(function: Callable[[torch.Tensor], torch.Tensor], source: torch.Tensor) -> bool:
    """Whether another input gives another output, as far as can be found out."""
    with torch.no_grad():
        before = function(source.clone())
        for factor in (0.5, -1, 3):
            try:
                after = function((source * factor + factor).to(source.dtype))
            except (RuntimeError, ValueError, TypeError, IndexError):
                return True
            if after.shape != before.shape or not torch.equal(after, before):
                return True
    return False


def _dependence(
    function: Callable[..., torch.Tensor], source: torch.Tensor, is_only: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Which input rows each output row depends on, shape ``(outputs, inputs)``, and the same for columns.

    None if it cannot be found out, as the function takes no other values.
    """
    patterns: list[torch.Tensor] = []
    for point in range(POINTS):
        value = source.detach().clone()
        if point and value.is_floating_point():
            value = _random_like(value, point)

        def at_point(value: torch.Tensor, point: int = point) -> torch.Tensor:
            return function(value, point)

        try:
            found = _by_gradients(at_point, value) or _by_changes(at_point, value)
        except (RuntimeError, ValueError, TypeError):
            if not point:
                return None
            continue
        if not is_only and patterns and any(map(_differ, patterns, found)):
            raise rules.Unforeseen("what is seen of an operand depends on the values of another")
        patterns = [old | new for old, new in zip(patterns, found, strict=True)] if patterns else list(found)
    return (patterns[0], patterns[1])


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    return not torch.equal(one, other)


def _by_gradients(
    function: Callable[[torch.Tensor], torch.Tensor], value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """One backward pass for each row and for each column; None where there is no derivative."""
    if not value.is_floating_point():
        return None
    with torch.enable_grad():
        # Multiplied by one, so that the function may write to it.
        leaf = value.requires_grad_()
        try:
            output = function(leaf * 1)
            if not output.requires_grad:
                return None
            # Weights, as the terms of an unweighted sum may cancel (those of a softmax do).
            weighted = output * (0.5 + torch.rand(output.shape).to(output))
            patterns = []
            for dim in (-2, -1):
                rows = []
                for index in range(output.shape[dim]):
                    (gradient,) = torch.autograd.grad(
                        weighted.select(dim, index).sum(), leaf, retain_graph=True, allow_unused=True
                    )
                    if gradient is None:
                        return None
                    rows.append((gradient != 0).movedim(dim, -1).flatten(0, -2).any(0).cpu())
                patterns.append(torch.stack(rows))
        except (RuntimeError, NotImplementedError):
            return None
    return patterns[0], patterns[1]


def _by_changes(
    function: Callable[[torch.Tensor], torch.Tensor], value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One forward pass for each row and for each column of the input: which outputs change with it?"""
    patterns = []
    value = value.detach()
    with torch.no_grad():
        before = function(value.clone())
        for dim in (-2, -1):
            columns = []
            for index in range(value.shape[dim]):
                changed = value.clone()
                part = changed.select(dim, index)
                part.add_(1 + _random_like(part, index))
                different = function(changed) != before
                columns.append(different.movedim(dim, -1).flatten(0, -2).any(0).cpu())
            patterns.append(torch.stack(columns, dim=1))
    return patterns[0], patterns[1]


def taps_of(pattern: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int] | None]:
    """Taps for `Field.gathered` from a pattern ``(outputs, inputs)``: near, far, and the step if there is one."""
    size = pattern.shape[1]
    index = torch.arange(size).expand_as(pattern)
    first = torch.where(pattern, index, size).amin(1)
    last = torch.where(pattern, index, -1).amax(1)
    seen = last >= first
    length = int((last - first).max().clamp(min=0)) + 1
    near = torch.minimum(first + torch.arange(length)[:, None], last)
    near = torch.where(seen, near, NOWHERE)
    inner = seen & (first > 0) & (last < size - 1)
    for lag in range(1, 5):
        pairs = inner[lag:] & inner[:-lag]
        if not bool(pairs.any()):
            continue
        ahead = (first[lag:] - first[:-lag])[pairs]
        if bool((ahead == ahead[0]).all()) and bool(((last[lag:] - last[:-lag])[pairs] == ahead[0]).all()):
            far = _continued(first, last, inner, lag, int(ahead[0]))
            if far is not None:
                return near, far, (lag, int(ahead[0]))
    return near, near, None


def _continued(
    first: torch.Tensor, last: torch.Tensor, inner: torch.Tensor, lag: int, advance: int
) -> torch.Tensor | None:
    """The taps that border outputs would have without a border, from inner outputs of the same kind."""
    columns = []
    for output in range(len(first)):
        alike = [other for other in range(output % lag, len(first), lag) if bool(inner[other])]
        if not alike:
            return None
        nearest = min(alike, key=lambda other: abs(other - output))
        shift = (output - nearest) // lag * advance
        columns.append((int(first[nearest]) + shift, int(last[nearest]) + shift))
    length = max(end - start for start, end in columns) + 1
    starts, ends = torch.tensor(columns).T
    return torch.minimum(starts + torch.arange(length)[:, None], ends)
