"""Pages of the API reference: one for each module that defines public names, made of `convext` itself."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from collections import defaultdict
from typing import Any

import convext

#: Titles of the pages, in their order; a module that is not here comes after them, under its own name.
TITLES = {
    "functional": "Functions",
    "modules": "Layers",
    "receptive_field": "Receptive fields",
    "feature_maps": "Feature maps",
    "autograd": "The autograd function",
    "plan": "Kernels",
    "precision": "Precision",
    "build": "Build information",
    "reference": "The reference in plain Python",
}


def topics() -> dict[str, list[str]]:
    """The public names (without ``convext.``) of each module, in its order; the modules in the order of their pages."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in convext.__all__:
        item = getattr(convext, name)
        if isinstance(item, types.ModuleType):
            found[name] = [f"{name}.{member}" for member in item.__all__]
        else:
            found[item.__module__.split(".")[1]].append(name)
    for names in found.values():
        names.sort(key=lambda name: inspect.getsourcelines(_find(name))[1])
    order = [*(name for name in TITLES if name in found), *(name for name in found if name not in TITLES)]
    return {name: found[name] for name in order}


def pages() -> dict[str, str]:
    """The text of each page in reStructuredText, by its name."""
    return {"index": _index(), **{topic: _page(topic, names) for topic, names in topics().items()}}


def title(topic: str) -> str:
    return TITLES.get(topic, topic.replace("_", " ").capitalize())


def _index() -> str:
    lines = [*_heading("API reference"), ".. toctree::", "   :hidden:", ""]
    lines += [f"   {title(topic)} <{topic}>" for topic in topics()]
    for topic, names in topics().items():
        lines += ["", f":doc:`{title(topic)} <{topic}>`", "", ".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   convext.{name}" for name in names]
    return "\n".join(lines) + "\n"


def _page(topic: str, names: list[str]) -> str:
    # Not in the index: the name may be a function's too.
    module = [f".. automodule:: convext.{topic}", "   :no-index:"]
    lines = [*_heading(title(topic)), *module, "", ".. currentmodule:: convext"]
    for name in names:
        lines += ["", *_entry(f"convext.{name}", _find(name))]
    for name, item in _other_classes(topic).items():
        lines += ["", *_entry(f"convext.{topic}.{name}", item)]
    return "\n".join(lines) + "\n"


def _find(name: str) -> Any:
    item: Any = convext
    for part in name.split("."):
        item = getattr(item, part)
    return item


def _other_classes(topic: str) -> dict[str, type]:
    """The classes that a module has for its callers beside its public names: what its functions return.

    They are those of its ``__all__``, and where there is none, the dataclasses that it defines.
    """
    module = sys.modules[f"convext.{topic}"]  # the attribute of `convext` may be a function of the same name
    listed = getattr(module, "__all__", None)
    return {
        name: item
        for name, item in vars(module).items()
        if inspect.isclass(item)
        and getattr(convext, name, None) is not item
        and (name in listed if listed else dataclasses.is_dataclass(item) and item.__module__ == module.__name__)
        and not name.startswith("_")
    }


def _entry(name: str, item: Any) -> list[str]:
    if inspect.isclass(item):
        public = [base for base in item.__bases__ if base is not object and not base.__name__.startswith("_")]
        return [f".. autoclass:: {name}", "   :members:", *(["   :show-inheritance:"] if public else [])]
    return [f".. autofunction:: {name}"]


def _heading(text: str) -> list[str]:
    return [text, "=" * len(text), ""]
