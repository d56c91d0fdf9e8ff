"""Settings of the documentation's build: ``sphinx-build -W docs site``, which needs no network.

Where there is one, names of scikit-learn, torch, skorch, NumPy and others become links.
``SKLGAP_DOCS_OFFLINE=1`` leaves the network alone.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import joblib
from numpydoc.xref import DEFAULT_LINKS

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from links import inventories  # noqa: E402  the line above adds docs/_ext, which holds it, to the path
from public_names import places  # noqa: E402  the same line adds the folder of this module

from sklgap import __version__  # noqa: E402  of this checkout, also where it is not installed

project = "sklgap"
author = "the sklgap developers"
copyright = author
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    *(["sphinx_copybutton"] if find_spec("sphinx_copybutton") else []),  # a site without it has no copy buttons
    # docs/_ext
    "api_pages",
    "benchmarks",
    "layout",
    "links",
    "mathml",
    "pictures",
    "quick_mode",
    "versions",
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
# In the lists of parameters and returned values classes are links. Words such as int would need the inventory of
# Python.
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {word: word for word, link in DEFAULT_LINKS.items() if ":" in link}
numpydoc_xref_aliases |= {name: f"{package}.{name}" for name, package in places().items() if name[0].isupper()}
numpydoc_xref_aliases |= {
    "Bunch": "sklearn.utils.Bunch",
    "DataLoader": "torch.utils.data.DataLoader",
    "Dataset": "torch.utils.data.Dataset",
    "Module": "torch.nn.Module",
    "Tensor": "torch.Tensor",
}

intersphinx_mapping = inventories(HERE / "_build" / "inventories")
intersphinx_disabled_reftypes = ["std:*"]  # our glossary's terms, never those of others

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
    name: []
    for name in (
        "index",
        "get_started",
        "map",
        "glossary",
        "faq",
        "cite",
        "papers",
        "peers",
        "changelog",
        "results/README",
        "benchmarks",
    )
}
html_copy_source = False
html_show_sourcelink = False
