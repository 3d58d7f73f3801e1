"""Sweeps over a range of a problem's rows, compiled by numba; in units of ε.

``plan`` either has a row per row of the problem and is kept from sweep to sweep, or it has ROWS rows and is rebuilt for
each block. Sums over rows are added to their arrays, so that several threads can sweep ranges of one problem. Ranges
begin and end at whole blocks.
"""

from __future__ import annotations

import math
from typing import Any

from sslosses.transport.solvers.fused.cpu.plan import (
    column_softmax,
    control,
    cost_entry,
    fill_cost_rows,
    fill_plan_rows,
    fill_softmax_rows,
    loops,
)
from sslosses.transport.solvers.fused.cpu.rows import (
    dot_rows,
    exp_rows,
    gradient_rows,
    moment_rows,
    project_rows,
    scale_rows,
    weigh_rows,
)
from sslosses.transport.solvers.fused.cpu.vectors import ROWS


@loops
def _dot(x: Any, y: Any) -> Any:
    total = x.dtype.type(0)
    for k in range(x.shape[0]):
        total += x[k] * y[k]
    return total


@control
def log_range(
    cost: Any,
    p: int,
    first: int,
    last: int,
    rows: int,
    a: Any,
    log_columns: Any,
    f: Any,
    lowest: Any,
    totals: Any,
    sums: Any,
    plan: Any,
    cost_rows: Any,
) -> None:
    """f ← −log Σ exp(log_columns − C), and sums += Pᵀ1 of the plan of f and the columns' potential."""
    kept = plan.shape[0] > ROWS
    for i in range(first, last, ROWS):
        at = i if kept else 0
        fill_softmax_rows(cost, p, i, rows, log_columns, cost_rows, plan, at, lowest, totals)
        for k in range(i, min(i + ROWS, rows)):
            f[k] = lowest[k] - math.log(totals[k])
        for k in range(i, i + ROWS):
            totals[k] = a[k] / totals[k]
        weigh_rows(plan, at, totals, i, sums)


@control
def scale_range(
    cost: Any,
    p: int,
    first: int,
    last: int,
    rows: int,
    current: bool,
    log_rows: Any,
    log_columns: Any,
    a: Any,
    u: Any,
    v: Any,
    new_u: Any,
    totals: Any,
    missing: Any,
    outside: Any,
    sums: Any,
    plan: Any,
    cost_rows: Any,
) -> None:
    """Half an iteration, see :func:`scale_rows`; ``current``: the kept plan is already that of the potentials."""
    kept = plan.shape[0] > ROWS
    for i in range(first, last, ROWS):
        at = i if kept else 0
        if not current:
            fill_plan_rows(cost, p, i, rows, log_rows, log_columns, cost_rows, plan, at, totals)
        scale_rows(plan, at, v, a, i, u, new_u, missing, outside, sums)


@control
def value_range(
    cost: Any,
    p: int,
    first: int,
    last: int,
    rows: int,
    log_rows: Any,
    log_columns: Any,
    totals: Any,
    plan: Any,
    cost_rows: Any,
) -> float:
    """⟨P, C⟩ of these rows."""
    total = 0.0
    for i in range(first, last, ROWS):
        fill_plan_rows(cost, p, i, rows, log_rows, log_columns, cost_rows, plan, 0, totals)
        for k in range(min(ROWS, rows - i)):
            total += _dot(plan[k], cost_rows[k])
    return total


@control
def potentials_without_mass_range(
    cost: Any,
    p: int,
    first: int,
    last: int,
    rows: int,
    a: Any,
    log_columns: Any,
    f: Any,
    lowest: Any,
    totals: Any,
    plan: Any,
    cost_rows: Any,
) -> None:
    """f ← −log Σ exp(log_columns − C) where a is 0."""
    for i in range(first, last, ROWS):
        end = min(i + ROWS, rows)
        if a[i:end].min() == 0:
            fill_softmax_rows(cost, p, i, rows, log_columns, cost_rows, plan, 0, lowest, totals)
            for k in range(i, end):
                if a[k] == 0:
                    f[k] = lowest[k] - math.log(totals[k])


