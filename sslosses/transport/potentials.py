"""Sinkhorn's half-steps and their error in the log domain.

The half-steps are in units of ε: cost and potentials are divided by ε, so that an iteration divides nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses.transport.problem import Problem, Solution


def log_weights(weights: Tensor) -> Tensor:
    """Computes log w: −∞ where w is 0, with a gradient of 0 there instead of NaN."""
    positive = weights > 0
    return torch.where(positive, torch.where(positive, weights, 1).log(), -torch.inf)


def row_potential(cost: Tensor, log_b: Tensor, g: Tensor) -> Tensor:
    """Computes f = −log Σ_y b exp(g − C), whose plan has row sums a: (P or 1, N, M), (P, M), (P, M) → (P, N)."""
    return -torch.logsumexp((log_b + g).unsqueeze(-2) - cost, dim=-1)


def column_potential(cost: Tensor, log_a: Tensor, f: Tensor) -> Tensor:
    """Computes g = −log Σ_x a exp(f − C), whose plan has column sums b: (P or 1, N, M), (P, N), (P, N) → (P, M)."""
    return -torch.logsumexp((log_a + f).unsqueeze(-1) - cost, dim=-2)


def mass_error(weights: Tensor, potential: Tensor, update: Tensor) -> Tensor:
    """Computes the L1 error of one marginal, (P,): a half-step scales a point's mass by exp(update − potential)."""
    excess = torch.expm1(potential - update).abs()
    return torch.where(weights > 0, weights * excess, 0).sum(-1)


def finish(problem: Problem, cost: Tensor, f: Tensor, g: Tensor, iterations: Tensor) -> Solution:
    """Makes a solution of g, the half-step f from it, and cost, all in units of ε.

    Solvers end with half-steps, because the error does not see the potential of a point of little or no mass, however
    far it is off. A half-step is as right there as at any other point, and so is the gradient with respect to the mass.
    The rows of the plan are exact then. The error of the columns is at most that of the rows before the half-step.
    """
    columns = column_potential(cost, log_weights(problem.a), f)
    error = mass_error(problem.b.detach(), g.detach(), columns.detach())
    g = torch.where(problem.b > 0, g, columns)
    return Solution(f * problem.epsilon, g * problem.epsilon, iterations, error)
