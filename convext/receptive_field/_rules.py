"""What each operator of PyTorch does to a field: one rule for each kind of operator.

A rule gets a `Call` and returns the field of the result, or a list for several results. Operators are found by name
without overload and without the underscore of in-place variants, so ``aten.add_.Tensor`` is ``add``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch

from convext.receptive_field._field import NOWHERE, Field

Rule = Callable[["Call"], "Field | list[Field | None] | None"]
#: Rules by operator: ``"aten::convolution"``.
RULES: dict[str, Rule] = {}
#: Operators whose calls outside of a leaf module are worth a row: they look further, or bring branches together.
SIGNIFICANT: set[str] = set()


@dataclass
class Call:
    """One call of an operator.

    Attributes:
        arguments: all of them by their names in the schema.
        field_of: the field of a tensor, None if it does not depend on the image.
        results: the tensors that the operator returned.
        function: the operator itself.
    """

    function: Any
    arguments: dict[str, Any]
    field_of: Callable[[torch.Tensor], Field | None]
    results: list[torch.Tensor]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    def field(self, name: str) -> Field | None:
        value = self.arguments[name]
        return self.field_of(value) if isinstance(value, torch.Tensor) else None

    @property
    def operands(self) -> list[torch.Tensor]:
        """All tensors among the arguments."""
        found = []
        for value in self.arguments.values():
            found += [item for item in (value if isinstance(value, (list, tuple)) else (value,))]
        return [item for item in found if isinstance(item, torch.Tensor)]

    @property
    def fields(self) -> list[Field]:
        """Of all arguments that have one."""
        return [field for field in map(self.field_of, self.operands) if field is not None]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first result."""
        return tuple(self.results[0].shape)


def rule(*names: str, significant: bool = False) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for name in names:
            full = name if "::" in name else f"aten::{name}"
            RULES[full] = function
            if significant:
                SIGNIFICANT.add(full)
        return function

    return register


def find(function: Any) -> Rule | None:
    """The rule for an operator, None for one that nothing is known of."""
    name = base_name(function)
    if name in RULES:
        return RULES[name]
    return elementwise if torch.Tag.pointwise in function.tags else None


def base_name(function: Any) -> str:
    name = function._schema.name
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _dims(dims: Any, rank: int) -> list[int]:
    """Dimensions as an operator gets them: None or an empty list means all."""
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return list(range(rank))
    return sorted({dim % max(rank, 1) for dim in (dims if isinstance(dims, (list, tuple)) else (dims,))})


# Elementwise.


@rule(
    "_to_copy", "clone", "detach", "alias", "contiguous", "lift_fresh", "native_dropout", "log_sigmoid_forward",
    "rrelu_with_noise", "_conj", "conj", "resolve_conj", "resolve_neg", "_neg_view", "_prelu_kernel", "hardswish",
    "_log_softmax_backward_data", "bernoulli", "celu", "_fused_dropout", "real", "imag", "isclose", "_softplus",
    "softplus", "nan_to_num", "elu", "relu6", "hardsigmoid", "mish", "_foreach_add",
)  # fmt: skip
def elementwise(call: Call) -> Any:
    """Every element of the result sees what the elements at its place see."""
    return [
        Field.union(call.fields, tuple(result.shape)) if tuple(result.shape) == call.shape else None
        for result in call.results
    ]


@rule("copy")
def _copy(call: Call) -> Any:
    source = call.field("src")
    return None if source is None else source.expanded(call.shape)


@rule("fill", "zero", "uniform", "normal", "random", "exponential", "new_zeros", "new_ones", "new_full", "new_empty")
@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_empty_strided")
@rule("sym_size", "size", "is_same_size", "_local_scalar_dense", "item")
def _no_dependence(call: Call) -> Any:
    return None


# Movement of data.


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten")
def _view(call: Call) -> Any:
    (field,) = call.fields
    if call.results[0].dtype != call.operands[0].dtype and call.results[0].numel() != call.operands[0].numel():
        return _everything(call)
    return field.reshaped(call.shape)


