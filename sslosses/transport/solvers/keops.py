"""Sinkhorn with KeOps: cost and plan are evaluated pair by pair, in memory linear in the number of points.

The updates are those of the dense solver. The log-sum-exp with a formula for the cost is the one of GeomLoss' online
backend. GeomLoss itself is not used, as it solves one problem per call and its averaged updates need about three times
the iterations.

Everything is in units of ε. There are only two formulas, since the first use of each one compiles it for some seconds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sslosses.transport._foreign import compiling_keops, load
from sslosses.transport.adjoint import solve_adjoint
from sslosses.transport.costs import PointcloudCost
from sslosses.transport.potentials import mass_error
from sslosses.transport.problem import Potentials, Problem, Solution, ValueGradient

_COST = "(Abs(S - T) + Norm2(X - Y))"


class GeomlossKeopsSolver:
    """Sinkhorn's alternating updates for a :class:`PointcloudCost`, all problems of the batch in one KeOps reduction.

    The iterates are those of the dense solver. A problem that has reached ``tol`` leaves the batch. Value and gradient
    are KeOps reductions too. The first use of a dimension and dtype compiles two formulas, which KeOps caches on disk.
    """

    name = "geomloss-keops"
    entropic = True
    unrolled = False
    lazy = True

    def solve(self, problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
        """Iterates until the row marginals are within ``tol``, and ends with a half-step for f."""
        a, epsilon = problem.a, problem.epsilon
        pairs = _pairs(problem, self.name)
        g = torch.zeros_like(problem.b) if init is None else init[1] / epsilon
        f = pairs.potential(g)
        g = pairs.mT.potential(f)
        update = pairs.potential(g)
        error = mass_error(a, f, update)
        iterations = torch.ones(a.shape[0], dtype=torch.int64, device=a.device)
        active = torch.arange(a.shape[0], device=a.device)
        for _ in range(1, max_iter):
            # Written so that an error of NaN counts as not converged.
            active = active[~(error[active] <= tol)]
            if not len(active):
                break
            part = pairs.select(active)
            f[active] = update[active]
            g[active] = part.mT.potential(f[active])
            update[active] = part.potential(g[active])
            error[active] = mass_error(a[active], f[active], update[active])
            iterations[active] += 1
        # As in sslosses.transport.potentials.finish.
        columns = pairs.mT.potential(update)
        g_error = mass_error(problem.b, g, columns)
        g = torch.where(problem.b > 0, g, columns)
        return Solution(update * epsilon, g * epsilon, iterations, g_error)

    def transport_value(self, problem: Problem, f: Tensor, g: Tensor) -> Tensor:
        """Computes ⟨P, C⟩, (P,)."""
        pairs, epsilon = _pairs(problem, self.name), problem.epsilon
        row, column = pairs.log_a + f / epsilon, pairs.log_b + g / epsilon
        return epsilon * pairs.sum(row, column, cost=1.0).sum(-1)

    def value_gradient(self, problem: Problem, f: Tensor, g: Tensor, *, exact: bool) -> ValueGradient:
        """Computes the gradient of ⟨P, C⟩ if ``exact``, else the envelope's; see :mod:`sslosses.transport.value`."""
        pairs, epsilon = _pairs(problem, self.name), problem.epsilon
        back = pairs.mT
        row, column = pairs.log_a + f / epsilon, pairs.log_b + g / epsilon
        lam, mu, cost = torch.zeros_like(f), torch.zeros_like(g), 0.0
        if exact:
            cost = -1.0
            lam, mu = solve_adjoint(
                lambda v: pairs.sum(row, column, v=v),
                lambda u: back.sum(column, row, v=u),
                a=pairs.sum(row, column, u=torch.ones_like(f)),
                b=back.sum(column, row, u=torch.ones_like(g)),
                r=pairs.sum(row, column, cost=1.0),
                c=back.sum(column, row, cost=1.0),
            )
        # The derivative of |s − t| is its sign for s and the opposite sign for t.
        source = pairs.sum(row, column, u=1 + lam, v=mu, cost=cost, signed=True)
        target = back.sum(column, row, u=1 + mu, v=lam, cost=cost, signed=True)
        if exact:
            # Computed again from the conditional plans P/a and P/b, which also exist where a or b is 0.
            lam = pairs.sum(pairs.potential(g / epsilon), column, v=-mu, cost=1.0)
            mu = back.sum(back.potential(f / epsilon), row, v=-lam, cost=1.0)
            f, g = epsilon * lam, epsilon * mu
        assert isinstance(problem.cost, PointcloudCost)
        weight = problem.cost.value_weight
        return ValueGradient(weight * source, weight * target, f, g)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """All pairs (x, y). In units of ε, their cost is |source − target| + ‖source_positions − target_positions‖.

    Attributes:
        source: (P, N, 1) weighted values.
        source_positions: (1, N, D) weighted positions.
        target: (P, M, 1) weighted values.
        target_positions: (1, M, D) weighted positions.
        log_a: (P, N) log of the row masses, finite also where they are 0.
        log_b: (P, M) log of the column masses.
        log_sum: KeOps' reduction log Σ_y exp(G − C).
        plain_sum: KeOps' reduction Σ_y exp(F + G − C)·(U + V + K·C)·sign(S − T + Z).
    """

    source: Tensor
    source_positions: Tensor
    target: Tensor
    target_positions: Tensor
    log_a: Tensor
    log_b: Tensor
    log_sum: Any
    plain_sum: Any

    @property
    def mT(self) -> _Pairs:  # noqa: N802
        """All pairs (y, x)."""
        return replace(
            self,
            source=self.target,
            source_positions=self.target_positions,
            target=self.source,
            target_positions=self.source_positions,
            log_a=self.log_b,
            log_b=self.log_a,
        )

    def select(self, index: Tensor) -> _Pairs:
        """The problems with these indices."""
        return replace(
            self,
            source=self.source[index],
            target=self.target[index],
            log_a=self.log_a[index],
            log_b=self.log_b[index],
        )

    def potential(self, g: Tensor) -> Tensor:
        """Computes f = −log Σ_y b exp(g − C): (P, M) → (P, N)."""
        return -self._reduce(self.log_sum, (self.log_b + g).unsqueeze(-1))

    def sum(
        self,
        row: Tensor,
        column: Tensor,
        *,
        u: Tensor | None = None,
        v: Tensor | None = None,
        cost: float = 0.0,
        signed: bool = False,
    ) -> Tensor:
        """Computes Σ_y exp(row + column − C)·(u + v + cost·C), times sign(source − target) if ``signed``: (P, N)."""
        u = torch.zeros_like(row) if u is None else u
        v = torch.zeros_like(column) if v is None else v
        # ∞, added to the difference of the values, makes its sign 1.
        constants = (row.new_full((1, 1, 1), number) for number in (cost, 0.0 if signed else torch.inf))
        return self._reduce(self.plain_sum, *(vector.unsqueeze(-1) for vector in (row, column, u, v)), *constants)

    def _reduce(self, reduction: Any, *variables: Tensor) -> Tensor:
        # KeOps refuses an empty batch.
        if not self.source.shape[0]:
            return self.source[..., 0]
        points = (self.source, self.source_positions, self.target, self.target_positions)
        # KeOps copies non-contiguous tensors and prints that it does.
        reduced: Tensor = reduction(*(x.contiguous() for x in (*points, *variables)))
        return reduced.squeeze(-1)


