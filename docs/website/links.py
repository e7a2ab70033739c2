"""Relative links, which lead to files of the repository, turned into links within the site."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

_FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})[^\n]*\n.*?^\s*\2[`~]*\s*?$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")


def rewrite(text: str, new_target: Callable[[str], str | None]) -> str:
    """Replaces the targets of the relative links of a text in Markdown, but not in its code.

    Args:
        text: the page.
        new_target: gives the new target of an old one, or None for a link that shall become its own text.
    """

    def replace(link: re.Match[str]) -> str:
        shown, target = text[slice(*link.span("text"))], link["target"]
        if re.match(r"[a-z]+:|#", target):
            return text[slice(*link.span())]
        changed = new_target(target)
        return shown if changed is None else f"{link['bang']}[{shown}]({changed})"

    pieces = []
    end = 0
    for link in _LINK.finditer(_without_code(text)):
        pieces += [text[end : link.start()], replace(link)]
        end = link.end()
    return "".join([*pieces, text[end:]])


def _without_code(text: str) -> str:
    """The text, equally long, with code made of characters that mean nothing in Markdown."""

    def blank(code: re.Match[str]) -> str:
        return re.sub(r"[^\n]", "_", code[0])

    return _CODE.sub(blank, _FENCE.sub(blank, text))


class LinksOfSite:
    """Where the files of the repository are found in the site."""

    def __init__(self, repository: Path, places: dict[Path, str]) -> None:
        """Args:
        repository: its root, an absolute path.
        places: the place in the site of each file that is there.
        """
        self.repository = repository
        self.places = places

    def of(self, file: Path) -> Callable[[str], str | None]:
        """What `rewrite` needs for the text of a file whose page is in the site's root."""

        def new_target(target: str) -> str | None:
            path, _, anchor = target.partition("#")
            place = self.places.get((file.parent / path).resolve())
            if place is None:
                return None
            return f"{place}#{anchor}" if anchor else place

        return new_target
