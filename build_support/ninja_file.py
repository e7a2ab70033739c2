"""Writes build.ninja. Ninja itself notices a changed command, source or header (from the depfiles)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def _escape(text: str) -> str:
    return text.replace("$", "$$").replace("\n", " ")


def _escape_path(path: Path) -> str:
    return _escape(str(path)).replace(" ", "$ ").replace(":", "$:")


class NinjaFile:
    """The edges of one module: objects, then the link."""

    def __init__(self, root: Path, build: Path, compiler: list[str]) -> None:
        self._root = root
        self._path = build / "build.ninja"
        self._build = build
        command = _escape(shlex.join(compiler))
        self._text = [
            "ninja_required_version = 1.5",
            "rule compile",
            f"  command = {command} $flags -MD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = compile $label",
            "rule link",
            f"  command = {command} $in $flags -o $out",
            "  description = link $label",
        ]
        self._objects: list[Path] = []

    def compile(self, source: Path, object_name: str, flags: list[str]) -> None:
        target = self._build / object_name
        self._objects.append(target)
        self._edge("compile", [source], target, flags, object_name)

    def link(self, module_name: str, flags: list[str], depends_on: list[Path]) -> Path:
        target = self._build / module_name
        self._edge("link", self._objects, target, flags, module_name, depends_on)
        return target

    def write(self) -> None:
        text = "\n".join(self._text) + "\n"
        if not self._path.exists() or self._path.read_text() != text:
            self._path.write_text(text)

    def _edge(
        self,
        rule: str,
        inputs: list[Path],
        target: Path,
        flags: list[str],
        label: str,
        depends_on: Sequence[Path] = (),
    ) -> None:
        listed = " ".join(_escape_path(path) for path in inputs)
        if depends_on:
            listed += " | " + " ".join(_escape_path(path) for path in depends_on)
        self._text += [
            f"build {_escape_path(target)}: {rule} {listed}",
            f"  flags = {_escape(shlex.join(flags))}",
            f"  label = {label}",
        ]
