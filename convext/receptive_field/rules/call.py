"""The calls that rules are for, and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from convext.receptive_field._field import Field

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
            found += list(value) if isinstance(value, (list, tuple)) else [value]
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


def dimensions(dims: Any, rank: int) -> list[int]:
    """Dimensions as an operator gets them: None or an empty list means all."""
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return list(range(rank))
    return sorted({dim % max(rank, 1) for dim in (dims if isinstance(dims, (list, tuple)) else (dims,))})


class Unforeseen(ValueError):
    """Raised by a rule for a use of its operator that it does not describe; the results then see everything."""


def everything(fields: Sequence[Field], shapes: Sequence[Sequence[int]]) -> list[Field]:
    """Each element of each result sees all that any element of any operand sees."""
    reduced = [field.reduced(range(len(field.dims))).with_axes([]) for field in fields]
    return [Field.union([field.expanded(shape) for field in reduced], shape) for shape in shapes]


@rule(
    "_to_copy", "detach", "alias", "lift_fresh", "_conj", "_neg_view", "native_dropout", "bernoulli", "hardswish",
    "_prelu_kernel", "rrelu_with_noise", "log_sigmoid_forward",
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
@rule("_local_scalar_dense", "is_same_size")
def _no_dependence(call: Call) -> Any:
    return None
