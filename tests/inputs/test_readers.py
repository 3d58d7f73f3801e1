"""What reads and scores, with every input class: a right result, or an error that names the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from inputs.readers import outcomes
from inputs.readers.outcomes import Attempt, Either, InputClass, outcome
from inputs.write_reader_table import PARTS, line
from sslosses import metrics
from sslosses.metrics import functional

CLASSES = [inputs for module in PARTS.values() for inputs in module.CLASSES]
TABLE = Path(__file__).parents[2] / "benchmarks" / "results" / "inputs-readers.md"


@pytest.mark.parametrize("inputs", CLASSES, ids=str)
def test_outcome(inputs: InputClass) -> None:
    assert outcome(inputs).cases > 0


def test_classes_are_named_once() -> None:
    assert len(set(map(str, CLASSES))) == len(CLASSES)


def test_every_public_metric_has_input_classes() -> None:
    named = {inputs.function for inputs in CLASSES}
    others = {"AUC_THRESHOLDS", "Discrimination", "GreedyAssignment"}  # no functions
    assert set(functional.__all__) - others <= named
    assert {name for name in metrics.__all__ if name not in ("functional", "protocols")} <= named


def test_the_table_is_of_these_classes() -> None:
    """Texts of errors may differ between versions of other packages; functions, classes and their order do not."""
    rows = [row.split(" | ")[:2] for row in TABLE.read_text(encoding="utf-8").splitlines() if row.startswith("| `")]
    assert rows == [[f"| `{inputs.function}`", inputs.name.replace("|", "\\|")] for inputs in CLASSES]


def _class(*attempts: Attempt | Either) -> InputClass:
    return InputClass("f", "x", lambda _: attempts)


def _failing(error: Exception) -> Attempt:
    def run() -> None:
        raise error

    return Attempt(run, "`x`")


def test_outcomes_can_fail() -> None:
    """A wrong result, no error, another error, one without a place, and one of another kind are all seen."""
    wrong = (
        Attempt(lambda: 1, check=lambda r: r == 2),
        Attempt(lambda: 1, "`x`"),
        _failing(ValueError("something else")),
        _failing(UnicodeDecodeError("utf-8", b"`x`", 0, 1, "`x`")),
        _failing(ValueError("`x`" * 1000)),
        Either(_failing(ValueError("y")).run, "`x`"),
    )
    for attempt in wrong:
        with pytest.raises(AssertionError):
            outcome(_class(attempt))
    for error in (KeyError("`x`"), RecursionError("`x`"), OverflowError("`x`"), AttributeError("`x`")):
        with pytest.raises(type(error)):
            outcome(_class(_failing(error)))


def test_lines_of_the_table() -> None:
    found = outcome(_class(Attempt(lambda: 1), _failing(ValueError("`x` has\na <b>"))))
    assert found == outcomes.Outcome(2, 1, "ValueError: `x` has\na <b>")
    assert line(_class(), found) == ("`f`", "x", 2, "1 × result, 1 × ValueError: x has a &lt;b>")


def test_random_changes_are_the_same_for_a_seed() -> None:
    content = b'{"a": [1, 2, 3]}'
    first = list(outcomes.mutated(content, 50))
    assert first == list(outcomes.mutated(content, 50))
    assert len(set(first)) > 45
    assert content not in first
    assert [len(part) for part in outcomes.truncated(content)] == list(range(len(content)))
