"""Sinkhorn's iterations on one problem whose plan is kept in a cache, compiled by numba.

The kernel of the iterations is the plan of the potentials so far, P = exp(f ⊕ g − C)·abᵀ, and its scalings u and v
start at 1. As long as they stay in a range in which nothing that counts can underflow, an iteration is two products.
One that would leave it is done in the log domain, after absorbing the scalings into f and g.
"""

from __future__ import annotations

import math
from typing import Any

from sslosses.transport.solvers.fused.cpu.plan import column_softmax, control, cost_rows, loops, shifted
from sslosses.transport.solvers.fused.cpu.ranges import log_range, rows_without_mass, scale_range
from sslosses.transport.solvers.fused.cpu.rows import LEAST, MOST
from sslosses.transport.solvers.fused.cpu.vectors import ROWS

# A sum above this has lost nothing that counts to underflow.
SAFE = 1e-25


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

    Returns whether the plan is now that of f and the old g, with v what makes it that of the new g; otherwise g is the
    new one.
    """
    plan, ground, over_rows, _, _, _ = space
    log_rows, lowest, totals = over_rows[2], over_rows[3], over_rows[4]
    rows, columns = f.shape[0], g.shape[0]
    shifted(g, log_b, log_columns)
    sums[:] = 0
    log_range(cost, p, 0, rows, rows, a, log_columns, f, lowest, totals, sums, plan, ground)
    if _update(b, sums, v) == 0:
        return True
    shifted(f, log_a, log_rows)
    for j in range(columns):
        if b[j] > 0:
            if sums[j] > SAFE:
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
    for k in range(u.shape[0]):
        u[k] = new_u[k] = 1 if a[k] > 0 else 0
    for k in range(v.shape[0]):
        v[k] = 1 if b[k] > 0 else 0
    iterations = 0
    in_range = False
    while True:
        iterations += 1
        current = in_range
        if in_range:
            u, new_u = new_u, u
            v, new_v = new_v, v
        else:
            _absorb(f, u, a)
            _absorb(g, v, b)
            current = _log_iteration(cost, p, a, log_a, b, log_b, f, g, v, sums, log_columns, space)
        if not current:
            shifted(f, log_a, log_rows)
            shifted(g, log_b, log_columns)
        sums[:] = 0
        missing[:] = 0
        outside[:] = 0
        scale_range(
            cost, p, 0, rows, rows, current, log_rows, log_columns, a, u, v, new_u, totals, missing, outside, sums,
            plan, ground,
        )  # fmt: skip
        error = _total(missing)
        if error <= tol or iterations == max_iter:
            break
        in_range = _total(outside) == 0 and _update(b, sums, new_v) == 0
    value = 0.0
    for i in range(0, rows, ROWS):
        # The plan of the last pass is still there, up to the scalings.
        cost_rows(cost, p, i, rows, ground)
        for k in range(min(ROWS, rows - i)):
            value += u[i + k] * _scaled_dot(plan[i + k], ground[k], v)
    _absorb(f, u, a)
    _absorb(g, v, b)
    # Points without mass took no part: theirs are the potentials that a half-step from the other side gives.
    shifted(f, log_a, log_rows)
    shifted(g, log_b, log_columns)
    for j in range(columns):
        if b[j] == 0:
            g[j] = -column_softmax(cost, p, j, log_rows, totals, rows)[1]
    rows_without_mass(cost, p, 0, rows, rows, a, log_columns, f, lowest, totals, plan, ground)
    return iterations, error, value
