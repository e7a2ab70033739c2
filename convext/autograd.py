"""Derivatives of the operators, each written once.

Cross-correlation is linear in the input and in the weight, and so are both its gradients. Writing C(x, w) for
the forward pass, I(g, w) for the gradient of the input and W(g, x) for that of the weight, the derivative of
each is made of the other two::

    C(x, w):  for g like the output,  to x: I(g, w)   to w: W(g, x)
    I(g, w):  for h like the input,   to g: C(h, w)   to w: W(g, h)
    W(g, x):  for h like the weight,  to g: C(x, h)   to x: I(g, h)

That is all that first, second and higher derivatives, forward mode and ``vmap`` need. Three callers share it:
eager autograd and ``torch.func`` transforms by way of the `Function` classes, and ``torch.compile`` and
``torch.export`` by way of the operators themselves, to which the same ``backward`` methods are registered
(Dynamo refuses a `Function` that defines ``jvp``, and ``jacrev`` refuses a registered one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.autograd.function import Function

from convext import ops
from convext._direct import module_for
from convext._forward_mode import Tensors, is_innermost_transform, product_rule, split_and_call
from convext._geometry import DEFAULT_GEOMETRY, Geometry, operator_arguments

_transform_is_active = torch._C._functorch.peek_interpreter_stack
_is_compiling = torch.compiler.is_compiling
_jit_tracing_state = torch._C._get_tracing_state
_is_grad_enabled = torch.is_grad_enabled
_BelowAutograd = torch._C._AutoDispatchBelowAutograd


def _run(operator: Any, *arguments: Any) -> torch.Tensor:
    """Calls an operator past autograd, which costs microseconds less than going through it."""
    guard = _BelowAutograd()
    try:
        return operator._op(*arguments)
    finally:
        del guard  # at once: a traceback would keep it, and with it autograd off, for as long as it lives


def _may_need_derivative(tensors: tuple[torch.Tensor | None, ...]) -> bool:
    if forward_ad._current_level >= 0:
        return True
    if _is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def _transform(
    function: type[_Shortcut], operator: Any, tensors: tuple[Any, ...], settings: tuple[Any, ...]
) -> torch.Tensor:
    """Runs an operator under a `torch.func` transform."""
    if not is_innermost_transform():
        return function.apply(*tensors, *settings)

    def call(*tensors: Any) -> torch.Tensor:
        return _dispatch(function, operator, tensors, settings)

    return split_and_call(call, function.tangent, tensors)


def _dispatch(
    function: type[_Shortcut], operator: Any, tensors: tuple[Any, ...], settings: tuple[Any, ...]
) -> torch.Tensor:
    """Runs an operator by the cheapest way that gives the derivatives somebody may ask for."""
    if _is_compiling():
        return operator(*tensors, *settings)
    if _transform_is_active() is not None:
        return _transform(function, operator, tensors, settings)
    if _may_need_derivative(tensors):
        return function.short_apply(*tensors, *settings)
    return _run(operator, *tensors, *settings)


def corr2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """C(x, w) + bias, differentiable."""
    # `_dispatch` unrolled: on a small image these microseconds are most of the time.
    if geometry is DEFAULT_GEOMETRY and out_dtype is None:
        settings: tuple[Any, ...] = ()
    else:
        settings = operator_arguments(geometry) if out_dtype is None else (*geometry, out_dtype)
    if _is_compiling() or _jit_tracing_state() is not None:  # both record the operator, not the Function
        return ops.corr2d(input, weight, bias, *settings)
    if _transform_is_active() is not None:
        return _transform(CrossCorrelation2d, ops.corr2d, (input, weight, bias), settings)
    if (
        _is_grad_enabled()
        and (weight.requires_grad or input.requires_grad or (bias is not None and bias.requires_grad))
    ) or forward_ad._current_level >= 0:
        return CrossCorrelation2d.short_apply(input, weight, bias, *settings)
    native = module_for(input)
    if native is not None:
        output = native.direct_corr2d(input, weight, bias, settings)
        if output is not None:
            return output
    return _run(ops.corr2d, input, weight, bias, *settings)


def corr2d_grad_input(
    grad_output: torch.Tensor,
    weight: torch.Tensor,
    input_size: Sequence[int],
    geometry: Geometry,
    channels_last: bool,
) -> torch.Tensor:
    """I(g, w), differentiable."""
    settings = (tuple(input_size), *_gradient_arguments(geometry, channels_last))
    return _dispatch(GradInput, ops.corr2d_grad_input, (grad_output, weight), settings)


def corr2d_grad_weight(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    kernel_size: Sequence[int],
    geometry: Geometry,
    channels_last: bool,
) -> torch.Tensor:
    """W(g, x), differentiable."""
    settings = (tuple(kernel_size), *_gradient_arguments(geometry, channels_last))
    return _dispatch(GradWeight, ops.corr2d_grad_weight, (grad_output, input), settings)


def corr2d_grad_bias(grad_output: torch.Tensor) -> torch.Tensor:
    """The sum over batch, rows and columns, differentiable."""
    return _dispatch(GradBias, ops.corr2d_grad_bias, (grad_output,), ())


def _gradient_arguments(geometry: Geometry, channels_last: bool) -> tuple[Any, ...]:
    return (*geometry, True) if channels_last else operator_arguments(geometry)


def _as_geometry(
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros"
) -> Geometry:
    """Geometry arguments in any form that an operator takes."""
    if isinstance(padding, int):
        padding = (padding,)
    top, bottom, left, right = ops._four_sides(padding)
    return Geometry(
        (stride, stride) if isinstance(stride, int) else (stride[0], stride[-1]),
        (top, bottom, left, right),
        (dilation, dilation) if isinstance(dilation, int) else (dilation[0], dilation[-1]),
        groups,
        padding_mode,
    )


def _split_gradient_settings(settings: Sequence[Any]) -> tuple[Geometry, bool]:
    """What follows the size among a gradient operator's arguments: the geometry, and channels_last."""
    return _as_geometry(*settings[:5]), len(settings) > 5 and settings[5]