@control
def moment_range(
    cost: Any,
    p: int,
    first: int,
    last: int,
    rows: int,
    log_rows: Any,
    log_columns: Any,
    mass: Any,
    row_moved: Any,
    column_moved: Any,
    column_mass: Any,
    image: Any,
    plan: Any,
    cost_rows: Any,
) -> None:
    """mass ← P1, and the sums of :func:`moment_rows`."""
    kept = plan.shape[0] > ROWS
    for i in range(first, last, ROWS):
        at = i if kept else 0
        fill_plan_rows(cost, p, i, rows, log_rows, log_columns, cost_rows, plan, at, mass)
        moment_rows(plan, at, cost_rows, mass, i, row_moved, column_moved, column_mass, image)


@control
def project_range(
    cost: Any,
    p: int,
    first: int,
    last: int,
    rows: int,
    log_rows: Any,
    log_columns: Any,
    x: Any,
    mass: Any,
    totals: Any,
    sums: Any,
    plan: Any,
    cost_rows: Any,
) -> None:
    """sums += Pᵀ((P x)/mass)."""
    kept = plan.shape[0] > ROWS
    for i in range(first, last, ROWS):
        at = i if kept else 0
        if not kept:
            fill_plan_rows(cost, p, i, rows, log_rows, log_columns, cost_rows, plan, at, totals)
        project_rows(plan, at, x, mass, i, sums)


@control
def dot_range(
    cost: Any,
    p: int,
    first: int,
    last: int,
    rows: int,
    log_rows: Any,
    log_columns: Any,
    x: Any,
    out: Any,
    plan: Any,
    cost_rows: Any,
) -> None:
    """out ← P x."""
    kept = plan.shape[0] > ROWS
    for i in range(first, last, ROWS):
        at = i if kept else 0
        if not kept:
            fill_plan_rows(cost, p, i, rows, log_rows, log_columns, cost_rows, plan, at, out)
        dot_rows(plan, at, x, out, i)


@control
def means_without_mass_range(
    cost: Any,
    p: int,
    first: int,
    last: int,
    rows: int,
    a: Any,
    log_columns: Any,
    mu: Any,
    columns: int,
    lam: Any,
    lowest: Any,
    totals: Any,
    plan: Any,
    cost_rows: Any,
) -> None:
    """λ where a is 0: the mean of C − μ under the plan given the row; ``plan`` may be ``cost_rows``."""
    for i in range(first, last, ROWS):
        count = min(ROWS, rows - i)
        if a[i : i + count].min() == 0:
            fill_softmax_rows(cost, p, i, rows, log_columns, cost_rows, plan, 0, lowest, totals)
            for k in range(count):
                if a[i + k] == 0:
                    mean = 0.0
                    for j in range(columns):
                        mean += plan[k, j] * (cost_entry(cost, p, i + k, j) - mu[j])
                    lam[i + k] = mean / totals[i + k]


@control
def column_mean(cost: Any, p: int, j: int, rows: int, log_rows: Any, lam: Any, weights: Any) -> Any:
    """μ of a column: the mean of C − λ under the plan given the column, whose ``weights`` it writes."""
    total = column_softmax(cost, p, j, log_rows, weights, rows)[0]
    mean = 0.0
    for i in range(rows):
        if weights[i] > 0:
            mean += weights[i] * (cost_entry(cost, p, i, j) - lam[i])
    return mean / total


@control
def gradient_range(
    cost: Any,
    p: int,
    first: int,
    last: int,
    rows: int,
    exact: bool,
    log_rows: Any,
    log_columns: Any,
    lam: Any,
    mu: Any,
    totals: Any,
    grad_source: Any,
    grad_target: Any,
    plan: Any,
    cost_rows: Any,
) -> None:
    """The gradient of :func:`gradient_rows`. If ``exact``, a kept plan must be that of the potentials already."""
    kept = plan.shape[0] > ROWS
    share = plan.dtype.type(1 if exact else 0)
    source, target = cost.source, cost.target
    for i in range(first, last, ROWS):
        at = i if kept else 0
        fill_cost_rows(cost, p, i, rows, cost_rows)
        if not (kept and exact):
            exp_rows(cost_rows, log_rows, log_columns, i, plan, at, totals)
        gradient_rows(plan, at, cost_rows, share, lam, mu, source[p], target[p], i, grad_source, grad_target)
