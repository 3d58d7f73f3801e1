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
    cost_row,
    fill_plan,
    loops,
    row_softmax,
    shifted,
)
from sslosses.transport.solvers.fused.numba_vectors import ROWS, add_rows, dot_rows, exp_row

# What an entry below the smallest normal number would have contributed is then at most 1e-22.
_LEAST, _MOST = 1e-8, 1e8
# A sum above this has lost nothing that counts to underflow.
_SAFE = 1e-25


@loops
def _add_scaled(row: Any, width: int, factor: Any, out: Any) -> None:
    """Scales a row in place and adds it to ``out``."""
    for j in range(width):
        value = factor * row[j]
        row[j] = value
        out[j] += value


# Written for vectors: no branches, so 0 is divided by 0 where there is no mass, and counts of the type of the masses.
@loops
def _update(mass: Any, sums: Any, first: int, count: int, new: Any) -> Any:
    """new[first + k] ← mass[first + k] / sums[k] for k < count; how many of them are out of range."""
    kind = new.dtype.type
    zero, one, least, most = kind(0), kind(1), kind(_LEAST), kind(_MOST)
    outside = zero
    for k in range(count):
        wanted = mass[first + k]
        value = wanted / sums[k]
        empty = wanted == zero
        new[first + k] = zero if empty else value
        outside += zero if empty | ((value > least) & (value < most)) else one
    return outside


@loops
def _missing(mass: Any, sums: Any, first: int, scaling: Any) -> Any:
    """Σ|u Σ_y P v − a| of ROWS rows."""
    total = mass.dtype.type(0)
    for k in range(ROWS):
        total += abs(scaling[first + k] * sums[k] - mass[first + k])
    return total


@loops
def _scaled_dot(x: Any, y: Any, scaling: Any) -> Any:
    total = x.dtype.type(0)
    for k in range(x.shape[0]):
        total += x[k] * y[k] * scaling[k]
    return total


@control
def _absorb(potential: Any, scaling: Any, mass: Any) -> None:
    for k in range(potential.shape[0]):
        if mass[k] > 0:
            potential[k] += math.log(scaling[k])
            scaling[k] = 1


@control
def _log_iteration(
    cost: Any,
    p: int,
    a: Any,
    log_a: Any,
    b: Any,
    log_b: Any,
    f: Any,
    g: Any,
    v: Any,
    log_rows: Any,
    log_columns: Any,
    sums: Any,
    row: Any,
    plan: Any,
) -> Any:
    """f from g, then g from f, in the log domain and in one pass over the cost.

    Returns whether ``plan`` is now that of f and the old g, with v what makes it that of the new g; otherwise g is the
    new one.
    """
    rows, columns, width = f.shape[0], g.shape[0], plan.shape[1]
    kept = plan.shape[0] >= rows
    shifted(g, log_b, log_columns)
    sums[:] = 0
    for i in range(rows):
        here = plan[i] if kept else row
        total, log_total = row_softmax(cost, p, i, log_columns, here, columns)
        f[i] = -log_total
        log_rows[i] = f[i] + log_a[i]
        _add_scaled(here, width, a[i] / total, sums)
    if _update(b, sums, 0, width, v) == 0:
        if not kept:
            _absorb(g, v, b)
        return kept
    for j in range(columns):
        if b[j] > 0:
            if sums[j] > _SAFE:
                g[j] -= math.log(sums[j] / b[j])
            else:
                g[j] = -column_softmax(cost, p, j, log_rows, row, rows)[1]
            v[j] = 1
    return False


@control
def sinkhorn(
    cost: Any, p: int, a: Any, log_a: Any, b: Any, log_b: Any, f: Any, g: Any, max_iter: int, tol: float, space: Any
) -> Any:
    """Potentials of problem p from g, in place. Returns iterations, L1 error of the row marginal, ⟨P, C⟩."""
    plan, over_rows, over_columns, dots, _ = space
    u, new_u, log_rows = over_rows[0], over_rows[1], over_rows[2]
    v, new_v, sums, log_columns = over_columns[0], over_columns[1], over_columns[2], over_columns[3]
    row = over_columns[4]
    rows, columns, width = f.shape[0], g.shape[0], plan.shape[1]
    kept = plan.shape[0] >= rows
    log_columns[columns:] = -np.inf
    for k in range(u.shape[0]):
        u[k] = new_u[k] = 1 if a[k] > 0 else 0
    plan_is_current = _log_iteration(cost, p, a, log_a, b, log_b, f, g, v, log_rows, log_columns, sums, row, plan)
    iterations = 1
    while True:
        if not plan_is_current:
            shifted(f, log_a, log_rows)
            shifted(g, log_b, log_columns)
            if kept:
                fill_plan(cost, p, 0, rows, log_rows, log_columns, plan, columns)
        sums[:] = 0
        error = 0.0
        outside = 0.0
        for i in range(0, rows, ROWS):
            at = i if kept else 0
            if not kept:
                fill_plan(cost, p, i, min(i + ROWS, rows), log_rows, log_columns, plan, columns)
            dot_rows(plan, at, width, v, dots)
            error += _missing(a, dots, i, u)
            outside += _update(a, dots, i, ROWS, new_u)
            add_rows(sums, plan, at, width, new_u, i)
        if error <= tol or iterations == max_iter:
            break
        iterations += 1
        if outside == 0 and _update(b, sums, 0, width, new_v) == 0:
            u, new_u = new_u, u
            v, new_v = new_v, v
            plan_is_current = kept
            if not kept:
                _absorb(f, u, a)
                _absorb(g, v, b)
        else:
            _absorb(f, u, a)
            _absorb(g, v, b)
            plan_is_current = _log_iteration(
                cost, p, a, log_a, b, log_b, f, g, v, log_rows, log_columns, sums, row, plan
            )
    value = 0.0
    for i in range(rows):
        # The plan of the last pass is still there, up to the scalings.
        here = plan[i if kept else 0]
        cost_row(cost, p, i, row, columns)
        if not kept:
            exp_row(log_rows[i], log_columns, row, here, width)
        value += u[i] * _scaled_dot(here, row, v)
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
    return iterations, error, value
