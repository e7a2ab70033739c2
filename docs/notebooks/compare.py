"""What differs between a page and a run of it, and between the code of two languages."""

from __future__ import annotations

import ast
import io
import math
import re

RELATIVE, ABSOLUTE = 1e-3, 1e-6
#: Largest difference, of 255, between pictures of which squares of this many pixels have been averaged.
GRAY_LEVELS, SQUARE = 24, 16
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)")


def same_text(one: str, other: str, *, numbers: bool = True) -> bool:
    """Whether two outputs agree: words and integers exactly, other numbers nearly, white space not at all.

    Args:
        one, other: the outputs.
        numbers: False to compare only the words between the numbers.
    """
    if _words(one) != _words(other):
        return False
    return not numbers or all(map(_same_number, _NUMBER.findall(one), _NUMBER.findall(other)))


def _words(text: str) -> list[str]:
    # A space on both sides of a number: torch pads numbers, and so signs and digits move spaces.
    return _NUMBER.sub(" # ", text).split()


def _same_number(one: str, other: str) -> bool:
    if re.fullmatch(r"[-+]?\d+", one) and re.fullmatch(r"[-+]?\d+", other):
        return int(one) == int(other)
    return math.isclose(float(one), float(other), rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def same_picture(one: bytes, other: bytes) -> bool:
    """Whether two PNG files show the same but for the smoothing of edges."""
    from PIL import Image, ImageChops

    first, second = (Image.open(io.BytesIO(data)).convert("RGB") for data in (one, other))
    if any(abs(a - b) > SQUARE // 2 for a, b in zip(first.size, second.size, strict=True)):
        return False
    width, height = (max(length // SQUARE, 1) for length in first.size)
    first, second = (image.resize((width, height), Image.Resampling.BOX) for image in (first, second))
    differences = ImageChops.difference(first, second).tobytes()
    return max(differences) <= GRAY_LEVELS


def same_code(original: str, translation: str) -> bool:
    """Whether two blocks of code are the same but for comments and for strings that were translated.

    A string counts as translated if it has a character that is not ASCII. The expressions of a translated f-string
    must be those of the original, in any order.
    """
    return _same_tree(ast.parse(original), ast.parse(translation))


def _same_tree(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_tree, one, other))
    if not isinstance(one, ast.AST) or not isinstance(other, ast.AST):
        return type(one) is type(other) and one == other
    if _is_text(one) and _is_text(other) and not ast.unparse(other).isascii():
        return _expressions(one) == _expressions(other)
    return type(one) is type(other) and all(
        _same_tree(getattr(one, name, None), getattr(other, name, None)) for name in one._fields if name != "kind"
    )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _expressions(text: ast.AST) -> list[str]:
    values = text.values if isinstance(text, ast.JoinedStr) else []
    return sorted(ast.dump(value) for value in values if isinstance(value, ast.FormattedValue))
