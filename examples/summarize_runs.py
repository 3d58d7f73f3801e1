"""Several runs as one Markdown table: mean, spread and every run of each metric beside the best of the other rows.

python examples/summarize_runs.py runs/composed-seed*
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of complete runs")
    runs = [json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in parser.parse_args().runs]
    tables = [run["percent"] for run in runs]
    others = [row for row in tables[0] if row != "trained"]
    names = [n for n in tables[0]["trained"] if all(n in tables[0][row] for row in others)]
    header = ["%", "mean ± sd", *(f"run {i}" for i in range(1, len(runs) + 1)), *others, "runs ahead of all"]
    lines = [header, ["---", *("---:" for _ in header[1:])]]
    for name in names:
        values = [table["trained"][name] for table in tables]
        beside = {row: [table[row][name] for table in tables] for row in others}
        ahead = sum(value > max(beside[row][i] for row in others) for i, value in enumerate(values))
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        lines.append(
            [name, f"{statistics.mean(values):.1f} ± {spread:.1f}", *(f"{v:.1f}" for v in values)]
            + [f"{statistics.mean(beside[row]):.1f}" for row in others]
            + [f"{ahead} of {len(values)}"]
        )
    print("".join(f"| {' | '.join(line)} |\n" for line in lines), end="")
    seconds = [sum(run["seconds"].values()) for run in runs]
    print(f"\nSeconds a run: {', '.join(f'{s:.0f}' for s in seconds)}")


if __name__ == "__main__":
    main()
