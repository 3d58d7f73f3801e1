"""⟨P, C⟩ of one problem and its gradient with respect to the points, compiled by numba; everything in units of ε.

The equations are those of ``sslosses.transport.value`` and ``sslosses.transport.adjoint``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sslosses.transport.solvers.fused.cpu.plan import control, loops, shifted
from sslosses.transport.solvers.fused.cpu.ranges import (
    column_mean,
    dot_range,
    gradient_range,
    moments_range,
    project_range,
    row_means_without_mass,
    value_range,
)


@loops
def _inner(x: Any, y: Any) -> float:
    total = 0.0
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
    total: float = value_range(cost, p, 0, rows, rows, log_rows, log_columns, mass, plan, ground)
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
    for column in (of_moved, of_mass, mu, image):
        column[:] = 0
    moments_range(cost, p, 0, rows, rows, log_rows, log_columns, mass, moved, of_moved, of_mass, image, plan, ground)

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
        project_range(cost, p, 0, rows, rows, log_rows, log_columns, direction, mass, lam, image, plan, ground)
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

    dot_range(cost, p, 0, rows, rows, log_rows, log_columns, mu, lam, plan, ground)
    for i in range(lam.shape[0]):
        lam[i] = moved[i] - lam[i]
    _quotient(lam, mass, lam)


@control
def _define_without_mass(cost: Any, p: int, a: Any, b: Any, rows: int, columns: int, space: Any) -> None:
    """λ and μ of points without mass, which the adjoint leaves at 0."""
    _, ground, over_rows, over_columns, _, _ = space
    log_rows, totals, lowest, room, lam = over_rows[0], over_rows[1], over_rows[2], over_rows[3], over_rows[4]
    log_columns, mu = over_columns[0], over_columns[7]
    row_means_without_mass(cost, p, 0, rows, rows, a, log_columns, mu, columns, lam, lowest, totals, ground, ground)
    for j in range(columns):
        if b[j] == 0:
            mu[j] = column_mean(cost, p, j, rows, log_rows, lam, room)


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
    value_weight = cost[5]
    rows, columns = f.shape[0], g.shape[0]
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
    of_columns[:] = 0
    gradient_range(cost, p, 0, rows, rows, exact, log_rows, log_columns, lam, mu, mass, found, of_columns, plan, ground)
    for i in range(rows):
        of_source[i] = value_weight * found[i]
    for j in range(columns):
        of_target[j] = value_weight * of_columns[j]
