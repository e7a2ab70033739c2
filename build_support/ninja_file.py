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
    """The edges of all modules: objects, then the links."""

    def __init__(self, root: Path, build: Path, compiler: list[str]) -> None:
        self._root = root
        self._path = build / "build.ninja"
        self._build = build
        command = _escape(shlex.join(compiler))
        self._text = ["ninja_required_version = 1.5"]
        self.rule("compile", f"{command} $flags -MD -MF $out.d -c $in -o $out", depfile="$out.d", deps="gcc")
        self.rule("link", f"{command} $in $flags -o $out")

    def rule(self, name: str, command: str, **variables: str) -> None:
        """``command`` is as ninja reads it: with $in, $out and $flags."""
        self._text += [f"rule {name}", f"  command = {command}", f"  description = {name} $label"]
        self._text += [f"  {variable} = {value}" for variable, value in variables.items()]

    def compile(self, source: Path, object_name: str, flags: list[str], rule: str = "compile") -> Path:
        return self.edge(rule, [source], object_name, flags)

    def link(
        self, module_name: str, objects: list[Path], flags: list[str], depends_on: list[Path], rule: str = "link"
    ) -> Path:
        return self.edge(rule, objects, module_name, flags, depends_on)

    def edge(
        self, rule: str, inputs: list[Path], target_name: str, flags: list[str], depends_on: Sequence[Path] = ()
    ) -> Path:
        target = self._build / target_name
        listed = " ".join(_escape_path(path) for path in inputs)
        if depends_on:
            listed += " | " + " ".join(_escape_path(path) for path in depends_on)
        self._text += [
            f"build {_escape_path(target)}: {rule} {listed}",
            f"  flags = {_escape(shlex.join(flags))}",
            f"  label = {target_name}",
        ]
        return target

    def write(self) -> None:
        text = "\n".join(self._text) + "\n"
        if not self._path.exists() or self._path.read_text() != text:
            self._path.write_text(text)
