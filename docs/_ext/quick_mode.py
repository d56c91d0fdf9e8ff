"""The gallery: its options, its pictures as SVG and early on the page, and its scripts without a command line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx_gallery.py_source_parser import remove_ignore_blocks
from sphinx_gallery.scrapers import matplotlib_scraper
from tqdm.std import tqdm

_TITLE = re.compile(r"^(?P<title>[^\n]+)\n=+\n\n(?P<idea>(?:[^\n]+\n)+)\n", re.MULTILINE)
_PICTURE = re.compile(r"^\.\. image-sg:: [^\n]+\n(?:   [^\n]*\n)+", re.MULTILINE)


def reset_argv(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """Return the arguments that a script of the gallery sees, in the process that runs it."""
    tqdm.status_printer = staticmethod(no_bar)
    return ["--quick"]


def no_bar(file: Any) -> Callable[[str], None]:
    """Stand in for what writes a progress bar: a page would show every state of it."""
    return lambda text: None


def svg_scraper(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any], **options: Any) -> str:
    """Save the figures of a block as SVG, which is sharp on every screen."""
    return matplotlib_scraper(block, block_vars, gallery_conf, format="svg", **options)


def picture_early(app: Sphinx, docname: str, source: list[str]) -> None:
    """Show the picture of an example below its idea, before the code that draws it."""
    if docname.startswith("auto_examples/plot_"):
        source[0] = with_early_picture(source[0])


def with_early_picture(text: str) -> str:
    """Return the page of an example with a copy of its last picture below its first paragraph."""
    pictures, found = _PICTURE.findall(text), _TITLE.search(text)
    if not pictures or found is None:
        return text
    return f"{text[: found.end()]}{pictures[-1]}\n{text[found.end() :]}"


def prefer_svg(app: Sphinx, doctree: nodes.document) -> None:
    """Show the SVG that lies beside a PNG: pages name the PNG, which is shown where they are read as files too."""
    folder = Path(app.env.doc2path(app.env.docname)).parent
    for image in doctree.findall(nodes.image):
        uri = image["uri"]
        if uri.endswith(".png") and (folder / uri).with_suffix(".svg").exists():
            image["uri"] = uri.removesuffix(".png") + ".svg"


def plain_downloads(app: Sphinx, error: Exception | None) -> None:
    """Take the command line out of the scripts that pages offer: its helper is not beside them."""
    if error is None:
        for script in Path(app.outdir, "_downloads").glob("*/plot_*.py"):
            script.write_text(remove_ignore_blocks(script.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what happens while pages are read and after they are written."""
    app.connect("source-read", picture_early)
    app.connect("doctree-read", prefer_svg, priority=400)  # before Sphinx collects images
    app.connect("build-finished", plain_downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
