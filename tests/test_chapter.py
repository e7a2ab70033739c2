"""The textbook chapter's code, as it is printed there, with the names imported from convext."""

from __future__ import annotations

import pytest
import torch

import convext
from convext import Conv2D
from convext import corr2d as corr2D


def edge_image() -> torch.Tensor:
    X = torch.ones(6, 8)
    X[:, 2:6] = 0
    return X


def test_cross_correlation_of_integers() -> None:
    X = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    Y = torch.tensor([[0, 1], [2, 3]])
    assert corr2D(X, Y).tolist() == [[19, 25], [37, 43]]
    assert corr2D(X.float(), Y.float()).tolist() == [[19.0, 25.0], [37.0, 43.0]]


def test_edges_of_a_float_image_with_an_integer_kernel() -> None:
    K = torch.tensor([[1, -1]])
    Y = corr2D(edge_image(), K)
    assert Y.dtype == torch.float32
    assert Y.tolist() == [[0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0]] * 6
    assert corr2D(edge_image().t(), K).abs().max() == 0  # a kernel for vertical edges sees no horizontal ones


def test_the_layer_built_by_hand() -> None:
    class ChaptersLayer(torch.nn.Module):
        def __init__(self, kernal_size: tuple[int, int]) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(kernal_size))
            self.bias = torch.nn.Parameter(torch.randn(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return corr2D(x, self.weight) + self.bias

    layer = ChaptersLayer(kernal_size=(1, 2))
    train(layer, edge_image(), corr2D(edge_image(), torch.tensor([[1, -1]])), 320)
    assert layer.weight.detach().flatten().tolist() == pytest.approx([1, -1], abs=0.01)


def train(conv2d: torch.nn.Module, X: torch.Tensor, Y: torch.Tensor, step: int) -> float:
    """The chapter's loop. It writes through ``.data``, which no version counter notices."""
    lr = 0.01
    for _ in range(step):
        Y_hat = conv2d(X)
        loss = ((Y_hat - Y) ** 2).sum()
        loss.backward()

        conv2d.weight.data -= lr * conv2d.weight.grad
        conv2d.bias.data -= lr * conv2d.bias.grad

        conv2d.weight.grad.fill_(0)
        conv2d.bias.grad.fill_(0)
    return loss.item()


@pytest.mark.parametrize("keyword", ["kernel_size", "kernal_size"])  # the chapter writes the second
@pytest.mark.parametrize("seed", range(10))
def test_learning_the_kernel_from_data(seed: int, keyword: str) -> None:
    torch.manual_seed(seed)
    X = edge_image()
    Y = corr2D(X, torch.tensor([[1, -1]]))
    conv2d = Conv2D(**{keyword: (1, 2)})
    assert train(conv2d, X, Y, 20) < 2
    train(conv2d, X, Y, 300)
    assert conv2d.weight.detach().flatten().tolist() == pytest.approx([1, -1], abs=0.01)
    assert conv2d.bias.item() == pytest.approx(0, abs=0.01)


def test_learning_takes_the_steps_that_torch_takes() -> None:
    X = edge_image()
    Y = corr2D(X, torch.tensor([[1, -1]]))
    ours = Conv2D(kernel_size=(1, 2)).double()
    theirs = torch.nn.Conv2d(1, 1, (1, 2)).double()
    theirs.load_state_dict(ours.state_dict())
    train(ours, X.double(), Y.double(), 20)
    train(for_plain_images(theirs), X.double(), Y.double(), 20)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-12, atol=1e-12)


def for_plain_images(layer: torch.nn.Conv2d) -> torch.nn.Module:
    """`nn.Conv2d` does not take an image without channels; this wraps it so that it does."""

    class TakesPlainImages(torch.nn.Module):
        weight, bias = layer.weight, layer.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return layer(x[None, None])[0, 0]

    return TakesPlainImages()


def test_convolution_is_correlation_with_the_kernel_flipped() -> None:
    X = torch.arange(12.0).reshape(3, 4)
    K = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert torch.equal(convext.convolve2d(X, K), corr2D(X, K.flip(0, 1)))
    assert convext.convolve2d(X, K)[0, 0] == 5 * 0 + 3 * 1 + 2 * 4 + 1 * 5


def test_a_layer_learns_the_flipped_kernel_and_predicts_the_same() -> None:
    X = torch.randn(8, 9, dtype=torch.float64)
    K = torch.randn(2, 3, dtype=torch.float64)
    assert torch.equal(convext.convolve2d(X, K.flip(0, 1)), corr2D(X, K))


def test_a_feature_map_for_each_output_channel() -> None:
    assert Conv2D(out_channels=3, kernel_size=2)(torch.ones(5, 5)).shape == (3, 4, 4)
    assert Conv2D(kernel_size=2)(torch.ones(5, 5)).shape == (4, 4)


def test_plain_and_batched_images_agree() -> None:
    layer = Conv2D(kernel_size=(3, 2), padding=1)
    X = torch.randn(6, 8)
    assert torch.equal(layer(X), layer(X[None])[0])
    assert torch.equal(layer(X), layer(X[None, None])[0, 0])
