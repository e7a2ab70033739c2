"""`Explanation` in words, for somebody who has never seen a convolution kernel from within."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convext.plan import Explanation, PassPlan

WIDTH = 100

#: What an algorithm does. One that is missing here is printed with its own one-line description.
IN_WORDS = {
    "fully_connected": (
        "The kernel covers the whole image, so every output is one dot product: input and weight are multiplied as "
        "matrices just as they lie in memory."
    ),
    "grouped": (
        "A group has few channels, too few to fill a vector register. Pixels or channels are laid side by side so that "
        "each vector instruction works on several at once."
    ),
    "direct_rows": (
        "Slides the kernel over the image as the definition says: a band of image lines is kept in the cache, and each "
        "instruction multiplies one kernel tap with a whole vector of pixels."
    ),
    "image_lines": (
        "Keeps the few lines of the image that a row of the result reads in the cache. Of planes, even and odd columns "
        "lie apart if the kernel steps by two, so that for each tap a vector of results reads neighbouring numbers."
    ),
    "winograd": (
        "Cuts images into small tiles, and kernels into blocks of 3 x 3 taps, and transforms both, so that a result "
        "takes fewer multiplications than the definition has; the middle step is a product of matrices, then the "
        "result is transformed back."
    ),
    "panel_gemm": (
        "Multiplies the weights, as one matrix, with a strip of pixels at a time, as the other. The strip is copied "
        "side by side into a panel that stays in the cache, mostly while it is multiplied for the first time."
    ),
    "bfloat16_tiles": (
        "Multiplies whole tiles of bfloat16 numbers, 16 pixels by 16 channels and 32 terms of each sum at a time, in "
        "the processor's matrix unit. Pixels are copied so that those of a tile are one distance apart."
    ),
    "bfloat16_pairs": (
        "Multiplies bfloat16 numbers two at a time: the processor's dot product adds two products to each sum. Pixels, "
        "or channels, are laid side by side so that the two numbers of a pair are neighbours."
    ),
    "implicit_gemm": (
        "Writes the correlation as one product of matrices: a column of the second matrix is the patch of the image "
        "under the kernel. The patches are gathered piece by piece where the product needs them, so the whole matrix "
        "never exists."
    ),
    "integer_rows": (
        "Slides the kernel over bands of image lines with integer instructions, as many numbers at once as a vector "
        "holds. Integer sums are exact in any order."
    ),
    "reference": (
        "The definition as it stands, one product after the other. It runs everything and is slow; every other kernel "
        "is tested against it."
    ),
    "depthwise": "Every channel has its own filter: each thread of the GPU keeps a column of pixels in registers.",
    "tensor_cores": (
        "Writes the correlation as one product of matrices of 16-bit numbers and runs it on the GPU's tensor cores."
    ),
    "generic": "One thread of the GPU for each result, which walks over the taps of the kernel. It runs everything.",
}

_LEGEND = (
    "FLOP: 2 for each multiply-add of the definition. Bytes: input, weight and output, each read or written once. "
    "Kernels are tried in a fixed order, and the first that can run a pass is taken; convext.force_kernel(name) runs "
    "another."
)
_FLOOR_LEGEND = (
    "Floor: the least time on this machine, either of the arithmetic at the peak of its multiply-add units, one "
    "thread's times the threads, or of the bytes at the bandwidth of a copy; both were measured in this process."
)


def text_of(explanation: Explanation) -> str:
    """What ``print(convext.explain(...))`` prints."""
    lines = [explanation.call] if explanation.call else []
    lines.append(f"output shape: {explanation.output_shape}")
    explained: dict[str, str] = {}  # the pass where an algorithm was put in words
    for plan in explanation.passes:
        name = plan.kernel.partition("/")[0]
        words = f"As in {explained[name]}." if name in explained else IN_WORDS.get(name, plan.description)
        explained.setdefault(name, plan.name)
        lines += ["", *_pass_lines(plan, words)]
    legend = f"{_LEGEND} {_FLOOR_LEGEND}" if any(plan.floor for plan in explanation.passes) else _LEGEND
    return "\n".join([*lines, "", *textwrap.wrap(legend, WIDTH)])


def _pass_lines(plan: PassPlan, words: str) -> list[str]:
    lines = [f"{plan.name}: {plan.kernel}"]
    lines += textwrap.wrap(words, WIDTH, initial_indent="    ", subsequent_indent="    ")
    lines += _row(
        "work",
        f"{quantity(plan.flops, 'FLOP')} on {quantity(plan.bytes, 'B')} of tensors: {plan.intensity:.3g} FLOP per byte",
    )
    scratch = f"{quantity(plan.workspace_bytes, 'B')} of scratch" if plan.workspace_bytes else "no scratch"
    where = "the GPU" if plan.threads == 0 else "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    lines += _row("runs on", f"{where}, with {scratch}")
    if plan.floor is not None:
        lines += _row("floor", _floor_text(plan))
    elif plan.floor_is_unknown:
        lines += _row("floor", "not known: neither peak nor bandwidth of a GPU is measured here")
    if plan.measured_seconds is not None:
        share = "" if plan.share_of_floor is None else f", {plan.share_of_floor:.0%} of the speed that the floor allows"
        lines += _row("measured", milliseconds(plan.measured_seconds) + share)
    for index, (reason, kernels) in enumerate(_by_reason(plan.rejected)):
        # Not wrapped, so that a reason can be searched for.
        lines.append(f"    {'why' if index == 0 else '':<10}not {', '.join(kernels)}: {reason}")
    return lines


def _floor_text(plan: PassPlan) -> str:
    floor = plan.floor
    assert floor is not None
    memory = f"memory {milliseconds(floor.bytes_seconds)} at {quantity(floor.bytes_per_second, 'B/s')}"
    if floor.flops_seconds is None or floor.flops_per_second is None:
        return f"{milliseconds(floor.seconds)}: {memory}; the peak of integer arithmetic is not measured"
    arithmetic = f"arithmetic takes {milliseconds(floor.flops_seconds)} at {quantity(floor.flops_per_second, 'FLOP/s')}"
    text = f"{milliseconds(floor.seconds)}, bound by {floor.bound}: {arithmetic}, {memory}"
    if plan.kernel.startswith("winograd/"):
        text += "; winograd multiplies less than the definition and may be below this"
    return text


def _by_reason(rejected: tuple[tuple[str, str], ...]) -> list[tuple[str, list[str]]]:
    """The builds of one algorithm that have the same reason, together."""
    lines: dict[tuple[str, str], list[str]] = {}
    for kernel, reason in rejected:
        lines.setdefault((kernel.partition("/")[0], reason), []).append(kernel)
    return [(reason, kernels) for (_, reason), kernels in lines.items()]


def _row(title: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"    {title:<10}", subsequent_indent=" " * 14)


def quantity(value: float, unit: str) -> str:
    """Three digits and a prefix.

    Example:
        >>> quantity(1849688064.0, "FLOP"), quantity(12, "B")
        ('1.85 GFLOP', '12 B')
    """
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            digits = value / factor
            return f"{digits:.0f} {prefix}{unit}" if digits >= 100 else f"{digits:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def milliseconds(seconds: float) -> str:
    """Three digits.

    Example:
        >>> milliseconds(0.0123456), milliseconds(1.5)
        ('12.3 ms', '1500 ms')
    """
    value = seconds * 1e3
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"
