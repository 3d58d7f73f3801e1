"""Every public name is on a page of the API reference."""

import importlib
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[1] / "docs" / "reference" / "api"
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
def test_every_public_name_is_on_a_page(module):
    described = {word for page in PAGES.glob("*.md") for word in re.findall(r"\w+", page.read_text(encoding="utf-8"))}
    public = public_names(f"sslosses{module}")
    assert public
    assert [name for name in public if name not in described] == []


def test_every_page_is_in_the_overview():
    overview = (PAGES.parent / "api.md").read_text(encoding="utf-8")
    tables = re.findall(r"^   api/(\w+)$", overview, re.MULTILINE)
    assert tables == re.findall(r"^api/(\w+)$", overview, re.MULTILINE)
    assert sorted(tables) == sorted(page.stem for page in PAGES.glob("*.md"))
