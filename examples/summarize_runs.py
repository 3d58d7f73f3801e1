"""Print one Markdown table of several runs: for each metric its mean, spread and single values, and the baselines.

What the runs note on their metrics stands above it.

python examples/summarize_runs.py runs/composed-seed*
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of complete runs")
    runs = [json.loads((run / "metrics.json").read_bytes()) for run in parser.parse_args().runs]
    for note in dict.fromkeys(note for run in runs for note in run.get("notes", ())):
        print(f"{note}\n")
    percent = [run["percent"] for run in runs]
    for row in percent[0]:
        if row.startswith("trained"):
            print_table(percent, row)
            print()
    seconds = [sum(run["seconds"].values()) for run in runs]
    print(f"Seconds per run: {', '.join(f'{s:.0f}' for s in seconds)}")


def print_table(runs: list[dict[str, dict[str, float]]], trained: str) -> None:
    """Prints the table of the row ``trained``; each run holds percent by row and metric."""
    baselines = [row for row in runs[0] if not row.startswith("trained")]
    metrics = [name for name in runs[0][trained] if all(name in runs[0][row] for row in baselines)]
    header = [
        f"{trained}, %",
        "mean ± sd",
        *(f"run {i}" for i in range(1, len(runs) + 1)),
        *baselines,
        "runs ahead of all",
    ]
    rows = [header, ["---", *("---:" for _ in header[1:])]]
    for name in metrics:
        values = [run[trained][name] for run in runs]
        ahead = sum(run[trained][name] > max(run[row][name] for row in baselines) for run in runs)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        rows.append(
            [name, f"{statistics.mean(values):.1f} ± {spread:.1f}", *(f"{v:.1f}" for v in values)]
            + [f"{statistics.mean(run[row][name] for run in runs):.1f}" for row in baselines]
            + [f"{ahead} of {len(values)}"]
        )
    print("".join(f"| {' | '.join(row)} |\n" for row in rows), end="")


if __name__ == "__main__":
    main()
