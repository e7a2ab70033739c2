"""Settings of Sphinx, and how formulas are shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import convext  # noqa: E402

project = "convext"
author = "convext developers"
release = convext.__version__
version = release
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]

html_theme = "furo"
html_title = f"convext {release}"
html_static_path = ["static"]
html_css_files = ["convext.css"]
html_copy_source = False
html_math_renderer = "mathml"
highlight_language = "none"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
# Commands are copied without their prompt, outputs need not be copied.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"

autosummary_generate = False
autodoc_inherit_docstrings = False  # those of torch's classes are torch's documentation
autodoc_member_order = "bysource"
autodoc_type_aliases = {"Padding": "Padding"}
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# `name` in a docstring is a link where there is such a name.
default_role = "py:obj"
# Names of other packages have no page here, and links to theirs could not be checked without a network; a `name` in
# a docstring may be an argument; and a signature may name a class that no page describes.
nitpick_ignore_regex = [("py:obj", r".*"), ("py:.*", r"(?!convext\.).*"), ("py:class", r"convext\..*")]


def visit_inline_formula(self: Any, node: nodes.math) -> None:
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_block_formula(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def outdent_source(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Makes one paragraph of a ``Source:`` that goes on in indented lines, which would be a definition list."""
    in_source = False
    for index, line in enumerate(lines):
        in_source = line.startswith("Source: ") or (in_source and line.startswith("    "))
        if in_source:
            lines[index] = line.lstrip()


def setup(app: Any) -> dict[str, bool]:
    """Formulas are MathML, which browsers draw by themselves: no script is fetched from elsewhere."""
    app.connect("autodoc-process-docstring", outdent_source)
    app.add_html_math_renderer(
        "mathml", inline_renderers=(visit_inline_formula, None), block_renderers=(visit_block_formula, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
