"""Pages whose code is run: what their cells print and draw is checked against the page, and put into a notebook.

`page` reads and writes a page of Markdown, `run` executes its cells in a Jupyter kernel, `compare` says what differs,
`notebook` puts the notebook together. ``docs/build_notebooks.py`` is the program.
"""
