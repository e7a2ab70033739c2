"""What a call costs beside ``F.conv2d`` on the chapter's 6x8 image with a 1x2 kernel, where the kernel costs nothing.

Run ``python benchmarks/overhead.py``. Both are timed in turns in one process; the minimum of many rounds counts, and
the median of the rounds' ratios stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import timeit
from collections.abc import Callable

import torch
import torch.nn.functional as F

import convext

ROUNDS = 40


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], calls: int) -> None:
    """Times the two in turns and prints a line."""
    times: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        pair = tuple(timeit.timeit(function, number=calls) / calls * 1e6 for function in (ours, theirs))
        times.append((pair[0], pair[1]))
    best = [min(column) for column in zip(*times, strict=True)]
    ratio = statistics.median(a / b for a, b in times)
    print(
        f"{name:<40} convext {best[0]:7.2f} us   F.conv2d {best[1]:7.2f} us   ratio of minima {best[0] / best[1]:.2f}, "
        f"median ratio {ratio:.2f}"
    )


def main() -> None:
    """Compares a forward pass without and with gradients, and forward + backward."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    image, kernel, bias = torch.rand(1, 1, 6, 8), torch.randn(1, 1, 1, 2), torch.randn(1)
    learned, learned_bias = kernel.clone().requires_grad_(), bias.clone().requires_grad_()

    def train(function: Callable[..., torch.Tensor], *parameters: torch.Tensor) -> Callable[[], object]:
        def step() -> None:
            for parameter in parameters:
                parameter.grad = None
            function(image, *parameters).sum().backward()

        return step

    with torch.no_grad():
        compare("forward, no_grad", lambda: convext.conv2d(image, kernel), lambda: F.conv2d(image, kernel), 2000)
    compare(
        "forward, nothing requires gradients",
        lambda: convext.conv2d(image, kernel),
        lambda: F.conv2d(image, kernel),
        2000,
    )
    compare(
        "forward with gradients",
        lambda: convext.conv2d(image, learned),
        lambda: F.conv2d(image, learned),
        2000,
    )
    compare("forward + backward", train(convext.conv2d, learned), train(F.conv2d, learned), 400)
    compare(
        "forward + backward, with bias",
        train(convext.conv2d, learned, learned_bias),
        train(F.conv2d, learned, learned_bias),
        400,
    )


if __name__ == "__main__":
    main()
