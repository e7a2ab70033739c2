"""`feature_maps` runs a model once and keeps what the chosen layers return."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FeatureMaps(Mapping[str, torch.Tensor]):
    """The feature maps of `feature_maps`: a mapping from a layer's name to a tensor ``(N, C, H', W')``.

    The order is that of execution. A layer that runs more than once has an entry for each run: ``name``, ``name#2``,
    ``name#3``. The tensors are detached copies and belong to nobody else.

    Attributes:
        image: a copy of the image, ``(N, C, H, W)``.
        kernels: a copy of the weight of the first captured layer, ``(O, C / groups, h, w)``, under the layer's name;
            empty where that layer is no convolution.

    Example:
        >>> import torch, convext
        >>> maps = convext.feature_maps(convext.Conv2D(1, 4, 3), torch.ones(8, 8))
        >>> maps
        Conv2D  (1, 4, 6, 6)
    """

    def __init__(
        self, image: torch.Tensor, maps: Mapping[str, torch.Tensor], kernels: Mapping[str, torch.Tensor]
    ) -> None:
        self.image = image
        self.kernels = dict(kernels)
        self._maps = dict(maps)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._maps:
            raise KeyError(f"there are no feature maps of {name!r}{_closest(name, self._maps)}")
        return self._maps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        width = max(map(len, self._maps), default=0)
        return "\n".join(f"{name:<{width}}  {tuple(maps.shape)}" for name, maps in self._maps.items())

    def draw(
        self,
        layers: str | Sequence[str] | None = None,
        max_channels: int = 16,
        scale: str = "shared",
        image_index: int = 0,
        kernels: bool = True,
    ) -> Figure:
        """One figure of the image, the first layer's kernels and a block of feature maps for each layer.

        Kernels of three input channels are drawn in colour, where zero is mid grey; others in red (negative), white
        (zero) and blue, and of those that read more than one channel the slice of channel 0. Complex maps are drawn
        by their magnitude. An image outside ``[0, 1]`` is rescaled.

        Args:
            layers: which of the layers, by names or patterns as in `feature_maps`; by default all.
            max_channels: how many channels of a layer, and how many kernels, are drawn at most; the first ones.
            scale: ``"shared"``: one colour scale for each layer, with a colour bar; ``"each"``: every map, and every
                kernel, from its own least to its own greatest value.
            image_index: which image of the batch.
            kernels: whether to draw the first layer's kernels.

        Returns:
            A ``matplotlib.figure.Figure``, which no window belongs to: ``figure.savefig("maps.png")``.

        Raises:
            ImportError: without matplotlib.
            IndexError: for an ``image_index`` that the batch does not have.
            ValueError: for a layer that was not captured, a ``scale`` of another name, or ``max_channels`` below 1.

        Example:
            >>> import torch, convext
            >>> maps = convext.feature_maps(convext.Conv2D(1, 4, 3), torch.rand(8, 8))
            >>> maps.draw().savefig("maps.png")  # doctest: +SKIP
        """
        names = list(self._maps) if layers is None else _match(layers, self._maps, "draw(): layers")
        if isinstance(max_channels, bool) or not isinstance(max_channels, int):
            raise TypeError(f"draw(): max_channels must be an int, but it is a {type(max_channels).__name__}")
        if max_channels < 1:
            raise ValueError(f"draw(): max_channels must be at least 1, but it is {max_channels}")
        if scale not in ("shared", "each"):
            raise ValueError(f"draw(): scale must be 'shared' or 'each', but it is {scale!r}")
        batch = self.image.shape[0]
        if not -batch <= image_index < batch:
            raise IndexError(f"draw(): image_index must be below the batch size, {batch}, but it is {image_index}")
        from convext.feature_maps.figure import draw

        return draw(
            self.image[image_index],
            self.kernels if kernels else {},
            {name: self._maps[name][image_index] for name in names},
            max_channels,
            is_shared=scale == "shared",
        )


def feature_maps(model: nn.Module, image: torch.Tensor, layers: str | Sequence[str] | None = None) -> FeatureMaps:
    """Runs the model on an image and returns what its convolutions, or other layers, compute on the way.

    The model runs in eval mode and without gradients, on a copy of the image. Training flags are then as they were
    and no hook stays behind, also where the model raises.

    Args:
        model: any module that takes one batch of images.
        image: of shape ``(H, W)``, ``(C, H, W)`` or ``(N, C, H, W)``, of the dtype and on the device of the model;
            the model gets it as ``(N, C, H, W)``.
        layers: names as in ``model.named_modules()``, or patterns such as ``"layer1.*.conv2"`` (see `fnmatch`); by
            default every ``nn.Conv2d``, which `convext.Conv2D` is too. The model itself goes by the name of its class.
            Layers that do not run are left out.

    Returns:
        A mapping from name to a tensor ``(N, C, H', W')``, with a method ``draw``.

    Raises:
        TypeError: for arguments of a wrong Python type, and for a layer that does not return a tensor.
        ValueError: for a name or pattern that no module has.
        RuntimeError: for an image or feature maps of another rank, where none of the layers runs, and whatever the
            model raises.

    Example:
        >>> import torch, convext
        >>> from torch import nn
        >>> model = nn.Sequential(convext.Conv2D(1, 4, 3), nn.ReLU(), convext.Conv2D(4, 8, 3))
        >>> convext.feature_maps(model, torch.rand(12, 12))
        0  (1, 4, 10, 10)
        2  (1, 8, 8, 8)
        >>> convext.feature_maps(model, torch.rand(12, 12), layers="1")["1"].min() >= 0
        tensor(True)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"feature_maps(): model must be an nn.Module, but it is a {type(model).__name__}")
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"feature_maps(): image must be a Tensor, but it is a {type(image).__name__}")
    if image.dim() not in (2, 3, 4):
        raise RuntimeError(
            f"feature_maps(): image must be (H, W), (C, H, W) or (N, C, H, W), but it has shape {tuple(image.shape)}"
        )
    chosen = _choose(model, layers)
    images = image.detach().clone()
    images = images.reshape((1,) * (4 - images.dim()) + images.shape)

    maps: dict[str, torch.Tensor] = {}
    kernels: dict[str, torch.Tensor] = {}
    runs: dict[str, int] = {}

    def keep(name: str, module: nn.Module, output: Any) -> None:
        runs[name] = runs.get(name, 0) + 1
        # A copy: the next layer may write into it, as nn.ReLU(inplace=True) does.
        result = _as_maps(output, name).detach().clone()
        if not maps and isinstance(module, nn.Conv2d):
            kernels[name] = module.weight.detach().clone()
        maps[name if runs[name] == 1 else f"{name}#{runs[name]}"] = result

    with _evaluating(model), torch.no_grad():
        handles = [
            module.register_forward_hook(lambda module, _, output, name=name: keep(name, module, output))
            for name, module in chosen.items()
        ]
        try:
            model(images.clone())
        finally:
            for handle in handles:
                handle.remove()
    if not maps:
        raise RuntimeError(f"feature_maps(): none of the layers {list(chosen)} runs when the model does")
    return FeatureMaps(images, maps, kernels)


