"""The whole package once more, in plain Python that can be read in ten minutes.

Everything that convext's kernels compute is computed here by loops over the output positions: slide a window
over the image, multiply it with the kernel, add up. It is slow, and it is what the kernels are tested against.

Letters used throughout, as in PyTorch's documentation:

==============  ==========================================================
``N``           images in the batch
``C``, ``O``    channels of the input, channels of the output
``H``, ``W``    height and width of the input
``h``, ``w``    height and width of the kernel
``H'``, ``W'``  height and width of the output
``G``           groups: group number g of the ``O / G`` output channels sees only
                group number g of the ``C / G`` input channels
==============  ==========================================================

Nothing here needs a compiler, and every function takes every dtype: floating point, complex, and integers
(which wrap around where they overflow, as they do in PyTorch).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["conv2d", "corr2d", "grad_bias", "grad_input", "grad_weight", "pad"]

IntOrPair = int | Sequence[int]
PaddingArgument = int | str | Sequence[int] | Sequence[Sequence[int]]


def corr2d(X: Tensor, K: Tensor) -> Tensor:
    """The cross-correlation of one image with one kernel: the textbook's function.

    Args:
        X: the image, ``(H, W)``.
        K: the kernel, ``(h, w)``.

    Returns:
        ``(H - h + 1, W - w + 1)``: at every position of the window, the sum of the products of the window's
        elements with the kernel's.

    >>> X = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    >>> K = torch.tensor([[0, 1], [2, 3]])
    >>> corr2d(X, K)
    tensor([[19, 25],
            [37, 43]])

    A kernel that answers to vertical edges: 1 where the image goes from light to dark, -1 where it goes back.

    >>> X = torch.ones(2, 8)
    >>> X[:, 2:6] = 0
    >>> corr2d(X, torch.tensor([[1, -1]]))
    tensor([[ 0.,  1.,  0.,  0.,  0., -1.,  0.],
            [ 0.,  1.,  0.,  0.,  0., -1.,  0.]])
    """
    h, w = K.shape
    Y = X.new_zeros((X.shape[0] - h + 1, X.shape[1] - w + 1), dtype=torch.result_type(X, K))
    for i in range(Y.shape[0]):
        for j in range(Y.shape[1]):
            Y[i, j] = (X[i : i + h, j : j + w] * K).sum()
    return Y


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: PaddingArgument = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
) -> Tensor:
    """What ``torch.nn.functional.conv2d`` computes: :func:`corr2d` with channels, batches and options.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``.
        weight: ``(O, C / G, h, w)``.
        bias: ``(O,)`` or nothing.
        stride: by how many pixels the window moves from one output to the next; one number or (down, right).
        padding: rows and columns added around the image: a number, (vertical, horizontal),
            ``((top, bottom), (left, right))``, ``"valid"`` for none, or ``"same"`` for as many as make the
            output as large as the input (divided by the stride, rounded up).
        dilation: the distance between the pixels that neighbouring elements of the kernel meet.
        groups: G.
        padding_mode: what the added rows and columns hold: see :func:`pad`.

    Returns:
        ``(N, O, H', W')``, or ``(O, H', W')`` for an input without a batch, where
        ``H' = (H + top + bottom - dilation * (h - 1) - 1) // stride + 1``, and ``W'`` likewise.

    >>> image = torch.arange(1, 10).reshape(1, 1, 3, 3)
    >>> kernel = torch.ones(1, 1, 2, 2, dtype=torch.int64)
    >>> conv2d(image, kernel)
    tensor([[[[12, 16],
              [24, 28]]]])

    Every second window, over an image with a frame of zeros:

    >>> conv2d(image, kernel, stride=2, padding=1)
    tensor([[[[ 1,  5],
              [11, 28]]]])
    """
    if input.dim() == 3:
        batch = input.unsqueeze(0)
        return conv2d(batch, weight, bias, stride, padding, dilation, groups, padding_mode=padding_mode).squeeze(0)

    windows = _Windows.of(input.shape, weight.shape, stride, padding, dilation)
    padded = _wide(pad(input, windows.padding, padding_mode))
    wide_weight = _wide(weight)
    output = padded.new_zeros(input.shape[0], weight.shape[0], windows.rows, windows.columns)
    for group in _groups(input.shape[1], weight.shape[0], groups):
        kernels = wide_weight[group.out_channels].unsqueeze(0)  # (1, O / G, C / G, h, w)
        for y, x, window in windows:
            seen = padded[:, group.in_channels, window[0], window[1]].unsqueeze(1)  # (N, 1, C / G, h, w)
            output[:, group.out_channels, y, x] = (seen * kernels).sum(dim=(2, 3, 4))
    if bias is not None:
        output = output + _wide(bias).reshape(1, -1, 1, 1)
    return output.to(input.dtype)


def grad_input(
    grad_output: Tensor,
    weight: Tensor,
    input_size: Sequence[int],
    stride: IntOrPair = 1,
    padding: PaddingArgument = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
) -> Tensor:
    """How the loss changes with the input of :func:`conv2d`, given how it changes with the output.

    An output is a sum of pixels times weights, so its gradient flows back to each pixel of its window times
    the weight that this pixel was multiplied with. A pixel collects from all the windows that cover it.

    Args:
        grad_output: gradient of the loss with respect to the output, ``(N, O, H', W')`` or ``(O, H', W')``.
        weight: ``(O, C / G, h, w)``.
        input_size: the shape of the input, or only its ``(H, W)``: the rest follows from the other two.

    The other arguments are those of :func:`conv2d`.

    Returns:
        The gradient with respect to the input, ``(N, C, H, W)`` or ``(C, H, W)``.

    How many windows cover each pixel of a 3x3 image when the kernel is 2x2:

    >>> grad_input(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), (1, 1, 3, 3))
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])
    """
    if grad_output.dim() == 3:
        batch = grad_output.unsqueeze(0)
        return grad_input(
            batch, weight, input_size, stride, padding, dilation, groups, padding_mode=padding_mode
        ).squeeze(0)

    N, C = grad_output.shape[0], weight.shape[1] * groups
    H, W = input_size[-2:]
    windows = _Windows.of(input_size, weight.shape, stride, padding, dilation)
    (top, bottom), (left, right) = windows.padding
    wide_grad = _wide(grad_output)
    wide_weight = _wide(weight).conj()  # for real numbers conj() does nothing
    grad_padded = wide_grad.new_zeros(N, C, H + top + bottom, W + left + right)
    for group in _groups(C, weight.shape[0], groups):
        kernels = wide_weight[group.out_channels].unsqueeze(0)  # (1, O / G, C / G, h, w)
        for y, x, window in windows:
            arriving = wide_grad[:, group.out_channels, y, x, None, None, None]  # (N, O / G, 1, 1, 1)
            grad_padded[:, group.in_channels, window[0], window[1]] += (arriving * kernels).sum(dim=1)

    # A pixel that fills a place in the padding is read there too. (Zeros are read from no pixel.)
    grad = wide_grad.new_zeros(N, C, H, W)
    for row, source_row in enumerate(_sources(H, top, bottom, padding_mode)):
        for column, source_column in enumerate(_sources(W, left, right, padding_mode)):
            if source_row is not None and source_column is not None:
                grad[:, :, source_row, source_column] += grad_padded[:, :, row, column]
    return grad.to(grad_output.dtype)


def grad_weight(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: PaddingArgument = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
) -> Tensor:
    """How the loss changes with the weight of :func:`conv2d`, given how it changes with the output.

    The same kernel is used at every position, so its gradient is a sum over all of them: at each, the window's
    pixels times the gradient of the output there.

    Args:
        grad_output: gradient of the loss with respect to the output, ``(N, O, H', W')`` or ``(O, H', W')``.
        input: ``(N, C, H, W)`` or ``(C, H, W)``.
        kernel_size: ``(h, w)``, or one number for a square kernel.

    The other arguments are those of :func:`conv2d`.

    Returns:
        The gradient with respect to the weight, ``(O, C / G, h, w)``.

    >>> image = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    >>> grad_weight(torch.ones(1, 1, 2, 2), image, (2, 2))
    tensor([[[[12., 16.],
              [24., 28.]]]])
    """
    if input.dim() == 3:
        return grad_weight(
            grad_output.unsqueeze(0),
            input.unsqueeze(0),
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            padding_mode=padding_mode,
        )

    in_channels, out_channels = input.shape[1], grad_output.shape[1]
    h, w = _pair(kernel_size)
    windows = _Windows.of(input.shape, (h, w), stride, padding, dilation)
    padded = _wide(pad(input, windows.padding, padding_mode)).conj()  # for real numbers conj() does nothing
    wide_grad = _wide(grad_output)
    grad = wide_grad.new_zeros(out_channels, in_channels // groups, h, w)
    for group in _groups(in_channels, out_channels, groups):
        for y, x, window in windows:
            seen = padded[:, group.in_channels, window[0], window[1]].unsqueeze(1)  # (N, 1, C / G, h, w)
            arriving = wide_grad[:, group.out_channels, y, x, None, None, None]  # (N, O / G, 1, 1, 1)
            grad[group.out_channels] += (arriving * seen).sum(dim=0)
    return grad.to(grad_output.dtype)


def grad_bias(grad_output: Tensor) -> Tensor:
    """How the loss changes with the bias of :func:`conv2d`, given how it changes with the output.

    A channel's bias is added to every pixel of that channel, so its gradient is the sum over all of them.

    Args:
        grad_output: gradient of the loss with respect to the output, ``(N, O, H', W')`` or ``(O, H', W')``.

    Returns:
        The gradient with respect to the bias, ``(O,)``.

    >>> grad_bias(torch.ones(2, 3, 4, 5))
    tensor([40., 40., 40.])
    """
    wide_grad = _wide(grad_output)
    out_channels, rows, columns = grad_output.shape[-3:]
    grad = wide_grad.new_zeros(out_channels)
    for y in range(rows):
        for x in range(columns):
            grad += wide_grad[..., y, x].reshape(-1, out_channels).sum(dim=0)
    return grad.to(grad_output.dtype)


def pad(input: Tensor, padding: Sequence[Sequence[int]], mode: str = "zeros") -> Tensor:
    """The image with rows and columns added around it.

    Args:
        input: ``(..., H, W)``.
        padding: ``((top, bottom), (left, right))``.
        mode: what the added places hold. ``"zeros"``; ``"reflect"``: the image mirrored at its border pixels;
            ``"replicate"``: the nearest border pixel; ``"circular"``: the image over again.

    Returns:
        ``(..., H + top + bottom, W + left + right)``.

    >>> image = torch.tensor([[1, 2, 3]])
    >>> pad(image, ((0, 0), (2, 2)), "zeros")
    tensor([[0, 0, 1, 2, 3, 0, 0]])
    >>> pad(image, ((0, 0), (2, 2)), "reflect")
    tensor([[3, 2, 1, 2, 3, 2, 1]])
    >>> pad(image, ((0, 0), (2, 2)), "replicate")
    tensor([[1, 1, 1, 2, 3, 3, 3]])
    >>> pad(image, ((0, 0), (2, 2)), "circular")
    tensor([[2, 3, 1, 2, 3, 1, 2]])
    """
    (top, bottom), (left, right) = padding
    H, W = input.shape[-2:]
    taller = input.new_zeros(*input.shape[:-2], H + top + bottom, W)
    for row, source in enumerate(_sources(H, top, bottom, mode)):
        if source is not None:
            taller[..., row, :] = input[..., source, :]
    padded = input.new_zeros(*taller.shape[:-1], W + left + right)
    for column, source in enumerate(_sources(W, left, right, mode)):
        if source is not None:
            padded[..., column] = taller[..., source]
    return padded


@dataclass(frozen=True)
class _Windows:
    """All positions of the kernel's window on the padded image, in reading order."""

    rows: int  # H'
    columns: int  # W'
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]

    @staticmethod
    def of(
        input_size: Sequence[int],
        kernel_size: Sequence[int],
        stride: IntOrPair,
        padding: PaddingArgument,
        dilation: IntOrPair,
    ) -> _Windows:
        size, kernel = _pair(input_size[-2:]), _pair(kernel_size[-2:])
        strides, dilations = _pair(stride), _pair(dilation)
        sides = _four_sides(padding, size, kernel, strides, dilations)
        rows, columns = (
            (size[axis] + sum(sides[axis]) - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
            for axis in (0, 1)
        )
        if rows < 1 or columns < 1:
            raise ValueError(f"a kernel of {kernel} does not fit into an image of {size} with padding {sides}")
        return _Windows(rows, columns, kernel, strides, dilations, sides)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
        """Yields (y, x, (rows, columns)): an output position and the part of the padded image it sees."""
        for y in range(self.rows):
            for x in range(self.columns):
                yield y, x, (self._span(0, y), self._span(1, x))

    def _span(self, axis: int, position: int) -> slice:
        start = position * self.stride[axis]
        stop = start + self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        return slice(start, stop, self.dilation[axis])


@dataclass(frozen=True)
class _Group:
    in_channels: slice
    out_channels: slice


def _groups(in_channels: int, out_channels: int, groups: int) -> list[_Group]:
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"{in_channels} input and {out_channels} output channels cannot be split into {groups} groups")
    ins, outs = in_channels // groups, out_channels // groups
    return [_Group(slice(g * ins, (g + 1) * ins), slice(g * outs, (g + 1) * outs)) for g in range(groups)]


