"""Configuration of the documentation site; `make docs` builds it with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

import abair

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ABAIR"
author = "The ABAIR authors"
copyright = "2026, the ABAIR authors"
release = version = abair.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "abair_docs"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
default_role = "code"  # docstrings mark code with single backticks

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # pages written by commands may skip a level

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"exclude-members": "model_config"}
python_use_unqualified_type_names = True
napoleon_google_docstring = True

smartquotes = False  # `--option` is no dash

html_theme = "furo"
html_title = "ABAIR"
html_static_path = ["_static"]
html_css_files = ["abair.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
