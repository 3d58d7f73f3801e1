"""The table of the input classes of what reads and scores: metrics, annotations, the evaluate command, the example.

    python tests/inputs/write_reader_table.py

Every class is run; a call that ends otherwise than it has to stops the program. Result:
benchmarks/results/inputs-readers.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "benchmarks", "examples")]

from result_files import markdown

from inputs.readers import annotation_classes, evaluate_classes, example_classes, metric_classes
from inputs.readers.outcomes import InputClass, Outcome, outcome

PARTS = {
    "Metrics": metric_classes,
    "Annotation files": annotation_classes,
    "The evaluate command": evaluate_classes,
    "The training example": example_classes,
}


def line(inputs: InputClass, found: Outcome) -> tuple[str, str, int, str]:
    """A row of the table; long texts are cut."""
    text = " ".join(re.sub(r"`", "", str(found)).split())
    short = text if len(text) <= 160 else f"{text[:160]}…"
    plain = "".join(letter if letter.isprintable() else "�" for letter in short)
    return f"`{inputs.function}`", inputs.name, found.cases, plain.replace("<", "&lt;").replace("*", "\\*")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "inputs-readers.md")
    options = parser.parse_args(arguments)
    parts, cases, classes = [], 0, 0
    for title, module in PARTS.items():
        rows = [line(inputs, outcome(inputs)) for inputs in module.CLASSES]
        cases, classes = cases + sum(row[2] for row in rows), classes + len(rows)
        parts.append(f"### {title}\n\n{markdown(('function', 'input class', 'cases', 'outcome'), rows)}")
    head = f"{cases:,} cases of {classes} classes, with the text of one of the errors of a class; made by "
    head += "`python tests/inputs/write_reader_table.py`.\n"
    options.out.write_text("\n".join([head, *parts]), encoding="utf-8")


if __name__ == "__main__":
    main()
