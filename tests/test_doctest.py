"""The examples in the docstrings run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import convext

MODULES = ["convext"] + [
    info.name
    for info in pkgutil.walk_packages(convext.__path__, "convext.")
    if not info.name.endswith(("__main__", "._C", "._cuda"))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("convext"):
            raise
        pytest.skip(f"{error.name}, which the benchmark can compare with, is not installed")
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


@pytest.mark.parametrize("name", convext.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    item = getattr(convext, name)
    assert inspect.getdoc(item), f"{name} has no docstring"
    if inspect.isfunction(item) or inspect.isclass(item):
        assert ">>>" in inspect.getdoc(item) or name in {"get_float32_precision"}, f"{name} has no example"


@pytest.mark.parametrize("name", convext.reference.__all__)
def test_every_function_of_the_reference_has_an_example(name: str) -> None:
    assert ">>>" in inspect.getdoc(getattr(convext.reference, name))
