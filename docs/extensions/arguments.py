"""Gives loss modules the descriptions of the options that their functions have, so that they are written once.

A loss module is a dataclass whose options are those of the function that its docstring names first. Its documentation,
and that of its ``forward``, show the function's descriptions. So does a method with "arguments as in :func:`...`".
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import Any

import sphinx.util.inspect
from sphinx.application import Sphinx
from sphinx.util import logging

from sslosses.losses._module import LossModule

SECTIONS = re.compile(r"(Returns|Raises|Source|Example|Attributes)\b.*:")
logger = logging.getLogger(__name__)


def descriptions(lines: list[str]) -> dict[str, list[str]]:
    """Returns the lines of each entry of the section "Args", by the name of the argument."""
    entries: dict[str, list[str]] = {}
    if "Args:" not in lines:
        return entries
    for line in lines[lines.index("Args:") + 1 :]:
        if line and not line.startswith(" "):
            break
        if entry := re.match(r" {4}(\w+): ", line):
            entries[entry[1]] = []
        if entries and line:
            entries[[*entries][-1]].append(line)
    return entries


def named_function(docstring: str) -> Any:
    """Returns the loss that a docstring names first."""
    name = re.search(r":func:`~?(?:[\w.]+\.)?(\w+)`", docstring)
    return getattr(importlib.import_module("sslosses.losses"), name[1]) if name else None


def options_of(module: type[LossModule]) -> list[str]:
    """Returns the names of a module's options, those of its base class where the module itself has them."""
    names = [field.name for field in dataclasses.fields(module)]
    own = [name for name in inspect.get_annotations(module) if name in names]
    return [*own, *(name for name in names if name not in own)]


def show_options(_app: Sphinx, what: str, _name: str, value: Any, _options: Any, *event: Any) -> tuple[str, Any] | None:
    """Shows the options of a loss module in its signature, and ``= ...`` for a default that a factory makes."""
    signature, returns = event
    if what == "class" and issubclass(value, LossModule):
        constructor = sphinx.util.inspect.signature(value.__init__, bound_method=True)
        options = [constructor.parameters[name] for name in options_of(value)]
        constructor = constructor.replace(parameters=options, return_annotation=inspect.Signature.empty)
        signature = sphinx.util.inspect.stringify_signature(constructor)
    # Sphinx cannot parse ``= <factory>``.
    return (signature.replace("<factory>", "..."), returns) if signature else None


def _owner(name: str) -> Any:
    module, owner, _ = name.rsplit(".", 2)
    return getattr(importlib.import_module(module), owner, None)


def add_descriptions(_app: Sphinx, what: str, name: str, value: Any, _options: Any, lines: list[str]) -> None:
    text = "\n".join(lines)
    if what == "class" and issubclass(value, LossModule):
        function, wanted = named_function(text), options_of(value)
    elif what == "method" and name.endswith(".forward") and issubclass(owner := _owner(name), LossModule):
        function, wanted = named_function(owner.__doc__ or ""), [*inspect.signature(value).parameters][1:]
    elif what == "method" and "rguments as in :func:" in text:
        function, wanted = named_function(text), [*inspect.signature(value).parameters][1:]
    else:
        return
    entries = descriptions(inspect.cleandoc(function.__doc__).splitlines()) | descriptions(lines)
    for argument in wanted:
        if argument not in entries:
            logger.warning("Expected a description of `%s` in %s or %s", argument, name, function.__name__)
    section = ["Args:", *(line for argument in wanted for line in entries.get(argument, [])), ""]
    start = lines.index("Args:") if "Args:" in lines else None
    after = next((i for i, line in enumerate(lines) if SECTIONS.match(line)), len(lines))
    if start is None:
        section, start = ["", *section], after
    lines[start:after] = section


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-signature", show_options)
    app.connect("autodoc-process-docstring", add_descriptions, priority=400)  # before napoleon, which reads "Args"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
