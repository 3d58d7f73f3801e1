"""Rows of the cost and of the plan, compiled by numba from the points; everything in units of ε.

``cost`` is (matrix, source, target, x, y, w_v, w_s, 1/ε): C = matrix + w_v|source ⊖ target|, or if the matrix has size
0, w_s‖x ⊖ y‖ + w_v|source ⊖ target|. Its first dimension is that of the problems, or 1 if they share it. The plan and
vectors over rows or columns are padded to whole blocks, with zeros (logarithms: −∞) behind the entries that count; so
are the matrix, source, target and y, with anything finite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from sslosses.transport.solvers.fused.cpu.rows import add_value_rows, exp_rows, lowest_of_rows
from sslosses.transport.solvers.fused.cpu.vectors import ROWS

# Control flow keeps to IEEE: it has to see what is not a number. Loops over a row may be reordered, and are inlined, as
# a call would hand over each field of each array.
_INTERNAL = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
control = njit(**_INTERNAL)
loops = njit(**_INTERNAL, forceinline=True, fastmath={"reassoc", "contract", "nsz"})


@loops
def _scaled(given: Any, scale: Any, out: Any) -> None:
    for j in range(out.shape[0]):
        out[j] = scale * given[j]


@loops
def _scaled_distances(x: Any, i: int, y: Any, scale: Any, out: Any) -> None:
    """out ← scale·‖x_i − y‖, with a point a column."""
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
def cost_rows(cost: Any, p: int, first: int, rows: int, ground: Any) -> None:
    """ROWS rows of C of problem p from ``first``; anything finite in those from ``rows``."""
    matrix, source, target, x, y, value_weight, position_weight, scale = cost
    count = min(ROWS, rows - first)
    if matrix.size:
        given = matrix[p if matrix.shape[0] > 1 else 0]
        if value_weight > 0:
            add_value_rows(given, first, scale, source[p], first, target[p], scale * value_weight, ground)
            return
        for k in range(count):
            _scaled(given[first + k], scale, ground[k])
    else:
        for k in range(count):
            _scaled_distances(x, first + k, y, scale * position_weight, ground[k])
    ground[count:] = 0
    if value_weight > 0:
        add_value_rows(ground, 0, ground.dtype.type(1), source[p], first, target[p], scale * value_weight, ground)


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
def plan_rows(
    cost: Any,
    p: int,
    first: int,
    rows: int,
    log_rows: Any,
    log_columns: Any,
    ground: Any,
    plan: Any,
    at: int,
    mass: Any,
) -> None:
    """ROWS rows of C from ``first`` into ``ground``, of the plan from plan[at], and their sums into ``mass``."""
    cost_rows(cost, p, first, rows, ground)
    exp_rows(ground, log_rows, log_columns, first, plan, at, mass)


@control
def softmax_rows(
    cost: Any,
    p: int,
    first: int,
    rows: int,
    log_columns: Any,
    ground: Any,
    plan: Any,
    at: int,
    lowest: Any,
    totals: Any,
) -> None:
    """exp(log_columns − C + lowest) of ROWS rows from plan[at], their sums into ``totals``, C into ``ground``.

    lowest = min_j(C − log_columns), so lowest − log totals = −log Σ exp(log_columns − C).
    """
    cost_rows(cost, p, first, rows, ground)
    lowest_of_rows(ground, log_columns, lowest, first)
    exp_rows(ground, lowest, log_columns, first, plan, at, totals)


@control
def column_softmax(cost: Any, p: int, j: int, log_rows: Any, out: Any, rows: int) -> Any:
    """exp(log_rows − C − largest) of column j into ``out``; returns its sum, and log Σ exp(log_rows − C).

    An entry at a time: for the few columns that the passes over rows can't serve.
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
def shifted(potential: Any, log_mass: Any, out: Any) -> None:
    """f + log a, whose sum with g + log b − C is the plan's logarithm; −∞ behind it."""
    for k in range(potential.shape[0]):
        out[k] = potential[k] + log_mass[k]
    out[potential.shape[0] :] = -np.inf
