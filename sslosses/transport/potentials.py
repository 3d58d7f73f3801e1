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


def mass_error(weights: Tensor, potential: Tensor, update: Tensor, epsilon: float = 1.0) -> Tensor:
    """Computes the L1 error of one marginal, (P,): a half-step scales a point's mass by exp((update − potential)/ε)."""
    excess = torch.expm1((potential - update) / epsilon).abs()
    return torch.where(weights > 0, weights * excess, 0).sum(-1)


def finish(problem: Problem, f: Tensor, g: Tensor, iterations: Tensor) -> Solution:
    """Makes a solution of f and g, in units of the cost: adds their error and the potentials where a marginal is 0.

    A point without mass takes no part in the iterations, so its potential is arbitrary. The half-step from the other
    side gives the one for which the gradient with respect to its mass is right.
    """
    epsilon = problem.epsilon
    cost = problem.matrix / epsilon
    rows = epsilon * row_potential(cost, log_weights(problem.b), g / epsilon)
    columns = epsilon * column_potential(cost, log_weights(problem.a), f / epsilon)
    error = mass_error(problem.a, f, rows, epsilon) + mass_error(problem.b, g, columns, epsilon)
    return Solution(torch.where(problem.a > 0, f, rows), torch.where(problem.b > 0, g, columns), iterations, error)
