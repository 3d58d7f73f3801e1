"""The options that were tried for the methods: one row per run on development scenes.

    OMP_NUM_THREADS=1 python examples/train_music.py --data-seed 0 --config composed methods/lvs --name lvs
    OMP_NUM_THREADS=1 python examples/train_music.py --data-seed 0 --config composed methods/lvs \
        --method-options omega=0.3 --name lvs-omega
    python benchmarks/studies/development.py --runs runs/lvs runs/lvs-omega

Writes benchmarks/results/NAME.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from study import ROOT, markdown, study_parser, write_text

sys.path.insert(0, str(ROOT / "examples"))
from avsl.config import Config
from avsl.evaluation.report import ROW_SUFFIX
from avsl.files import read_json
from avsl.yaml_files import read_yaml

METRICS = ("solo AP", "duet CAP")
#: Keys that say which data a run reads and how it is scored, not how it is trained.
LEFT_OUT = ("data", "data_seed", "dataset", "identification", "method", "subsets")


def changes(values: dict[str, Any]) -> str:
    """The options that differ from the composed configuration."""
    base = Config.load(["composed"], {}).as_dict()
    options = values["method_options"]
    keys = [f"{k}={v}" for k, v in values.items() if k not in (*LEFT_OUT, "method_options") and v != base.get(k, v)]
    return " ".join(f"`{text}`" for text in (*options, *keys)) or "as they are"


def line(run: Path) -> tuple[str, ...]:
    """The row of a run: its method, options, and scores by clustering and by its best way to tell sources apart."""
    values, percent = read_yaml(run / "config.yaml"), read_json(run / "metrics.json", "percent")
    scores = {
        way: [percent[f"trained{s}"][m] for m in METRICS] for way, s in ROW_SUFFIX.items() if f"trained{s}" in percent
    }
    # Given classes are labels of the test scenes, so no option is chosen by them.
    best = max(scores.keys() - {"given"}, key=lambda way: sum(scores[way]))
    numbers = (f"{v:.1f}" for v in (*scores["clustering"], *scores[best], sum(scores[best])))
    return (values["method"], changes(values), *numbers, best)


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of complete runs")
    parser.add_argument("--name", default="development", help="name of the file of results")
    options = parser.parse_args()
    lines = [line(run) for run in options.runs if (run / "metrics.json").is_file()]
    by = [f"{metric}, by {way}" for way in ("clustering", "the best way") for metric in METRICS]
    text = markdown(("method", "options", *by, "sum", "best way"), sorted(lines))
    write_text(options.output / f"{options.name}.md", text)
    print(text)


if __name__ == "__main__":
    main()