@rule("squeeze", "unsqueeze")
def _squeeze(call: Call) -> Any:
    (field,) = call.fields
    shape = field.shape
    if base_name(call.function) == "aten::unsqueeze":
        dim = call["dim"] % (len(shape) + 1)
        return field.with_axes([*field.dims[:dim], (1,), *field.dims[dim:]])
    dropped = _dims(call.get("dim"), len(shape)) if "dim" in call.arguments else range(len(shape))
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


@rule("narrow")
def _narrow(call: Call) -> Any:
    (field,) = call.fields
    dim = call["dim"] % len(field.dims)
    return field.sliced(dim, int(call["start"]) % max(field.shape[dim], 1), call["length"])


@rule("split", "split_with_sizes", "chunk", "unbind", "unsafe_split", "split_copy", "unsafe_chunk", "unsafe_split_with_sizes")
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


@rule("cat", "concat", significant=True)
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
    for dim in _dims(call["dims"], len(field.dims)):
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


@rule("roll", "index", "index_select", "gather", "take", "take_along_dim", "diagonal", "as_strided", "unfold", "repeat")
@rule("rot90", "tril", "triu", "repeat_interleave", "masked_select", "diag_embed", "movedim", "embedding")
def _movement(call: Call) -> Any:
    """Any other movement of data, found by moving the numbers of the elements in the same way."""
    source = call.operands[0]
    if call.field_of(source) is None or any(call.field_of(other) is not None for other in call.operands[1:]):
        return _everything(call)
    # From 1 on, so that elements that an operator sets to zero are told apart; with the strides of the tensor.
    numbers = torch.empty_strided(source.shape, source.stride(), dtype=torch.int64)
    numbers.copy_(torch.arange(1, source.numel() + 1).reshape(source.shape))
    if base_name(call.function) == "aten::as_strided" and source.storage_offset():
        return _everything(call)
    arguments = {
        name: numbers if value is source else _on_cpu(value) for name, value in call.arguments.items()
    }
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


# Reductions.


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
    dims = _dims(call.get("dim", call.get("axis")), rank)
    field = field.reduced(dims)
    if len(call.shape) < rank:
        field = field.with_axes([axes for d, axes in enumerate(field.dims) if d not in dims])
    return [field if tuple(result.shape) == field.shape else None for result in call.results]


@rule("_softmax", "_log_softmax", "softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp", "sort", "topk", "_safe_softmax", "cummax", "cummin", significant=True)
def _along_dim(call: Call) -> Any:
    (field,) = call.fields
    if not field.dims:
        return field
    reduced = field.reduced([call["dim"] % len(field.dims)])
    return [reduced.expanded(tuple(result.shape)) for result in call.results]


# Norms.


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
@rule("_native_batch_norm_legit_functional", "_batch_norm_with_update", "_batch_norm_no_update", "miopen_batch_norm", "batch_norm")
def _batch_norm(call: Call) -> Any:
    (field,) = call.fields
    training = call.get("training", call.get("train", False)) or call.get("running_mean") is None
    if training and "no_training" not in call.function._schema.name and "no_update" not in call.function._schema.name:
        field = field.mixed([dim for dim in range(len(field.dims)) if dim != 1])
    return [field, *(None for _ in call.results[1:])]


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm", "layer_norm", significant=True)
def _layer_norm(call: Call) -> Any:
    (field,) = call.fields
    rank = len(field.dims)
    field = field.mixed(range(rank - len(call["normalized_shape"]), rank))
    return [field, *(None for _ in call.results[1:])]


@rule("native_group_norm", "group_norm", significant=True)
def _group_norm(call: Call) -> Any:
    (field,) = call.fields
    batch, channels, *rest = field.shape
    groups = call.get("group", call.get("num_groups"))
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


@rule("mm", "bmm", "matmul", significant=True)
def _matrix_product(call: Call) -> Any:
    return _product(call.field("self"), call.field("mat2"), call.shape)


@rule("addmm", significant=True)
def _addmm(call: Call) -> Any:
    return _product(call.field("mat1"), call.field("mat2"), call.shape, call.field("self"))


@rule("baddbmm", significant=True)
def _baddbmm(call: Call) -> Any:
    return _product(call.field("batch1"), call.field("batch2"), call.shape, call.field("self"))


@rule("_addmm_activation", significant=True)
def _addmm_activation(call: Call) -> Any:
    return _addmm(call)


