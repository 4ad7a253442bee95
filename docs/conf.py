"""How the documentation is built: `python -m sphinx -W --keep-going -n docs build/docs`."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "runrails"
author = "The runrails developers"
copyright = author  # noqa: A001 -- Sphinx's word
release = version = installed_version("runrails")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "rr_reference"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext", "_static", "README.md"]
nitpicky = True
# LangChain asks the middleware for it; nobody else needs it.
nitpick_ignore = [("py:class", "runrails_langchain.middleware.GuardrailState")]
show_warning_types = True
smartquotes = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# In docstrings a name in single backticks is code, as everywhere in this project.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"runrails {release}"
html_static_path = ["_static"]
html_css_files = ["runrails.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6b4f", "color-brand-content": "#0b6b4f"},
    "dark_css_variables": {"color-brand-primary": "#5ccfa6", "color-brand-content": "#5ccfa6"},
}

# Somebody else's pages; `python -m sphinx -b linkcheck docs build/links` asks for them, the offline build does not.
linkcheck_timeout = 20
linkcheck_workers = 4
linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost|.*\.example\.com|example\.com)", r"https://hooks\.slack\.com/.*"]
