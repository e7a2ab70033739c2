"""`Conv2D`, which drops in for ``torch.nn.Conv2d``, and `replace_conv2d`, which drops it in."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from convext._geometry import Padding
from convext.functional import conv2d

ModuleType = TypeVar("ModuleType", bound=nn.Module)


class Conv2D(nn.Conv2d):
    """A convolutional layer: ``torch.nn.Conv2d`` computed by convext.

    Being a subclass, it shares ``nn.Conv2d``'s parameters, initialisation, state dicts, hooks and ``repr``. It also
    takes a plain image.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: an int or ``(height, width)``, in pixels.
        stride, dilation, groups, bias, padding_mode, device, dtype: as in ``torch.nn.Conv2d``.
        padding: as in `convext.conv2d`, which also takes ``((top, bottom), (left, right))``, and ``"same"``
            together with a stride.
        kernal_size: how the textbook chapter spells ``kernel_size``.

    Shape:
        ``(N, C, H, W)`` to ``(N, O, H', W')``; ``(C, H, W)`` to ``(O, H', W')``; with ``in_channels=1`` also
        ``(H, W)`` to ``(H', W')``, or to ``(O, H', W')`` where ``out_channels`` is more than 1.

    Example:
        >>> import torch, convext
        >>> layer = convext.Conv2D(kernel_size=(1, 2))
        >>> layer(torch.ones(6, 8)).shape
        torch.Size([6, 7])
        >>> convext.Conv2D(3, 16, 3, padding="same")(torch.ones(2, 3, 32, 32)).shape
        torch.Size([2, 16, 32, 32])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        kernel_size: Any = None,
        stride: Any = 1,
        padding: Padding = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        kernal_size: Any = None,
    ) -> None:
        if (kernel_size is None) == (kernal_size is None):
            raise TypeError("Conv2D(): kernel_size must be given, once, as an int or (height, width)")
        kernel_size = kernal_size if kernel_size is None else kernel_size
        # nn.Conv2d refuses "same" with a stride; the argument is checked by conv2d instead.
        is_strided_same = padding == "same" and stride not in (1, (1, 1))
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            "valid" if is_strided_same else padding,  # type: ignore[arg-type]
            dilation,
            groups,
            bias,
            padding_mode,  # type: ignore[arg-type]
            device,
            dtype,
        )
        if is_strided_same:
            self.padding = "same"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.dim() == 2 and self.in_channels == 1:
            output = self._conv_forward(input.unsqueeze(0), self.weight, self.bias)
            return output.squeeze(0) if self.out_channels == 1 else output
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return conv2d(
            input,
            weight,
            bias,
            self.stride,
            self.padding,  # type: ignore[arg-type]
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
        )


def replace_conv2d(model: ModuleType) -> ModuleType:
    """Makes every ``nn.Conv2d`` in ``model`` a `Conv2D`, in place, and returns the model.

    Modules keep their identity: parameters, buffers, hooks, names and references from elsewhere stay as they are.
    Subclasses of ``nn.Conv2d`` are left alone, since they may compute something else.

    Example:
        >>> import convext
        >>> from torch import nn
        >>> convext.replace_conv2d(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
        Sequential(
          (0): Conv2D(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): ReLU()
        )
    """
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = Conv2D
    return model
