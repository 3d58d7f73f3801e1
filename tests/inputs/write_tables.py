"""Writes the tables of the input classes: how many calls each class makes, and how they end.

    python tests/inputs/write_tables.py
    python tests/inputs/write_tables.py --only readers

Runs every class; a call that does not end as it has to stops the program. Writes benchmarks/results/inputs-core.md
(losses, masks, transport) and benchmarks/results/inputs-readers.md (metrics, annotation files, the evaluate command,
the training example).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "benchmarks", "examples")]

import torch
from result_files import markdown, write_text

from inputs import annotations, core, evaluate, metrics, training
from inputs.cases import InputClass, Outcome, outcome
from sslosses.losses import baselines

PARTS = {
    "Metrics": metrics,
    "Annotation files": annotations,
    "The evaluate command": evaluate,
    "The training example": training,
}
RESULTS = ROOT / "benchmarks" / "results"
TABLES = {name: RESULTS / f"inputs-{name}.md" for name in ("core", "readers")}
COLUMNS = ("function", "input class", "cases", "outcome")
Row = tuple[str, str, int, str]


def table_rows(classes: Iterable[InputClass]) -> Iterator[Row]:
    """One row per function and class. Classes of several subjects of a function are added up."""
    outcomes: dict[tuple[str, str], Outcome] = {}
    for inputs in classes:
        key = (inputs.function, inputs.name)
        if key not in outcomes:
            print(*key, sep=": ", flush=True)
        before, result = outcomes.get(key, Outcome(0, Counter())), outcome(inputs)
        outcomes[key] = Outcome(before.results + result.results, before.errors + result.errors)
    for (function, name), total in outcomes.items():
        if total.cases:
            yield f"`{function}`", name, total.cases, shown(total)


def shown(total: Outcome) -> str:
    """The outcome in at most 160 characters of plain text."""
    text = " ".join(str(total).replace("`", "").split())
    short = text if len(text) <= 160 else f"{text[:160]}…"
    plain = "".join(letter if letter.isprintable() else "�" for letter in short)
    return plain.replace("<", "&lt;").replace("*", "\\*")


def cell(text: str) -> str:
    """A text as it stands in a Markdown table."""
    return text.replace("|", "\\|")


def listed(path: Path) -> list[tuple[str, str]]:
    """Functions and classes of a written table."""
    rows = [line.split(" | ")[:2] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return [(function.removeprefix("| "), name) for function, name in rows]


def core_table() -> str:
    return in_parts(table_rows(core.CLASSES))


def in_parts(rows: Iterable[Row]) -> str:
    """The table in two parts, because a page with both is slow to load."""
    rows = list(rows)
    others = [row for row in rows if row[0].strip("`") in baselines.__all__]
    paper = [row for row in rows if row not in others]
    return f"{markdown(COLUMNS, paper)}\n### Losses of other systems\n\n{markdown(COLUMNS, others)}"


def readers_table() -> str:
    parts, rows = [], []
    for title, module in PARTS.items():
        part = list(table_rows(module.CLASSES))
        rows += part
        parts.append(f"### {title}\n\n{markdown(COLUMNS, part)}")
    head = f"{sum(row[2] for row in rows):,} cases of {len(rows)} classes, each with its most frequent error.\n"
    return "\n".join([head, *parts])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="tables to write")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the tables")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    write = {"core": core_table, "readers": readers_table}
    for name in options.only:
        write_text(options.output / TABLES[name].name, write[name]())


if __name__ == "__main__":
    main()
