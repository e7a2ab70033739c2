"""Operators that unite what is seen along dimensions: sums and maxima, norms, products of matrices, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convext.receptive_field._field import Field
from convext.receptive_field.rules.call import Call, Unforeseen, dimensions, elementwise, rule


@rule(
    "sum", "mean", "amax", "amin", "var", "std", "var_mean", "std_mean", "norm", "prod", "logsumexp", "any", "all",
    "linalg_vector_norm", "median", "nanmedian", "max", "min", "argmax", "argmin", "mode", "kthvalue", "nansum",
    "aminmax", "count_nonzero", significant=True,
)  # fmt: skip
def _reduction(call: Call) -> Any:
    if len(call.operands) > 1:
        return elementwise(call)  # torch.max of two tensors
    (field,) = call.fields
    rank = len(field.dims)
    dims = dimensions(call.get("dim", call.get("axis")), rank)
    field = field.reduced(dims)
    if len(call.shape) < rank:
        field = field.with_axes([axes for d, axes in enumerate(field.dims) if d not in dims])
    return [field if tuple(result.shape) == field.shape else None for result in call.results]


@rule("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", significant=True)
def _cumulative(call: Call) -> Any:
    (field,) = call.fields
    return [field.accumulated(call["dim"] % len(field.dims)) if field.dims else field for _ in call.results]


@rule("mkldnn_rnn_layer", significant=True)
def _recurrent_layer(call: Call) -> Any:
    """A layer of an LSTM: ``(time, batch, features)`` in one direction; then its last states."""
    field = call.field("input")
    if field is None or len(field.dims) != 3 or len(call.fields) > 1:
        raise Unforeseen
    mixed = field.reduced([2])
    states = mixed.reduced([0])
    outputs = mixed.accumulated(0, call["reverse"]).expanded(call.shape)
    return [
        outputs,
        *(states.expanded(tuple(result.shape)) if result.dim() == 3 else None for result in call.results[1:]),
    ]


@rule("_softmax", "_log_softmax", "_safe_softmax", "sort", "topk", significant=True)
def _along_dim(call: Call) -> Any:
    (field,) = call.fields
    if not field.dims:
        return field
    reduced = field.reduced([call["dim"] % len(field.dims)])
    return [reduced.expanded(tuple(result.shape)) for result in call.results]


# Norms.


@rule(
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_no_update",
    "_batch_norm_with_update", "cudnn_batch_norm", "miopen_batch_norm",
)  # fmt: skip
def _batch_norm(call: Call) -> Any:
    (field,) = call.fields
    training = call.get("training", call.get("train", False)) or call.get("running_mean") is None
    if training and "no_training" not in call.function._schema.name and "no_update" not in call.function._schema.name:
        field = field.mixed([dim for dim in range(len(field.dims)) if dim != 1])
    return [field, *(None for _ in call.results[1:])]


@rule("native_layer_norm", significant=True)
def _layer_norm(call: Call) -> Any:
    (field,) = call.fields
    rank = len(field.dims)
    field = field.mixed(range(rank - len(call["normalized_shape"]), rank))
    return [field, *(None for _ in call.results[1:])]


@rule("native_group_norm", significant=True)
def _group_norm(call: Call) -> Any:
    (field,) = call.fields
    batch, channels, *rest = field.shape
    groups = call["group"]
    split = field.reshaped((batch, groups, channels // groups, *rest))
    mixed = split.mixed(range(2, len(split.dims))).reshaped(call.shape)
    return [mixed, *(None for _ in call.results[1:])]


# Products of matrices: each element sees a row of the one and a column of the other.


def _product(left: Field | None, right: Field | None, shape: Sequence[int], *added: Field | None) -> Field:
    operands = [field for field in added if field is not None]
    if left is not None:
        operands.append(left.reduced([len(left.dims) - 1]))
    if right is not None:
        operands.append(right.reduced([len(right.dims) - 2]))
    return Field.union(operands, shape)


@rule("mm", "bmm", significant=True)
def _matrix_product(call: Call) -> Any:
    return _product(call.field("self"), call.field("mat2"), call.shape)


@rule("addmm", "_addmm_activation", significant=True)
def _addmm(call: Call) -> Any:
    return _product(call.field("mat1"), call.field("mat2"), call.shape, call.field("self"))


@rule("baddbmm", significant=True)
def _baddbmm(call: Call) -> Any:
    return _product(call.field("batch1"), call.field("batch2"), call.shape, call.field("self"))


@rule("mkldnn_linear", significant=True)
def _linear(call: Call) -> Any:
    field = call.field("self")
    if field is None:
        raise Unforeseen
    return field.reduced([len(field.dims) - 1]).expanded(call.shape)


@rule("mv", significant=True)
def _mv(call: Call) -> Any:
    matrix, vector = call.field("self"), call.field("vec")
    operands = []
    if matrix is not None:
        reduced = matrix.reduced([1])
        operands.append(reduced.with_axes(reduced.dims[:1]))
    if vector is not None:
        operands.append(vector.reduced([0]))
    return Field.union(operands, call.shape)


@rule(
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable", significant=True,
)  # fmt: skip
def _attention(call: Call) -> Any:
    query, key, value = (call.field(name) for name in ("query", "key", "value"))
    shape = call.shape
    others = [
        field.reduced([len(field.dims) - 2, *([len(field.dims) - 1] if field is key else [])])
        for field in (key, value)
        if field is not None
    ]
    operands = [] if query is None else [query.reduced([len(shape) - 1])]
    operands += others
    field = Field.union([_repeated_heads(operand, shape) for operand in operands], shape)
    for other in others:
        if other.rows.is_global and not other.rows.has_far:
            field = Field(field.dims, field.rows.without_far(), field.columns)
        if other.columns.is_global and not other.columns.has_far:
            field = Field(field.dims, field.rows, field.columns.without_far())
    return [field, *(None for _ in call.results[1:])]


def _repeated_heads(field: Field, shape: Sequence[int]) -> Field:
    """Grouped queries: keys and values have fewer heads."""
    if len(field.dims) >= 3 and field.shape[-3] not in (1, shape[-3]):
        return field.reduced([len(field.dims) - 3])
    return field
