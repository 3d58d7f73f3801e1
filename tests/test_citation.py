"""CITATION.cff agrees with the package and with the BibTeX entries of README and docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import sslosses

ROOT = Path(__file__).resolve().parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_library() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["version"] == sslosses.__version__
    assert " AND ".join(CITATION["license"]) in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "docs/project/links.md"])
def test_the_paper(page: str) -> None:
    paper = CITATION["preferred-citation"]
    text = (ROOT / page).read_text(encoding="utf-8")
    (entry,) = re.findall(r"@inproceedings\{.*?\n```", text, re.DOTALL)
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert paper["title"] in entry
    assert authors in entry
    assert str(paper["year"]) in entry
    assert entry.count("{") == entry.count("}")


def test_the_version_in_the_docs() -> None:
    text = (ROOT / "docs" / "project" / "links.md").read_text(encoding="utf-8")
    assert re.search(r"version = \{(.*)\}", text).group(1) == sslosses.__version__
