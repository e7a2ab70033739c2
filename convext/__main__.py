"""``python -m convext``: the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from convext.cli.bench import add_arguments as add_bench_arguments
from convext.cli.explain import add_arguments as add_explain_arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convext", description="2-D cross-correlation with hand-written kernels."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="info | demo | check | explain | bench")
    commands.add_parser("info", help="what a bug report needs: versions, compiler, instruction sets, kernels")
    demo = commands.add_parser("demo", help="the textbook chapter, then the same on a photograph, with pictures")
    demo.add_argument("photo", nargs="?", type=Path, help="an image file (default: one that comes with matplotlib)")
    demo.add_argument("--output", type=Path, default=Path("convext-demo"), help="folder for the pictures")
    check = commands.add_parser("check", help="gradcheck of every kernel on this machine")
    check.add_argument("--kernel", help="only kernels of this name")
    add_explain_arguments(commands.add_parser("explain", help="which kernel runs a call, why, and at what cost"))
    add_bench_arguments(commands.add_parser("bench", help="speed beside other libraries on the layers of networks"))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "info":
        from convext.cli.info import print_info

        return print_info()
    if options.command == "demo":
        from convext.cli.demo import run_demo

        return run_demo(options.photo, options.output)
    if options.command == "check":
        from convext.cli.check import run_checks

        return run_checks(options.kernel)
    if options.command == "explain":
        from convext.cli.explain import run as run_explain

        return run_explain(options)
    from convext.cli.bench import run

    return run(options)


if __name__ == "__main__":
    sys.exit(main())
