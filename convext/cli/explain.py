"""``python -m convext explain``: which kernel runs each pass of a call, why, and at what cost."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

import convext

DTYPES = ["float32", "float64", "bfloat16", "float16", "complex64", "complex128"]
DTYPES += ["uint8", "int8", "int16", "int32", "int64"]


def _sizes(text: str) -> tuple[int, ...]:
    """``8,64,56,56``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be integers with commas between, but it is {text!r}") from None


def _one_or_two(text: str) -> int | tuple[int, ...]:
    sizes = _sizes(text)
    return sizes[0] if len(sizes) == 1 else sizes


def _padding(text: str) -> Any:
    """An integer, ``height,width``, ``top,bottom,left,right``, ``same`` or ``valid``."""
    if text in ("same", "valid"):
        return text
    sides = _one_or_two(text)
    return (sides[:2], sides[2:]) if isinstance(sides, tuple) and len(sides) == 4 else sides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `convext.conv2d`, and what `convext.explain` may measure."""
    parser.add_argument("--input", type=_sizes, required=True, metavar="N,C,H,W", help="or C,H,W")
    parser.add_argument("--weight", type=_sizes, required=True, metavar="O,I,h,w", help="I is C / groups")
    parser.add_argument("--stride", type=_one_or_two, default=1, metavar="S", help="one integer, or height,width")
    parser.add_argument(
        "--padding", type=_padding, default=0, metavar="P", help="also top,bottom,left,right; same; valid"
    )
    parser.add_argument("--dilation", type=_one_or_two, default=1, metavar="D")
    parser.add_argument("--groups", type=int, default=1, metavar="G")
    parser.add_argument("--padding-mode", default="zeros", choices=("zeros", "reflect", "replicate", "circular"))
    parser.add_argument("--bias", action="store_true", help="with one")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, metavar="DTYPE", help=", ".join(DTYPES))
    parser.add_argument("--channels-last", action="store_true", help="input and weight in torch.channels_last")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="default: as many as torch has")
    parser.add_argument("--floor", action="store_true", help="also the least time that this machine allows")
    parser.add_argument("--measure", action="store_true", help="also the time of each pass, and the floor")


def run(options: argparse.Namespace) -> int:
    """Prints the explanation, or what is wrong with the arguments, and returns the exit status."""
    before = torch.get_num_threads()
    try:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        print(
            convext.explain(
                _meta(options.input, options),
                _meta(options.weight, options),
                _meta(options.weight[:1], options) if options.bias else None,
                options.stride,
                options.padding,
                options.dilation,
                options.groups,
                padding_mode=options.padding_mode,
                device=options.device,
                floor=options.floor,
                measure=options.measure,
            )
        )
    except (RuntimeError, TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        torch.set_num_threads(before)
    return 0


def _meta(sizes: tuple[int, ...], options: argparse.Namespace) -> torch.Tensor:
    """A tensor without contents, which is all that a plan needs."""
    tensor = torch.empty(sizes, dtype=getattr(torch, options.dtype), device="meta")
    if options.channels_last and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if options.channels_last and tensor.dim() == 3:
        return tensor.unsqueeze(0).contiguous(memory_format=torch.channels_last).squeeze(0)
    return tensor
