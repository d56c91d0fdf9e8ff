"""Equations as MathML, which browsers draw themselves: no script, no font, no network."""

import html
import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

# Sizes of brackets, which MathML finds by itself.
SIZES = re.compile(r"\\[Bb]igg?[lr]?\s*([()\[\]|])")


def mathml(node: nodes.Element, tex: str, *, as_block: bool) -> str:
    """Return MathML; a warning, and the text itself, for what the converter does not know."""
    try:
        return tex2mathml(SIZES.sub(r"\1", tex), as_block=as_block)
    except MathError as error:
        logger.warning("%s in: %s", error, tex, location=node)
        return f"<code>{html.escape(tex)}</code>"


def inline(self: Any, node: nodes.math) -> None:
    """Write an equation within a line."""
    self.body.append(mathml(node, node.astext(), as_block=False))
    raise nodes.SkipNode


def display(self: Any, node: nodes.math_block) -> None:
    """Write an equation of its own lines; as in LaTeX's ``align`` where it has an alignment mark."""
    tex = node.astext()
    if "&" in tex or r"\\" in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    self.body.append(f'<div class="equation">{mathml(node, tex, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    app.connect("config-inited", lambda app, config: setattr(config, "html_math_renderer", "mathml"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
