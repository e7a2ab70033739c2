"""Gradients of chosen units with respect to the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from convext.receptive_field._recorder import Frame, Place, Recorder, tensors_in
from convext.receptive_field._rows import Layer


class Capture(Recorder):
    """Keeps what the layers at some places return, as it is at that moment: a later write does not change it."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.wanted = {layer.place: layer for layer in layers}
        self.outputs: dict[Place, torch.Tensor] = {}

    def _keep(self, place: Place, output: Any) -> None:
        layer = self.wanted.get(place)
        if layer is None:
            return
        for tensor in tensors_in(output):
            # The first that depends on the image, as in the trace.
            if tensor.requires_grad:
                self.outputs[place] = tensor * 1
                return

    def on_module(self, place: Place, frame: Frame, inputs: Any, output: Any) -> Any:
        self._keep(place, output)

    def on_call(self, place: Place, frame: Frame, function: Callable[..., Any], output: Any, mark: int) -> Any:
        self._keep(place, output)
        return output


def effective_field(
    model: nn.Module,
    layer: Layer,
    position: tuple[int, int],
    image_shape: Sequence[int],
    images: Any,
    samples: int,
    seed: int,
) -> torch.Tensor:
    """See `Report.effective_field`."""
    from convext.receptive_field._trace import as_for_inference

    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    dtype = torch.float32 if parameter is None else parameter.dtype
    channels, height, width = image_shape[1:]
    if images is None:
        if not isinstance(samples, int) or samples < 1:
            raise ValueError(f"effective_field(): samples must be a positive int, but it is {samples!r}")
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn((samples, channels, height, width), generator=generator)
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"effective_field(): images must be a Tensor, but it is a {type(images).__name__}")
    images = images[None] if images.dim() == 3 else images
    if images.dim() != 4 or tuple(images.shape[1:]) != (channels, height, width) or not len(images):
        raise ValueError(
            f"effective_field(): images must have shape (N, {channels}, {height}, {width}), but they have shape "
            f"{list(images.shape)}"
        )
    total = torch.zeros((height, width), dtype=torch.float64)
    with as_for_inference(model, device), torch.enable_grad():
        for image in images:
            batch = image.to(device, dtype).expand(tuple(image_shape)).clone().requires_grad_()
            capture = Capture([layer])
            with capture.watch(model):
                model(batch * 1)
            output = capture.outputs.get(layer.place)
            try:
                if output is None:
                    raise RuntimeError("its output does not require one")
                (gradient,) = torch.autograd.grad(layer.elements(output, position).sum(), batch)
            except (RuntimeError, NotImplementedError) as error:
                raise RuntimeError(
                    f"effective_field(): no gradient leads from layer {layer.row.name!r} to the image: {error}"
                ) from error
            total += gradient.abs().double().mean((0, 1)).cpu()
    return total / len(images)
