"""Runs the code of the tutorial, checks what its pages say of the outputs, and makes their notebooks.

    python docs/build_notebooks.py             # puts docs/tutorial.ipynb together from docs/tutorial.md; runs nothing
    python docs/build_notebooks.py --check     # runs the pages and fails where one says something else
    python docs/build_notebooks.py --update    # runs the pages and rewrites outputs, pictures and notebooks
    python docs/build_notebooks.py --update tutorial.zh    # only this one

How a page is written is said in docs/notebooks/page.py. docs/NAME.zh.md is the translation of docs/NAME.md: it has the
same code and the same pictures, which are drawn by the original.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from notebooks import compare
from notebooks.notebook import notebook
from notebooks.page import Cell, Output, Page, PageError, Prose, read
from notebooks.run import Result, run

DOCS = Path(__file__).resolve().parent
PAGES = sorted(DOCS.glob("tutorial*.md"))


def main(arguments: Sequence[str] | None = None, pages: Sequence[Path] = PAGES) -> int:
    """The program; returns its exit status."""
    names = [page.stem for page in pages]
    parser = argparse.ArgumentParser(description="run the tutorial's code and make its notebooks")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="run; fail where a page or a notebook says something else")
    action.add_argument("--update", action="store_true", help="run; rewrite outputs, pictures and notebooks")
    parser.add_argument("pages", nargs="*", metavar="page", help=f"of {', '.join(names)}; all of them by default")
    options = parser.parse_args(arguments)
    unknown = set(options.pages) - set(names)
    if unknown:
        parser.error(f"there is no page {', '.join(sorted(unknown))}; there are {', '.join(names)}")

    failures = 0
    for file in pages:
        if options.pages and file.stem not in options.pages:
            continue
        start = time.perf_counter()
        problems: list[str] = []
        try:
            if options.check:
                problems += check(file)
            else:
                problems += update(file) if options.update else []
                write_notebook(file)
        except PageError as error:
            problems.append(str(error))
        for problem in problems:
            print(f"{file.name}: {problem}", file=sys.stderr)
        failures += len(problems)
        print(f"{file.name}: {len(problems)} problem(s), {time.perf_counter() - start:.0f} s")
    return 1 if failures else 0


def original_of(file: Path) -> Path | None:
    """The page that this one translates."""
    name, _, language = file.stem.partition(".")
    return file.with_name(f"{name}.md") if language else None


def check(file: Path) -> list[str]:
    """What is wrong with a page and its notebook; runs the page."""
    page = read(file)
    problems = check_without_running(file)
    for cell, result in zip(page.cells, run(page.cells), strict=True):
        problems += differences(cell, result, file.parent)
    return problems


def check_without_running(file: Path) -> list[str]:
    """Whether the notebook is that of the page, and the code that of the original."""
    page = read(file)
    problems = []
    original = original_of(file)
    if original is not None:
        problems += differences_to_original(page, read(original))
    made = file.with_suffix(".ipynb")
    if not made.exists() or made.read_text(encoding="utf-8") != notebook(page, file.parent):
        problems.append(f"{made.name} is not made of this page; python docs/build_notebooks.py makes it")
    return problems


def differences_to_original(page: Page, original: Page) -> list[str]:
    """Where the code or the pictures of a translation are not those of the original."""
    problems = []
    for cell, other in zip(page.cells, original.cells, strict=False):
        if not compare.same_code(other.code, cell.code):
            problems.append(
                f"line {cell.line}: the code is not that of line {other.line} of the original\n"
                + difference(other.code, cell.code, "original", "translation")
            )
        if [picture.file for picture in cell.pictures] != [picture.file for picture in other.pictures]:
            problems.append(f"line {cell.line}: the pictures are not those of line {other.line} of the original")
    if len(page.cells) != len(original.cells):
        problems.append(f"it has {len(page.cells)} cells, the original has {len(original.cells)}")
    return problems


def differences(cell: Cell, result: Result, folder: Path) -> list[str]:
    """What the page says of a cell and the run does not."""
    output = cell.output or Output("")
    problems = []
    if not output.varies and not compare.same_text(output.text, result.text):
        problems.append(
            f"line {cell.line}: the cell prints something else\n" + difference(output.text, result.text, "page", "run")
        )
    problems += missing_lines(cell, result)
    for picture, drawn in zip(cell.pictures, result.pictures, strict=False):
        file = folder / picture.file
        if not file.exists():
            problems.append(f"line {cell.line}: there is no file {picture.file}")
        elif not picture.varies and not compare.same_picture(file.read_bytes(), drawn):
            problems.append(f"line {cell.line}: the cell draws something else than {picture.file}")
    return problems


def difference(one: str, other: str, name: str, other_name: str) -> str:
    """The lines that differ, as diff shows them."""
    return "\n".join(difflib.unified_diff(one.splitlines(), other.splitlines(), name, other_name, lineterm="", n=1))


def missing_lines(cell: Cell, result: Result) -> list[str]:
    """Whether each picture has an image line, which only the author can name."""
    if len(cell.pictures) == len(result.pictures):
        return []
    return [
        f"line {cell.line}: the cell draws {len(result.pictures)} picture(s), but {len(cell.pictures)} image line(s) "
        "follow; each picture needs one: ![A caption](images/tutorial/NAME.png)"
    ]


def write_notebook(file: Path) -> None:
    file.with_suffix(".ipynb").write_text(notebook(read(file), file.parent), encoding="utf-8")


def update(file: Path) -> list[str]:
    """Runs a page and writes what it printed and drew; returns what only its author can put right."""
    page = read(file)
    original = original_of(file)
    results = iter(run(page.cells))
    problems: list[str] = []
    parts: list[Prose | Cell] = []
    for part in page.parts:
        if isinstance(part, Cell):
            result = next(results)
            problems += missing_lines(part, result)
            if original is None:
                write_pictures(part, result, file.parent)
            part = with_output(part, result)
        parts.append(part)
    file.write_text(Page(tuple(parts)).render(), encoding="utf-8")
    if original is not None:
        problems += differences_to_original(page, read(original))
    return problems


def write_pictures(cell: Cell, result: Result, folder: Path) -> None:
    """Writes the pictures that changed; those that vary only if they are not there."""
    for picture, drawn in zip(cell.pictures, result.pictures, strict=False):
        file = folder / picture.file
        if not file.exists() or not (picture.varies or compare.same_picture(file.read_bytes(), drawn)):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(smaller(drawn))


def with_output(cell: Cell, result: Result) -> Cell:
    """The cell with what it printed, if that changed; where it varies, if its words changed."""
    output = cell.output or Output("")
    if compare.same_text(output.text, result.text, numbers=not output.varies):
        return cell
    return dataclasses.replace(cell, output=dataclasses.replace(output, text=result.text) if result.text else None)


def smaller(png: bytes) -> bytes:
    """The same picture in 256 colours, without transparency and metadata, which hold nothing."""
    from PIL import Image

    drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    picture = Image.new("RGB", drawn.size, "white")
    picture.paste(drawn, mask=drawn.getchannel("A"))
    file = io.BytesIO()
    # MAXCOVERAGE keeps colours that are rare, as those of a colour bar are.
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1).save(file, "png", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
