"""Every public name is on the API page."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "api.md"
MODULES = (
    "",
    ".losses",
    ".transport",
    ".metrics",
    ".metrics.protocols",
    ".metrics.functional",
    ".annotations",
    ".evaluate",
)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_the_page(module):
    page = set(re.findall(r"\w+", PAGE.read_text(encoding="utf-8")))
    public = importlib.import_module(f"sslosses{module}").__all__
    assert [name for name in public if name not in page] == []
