"""The tutorial's blocks run one after the other and print what the page says, and a stale page is noticed."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "docs/make_tutorial.py"


@pytest.mark.slow
def test_every_block_runs_and_prints_what_the_page_shows() -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])}
    command = [sys.executable, PROGRAM, "--check"]
    checked = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout or checked.stderr[-2000:]


@pytest.mark.parametrize(
    ("shown", "printed", "compare_numbers", "stale"),
    [
        ("loss 0.42, hash 0123456789ab\n", "loss  0.423, hash 0123456789ab\n", True, False),
        ("loss 0.42\n", "loss 0.52\n", True, True),
        ("loss 0.42\n", "loss -7\n", False, False),
        ("loss 0.42\n", "value 0.42\n", False, True),
        ("loss 0.42\n", "loss 0.42 0.42\n", False, True),
        ("", "loss 0.42\n", False, True),
    ],
)
def test_words_are_compared_and_numbers_loosely(shown, printed, compare_numbers, stale) -> None:
    assert runpy.run_path(str(PROGRAM))["is_stale"](shown, printed, compare_numbers) is stale