def _pairs(problem: Problem, solver: str) -> _Pairs:
    cost = problem.cost
    if not isinstance(cost, PointcloudCost):
        raise ValueError(
            f"The solver {solver!r} evaluates the cost point by point and takes no matrix. Pass "
            "pointcloud_cost(...) or lazy_grid_cost(...), or use solver='geomloss'"
        )
    _compile(solver, cost.source.dtype, cost.source.device, cost.source_positions.shape[-1])
    value, position = cost.value_weight / problem.epsilon, cost.position_weight / problem.epsilon
    return _Pairs(
        cost.source.unsqueeze(-1) * value,
        (cost.source_positions * position).unsqueeze(0),
        cost.target.unsqueeze(-1) * value,
        (cost.target_positions * position).unsqueeze(0),
        _log(problem.a),
        _log(problem.b),
        *_reductions(solver, cost.source_positions.shape[-1]),
    )


def _reductions(solver: str, dimension: int) -> tuple[Any, Any]:
    """KeOps' reductions log Σ and Σ of :class:`_Pairs`, for positions of this dimension."""
    keops = load("pykeops.torch", solver=solver, extra="keops")
    points = ["S = Vi(1)", f"X = Vi({dimension})", "T = Vj(1)", f"Y = Vj({dimension})"]
    variables = ["F = Vi(1)", "G = Vj(1)", "U = Vi(1)", "V = Vj(1)", "K = Pm(1)", "Z = Pm(1)"]
    weighted = f"Exp(F + G - {_COST}) * (U + V + K * {_COST}) * Sign(S - T + Z)"
    return (
        keops.Genred(f"G - {_COST}", [*points, "G = Vj(1)"], reduction_op="LogSumExp", axis=1),
        # Compensated, as rounding in the products with the plan limits what the adjoint system can reach in float32.
        keops.Genred(weighted, [*points, *variables], reduction_op="Sum", axis=1, sum_scheme="kahan_scheme"),
    )


@functools.cache
def _compile(solver: str, dtype: torch.dtype, device: torch.device, dimension: int) -> None:
    """Compiles both reductions, or waits until another process has; once per process."""
    load("pykeops.torch", solver=solver, extra="keops")
    one, point = (torch.zeros(1, 1, size, dtype=dtype, device=device) for size in (1, dimension))
    with compiling_keops(solver):
        log_sum, plain_sum = _reductions(solver, dimension)
        log_sum(one, point, one, point, one)
        plain_sum(one, point, one, point, *[one] * 6)


def _log(weights: Tensor) -> Tensor:
    # Finite, as KeOps' running maximum can't start from −∞. An eighth of the lowest number, so that sums stay finite.
    return torch.where(weights > 0, weights.log(), torch.finfo(weights.dtype).min / 8)
