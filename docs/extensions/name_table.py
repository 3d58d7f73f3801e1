"""The directive ``name-table``: a table of the names that pages of the API reference describe, one sentence each.

Its content is one page per line, relative to the page that it is on.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from arguments import named_function
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from sslosses.losses._module import LossModule

KINDS = r"automodule|currentmodule|autoclass|autofunction|py:\w+"
OBJECT = re.compile(rf"^\.\. ({KINDS}):: (\S+)\n((?: {{3}}.*\n|\n)*)", re.MULTILINE)
SENTENCE = re.compile(r".*?[^\s.]\.(?=\s+[A-Z`:]|$)")
RELATIVE = re.compile(r"(:\w+:`)(?!~|sslosses|torch)([\w.]+)`")


def first_sentence(text: str) -> str:
    """Returns the first sentence of the first paragraph."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    found = SENTENCE.match(paragraph)
    return found[0] if found else paragraph


def described(page: str) -> Iterator[tuple[str, str, str]]:
    """Yields module, name and first sentence of everything that a page describes."""
    module = ""
    for kind, name, body in OBJECT.findall(page):
        if kind.startswith("py:"):
            yield module, name, first_sentence(re.sub(r"^ *:\w+:.*\n", "", body, flags=re.MULTILINE))
            continue
        names = [name]
        if kind in ("automodule", "currentmodule"):
            module = name
            listed = re.search(r":members:((?:.|\n)*?)(?=\n\s*:|\n\n|\Z)", body)
            names = [part.strip() for part in (listed[1] if listed else "").split(",") if part.strip()]
        for member in names:
            value = getattr(importlib.import_module(module), member)
            if isinstance(value, type) and issubclass(value, LossModule):
                value = named_function(value.__doc__ or "")
            yield module, member, first_sentence(inspect.getdoc(value) or "")


class NameTable(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        rows = []
        for page in self.content:
            path = Path(self.env.doc2path(self.env.docname)).parent / f"{page}.md"
            self.env.note_dependency(str(path))
            for module, name, sentence in described(path.read_text(encoding="utf-8")):
                # Names in a docstring are relative to its module.
                sentence = RELATIVE.sub(rf"\1\2 <{module}.\2>`", sentence)
                rows += [f"   * - :py:obj:`~{module}.{name}`", f"     - {sentence}"]
        head = [".. list-table::", "   :header-rows: 1", "   :class: names", ""]
        return self.parse_text_to_nodes("\n".join([*head, "   * - name", "     - meaning", *rows]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("name-table", NameTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
