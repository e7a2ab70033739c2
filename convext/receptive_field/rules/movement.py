"""Operators that move data: nothing is computed, so nothing new is seen."""

from __future__ import annotations

from typing import Any

import torch

from convext.receptive_field._field import Field
from convext.receptive_field.rules.call import Call, Unforeseen, base_name, dimensions, rule


@rule("view", "_unsafe_view", "_reshape_alias")
def _view(call: Call) -> Any:
    (field,) = call.fields
    if call.results[0].dtype != call.operands[0].dtype and call.results[0].numel() != call.operands[0].numel():
        raise Unforeseen
    return field.reshaped(call.shape)


@rule("squeeze", "unsqueeze")
def _squeeze(call: Call) -> Any:
    (field,) = call.fields
    shape = field.shape
    if base_name(call.function) == "aten::unsqueeze":
        dim = call["dim"] % (len(shape) + 1)
        return field.with_axes([*field.dims[:dim], (1,), *field.dims[dim:]])
    dropped = dimensions(call.get("dim"), len(shape)) if "dim" in call.arguments else range(len(shape))
    return field.with_axes([axes for d, axes in enumerate(field.dims) if not (d in dropped and shape[d] == 1)])


@rule("permute")
def _permute(call: Call) -> Any:
    (field,) = call.fields
    return field.permuted([dim % len(field.dims) for dim in call["dims"]])


@rule("transpose")
def _transpose(call: Call) -> Any:
    (field,) = call.fields
    order = list(range(len(field.dims)))
    first, second = call["dim0"], call["dim1"]
    order[first], order[second] = order[second], order[first]
    return field.permuted(order)


@rule("t")
def _t(call: Call) -> Any:
    (field,) = call.fields
    return field.permuted(list(range(len(field.dims)))[::-1])


@rule("expand")
def _expand(call: Call) -> Any:
    (field,) = call.fields
    return field.expanded(call.shape)


@rule("slice")
def _slice(call: Call) -> Any:
    (field,) = call.fields
    dim = call["dim"] % len(field.dims)
    size, step, start = field.shape[dim], call["step"], call["start"] or 0
    start = min(max(start + size if start < 0 else start, 0), size)
    if start == 0 and step == 1 and call.shape == field.shape:
        return field
    return field.sliced(dim, start, call.shape[dim], step)


@rule("select")
def _select(call: Call) -> Any:
    (field,) = call.fields
    dim = call["dim"] % len(field.dims)
    part = field.sliced(dim, call["index"] % field.shape[dim], 1)
    return part.with_axes([axes for d, axes in enumerate(part.dims) if d != dim])


@rule("split", "split_with_sizes", "unbind", "unsafe_split", "unsafe_split_with_sizes")
def _split(call: Call) -> Any:
    (field,) = call.fields
    dim = call["dim"] % len(field.dims)
    parts, start = [], 0
    unbind = base_name(call.function) == "aten::unbind"
    for result in call.results:
        size = 1 if unbind else result.shape[dim]
        part = field.sliced(dim, start, size)
        parts.append(part.with_axes([axes for d, axes in enumerate(part.dims) if d != dim]) if unbind else part)
        start += size
    return parts


@rule("cat", significant=True)
def _cat(call: Call) -> Any:
    tensors = [tensor for tensor in call["tensors"] if tensor.dim() == len(call.shape)]
    dim = call["dim"] % len(call.shape)
    return Field.concatenated([call.field_of(tensor) for tensor in tensors], [t.shape[dim] for t in tensors], dim)


@rule("stack", significant=True)
def _stack(call: Call) -> Any:
    dim = call["dim"] % len(call.shape)
    parts = [call.field_of(tensor) for tensor in call["tensors"]]
    parts = [part and part.with_axes([*part.dims[:dim], (1,), *part.dims[dim:]]) for part in parts]
    return Field.concatenated(parts, [1] * len(parts), dim)


@rule("flip")
def _flip(call: Call) -> Any:
    (field,) = call.fields
    for dim in dimensions(call["dims"], len(field.dims)):
        size = field.shape[dim]
        field = field.gathered(dim, torch.arange(size - 1, -1, -1)[None], step=(1, -1))
    return field


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def _shuffle(call: Call) -> Any:
    (field,) = call.fields
    *batch, channels, height, width = field.shape
    first = len(batch)
    lead = list(range(first))
    if base_name(call.function) == "aten::channel_shuffle":
        groups = call["groups"]
        field = field.reshaped((*batch, groups, channels // groups, height, width))
        order = [first + 1, first, first + 2, first + 3]
    elif base_name(call.function) == "aten::pixel_shuffle":
        factor = call["upscale_factor"]
        field = field.reshaped((*batch, channels // factor**2, factor, factor, height, width))
        order = [first, first + 3, first + 1, first + 4, first + 2]
    else:
        factor = call["downscale_factor"]
        field = field.reshaped((*batch, channels, height // factor, factor, width // factor, factor))
        order = [first, first + 2, first + 4, first + 1, first + 3]
    return field.permuted(lead + order).reshaped(call.shape)


@rule("roll", "index", "index_select", "gather", "take", "diagonal", "as_strided", "unfold", "repeat")
@rule("rot90", "tril", "triu", "repeat_interleave", "masked_select", "diag_embed", "embedding")
def _movement(call: Call) -> Any:
    """Any other movement of data, found by moving the numbers of the elements in the same way."""
    source = call.operands[0]
    if call.field_of(source) is None or any(call.field_of(other) is not None for other in call.operands[1:]):
        raise Unforeseen
    # From 1 on, so that elements that an operator sets to zero are told apart; with the strides of the tensor.
    numbers = torch.empty_strided(source.shape, source.stride(), dtype=torch.int64)
    numbers.copy_(torch.arange(1, source.numel() + 1).reshape(source.shape))
    if base_name(call.function) == "aten::as_strided" and source.storage_offset():
        raise Unforeseen
    arguments = {name: numbers if value is source else _on_cpu(value) for name, value in call.arguments.items()}
    moved = call.function(**arguments)
    (field,) = call.fields
    return field.moved(moved.contiguous() - 1)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.cpu()
    return [_on_cpu(item) for item in value] if isinstance(value, (list, tuple)) else value


@rule("glu")
def _glu(call: Call) -> Any:
    (field,) = call.fields
    dim = call["dim"] % len(field.dims)
    half = field.shape[dim] // 2
    return Field.union([field.sliced(dim, 0, half), field.sliced(dim, half, half)], call.shape)
