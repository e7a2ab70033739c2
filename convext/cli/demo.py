"""``python -m convext demo``: the textbook chapter, then the same on a real photograph."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

import convext
from convext.benchmark import shapes
from convext.benchmark.suite import Job
from convext.cli import bench

VERTICAL_EDGES = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])  # Sobel's filter


def run_demo(photo: Path | None, output: Path) -> int:
    """Runs the chapter and the photograph, writes pictures to ``output`` and prints where."""
    try:
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        print(f"the demo draws pictures and needs {error.name}: pip install matplotlib pillow", file=sys.stderr)
        return 1
    try:
        gray, source = load_photo(photo)
    except (OSError, ValueError) as error:
        print(f"the photo could not be read: {error}", file=sys.stderr)
        return 1
    torch.manual_seed(0)
    run_chapter()
    output.mkdir(parents=True, exist_ok=True)
    run_photo(gray, source, output)
    print("\nHow fast is it? Forward passes beside torch.nn.functional.conv2d:")
    bench.print_short_table(short_table((gray.shape[0], gray.shape[1])), seconds=0.15)
    print(f"\nThe pictures are in {output.resolve()}")
    return 0


#: Layers of the benchmark's files that the demo's speed table shows.
SPEED_TABLE = [
    ("images", "gray 7x7 at 1024"),
    ("images", "gray 31x31 at 512"),
    ("images", "dense colour 3x3 at 512"),
    ("resnet50", "conv1"),
    ("resnet50", "layer1 3x3"),
    ("convnext_t", "stage 1 depthwise 7x7"),
    ("mobilenetv2", "3 depthwise"),
]


def short_table(photo_size: tuple[int, int]) -> list[Job]:
    """The forward passes to time: a 3x3 filter on the photograph, and some layers of networks."""
    networks = shapes.networks()
    like = next(layer for layer in networks["images"] if layer.name == "gray 3x3 at 512")
    layers = [dataclasses.replace(like, network="demo", name="this photo, 3x3", size=photo_size)]
    layers += [layer for network, name in SPEED_TABLE for layer in networks[network] if layer.name == name]
    threads = torch.get_num_threads()
    return [Job(layer, 1, "f32", threads, "forward", ("contiguous",)) for layer in layers]


def run_chapter() -> None:
    """The examples of the chapter, in its order."""
    print("1. Cross-correlation: slide the kernel over the input, multiply, add.")
    X = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    K = torch.tensor([[0, 1], [2, 3]])
    print(f"   corr2d(X, K) = {convext.corr2d(X, K).tolist()}")

    print("2. Edge detection: the kernel [1, -1] is zero wherever neighbours are equal.")
    X = torch.ones(6, 8)
    X[:, 2:6] = 0
    K = torch.tensor([[1, -1]])
    Y = convext.corr2d(X, K)
    print(f"   first row of the image:    {[int(value) for value in X[0]]}")
    print(f"   first row of the edge map: {[int(value) for value in Y[0]]}")

    print("3. Learning the kernel from the image and its edge map by gradient descent.")
    layer = convext.Conv2D(kernel_size=(1, 2))
    loss = fit_by_gradient_descent(layer, X, Y, steps=20)
    print(f"   after 20 steps the loss is {loss:.3f}", end="")
    loss = fit_by_gradient_descent(layer, X, Y, steps=300)
    learned = [round(value, 3) for value in layer.weight.flatten().tolist()]
    print(f", after 300 more {loss:.1e}: kernel {learned}, bias {layer.bias.item():.3f}")  # type: ignore[union-attr]

    print("4. Convolution flips the kernel first; a learned layer learns the flipped kernel and computes the same.")
    flipped = convext.convolve2d(X, K.flip(0, 1))
    print(f"   convolve2d(X, flipped K) equals corr2d(X, K): {torch.equal(flipped, Y)}")


def fit_by_gradient_descent(layer: convext.Conv2D, X: torch.Tensor, Y: torch.Tensor, steps: int) -> float:
    """The chapter's training loop, with its learning rate; returns the last loss."""
    loss = torch.tensor(0.0)
    for _ in range(steps):
        loss = ((layer(X) - Y) ** 2).sum()
        loss.backward()
        for parameter in layer.parameters():
            parameter.data -= 0.01 * parameter.grad  # type: ignore[operator]
            parameter.grad.fill_(0)  # type: ignore[union-attr]
    return loss.item()


