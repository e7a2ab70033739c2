"""Follows a run of a model: which module runs, which functions of torch it calls, and a name for each of them.

The trace, the check by gradients and the effective field all run the model with such a recorder, so that they agree on
what a name means.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class Place(NamedTuple):
    """Where in a run a tensor was made: by a module, or by a function that it called.

    Attributes:
        module: as in ``named_modules``.
        call: the how manyth call of that module, from 1.
        function: the name of the function, empty for the module's own output.
        number: the how manyth call of a function of that name, within the call of the module.
    """

    module: str
    call: int
    function: str = ""
    number: int = 0


@dataclass
class Frame:
    """A module that is running."""

    name: str
    call: int
    module: nn.Module
    is_leaf: bool
    functions: Counter[str] = field(default_factory=Counter)
    mark: int = 0  #: for the one who listens


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in nested lists, tuples and dicts, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def is_leaf(module: nn.Module, is_root: bool) -> bool:
    """Whether a module is one layer. A whole model without submodules is not, unless it is a layer of a library."""
    if isinstance(module, torch.jit.ScriptModule):
        return True  # its parts do not run as Python
    # A layer with a parametrized weight (spectral norm) is still one layer.
    if any(name != "parametrizations" for name, _ in module.named_children()) or isinstance(module, nn.Sequential):
        return False
    library = ("torch.nn.modules.", "torch.nn.utils.parametrize", "convext.modules")
    return not is_root or type(module).__module__.startswith(library)


class Recorder(TorchFunctionMode):
    """Calls `on_module` and `on_call` while a model runs within ``with recorder.watch(model):``."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.calls: Counter[str] = Counter()
        self.paused = False

    def on_enter(self, frame: Frame, inputs: Any) -> None:
        """A module starts."""

    def on_module(self, place: Place, frame: Frame, inputs: Any, output: Any) -> Any:
        """A module has returned; what is returned here replaces its output, unless it is None."""

    def on_call(self, place: Place, frame: Frame, function: Callable[..., Any], output: Any, mark: int) -> Any:
        """A function has returned that a module called which is not a leaf; the result replaces its output."""
        return output

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Runs a function."""
        return function(*args, **kwargs)

    def mark(self) -> int:
        """Something to be handed to `on_call`, taken before the function runs."""
        return 0

    @contextlib.contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        handles = []
        try:
            for name, module in model.named_modules():
                leaf = is_leaf(module, module is model)
                shown = name or (type(module).__name__ if leaf else "")
                enter = self._enter(shown, leaf)
                try:
                    handles.append(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
                except RuntimeError:  # scripted modules take no hooks
                    continue
                handles.append(module.register_forward_hook(self._leave(), with_kwargs=True))
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, leaf: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if not self.paused:
                self.calls[name] += 1
                frame = Frame(name, self.calls[name], module, leaf)
                self.frames.append(frame)
                self.on_enter(frame, (args, kwargs))

        return hook

    def _leave(self) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if self.paused:
                return None
            # A module that failed, and whose failure the model caught, has left its frame behind.
            while self.frames and self.frames[-1].module is not module:
                self.frames.pop()
            if not self.frames:
                return None
            frame = self.frames.pop()
            self.paused = True  # what the listener computes is not the model's
            try:
                return self.on_module(Place(frame.name, frame.call), frame, (args, kwargs), output)
            finally:
                self.paused = False

        return hook

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Without the underscores of in-place operators and methods, and without an overload's name.
        name = getattr(func, "__name__", "function").strip("_").partition(".")[0] or "function"
        if name == "get" or not self.frames or self.paused:  # "get": properties such as shape
            return func(*args, **kwargs)
        frame = self.frames[-1]
        mark = self.mark()
        output = self.call(func, args, kwargs)
        if frame.is_leaf:
            return output
        frame.functions[name] += 1
        place = Place(frame.name, frame.call, name, frame.functions[name])
        return self.on_call(place, frame, func, output, mark)
