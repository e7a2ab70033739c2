"""What the site is made of: `pages` lays out the sources that Sphinx reads, with the settings in ``conf.py``.

``docs/build_site.py`` is the program.
"""
