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

from sslosses.transport.solvers.fused.numba_passes import LEAST, MOST, scale_rows, weigh_rows
from sslosses.transport.solvers.fused.numba_plan import (
    column_softmax,
    control,
    cost_rows,
    loops,
    plan_rows,
    shifted,
    softmax_rows,
)
from sslosses.transport.solvers.fused.numba_vectors import ROWS

# A sum above this has lost nothing that counts to underflow.
_SAFE = 1e-25


# Written for vectors: no branches, so 0 is divided by 0 where there is no mass, and counts of the type of the masses.
@loops
def _update(mass: Any, sums: Any, new: Any) -> Any:
    """new ← mass/sums, 0 where there is no mass; how many of them are out of range."""
    kind = new.dtype.type
    zero, one, least, most = kind(0), kind(1), kind(LEAST), kind(MOST)
    outside = zero
    for k in range(new.shape[0]):
        wanted = mass[k]
        value = wanted / sums[k]
        empty = wanted == zero
        new[k] = zero if empty else value
        outside += zero if empty | ((value > least) & (value < most)) else one
    return outside


@loops
def _total(x: Any) -> float:
    total = 0.0
    for k in range(x.shape[0]):
        total += x[k]
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
    sums: Any,
    log_columns: Any,
    space: Any,
) -> Any:
    """f from g, then g from f, in the log domain and in one pass over the cost.

    Returns whether the plan kept is now that of f and the old g, with v what makes it that of the new g; otherwise g is
    the new one.
    """
    plan, ground, over_rows, _, _, _ = space
    log_rows, lowest, totals = over_rows[2], over_rows[3], over_rows[4]
    rows, columns = f.shape[0], g.shape[0]
    kept = plan.shape[0] >= rows
    shifted(g, log_b, log_columns)
    sums[:] = 0
    for i in range(0, rows, ROWS):
        at = i if kept else 0
        softmax_rows(cost, p, i, rows, log_columns, ground, plan, at, lowest, totals)
        for k in range(i, min(i + ROWS, rows)):
            f[k] = lowest[k] - math.log(totals[k])
        for k in range(i, i + ROWS):
            totals[k] = a[k] / totals[k]
        weigh_rows(plan, at, totals, i, sums)
    if _update(b, sums, v) == 0:
        if not kept:
            _absorb(g, v, b)
        return kept
    shifted(f, log_a, log_rows)
    for j in range(columns):
        if b[j] > 0:
            if sums[j] > _SAFE:
                g[j] -= math.log(sums[j] / b[j])
            else:
                g[j] = -column_softmax(cost, p, j, log_rows, totals, rows)[1]
            v[j] = 1
    return False


@control
def sinkhorn(
    cost: Any, p: int, a: Any, log_a: Any, b: Any, log_b: Any, f: Any, g: Any, max_iter: int, tol: float, space: Any
) -> Any:
    """Potentials of problem p from g, in place. Returns iterations, L1 error of the row marginal, ⟨P, C⟩."""
    plan, ground, over_rows, over_columns, missing, outside = space
    u, new_u, log_rows, lowest, totals = over_rows[0], over_rows[1], over_rows[2], over_rows[3], over_rows[4]
    v, new_v, sums, log_columns = over_columns[0], over_columns[1], over_columns[2], over_columns[3]
    rows, columns = f.shape[0], g.shape[0]
    kept = plan.shape[0] >= rows
    for k in range(u.shape[0]):
        u[k] = new_u[k] = 1 if a[k] > 0 else 0
    for k in range(v.shape[0]):
        v[k] = 1 if b[k] > 0 else 0
    iterations = 0
    in_range = False
    while True:
        iterations += 1
        if in_range:
            u, new_u = new_u, u
            v, new_v = new_v, v
        if not (in_range and kept):
            _absorb(f, u, a)
            _absorb(g, v, b)
        plan_is_current = in_range and kept
        if not in_range:
            plan_is_current = _log_iteration(cost, p, a, log_a, b, log_b, f, g, v, sums, log_columns, space)
        if not plan_is_current:
            shifted(f, log_a, log_rows)
            shifted(g, log_b, log_columns)
        sums[:] = 0
        missing[:] = 0
        outside[:] = 0
        for i in range(0, rows, ROWS):
            at = i if kept else 0
            if not plan_is_current:
                plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, at, totals)
            scale_rows(plan, at, v, a, i, u, new_u, missing, outside, sums)
        error = _total(missing)
        if error <= tol or iterations == max_iter:
            break
        in_range = _total(outside) == 0 and _update(b, sums, new_v) == 0
    value = 0.0
    for i in range(0, rows, ROWS):
        # The plan of the last pass is still there, up to the scalings.
        at = i if kept else 0
        if kept:
            cost_rows(cost, p, i, rows, ground)
        else:
            plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, at, totals)
        for k in range(min(ROWS, rows - i)):
            value += u[i + k] * _scaled_dot(plan[at + k], ground[k], v)
    _absorb(f, u, a)
    _absorb(g, v, b)
    # Points without mass took no part: theirs are the potentials that a half-step from the other side gives.
    shifted(f, log_a, log_rows)
    shifted(g, log_b, log_columns)
    for j in range(columns):
        if b[j] == 0:
            g[j] = -column_softmax(cost, p, j, log_rows, totals, rows)[1]
    for i in range(0, rows, ROWS):
        if a[i : min(i + ROWS, rows)].min() == 0:
            softmax_rows(cost, p, i, rows, log_columns, ground, plan, 0, lowest, totals)
            for k in range(i, min(i + ROWS, rows)):
                if a[k] == 0:
                    f[k] = lowest[k] - math.log(totals[k])
    return iterations, error, value
