"""The systems of the tables, one file each. The name of a method is that of its file, with hyphens."""

from __future__ import annotations

from importlib import import_module

from ..model.method import Method


def method_class(name: str) -> type[Method]:
    """Returns the class of the method ``name``."""
    method: type[Method] = import_module(f"{__name__}.{name.replace('-', '_')}").METHOD
    return method
