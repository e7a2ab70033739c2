"""A page of Markdown as prose and cells.

A cell is a ```python fence that starts in column 0. What it prints is in a ```text fence directly after it, and each
picture that it draws is an image line after that. ``<!-- output varies -->`` above either of them means that two runs
do not agree there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

VARIES = "<!-- output varies -->"
_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})\s*([^`\s]*)[^`]*$")
_IMAGE = re.compile(r"!\[(?P<caption>[^\]]*)\]\((?P<file>[^)\s]+)\)$")


class PageError(Exception):
    """What is wrong with a page, in a sentence that names the line."""


@dataclass(frozen=True)
class Output:
    """What a cell prints."""

    text: str
    varies: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture that a cell draws: an image line of the page."""

    caption: str
    file: str  #: relative to the page
    varies: bool = False


@dataclass(frozen=True)
class Prose:
    """Everything that is not a cell."""

    text: str

    def render(self) -> str:
        return self.text


@dataclass(frozen=True)
class Cell:
    """A block of code, with what the page says of its output."""

    line: int  #: of its fence, from 1
    code: str
    output: Output | None = None
    pictures: tuple[Picture, ...] = field(default=())

    def render(self) -> str:
        parts = [f"```python\n{self.code}\n```"]
        if self.output is not None:
            parts.append(_marked(self.output.varies, f"```text\n{self.output.text}\n```"))
        parts += [_marked(picture.varies, f"![{picture.caption}]({picture.file})") for picture in self.pictures]
        return "\n\n".join(parts)


def _marked(varies: bool, text: str) -> str:
    return f"{VARIES}\n{text}" if varies else text


@dataclass(frozen=True)
class Page:
    """The parts of a page in their order."""

    parts: tuple[Prose | Cell, ...]

    @property
    def cells(self) -> list[Cell]:
        return [part for part in self.parts if isinstance(part, Cell)]

    def render(self) -> str:
        """The page as Markdown, one blank line between its parts."""
        return "\n\n".join(part.render() for part in self.parts) + "\n"


def read(file: Path) -> Page:
    """The page in a file.

    Raises:
        PageError: for a fence that is not closed, or a mark with no output below it.
    """
    return parse(file.read_text(encoding="utf-8"))


def parse(text: str) -> Page:
    """The page that a text is; raises what `read` does."""
    return _Parser(text).page()


class _Parser:
    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.position = 0

    def page(self) -> Page:
        parts: list[Prose | Cell] = []
        prose: list[str] = []

        def end_prose() -> None:
            if any(line.strip() for line in prose):
                parts.append(Prose("\n".join(prose).strip("\n")))
            prose.clear()

        while self.position < len(self.lines):
            line = self.lines[self.position]
            if line.rstrip() == "```python":
                end_prose()
                parts.append(self.cell())
            elif _FENCE.match(line):
                prose.extend(self.fence())
            elif line.strip() == VARIES:
                raise PageError(f"line {self.position + 1}: no output of a cell follows {VARIES}")
            else:
                prose.append(line)
                self.position += 1
        end_prose()
        return Page(tuple(parts))

    def fence(self) -> list[str]:
        """The lines of a fenced block, fences included."""
        start = self.position
        opening = _FENCE.match(self.lines[start])
        assert opening is not None
        mark = opening[2]
        for position in range(start + 1, len(self.lines)):
            line = self.lines[position].strip()
            if line.startswith(mark) and not line.strip(mark[0]):
                self.position = position + 1
                return self.lines[start : position + 1]
        raise PageError(f"line {start + 1}: the block that starts with {self.lines[start].strip()} is not closed")

    def cell(self) -> Cell:
        line = self.position + 1
        code = "\n".join(self.fence()[1:-1])
        output: Output | None = None
        pictures: list[Picture] = []
        while True:
            start = self.position
            self.skip_blank_lines()
            varies = self.line() == VARIES
            if varies:
                self.position += 1
            image = _IMAGE.match(self.line())
            if self.line() == "```text" and output is None and not pictures:
                output = Output("\n".join(self.fence()[1:-1]), varies)
            elif image:
                pictures.append(Picture(image["caption"], image["file"], varies))
                self.position += 1
            else:
                self.position = start
                return Cell(line, code, output, tuple(pictures))

    def line(self) -> str:
        return self.lines[self.position].rstrip() if self.position < len(self.lines) else ""

    def skip_blank_lines(self) -> None:
        while self.position < len(self.lines) and not self.line():
            self.position += 1
