"""POT's network simplex: the unregularized problem, ε = 0."""

from __future__ import annotations

import warnings

import torch

from sslosses.transport._foreign import load
from sslosses.transport.problem import Potentials, Problem, Solution


class ExactSolver:
    """``ot.emd`` in a loop over the problems, on the CPU in float64.

    The optimal plan is a gradient of the value with respect to the cost, and the dual potentials are one with respect
    to the marginals; where several plans or potentials are optimal, they are one subgradient of many.
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
        """Solve to optimality; ``max_iter``, ``tol`` and ``init`` have no meaning for a simplex method."""
        ot = load("ot", solver=self.name)
        # The simplex needs masses that agree to float64; the difference to float32 ones is rounding.
        a, b = (mass.double() / mass.double().sum(-1, keepdim=True) for mass in (problem.a, problem.b))
        cost = problem.matrix.double().expand(len(a), -1, -1)
        plans: list[torch.Tensor] = []
        rows: list[torch.Tensor] = []
        columns: list[torch.Tensor] = []
        solved: list[bool] = []
        for arguments in zip(a, b, cost, strict=True):
            if not all(bool(each.isfinite().all()) for each in arguments):
                nothing = (torch.full_like(each, torch.nan, device="cpu") for each in (arguments[2], *arguments[:2]))
                for found, none in zip((plans, rows, columns), nothing, strict=True):
                    found.append(none)
                solved.append(False)
                continue
            with warnings.catch_warnings():
                # POT warns of a pivot limit; the result says it instead.
                warnings.simplefilter("ignore")
                arrays = (each.contiguous().cpu().numpy() for each in arguments)
                p, log = ot.emd(*arrays, numItermax=10_000_000, log=True)
            plans.append(torch.from_numpy(p))
            rows.append(torch.from_numpy(log["u"]))
            columns.append(torch.from_numpy(log["v"]))
            solved.append(log["warning"] is None)
        like = problem.a
        mass = like.sum(-1)[:, None, None]
        p = torch.stack(plans).to(like) * mass
        error = (p.sum(-1) - problem.a).abs().sum(-1) + (p.sum(-2) - problem.b).abs().sum(-1)
        # An unsolved problem may still have the right marginals.
        error = torch.where(torch.tensor(solved, device=like.device), error, torch.inf)
        iterations = torch.zeros(len(plans), dtype=torch.int64, device=like.device)
        f, g = torch.stack(rows).to(cost), torch.stack(columns).to(cost)
        # Without mass any small enough potential is optimal. The largest one is what a first bit of mass would cost,
        # and the limit of the entropic solvers'.
        of_rows = (cost - g.unsqueeze(-2)).masked_fill((b == 0).unsqueeze(-2), torch.inf).amin(-1)
        of_columns = (cost - f.unsqueeze(-1)).masked_fill((a == 0).unsqueeze(-1), torch.inf).amin(-2)
        f, g = torch.where(a > 0, f, of_rows), torch.where(b > 0, g, of_columns)
        return Solution(f.to(like), g.to(like), iterations, error, p)
