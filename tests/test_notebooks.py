"""The tutorial says what its code does; and the program that checks this finds what is wrong."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import build_notebooks
import pytest
from notebooks import compare, page
from notebooks.page import Cell, Output, Picture, Prose

PAGES = build_notebooks.PAGES


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_notebooks_and_translations_are_those_of_the_pages(file: Path) -> None:
    assert build_notebooks.check_without_running(file) == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_the_pages_show_what_their_code_prints_and_draws(file: Path) -> None:
    for package in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(package, reason="make docs installs it")
    problems = build_notebooks.check(file)
    assert not problems, "\n".join(problems)


# --- pages ----------------------------------------------------------------------------------------------------

PAGE = """\
# Title

```sh
no cell
```

```python
print(1)
```

```text
1
```

<!-- output varies -->
![One](images/one.png)

![Two](images/two.png)

Text.

```text
no output
```

```python
pass
```
"""


def test_a_page_is_prose_and_cells() -> None:
    first, cell, text, last = page.parse(PAGE).parts
    assert first == Prose("# Title\n\n```sh\nno cell\n```")
    pictures = (Picture("One", "images/one.png", varies=True), Picture("Two", "images/two.png"))
    assert cell == Cell(7, "print(1)", Output("1"), pictures)
    assert text == Prose("Text.\n\n```text\nno output\n```")
    assert last == Cell(26, "pass")
    assert page.parse(PAGE).render() == PAGE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\nprint(1)\n", "line 1: .* is not closed"),
        ("Text.\n\n<!-- output varies -->\nMore.\n", "line 3: no output of a cell follows"),
    ],
)
def test_pages_that_mean_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(page.PageError, match=message):
        page.parse(text)


# --- comparisons ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("loss 0.12345", "loss 0.12346", True),
        ("loss 0.123", "loss 0.124", False),
        ("tensor([-0.5000,  1.])", "tensor([-0.5001,  1.])", True),
        ("tensor([ 3.2e-09])", "tensor([-1.1e-10])", True),  # nothing but rounding
        ("20 steps", "21 steps", False),
        ("1000 steps", "1001 steps", False),
        ("conv2d", "conv1d", False),
        ("one\ntwo", "one  two", True),
        ("one", "one two", False),
        ("nan", "1.0", False),
    ],
)
def test_outputs_are_compared_with_a_tolerance(one: str, other: str, same: bool) -> None:
    assert compare.same_text(one, other) is same
    assert compare.same_text(other, one) is same


def test_only_words_are_compared_where_numbers_vary() -> None:
    assert compare.same_text("12 ms, 3.5 times", "13 ms, 2 times", numbers=False)
    assert not compare.same_text("12 ms", "12 us", numbers=False)


@pytest.mark.parametrize(
    ("original", "translation", "same"),
    [
        ("x = 1  # one", "# 一\nx = 1", True),
        ("print('one')", "print('一')", True),
        ("print('one')", "print('two')", False),
        ("f(padding='same')", "f(padding='valid')", False),
        ("print(f'{a} of {b}')", "print(f'{b} 之 {a}')", True),
        ("print(f'{a} of {b}')", "print(f'{b} 之 {c}')", False),
        ("print(f'{a:.2f}')", "print(f'{a:.3f}数')", False),
        ("x = 1", "x = 2", False),
        ("x = 1", "y = 1", False),
        ("x = 1", "x = 1\ny = 1", False),
        ("x = 1", "x = 1.0", False),
        ("def f():\n    '''One.'''", "def f():\n    '''一。'''", True),
    ],
)
def test_translations_may_differ_in_comments_and_words(original: str, translation: str, same: bool) -> None:
    assert compare.same_code(original, translation) is same


def png(pixels: Callable[[int, int], int], size: tuple[int, int] = (96, 64)) -> bytes:
    from PIL import Image

    image = Image.new("L", size)
    image.putdata([pixels(x, y) for y in range(size[1]) for x in range(size[0])])
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def test_pictures_are_compared() -> None:
    pytest.importorskip("PIL")
    disc = png(lambda x, y: 255 if (x - 40) ** 2 + (y - 30) ** 2 < 400 else 0)
    smoother = png(lambda x, y: max(0, min(255, 255 + 10 * (400 - (x - 40) ** 2 - (y - 30) ** 2))))
    moved = png(lambda x, y: 255 if (x - 50) ** 2 + (y - 30) ** 2 < 400 else 0)
    larger = png(lambda x, y: 255 if (x - 40) ** 2 + (y - 30) ** 2 < 400 else 0, (120, 64))
    assert compare.same_picture(disc, smoother)
    assert not compare.same_picture(disc, moved)
    assert not compare.same_picture(disc, larger)


def test_pictures_keep_their_colours() -> None:
    """A coloured gradient has more than 256 colours, and a few pixels of a colour of its own."""
    Image = pytest.importorskip("PIL.Image")

    image = Image.new("RGB", (256, 96))
    image.putdata([(x, 255 - x, y * 2) if y < 90 else (255, 0, 0) for y in range(96) for x in range(256)])
    file = io.BytesIO()
    image.save(file, "png")
    smaller = build_notebooks.smaller(file.getvalue())
    assert compare.same_picture(file.getvalue(), smaller)
    assert Image.open(io.BytesIO(smaller)).convert("RGB").getpixel((10, 95)) == pytest.approx((255, 0, 0), abs=16)


# --- the program ----------------------------------------------------------------------------------------------

ORIGINAL = """\
# Sample

