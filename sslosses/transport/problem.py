"""The transport problem in the convention of all solvers, its solution, and the protocol of a solver.

The problem is min ⟨P, C⟩ + ε KL(P | abᵀ) over P ≥ 0 with P1 = a, Pᵀ1 = b. Its solution is P = exp((f ⊕ g − C)/ε)·abᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from sslosses._checks import check_floating
from sslosses._torch import at_least_float32, check_no_transform, has_values
from sslosses.transport.costs import PointcloudCost

Potentials = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Problem:
    """A batch of P transport problems of one size.

    Attributes:
        cost: (P, N, M) tensor, or (1, N, M) if all problems share it, or a :class:`PointcloudCost` of that shape.
        a: (P, N) row marginals; entries may be 0.
        b: (P, M) column marginals; entries may be 0.
        epsilon: ε in the units of the cost; 0 for the unregularized problem.
    """

    cost: Tensor | PointcloudCost
    a: Tensor
    b: Tensor
    epsilon: float

    @property
    def matrix(self) -> Tensor:
        """The cost as a (P or 1, N, M) tensor."""
        return self.cost if isinstance(self.cost, Tensor) else self.cost.dense()

    def materialized(self) -> Problem:
        """The same problem with its cost as a tensor."""
        return replace(self, cost=self.matrix)

    def largest_cost(self) -> Tensor:
        """An upper bound of the absolute value of the cost, (P or 1,); not finite if an entry is not."""
        if isinstance(self.cost, PointcloudCost):
            return self.cost.bound()
        low, high = self.cost.flatten(1).aminmax(dim=1)
        return torch.maximum(-low, high)

    def cost_range(self) -> Tensor:
        """An upper bound of the difference of two costs of a problem, (P or 1,); not finite if an entry is not."""
        if isinstance(self.cost, PointcloudCost):
            return self.cost.bound()
        low, high = self.cost.flatten(1).aminmax(dim=1)
        return high - low

    def select(self, index: slice | Tensor) -> Problem:
        """Some of the problems."""
        cost = self.cost
        if isinstance(cost, PointcloudCost):
            cost = cost.select(index)
        elif cost.shape[0] > 1:
            cost = cost[index]
        return Problem(cost, self.a[index], self.b[index], self.epsilon)

    def rows(self, index: slice) -> Problem:
        """The same rows of every problem, with all of b."""
        cost = self.cost.rows(index) if isinstance(self.cost, PointcloudCost) else self.cost[:, index]
        return replace(self, cost=cost, a=self.a[:, index])

    def split(self) -> list[Problem]:
        """The problems one by one, each with a batch of 1."""
        return [self.select(slice(i, i + 1)) for i in range(self.a.shape[0])]

    def detach(self) -> Problem:
        """The same problem without a graph."""
        return replace(self, cost=self.cost.detach(), a=self.a.detach(), b=self.b.detach())


class Solution(NamedTuple):
    """The result of a solver.

    Attributes:
        f: (P, N) potentials of the rows, in units of the cost, finite also where ``a`` is 0.
        g: (P, M) potentials of the columns, finite also where ``b`` is 0.
        iterations: (P,) int64 number of updates of both potentials.
        marginal_error: (P,) Σ|P1 − a| + Σ|Pᵀ1 − b| of the plan of f and g.
        plan: (P, N, M) plan at ε = 0, where the potentials do not determine it; else None.
        transport: (P,) ⟨P, C⟩ of that plan if a :class:`LazySolver` has computed it, else None.
    """

    f: Tensor
    g: Tensor
    iterations: Tensor
    marginal_error: Tensor
    plan: Tensor | None = None
    transport: Tensor | None = None


@runtime_checkable
class Solver(Protocol):
    """The protocol of a solver: ``solve(solver=...)`` accepts an object with these attributes.

    Attributes:
        name: the name in messages.
        entropic: True if it solves problems with ε > 0, False if it solves problems with ε = 0.
        unrolled: True if its iterations can be differentiated.
        lazy: True if it takes a lazy cost (:class:`PointcloudCost`) as it is. Otherwise it gets the matrix.
    """

    name: str
    entropic: bool
    unrolled: bool
    lazy: bool

    def solve(self, problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
        """Solves to a marginal error of at most ``tol``, or stops after ``max_iter`` iterations."""
        ...


class ValueGradient(NamedTuple):
    """Gradient of the value of every problem.

    Attributes:
        source: (P, N) gradient with respect to the values of the source points.
        target: (P, M) gradient with respect to the values of the target points.
        a: (P, N) gradient with respect to a, up to a constant per problem.
        b: (P, M) gradient with respect to b, up to a constant per problem.
    """

    source: Tensor
    target: Tensor
    a: Tensor
    b: Tensor


@runtime_checkable
class LazySolver(Protocol):
    """A solver that also computes values and gradients of a lazy cost without building its matrix."""

    def transport_value(self, problem: Problem, f: Tensor, g: Tensor) -> Tensor:
        """Computes ⟨P, C⟩ of the plan of f and g, (P,)."""
        ...

    def value_gradient(self, problem: Problem, f: Tensor, g: Tensor, *, exact: bool) -> ValueGradient:
        """Computes the gradient of ⟨P, C⟩ at the fixed point if ``exact``, else the envelope's: P, f and g."""
        ...