def _choose(model: nn.Module, layers: str | Sequence[str] | None) -> dict[str, nn.Module]:
    """The modules to watch, each once, by the name that the caller used for it."""
    modules = {name or type(model).__name__: module for name, module in model.named_modules(remove_duplicate=False)}
    if layers is not None:
        names: Iterable[str] = _match(layers, modules, "feature_maps(): layers")
    else:
        names = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
        if not names:
            raise ValueError("feature_maps(): layers must be given, since the model has no nn.Conv2d")
    chosen: dict[int, str] = {}
    for name in names:
        chosen.setdefault(id(modules[name]), name)
    return {name: modules[name] for name in chosen.values()}


def _match(wanted: str | Sequence[str], names: Iterable[str], argument: str) -> list[str]:
    """The names that are meant by names and patterns, in their order in ``names``; raises for one that means none."""
    patterns = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"{argument} must be a name or a sequence of names, but it is {wanted!r}")
    if not patterns:
        raise ValueError(f"{argument} must name at least one layer, but it is {wanted!r}")
    names = list(names)
    matched: set[str] = set()
    for pattern in patterns:
        found = {pattern} if pattern in names else {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            raise ValueError(
                f"{argument} must be names or patterns of layers, but none is {pattern!r}{_closest(pattern, names)}"
            )
        matched |= found
    return [name for name in names if name in matched]


def _closest(name: str, names: Iterable[str]) -> str:
    """What the caller may have meant, as the end of a sentence."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "; the closest are " + ", ".join(map(repr, near))
    shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
    return f"; there are {shown}"


def _as_maps(output: Any, name: str) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"feature_maps(): layers must return a Tensor, but {name!r} returns a {type(output).__name__}")
    if output.dim() == 3:
        output = output.unsqueeze(0)  # a layer that the model gives a single image
    if output.dim() != 4:
        raise RuntimeError(
            f"feature_maps(): layers must return (N, C, H, W), but {name!r} returns {tuple(output.shape)}"
        )
    return output


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in eval mode; `train` is not called, since a model's own may do more than set flags."""
    flags = [(module, module.training) for module in model.modules()]
    for module, _ in flags:
        module.training = False
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
