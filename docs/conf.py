"""Settings of the manual: ``bash scripts/docs.sh`` builds it."""

import imgcls

project = "imgcls"
author = "the imgcls authors"
version = release = imgcls.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["examples", "*.ipynb"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"imgcls {version}"
html_static_path = ["_static"]
html_css_files = ["wrap.css"]

# Pages are built without a network, so only names of this package can be resolved; private names have no page.
nitpick_ignore_regex = [("py:.*", r"(?!imgcls\.).*"), ("py:.*", r".*\._\w+")]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
