"""Readers, metrics and programs with every input class: a right result, or an error that names the place."""

from __future__ import annotations

from collections import Counter

import pytest

from inputs.cases import Case, InputClass, Outcome, mutated, outcome, truncated
from inputs.write_tables import PARTS, TABLES, cell, listed, table_rows
from sslosses import metrics
from sslosses.metrics import functional

CLASSES = [inputs for module in PARTS.values() for inputs in module.CLASSES]


@pytest.mark.parametrize("inputs", CLASSES, ids=str)
def test_outcome(inputs: InputClass) -> None:
    assert outcome(inputs).cases > 0


def test_classes_are_named_once() -> None:
    assert len(set(map(str, CLASSES))) == len(CLASSES)


def test_every_public_metric_has_input_classes() -> None:
    named = {inputs.function for inputs in CLASSES}
    others = {"AUC_THRESHOLDS", "ClassAreas", "Discrimination", "GreedyAssignment"}  # no functions
    assert set(functional.__all__) - others <= named
    assert {name for name in metrics.__all__ if name not in ("functional", "protocols")} <= named


def test_the_table_is_of_these_classes() -> None:
    """Texts of errors may differ between versions of other packages; functions, classes and their order do not."""
    assert listed(TABLES["readers"]) == [(f"`{inputs.function}`", cell(inputs.name)) for inputs in CLASSES]


def _class(*cases: Case) -> InputClass:
    return InputClass("f", "x", lambda _: cases)


def _failing(error: Exception, may_succeed: bool = False) -> Case:
    def run() -> None:
        raise error

    return Case(run, "`x`", may_succeed=may_succeed)


def test_outcomes_can_fail() -> None:
    """A wrong result, no error, another error, one without a place, and one of another kind are all seen."""
    wrong = (
        Case(lambda: 1, check=lambda r: r == 2),
        Case(lambda: 1, "`x`"),
        _failing(ValueError("something else")),
        _failing(UnicodeDecodeError("utf-8", b"`x`", 0, 1, "`x`")),
        _failing(ValueError("`x`" * 1000)),
        _failing(ValueError("y"), may_succeed=True),
    )
    for case in wrong:
        with pytest.raises(AssertionError):
            outcome(_class(case))
    for error in (KeyError("`x`"), RecursionError("`x`"), OverflowError("`x`"), AttributeError("`x`")):
        with pytest.raises(type(error)):
            outcome(_class(_failing(error)))


def test_checks_may_assert() -> None:
    def check(result: int) -> None:
        assert result == 2

    assert outcome(_class(Case(lambda: 2, check=check))) == Outcome(1, Counter())
    with pytest.raises(AssertionError):
        outcome(_class(Case(lambda: 1, check=check)))


def test_a_class_says_which_errors_it_allows() -> None:
    case = _failing(OSError("`x`"))
    assert outcome(_class(case)).cases == 1
    with pytest.raises(OSError, match="`x`"):
        outcome(_class(case)._replace(errors=(TypeError, ValueError)))


def test_lines_of_the_table() -> None:
    inputs = _class(Case(lambda: 1), _failing(ValueError("`x` has\na <b>")))
    assert outcome(inputs) == Outcome(1, Counter({"ValueError: `x` has\na <b>": 1}))
    assert list(table_rows([inputs])) == [("`f`", "x", 2, "1 × result, 1 × ValueError: x has a &lt;b>")]
    (twice,) = table_rows([inputs, inputs, _class()])
    assert twice == ("`f`", "x", 4, "2 × result, 2 × ValueError: x has a &lt;b>")


def test_random_changes_are_the_same_for_a_seed() -> None:
    content = b'{"a": [1, 2, 3]}'
    first = list(mutated(content, 50))
    assert first == list(mutated(content, 50))
    assert len(set(first)) > 45
    assert content not in first
    assert [len(part) for part in truncated(content)] == list(range(len(content)))
