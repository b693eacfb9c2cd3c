"""Configuration of Sphinx: ``sphinx-build -W docs build/html``, with the package installed."""

import sparsearray

project = "sparsearray"
author = "The sparsearray developers"
copyright = author
version = release = sparsearray.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
default_role = "py:obj"  # `alloc` in a docstring is a link, `offset` is code

autodoc_typehints = "none"  # the parameters' sections say it
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # api.md lists them, by subject

html_theme = "furo"
html_title = f"sparsearray {release}"
html_copy_source = False
html_show_sphinx = False