@rule("linear", "mkldnn_linear", significant=True)
def _linear(call: Call) -> Any:
    field = call.field("input") if "input" in call.arguments else call.field("self")
    if field is None:
        return _everything(call)
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
    "scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math",
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_attention_math_for_mps",
    significant=True,
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
            field = Field(field.dims, field.only_near().rows, field.columns)
        if other.columns.is_global and not other.columns.has_far:
            field = Field(field.dims, field.rows, field.only_near().columns)
    return [field, *(None for _ in call.results[1:])]


def _repeated_heads(field: Field, shape: Sequence[int]) -> Field:
    """Grouped queries: keys and values have fewer heads."""
    if len(field.dims) >= 3 and field.shape[-3] not in (1, shape[-3]):
        return field.reduced([len(field.dims) - 3])
    return field


# Windows.


def _pair(value: Any, length: int = 2) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * length if len(values) == 1 else values


def window_taps(outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> torch.Tensor:
    """Which elements each output of a sliding window takes, shape ``(kernel, outputs)``."""
    return torch.arange(outputs)[None] * stride - padding + torch.arange(kernel)[:, None] * dilation


def transposed_taps(outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> torch.Tensor:
    """The same for the transposed operation; NOWHERE where a tap falls between two elements."""
    position = torch.arange(outputs)[None] + padding - torch.arange(kernel)[:, None] * dilation
    between = position.remainder(stride) != 0
    return position.div(stride, rounding_mode="floor").masked_fill(between, NOWHERE)


def _padded(taps: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Where the value of a tap comes from under a padding mode."""
    if mode in ("zeros", "constant"):
        return taps
    if mode == "replicate":
        return taps.clamp(0, size - 1)
    if mode == "circular":
        return taps.remainder(size)
    period = max(2 * (size - 1), 1)
    folded = taps.remainder(period)
    return torch.minimum(folded, period - folded) if size > 1 else torch.zeros_like(taps)


def _channels_mixed(field: Field, dim: int, groups: int, outputs: int) -> Field:
    """Each of the output channels sees all input channels of its group."""
    channels = field.shape[dim]
    before, after = field.dims[:dim], field.dims[dim + 1 :]
    split = field.single(dim).with_axes([*before, (groups,), (channels // groups,), *after])
    mixed = split.reduced([dim + 1])
    shape = [*mixed.shape]
    shape[dim + 1] = outputs // groups
    expanded = mixed.expanded(shape)
    return expanded.with_axes([*before, (groups, outputs // groups), *after]).single(dim)


def _convolved(field: Field, call: Call, weight: torch.Tensor, transposed: bool, mode: str = "zeros") -> Field:
    spatial = weight.dim() - 2
    channel_dim = len(field.dims) - spatial - 1
    groups = call["groups"]
    field = _channels_mixed(field, channel_dim, groups, call.shape[channel_dim])
    stride, dilation = _pair(call["stride"], spatial), _pair(call["dilation"], spatial)
    padding = _pair(call["padding"], spatial)
    # convext pads each side on its own: top, bottom, left, right.
    before = padding[::2] if len(padding) == 2 * spatial else padding
    for index in range(spatial):
        dim = channel_dim + 1 + index
        kernel, size, outputs = weight.shape[2 + index], field.shape[dim], call.shape[dim]
        geometry = (outputs, kernel, stride[index], before[index], dilation[index])
        far = transposed_taps(*geometry) if transposed else window_taps(*geometry)
        step = (stride[index], 1) if transposed else (1, stride[index])
        field = field.gathered(dim, _padded(far, size, mode), far, step)
    return field


@rule("convolution", "_convolution", "convolution_overrideable", significant=True)
def _convolution(call: Call) -> Any:
    field = call.field("input")
    if field is None or call.field("weight") is not None:
        return _everything(call)
    return _convolved(field, call, call["weight"], call["transposed"])


@rule("convext::corr2d", significant=True)
def _corr2d(call: Call) -> Any:
    field = call.field("input")
    if field is None or call.field("weight") is not None:
        return _everything(call)
    return _convolved(field, call, call["weight"], False, call["padding_mode"])


@rule(
    "max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "avg_pool3d", "max_pool3d_with_indices", "avg_pool1d",
    "max_pool1d_with_indices", "mkldnn_max_pool2d", "max_pool1d", "quantized_max_pool2d", significant=True,
)  # fmt: skip
def _pool(call: Call) -> Any:
    (field,) = call.fields
    kernel = call["kernel_size"]
    spatial = {"1": 1, "2": 2, "3": 3}[base_name(call.function).split("pool")[1][0]]
    kernel = _pair(kernel, spatial)
    stride = _pair(call["stride"], spatial) if call["stride"] else kernel
    padding, dilation = _pair(call["padding"], spatial), _pair(call.get("dilation", 1), spatial)
    for index in range(spatial):
        dim = len(field.dims) - spatial + index
        taps = window_taps(call.shape[dim], kernel[index], stride[index], padding[index], dilation[index])
        field = field.gathered(dim, taps, step=(1, stride[index]))
    return [field for _ in call.results]


@rule("_adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d", "mkldnn_adaptive_avg_pool2d", significant=True)
def _adaptive_pool(call: Call) -> Any:
    (field,) = call.fields
    for dim in (len(field.dims) - 2, len(field.dims) - 1):
        size, outputs = field.shape[dim], call.shape[dim]
        if outputs == 1:
            field = field.reduced([dim])
            continue
        index = torch.arange(outputs)
        start = index * size // outputs
        stop = -(-(index + 1) * size // outputs)
        longest = int((stop - start).max())
        taps = start + torch.arange(longest)[:, None]
        taps = torch.minimum(taps, stop - 1)
        divisor = math.gcd(size, outputs)
        field = field.gathered(dim, taps, step=(outputs // divisor, size // divisor))
    return [field for _ in call.results]


@rule("constant_pad_nd", "reflection_pad2d", "replication_pad2d", "reflection_pad1d", "replication_pad1d", significant=True)
def _pad(call: Call) -> Any:
    (field,) = call.fields
    name = base_name(call.function)
    mode = "constant" if "constant" in name else "reflect" if "reflection" in name else "replicate"
    padding = call["pad"] if mode == "constant" else call["padding"]
    return padded(field, padding, mode)


def padded(field: Field, padding: Sequence[int], mode: str) -> Field:
    """After ``F.pad``: last dimension first, before and after."""
    for index in range(len(padding) // 2):
        before, after = padding[2 * index], padding[2 * index + 1]
        if before == after == 0:
            continue
        dim = len(field.dims) - 1 - index
        size = field.shape[dim]
        far = torch.arange(-before, size + after)[None]
        field = field.gathered(dim, _padded(far, size, mode), far, (1, 1))
    return field


@rule("im2col", significant=True)
def _im2col(call: Call) -> Any:
    (field,) = call.fields
    *batch, channels, height, width = field.shape
    kernel, stride = _pair(call["kernel_size"]), _pair(call["stride"])
    padding, dilation = _pair(call["padding"]), _pair(call["dilation"])
    outputs = [
        (size + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i, size in enumerate((height, width))
    ]
    first = len(batch) + 1
    for i, dim in ((1, first + 1), (0, first)):
        taps = window_taps(outputs[i], kernel[i], stride[i], padding[i], dilation[i])
        parts = [field.gathered(dim, tap[None], step=(1, stride[i])) for tap in taps]
        parts = [part.with_axes([*part.dims[:dim], (1,), *part.dims[dim:]]) for part in parts]
        field = Field.concatenated(parts, [1] * kernel[i], dim)
    return field.permuted([*range(first), first, first + 2, first + 1, first + 3]).reshaped(call.shape)


@rule("col2im", significant=True)
def _col2im(call: Call) -> Any:
    (field,) = call.fields
    kernel, stride = _pair(call["kernel_size"]), _pair(call["stride"])
    padding, dilation = _pair(call["padding"]), _pair(call["dilation"])
    size = list(call["output_size"])
    windows = [(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    *batch, channels, _ = field.shape
    channels //= kernel[0] * kernel[1]
    field = field.reshaped((*batch, channels, kernel[0], kernel[1], windows[0], windows[1]))
    first = len(batch) + 1
    for i, (kernel_dim, window_dim) in enumerate(((first, first + 2), (first + 1, first + 3))):
        # Each tap has windows of its own; the pixel sees the union over the taps that fall on it.
        parts = []
        for tap in range(kernel[i]):
            far = transposed_taps(size[i], 1, stride[i], padding[i] - tap * dilation[i], 1)
            part = field.sliced(kernel_dim, tap, 1)
            parts.append(part.gathered(window_dim, far, far, (stride[i], 1)))
        field = Field.union(parts, parts[0].shape)
    return field.with_axes([*field.dims[:first], *field.dims[first + 2 :]])


# Upsampling.


@rule(
    "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", significant=True,
)  # fmt: skip
def _upsample(call: Call) -> Any:
    (field,) = call.fields
    scales = (call.get("scales_h"), call.get("scales_w"))
    for dim, scale in zip((len(field.dims) - 2, len(field.dims) - 1), scales, strict=True):
        size, outputs = field.shape[dim], call.shape[dim]
        near, far, step = resampling_taps(
            call.function, size, outputs, call.get("align_corners", None), None if scale is None else float(scale)
        )
        field = field.gathered(dim, near, far, step)
    return field


@lru_cache(maxsize=64)
def resampling_taps(
    function: Any, size: int, outputs: int, align_corners: bool | None, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int] | None]:
    """First and last element that each output of a resampling takes, here and on a line without end."""
    near = _hull(_responses(function, size, outputs, align_corners, scale))
    if align_corners:
        ratio = Fraction(size - 1, outputs - 1) if outputs > 1 else None
    elif scale is not None:
        ratio = Fraction(1 / scale).limit_denominator(4096)
    else:
        ratio = Fraction(size, outputs)
    if ratio is None or ratio == 0:
        return near, near, None
    # A longer line with the same ratio has, in its middle, the taps that this one would have without borders.
    step = (ratio.denominator, ratio.numerator)
    margin = -(-max(8, 4 * math.ceil(ratio)) // step[1])
    longer = size + 2 * margin * step[1], outputs + 2 * margin * step[0]
    far = _hull(_responses(function, *longer, align_corners, scale))
    middle = far[:, margin * step[0] : margin * step[0] + outputs] - margin * step[1]
    inner = (near > 0).all(0) & (near < size - 1).all(0)
    if bool((near.amin(0) != middle.amin(0))[inner].any() or (near.amax(0) != middle.amax(0))[inner].any()):
        return near, near, None
    return near, middle, step


def _responses(function: Any, size: int, outputs: int, align_corners: bool | None, scale: float | None) -> torch.Tensor:
    """Which outputs an impulse at each element reaches, shape ``(size, outputs)``; rounding errors are none."""
    # Two columns: torch 2.13 resamples a single one wrongly with antialiasing.
    impulses = torch.eye(size, dtype=torch.float64)[:, None, :, None].expand(-1, -1, -1, 2)
    arguments: list[Any] = [impulses, [outputs, 2]]
    if align_corners is not None:
        arguments.append(align_corners)
    result = function(*arguments, scale, None)
    return result[:, 0, :, 0].abs() > 1e-9


def _hull(responses: torch.Tensor) -> torch.Tensor:
    """All elements from the first to the last that an output takes, shape ``(taps, outputs)``."""
    size = responses.shape[0]
    index = torch.arange(size)[:, None].expand_as(responses)
    first = torch.where(responses, index, size).amin(0)
    last = torch.where(responses, index, -1).amax(0)
    longest = int((last - first).max()) + 1
    return torch.minimum(first + torch.arange(longest)[:, None], last)


# What nothing is known of.


def _everything(call: Call) -> Any:
    return everything(call.fields, [tuple(result.shape) for result in call.results])


def everything(fields: Sequence[Field], shapes: Sequence[Sequence[int]]) -> list[Field]:
    """Each element of each result sees all that any element of any operand sees."""
    reduced = [field.reduced(range(len(field.dims))).with_axes([]) for field in fields]
    return [Field.union([field.expanded(shape) for field in reduced], shape) for shape in shapes]


def counted(names: Sequence[str]) -> Callable[[str], str]:
    """Gives ``name``, then ``name#2``, ``name#3``."""
    counters: dict[str, Any] = {}

    def name(base: str) -> str:
        number = next(counters.setdefault(base, itertools.count(1)))
        return base if number == 1 else f"{base}#{number}"

    return name
