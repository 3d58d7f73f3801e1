"""GeomLoss' Sinkhorn loop on cost matrices, and online with KeOps in memory linear in the number of points.

GeomLoss' temperature is blur^p with a cost of ‖x − y‖^p/p. With p = 1 and our own cost, blur is ε itself and no factor
½ appears. Its loop lowers the temperature from the diameter to ε and stops there, short of the fixed point. We set the
diameter to ε, so that all of its updates happen at ε; then subtract its potentials from the cost and call it again
until the marginals are right: the potentials of what remains tend to 0. Its updates are averaged ones (f and g at
once), so it takes about three times the iterations of alternating ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslosses.transport._foreign import load
from sslosses.transport.costs import PointcloudCost
from sslosses.transport.problem import Potentials, Problem, Solution, finish, mass_error

# Updates in a call at one temperature: one to start, two in the schedule [ε, ε], one to finish.
_ROUND = 4


class GeomlossSolver:
    """``geomloss.SamplesLoss`` with the tensorized backend on a batch of cost matrices, in rounds of four updates."""

    name = "geomloss"
    entropic = True
    unrolled = False
    lazy = False

    def solve(self, problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
        """Polish until the marginal error is within ``tol``; at least one round."""
        geomloss = load("geomloss", solver=self.name)
        a, b, epsilon = problem.a, problem.b, problem.epsilon
        cost = problem.matrix.expand(a.shape[0], -1, -1)
        # The cost function knows its two arguments by these marks.
        rows, columns = a.new_zeros(*a.shape, 1), a.new_ones(*b.shape, 1)
        f, g = (torch.zeros_like(a), torch.zeros_like(b)) if init is None else init
        iterations = torch.zeros(a.shape[0], dtype=torch.int64, device=a.device)
        active = torch.ones_like(iterations, dtype=torch.bool)
        for _ in range(max(1, max_iter // _ROUND)):
            rest = cost - f.unsqueeze(-1) - g.unsqueeze(-2)
            loss = geomloss.SamplesLoss(
                "sinkhorn",
                p=1,
                blur=epsilon,
                diameter=epsilon,
                cost=lambda x, _, rest=rest: rest if x[0, 0, 0] == 0 else rest.mT,
                debias=False,
                potentials=True,
                backend="tensorized",
            )
            # GeomLoss leaves the gradient mode switched on.
            with torch.no_grad():
                more_f, more_g = loss(a, rows, b, columns)
            f = torch.where(active.unsqueeze(-1), f + more_f, f)
            g = torch.where(active.unsqueeze(-1), g + more_g, g)
            iterations = iterations + _ROUND * active
            solution = finish(problem, f, g, iterations)
            active = ~(solution.marginal_error <= tol)
            if not bool(active.any()):
                break
        return solution


class GeomlossKeopsSolver:
    """``geomloss.SamplesLoss`` with the online backend, one problem after the other, each in linear memory.

    Takes a :class:`PointcloudCost` only. The value and its gradient build the N × M matrix of one problem at a time.
    The first use of a dimension and dtype compiles a formula, which KeOps keeps in its cache folder.
    """

    name = "geomloss-keops"
    entropic = True
    unrolled = False
    lazy = True

    def solve(self, problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
        """Polish until the marginal error is within ``tol``; at least one round."""
        if not isinstance(problem.cost, PointcloudCost):
            raise ValueError(
                "The solver 'geomloss-keops' evaluates the cost point by point and takes no matrix. Pass "
                "pointcloud_cost(...) or lazy_grid_cost(...), or use solver='geomloss'"
            )
        geomloss = load("geomloss", solver=self.name)
        keops = load("pykeops.torch", solver=self.name, extra="keops")
        solved = []
        for i in range(problem.a.shape[0]):
            start = None if init is None else (init[0][i], init[1][i])
            solved.append(_online(geomloss, keops, problem, i, max_iter, tol, start))
        f, g, iterations, error = zip(*solved, strict=True)
        counts = torch.tensor(iterations, device=problem.a.device)
        return Solution(torch.stack(f), torch.stack(g), counts, torch.stack(error))


def _online(
    geomloss: Any, keops: Any, problem: Problem, i: int, max_iter: int, tol: float, start: Potentials | None
) -> tuple[Tensor, Tensor, int, Tensor]:
    cost, a, b, epsilon = problem.cost, problem.a[i], problem.b[i], problem.epsilon
    assert isinstance(cost, PointcloudCost)
    # In units of ε, since GeomLoss rounds 1/ε to float32. A point is (weighted value, weighted position, potential).
    value, position = cost.value_weight / epsilon, cost.position_weight / epsilon
    x = torch.cat((cost.source[i, :, None] * value, cost.source_positions * position), dim=-1)
    y = torch.cat((cost.target[i, :, None] * value, cost.target_positions * position), dim=-1)
    d = cost.source_positions.shape[-1]
    ground = f"Abs(Extract(X,0,1) - Extract(Y,0,1)) + Norm2(Extract(X,1,{d}) - Extract(Y,1,{d}))"
    formula = f"({ground} - Extract(X,{d + 1},1) - Extract(Y,{d + 1},1))"
    loss = geomloss.SamplesLoss(
        "sinkhorn", p=1, blur=1.0, diameter=1.0, cost=formula, debias=False, potentials=True, backend="online"
    )
    # The formula that GeomLoss builds from `cost`, so that one compilation serves both.
    reduce = keops.generic_logsumexp(
        f"( B - (P * {formula} ) )", "A = Vi(1)", f"X = Vi({d + 2})", f"Y = Vj({d + 2})", "B = Vj(1)", "P = Pm(1)"
    )
    one = a.new_ones(1)
    f, g = (torch.zeros_like(a), torch.zeros_like(b)) if start is None else (start[0] / epsilon, start[1] / epsilon)
    iterations = 0
    error = a.new_tensor(torch.inf)
    for _ in range(max(1, max_iter // _ROUND)):
        with torch.no_grad():
            rows, columns = torch.cat((x, f[:, None]), dim=-1)[None], torch.cat((y, g[:, None]), dim=-1)[None]
            more_f, more_g = loss(a[None], rows, b[None], columns)
        f, g = f + more_f[0], g + more_g[0]
        iterations += _ROUND
        rows, columns = torch.cat((x, f[:, None]), dim=-1), torch.cat((y, g[:, None]), dim=-1)
        # What is left of the potentials after one more half-step is the marginal error.
        rest_f = -reduce(rows, columns, _log(b)[:, None], one)[:, 0]
        rest_g = -reduce(columns, rows, _log(a)[:, None], one)[:, 0]
        # A point without mass takes no part; its potential is the one that the others imply.
        f, g = torch.where(a > 0, f, f + rest_f), torch.where(b > 0, g, g + rest_g)
        zero_f, zero_g = torch.zeros_like(a), torch.zeros_like(b)
        error = (mass_error(a, zero_f, rest_f, 1.0) + mass_error(b, zero_g, rest_g, 1.0)).reshape(())
        if bool(error <= tol):
            break
    return f * epsilon, g * epsilon, iterations, error


def _log(weights: Tensor) -> Tensor:
    # Finite, as in GeomLoss: KeOps' running maximum can't start from −∞.
    return torch.where(weights > 0, weights.log(), -100_000.0)
