"""Losses, masks, similarity, transport: every public function with every input class.

``subjects`` says how each function is called; ``results`` and ``errors`` hold the classes.
"""

from __future__ import annotations

from inputs.cases import InputClass
from inputs.core import errors, results
from inputs.core.subject import Subject
from inputs.core.subjects import SUBJECTS
from sslosses.transport import MissingDependencyError

NAMES = results.CLASSES | errors.CLASSES


def input_class(subject: Subject, name: str) -> InputClass:
    allowed = (TypeError, ValueError, MissingDependencyError)
    return InputClass(subject.name, name, lambda _: NAMES[name](subject), allowed)


#: The subjects of one function follow each other.
CLASSES = [
    input_class(subject, name)
    for function in dict.fromkeys(subject.name for subject in SUBJECTS)
    for name in NAMES
    for subject in SUBJECTS
    if subject.name == function
]
