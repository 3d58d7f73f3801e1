"""What rounding does to a solved problem: the ε that a dtype resolves, and the error of the rounded potentials' plan.

A solver's own error is that of its iterates, in units of ε. The returned potentials are rounded to a share of about
``finfo.eps`` of the largest cost. The plan is exp((f ⊕ g − C)/ε)·abᵀ, so this changes its marginals by about
``finfo.eps``·max|C|/ε, which no iteration can mend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._torch import has_values
from sslosses.transport.problem import Problem, Solution
from sslosses.transport.value import plan

# Below this share of an error, rounding is not looked at.
_NEGLIGIBLE = 0.05
# Entries of the plan that are computed at a time.
_BLOCK = 1 << 22


def rounding_error(problem: Problem, largest_cost: Tensor) -> Tensor:
    """Computes what rounding changes in the marginals, (P,)."""
    unit = 0.5 * torch.finfo(problem.a.dtype).eps / problem.epsilon
    return unit * largest_cost * problem.a.sum(-1)


def is_negligible(rounding: Tensor, error: float | Tensor) -> Tensor:
    """Whether rounding changes nothing that counts in a marginal error of this size."""
    return rounding <= _NEGLIGIBLE * error


def with_plan_error(problem: Problem, solution: Solution, rounding: Tensor, tol: float) -> Solution:
    """Replaces the solver's error by that of the plan where rounding counts, and never claims less than rounding.

    The error of potentials that are not finite is inf, whatever the solver says.
    """
    error = solution.marginal_error
    # Written so that NaN counts. The gauge has made all f of a problem NaN if any potential was not finite.
    counts = ~is_negligible(rounding, error.clamp(min=tol)) | ~solution.f.isfinite().all(-1)
    if not has_values(error):
        measured = torch.maximum(plan_error(problem, solution), rounding)
        return solution._replace(marginal_error=torch.where(counts, measured, error))
    if not bool(counts.any()):
        return solution
    index = counts.nonzero()[:, 0]
    part = solution._replace(f=solution.f[index], g=solution.g[index])
    measured = torch.maximum(plan_error(problem.select(index), part), rounding[index])
    return solution._replace(marginal_error=error.index_put((index,), measured))


def plan_error(problem: Problem, solution: Solution) -> Tensor:
    """Computes Σ|P1 − a| + Σ|Pᵀ1 − b| of the plan of f and g, (P,); inf where that is NaN. Works in blocks of rows."""
    count, rows = problem.a.shape
    columns = torch.zeros_like(problem.b)
    error = torch.zeros_like(problem.a[:, 0])
    # In a compiled graph, a number of blocks would depend on the size of the batch.
    step = max(1, _BLOCK // max(1, count * problem.b.shape[1])) if has_values(error) else rows
    for first in range(0, rows, step):
        index = slice(first, first + step)
        part = problem.rows(index)
        p = plan(part, solution._replace(f=solution.f[:, index]))
        error = error + (p.sum(-1) - part.a).abs().sum(-1)
        columns = columns + p.sum(-2)
    error = error + (columns - problem.b).abs().sum(-1)
    return error.nan_to_num(torch.inf, torch.inf)
