"""Runs every block of docs/start/tutorial.md and writes what they print, and the pictures, into the page.

    python docs/make_tutorial.py           # some minutes on two cores
    python docs/make_tutorial.py --check   # writes nothing; fails if a block fails or its output is another one

The check trains on a few scenes only. Of blocks from the training on, it compares the words and not the numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/start/tutorial.md"
FIGURES = ROOT / "docs/figures"
PICTURES = {"tutorial-sheet.jpg": "runs/tutorial/sheet.png", "tutorial-heatmaps.jpg": "heatmaps.png"}

TRAINING = "--train-scenes 300 --test-scenes 40"
SMALL = {
    TRAINING: "--train-scenes 8 --test-scenes 12 --image-size 96 --epochs 1 --batch-size 8",
    "drawn-seed2-300-40": "drawn-seed2-8-12",
}

_CELL = re.compile(
    r"(?P<mark><!-- not run -->\n)?(?P<block>^```(?P<language>sh|python)\n(?P<code>.*?)^```\n)"
    r"(?:\n^```text\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
_PROGRESS = re.compile(r"\d+/[\d?]+ \[")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_RULE_OR_HASH = re.compile(r"[─-]{2,}|\b[0-9a-f]{12}\b")


def run_page(page: str, small: bool) -> Iterator[tuple[re.Match[str], str]]:
    """Runs the page's blocks in the current folder; yields each block that is run, and what it printed."""
    scope: dict[str, object] = {"__name__": "__main__"}
    for cell in _CELL.finditer(page):
        if cell["mark"]:
            continue
        code = cell["code"]
        for here, there in SMALL.items() if small else ():
            code = code.replace(here, there)
        print(code.splitlines()[0], file=sys.stderr)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if cell["language"] == "python":
                line = page.count("\n", 0, cell.start("code"))
                exec(compile("\n" * line + code, PAGE.name, "exec"), scope)
            else:
                for command in code.replace("\\\n", "").splitlines():
                    _run_command(command)
        yield cell, _without_progress(printed.getvalue())


def _without_progress(printed: str) -> str:
    lines = [line.rstrip() + "\n" for line in printed.splitlines() if not _PROGRESS.search(line)]
    return "".join(lines).lstrip("\n")


def _run_command(command: str) -> None:
    """Runs a shell command; a Python program runs in this process, which has loaded torch already."""
    program, *arguments = shlex.split(os.path.expandvars(command))
    if program != "python":
        done = subprocess.run(["bash", "-c", command], check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout, end="")
        return
    is_module = arguments[0] == "-m"
    sys.argv = arguments[1:] if is_module else arguments
    try:
        run = runpy.run_module if is_module else runpy.run_path
        run(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{command} ended with {end.code}") from end


def is_stale(shown: str, printed: str, compare_numbers: bool) -> bool:
    """Whether the page shows other words than were printed, or numbers that differ by more than 2 %."""
    shown, printed = _plain(shown), _plain(printed)
    if _NUMBER.sub("#", shown) != _NUMBER.sub("#", printed):
        return True
    if not compare_numbers:
        return False
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True)
    return not all(math.isclose(float(a), float(b), rel_tol=0.02, abs_tol=0.01) for a, b in pairs)


def _plain(text: str) -> str:
    return " ".join(_RULE_OR_HASH.sub("", text).split())


def check(page: str) -> list[str]:
    """Returns what is wrong with the page: blocks whose output is stale, pictures that no block writes."""
    problems = []
    before_training = True
    for cell, printed in run_page(page, small=True):
        before_training = before_training and TRAINING not in cell["code"]
        if is_stale(cell["output"] or "", printed, compare_numbers=before_training):
            problems.append(f"{cell['code']}shows\n{cell['output']}but printed\n{printed}")
    problems += [f"No block writes {path}" for path in PICTURES.values() if not Path(path).is_file()]
    return problems


def update(page: str) -> str:
    """Returns the page with what its blocks print now, and writes its pictures."""
    from PIL import Image

    parts, end = [], 0
    for cell, printed in run_page(page, small=False):
        output = f"\n```text\n{printed}```\n" if printed else ""
        parts += [page[end : cell.start()], cell["block"], output]
        end = cell.end()
    for name, path in PICTURES.items():
        with Image.open(path) as picture:
            picture.thumbnail((1000, 900))
            picture.convert("RGB").save(FIGURES / name, quality=70)
    return "".join(parts) + page[end:]


def main() -> int:
    """Updates or checks the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is stale")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    os.environ.update(SSLOSSES=str(ROOT), COLUMNS="80", MPLBACKEND="Agg")
    sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if options.check:
            problems = check(page)
        else:
            PAGE.write_text(update(page), encoding="utf-8")
            problems = []
    print("\n".join([*problems, "The tutorial is stale: python docs/make_tutorial.py"] if problems else []), end="")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
