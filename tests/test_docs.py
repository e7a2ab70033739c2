"""The code on the pages runs, and their links lead somewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import build_notebooks
import documentation
import pytest
from documentation import REPOSITORY, Block

PAGES = documentation.pages()


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def run(page: Path, blocks: list[Block]) -> dict[str, Any]:
    """Runs blocks in one namespace; a traceback shows the lines of the page."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        if block.not_run is None:
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)
    return namespace


def has_code_to_run_here(page: Path) -> bool:
    """test_notebooks.py runs the tutorial, if what it needs is there."""
    by_kernel = page in build_notebooks.PAGES and importlib.util.find_spec("nbclient") is not None
    return bool(documentation.python_blocks(page)) and not by_kernel


@pytest.mark.parametrize("page", list(filter(has_code_to_run_here, PAGES)), ids=name)
def test_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    run(page, documentation.python_blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    problems = [
        f"line {line}: {target}: {problem}"
        for line, target in documentation.links(page)
        if (problem := documentation.problem_of_link(page, target))
    ]
    assert not problems


def test_every_page_is_looked_at() -> None:
    assert {"README.md", "docs/design.md", "docs/faq.md", "benchmarks/README.md"} <= set(map(name, PAGES))


# --- that the tests above can fail ----------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.md"


def test_a_block_that_fails_is_found_with_its_line(page: Path) -> None:
    page.write_text("# Page\n\n```python\nx = 1\n```\n\n- item\n\n  ```python\n  assert x == 2\n  ```\n")
    with pytest.raises(AssertionError) as caught:
        run(page, documentation.python_blocks(page))
    assert caught.traceback[-1].lineno + 1 == 10


def test_a_block_is_left_out_for_a_reason_only(page: Path) -> None:
    block = "```python\n1 / 0\n```\n"
    page.write_text(f"<!-- not run: it needs a GPU -->\n{block}")
    (left_out,) = documentation.python_blocks(page)
    assert left_out.not_run == "it needs a GPU"
    run(page, [left_out])
    page.write_text(f"<!-- not run -->\n{block}")
    with pytest.raises(ValueError, match="give the reason"):
        documentation.python_blocks(page)
    page.write_text(f"<!-- another comment -->\n{block}")
    assert documentation.python_blocks(page)[0].not_run is None


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("[a](page.md)", None),
        ("[a](#two-words)", None),
        ("[a](page.md#two-words-1)", None),
        ("[a](#a-code_name-数)", None),
        ("[a](https://example.org/a?b#c)", None),
        ("`[a](nowhere.md)`", None),
        ("[a](nowhere.md)", "there is no nowhere.md"),
        ("![a](nowhere.png)", "there is no nowhere.png"),
        ('<img src="nowhere.png">', "there is no nowhere.png"),
        ("[a](#three-words)", "page.md has no heading #three-words"),
        ("[a](/page.md)", "it is not relative to its page"),
        ("[a](https://example)", "it is no address of the web"),
        ("[a](htps://example.org)", "it is no address of the web"),
    ],
)
def test_links_that_lead_nowhere_are_found(page: Path, link: str, problem: str | None) -> None:
    page.write_text(f"# Two words\n\n# Two words\n\n# A `code_name`: 数!\n\nText with {link}.\n", encoding="utf-8")
    problems = [documentation.problem_of_link(page, target) for _, target in documentation.links(page)]
    assert [found for found in problems if found] == ([problem] if problem else [])
