"""The short examples run by themselves, fit on a screen and show what their pages say they show."""

import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from .. import processes

processes.preload("sslosses.metrics", __name__)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ("minimal_training", "score_saved_maps", "own_solver", "own_protocol")


def program(name: str, folder: Path, *arguments: str) -> None:
    os.chdir(folder)
    warnings.simplefilter("error", UserWarning)
    processes.run_script(ROOT / "examples" / f"{name}.py", list(arguments), folder / "printed", folder / "errors")


def run(name: str, folder: Path, *arguments: str) -> str:
    """What the example prints. A warning of the library is an error."""
    process = processes.start(program, name, folder, *arguments)
    process.join(300)
    errors = (folder / "errors").read_text()
    assert process.exitcode == 0, errors
    assert errors == ""
    return (folder / "printed").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXAMPLES)
def test_short_and_on_the_core_dependencies(name):
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    packages = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)) - sys.stdlib_module_names
    assert packages <= {"numpy", "sslosses", "torch"}


def test_minimal_training_learns_where_the_sound_is(tmp_path):
    before, after = map(int, re.findall(r"training: (\d+) %", run("minimal_training", tmp_path)))
    assert before < 70
    assert after > 90


def rows(table: str) -> dict[str, list[float]]:
    """Row name → its numbers, of a Markdown table with a head of two lines."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]
    return {name: [float(value) for value in values if value] for name, *values in cells}


def test_score_saved_maps_is_ahead_of_chance(tmp_path):
    tables = run("score_saved_maps", tmp_path).strip().split("\n\n")
    assert [table.split(",")[0] for table in tables] == ["| paper", "| clean"]
    for table in tables:
        result, *chance = rows(table).values()
        assert len(chance) == 3
        assert result[0] > max(row[0] for row in chance)


def test_score_saved_maps_takes_a_file(tmp_path):
    boxes = np.tile(np.array([0.1, 0.1, 0.6, 0.9], np.float32), (3, 1, 1))
    np.savez(tmp_path / "maps.npz", maps=np.random.default_rng(0).random((3, 1, 7, 7), np.float32), boxes=boxes)
    assert "| result |" in run("score_saved_maps", tmp_path, "maps.npz")


def test_own_solver_agrees_with_the_reference(tmp_path):
    printed = run("own_solver", tmp_path)
    differences = re.findall(r"differ by (\S+) of", printed)
    assert len(differences) == 2
    assert max(map(float, differences)) < 1e-3
    own, reference = re.findall(r"ORI with \w+: loss (\S+), norm of the gradient (\S+)", printed)
    assert [float(value) for value in own] == pytest.approx([float(value) for value in reference], rel=1e-3)


def test_own_protocol_marks_changes(tmp_path):
    printed = run("own_protocol", tmp_path)
    names = re.findall(r"^\| (.+), mixtures \|", printed, re.MULTILINE)
    assert names == ["paper", "fifth", "by position", "paper (changed)"]
    results = [float(value) for value in re.findall(r"^\| result \| (\S+) \|", printed, re.MULTILINE)]
    assert results[1] > results[0]  # a fifth of the frame fits these objects better than half of it
    assert results[3] == results[0]  # only the threshold of CIoU differs
