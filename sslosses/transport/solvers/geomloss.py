"""GeomLoss' Sinkhorn loop on cost matrices.

GeomLoss' temperature is blur^p for a cost of ‖x − y‖^p/p. With p = 1 and our own cost, blur is ε itself, without a
factor ½. Its loop lowers the temperature from the diameter to ε and stops there, short of the fixed point. We set the
diameter to ε, so that all updates happen at ε. Then we subtract the potentials from the cost and call it again until
the marginals are right; the potentials of the remaining cost tend to 0. GeomLoss averages its updates (f and g at
once), so it needs about three times as many as alternating updates.
"""

from __future__ import annotations

import torch

from sslosses.transport._foreign import load
from sslosses.transport.potentials import column_potential, finish, log_weights, row_potential
from sslosses.transport.problem import Potentials, Problem, Solution

# Updates per call: one at the start, two in the schedule [ε, ε], one at the end.
_ROUND = 4


class GeomlossSolver:
    """Calls ``geomloss.SamplesLoss`` with the tensorized backend on a batch of cost matrices, four updates per call."""

    name = "geomloss"
    entropic = True
    unrolled = False
    lazy = False

    def solve(self, problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
        """Iterates until the marginal error is within ``tol``, for at least one round of four updates."""
        geomloss = load("geomloss", solver=self.name)
        a, b, epsilon = problem.a, problem.b, problem.epsilon
        cost = problem.matrix.expand(a.shape[0], -1, -1)
        scaled, log_a, log_b = problem.matrix / epsilon, log_weights(a), log_weights(b)
        # The cost function tells rows from columns by these values.
        rows, columns = a.new_zeros(*a.shape, 1), a.new_ones(*b.shape, 1)
        f, g = (torch.zeros_like(a), torch.zeros_like(b)) if init is None else init
        iterations = torch.zeros(a.shape[0], dtype=torch.int64, device=a.device)
        active = torch.ones_like(iterations, dtype=torch.bool)
        for _ in range(max(1, max_iter // _ROUND)):
            remaining = cost - f.unsqueeze(-1) - g.unsqueeze(-2)
            loss = geomloss.SamplesLoss(
                "sinkhorn",
                p=1,
                blur=epsilon,
                diameter=epsilon,
                cost=lambda x, _, c=remaining: c if x[0, 0, 0] == 0 else c.mT,
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
            # Its averages are not half-steps.
            half = column_potential(scaled, log_a, f / epsilon)
            solution = finish(problem, scaled, row_potential(scaled, log_b, half), half, iterations)
            active = ~(solution.marginal_error <= tol)
            if not bool(active.any()):
                break
        return solution
