"""The tensors of a job, in both layouts, and the passes as convext computes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch

import convext
from convext._geometry import Geometry
from convext.benchmark.shapes import DTYPES, Layer
from convext.benchmark.suite import Job


def in_layout(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """A copy in the layout, also where there is one channel: ``contiguous(memory_format=torch.channels_last)`` would
    return such a tensor as it is, and torch would then take its slow kernels for contiguous images."""
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=memory_format).copy_(
        tensor
    )


def _values(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """Random numbers; large tensors repeat a pattern, which is quicker to make."""
    count = 1
    for size in shape:
        count *= size
    length = min(count, 999_983)  # a prime: no row repeats the one above
    numbers = torch.randn(length) if dtype.is_floating_point else torch.randint(0, 10, (length,))
    pattern = numbers.to(dtype).to(device)
    return pattern.repeat(-(-count // length))[:count].reshape(shape)


class Workload:
    """Input, weight and gradient of the output, made when they are first asked for."""

    def __init__(self, layer: Layer, batch: int, dtype: str, device: str = "cpu") -> None:
        self.layer = layer
        self.batch = batch
        self.dtype = DTYPES[dtype]
        self.device = device
        self._tensors: dict[tuple[str, str], torch.Tensor] = {}

    @classmethod
    def of(cls, job: Job) -> Workload:
        """The one that the job needs."""
        return cls(job.layer, job.batch, job.dtype)

    def _tensor(self, name: str, shape: tuple[int, ...], layout: str) -> torch.Tensor:
        key = (name, layout)
        if key not in self._tensors:
            other = [tensor for (known, _), tensor in self._tensors.items() if known == name]
            source = other[0] if other else _values(shape, self.dtype, self.device)
            self._tensors[key] = in_layout(source, layout)
        return self._tensors[key]

    def input(self, layout: str) -> torch.Tensor:
        """(N, C, H, W)."""
        return self._tensor("input", (self.batch, self.layer.in_channels, *self.layer.size), layout)

    def weight(self, layout: str) -> torch.Tensor:
        """(O, C / groups, h, w)."""
        return self._tensor("weight", self.layer.weight_shape, layout)

    def grad_output(self, layout: str) -> torch.Tensor:
        """(N, O, H', W')."""
        return self._tensor("grad_output", (self.batch, self.layer.out_channels, *self.layer.output_size), layout)

    @cached_property
    def geometry(self) -> Geometry:
        """The layer's, as the operators take it."""
        (height, width), layer = self.layer.padding, self.layer
        return Geometry(layer.stride, (height, height, width, width), layer.dilation, layer.groups)

    def ours(self, pass_name: str, layout: str) -> Callable[[], torch.Tensor]:
        """The pass as convext computes it."""
        weight, layer, geometry = self.weight(layout), self.layer, self.geometry
        channels_last = layout == "channels_last"
        if pass_name == "forward":
            x = self.input(layout)
            settings = (layer.stride, layer.padding, layer.dilation, layer.groups)
            return lambda: convext.conv2d(x, weight, None, *settings)
        grad = self.grad_output(layout)
        if pass_name == "grad_input":
            return lambda: convext.autograd.corr2d_grad_input(grad, weight, layer.size, geometry, channels_last)
        x = self.input(layout)
        return lambda: convext.autograd.corr2d_grad_weight(grad, x, layer.kernel, geometry, channels_last)

    def plan(self, pass_name: str, layout: str) -> convext.plan.PassPlan:
        """What `convext.explain` says about it."""
        layer = self.layer
        settings = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return convext.explain(self.input(layout), self.weight(layout), None, *settings)[pass_name]