def load_photo(photo: Path | None) -> tuple[torch.Tensor, str]:
    """A photograph as gray values in [0, 1], shape (H, W), and where it came from."""
    import numpy
    from matplotlib import cbook
    from PIL import Image

    if photo is None:
        image = Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("L")
        source = "a portrait of Grace Hopper that comes with matplotlib"
    else:
        image = Image.open(photo).convert("L")
        source = str(photo)
    gray = torch.from_numpy(numpy.array(image, dtype=numpy.float32) / 255)
    if min(gray.shape) < 3:
        raise ValueError(f"it must be at least 3 x 3 pixels, but it is {gray.shape[1]} x {gray.shape[0]}")
    return gray, source


def run_photo(gray: torch.Tensor, source: str, output: Path) -> None:
    """Edges of the photograph, and the filter learned back from the photograph and its edge map."""
    print(f"\n5. The same on a photograph ({source}, {gray.shape[1]} x {gray.shape[0]} pixels).")
    across = convext.corr2d(gray, VERTICAL_EDGES, padding="same", padding_mode="replicate")
    down = convext.corr2d(gray, VERTICAL_EDGES.T.contiguous(), padding="same", padding_mode="replicate")
    strength = (across**2 + down**2).sqrt()
    draw_edges(gray, across, down, strength, output / "edges.png")

    layer = convext.Conv2D(kernel_size=3, padding="same", padding_mode="replicate", bias=False)
    losses = fit_by_lbfgs(layer, gray, across)
    learned = layer.weight.detach()[0, 0]
    error = (learned - VERTICAL_EDGES).abs().max().item()
    print(f"   the edge filter, learned back in {len(losses)} evaluations; largest error of a tap: {error:.1e}")
    for row in learned.tolist():
        print("   " + "  ".join(f"{value:+.4f}" for value in row))
    draw_learning(learned, losses, output / "learned_kernel.png")


def fit_by_lbfgs(layer: convext.Conv2D, image: torch.Tensor, target: torch.Tensor) -> list[float]:
    """Least squares by L-BFGS; returns the loss at every evaluation."""
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=100, line_search_fn="strong_wolfe", tolerance_change=1e-14
    )
    losses: list[float] = []

    def evaluate() -> torch.Tensor:
        optimizer.zero_grad()
        loss = ((layer(image) - target) ** 2).mean()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(evaluate)  # type: ignore[arg-type]
    return losses


def draw_edges(
    gray: torch.Tensor, across: torch.Tensor, down: torch.Tensor, strength: torch.Tensor, file: Path
) -> None:
    """The photograph and its edge maps, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.6), layout="constrained")
    limit = across.abs().quantile(0.995).item() if across.numel() < 2**24 else across.abs().max().item()
    panels: list[tuple[str, torch.Tensor, dict[str, Any]]] = [
        ("photo", gray, {"cmap": "gray"}),
        ("vertical edges", across, {"cmap": "RdBu", "vmin": -limit, "vmax": limit}),
        ("horizontal edges", down, {"cmap": "RdBu", "vmin": -limit, "vmax": limit}),
        ("edge strength", strength, {"cmap": "magma", "vmin": 0, "vmax": limit}),
    ]
    for axes, (title, image, style) in zip(figure.subplots(1, 4), panels, strict=True):
        axes.imshow(image.numpy(), **style)
        axes.set_title(title)
        axes.axis("off")
    figure.savefig(file, dpi=110)


def draw_learning(learned: torch.Tensor, losses: list[float], file: Path) -> None:
    """The learned kernel beside the true one, and the loss on the way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    true_axes, learned_axes, loss_axes = figure.subplots(1, 3)
    for axes, title, kernel in ((true_axes, "true kernel", VERTICAL_EDGES), (learned_axes, "learned kernel", learned)):
        axes.imshow(kernel.numpy(), cmap="RdBu", vmin=-2.5, vmax=2.5)
        axes.set_title(title)
        axes.axis("off")
        for row in range(3):
            for column in range(3):
                value = kernel[row, column].item()
                color = "white" if abs(value) > 1.5 else "black"
                axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=color)
    loss_axes.semilogy(range(1, len(losses) + 1), losses)
    loss_axes.set_title("learning")
    loss_axes.set_xlabel("evaluation")
    loss_axes.set_ylabel("mean squared error")
    loss_axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
