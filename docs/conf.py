"""Sphinx configuration. Build: python -m sphinx -W --keep-going -b html docs docs/_build/html."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path

import sslosses

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "sslosses"
author = "The sslosses authors"
version = release = sslosses.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "arguments",
    "formulas",
    "name_table",
]

exclude_patterns = ["_build"]

# A misspelled reference to an object of this library is an error. Pages of other packages are not checked.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"((torch|torchmetrics|collections|itertools|os|pathlib)\..*|Tensor)")]

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 100

html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_theme = "furo"
# Links to the code, once pyproject.toml names a repository.
with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as _file:
    _repository = tomllib.load(_file)["project"].get("urls", {}).get("Repository", "")
if _repository:
    html_theme_options = {"source_repository": _repository, "source_branch": "main", "source_directory": "docs/"}
html_title = f"sslosses {version}"
html_copy_source = False
html_show_copyright = False


def _silence_field_aliases(module: str) -> None:
    """Drop "Alias for field number 0" from the fields of NamedTuples; the class docstrings describe them."""
    for value in vars(importlib.import_module(module)).values():
        if isinstance(value, type) and issubclass(value, tuple):
            for field in getattr(value, "_fields", ()):
                getattr(value, field).__doc__ = ""


for _module in (
    "sslosses.distributed",
    "sslosses.identification",
    "sslosses.losses",
    "sslosses.losses.baselines",
    "sslosses.masks",
    "sslosses.metrics.functional",
    "sslosses.soft_kmeans",
    "sslosses.transport",
):
    _silence_field_aliases(_module)
