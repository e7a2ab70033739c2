"""One run of a model, in which every operator also says what its result sees of the image."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from convext.receptive_field import _probe, rules
from convext.receptive_field._field import Field
from convext.receptive_field._recorder import Frame, Place, Recorder, tensors_in


@dataclass(frozen=True)
class Event:
    """What an operator did, as far as rows are concerned."""

    operator: str
    significant: bool
    probed: bool = False
    assumed: bool = False  #: nothing was known, so that each result is taken to see everything
    lost: bool = False  #: layers within are not in the report, as they did not see where their input came from


@dataclass(frozen=True)
class Seen:
    """A tensor that gets a row, or that a container returned."""

    place: Place
    kind: str
    field: Field
    is_row: bool
    events: tuple[Event, ...]


class FieldMode(TorchDispatchMode):
    """Keeps a field for every tensor that depends on the image."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing here is compiled. By default torch would import its compiler to make sure of that, for a second.
        return False

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self._fields: Any = WeakTensorKeyDictionary()
        # All tensors that share a storage: a write to one of them changes the others.
        self._sharing: dict[int, list[Any]] = {}

    def field_of(self, tensor: torch.Tensor) -> Field | None:
        return self._fields.get(tensor)

    def set_field(self, tensor: torch.Tensor, field: Field | None) -> None:
        if field is None:
            self._fields.pop(tensor, None)
        else:
            self._fields[tensor] = field
        self._remember(tensor)

    def _remember(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Notes which storage a tensor uses, and returns those that use it too."""
        try:
            key = tensor.untyped_storage()._cdata
        except (RuntimeError, NotImplementedError):  # sparse, or of a library of its own
            return []
        alive = [(ref, other) for ref in self._sharing.get(key, ()) if (other := ref()) is not None]
        others = [other for _, other in alive if other is not tensor]
        references = [ref for ref, _ in alive]
        if len(others) == len(alive):
            references.append(TensorWeakRef(tensor))
        self._sharing[key] = references
        return others

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Operators made of others come undivided where inference_mode is on.
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        arguments = _bound(func._schema, args, kwargs)
        written = _written(func._schema, arguments)
        output = func(*args, **kwargs)
        results = tensors_in(output)
        for tensor in results:
            self._remember(tensor)
        outputs = {id(tensor) for name, tensor in written.items() if name.startswith("out")}
        arguments = {name: value for name, value in arguments.items() if id(value) not in outputs}
        call = rules.Call(func, arguments, self.field_of, results or list(written.values()))
        for tensor in call.operands:
            self._remember(tensor)
        if not call.fields:
            for tensor in written.values():
                if self.field_of(tensor) is not None:
                    self._write(tensor, None)
            return output
        if call.results and call.results[0].numel():
            self._apply(call, written, args, kwargs)
        return output

    def _apply(self, call: rules.Call, written: dict[str, torch.Tensor], args: Any, kwargs: Any) -> None:
        name = rules.base_name(call.function)
        rule = rules.find(call.function)
        fields: list[Field | None] | None = None
        significant, probed = name in rules.SIGNIFICANT, False
        if rule is not None:
            try:
                found = rule(call)
                fields = found if isinstance(found, list) else [found]
            except (ValueError, KeyError, IndexError, TypeError, RuntimeError):
                pass  # a use of the operator that the rule does not foresee
            significant = significant or (rule is rules.elementwise and len(call.fields) > 1)
        elif not written:
            with contextlib.suppress(RuntimeError, ValueError, TypeError):  # of an operator that takes no other values
                fields = _probe.of_operator(call, args, kwargs)
                probed, significant = True, True
        if fields is not None and not _fits(fields, call.results):
            fields = None
        assumed = fields is None
        if fields is None:
            fields = list(rules.everything(call.fields, [tuple(result.shape) for result in call.results]))
        self.events.append(Event(name, significant or assumed, probed, assumed))
        targets = {id(tensor) for tensor in written.values()}
        for tensor, field in zip(call.results, fields, strict=False):
            if id(tensor) in targets:
                self._write(tensor, field)
            else:
                self.set_field(tensor, field)
        for tensor in written.values():
            if not any(tensor is result for result in call.results):
                (everything,) = rules.everything(call.fields, [tuple(tensor.shape)])
                self._write(tensor, everything)

    def _write(self, tensor: torch.Tensor, field: Field | None) -> None:
        """A tensor was overwritten, and with it those that share its memory."""
        before = self.field_of(tensor)
        self.set_field(tensor, field)
        for other in self._remember(tensor):
            if other.shape == tensor.shape and other.stride() == tensor.stride():
                if other.storage_offset() == tensor.storage_offset():
                    self.set_field(other, field)
                    continue
            old = self.field_of(other)
            if field is None and before is None and old is None:
                continue
            self.set_field(other, _overwritten(other, old, tensor, field))


def _overwritten(other: torch.Tensor, old: Field | None, tensor: torch.Tensor, new: Field | None) -> Field | None:
    """The field of a tensor of which some elements are those of another tensor, which has a new field."""
    numbers = torch.full((tensor.untyped_storage().nbytes() // tensor.element_size(),), -1)
    if tensor.dtype != other.dtype or not numbers.numel():
        return old
    own = torch.arange(tensor.numel()).reshape(tensor.shape)
    numbers.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(own)
    source = numbers.as_strided(other.shape, other.stride(), other.storage_offset())
    if bool((source < 0).all()):
        return old
    if new is None:
        if old is None or bool((source >= 0).all()):
            return None
        kept = torch.arange(other.numel()).reshape(other.shape).masked_fill(source >= 0, -1)
        return old.moved(kept)
    return new.moved(source, old)


def _fits(fields: list[Field | None], results: list[torch.Tensor]) -> bool:
    return len(fields) == len(results) and all(
        field is None or field.shape == tuple(result.shape) for field, result in zip(fields, results, strict=True)
    )


def _bound(schema: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """All arguments by name, with default values."""
    bound = {}
    for index, argument in enumerate(schema.arguments):
        if index < len(args) and not argument.kwarg_only:
            bound[argument.name] = args[index]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value if argument.has_default_value() else None
    return bound


def _written(schema: Any, arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The arguments that the operator writes to."""
    return {
        argument.name: arguments[argument.name]
        for argument in schema.arguments
        if argument.alias_info is not None
        and argument.alias_info.is_write
        and isinstance(arguments[argument.name], torch.Tensor)
    }


class Trace(Recorder):
    """Collects the fields of layers, functions and containers while a model runs."""

    def __init__(self, mode: FieldMode) -> None:
        super().__init__()
        self.mode = mode
        self.seen: list[Seen] = []

    def mark(self) -> int:
        return len(self.mode.events)

    def on_enter(self, frame: Frame, inputs: Any) -> None:
        frame.mark = self.mark()

    def on_module(self, place: Place, frame: Frame, inputs: Any, output: Any) -> None:
        outputs = tensors_in(output)
        is_lost = bool(outputs) and all(self.mode.field_of(tensor) is None for tensor in outputs)
        if is_lost:
            self._probe_module(frame, inputs, outputs)
        field = self._first_field(output)
        if field is not None:
            events = tuple(self.mode.events[frame.mark :])
            self.seen.append(Seen(place, type(frame.module).__name__, field, frame.is_leaf or is_lost, events))

    def _probe_module(self, frame: Frame, inputs: Any, outputs: list[torch.Tensor]) -> None:
        """A module took the image out of sight (through NumPy, say): it is probed as a whole."""
        args, kwargs = inputs
        fields = [(tensor, self.mode.field_of(tensor)) for tensor in tensors_in(inputs)]
        sources = [(tensor, field) for tensor, field in fields if field is not None]
        if not sources:
            return
        try:
            found = _probe.of_module(frame.module, args, kwargs, sources, outputs)
            assumed = False
        except (RuntimeError, ValueError, TypeError):
            found = list(rules.everything([field for _, field in sources], [tuple(tensor.shape) for tensor in outputs]))
            assumed = True
        for tensor, field in zip(outputs, found, strict=True):
            self.mode.set_field(tensor, field)
        self.mode.events.append(Event(type(frame.module).__name__, True, not assumed, assumed, lost=not frame.is_leaf))

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        output = function(*args, **kwargs)
        # Circular padding is written piece by piece, which hides that it goes on evenly.
        if function is nn.functional.pad and isinstance(output, torch.Tensor):
            padding, mode = _pad_arguments(*args, **kwargs)
            field = self.mode.field_of(args[0]) if args else None
            if mode == "circular" and field is not None:
                self.mode.set_field(output, rules.padded(field, padding, mode))
        return output

    def on_call(self, place: Place, frame: Frame, function: Callable[..., Any], output: Any, mark: int) -> Any:
        events = tuple(self.mode.events[mark:])
        if any(event.significant for event in events):
            field = self._first_field(output)
            if field is not None:
                self.seen.append(Seen(place, place.function, field, True, events))
        return output

    def _first_field(self, output: Any) -> Field | None:
        fields = (self.mode.field_of(tensor) for tensor in tensors_in(output))
        return next((field for field in fields if field is not None), None)


def _pad_arguments(input: Any, pad: Any, mode: str = "constant", value: Any = None) -> tuple[Any, str]:
    return list(pad), mode


@contextlib.contextmanager
def as_for_inference(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode, no gradients; afterwards training flags, buffers and random numbers are as they were."""
    training = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if not isinstance(buffer, nn.parameter.UninitializedBuffer)
    ]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            with contextlib.suppress(NotImplementedError):  # what torch.export made has no modes
                model.eval()
            # The fused encoder layers of torch would hide their parts.
            torch.backends.mha.set_fastpath_enabled(False)
            with _without_compilation():
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, flag in training:
            module.training = flag
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                if buffer is not None and value is not None:
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)
                    module._buffers[name] = buffer


def _without_compilation() -> contextlib.AbstractContextManager[Any]:
    """Parts that torch.compile made run as they were written. (If nothing was compiled, torch's compiler sleeps on.)"""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def trace(model: nn.Module, image: torch.Tensor) -> list[Seen]:
    """Runs a model on an image ``(N, C, H, W)`` and returns what it saw, in the order of the run."""
    mode = FieldMode()
    recorder = Trace(mode)
    with torch.no_grad(), recorder.watch(model), mode:
        mode.set_field(image, Field.of_image(image.shape))
        model(image)
    return recorder.seen