```python
import matplotlib.pyplot as plt
x = [1, 2, 4]
print("sum", sum(x))
x
```

```text
sum 7
[1, 2, 4]
```

```python
plt.figure(figsize=(2, 1))
plt.plot(x)
plt.show()
```

![Three numbers](images/numbers.png)
"""
TRANSLATION = ORIGINAL.replace("Sample", "例").replace('"sum"', '"和"').replace("sum 7", "和 7")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page, its translation, their picture and notebooks, as the program writes them."""
    for package in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(package, reason="make docs installs it")
    folder = tmp_path_factory.mktemp("good")
    (folder / "sample.md").write_text(ORIGINAL.replace("sum 7\n", "sum 8\n"), encoding="utf-8")
    (folder / "sample.zh.md").write_text(TRANSLATION.replace("```text\n和 7\n[1, 2, 4]\n```\n\n", ""), encoding="utf-8")
    assert build_notebooks.main(["--update"], sorted(folder.glob("*.md"))) == 0
    return folder


def test_update_writes_outputs_pictures_and_notebooks(good: Path) -> None:
    assert (good / "sample.md").read_text(encoding="utf-8") == ORIGINAL
    assert (good / "sample.zh.md").read_text(encoding="utf-8") == TRANSLATION
    made = json.loads((good / "sample.ipynb").read_text(encoding="utf-8"))
    assert [cell["cell_type"] for cell in made["cells"]] == ["markdown", "code", "code"]
    assert made["cells"][1]["outputs"][0]["text"] == ["sum 7\n", "[1, 2, 4]\n"]
    assert "image/png" in made["cells"][2]["outputs"][0]["data"]
    assert build_notebooks.main(["--check"], sorted(good.glob("*.md"))) == 0


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("sum 7", "sum 8", "+sum 7"),
        ("plot(x)", "plot(x[:2])", "draws something else than images/numbers.png"),
        ("sum(x)", "sum(y)", "line 3: the cell fails"),
        ("plt.show()", "import warnings; warnings.warn('!')", "writes to stderr"),
        ("![Three numbers](images/numbers.png)", "", "draws 1 picture(s), but 0 image line(s) follow"),
    ],
)
def test_check_finds_what_a_run_contradicts(good: Path, tmp_path: Path, old: str, new: str, problem: str) -> None:
    folder = shutil.copytree(good, tmp_path / "changed")
    file = folder / "sample.md"
    file.write_text(ORIGINAL.replace(old, new), encoding="utf-8")
    try:
        found = build_notebooks.check(file)
    except page.PageError as error:
        found = [str(error)]
    assert any(problem in text for text in found), found


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("sample.md", "Sample", "Example", "sample.ipynb is not made of this page"),
        ("sample.zh.md", "x = [1", "x = [0", "the code is not that of line 3"),
        ("sample.zh.md", "images/numbers.png", "images/other.png", "the pictures are not those of line 15"),
        ("sample.zh.md", "```python\nplt", "```py\nplt", "it has 1 cells, the original has 2"),
    ],
)
def test_check_finds_what_does_not_fit_together(
    good: Path, tmp_path: Path, name: str, old: str, new: str, problem: str
) -> None:
    folder = shutil.copytree(good, tmp_path / "changed")
    (folder / "images/other.png").write_bytes((folder / "images/numbers.png").read_bytes())
    file = folder / name
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    found = build_notebooks.check_without_running(file)
    assert any(problem in text for text in found), found
