"""Blocks of ROWS rows of the cost and the plan from the points, and single columns, compiled by numba; in units of ε.

``arrays`` describes ``cost`` and the padding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from sslosses.transport.solvers.fused.cpu.rows import add_value_rows, exp_rows, lowest_rows
from sslosses.transport.solvers.fused.cpu.vectors import ROWS

# Control flow keeps to IEEE, because it has to recognize NaN. Loops over a row may be reordered. They are inlined, as a
# call would pass each field of each array.
_INTERNAL = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
control = njit(**_INTERNAL)
loops = njit(**_INTERNAL, forceinline=True, fastmath={"reassoc", "contract", "nsz"})


@loops
def _scale(row: Any, scale: Any, out: Any) -> None:
    for j in range(out.shape[0]):
        out[j] = scale * row[j]


@loops
def _scaled_distances(x: Any, i: int, y: Any, scale: Any, out: Any) -> None:
    """out ← scale·‖x_i − y‖, with one column per point."""
    if x.shape[0] == 2:
        x0, x1, y0, y1 = x[0, i], x[1, i], y[0], y[1]
        for j in range(out.shape[0]):
            out[j] = scale * math.sqrt((x0 - y0[j]) * (x0 - y0[j]) + (x1 - y1[j]) * (x1 - y1[j]))
        return
    out[:] = 0
    for d in range(x.shape[0]):
        here, there = x[d, i], y[d]
        for j in range(out.shape[0]):
            out[j] += (here - there[j]) * (here - there[j])
    for j in range(out.shape[0]):
        out[j] = scale * math.sqrt(out[j])


@control
def fill_cost_rows(cost: Any, p: int, first: int, rows: int, cost_rows: Any) -> None:
    """Writes ROWS rows of C of problem p from ``first``, with finite numbers in those from ``rows``."""
    # Unpacked once, as numba counts references at each access to an array in a tuple.
    matrix, source, target, x, y, value_weight, position_weight, scale = cost
    count = min(ROWS, rows - first)
    if matrix.size:
        matrix_rows = matrix[p if matrix.shape[0] > 1 else 0]
        if value_weight > 0:
            add_value_rows(matrix_rows, first, scale, source[p], first, target[p], scale * value_weight, cost_rows)
            return
        for k in range(count):
            _scale(matrix_rows[first + k], scale, cost_rows[k])
    else:
        for k in range(count):
            _scaled_distances(x, first + k, y, scale * position_weight, cost_rows[k])
    cost_rows[count:] = 0
    if value_weight > 0:
        one = cost_rows.dtype.type(1)
        add_value_rows(cost_rows, 0, one, source[p], first, target[p], scale * value_weight, cost_rows)


@loops
def cost_entry(cost: Any, p: int, i: int, j: int) -> Any:
    """C of problem p at i, j."""
    matrix, source, target, x, y, value_weight, position_weight, scale = cost
    if matrix.size:
        entry = matrix[p if matrix.shape[0] > 1 else 0, i, j]
    else:
        square = x.dtype.type(0)
        for d in range(x.shape[0]):
            square += (x[d, i] - y[d, j]) * (x[d, i] - y[d, j])
        entry = position_weight * math.sqrt(square)
    if value_weight > 0:
        entry += value_weight * abs(source[p, i] - target[p, j])
    return scale * entry


@control
def fill_plan_rows(
    cost: Any,
    p: int,
    first: int,
    rows: int,
    log_rows: Any,
    log_columns: Any,
    cost_rows: Any,
    plan: Any,
    at: int,
    mass: Any,
) -> None:
    """Writes ROWS rows of C from ``first``, of the plan from plan[at], and their sums into ``mass``."""
    fill_cost_rows(cost, p, first, rows, cost_rows)
    exp_rows(cost_rows, log_rows, log_columns, first, plan, at, mass)


@control
def fill_softmax_rows(
    cost: Any,
    p: int,
    first: int,
    rows: int,
    log_columns: Any,
    cost_rows: Any,
    plan: Any,
    at: int,
    lowest: Any,
    totals: Any,
) -> None:
    """Writes ROWS rows of C, of exp(log_columns − C + lowest) from plan[at], and their sums into ``totals``.

    lowest = min_j(C − log_columns), so lowest − log totals = −log Σ exp(log_columns − C).
    """
    fill_cost_rows(cost, p, first, rows, cost_rows)
    lowest_rows(cost_rows, log_columns, lowest, first)
    exp_rows(cost_rows, lowest, log_columns, first, plan, at, totals)


@control
def column_softmax(cost: Any, p: int, j: int, log_rows: Any, out: Any, rows: int) -> Any:
    """Writes exp(log_rows − C − largest) of column j; returns its sum and log Σ exp(log_rows − C).

    This works entry by entry, for the few columns that a sweep over rows cannot serve.
    """
    largest = -np.inf
    for i in range(rows):
        out[i] = log_rows[i] - cost_entry(cost, p, i, j)
        largest = max(largest, out[i])
    total = 0.0
    for i in range(rows):
        out[i] = math.exp(out[i] - largest)
        total += out[i]
    return total, largest + math.log(total)


@control
def add_log_mass(potential: Any, log_mass: Any, out: Any) -> None:
    """out ← f + log a, or −∞ in the padding; the logarithm of the plan is (f + log a) ⊕ (g + log b) − C."""
    for k in range(potential.shape[0]):
        out[k] = potential[k] + log_mass[k]
    out[potential.shape[0] :] = -np.inf
