"""The sources of the site, laid out in a folder: the pages of docs, others of the repository, and the API reference.

The pages are those that GitHub shows. What is changed on the way: links to files of the repository become links within
the site, or plain text where the site does not have the file; the front page gets the table of contents; and the
performance page gets the current figures.
"""

from __future__ import annotations

from pathlib import Path

from website import api, figures
from website.links import LinksOfSite, rewrite

REPOSITORY = Path(__file__).resolve().parents[2]

#: Pages from elsewhere than docs/.
ELSEWHERE = {
    "index": "README.md",
    "benchmarks": "benchmarks/README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
}
#: Sections of the table of contents: pages with their short titles. Pages of docs/ that are not here go into the first.
CONTENTS = {
    "Learn and use": {
        "tutorial": "Tutorial",
        "tutorial.zh": "教程",
        "receptive_field": "Receptive fields",
        "looking_inside": "Looking inside",
        "faq": "Questions and answers",
    },
    "Reference": {"api/index": "API reference", "changelog": "Changelog"},
    "Inside convext": {
        "design": "Design",
        "performance": "Performance",
        "benchmarks": "Benchmarks",
        "cuda": "CUDA",
        "adding_a_kernel": "Adding a kernel",
        "contributing": "Contributing",
    },
}
#: The line of a page that the figures take the place of.
FIGURES = "<!-- the site shows the tables here -->"


def lay_out(target: Path, repository: Path = REPOSITORY) -> None:
    """Writes the sources of the site; files that would stay the same are left alone, so that Sphinx need not read them.

    Args:
        target: the folder, which is made; pages that no longer exist are removed from it.
        repository: the root of the repository.
    """
    pages = _pages(repository)
    links = LinksOfSite(repository, _places(repository, pages))
    written = set()
    for name, file in pages.items():
        text = rewrite(file.read_text(encoding="utf-8"), links.of(file))
        if FIGURES in text:
            text = text.replace(FIGURES, figures.figures(sorted(repository.glob("benchmarks/results/*.json"))))
        if name == "index":
            text += "\n" + table_of_contents(set(pages) | {"api/index"})
        written.add(_write(target / f"{name}.md", text.encode()))
    for name, text in api.pages().items():
        written.add(_write(target / "api" / f"{name}.rst", text.encode()))
    for file in _attachments(repository):
        written.add(_write(target / file.relative_to(repository / "docs"), file.read_bytes()))
    for file in set(target.rglob("*")) - written:
        if file.is_file():
            file.unlink()


def _pages(repository: Path) -> dict[str, Path]:
    pages = {name: repository / file for name, file in ELSEWHERE.items()}
    return pages | {file.stem: file for file in sorted((repository / "docs").glob("*.md"))}


def _attachments(repository: Path) -> list[Path]:
    """Files of docs that pages show or offer."""
    docs = repository / "docs"
    return sorted([*docs.glob("images/**/*.png"), *docs.glob("*.ipynb")])


def _places(repository: Path, pages: dict[str, Path]) -> dict[Path, str]:
    places = {file: f"{name}.md" for name, file in pages.items()}
    for topic in api.topics():
        for file in (f"convext/{topic}.py", f"convext/{topic}", f"convext/{topic}/__init__.py"):
            places[repository / file] = f"api/{topic}.rst"
    return places | {file: str(file.relative_to(repository / "docs")) for file in _attachments(repository)}


def table_of_contents(pages: set[str]) -> str:
    """The directives that list the pages, each once: those of `CONTENTS` that exist, and what else there is."""
    listed = {name for section in CONTENTS.values() for name in section}
    blocks: list[str] = []
    for caption, section in CONTENTS.items():
        lines = [f"{title} <{name}>" for name, title in section.items() if name in pages]
        if not blocks:
            lines += sorted(pages - listed - {"index"})
        blocks.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *lines, "```"]))
    return "\n\n".join(blocks) + "\n"


def _write(file: Path, content: bytes) -> Path:
    if not file.exists() or file.read_bytes() != content:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return file
