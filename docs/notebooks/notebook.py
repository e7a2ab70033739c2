"""The notebook of a page: its prose and code, and the outputs that the page shows.

It is made of the page and its pictures alone, so it is the same file on every machine; that the outputs are those of
a real run is checked on the page.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from notebooks.page import Cell, Page, PageError


def notebook(page: Page, folder: Path) -> str:
    """The text of an .ipynb file.

    Args:
        page: what it is made of.
        folder: where the page's picture files are found.

    Raises:
        PageError: for a picture that is not there.
    """
    cells: list[dict[str, Any]] = []
    for part in page.parts:
        cell: dict[str, Any] = {"id": f"cell-{len(cells) + 1}", "metadata": {}}
        if isinstance(part, Cell):
            number = sum(cell["cell_type"] == "code" for cell in cells) + 1
            cell |= {"cell_type": "code", "execution_count": number, "source": _lines(part.code)}
            cell["outputs"] = _outputs(part, folder)
        else:
            cell |= {"cell_type": "markdown", "source": _lines(part.text)}
        cells.append(dict(sorted(cell.items())))
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _outputs(cell: Cell, folder: Path) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = []
    if cell.output is not None:
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(cell.output.text + "\n")})
    for picture in cell.pictures:
        try:
            data = (folder / picture.file).read_bytes()
        except OSError:
            raise PageError(f"line {cell.line}: there is no picture {picture.file}; --update draws it") from None
        content = {"image/png": base64.b64encode(data).decode(), "text/plain": [picture.caption]}
        outputs.append({"data": content, "metadata": {}, "output_type": "display_data"})
    return outputs


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)
