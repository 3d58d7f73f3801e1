"""The unregularized problem, ε = 0, by POT's network simplex."""

from __future__ import annotations

import warnings
from types import ModuleType

import torch
from torch import Tensor

from sslosses.transport._foreign import load
from sslosses.transport.problem import Potentials, Problem, Solution


class ExactSolver:
    """Calls ``ot.emd`` per problem, on the CPU in float64.

    The optimal plan is the gradient of the value with respect to the cost, and the dual potentials are the gradients
    with respect to the marginals. Where several plans or potentials are optimal, they are one subgradient of many.
    """

    name = "exact"
    entropic = False
    unrolled = False
    lazy = False

    def solve(
        self,
        problem: Problem,
        *,
        max_iter: int,  # noqa: ARG002
        tol: float,  # noqa: ARG002
        init: Potentials | None,  # noqa: ARG002
    ) -> Solution:
        """Solves to optimality; ``max_iter``, ``tol`` and ``init`` have no meaning for a simplex method."""
        ot = load("ot", solver=self.name)
        # The simplex needs equal masses in float64; in float32 they differ by rounding.
        a, b = (mass.double() / mass.double().sum(-1, keepdim=True) for mass in (problem.a, problem.b))
        cost = problem.matrix.double().expand(len(a), -1, -1)
        results = [_solve_one(ot, *arguments) for arguments in zip(a, b, cost, strict=True)]
        plans, rows, columns, solved = zip(*results, strict=True)
        like = problem.a
        mass = like.sum(-1)[:, None, None]
        p = torch.stack(plans).to(like) * mass
        error = (p.sum(-1) - problem.a).abs().sum(-1) + (p.sum(-2) - problem.b).abs().sum(-1)
        # An unsolved problem may still have the right marginals.
        error = torch.where(torch.tensor(solved, device=like.device), error, torch.inf)
        iterations = torch.zeros(len(plans), dtype=torch.int64, device=like.device)
        f, g = torch.stack(rows).to(cost), torch.stack(columns).to(cost)
        # Without mass any small enough potential is optimal. The largest one is the cost of a first bit of mass, and
        # the limit of the entropic solvers' potentials for ε → 0.
        largest_f = (cost - g.unsqueeze(-2)).masked_fill((b == 0).unsqueeze(-2), torch.inf).amin(-1)
        largest_g = (cost - f.unsqueeze(-1)).masked_fill((a == 0).unsqueeze(-1), torch.inf).amin(-2)
        f, g = torch.where(a > 0, f, largest_f), torch.where(b > 0, g, largest_g)
        return Solution(f.to(like), g.to(like), iterations, error, p)


def _solve_one(ot: ModuleType, a: Tensor, b: Tensor, cost: Tensor) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Plan, f, g and whether they are optimal; NaN for a problem that is not finite."""
    if not all(bool(argument.isfinite().all()) for argument in (a, b, cost)):
        plan, f, g = (torch.full_like(argument, torch.nan, device="cpu") for argument in (cost, a, b))
        return plan, f, g, False
    a, b, cost = (argument.cpu() for argument in (a, b, cost))
    plan, f, g = torch.zeros_like(cost), torch.zeros_like(a), torch.zeros_like(b)
    # POT starts from artificial arcs that cost more than the largest cost, but not more than the range of negative
    # ones. So we hand it costs from 0, and without the points that have no mass, as theirs may set another scale.
    rows, columns = a.nonzero(), b.nonzero()[:, 0]
    part = cost[rows, columns]
    lowest = part.min()
    with warnings.catch_warnings():
        # POT warns when it reaches its pivot limit. The marginal error of the result tells it instead.
        warnings.simplefilter("ignore")
        arrays = (x.contiguous().numpy() for x in (a[rows[:, 0]], b[columns], part - lowest))
        part_plan, log = ot.emd(*arrays, numItermax=10_000_000, log=True)
    plan[rows, columns] = torch.from_numpy(part_plan)
    f[rows[:, 0]] = torch.from_numpy(log["u"]) + lowest
    g[columns] = torch.from_numpy(log["v"])
    return plan, f, g, log["warning"] is None
