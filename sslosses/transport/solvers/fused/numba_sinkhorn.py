"""Sinkhorn's iterations on one problem, compiled by numba.

The kernel of the iterations is the plan of the potentials so far, P = exp(f ⊕ g − C)·abᵀ, and its scalings u and v
start at 1. As long as they stay in a range in which nothing that counts can underflow, an iteration is two products.
One that would leave it is done in the log domain, after absorbing the scalings into f and g. If ``plan`` has a row for
each row of the problem it is kept between the iterations; else it is built anew in each, ROWS rows at a time, in memory
linear in the number of points.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sslosses.transport.solvers.fused.numba_plan import (
    column_softmax,
    control,
    fill_plan,
    loops,
    row_softmax,
    shifted,
)
from sslosses.transport.solvers.fused.numba_vectors import ROWS, add_rows, dot_rows

# What an entry below the smallest normal number would have contributed is then at most 1e-22.
_LEAST, _MOST = 1e-8, 1e8
# A sum above this has lost nothing that counts to underflow.
_SAFE = 1e-25


@loops
def _add_scaled(out: Any, row: Any, columns: int, factor: Any) -> None:
    for j in range(columns):
        out[j] += factor * row[j]


@control
def _log_iteration(
    cost: Any,
    p: int,
    log_a: Any,
    b: Any,
    log_b: Any,
    f: Any,
    g: Any,
    log_rows: Any,
    log_columns: Any,
    sums: Any,
    row: Any,
) -> None:
    """f from g, then g from f, in the log domain and in one pass over the cost."""
    rows, columns = f.shape[0], g.shape[0]
    shifted(g, log_b, log_columns)
    sums[:] = 0
    for i in range(rows):
        total, log_total = row_softmax(cost, p, i, log_columns, row, columns)
        f[i] = -log_total
        log_rows[i] = f[i] + log_a[i]
        if log_a[i] > -np.inf:
            _add_scaled(sums, row, columns, math.exp(log_a[i]) / total)
    for j in range(columns):
        if b[j] > 0:
            if sums[j] > _SAFE:
                g[j] -= math.log(sums[j] / b[j])
            else:
                g[j] = -column_softmax(cost, p, j, log_rows, row, rows)[1]


@control
def _update_rows(sums: Any, first: int, a: Any, u: Any, new: Any, factors: Any) -> Any:
    """u ← a / Σ_y P v of ROWS rows; the mass that the old u missed, and whether the new ones are in range."""
    error = 0.0
    fine = True
    for r in range(ROWS):
        mass = a[first + r]
        factors[r] = 0
        if mass > 0:
            error += abs(u[first + r] * sums[r] - mass)
            factors[r] = mass / sums[r]
            fine &= _LEAST < factors[r] < _MOST
        new[first + r] = factors[r]
    return error, fine


@control
def _update_columns(sums: Any, b: Any, new: Any, columns: int) -> bool:
    """v ← b / Σ_x P u, and whether all are in range."""
    fine = True
    for j in range(columns):
        if b[j] > 0:
            new[j] = b[j] / sums[j]
            fine &= _LEAST < new[j] < _MOST
    return fine


@control
def _absorb(potential: Any, scaling: Any, mass: Any) -> None:
    for k in range(potential.shape[0]):
        if mass[k] > 0:
            potential[k] += math.log(scaling[k])
            scaling[k] = 1


@control
def _reset(scaling: Any, mass: Any) -> None:
    for k in range(scaling.shape[0]):
        scaling[k] = 1 if mass[k] > 0 else 0


@control
def sinkhorn(
    cost: Any, p: int, a: Any, log_a: Any, b: Any, log_b: Any, f: Any, g: Any, max_iter: int, tol: float, space: Any
) -> Any:
    """Potentials of problem p from g, in place. Returns the iterations and the L1 error of the row marginal."""
    plan, over_rows, over_columns, dots, factors = space
    u, new_u, log_rows = over_rows[0], over_rows[1], over_rows[2]
    v, new_v, sums, log_columns = over_columns[0], over_columns[1], over_columns[2], over_columns[3]
    row = over_columns[4]
    rows, columns, width = f.shape[0], g.shape[0], plan.shape[1]
    kept = plan.shape[0] >= rows
    log_columns[columns:] = -np.inf
    for scaling, mass in ((u, a), (new_u, a), (v, b), (new_v, b)):
        _reset(scaling, mass)
    _log_iteration(cost, p, log_a, b, log_b, f, g, log_rows, log_columns, sums, row)
    iterations = 1
    absorbed = True
    while True:
        if absorbed:
            shifted(f, log_a, log_rows)
            shifted(g, log_b, log_columns)
            if kept:
                fill_plan(cost, p, 0, rows, log_rows, log_columns, plan, columns)
        sums[:] = 0
        error = 0.0
        fine = True
        for i in range(0, rows, ROWS):
            at = i if kept else 0
            if not kept:
                fill_plan(cost, p, i, min(i + ROWS, rows), log_rows, log_columns, plan, columns)
            dot_rows(plan, at, width, v, dots)
            missing, in_range = _update_rows(dots, i, a, u, new_u, factors)
            error += missing
            fine &= in_range
            add_rows(sums, plan, at, width, factors)
        if error <= tol or iterations == max_iter:
            break
        iterations += 1
        fine = fine and _update_columns(sums, b, new_v, columns)
        if fine:
            u, new_u = new_u, u
            v, new_v = new_v, v
        absorbed = not (fine and kept)
        if absorbed:
            _absorb(f, u, a)
            _absorb(g, v, b)
        if not fine:
            _log_iteration(cost, p, log_a, b, log_b, f, g, log_rows, log_columns, sums, row)
    _absorb(f, u, a)
    _absorb(g, v, b)
    # Points without mass took no part: theirs are the potentials that a half-step from the other side gives.
    shifted(f, log_a, log_rows)
    shifted(g, log_b, log_columns)
    for j in range(columns):
        if b[j] == 0:
            g[j] = -column_softmax(cost, p, j, log_rows, new_u, rows)[1]
    for i in range(rows):
        if a[i] == 0:
            f[i] = -row_softmax(cost, p, i, log_columns, row, columns)[1]
    return iterations, error


@control
def sinkhorn_range(
    first: int,
    last: int,
    cost: Any,
    a: Any,
    log_a: Any,
    b: Any,
    log_b: Any,
    f: Any,
    g: Any,
    max_iter: int,
    tol: float,
    iterations: Any,
    errors: Any,
    space: Any,
) -> None:
    """Problems first … last − 1."""
    for p in range(first, last):
        iterations[p], errors[p] = sinkhorn(cost, p, a[p], log_a[p], b[p], log_b[p], f[p], g[p], max_iter, tol, space)
