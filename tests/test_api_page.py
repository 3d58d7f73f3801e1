"""Every public name is on the API page."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "api.md"
MODULES = (
    "",
    ".losses",
    ".losses.baselines",
    ".transport",
    ".metrics",
    ".metrics.protocols",
    ".metrics.functional",
    ".annotations",
    ".annotations.lists",
    ".evaluate",
    ".masks",
    ".identification",
    ".clustering",
    ".object_prior",
    ".soft_kmeans",
    ".distributed",
)


def public_names(module_name: str) -> list[str]:
    """The names of ``__all__``, or the classes and functions that the module defines."""
    module = importlib.import_module(module_name)
    defined = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module_name)
    return list(getattr(module, "__all__", (name for name in defined if not name.startswith("_"))))


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_the_page(module):
    page = set(re.findall(r"\w+", PAGE.read_text(encoding="utf-8")))
    public = public_names(f"sslosses{module}")
    assert public
    assert [name for name in public if name not in page] == []
