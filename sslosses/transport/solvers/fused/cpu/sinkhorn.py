"""Sinkhorn's iterations on one problem whose plan stays in a cache, compiled by numba.

The kernel of the iterations is the plan of the latest potentials, P = exp(f ⊕ g − C)·abᵀ, with scalings u and v that
start at 1. An iteration is two products as long as the scalings stay in a range where nothing that counts underflows.
Otherwise the scalings are absorbed into f and g, and the iteration is done in the log domain.
"""

from __future__ import annotations

import math
from typing import Any

from sslosses.transport.solvers.fused.cpu.plan import add_log_mass, column_softmax, control, fill_cost_rows, loops
from sslosses.transport.solvers.fused.cpu.ranges import log_range, potentials_without_mass_range, scale_range
from sslosses.transport.solvers.fused.cpu.rows import SCALING_MAX, SCALING_MIN
from sslosses.transport.solvers.fused.cpu.vectors import ROWS

# A larger sum has lost nothing that counts to underflow.
SUM_MIN = 1e-25


# Written so that it vectorizes: without branches (0 is divided by 0 where there is no mass), and with counts of the
# dtype of the masses.
@loops
def _update(mass: Any, sums: Any, new: Any) -> Any:
    """new ← mass/sums, 0 where there is no mass; returns how many are out of range."""
    kind = new.dtype.type
    zero, one, smallest, largest = kind(0), kind(1), kind(SCALING_MIN), kind(SCALING_MAX)
    outside = zero
    for k in range(new.shape[0]):
        wanted = mass[k]
        value = wanted / sums[k]
        empty = wanted == zero
        new[k] = zero if empty else value
        outside += zero if empty | ((value > smallest) & (value < largest)) else one
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
def _column_error(sums: Any, scaling: Any, mass: Any) -> float:
    total = 0.0
    for k in range(sums.shape[0]):
        total += abs(sums[k] * scaling[k] - mass[k])
    return total


@control
def _absorb(potential: Any, scaling: Any, mass: Any) -> None:
    for k in range(potential.shape[0]):
        if mass[k] > 0:
            potential[k] += math.log(scaling[k])
            scaling[k] = 1


@control
def _log_iteration(
    cost: Any, p: int, masses: Any, f: Any, g: Any, v: Any, sums: Any, log_columns: Any, workspace: Any
) -> Any:
    """f from g, then g from f, in the log domain and in one sweep over the cost.

    Returns whether g is still the old one. The plan is then that of f and the old g, and v scales it to the new g.
    """
    plan, cost_rows, row_vectors = workspace.plan, workspace.cost_rows, workspace.row_vectors
    log_rows, lowest, totals = row_vectors[2], row_vectors[3], row_vectors[4]
    b, rows, columns = masses.b, f.shape[0], g.shape[0]
    add_log_mass(g, masses.log_b, log_columns)
    sums[:] = 0
    log_range(cost, p, 0, rows, rows, masses.a, log_columns, f, lowest, totals, sums, plan, cost_rows)
    if _update(b, sums, v) == 0:
        return True
    add_log_mass(f, masses.log_a, log_rows)
    for j in range(columns):
        if b[j] > 0:
            if sums[j] > SUM_MIN:
                g[j] -= math.log(sums[j] / b[j])
            else:
                g[j] = -column_softmax(cost, p, j, log_rows, totals, rows)[1]
            v[j] = 1
    return False


@control
def sinkhorn(cost: Any, p: int, masses: Any, f: Any, g: Any, max_iter: int, tol: float, workspace: Any) -> Any:
    """Potentials of problem p from g, in place. Returns iterations, L1 error of the plan's marginals, ⟨P, C⟩."""
    plan, cost_rows, missing, outside = workspace.plan, workspace.cost_rows, workspace.missing, workspace.outside
    row_vectors, column_vectors = workspace.row_vectors, workspace.column_vectors
    u, new_u, log_rows, lowest, totals = row_vectors[0], row_vectors[1], row_vectors[2], row_vectors[3], row_vectors[4]
    v, new_v, sums, log_columns = column_vectors[0], column_vectors[1], column_vectors[2], column_vectors[3]
    a, b = masses.a, masses.b
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
            current = _log_iteration(cost, p, masses, f, g, v, sums, log_columns, workspace)
        if not current:
            add_log_mass(f, masses.log_a, log_rows)
            add_log_mass(g, masses.log_b, log_columns)
        sums[:] = 0
        missing[:] = 0
        outside[:] = 0
        scale_range(
            cost, p, 0, rows, rows, current, log_rows, log_columns, a, u, v, new_u, totals, missing, outside, sums,
            plan, cost_rows,
        )  # fmt: skip
        error = _total(missing)
        if error <= tol or iterations == max_iter:
            break
        in_range = _total(outside) == 0 and _update(b, sums, new_v) == 0
    # The last half-step, for f; see ``sslosses.transport.potentials.finish``.
    if _total(outside) > 0:
        _absorb(g, v, b)
        add_log_mass(g, masses.log_b, log_columns)
        sums[:] = 0
        log_range(cost, p, 0, rows, rows, a, log_columns, f, lowest, totals, sums, plan, cost_rows)
        for i in range(rows):
            new_u[i] = 1
    error = _column_error(sums, v, b)
    value = 0.0
    for i in range(0, rows, ROWS):
        # The plan of the last sweep is still there, up to the scalings.
        fill_cost_rows(cost, p, i, rows, cost_rows)
        for k in range(min(ROWS, rows - i)):
            value += new_u[i + k] * _scaled_dot(plan[i + k], cost_rows[k], v)
    _absorb(f, new_u, a)
    _absorb(g, v, b)
    add_log_mass(f, masses.log_a, log_rows)
    add_log_mass(g, masses.log_b, log_columns)
    for j in range(columns):
        if b[j] == 0:
            g[j] = -column_softmax(cost, p, j, log_rows, totals, rows)[1]
    potentials_without_mass_range(cost, p, 0, rows, rows, a, log_columns, f, lowest, totals, plan, cost_rows)
    return iterations, error, value
