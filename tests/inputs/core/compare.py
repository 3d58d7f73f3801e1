"""Runs cases and says what came of them: a right result, or an error that names the argument."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sslosses.transport import ConvergenceWarning, MissingDependencyError, TransportResult


class Case(NamedTuple):
    """A call that has a right result, which ``check`` asserts."""

    run: Callable[[], Any]
    check: Callable[[Any], None]


class Mistake(NamedTuple):
    """A call that has to fail, with an error that names one of these arguments and what came."""

    run: Callable[[], Any]
    names: tuple[str, ...]


def outcome(case: Case | Mistake) -> str:
    """Run a case: "result", or the text of the error.

    Raises:
        AssertionError: if neither is as it should be.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if isinstance(case, Case):
            case.check(case.run())
            return "result"
        try:
            result = case.run()
        except (TypeError, ValueError, MissingDependencyError) as error:
            text = str(error)
            assert any(f"`{name}`" in text for name in case.names), f"{text!r} names none of {case.names}"
            assert "Expected" in text, text
            assert "but got" in text, text
            return f"{type(error).__name__}: {text}"
    raise AssertionError(f"no error for {case.names}, but {result!r}")


def tensors(result: Any) -> dict[str, Tensor]:
    """All tensors of a result by name."""
    if isinstance(result, Tensor):
        return {"result": result}
    if isinstance(result, TransportResult):
        f, g = result.potentials
        return {
            "value": result.value(),
            "regularized": result.value("regularized"),
            "f": f,
            "g": g,
            "plan": result.plan,
        }
    found: dict[str, Tensor] = {}
    for name, value in result._asdict().items():
        for i, each in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(each, Tensor):
                found[f"{name}{i}" if isinstance(value, tuple) else name] = each
    return found


def close(found: Any, expected: Any, tolerance: float) -> None:
    """Assert that all tensors of two results agree, absolutely up to ``tolerance`` or relatively."""
    mine, theirs = tensors(found), tensors(expected)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            mine[name],
            value,
            atol=tolerance,
            rtol=tolerance,
            check_dtype=False,
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def finite(result: Any) -> None:
    """Assert that no tensor of a result has NaN or inf."""
    for name, value in tensors(result).items():
        assert value.isfinite().all(), f"{name} is not finite: {value}"


def total(result: Any) -> Tensor:
    """Sum over what has a gradient."""
    parts = [x.double().sum() for x in tensors(result).values() if x.requires_grad]
    assert parts, "no result has a graph"
    return torch.stack(parts).sum()