def _batch_first(tensor: torch.Tensor, dim: int | None, batch_size: int, rank: int) -> torch.Tensor:
    """The vmapped axis in front (expanded where there is none), then exactly `rank` axes."""
    tensor = tensor.expand(batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return tensor.unsqueeze(1) if tensor.dim() == rank else tensor


def _batch_into_channels(tensor: torch.Tensor) -> torch.Tensor:
    """(B, N, C, H, W) to (N, B * C, H, W): each member of the vmapped batch becomes groups of its own."""
    return tensor.movedim(0, 1).flatten(1, 2)


def _with_groups(geometry: Geometry, groups: int) -> Geometry:
    return geometry._replace(groups=groups)


class _Shortcut(Function):
    """Adds ``short_apply``: what ``apply`` does where no `torch.func` transform is active, less its binding of the
    signature with `inspect`, which takes longer than a small convolution."""

    short_apply: Callable[..., torch.Tensor]

    #: (call, tensors, tangents) -> the tangent of ``call(*tensors)``, or None where it is zero
    tangent = staticmethod(product_rule)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.short_apply = super(Function, cls).apply  # type: ignore[misc]  # torch's C++ one, bound to the class


class CrossCorrelation2d(_Shortcut):
    """The cross-correlation as a custom autograd function.

    ``CrossCorrelation2d.apply(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1,
    padding_mode="zeros", out_dtype=None)`` takes an ``input`` of shape ``(N, C, H, W)`` or ``(C, H, W)``, a
    ``weight`` of shape ``(O, C / groups, h, w)`` and a ``bias`` of shape ``(O,)``. ``padding`` is an int,
    ``(height, width)`` or ``(top, bottom, left, right)``. `convext.conv2d` takes more forms of the arguments
    and finds a shorter way where no gradient is needed.

    Example:
        >>> import torch, convext
        >>> image = torch.arange(9.0, dtype=torch.float64).reshape(1, 1, 3, 3).requires_grad_()
        >>> kernel = torch.arange(4.0, dtype=torch.float64).reshape(1, 1, 2, 2).requires_grad_()
        >>> convext.CrossCorrelation2d.apply(image, kernel).tolist()
        [[[[19.0, 25.0], [37.0, 43.0]]]]
        >>> torch.autograd.gradcheck(convext.CrossCorrelation2d.apply, (image, kernel))
        True
    """

    @staticmethod
    def forward(  # type: ignore[override]
        input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *settings: Any
    ) -> torch.Tensor:
        if settings:
            if any(isinstance(setting, int) for setting in settings[:3]):
                settings = (*_as_geometry(*settings[:5]), *settings[5:])
        native = module_for(input)
        if native is not None:
            output = native.direct_corr2d(input, weight, bias, settings)
            if output is not None:
                return output
        return _run(ops.corr2d, input, weight, bias, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[0], inputs[1])
        if forward_ad._current_level >= 0 or _transform_is_active() is not None:
            ctx.save_for_forward(inputs[0], inputs[1])
        ctx.settings = inputs[3:8]

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        input, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        native = module_for(input)
        if native is not None and not (_is_grad_enabled() or _transform_is_active() is not None or _is_compiling()):
            gradients = native.direct_gradients(grad_output, input, weight, ctx.settings, *needs[:3])
            if gradients is not None:
                return gradients if len(needs) == 3 else (*gradients, *[None] * (len(needs) - 3))
        geometry = _as_geometry(*ctx.settings) if ctx.settings else DEFAULT_GEOMETRY
        channels_last = ops.is_channels_last(input) or ops.is_channels_last(weight)
        grads: list[Any] = [None] * len(needs)
        if needs[0]:
            grads[0] = corr2d_grad_input(grad_output, weight, input.shape[-2:], geometry, channels_last)
        if needs[1]:
            grads[1] = corr2d_grad_weight(grad_output, input, weight.shape[-2:], geometry, channels_last)
        if len(needs) > 2 and needs[2]:
            grads[2] = corr2d_grad_bias(grad_output)
        return tuple(grads)

    @staticmethod
    def tangent(  # type: ignore[override]
        call: Callable[..., torch.Tensor], tensors: Tensors, tangents: Tensors
    ) -> torch.Tensor | None:
        """The product rule, with the bias's tangent as the bias of one of the terms."""
        (input, weight, _), (input_t, weight_t, bias_t) = tensors, tangents
        if input_t is None and weight_t is None:
            return None if bias_t is None else call(torch.zeros_like(input), weight, bias_t)  # type: ignore[arg-type]
        result = None if input_t is None else call(input_t, weight, bias_t)
        if weight_t is None:
            return result
        term = call(input, weight_t, bias_t if result is None else None)
        return term if result is None else result + term

    @staticmethod
    def jvp(ctx: Any, input_t: Any, weight_t: Any, bias_t: Any = None, *_: Any) -> Any:  # type: ignore[override]
        def call(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            return corr2d(input, weight, bias, _as_geometry(*ctx.settings))

        return CrossCorrelation2d.tangent(call, (*ctx.saved_tensors, None), (input_t, weight_t, bias_t))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[torch.Tensor, int]:
        input, weight, *rest = inputs
        bias = rest[0] if rest else None
        geometry = _as_geometry(*rest[1:6])
        out_dtype = rest[6] if len(rest) > 6 else None
        input_dim, weight_dim, bias_dim = (*in_dims[:3], None)[:3]
        batch, groups = info.batch_size, geometry.groups
        lacks_batch = input.dim() - (input_dim is not None) == 3

        if weight_dim is None:
            # One weight for all: the vmapped axis is more of the batch. A bias of each member's own is added after.
            images = _batch_first(input, input_dim, batch, 4) if input_dim is not None else input
            folded = images.flatten(0, 1) if input_dim is not None else images
            output = corr2d(folded, weight, bias if bias_dim is None else None, geometry, out_dtype)
            if input_dim is not None:
                output = output.unflatten(0, (batch, -1))
            elif lacks_batch:
                output = output.unsqueeze(0)
            if bias is not None and bias_dim is not None:
                output = output + bias.movedim(bias_dim, 0)[:, None, :, None, None]
                return (output.squeeze(1) if lacks_batch else output), 0
            if input_dim is None:
                output = output.expand(batch, *output.shape)
            return (output.squeeze(1) if lacks_batch else output), 0

        weights = weight.movedim(weight_dim, 0)  # (B, O, C / groups, h, w)
        biases = None
        if bias is not None:
            biases = bias.movedim(bias_dim, 0) if bias_dim is not None else bias.expand(batch, -1)
        if input_dim is None:
            # One input for all: more output channels of the same groups, in the order (group, member, channel).
            split = weights.unflatten(1, (groups, -1)).transpose(0, 1)
            if biases is not None:
                biases = biases.unflatten(1, (groups, -1)).transpose(0, 1).flatten()
            images = input.unsqueeze(0) if lacks_batch else input
            output = corr2d(images, split.flatten(0, 2), biases, geometry, out_dtype)
            output = output.unflatten(1, (groups, batch, -1)).movedim(2, 0).flatten(2, 3)
        else:
            images = _batch_into_channels(_batch_first(input, input_dim, batch, 4))
            biases = biases.flatten() if biases is not None else None
            wide = _with_groups(geometry, batch * groups)
            output = corr2d(images, weights.flatten(0, 1), biases, wide, out_dtype)
            output = output.unflatten(1, (batch, -1)).movedim(1, 0)
        return (output.squeeze(1) if lacks_batch else output), 0


class GradInput(_Shortcut):
    """I(g, w) as an autograd function; see the module's description."""

    @staticmethod
    def forward(grad_output: torch.Tensor, weight: torch.Tensor, *settings: Any) -> torch.Tensor:
        return _run(ops.corr2d_grad_input, grad_output, weight, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        grad_output, weight, _, *settings = inputs
        ctx.save_for_backward(grad_output, weight)
        ctx.save_for_forward(grad_output, weight)
        ctx.geometry, ctx.channels_last = _split_gradient_settings(settings)
        ctx.input_size = tuple(output.shape[-2:])

    @staticmethod
    def backward(ctx: Any, h: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        grad_output, weight = ctx.saved_tensors
        to_grad_output = to_weight = None
        if ctx.needs_input_grad[0]:
            to_grad_output = corr2d(h, weight, None, ctx.geometry)
        if ctx.needs_input_grad[1]:
            to_weight = corr2d_grad_weight(grad_output, h, weight.shape[-2:], ctx.geometry, ctx.channels_last)
        return (to_grad_output, to_weight, *[None] * (len(ctx.needs_input_grad) - 2))

    @staticmethod
    def jvp(ctx: Any, grad_output_t: Any, weight_t: Any, *_: Any) -> Any:  # type: ignore[override]
        def call(grad_output: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return corr2d_grad_input(grad_output, weight, ctx.input_size, ctx.geometry, ctx.channels_last)

        return product_rule(call, ctx.saved_tensors, (grad_output_t, weight_t))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[torch.Tensor, int]:
        grad_output, weight, input_size, *settings = inputs
        geometry, channels_last = _split_gradient_settings(settings)
        batch = info.batch_size
        lacks_batch = grad_output.dim() - (in_dims[0] is not None) == 3
        grads = _batch_first(grad_output, in_dims[0], batch, 4)
        if in_dims[1] is None:
            result = corr2d_grad_input(grads.flatten(0, 1), weight, input_size, geometry, channels_last)
            result = result.unflatten(0, (batch, -1))
        else:
            wide = _with_groups(geometry, batch * geometry.groups)
            weights = weight.movedim(in_dims[1], 0).flatten(0, 1)
            result = corr2d_grad_input(_batch_into_channels(grads), weights, input_size, wide, channels_last)
            result = result.unflatten(1, (batch, -1)).movedim(1, 0)
        return (result.squeeze(1) if lacks_batch else result), 0


class GradWeight(_Shortcut):
    """W(g, x) as an autograd function; see the module's description."""

    @staticmethod
    def forward(grad_output: torch.Tensor, input: torch.Tensor, *settings: Any) -> torch.Tensor:
        return _run(ops.corr2d_grad_weight, grad_output, input, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        grad_output, input, _, *settings = inputs
        ctx.save_for_backward(grad_output, input)
        ctx.save_for_forward(grad_output, input)
        ctx.geometry, ctx.channels_last = _split_gradient_settings(settings)
        ctx.kernel_size = tuple(output.shape[-2:])

    @staticmethod
    def backward(ctx: Any, h: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        grad_output, input = ctx.saved_tensors
        to_grad_output = to_input = None
        if ctx.needs_input_grad[0]:
            to_grad_output = corr2d(input, h, None, ctx.geometry)
        if ctx.needs_input_grad[1]:
            to_input = corr2d_grad_input(grad_output, h, input.shape[-2:], ctx.geometry, ctx.channels_last)
        return (to_grad_output, to_input, *[None] * (len(ctx.needs_input_grad) - 2))

    @staticmethod
    def jvp(ctx: Any, grad_output_t: Any, input_t: Any, *_: Any) -> Any:  # type: ignore[override]
        def call(grad_output: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
            return corr2d_grad_weight(grad_output, input, ctx.kernel_size, ctx.geometry, ctx.channels_last)

        return product_rule(call, ctx.saved_tensors, (grad_output_t, input_t))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[torch.Tensor, int]:
        grad_output, input, kernel_size, *settings = inputs
        geometry, channels_last = _split_gradient_settings(settings)
        batch, groups = info.batch_size, geometry.groups
        grads = _batch_first(grad_output, in_dims[0], batch, 4)
        if in_dims[1] is None:
            # One input for all: more output channels of the same groups, in the order (group, member, channel).
            split = grads.unflatten(2, (groups, -1)).movedim(0, 2).flatten(1, 3)
            images = input if input.dim() == 4 else input.unsqueeze(0)
            result = corr2d_grad_weight(split, images, kernel_size, geometry, channels_last)
            return result.unflatten(0, (groups, batch, -1)).movedim(1, 0).flatten(1, 2), 0
        images = _batch_into_channels(_batch_first(input, in_dims[1], batch, 4))
        wide = _with_groups(geometry, batch * groups)
        result = corr2d_grad_weight(_batch_into_channels(grads), images, kernel_size, wide, channels_last)
        return result.unflatten(0, (batch, -1)), 0


class GradBias(_Shortcut):
    """The bias gradient as an autograd function."""

    @staticmethod
    def forward(grad_output: torch.Tensor) -> torch.Tensor:
        return _run(ops.corr2d_grad_bias, grad_output)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.shape = tuple(inputs[0].shape)

    @staticmethod
    def backward(ctx: Any, h: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return h[:, None, None].expand(ctx.shape)

    @staticmethod
    def jvp(ctx: Any, grad_output_t: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return corr2d_grad_bias(grad_output_t)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], grad_output: torch.Tensor) -> tuple[torch.Tensor, int]:
        grads = _batch_into_channels(_batch_first(grad_output, in_dims[0], info.batch_size, 4))
        return corr2d_grad_bias(grads).unflatten(0, (info.batch_size, -1)), 0


for _name, _function in {
    "corr2d": CrossCorrelation2d,
    "corr2d_grad_input": GradInput,
    "corr2d_grad_weight": GradWeight,
    "corr2d_grad_bias": GradBias,
}.items():
    torch.library.register_autograd(f"convext::{_name}", _function.backward, setup_context=_function.setup_context)
    torch.library.register_vmap(f"convext::{_name}", _function.vmap)
