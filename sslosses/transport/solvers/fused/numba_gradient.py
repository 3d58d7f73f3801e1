"""⟨P, C⟩ of one problem and its gradient with respect to the points, compiled by numba; everything in units of ε.

The equations are those of ``sslosses.transport.value`` and ``sslosses.transport.adjoint``.
"""

from __future__ import annotations

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


@loops
def _add_moments(plan: Any, ground: Any, columns: int, moved: Any, mass: Any) -> Any:
    """Add P ∘ C and P of one row to the sums of the columns; returns those of the row."""
    of_moved = plan.dtype.type(0)
    of_mass = plan.dtype.type(0)
    for j in range(columns):
        product = plan[j] * ground[j]
        moved[j] += product
        mass[j] += plan[j]
        of_moved += product
        of_mass += plan[j]
    return of_moved, of_mass


@loops
def _inner(x: Any, y: Any) -> float:
    total = 0.0
    for k in range(x.shape[0]):
        total += x[k] * y[k]
    return total


@loops
def _dot(x: Any, y: Any) -> Any:
    total = x.dtype.type(0)
    for k in range(x.shape[0]):
        total += x[k] * y[k]
    return total


@loops
def _total(x: Any) -> float:
    total = 0.0
    for k in range(x.shape[0]):
        total += x[k]
    return total


@loops
def _project(residual: Any, mass: Any, total_mass: float) -> None:
    """Off the null space, where rounding would build up as the system has no curvature along it."""
    excess = _total(residual) / total_mass
    for k in range(residual.shape[0]):
        residual[k] -= excess * mass[k]


@control
def _quotient(x: Any, y: Any, out: Any) -> None:
    for k in range(x.shape[0]):
        out[k] = x[k] / y[k] if y[k] > 0 else 0


@loops
def _add_gradient(
    plan: Any, ground: Any, lam: Any, mu: Any, mine: Any, theirs: Any, exact: bool, of_target: Any, columns: int
) -> Any:
    """Gradient of one source value; subtracts each entry's share from that of its target value."""
    total = nothing = plan.dtype.type(0)
    one = plan.dtype.type(1)
    for j in range(columns):
        # Where nothing was moved there is no gradient, however large C/ε.
        weight = plan[j] * (one - (ground[j] - lam - mu[j])) if exact else plan[j]
        difference = mine - theirs[j]
        signed = weight if difference > 0 else (-weight if difference < 0 else nothing)
        total += signed
        of_target[j] -= signed
    return total


@control
def transport_value(cost: Any, p: int, log_a: Any, log_b: Any, f: Any, g: Any, space: Any) -> float:
    """⟨P, C⟩ of problem p."""
    plan, _, over_columns, _, _ = space
    log_columns, row, here, width = over_columns[0], over_columns[1], plan[0], plan.shape[1]
    rows, columns = f.shape[0], g.shape[0]
    log_columns[columns:] = -np.inf
    shifted(g, log_b, log_columns)
    total = 0.0
    for i in range(rows):
        cost_row(cost, p, i, row, columns)
        exp_row(f[i] + log_a[i], log_columns, row, here, width)
        total += _dot(here, row)
    return total


@control
def _products(
    cost: Any,
    p: int,
    log_rows: Any,
    log_columns: Any,
    x: Any,
    mass: Any,
    sums: Any,
    rows: int,
    columns: int,
    space: Any,
) -> None:
    """sums ← Pᵀ((P x)/mass) in one pass over the plan."""
    plan, _, _, dots, factors = space
    width = plan.shape[1]
    kept = plan.shape[0] >= rows
    sums[:] = 0
    for i in range(0, rows, ROWS):
        at = i if kept else 0
        if not kept:
            fill_plan(cost, p, i, min(i + ROWS, rows), log_rows, log_columns, plan, columns)
        dot_rows(plan, at, width, x, dots)
        _quotient(dots, mass[i : i + ROWS], factors)
        add_rows(sums, plan, at, width, factors, 0)


