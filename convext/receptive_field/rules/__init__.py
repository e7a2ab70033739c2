"""What each operator of PyTorch does to a field: one rule for each kind of operator.

A rule gets a `Call` and returns the field of the result, or a list for several results. Operators are found by name
without overload and without the underscore of in-place variants, so ``aten.add_.Tensor`` is ``aten::add``. An operator
that the table does not have, and that is not elementwise, is probed.
"""

from __future__ import annotations

from convext.receptive_field.rules import movement, reductions, resampling, windows  # noqa: F401  (fill the table)
from convext.receptive_field.rules.call import (
    RULES,
    SIGNIFICANT,
    Call,
    Unforeseen,
    base_name,
    elementwise,
    everything,
    find,
)
from convext.receptive_field.rules.windows import padded, pair

__all__ = [
    "RULES",
    "SIGNIFICANT",
    "Call",
    "Unforeseen",
    "base_name",
    "elementwise",
    "everything",
    "find",
    "padded",
    "pair",
]
