"""Passes over a range of a problem's rows, compiled by numba; everything in units of ε.

``plan`` has a row for each row of the problem and is kept from pass to pass, or it has ROWS, and is built anew block
after block. Sums over rows are added to what is there, so that ranges can be passed over on several threads. Ranges
begin and end at whole blocks.
"""

from __future__ import annotations

import math
from typing import Any

from sslosses.transport.solvers.fused.cpu.plan import (
    column_softmax,
    control,
    cost_entry,
    cost_rows,
    loops,
    plan_rows,
    softmax_rows,
)
from sslosses.transport.solvers.fused.cpu.rows import (
    dot_rows,
    exp_rows,
    gradient_of_rows,
    moments_of_rows,
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
    ground: Any,
) -> None:
    """f ← −log Σ exp(log_columns − C), and sums += Pᵀ1 of the plan of f and the columns' potential."""
    kept = plan.shape[0] > ROWS
    for i in range(first, last, ROWS):
        at = i if kept else 0
        softmax_rows(cost, p, i, rows, log_columns, ground, plan, at, lowest, totals)
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
    ground: Any,
) -> None:
    """Half an iteration, see :func:`scale_rows`; ``current``: the plan kept is already that of the potentials."""
    kept = plan.shape[0] > ROWS
    for i in range(first, last, ROWS):
        at = i if kept else 0
        if not current:
            plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, at, totals)
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
    ground: Any,
) -> float:
    """⟨P, C⟩ of these rows."""
    total = 0.0
    for i in range(first, last, ROWS):
        plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, 0, totals)
        for k in range(min(ROWS, rows - i)):
            total += _dot(plan[k], ground[k])
    return total


@control
def rows_without_mass(
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
    ground: Any,
) -> None:
    """f ← −log Σ exp(log_columns − C) where a is 0."""
    for i in range(first, last, ROWS):
        end = min(i + ROWS, rows)
        if a[i:end].min() == 0:
            softmax_rows(cost, p, i, rows, log_columns, ground, plan, 0, lowest, totals)
            for k in range(i, end):
                if a[k] == 0:
                    f[k] = lowest[k] - math.log(totals[k])


@control
def moments_range(
    cost: Any,
    p: int,
    first: int,
    last: int,
    rows: int,
    log_rows: Any,
    log_columns: Any,
    mass: Any,
    moved: Any,
    of_moved: Any,
    of_mass: Any,
    image: Any,
    plan: Any,
    ground: Any,
) -> None:
    """mass ← P1, and what :func:`moments_of_rows` gives."""
    kept = plan.shape[0] > ROWS
    for i in range(first, last, ROWS):
        at = i if kept else 0
        plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, at, mass)
        moments_of_rows(plan, at, ground, mass, i, moved, of_moved, of_mass, image)


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
    ground: Any,
) -> None:
    """sums += Pᵀ((P x)/mass)."""
    kept = plan.shape[0] > ROWS
    for i in range(first, last, ROWS):
        at = i if kept else 0
        if not kept:
            plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, at, totals)
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
    ground: Any,
) -> None:
    """out ← P x."""
    kept = plan.shape[0] > ROWS
    for i in range(first, last, ROWS):
        at = i if kept else 0
        if not kept:
            plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, at, out)
        dot_rows(plan, at, x, out, i)


@control
def row_means_without_mass(
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
    ground: Any,
) -> None:
    """λ where a is 0: the mean of C − μ under the plan's conditional; ``plan`` may be ``ground``."""
    for i in range(first, last, ROWS):
        count = min(ROWS, rows - i)
        if a[i : i + count].min() == 0:
            softmax_rows(cost, p, i, rows, log_columns, ground, plan, 0, lowest, totals)
            for k in range(count):
                if a[i + k] == 0:
                    mean = 0.0
                    for j in range(columns):
                        mean += plan[k, j] * (cost_entry(cost, p, i + k, j) - mu[j])
                    lam[i + k] = mean / totals[i + k]


@control
def column_mean(cost: Any, p: int, j: int, rows: int, log_rows: Any, lam: Any, room: Any) -> Any:
    """μ of a column: the mean of C − λ under the plan's conditional; ``room`` for a number a row."""
    total = column_softmax(cost, p, j, log_rows, room, rows)[0]
    mean = 0.0
    for i in range(rows):
        if room[i] > 0:
            mean += room[i] * (cost_entry(cost, p, i, j) - lam[i])
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
    of_rows: Any,
    of_columns: Any,
    plan: Any,
    ground: Any,
) -> None:
    """What :func:`gradient_of_rows` gives. A plan that is kept is that of the potentials if ``exact``."""
    kept = plan.shape[0] > ROWS
    share = plan.dtype.type(1 if exact else 0)
    source, target = cost[1], cost[2]
    for i in range(first, last, ROWS):
        at = i if kept else 0
        cost_rows(cost, p, i, rows, ground)
        if not (kept and exact):
            exp_rows(ground, log_rows, log_columns, i, plan, at, totals)
        gradient_of_rows(plan, at, ground, share, lam, mu, source[p], target[p], i, of_rows, of_columns)
