"""Configuration of Sphinx: ``sphinx-build -W docs build/html``, with the package installed."""

import sparsearray

project = "sparsearray"
author = "The sparsearray developers"
copyright = author
version = release = sparsearray.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc", "sphinx_copybutton"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
default_role = "py:obj"  # `alloc` in a docstring is a link, `offset` is code

myst_heading_anchors = 3
nb_execution_mode = "off"  # shown as they ran; tests/test_notebooks.py runs them
nb_merge_streams = True

autodoc_typehints = "none"  # the parameters' sections say it
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # api.md lists them, by subject

copybutton_exclude = ".linenos, .gp, .go"  # prompts and what was printed

html_theme = "furo"
html_title = f"sparsearray {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
