"""The reference solver: batched Sinkhorn iterations in the log domain, on the dense cost, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses.transport.potentials import column_potential, finish, log_weights, mass_error, row_potential
from sslosses.transport.problem import Potentials, Problem, Solution


class DenseSolver:
    """Sinkhorn's alternating updates in the log domain.

    A problem that has reached ``tol`` is frozen, so its result does not depend on the rest of its batch. Eagerly the
    loop ends when all problems are frozen. Compiled it runs ``max_iter`` times: the result is the same, without a
    branch on data.
    """

    name = "dense"
    entropic = True
    unrolled = True
    lazy = False

    def solve(self, problem: Problem, *, max_iter: int, tol: float | Tensor, init: Potentials | None) -> Solution:
        """Iterates until the row marginals are within ``tol``, which may be (P,), and ends with a half-step for f."""
        # Everything is in units of ε, so that the cost is divided only once.
        cost = problem.matrix / problem.epsilon
        log_a, log_b = log_weights(problem.a), log_weights(problem.b)

        g = torch.zeros_like(problem.b) if init is None else init[1] / problem.epsilon
        f = row_potential(cost, log_b, g)
        g = column_potential(cost, log_a, f)
        update = row_potential(cost, log_b, g)
        iterations = torch.ones(problem.a.shape[0], dtype=torch.int64, device=problem.a.device)
        for _ in range(1, max_iter):
            # Written so that an error of NaN counts as not converged.
            active = ~(_row_error(problem, f, update) <= tol)
            if problem.a.is_meta or (not torch.compiler.is_compiling() and not bool(active.any())):
                break
            f = torch.where(active.unsqueeze(-1), update, f)
            g = torch.where(active.unsqueeze(-1), column_potential(cost, log_a, f), g)
            update = row_potential(cost, log_b, g)
            iterations = iterations + active
        return finish(problem, cost, update, g, iterations)


def _row_error(problem: Problem, f: Tensor, update: Tensor) -> Tensor:
    return mass_error(problem.a.detach(), f.detach(), update.detach())
