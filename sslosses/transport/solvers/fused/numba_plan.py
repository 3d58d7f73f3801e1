"""Rows of the cost and of the plan, compiled by numba from the points; everything in units of ε.

``cost`` is (matrix, source, target, x, y, w_v, w_s, 1/ε): C = matrix + w_v|source ⊖ target|, or if the matrix has size
0, w_s‖x ⊖ y‖ + w_v|source ⊖ target|. Its first dimension is that of the problems, or 1 if they share it. The plan and
vectors over rows or columns are padded to whole blocks, with zeros (logarithms: −∞) behind the entries that count.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from sslosses.transport.solvers.fused.numba_vectors import exp_row

# Control flow keeps to IEEE: it has to see what is not a number. Loops over a row may be reordered.
control = njit(nogil=True, error_model="numpy", cache=True)
loops = njit(nogil=True, error_model="numpy", cache=True, forceinline=True, fastmath={"reassoc", "contract", "nsz"})


@loops
def cost_row(cost: Any, p: int, i: int, out: Any, columns: int) -> None:
    """Row i of C of problem p; finite behind ``columns``."""
    matrix, source, target, x, y, value_weight, position_weight, scale = cost
    for j in range(columns, out.shape[0]):
        out[j] = 0
    if matrix.size:
        row = matrix[p if matrix.shape[0] > 1 else 0, i]
        for j in range(columns):
            out[j] = row[j]
    else:
        for j in range(columns):
            out[j] = 0
        for d in range(x.shape[0]):
            here = x[d, i]
            there = y[d]
            for j in range(columns):
                out[j] += (here - there[j]) * (here - there[j])
        for j in range(columns):
            out[j] = position_weight * math.sqrt(out[j])
    if value_weight > 0:
        mine = source[p, i]
        theirs = target[p]
        for j in range(columns):
            out[j] = scale * (out[j] + value_weight * abs(mine - theirs[j]))
    else:
        for j in range(columns):
            out[j] *= scale


@control
def _cost_entry(cost: Any, p: int, i: int, j: int) -> Any:
    matrix, source, target, x, y, value_weight, position_weight, scale = cost
    if matrix.size:
        ground = matrix[p if matrix.shape[0] > 1 else 0, i, j]
    else:
        square = x.dtype.type(0)
        for d in range(x.shape[0]):
            square += (x[d, i] - y[d, j]) * (x[d, i] - y[d, j])
        ground = position_weight * math.sqrt(square)
    if value_weight > 0:
        ground += value_weight * abs(source[p, i] - target[p, j])
    return scale * ground


@control
def fill_plan(
    cost: Any, p: int, first: int, last: int, log_rows: Any, log_columns: Any, plan: Any, columns: int
) -> None:
    """Rows first … last − 1 of the plan, into plan[0], plan[1], …; zeros behind them."""
    for i in range(first, last):
        row = plan[i - first]
        cost_row(cost, p, i, row, columns)
        exp_row(log_rows[i], log_columns, row, row, plan.shape[1])
    plan[last - first :] = 0


@control
def shifted(potential: Any, log_mass: Any, out: Any) -> None:
    """f + log a, whose sum with g + log b − C is the plan's logarithm."""
    for k in range(potential.shape[0]):
        out[k] = potential[k] + log_mass[k]


@njit(nogil=True, error_model="numpy", cache=True, forceinline=True, fastmath={"nnan", "nsz", "reassoc"})
def _largest_difference(x: Any, y: Any, columns: int) -> Any:
    largest = x[0] - y[0]
    for j in range(columns):
        largest = max(largest, x[j] - y[j])
    return largest


@control
def row_softmax(cost: Any, p: int, i: int, log_columns: Any, row: Any, columns: int) -> Any:
    """exp(log_columns − C − largest) of row i into ``row``; returns its sum, and log Σ exp(log_columns − C)."""
    cost_row(cost, p, i, row, columns)
    largest = _largest_difference(log_columns, row, columns)
    total = exp_row(-largest, log_columns, row, row, row.shape[0])
    return total, largest + math.log(total)


@control
def column_softmax(cost: Any, p: int, j: int, log_rows: Any, out: Any, rows: int) -> Any:
    """The same of column j, an entry at a time: for the few columns that the passes over rows can't serve."""
    largest = -np.inf
    for i in range(rows):
        out[i] = log_rows[i] - _cost_entry(cost, p, i, j)
        largest = max(largest, out[i])
    total = 0.0
    for i in range(rows):
        out[i] = math.exp(out[i] - largest)
        total += out[i]
    return total, largest + math.log(total)