@control
def _adjoint(cost: Any, p: int, log_rows: Any, log_columns: Any, lam: Any, mu: Any, space: Any) -> None:
    """λ and μ by conjugate gradients, see ``sslosses.transport.adjoint``; 0 where a or b is."""
    plan, over_rows, over_columns, dots, factors = space
    moved, mass, ratio = over_rows[1], over_rows[2], over_rows[3]
    row, of_moved, of_mass, solution = over_columns[1], over_columns[2], over_columns[3], over_columns[4]
    residual, z, direction, image = over_columns[5], over_columns[6], over_columns[7], over_columns[8]
    rows, columns, width = lam.shape[0], mu.shape[0], plan.shape[1]
    kept = plan.shape[0] >= rows
    for column in (of_moved, of_mass, solution, image):
        column[:] = 0
    moved[:] = 0
    mass[:] = 0
    for i in range(0, rows, ROWS):
        at = i if kept else 0
        for k in range(i, min(i + ROWS, rows)):
            here = plan[at + k - i]
            cost_row(cost, p, k, row, columns)
            exp_row(log_rows[k], log_columns, row, here, width)
            moved[k], mass[k] = _add_moments(here, row, columns, of_moved, of_mass)
        plan[at + min(ROWS, rows - i) : at + ROWS] = 0
        _quotient(moved[i : i + ROWS], mass[i : i + ROWS], factors)
        add_rows(image, plan, at, width, factors, 0)

    _quotient(of_moved, of_mass, z)
    limit = np.finfo(plan.dtype).eps ** 1.7 * _inner(of_moved, z)
    total_mass = _total(of_mass)
    for j in range(width):
        residual[j] = of_moved[j] - image[j]
    _project(residual, of_mass, total_mass)
    _quotient(residual, of_mass, z)
    direction[:] = z
    rz = _inner(residual, z)
    for _ in range(3 * columns + 50):
        if not rz > limit:
            break
        _products(cost, p, log_rows, log_columns, direction, mass, image, rows, columns, space)
        for j in range(width):
            image[j] = of_mass[j] * direction[j] - image[j]
        curvature = _inner(direction, image)
        # A direction without curvature lies in the null space up to rounding: nothing is left to gain along it.
        if not curvature > 0:
            break
        step = rz / curvature
        for j in range(width):
            solution[j] += step * direction[j]
            residual[j] -= step * image[j]
        _project(residual, of_mass, total_mass)
        _quotient(residual, of_mass, z)
        rz_next = _inner(residual, z)
        for j in range(width):
            direction[j] = z[j] + rz_next / rz * direction[j]
        rz = rz_next
    mu[:] = solution[:columns]

    for i in range(0, rows, ROWS):
        at = i if kept else 0
        if not kept:
            fill_plan(cost, p, i, min(i + ROWS, rows), log_rows, log_columns, plan, columns)
        dot_rows(plan, at, width, solution, dots)
        for r in range(ROWS):
            ratio[i + r] = moved[i + r] - dots[r]
    _quotient(ratio, mass, ratio)
    lam[:] = ratio[:rows]


@control
def _define_without_mass(
    cost: Any, p: int, a: Any, b: Any, log_rows: Any, log_columns: Any, lam: Any, mu: Any, space: Any
) -> None:
    """λ and μ of points without mass: the mean of C less the other side's, under the plan's conditional."""
    _, over_rows, over_columns, _, _ = space
    weights, row, ground = over_rows[1], over_columns[1], over_columns[2]
    rows, columns = lam.shape[0], mu.shape[0]
    for i in range(rows):
        if a[i] == 0:
            total = row_softmax(cost, p, i, log_columns, row, columns)[0]
            cost_row(cost, p, i, ground, columns)
            mean = 0.0
            for j in range(columns):
                mean += row[j] * (ground[j] - mu[j])
            lam[i] = mean / total
    for j in range(columns):
        if b[j] == 0:
            total = column_softmax(cost, p, j, log_rows, weights, rows)[0]
            mean = 0.0
            for i in range(rows):
                if weights[i] > 0:
                    cost_row(cost, p, i, ground, columns)
                    mean += weights[i] * (ground[j] - lam[i])
            mu[j] = mean / total


@control
def value_gradient(
    cost: Any,
    p: int,
    a: Any,
    log_a: Any,
    b: Any,
    log_b: Any,
    f: Any,
    g: Any,
    exact: bool,
    of_source: Any,
    of_target: Any,
    lam: Any,
    mu: Any,
    space: Any,
) -> None:
    """Gradient of problem p with respect to its values, added to zeros; ``exact``: and λ, μ, those of a and b."""
    plan, over_rows, over_columns, _, _ = space
    log_rows, log_columns, row = over_rows[0], over_columns[0], over_columns[1]
    source, target, value_weight = cost[1], cost[2], cost[5]
    rows, columns = f.shape[0], g.shape[0]
    kept = plan.shape[0] >= rows
    log_columns[columns:] = -np.inf
    shifted(f, log_a, log_rows)
    shifted(g, log_b, log_columns)
    if exact:
        _adjoint(cost, p, log_rows, log_columns, lam, mu, space)
        _define_without_mass(cost, p, a, b, log_rows, log_columns, lam, mu, space)
    if value_weight == 0:
        return
    for i in range(rows):
        cost_row(cost, p, i, row, columns)
        here = plan[i if kept else 0]
        if not (kept and exact):
            exp_row(log_rows[i], log_columns, row, here, plan.shape[1])
        of_source[i] = value_weight * _add_gradient(
            here, row, lam[i], mu, source[p, i], target[p], exact, of_target, columns
        )
    for j in range(columns):
        of_target[j] *= value_weight
