"""Comparisons of results, and the error that a wrong argument has to lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inputs.cases import Case
from sslosses.transport import TransportResult


def succeeds(run: Callable[[], Any], check: Callable[[Any], Any]) -> Case:
    """A call with a result, which ``check`` asserts."""
    return Case(run, check=check)


def refused(run: Callable[[], Any], *names: str) -> Case:
    """A call whose error says what was expected of one of these arguments and what it got."""
    return Case(run, f"(?=.*`({'|'.join(names)})`)(?=.*Expected)(?=.*but got)")


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
    named: dict[str, Tensor] = {}
    for name, value in result._asdict().items():
        for i, part in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(part, Tensor):
                named[f"{name}{i}" if isinstance(value, tuple) else name] = part
    return named


def close(result: Any, expected: Any, tolerance: float) -> None:
    """Assert that all tensors of two results agree, absolutely up to ``tolerance`` or relatively."""
    actual_tensors, expected_tensors = tensors(result), tensors(expected)
    assert actual_tensors.keys() == expected_tensors.keys()
    for name, value in expected_tensors.items():
        torch.testing.assert_close(
            actual_tensors[name],
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
    """The sum of all tensors that have a gradient."""
    parts = [x.double().sum() for x in tensors(result).values() if x.requires_grad]
    assert parts, "no result has a graph"
    return torch.stack(parts).sum()
