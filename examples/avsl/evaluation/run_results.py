"""The results of a run, for the card of its model."""

from __future__ import annotations

from pathlib import Path

from ..files import read_json
from .report import ROW_SUFFIX, markdown_table
from .score import RUN_PROTOCOL

_UNFINISHED = "The run of this model has no metrics. It may not have been finished.\n"


def results_section(run: Path) -> str:
    """Writes the metrics of a run in Markdown, with their protocol, notes and chance levels.

    Raises:
        ValueError: if the ``metrics.json`` of the run is damaged.
    """
    file = run / "metrics.json"
    if not file.is_file():
        return f"## Results\n\n{_UNFINISHED}"
    rows, notes = read_json(file, "percent"), read_json(file).get("notes", [])
    try:
        table = markdown_table(rows)
        ways = [name for name, suffix in ROW_SUFFIX.items() if f"trained{suffix}" in rows]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Expected {file} to hold the metrics of a run, but they are incomplete") from error
    chance = [name for name in rows if not name.startswith(("trained", "untrained"))]
    named = [
        f"`{name}` (rows {', '.join(f'“{row}{ROW_SUFFIX[name]}”' for row in ('trained', 'untrained'))})"
        for name in ways
    ]
    text = (
        f"These are the metrics of the run's test scenes after training, by the protocol `{RUN_PROTOCOL}`, in percent. "
        f"The sources of mixtures are told apart by {' and '.join(named)}, and their number is given. "
        f"Chance levels, which do not hear the sound: {', '.join(chance)}.\n"
    )
    return "\n".join(["## Results\n", *(f"{note}\n" for note in notes), text, table])
