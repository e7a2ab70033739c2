"""Results of 8 MiB and more are written past the caches, by stores that take aligned vectors only. Sums of small
integers are exact, so every number must be the same as torch's, whichever way it was written."""

import pytest
import torch
import torch.nn.functional as F

import convext

# input size, out_channels, kernel_size, arguments; the sizes of planes and pixels are multiples of a vector or not
LARGE = [
    ((1, 1, 184, 192), 64, (3, 3), {"padding": 1}),
    ((1, 1, 189, 187), 64, (3, 3), {"padding": (0, 1)}),
    ((1, 1, 184, 200), 64, (3, 3), {"padding": 1}),  # every other row begins in the middle of a line of the cache
    ((1, 32, 184, 200), 64, (3, 3), {"padding": 1}),
    ((1, 64, 184, 200), 64, (3, 3), {"padding": 1, "groups": 64}),
    ((1, 8, 184, 200), 64, (1, 3), {"padding": (0, 1)}),
    ((1, 3, 224, 224), 64, (3, 3), {"padding": 1}),
    ((2, 3, 521, 519), 32, (3, 3), {"stride": 2}),
    ((1, 16, 160, 160), 96, (1, 1), {}),
    ((1, 16, 151, 153), 96, (1, 1), {}),
    ((2, 40, 112, 112), 96, (1, 1), {}),
    ((1, 24, 232, 228), 48, (1, 1), {}),
    ((2, 64, 56, 56), 340, (2, 2), {}),
    ((1, 32, 264, 256), 32, (3, 3), {"padding": 1}),
    ((1, 36, 256, 256), 36, (3, 3), {"padding": 1, "groups": 36}),
    ((1, 64, 192, 192), 64, (3, 3), {"padding": 1, "groups": 8}),
    ((1, 1, 1500, 1456), 1, (3, 3), {"padding": 1}),
    ((1, 3, 900, 800), 3, (5, 5), {"padding": 2, "groups": 3}),
    ((1, 60, 400, 100), 30, (3, 3), {"padding": 1, "stride": 2}),
]


def integers(*size: int, dtype: torch.dtype, layout: torch.memory_format) -> torch.Tensor:
    values = torch.randint(-2, 3, size).to(dtype)
    return torch.empty(size, dtype=dtype, memory_format=layout).copy_(values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("input_size", "out_channels", "kernel_size", "arguments"), LARGE, ids=lambda v: str(v).replace(" ", "")
)
def test_large_results_are_exact(input_size, out_channels, kernel_size, arguments, layout, dtype):
    groups = arguments.get("groups", 1)
    weight_size = (out_channels, input_size[1] // groups, *kernel_size)
    x = integers(*input_size, dtype=dtype, layout=layout).requires_grad_()
    w = integers(*weight_size, dtype=dtype, layout=layout)
    bias = torch.randint(-2, 3, (out_channels,)).to(dtype)
    y = convext.conv2d(x, w, bias, **arguments)
    wanted = F.conv2d(x, w, bias, **arguments)
    assert torch.equal(y, wanted)
    gradient = integers(*y.shape, dtype=dtype, layout=layout)
    (grad_input,) = torch.autograd.grad(y, x, gradient)
    (wanted_grad,) = torch.autograd.grad(wanted, x, gradient)
    assert torch.equal(grad_input, wanted_grad)
