"""⟨P, C⟩ of one problem and its gradient with respect to the points, compiled by numba; in units of ε.

The equations are those of ``sslosses.transport.value`` and ``sslosses.transport.adjoint``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sslosses.transport.adjoint import EXTRA_STEPS, RESIDUAL_EXPONENT, STEPS_PER_COLUMN
from sslosses.transport.solvers.fused.cpu.plan import add_log_mass, control, loops
from sslosses.transport.solvers.fused.cpu.ranges import (
    column_mean,
    dot_range,
    gradient_range,
    means_without_mass_range,
    moment_range,
    project_range,
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
    """Removes the null space, along which the system has no curvature to keep rounding errors small."""
    excess = _total(residual) / total_mass
    for k in range(residual.shape[0]):
        residual[k] -= excess * mass[k]


@control
def _quotient(x: Any, y: Any, out: Any) -> None:
    for k in range(x.shape[0]):
        out[k] = x[k] / y[k] if y[k] > 0 else 0


@control
def transport_value(cost: Any, p: int, masses: Any, f: Any, g: Any, workspace: Any) -> float:
    """⟨P, C⟩ of problem p."""
    log_rows, mass, log_columns = workspace.row_vectors[0], workspace.row_vectors[1], workspace.column_vectors[0]
    rows = f.shape[0]
    add_log_mass(f, masses.log_a, log_rows)
    add_log_mass(g, masses.log_b, log_columns)
    total: float = value_range(cost, p, 0, rows, rows, log_rows, log_columns, mass, workspace.plan, workspace.cost_rows)
    return total


@control
def _adjoint(cost: Any, p: int, rows: int, workspace: Any) -> None:
    """λ and μ by conjugate gradients, see ``sslosses.transport.adjoint``, into the last row and column vectors.

    They are 0 where a or b is.
    """
    plan, cost_rows = workspace.plan, workspace.cost_rows
    row_vectors, column_vectors = workspace.row_vectors, workspace.column_vectors
    log_rows, mass, row_moved, lam = row_vectors[0], row_vectors[1], row_vectors[2], row_vectors[4]
    log_columns, column_moved, column_mass = column_vectors[0], column_vectors[1], column_vectors[2]
    residual, z, direction, image = column_vectors[3], column_vectors[4], column_vectors[5], column_vectors[6]
    mu = column_vectors[7]
    width = plan.shape[1]
    for column in (column_moved, column_mass, mu, image):
        column[:] = 0
    moment_range(
        cost, p, 0, rows, rows, log_rows, log_columns, mass, row_moved, column_moved, column_mass, image, plan,
        cost_rows,
    )  # fmt: skip

    _quotient(column_moved, column_mass, z)
    limit = np.finfo(plan.dtype).eps ** RESIDUAL_EXPONENT * _inner(column_moved, z)
    total_mass = _total(column_mass)
    for j in range(width):
        residual[j] = column_moved[j] - image[j]
    _project(residual, column_mass, total_mass)
    _quotient(residual, column_mass, z)
    direction[:] = z
    rz = _inner(residual, z)
    for _ in range(STEPS_PER_COLUMN * width + EXTRA_STEPS):
        if not rz > limit:
            break
        image[:] = 0
        project_range(cost, p, 0, rows, rows, log_rows, log_columns, direction, mass, lam, image, plan, cost_rows)
        for j in range(width):
            image[j] = column_mass[j] * direction[j] - image[j]
        curvature = _inner(direction, image)
        # A direction without curvature lies in the null space up to rounding; no step along it helps.
        if not curvature > 0:
            break
        step = rz / curvature
        for j in range(width):
            mu[j] += step * direction[j]
            residual[j] -= step * image[j]
        _project(residual, column_mass, total_mass)
        _quotient(residual, column_mass, z)
        rz_next = _inner(residual, z)
        for j in range(width):
            direction[j] = z[j] + rz_next / rz * direction[j]
        rz = rz_next

    dot_range(cost, p, 0, rows, rows, log_rows, log_columns, mu, lam, plan, cost_rows)
    for i in range(lam.shape[0]):
        lam[i] = row_moved[i] - lam[i]
    _quotient(lam, mass, lam)


@control
def _define_without_mass(cost: Any, p: int, masses: Any, rows: int, columns: int, workspace: Any) -> None:
    """λ and μ of points without mass, which the adjoint leaves at 0."""
    cost_rows, row_vectors, column_vectors = workspace.cost_rows, workspace.row_vectors, workspace.column_vectors
    log_rows, totals, lowest, weights = row_vectors[0], row_vectors[1], row_vectors[2], row_vectors[3]
    lam, log_columns, mu = row_vectors[4], column_vectors[0], column_vectors[7]
    means_without_mass_range(
        cost, p, 0, rows, rows, masses.a, log_columns, mu, columns, lam, lowest, totals, cost_rows, cost_rows
    )
    b = masses.b
    for j in range(columns):
        if b[j] == 0:
            mu[j] = column_mean(cost, p, j, rows, log_rows, lam, weights)


@control
def value_gradient(
    cost: Any,
    p: int,
    masses: Any,
    f: Any,
    g: Any,
    exact: bool,
    grad_source: Any,
    grad_target: Any,
    grad_a: Any,
    grad_b: Any,
    workspace: Any,
) -> None:
    """Gradient of problem p with respect to its values; if ``exact``, also λ and μ, those of a and b."""
    row_vectors, column_vectors = workspace.row_vectors, workspace.column_vectors
    log_rows, mass, row_sums, lam = row_vectors[0], row_vectors[1], row_vectors[3], row_vectors[4]
    log_columns, column_sums, mu = column_vectors[0], column_vectors[1], column_vectors[7]
    rows, columns = f.shape[0], g.shape[0]
    add_log_mass(f, masses.log_a, log_rows)
    add_log_mass(g, masses.log_b, log_columns)
    lam[:] = 0
    mu[:] = 0
    if exact:
        _adjoint(cost, p, rows, workspace)
        _define_without_mass(cost, p, masses, rows, columns, workspace)
        grad_a[:] = lam[:rows]
        grad_b[:] = mu[:columns]
    value_weight = cost.value_weight
    if value_weight == 0:
        return
    column_sums[:] = 0
    gradient_range(
        cost, p, 0, rows, rows, exact, log_rows, log_columns, lam, mu, mass, row_sums, column_sums, workspace.plan,
        workspace.cost_rows,
    )  # fmt: skip
    for i in range(rows):
        grad_source[i] = value_weight * row_sums[i]
    for j in range(columns):
        grad_target[j] = value_weight * column_sums[j]