def _sources(size: int, before: int, after: int, mode: str) -> list[int | None]:
    """The index that each place of a padded axis is filled from; None where it is zero.

    >>> _sources(3, 2, 1, "reflect")
    [2, 1, 0, 1, 2, 1]
    """

    def source(position: int) -> int | None:
        if 0 <= position < size:
            return position
        if mode == "zeros":
            return None
        if mode == "reflect":
            return -position if position < 0 else 2 * (size - 1) - position
        if mode == "replicate":
            return 0 if position < 0 else size - 1
        if mode == "circular":
            return position + size if position < 0 else position - size
        raise ValueError(f"padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', got {mode!r}")

    return [source(position) for position in range(-before, size + after)]


def _four_sides(
    padding: PaddingArgument,
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Any way of writing the padding, as ((top, bottom), (left, right)).

    >>> _four_sides("same", (5, 5), (3, 4), (1, 1), (1, 1))
    ((1, 1), (1, 2))
    """
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        totals = (max(0, dilation[a] * (kernel_size[a] - 1) - (size[a] - 1) % stride[a]) for a in (0, 1))
        vertical, horizontal = ((total // 2, total - total // 2) for total in totals)
        return vertical, horizontal
    if isinstance(padding, str):
        raise ValueError(f"padding must be a number, a pair, 'valid' or 'same', got {padding!r}")
    if isinstance(padding, int) or isinstance(padding[0], int):
        vertical_padding, horizontal_padding = _pair(padding)  # type: ignore[arg-type]
        return (vertical_padding, vertical_padding), (horizontal_padding, horizontal_padding)
    (top, bottom), (left, right) = padding  # type: ignore[misc]
    return (top, bottom), (left, right)


def _pair(value: IntOrPair) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value if len(value) == 2 else (*value, *value)
    return first, second


def _wide(tensor: Tensor) -> Tensor:
    """16-bit floats are added up in 32 bits; a sum of a thousand terms would otherwise drop most of them."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
