"""The pages of the repository: their code, their links and the anchors that links may lead to."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).resolve().parents[1]
_NOT_RUN = re.compile(r"<!--\s*not run\b:?\s*(.*?)\s*-->", re.DOTALL)
_HTML_LINK = re.compile(r"""\b(?:href|src)\s*=\s*["']([^"']*)["']""")


def pages(root: Path = REPOSITORY) -> list[Path]:
    """Every file of Markdown but those that were built or belong to something else."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in ("build", "dist"))
        found += [Path(folder, name) for name in sorted(files) if name.endswith(".md")]
    return found


def tokens(file: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(file.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Block:
    """A block of Python code."""

    line: int  #: of its first line, from 1
    code: str
    not_run: str | None  #: the reason, where there is a comment above it that gives one


def python_blocks(file: Path) -> list[Block]:
    """The ```python blocks of a page.

    Raises:
        ValueError: for a comment that says that a block is not run, but not why.
    """
    blocks = []
    previous: Token | None = None
    for token in tokens(file):
        if token.type == "fence" and token.info.strip() == "python":
            assert token.map is not None
            comment = _NOT_RUN.search(previous.content) if previous and previous.type == "html_block" else None
            if comment and not comment[1]:
                raise ValueError(f"{file.name}, line {token.map[0]}: give the reason, <!-- not run: REASON -->")
            blocks.append(Block(token.map[0] + 2, token.content, comment[1] if comment else None))
        previous = token
    return blocks


def links(file: Path) -> Iterator[tuple[int, str]]:
    """The targets of links and pictures, each with the line of its paragraph."""
    line = 0
    for token in tokens(file):
        line = token.map[0] + 1 if token.map else line
        if token.type == "html_block":
            yield from ((line, target) for target in _HTML_LINK.findall(token.content))
        for child in token.children or []:
            if child.type == "html_inline":
                yield from ((line, target) for target in _HTML_LINK.findall(child.content))
            target = child.attrGet("href") or child.attrGet("src")
            if target is not None:
                yield line, unquote(str(target))


def anchors(file: Path) -> set[str]:
    """What GitHub makes of the headings of a page."""
    found: set[str] = set()
    for opening, heading in itertools.pairwise(tokens(file)):
        if opening.type == "heading_open":
            text = "".join(child.content for child in heading.children or [] if child.type in ("text", "code_inline"))
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            repeated = sum(1 for other in found if re.fullmatch(re.escape(anchor) + r"(-\d+)?", other))
            found.add(f"{anchor}-{repeated}" if repeated else anchor)
    return found


def problem_of_link(file: Path, target: str) -> str | None:
    """Why a link leads nowhere, as far as that can be told without a network."""
    parts = urlsplit(target)
    if parts.scheme:
        if parts.scheme == "mailto":
            return None if re.fullmatch(r"[^@\s]+@[^@\s]+\.\w+", parts.path) else "it is no address"
        if parts.scheme not in ("http", "https") or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.hostname or ""):
            return "it is no address of the web"
        return None
    if parts.path.startswith("/"):
        return "it is not relative to its page"
    there = (file.parent / parts.path).resolve() if parts.path else file
    if not there.exists():
        return f"there is no {parts.path}"
    if parts.fragment and there.suffix == ".md" and parts.fragment not in anchors(there):
        return f"{there.name} has no heading #{parts.fragment}"
    return None
