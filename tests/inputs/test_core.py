"""Every public function with every input class: a right result, or an error that names the argument."""

from __future__ import annotations

import pytest

import sslosses
from inputs.core import errors, results
from inputs.core.outcomes import outcome
from inputs.core.subjects import OTHERS, SUBJECTS, Subject, public_functions

CLASSES = results.CLASSES | errors.CLASSES


def test_every_public_function_has_input_classes() -> None:
    named = {subject.name for subject in SUBJECTS}
    assert public_functions() == named | OTHERS.keys()
    assert sslosses.OCALoss is sslosses.ObjectAwareContrastiveLoss
    assert sslosses.ORILoss is sslosses.ObjectRegionIsolationLoss
    for subject in SUBJECTS:
        for name in ("no tensor", "integers, booleans, complex numbers", "sparse and nested tensors"):
            assert list(CLASSES[name](subject)), f"{subject} has no case of {name}"


@pytest.mark.filterwarnings("ignore::sslosses.transport.ConvergenceWarning")
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_outcome(subject: Subject, name: str) -> None:
    for case in CLASSES[name](subject):
        outcome(case)
