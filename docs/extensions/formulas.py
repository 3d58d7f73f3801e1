"""Turns formulas into MathML while the site is built, so that a browser draws them without scripts or a network."""

from __future__ import annotations

import re

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

CONVERTER = LatexToMathML(fancy_error=False, annotation=False)
logger = logging.getLogger(__name__)


def mathml(latex: str, display: bool) -> str:
    """Converts one formula. Display formulas of several lines are aligned at ``&``, as Sphinx does it for LaTeX."""
    if display and r"\\" in latex and r"\begin" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    # No formula of the site is numbered.
    latex = re.sub(r"\\(begin|end){(align|gather|equation)}", r"\\\1{\2*}", latex)
    return CONVERTER.convert_with_local_state(latex, displaystyle=display)


def _append(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    display = isinstance(node, nodes.math_block)
    try:
        formula = mathml(node.astext(), display)
    except LatexError as error:
        logger.warning("Expected a formula that math-core knows, but got %r: %s", node.astext(), error, location=node)
        formula = f"<code>{translator.encode(node.astext())}</code>"
    tag = "div" if display else "span"
    translator.body.append(f'<{tag} class="math">{formula}</{tag}>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_append, None), (_append, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
