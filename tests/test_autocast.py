"""Under autocast, arguments are cast as those of `F.conv2d`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import convext

LOW = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("low", LOW, ids=str)
@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_casts_as_torch_does(
    low: torch.dtype, input_dtype: torch.dtype, weight_dtype: torch.dtype, device: str
) -> None:
    x, w, b = torch.randn(2, 3, 6, 7).to(input_dtype), torch.randn(4, 3, 3, 3).to(weight_dtype), torch.randn(4)
    there = [t.to(device) for t in (x, w, b)]
    with torch.autocast(device, low):
        ours, theirs = convext.conv2d(*there, padding=1), F.conv2d(*there, padding=1)
    assert ours.dtype == theirs.dtype == low
    # Compared with the exact result of what autocast makes of the arguments: where terms cancel, two results that are
    # both within the bound may be far apart for their size.
    cast = [t.to(low).double() for t in (x, w, b)]
    exact = F.conv2d(*cast, padding=1)
    size = F.conv2d(*(t.abs() for t in cast), padding=1)
    finfo = torch.finfo(low)
    bound = 8 * torch.finfo(torch.float32).eps * size + finfo.eps / 2 * exact.abs() + finfo.smallest_normal * finfo.eps
    assert ((ours.cpu().double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("low", LOW, ids=str)
def test_gradients_have_the_dtype_of_the_parameters(low: torch.dtype, device: str) -> None:
    x = torch.randn(2, 3, 6, 7).to(device)
    ours = convext.Conv2D(3, 4, 3).to(device)
    theirs = torch.nn.Conv2d(3, 4, 3).to(device)
    theirs.load_state_dict(ours.state_dict())
    for layer in (ours, theirs):
        with torch.autocast(device, low):
            output = layer(x)
            assert output.dtype == low
            loss = output.float().square().sum()
        loss.backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad.dtype == torch.float32
        torch.testing.assert_close(mine.grad, other.grad, rtol=0.05, atol=0.05 * other.grad.abs().max().item())


def test_float64_is_left_alone(device: str) -> None:
    x, w = (
        torch.randn(1, 1, 5, 5, dtype=torch.float64, device=device),
        torch.randn(1, 1, 3, 3, dtype=torch.float64, device=device),
    )
    with torch.autocast(device, torch.bfloat16):
        assert convext.conv2d(x, w).dtype == F.conv2d(x, w).dtype == torch.float64


def test_integers_are_left_alone(device: str) -> None:
    x, w = (
        torch.ones(1, 1, 5, 5, dtype=torch.int32, device=device),
        torch.ones(1, 1, 3, 3, dtype=torch.int32, device=device),
    )
    with torch.autocast(device, torch.bfloat16):
        assert convext.conv2d(x, w).dtype == torch.int32


def test_off_and_nested(device: str) -> None:
    x, w = torch.randn(1, 1, 5, 5, device=device), torch.randn(1, 1, 3, 3, device=device)
    with torch.autocast(device, torch.bfloat16):
        with torch.autocast(device, enabled=False):
            assert convext.conv2d(x, w).dtype == torch.float32
        with torch.autocast(device, torch.float16):
            assert convext.conv2d(x, w).dtype == torch.float16
        assert convext.conv2d(x, w).dtype == torch.bfloat16
    assert convext.conv2d(x, w).dtype == torch.float32
    with torch.autocast(device, torch.bfloat16, enabled=False):
        assert convext.conv2d(x, w).dtype == torch.float32


@pytest.mark.parametrize("call", [convext.corr2d, convext.convolve2d])
def test_the_textbook_functions_follow(call: object, device: str) -> None:
    with torch.autocast(device, torch.bfloat16):
        assert call(torch.randn(5, 5, device=device), torch.randn(2, 2, device=device)).dtype == torch.bfloat16


def test_second_derivative_under_autocast(device: str) -> None:
    x, w = (torch.randn(1, 1, size, size, device=device, requires_grad=True) for size in (5, 3))
    with torch.autocast(device, torch.bfloat16):
        output = convext.conv2d(x, w).square().sum()
        (first,) = torch.autograd.grad(output, x, create_graph=True)
        (second,) = torch.autograd.grad(first.float().square().sum(), w)
    assert first.dtype == second.dtype == torch.float32
    assert second.isfinite().all()


def test_compiled_under_autocast(device: str) -> None:
    layer = convext.Conv2D(1, 2, 3, device=device)
    x = torch.ones(1, 1, 5, 5, device=device)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.autocast(device, torch.bfloat16):
        actual, wanted = compiled(x), layer(x)
    assert actual.dtype == wanted.dtype == torch.bfloat16
    assert torch.equal(actual, wanted)


def test_the_cache_of_casts_does_not_outlive_the_block(device: str) -> None:
    """A weight changed in place between two blocks is cast anew."""
    x, w = torch.ones(1, 1, 3, 3, device=device), torch.nn.Parameter(torch.ones(1, 1, 3, 3, device=device))
    for scale in (1, 2, 3):
        w.data.fill_(scale)
        with torch.autocast(device, torch.bfloat16):
            assert convext.conv2d(x, w).item() == 9 * scale
