"""Every public function with every input class: a right result, or an error that names the argument."""

from __future__ import annotations

import pytest

import sslosses
from inputs.cases import outcome
from inputs.core import NAMES, errors, input_class
from inputs.core.subject import Subject
from inputs.core.subjects import OTHERS, SUBJECTS, public_functions
from inputs.write_tables import TABLES, listed


def test_every_public_function_has_input_classes() -> None:
    named = {subject.name for subject in SUBJECTS}
    assert public_functions() == named | OTHERS.keys()
    assert sslosses.OCALoss is sslosses.ObjectAwareContrastiveLoss
    assert sslosses.ORILoss is sslosses.ObjectRegionIsolationLoss
    for subject in SUBJECTS:
        for name in ("no tensor", "integers, booleans, complex numbers", "sparse and nested tensors"):
            assert list(errors.CLASSES[name](subject)), f"{subject} has no case of {name}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_outcome(subject: Subject, name: str) -> None:
    outcome(input_class(subject, name))


def test_the_table_is_of_these_functions() -> None:
    """Some functions have no case of some classes; only running them tells which."""
    functions, names = zip(*listed(TABLES["core"]), strict=True)
    assert set(functions) == {f"`{subject.name}`" for subject in SUBJECTS}
    assert set(names) == NAMES.keys()
