"""Reference results for the contestants of ``transport.py``: float64, without the solvers of the library."""

from __future__ import annotations

from typing import NamedTuple

import torch
from problems import Pairs
from torch import Tensor

Graded = tuple[Tensor, Tensor]


class Reference(NamedTuple):
    """Values (P,) of a set of problems, and gradients of their mean by source and target, stacked to (2, P, N).

    Attributes:
        converged: at the fixed point, with the exact gradient; None if not requested or not reached.
        iterates: after a number of iterations that start with the rows, or with the columns, or that start with the
            rows and end with a half-step for them; the gradient goes through the iterations.
        marginal_error: L1 error of the converged plans.
    """

    converged: Graded | None
    iterates: tuple[Graded, Graded, Graded]
    marginal_error: float | None


def reference(pairs: Pairs, epsilon: float, iterations: int, *, fixed_point: bool = True) -> Reference:
    pairs = pairs.to(torch.float64)
    rows = _iterate(pairs, epsilon, iterations, rows_first=True)
    columns = _iterate(pairs, epsilon, iterations, rows_first=False)
    half_step = _iterate(pairs, epsilon, iterations, rows_first=True, half_step=True)
    try:
        converged, error = _fixed_point(pairs, epsilon) if fixed_point else (None, None)
    except torch.linalg.LinAlgError:
        # If the plan is a permutation to the last digit, the potentials are not unique.
        converged = error = None
    return Reference(converged, (rows, columns, half_step), error)


def leaves(pairs: Pairs) -> Pairs:
    return pairs._replace(source=pairs.source.clone().requires_grad_(), target=pairs.target.clone().requires_grad_())


def graded(values: Tensor, pairs: Pairs) -> Graded:
    """Values and the gradient of their mean by the values of the points."""
    return values.detach(), torch.stack(torch.autograd.grad(values.mean(), (pairs.source, pairs.target)))


def _iterate(pairs: Pairs, epsilon: float, iterations: int, *, rows_first: bool, half_step: bool = False) -> Graded:
    """Sinkhorn on the kernel exp(−C/ε), which does not underflow in float64 for C/ε < 700."""
    pairs = leaves(pairs)
    cost = pairs.cost.dense() if rows_first else pairs.cost.dense().mT
    kernel = (-cost / epsilon).exp()
    mass = 1 / kernel.shape[-1]
    v = kernel.new_ones(*kernel.shape[:2], 1)
    for _ in range(iterations):
        u = mass / torch.bmm(kernel, v)
        v = mass / torch.bmm(kernel.mT, u)
    if half_step:
        u = mass / torch.bmm(kernel, v)
    return graded((u * kernel * v.mT * cost).sum((-2, -1)), pairs)


def _fixed_point(pairs: Pairs, epsilon: float, tol: float = 1e-11) -> tuple[Graded, float]:
    """Newton's method on g, started by Sinkhorn with decreasing ε, as thousands of iterations may not converge."""
    pairs = leaves(pairs)
    cost = pairs.cost.dense()
    fixed = cost.detach()
    mass = 1 / cost.shape[-1]
    g = torch.zeros_like(fixed[:, 0])
    level = max(0.4, epsilon)
    while True:
        for _ in range(30):
            _, g = _updates(fixed, g, level)
        for _ in range(30):
            plan, _ = _plan(fixed, g, level)
            rest = mass - plan.sum(-2)
            if float(rest.abs().sum(-1).max()) <= tol:
                break
            step = level * _solve(plan, rest)
            # Far from the optimum the step is cut to a length where the quadratic model holds.
            length = step.abs().amax(-1, keepdim=True)
            g = g + step * (2 * level / length.clamp(min=1e-300)).clamp(max=1)
            _, g = _updates(fixed, g, level)
        if level <= epsilon:
            break
        level = max(level / 2, epsilon)
    plan, error = _plan(fixed, g, epsilon)
    weighted = plan * fixed
    rows, columns = weighted.sum(-1), weighted.sum(-2)
    mu = _solve(plan, columns - (plan.mT @ rows.unsqueeze(-1))[..., 0] / mass)
    lam = (rows - (plan @ mu.unsqueeze(-1))[..., 0]) / mass
    exact = plan * (1 - (fixed - lam.unsqueeze(-1) - mu.unsqueeze(-2)) / epsilon)
    # The gradient of this sum with respect to the cost is `exact`.
    _, gradient = graded((exact * cost).sum((-2, -1)), pairs)
    return (weighted.sum((-2, -1)), gradient), error


def _updates(cost: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    size = torch.tensor(cost.shape[-1], dtype=cost.dtype, device=cost.device).log()
    f = -epsilon * (torch.logsumexp((g.unsqueeze(-2) - cost) / epsilon, dim=-1) - size)
    return f, -epsilon * (torch.logsumexp((f.unsqueeze(-1) - cost) / epsilon, dim=-2) - size)


def _plan(cost: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, float]:
    """The plan of g and of the f that makes its row sums exact, and the error of its column sums."""
    mass = 1 / cost.shape[-1]
    plan = mass * torch.softmax((g.unsqueeze(-2) - cost) / epsilon, dim=-1)
    return plan, float((plan.sum(-2) - mass).abs().sum(-1).max())


def _solve(plan: Tensor, rest: Tensor) -> Tensor:
    """The solution x of (diag(Pᵀ1) − Pᵀ diag(1/a) P) x = rest whose sum is 0."""
    mass = 1 / plan.shape[-1]
    system = torch.diag_embed(plan.sum(-2)) - plan.mT @ plan / mass + mass * mass
    centered = rest - rest.mean(-1, keepdim=True)
    # Not as a batch: of 195 × 195 systems it fails in torch 2.13 on two threads if nothing has used MKL before.
    return torch.stack(
        [torch.linalg.solve(matrix, right_side) for matrix, right_side in zip(system, centered, strict=True)]
    )
