"""⟨P, C⟩ of one problem and its gradient with respect to the points, compiled by numba; everything in units of ε.

The equations are those of ``sslosses.transport.value`` and ``sslosses.transport.adjoint``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sslosses.transport.solvers.fused.numba_passes import (
    dot_rows,
    exp_rows,
    gradient_of_rows,
    moments_of_rows,
    project_rows,
)
from sslosses.transport.solvers.fused.numba_plan import (
    column_softmax,
    control,
    cost_entry,
    cost_rows,
    loops,
    plan_rows,
    shifted,
    softmax_rows,
)
from sslosses.transport.solvers.fused.numba_vectors import ROWS


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


@control
def transport_value(cost: Any, p: int, log_a: Any, log_b: Any, f: Any, g: Any, space: Any) -> float:
    """⟨P, C⟩ of problem p."""
    plan, ground, over_rows, over_columns, _, _ = space
    log_rows, mass, log_columns = over_rows[0], over_rows[1], over_columns[0]
    rows = f.shape[0]
    shifted(f, log_a, log_rows)
    shifted(g, log_b, log_columns)
    total = 0.0
    for i in range(0, rows, ROWS):
        plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, 0, mass)
        for k in range(min(ROWS, rows - i)):
            total += _dot(plan[k], ground[k])
    return total


@control
def _adjoint(cost: Any, p: int, rows: int, space: Any) -> None:
    """λ and μ by conjugate gradients, see ``sslosses.transport.adjoint``, into what is last over rows and over columns.

    They are 0 where a or b is.
    """
    plan, ground, over_rows, over_columns, _, _ = space
    log_rows, mass, moved, lam = over_rows[0], over_rows[1], over_rows[2], over_rows[4]
    log_columns, of_moved, of_mass = over_columns[0], over_columns[1], over_columns[2]
    residual, z, direction, image = over_columns[3], over_columns[4], over_columns[5], over_columns[6]
    mu = over_columns[7]
    width = plan.shape[1]
    kept = plan.shape[0] >= rows
    for column in (of_moved, of_mass, mu, image):
        column[:] = 0
    for i in range(0, rows, ROWS):
        at = i if kept else 0
        plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, at, mass)
        moments_of_rows(plan, at, ground, mass, i, moved, of_moved, of_mass, image)

    _quotient(of_moved, of_mass, z)
    limit = np.finfo(plan.dtype).eps ** 1.7 * _inner(of_moved, z)
    total_mass = _total(of_mass)
    for j in range(width):
        residual[j] = of_moved[j] - image[j]
    _project(residual, of_mass, total_mass)
    _quotient(residual, of_mass, z)
    direction[:] = z
    rz = _inner(residual, z)
    for _ in range(3 * width + 50):
        if not rz > limit:
            break
        image[:] = 0
        for i in range(0, rows, ROWS):
            at = i if kept else 0
            if not kept:
                plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, at, lam)
            project_rows(plan, at, direction, mass, i, image)
        for j in range(width):
            image[j] = of_mass[j] * direction[j] - image[j]
        curvature = _inner(direction, image)
        # A direction without curvature lies in the null space up to rounding: nothing is left to gain along it.
        if not curvature > 0:
            break
        step = rz / curvature
        for j in range(width):
            mu[j] += step * direction[j]
            residual[j] -= step * image[j]
        _project(residual, of_mass, total_mass)
        _quotient(residual, of_mass, z)
        rz_next = _inner(residual, z)
        for j in range(width):
            direction[j] = z[j] + rz_next / rz * direction[j]
        rz = rz_next

    for i in range(0, rows, ROWS):
        at = i if kept else 0
        if not kept:
            plan_rows(cost, p, i, rows, log_rows, log_columns, ground, plan, at, lam)
        dot_rows(plan, at, mu, lam, i)
    for i in range(lam.shape[0]):
        lam[i] = moved[i] - lam[i]
    _quotient(lam, mass, lam)


@control
def _define_without_mass(cost: Any, p: int, a: Any, b: Any, rows: int, columns: int, space: Any) -> None:
    """λ and μ of points without mass: the mean of C less the other side's, under the plan's conditional."""
    _, ground, over_rows, over_columns, _, _ = space
    log_rows, totals, lowest, weights, lam = over_rows[0], over_rows[1], over_rows[2], over_rows[3], over_rows[4]
    log_columns, mu = over_columns[0], over_columns[7]
    for i in range(0, rows, ROWS):
        count = min(ROWS, rows - i)
        if a[i : i + count].min() == 0:
            softmax_rows(cost, p, i, rows, log_columns, ground, ground, 0, lowest, totals)
            for k in range(count):
                if a[i + k] == 0:
                    mean = 0.0
                    for j in range(columns):
                        mean += ground[k, j] * (cost_entry(cost, p, i + k, j) - mu[j])
                    lam[i + k] = mean / totals[i + k]
    for j in range(columns):
        if b[j] == 0:
            total = column_softmax(cost, p, j, log_rows, weights, rows)[0]
            mean = 0.0
            for i in range(rows):
                if weights[i] > 0:
                    mean += weights[i] * (cost_entry(cost, p, i, j) - lam[i])
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
    of_a: Any,
    of_b: Any,
    space: Any,
) -> None:
    """Gradient of problem p with respect to its values; ``exact``: and λ, μ, those of a and b."""
    plan, ground, over_rows, over_columns, _, _ = space
    log_rows, mass, found, lam = over_rows[0], over_rows[1], over_rows[3], over_rows[4]
    log_columns, of_columns, mu = over_columns[0], over_columns[1], over_columns[7]
    source, target, value_weight = cost[1], cost[2], cost[5]
    rows, columns = f.shape[0], g.shape[0]
    kept = plan.shape[0] >= rows
    shifted(f, log_a, log_rows)
    shifted(g, log_b, log_columns)
    lam[:] = 0
    mu[:] = 0
    if exact:
        _adjoint(cost, p, rows, space)
        _define_without_mass(cost, p, a, b, rows, columns, space)
        of_a[:] = lam[:rows]
        of_b[:] = mu[:columns]
    if value_weight == 0:
        return
    share = plan.dtype.type(1 if exact else 0)
    of_columns[:] = 0
    for i in range(0, rows, ROWS):
        at = i if kept else 0
        cost_rows(cost, p, i, rows, ground)
        if not (kept and exact):
            exp_rows(ground, log_rows, log_columns, i, plan, at, mass)
        gradient_of_rows(plan, at, ground, share, lam, mu, source[p], target[p], i, found, of_columns)
    for i in range(rows):
        of_source[i] = value_weight * found[i]
    for j in range(columns):
        of_target[j] = value_weight * of_columns[j]
