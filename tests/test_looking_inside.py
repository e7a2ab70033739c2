"""The programs in docs/looking_inside.md run, and print what it says where that does not depend on the machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[1] / "docs" / "looking_inside.md"


def test_the_programs_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convext._pass_timing.SECONDS", 0.0)
    text = DOCUMENT.read_text()
    names: dict[str, object] = {}
    printed = []
    for program in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(program, names)
        printed.append(capsys.readouterr().out)
    maps, explanation = printed
    assert all(f"    {line}\n" in text for line in maps.splitlines()) and (tmp_path / "feature_maps.png").exists()
    # Kernels and times are those of the machine; the words around them are the document's.
    for line in (explanation.splitlines()[0], "forward: ", "    floor     ", "    measured  ", "    why       not "):
        assert line in explanation and f"    {line}" in text
