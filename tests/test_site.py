"""What the site's sources are made of: links, figures, the API reference, the table of contents."""

from __future__ import annotations

import re
from pathlib import Path

import documentation
import pytest
from documentation import REPOSITORY
from website import api, figures, pages
from website.links import rewrite

import convext


def shout(target: str) -> str | None:
    return None if target == "gone.cpp" else target.upper()


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("See [a](b.md).", "See [a](B.MD)."),
        ("![a](b.png)", "![a](B.PNG)"),
        ("[`a.py`](b.py) [c](d.md)", "[`a.py`](B.PY) [c](D.MD)"),
        ("[`a.cpp`](gone.cpp)", "`a.cpp`"),
        ("[a](https://example.org/b) [c](#d)", "[a](https://example.org/b) [c](#d)"),
        ("`[a](b.md)` ``[a]`(b.md)``", "`[a](b.md)` ``[a]`(b.md)``"),
        ("```text\n[a](b.md)\n```\n[a](b.md)", "```text\n[a](b.md)\n```\n[a](B.MD)"),
        ("- c\n\n  ```text\n  [a](b.md)\n  ```\n\n  [a](b.md)", "- c\n\n  ```text\n  [a](b.md)\n  ```\n\n  [a](B.MD)"),
    ],
)
def test_relative_links_are_rewritten(text: str, rewritten: str) -> None:
    assert rewrite(text, shout) == rewritten


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "removed.md").write_text("a page of a former build")
    pages.lay_out(folder)
    return folder


def test_every_link_between_pages_leads_somewhere_in_the_site(sources: Path) -> None:
    found = documentation.pages(sources)
    assert {"index.md", "design.md", "changelog.md", "benchmarks.md"} <= {page.name for page in found}
    problems = [
        f"{page.name}: {target}: {problem}"
        for page in found
        for _, target in documentation.links(page)
        if (problem := documentation.problem_of_link(page, target))
    ]
    assert not problems


def test_every_page_is_in_the_table_of_contents_once(sources: Path) -> None:
    listed = re.findall(r"<([\w./]+)>$|^([\w.]+)$", (sources / "index.md").read_text().split("{toctree}", 1)[1], re.M)
    names = [title or plain for title, plain in listed]
    assert sorted(names) == sorted({"api/index", *(page.stem for page in sources.glob("*.md"))} - {"index"})


def test_a_page_without_a_title_of_its_own_is_listed_too() -> None:
    first, *others = pages.table_of_contents({"design", "new_page"}).split("```\n\n")
    assert "\nnew_page\n" in first
    assert not any("new_page" in other for other in others)


def test_a_page_that_is_gone_is_removed(sources: Path) -> None:
    assert not (sources / "removed.md").exists()


def test_the_figures_are_those_of_the_readme(sources: Path) -> None:
    """The README has its table by hand from the same files."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    by_hand = {tuple(re.findall(r"[\d.]+ \([\d.]+\)", line)) for line in readme.splitlines() if line.startswith("|")}
    tables = figures.figures(sorted(REPOSITORY.glob("benchmarks/results/*.json")))
    made = {tuple(re.findall(r"[\d.]+ \([\d.]+\)", line)) for line in tables.splitlines() if line.startswith("|")}
    assert by_hand - {()}
    assert by_hand <= made | {()}
    assert tables in (sources / "performance.md").read_text(encoding="utf-8")


def test_the_reference_has_every_public_name() -> None:
    text = "\n".join(api.pages().values())
    documented = re.findall(r"auto(?:function|class):: convext\.([\w.]+)", text)
    expected = set(convext.__all__) - {"reference"} | {f"reference.{name}" for name in convext.reference.__all__}
    assert expected <= set(documented)
    assert {"plan.Kernel", "plan.PassPlan", "plan.Explanation"} <= set(documented)
    assert len(documented) == len(set(documented))


def test_a_module_of_its_own_gets_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convext, "__all__", [*convext.__all__, "normalize"])
    monkeypatch.setattr(convext, "normalize", convext._geometry.normalize, raising=False)
    assert api.topics()["_geometry"] == ["normalize"]
    assert list(api.topics())[-1] == "_geometry"
