"""What every public function of the tensor core does with every input class: a result, or which error.

    python tests/inputs/write_core_table.py

The classes are those of ``benchmarks/inputs``, which ``tests/hardening`` holds the library to; a case whose outcome is
not allowed ends the run. Result: benchmarks/results/inputs-core.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "benchmarks", "examples")]

from result_files import markdown

from inputs.core import errors, results
from inputs.core.outcomes import outcome
from inputs.core.subjects import SUBJECTS
from sslosses.transport import ConvergenceWarning

COLUMNS = ("function", "input class", "cases", "outcome")


def rows() -> Iterable[tuple[str, str, int, str]]:
    """Function, class, number of cases and outcome; of several errors the first."""
    classes = results.CLASSES | errors.CLASSES
    found: dict[tuple[str, str], list[str]] = {}
    for subject in SUBJECTS:
        for name, cases in classes.items():
            for case in cases(subject):
                found.setdefault((subject.name, name), []).append(outcome(case))
        print(subject, flush=True)
    # By function first, classes in their order.
    names, order = list(dict.fromkeys(subject.name for subject in SUBJECTS)), list(classes)
    for name, kind in sorted(found, key=lambda key: (names.index(key[0]), order.index(key[1]))):
        outcomes = found[name, kind]
        errors_ = dict.fromkeys(each for each in outcomes if each != "result")
        shown = ["result"] if "result" in outcomes else []
        if errors_:
            more = f" (and {len(errors_) - 1} more)" if len(errors_) > 1 else ""
            shown.append(f"{next(iter(errors_))}{more}")
        yield f"`{name}`", kind, len(outcomes), "; ".join(shown)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "inputs-core.md", help="file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    text = markdown(COLUMNS, rows())
    aside = options.output.with_suffix(".md.tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(options.output)


if __name__ == "__main__":
    main()
