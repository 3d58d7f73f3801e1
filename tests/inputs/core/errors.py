"""Input classes that have to end in an error, which names the argument, what was expected and what it got."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inputs.core.compare import refused
from inputs.core.results import Cases, Class
from inputs.core.subject import MASKS, SIZES, Subject

#: Dtypes that are refused, for each kind of argument.
WRONG_DTYPES = {
    "": (torch.int64, torch.uint8, torch.bool, torch.complex64),
    "mask": (torch.int64, torch.uint8, torch.float32, torch.complex64),
    "class": (torch.bool, torch.float32, torch.complex64),
}


def no_tensor(subject: Subject) -> Cases:
    """A list, a NumPy array, a number, None."""
    for name in subject.shapes:
        if name in ("a", "b"):
            continue  # None stands for equal masses
        changes = (Tensor.tolist, Tensor.numpy, lambda x: float(x.sum()), lambda _: None)
        for change in changes:
            arguments = subject.arguments()
            arguments[name] = change(arguments[name])
            if arguments[name] is None and name in subject.optional_names():
                continue
            yield refused(lambda arguments=arguments: subject(arguments), name)


def dtypes(subject: Subject) -> Cases:
    """Integers, booleans, complex numbers, and masks that are not boolean."""
    for name in subject.shapes:
        for dtype in WRONG_DTYPES.get(subject.kinds.get(name, ""), WRONG_DTYPES[""]):
            arguments = subject.arguments()
            arguments[name] = arguments[name].to(dtype)
            yield refused(lambda arguments=arguments: subject(arguments), name)
    if "foreground" in subject.shapes:
        arguments = subject.arguments()
        for name, letters in MASKS.items():
            size = [SIZES[letter] for letter in letters]
            masks: tuple[Any, ...] = (torch.ones(size), torch.ones(size, dtype=torch.bool).tolist())
            for mask in masks:
                yield refused(lambda name=name, mask=mask: subject(arguments | {name: mask}), name)


def not_dense(subject: Subject) -> Cases:
    """Sparse and nested tensors."""
    for name in subject.shapes:
        for change in (Tensor.to_sparse, lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged)):
            arguments = subject.arguments()
            arguments[name] = change(arguments[name])
            yield refused(lambda arguments=arguments: subject(arguments), name)


def dimensions(subject: Subject) -> Cases:
    """A dimension too few or too many, and a scalar."""
    for name, letters in subject.shapes.items():
        broadcasts = letters.startswith("...")
        for change in (lambda x: x.sum(), lambda x: x[0], lambda x: x[None]):
            arguments = subject.arguments()
            arguments[name] = change(arguments[name])
            ndim = arguments[name].ndim
            least = len(letters.removeprefix("...").split()) - 1 if broadcasts else None
            if (least is not None and ndim >= least) or name == "value":
                continue
            if ndim and (name, subject.name) in (("rows", "gather_rows"), ("vectors", "similarity_map")):
                continue  # these shapes are valid too
            yield refused(lambda arguments=arguments: subject(arguments), *subject.shapes)


def sizes(subject: Subject) -> Cases:
    """One size more than another argument has."""
    for name, letters in subject.shapes.items():
        others = " ".join(other for n, other in subject.shapes.items() if n != name)
        for at, letter in enumerate(letters.removeprefix("...").split()):
            if letter in others:
                arguments = subject.arguments()
                value = arguments[name]
                arguments[name] = torch.cat([value, value.narrow(at, 0, 1)], at)
                yield refused(lambda arguments=arguments: subject(arguments), *subject.shapes)
    if "foreground" in subject.shapes:
        for name, letters in MASKS.items():
            mask = torch.ones([1 + SIZES[letter] for letter in letters], dtype=torch.bool)
            yield refused(lambda name=name, mask=mask: subject(subject.arguments() | {name: mask}), name)


def devices(subject: Subject) -> Cases:
    """One argument on another device than the others."""
    if len(subject.shapes) > 1:
        for name in subject.shapes:
            arguments = subject.arguments()
            arguments[name] = arguments[name].to("meta")
            yield refused(lambda arguments=arguments: subject(arguments), *subject.shapes)


def options(subject: Subject) -> Cases:
    """Options of a wrong type, NaN and infinity, unknown words."""
    for name, default in subject.option_names().items():
        wrong: list[Any] = []
        if name == "gather_distributed":
            wrong = [1, "yes"]
        elif isinstance(default, bool):
            wrong = [1, "yes", None]
        elif isinstance(default, int):
            wrong = [0, -1, 1.5, "3", None, True, torch.tensor(3)]
        elif isinstance(default, float):
            wrong = [torch.nan, torch.inf, -torch.inf, "0.1", None, True, 1j]
            wrong += [torch.ones(1, 2), torch.tensor(True)] if subject.takes_tensor(name) else [torch.tensor(0.1)]
        elif isinstance(default, str):
            wrong = ["no such word", 3] + ([None] if name != "solver" else [])
            wrong += [torch.full((1, 2), 0.1)] if subject.takes_tensor(name) else []
        elif name in ("scaling", "threshold", "area", "max_iterations", "num_sources"):
            wrong = [-1.0, torch.nan, "0.5", True] if name != "threshold" else [torch.nan, "0.5", True]
        for value in wrong:
            options = subject.options | {name: value}
            if name in ("threshold", "area"):  # one excludes the other
                options = {name: value}
                if name not in subject.options:
                    continue
            changed = Subject(subject.name, subject.shapes, options, call=subject.call)
            arguments = subject.arguments()
            yield refused(lambda changed=changed, arguments=arguments: changed(arguments), name)


def masses(subject: Subject) -> Cases:
    """Negative, vanishing and unequal masses."""
    if "a" not in subject.shapes:
        return
    for name in ("a", "b"):
        for change in (lambda x: -x, lambda x: x * 0, lambda x: x * 2):
            arguments = subject.arguments()
            arguments[name] = change(arguments[name])
            yield refused(lambda arguments=arguments: subject(arguments), name)


CLASSES: dict[str, Class] = {
    "no tensor": no_tensor,
    "integers, booleans, complex numbers": dtypes,
    "sparse and nested tensors": not_dense,
    "a dimension too few or too many": dimensions,
    "sizes that disagree": sizes,
    "devices that disagree": devices,
    "options of a wrong type or out of range": options,
    "negative, zero and unequal masses": masses,
}