def make_problem(
    cost: Tensor | PointcloudCost, a: Tensor | None, b: Tensor | None, epsilon: float, *, differentiable: bool = False
) -> tuple[Problem, torch.Size]:
    """Checks the arguments of ``solve`` and broadcasts them to one problem with a flat batch.

    Args:
        cost: as for ``solve``.
        a: as for ``solve``.
        b: as for ``solve``.
        epsilon: ε, at least 0.
        differentiable: True if transforms of ``torch.func`` may differentiate the iterations.

    Returns:
        The problem, and the shape of the batch.
    """
    batch_shape = _check_arguments(cost, a, b, differentiable)
    rows, columns = cost.shape[-2:]
    # Half-precision masses sum to 1 within a percent only, and unequal masses have no plan.
    rescale = any(value is not None and value.dtype.itemsize == 2 for value in (a, b))
    if a is None:
        a = torch.full((rows,), 1 / rows, dtype=cost.dtype, device=cost.device)
    if b is None:
        b = torch.full((columns,), 1 / columns, dtype=cost.dtype, device=cost.device)
    if isinstance(cost, PointcloudCost):
        reference, a, b = at_least_float32(cost.source, a, b)
        cost = cost.to(reference.dtype).expand(batch_shape)
    else:
        cost, a, b = at_least_float32(cost, a, b)
        # A cost that all problems share is stored once.
        shared = cost.shape[:-2].numel() == 1
        cost = cost.reshape(1, rows, columns) if shared else _flatten(cost, batch_shape, 2)
    if rescale:
        b = b * (a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True))
    problem = Problem(cost, _flatten(a, batch_shape, 1), _flatten(b, batch_shape, 1), epsilon)
    if has_values(problem.a):
        _check_masses(problem.a.detach(), problem.b.detach())
    return problem, batch_shape


def _check_arguments(
    cost: Tensor | PointcloudCost, a: Tensor | None, b: Tensor | None, differentiable: bool
) -> torch.Size:
    """Raise unless dtypes, shapes and devices fit together; return the shape of the batch."""
    if not isinstance(cost, PointcloudCost):
        check_floating("cost", cost)
        if cost.ndim < 2:
            raise ValueError(f"Expected `cost` to have shape (..., N, M), but got {tuple(cost.shape)}")
    rows, columns = cost.shape[-2:]
    if rows == 0 or columns == 0:
        raise ValueError(f"Expected `cost` to have N >= 1 and M >= 1, but got {tuple(cost.shape)}")
    for name, value, size in (("a", a, rows), ("b", b, columns)):
        if value is not None:
            check_floating(name, value)
            if value.ndim < 1 or value.shape[-1] != size:
                raise ValueError(
                    f"Expected `{name}` to have shape (..., {size}) for a cost of shape {tuple(cost.shape)}, "
                    f"but got {tuple(value.shape)}"
                )
            if value.device != cost.device:
                raise ValueError(
                    f"Expected `{name}` to be on the device of `cost` ({cost.device}), but got {value.device}"
                )
    values = {"cost": cost} if isinstance(cost, Tensor) else {"source": cost.source, "target": cost.target}
    for name, value in (values | {"a": a, "b": b}).items():
        if value is not None:
            check_no_transform(name, value, differentiable=differentiable)
    shapes = [cost.shape[:-2], *(value.shape[:-1] for value in (a, b) if value is not None)]
    try:
        batch_shape: torch.Size = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    except RuntimeError:
        listed = ", ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(f"Expected the batch shapes of `cost`, `a` and `b` to broadcast, but got {listed}") from None
    return batch_shape


def _flatten(value: Tensor, batch_shape: torch.Size, keep: int) -> Tensor:
    tail = value.shape[-keep:]
    return value.expand(*batch_shape, *tail).reshape(batch_shape.numel(), *tail)


def _check_masses(a: Tensor, b: Tensor) -> None:
    # A problem with NaN or inf gives NaN. The other problems of the batch are solved.
    finite = a.isfinite().all(-1) & b.isfinite().all(-1)
    a, b = a[finite], b[finite]
    for name, value in (("a", a), ("b", b)):
        if bool((value < 0).any()):
            raise ValueError(f"Expected `{name}` to be non-negative, but got a minimum of {value.min().item():.3g}")
    mass_a, mass_b = a.sum(-1), b.sum(-1)
    if bool((mass_a <= 0).any() | (mass_b <= 0).any()):
        raise ValueError("Expected `a` and `b` to have a positive mass in every problem, but got a mass of 0")
    if bool(((mass_a - mass_b).abs() > 1e-3 * mass_a).any()):
        gap = (mass_a - mass_b).abs().max().item()
        raise ValueError(f"Expected `a` and `b` to have equal masses, but got masses that differ by up to {gap:.3g}")
