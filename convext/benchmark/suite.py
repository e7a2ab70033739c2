"""Which jobs a run of the benchmark has. A job is timed together: one pass, both layouts, every peer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from convext.benchmark.shapes import DTYPES, Layer, networks

PASSES = ("forward", "grad_input", "grad_weight")
LAYOUTS = ("contiguous", "channels_last")


@dataclass(frozen=True)
class Job:
    """One pass of a layer. Each of its layouts is a case of its own: they share the peers' times."""

    layer: Layer
    batch: int
    dtype: str
    threads: int
    pass_name: str
    layouts: tuple[str, ...] = LAYOUTS

    @property
    def tensors(self) -> tuple[object, ...]:
        """Jobs that agree in this use the same tensors."""
        return (self.layer, self.batch, self.dtype)

    @property
    def flops(self) -> float:
        """Two for each multiply-add."""
        return self.layer.flops * self.batch

    def shrunk(self) -> Job:
        """The job on a part of its rows, to learn cheaply what the whole will take."""
        kernel = (self.layer.kernel[0] - 1) * self.layer.dilation[0] + 1
        height, width = self.layer.size
        rows = min(height, max(height // 16, kernel, 4))
        return dataclasses.replace(self, batch=1, layer=dataclasses.replace(self.layer, size=(rows, width)))

    def __str__(self) -> str:
        return (
            f"{self.layer.network}: {self.layer.name}, batch {self.batch}, {self.dtype}, {self.pass_name}, "
            f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        )


@dataclass(frozen=True)
class Selection:
    """What the user asks for. An axis that is left empty has the values that the files of shapes give it."""

    networks: Sequence[str] = ()
    name: str = ""  #: a part of the layer's name
    passes: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    layouts: Sequence[str] = ()
    batches: Sequence[int] = ()
    threads: Sequence[int] = ()


def _threads(layer: Layer, available: int) -> tuple[int, ...]:
    return tuple(sorted({available if text == "all" else min(int(text), available) for text in layer.threads}))


def jobs(selection: Selection, available_threads: int) -> list[Job]:
    """The jobs of a selection, those on the same tensors side by side. By default, dtypes other than float32, and
    fewer threads than all, are timed with each layer's first batch size only."""
    result = []
    for layer in _layers(selection):
        all_threads = selection.threads or _threads(layer, available_threads)
        batches, dtypes = selection.batches or layer.batches, selection.dtypes or layer.dtypes
        for dtype in dtypes:
            for batch in batches:
                for threads in all_threads:
                    extra = (dtype != "f32" and not selection.dtypes) + (
                        threads != max(all_threads) and not selection.threads
                    )
                    if extra > 1 or (extra and batch != batches[0]):
                        continue
                    for pass_name in selection.passes or PASSES:
                        if pass_name == "forward" or DTYPES[dtype].is_floating_point:
                            layouts = tuple(selection.layouts) or LAYOUTS
                            result.append(Job(layer, batch, dtype, threads, pass_name, layouts))
    return result


def _layers(selection: Selection) -> list[Layer]:
    known = networks()
    unknown = [name for name in selection.networks if name not in known]
    if unknown:
        raise ValueError(f"there is no network {unknown[0]!r}; there are: {', '.join(known)}")
    chosen = selection.networks or known
    return [layer for name in chosen for layer in known[name] if selection.name in layer.name]


def threads_of_machine() -> int:
    """What torch uses unless told otherwise."""
    return torch.get_num_threads()
