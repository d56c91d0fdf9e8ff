"""What CSS alone cannot give to pages: wide blocks, sizes of pictures, numbers in one piece, short defaults."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx


def mark_blocks(app: Sphinx, doctree: nodes.document) -> None:
    """Give blocks with rows of more than 104 characters a class (see sklgap.css), and commands a language."""
    page = Path(app.env.doc2path(app.env.docname)).suffix == ".md"
    for block in doctree.findall(lambda node: isinstance(node, (nodes.literal_block, nodes.doctest_block))):
        text = block.astext()
        rows = [row for row in text.splitlines() if "   " in row.strip() or row.startswith(">>> ")]
        if max(map(len, rows), default=0) > 104:
            block["classes"].append("wide")
        if page and isinstance(block, nodes.literal_block) and block.get("language", "default") == "default":
            block["language"] = "none" if "   " in text.partition("\n")[0] else "sh"


def size_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Show every PNG in the size of its figure, so that letters are about as large in one as in another."""
    for picture in doctree.findall(nodes.image):
        path = Path(app.srcdir) / picture["uri"]
        if path.suffix == ".png" and path.exists() and "width" not in picture:
            with Image.open(path) as opened:
                picture["width"] = f"{opened.width / opened.info.get('dpi', (150, 150))[0] * 96:.0f}px"


def bind_numbers(_app: Sphinx, doctree: nodes.document) -> None:
    """Let no line end before a percent sign, and no line of a table between the parts of ``1 ± 2`` or ``[1, 2]``."""
    for text in list(doctree.findall(nodes.Text)):
        if isinstance(text.parent, (nodes.FixedTextElement, nodes.literal, nodes.raw)):
            continue
        bound = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text)
        parent = text.parent
        while parent is not None and not isinstance(parent, nodes.row):
            parent = parent.parent
        if parent is not None:
            bound = bound.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
            if len(parent.children) < 6:  # a wider table would not fit
                bound = re.sub(r"(\[[\d.+−-]+,) (?=[\d.+−-]+\])", "\\1\N{NO-BREAK SPACE}", bound)
        if bound != text:
            text.parent.replace(text, nodes.Text(bound))


def short_defaults(*event: object) -> tuple[str, object] | None:
    """Write a class among the defaults of a signature by its name: ``Adam``."""
    signature, returned = event[-2:]
    return (re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", signature), returned) if signature else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect what changes pages as they are read."""
    app.connect("doctree-read", mark_blocks)
    app.connect("doctree-read", size_pictures)
    app.connect("doctree-read", bind_numbers)
    app.connect("autodoc-process-signature", short_defaults)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
