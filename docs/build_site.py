"""Builds the documentation as a site: python docs/build_site.py build/docs, then open build/docs/html/index.html.

Warnings are errors: a link that leads nowhere, a page in no table of contents, a name that autodoc does not find.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from website.pages import lay_out

SETTINGS = Path(__file__).resolve().parent / "website"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    parser = argparse.ArgumentParser(description="build the documentation as a site")
    parser.add_argument("folder", type=Path, help="where to: sources in source/, pages in html/")
    parser.add_argument("--linkcheck", action="store_true", help="also ask the network whether external links exist")
    options = parser.parse_args(arguments)

    from sphinx.cmd.build import main as sphinx

    source = options.folder / "source"
    lay_out(source)
    failed = 0
    for builder in ["html", *(["linkcheck"] if options.linkcheck else [])]:
        # All pages are written, since each shows the table of contents; only those that changed are read.
        options_of_sphinx = ["-W", "--keep-going", "-n", "-q", "-a", "-j", "auto"]
        failed |= sphinx(
            [*options_of_sphinx, "-b", builder, "-c", str(SETTINGS), str(source), str(options.folder / builder)]
        )
    if not failed:
        print(f"The site is {options.folder / 'html' / 'index.html'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
