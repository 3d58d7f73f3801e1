"""The Python of every page of the documentation runs, block after block, and prints what the page says it prints."""

import contextlib
import io
import json
import re
from pathlib import Path

import matplotlib as mpl
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    str(page.relative_to(DOCS))
    for page in DOCS.rglob("*.md")
    if "```python" in page.read_text(encoding="utf-8")
    and page.name != "tutorial.md"  # its commands are run too, by test_tutorial.py
)


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
    monkeypatch.syspath_prepend(ROOT / "examples")  # for blocks that are a file of the example's package
    # A file that readers of the page bring along.
    box = {"file": "zpWuikVorYg_000032", "class": "violin", "bbox": [[0.1, 0.2, 0.6, 0.9]]}
    Path("vggss.json").write_text(json.dumps([box]), encoding="utf-8")
    scope: dict[str, object] = {"__name__": "__main__"}
    for line, block, output in blocks(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + block, page, "exec"), scope)
        assert output is None or printed.getvalue() == output


def test_pages_name_programs_that_exist():
    programs = {
        program
        for page in DOCS.rglob("*.md")
        for program in re.findall(r"(?:examples|benchmarks|docs|tests)/[\w/]+\.py", page.read_text(encoding="utf-8"))
    }
    assert "examples/train_music.py" in programs
    assert [program for program in sorted(programs) if not (ROOT / program).is_file()] == []


def test_every_page_is_in_a_table_of_contents():
    contents = [
        (page.parent, block)
        for page in DOCS.rglob("*.md")
        for block in re.findall(r"^```{toctree}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.M)
    ]
    listed = {folder / line for folder, block in contents for line in block.split() if not line.startswith(":")}
    assert {page.with_suffix("") for page in DOCS.rglob("*.md")} - {DOCS / "index"} <= listed


def title(page: Path) -> str:
    return re.search(r"^# (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)[1]


def test_links_of_the_first_page_are_named_by_the_titles_of_pages():
    links = re.findall(r"\[([^\]]+)\]\(([\w/]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8"))
    assert len(links) > 10
    assert [(name, page) for name, page in links if name != title(DOCS / page)] == []
