"""Settings of the documentation's build: ``sphinx-build -W docs site``, which needs no network."""

import sys
from importlib.util import find_spec
from pathlib import Path

import joblib

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from sklgap import __version__  # noqa: E402  found by the line above, installed or not

project = "sklgap"
author = "the sklgap developers"
copyright = author
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    *(["sphinx_copybutton"] if find_spec("sphinx_copybutton") else []),  # a site without it has no copy buttons
    # docs/_ext
    "api_pages",
    "benchmarks",
    "links",
    "mathml",
    "pictures",
    "quick_mode",
]
exclude_patterns = ["_ext", "_static", "_templates", "_build", "architecture.md"]  # developer/architecture.md has it
templates_path = ["_templates"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}

# Every name in single backticks is a link: a misspelt one fails the build. See _ext/links.py.
default_role = "py:obj"
nitpicky = True

autosummary_generate = True
# scikit-learn's own methods, described in its documentation.
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request, set_partial_fit_request"}
toc_object_entries_show_parents = "hide"  # beside a page the name of its class is known
autodoc_typehints = "none"  # the docstrings state types in words
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"[\\/]plot_",
    "ignore_pattern": r"(^|[\\/])(?!plot_)\w+\.py$",
    "within_subsection_order": "FileNameSortKey",
    "reset_argv": "quick_mode.reset_argv",
    "image_scrapers": ("quick_mode.svg_scraper",),
    "capture_repr": (),  # what a cell prints is all of its output
    "parallel": joblib.cpu_count(),
    "abort_on_example_error": True,
    "show_signature": False,
    "download_all_examples": False,
    "write_computation_times": False,
    "backreferences_dir": "auto_examples/backreferences",
    "doc_module": ("sklgap",),
}

# Code has a button that copies it, without prompts; what a program printed has none.
copybutton_selector = "div[class*=highlight-]:not(.highlight-text):not(.highlight-none) pre"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "sklgap"
html_static_path = ["_static"]
html_css_files = ["sklgap.css"]
html_theme_options = {
    "show_prev_next": True,
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {
    name: [] for name in ("index", "get_started", "papers", "peers", "changelog", "results/README", "benchmarks")
}
html_copy_source = False
html_show_sourcelink = False
