"""The README's Python example runs as written, and its commands name what exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_usage_example_runs_and_is_short() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 12
    scope: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert tuple(scope["maps"].shape) == (8, 2, 7, 7)  # type: ignore[attr-defined]
    assert scope["visual"].grad.abs().sum() > 0  # type: ignore[attr-defined]
    assert scope["audio"].grad.abs().sum() > 0  # type: ignore[attr-defined]


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_and_commands_point_to_files() -> None:
    links = [link.partition("#") for link in re.findall(r"\]\(([^):]+)\)", README)]
    programs = re.findall(r"python (examples/\S+\.py)", README)
    missing = [t for t in [*programs, *(file for file, _, _ in links)] if not (ROOT / t).exists()]
    assert not missing
    anchors = [(ROOT / (file or "README.md"), anchor) for file, _, anchor in links if anchor]
    assert [(page.name, anchor) for page, anchor in anchors if anchor not in slugs(page)] == []
