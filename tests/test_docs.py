"""The Python of every page of the documentation runs, block after block, and prints what the page says it prints."""

import contextlib
import io
import json
import re
from pathlib import Path

import matplotlib as mpl
import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md") if "```python" in page.read_text(encoding="utf-8"))


def blocks(page: str) -> list[tuple[int, str, str | None]]:
    """Line number and text of a page's Python blocks, and the text block right after each, which is its output."""
    text = (DOCS / page).read_text(encoding="utf-8")
    pattern = r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?"
    found = re.finditer(pattern, text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, block.start()) + 1, block[1], block[2]) for block in found]


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    # What a page reads that readers bring along.
    box = {"file": "zpWuikVorYg_000032", "class": "violin", "bbox": [[0.1, 0.2, 0.6, 0.9]]}
    Path("vggss.json").write_text(json.dumps([box]), encoding="utf-8")
    scope: dict[str, object] = {"__name__": "__main__"}
    for line, block, output in blocks(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + block, page, "exec"), scope)
        assert output is None or printed.getvalue() == output
