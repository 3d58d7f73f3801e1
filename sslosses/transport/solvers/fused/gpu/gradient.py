"""Triton kernels of the exact gradient of ⟨P, C⟩, "resident" and "strips": one program per problem, in one launch.

The equations are those of ``sslosses.transport.value`` and ``sslosses.transport.adjoint``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sslosses.transport.solvers.fused.gpu.conjugate_gradients import (
    first_direction,
    inverse,
    next_direction,
    unfinished,
)
from sslosses.transport.solvers.fused.gpu.tiles import (
    along_columns,
    along_rows,
    cost_tile,
    load_columns,
    load_scores,
    log_mass,
    points_of_problem,
    sign,
    sum_over_columns,
    sum_over_rows,
    tile_indices,
)

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def gradient_resident(
    batch,
    a,
    b,
    f,
    g,
    grad_source,
    grad_target,
    grad_a,
    grad_b,
    value_weight: tl.float64,
    position_weight: tl.float64,
    scale: tl.float64,
    limit: tl.float64,
    D: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
):
    """Solves the adjoint system by conjugate gradients with P in registers, and computes the gradient from it."""
    problem = tl.program_id(0).to(tl.int64)
    points = points_of_problem(batch, problem, value_weight, position_weight, a.dtype.element_ty)
    N, M = points.own_size, points.other_size
    x, in_x = tile_indices(N, X, 2)
    y, in_y = tile_indices(M, Y, 16)
    column_points = load_columns(points, y, D)
    unit = tl.full((), scale, a.dtype.element_ty)
    row_potential = tl.load(f + problem * N + x, mask=in_x, other=0.0) * unit
    column_potential = tl.load(g + problem * M + y, mask=in_y, other=0.0) * unit
    rows = row_potential + log_mass(tl.load(a + problem * N + x, mask=in_x, other=0.0))
    columns = column_potential + log_mass(tl.load(b + problem * M + y, mask=in_y, other=0.0))

    cost = cost_tile(points, x, y, column_points, D, False)
    plan = tl.exp2(along_rows(rows) + (along_columns(columns) - cost))
    moved = plan * cost
    r, c = sum_over_columns(moved), sum_over_rows(moved)
    inverse_a, mass_b = inverse(sum_over_columns(plan)), sum_over_rows(plan)
    inverse_b = inverse(mass_b)

    mu = tl.zeros_like(c)
    projected_r = sum_over_rows(plan * along_rows(inverse_a * r))
    residual, direction, rz, goal = first_direction(c, projected_r, mass_b, inverse_b, limit)
    step = tl.full((), 0, tl.int32)
    while unfinished(step, M, rz, goal):
        through = inverse_a * sum_over_columns(plan * along_columns(direction))
        image = mass_b * direction - sum_over_rows(plan * along_rows(through))
        mu, residual, direction, rz = next_direction(mu, residual, direction, rz, image, mass_b, inverse_b)
        step += 1
    lam = inverse_a * (r - sum_over_columns(plan * along_columns(mu)))

    cost = cost_tile(points, x, y, column_points, D, False)
    # Loaded anew, so that they occupy no registers during the iterations.
    s = tl.load(batch[0] + problem * N + x, mask=in_x, other=0.0)
    t = tl.load(batch[1] + problem * M + y, mask=in_y, other=0.0)
    gradient = plan * (1.0 - LN2 * (cost - along_rows(lam) - along_columns(mu)))
    signed = sign(along_rows(s), along_columns(t)) * gradient
    gain = points.value_weight / unit
    tl.store(grad_source + problem * N + x, gain * sum_over_columns(signed), mask=in_x)
    tl.store(grad_target + problem * M + y, -gain * sum_over_rows(signed), mask=in_y)

    # Computed again from the conditional plans P/a and P/b, which also exist where a or b is 0.
    given_row = tl.exp2(along_rows(row_potential) + (along_columns(columns) - cost))
    lam = sum_over_columns(given_row * (cost - along_columns(mu))) / sum_over_columns(given_row)
    lam = tl.where(in_x, lam, 0.0)
    given_column = tl.exp2(along_rows(rows) + (along_columns(column_potential) - cost))
    mu = sum_over_rows(given_column * (cost - along_rows(lam))) / sum_over_rows(given_column)
    tl.store(grad_a + problem * N + x, lam / unit, mask=in_x)
    tl.store(grad_b + problem * M + y, mu / unit, mask=in_y)


@triton.jit
def gradient_strips(
    batch,
    a,
    b,
    f,
    g,
    scratch,
    grad_source,
    grad_target,
    grad_a,
    grad_b,
    value_weight: tl.float64,
    position_weight: tl.float64,
    scale: tl.float64,
    limit: tl.float64,
    D: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
):
    """:func:`gradient_resident` with P recomputed in each step, X rows at a time; ``scratch`` is (P, 2N)."""
    problem = tl.program_id(0).to(tl.int64)
    points = points_of_problem(batch, problem, value_weight, position_weight, a.dtype.element_ty)
    N, M = points.own_size, points.other_size
    y, in_y = tile_indices(M, Y, 16)
    column_points = load_columns(points, y, D)
    unit = tl.full((), scale, a.dtype.element_ty)
    gain = points.value_weight / unit
    column_potential = tl.load(g + problem * M + y, mask=in_y, other=0.0) * unit
    columns = column_potential + log_mass(tl.load(b + problem * M + y, mask=in_y, other=0.0))
    a += problem * N
    f += problem * N
    inverse_a, r = scratch + problem * 2 * N, scratch + problem * 2 * N + N

    masses = tl.zeros([Y // 16, X // 2, 2, 16], column_potential.dtype)
    costs, shares = tl.zeros_like(masses), tl.zeros_like(masses)
    for i in range(0, N, X):
        x, in_x = tile_indices(N - i, X, 2)
        x += i
        cost = cost_tile(points, x, y, column_points, D, False)
        plan = tl.exp2(along_rows(load_scores(f, a, x, N, unit)) + (along_columns(columns) - cost))
        moved = plan * cost
        row_moved, inverse_mass = sum_over_columns(moved), inverse(sum_over_columns(plan))
        masses += plan
        costs += moved
        shares += plan * along_rows(inverse_mass * row_moved)
        tl.store(inverse_a + x, inverse_mass, mask=in_x)
        tl.store(r + x, row_moved, mask=in_x)
    tl.debug_barrier()

    mass_b, c = sum_over_rows(masses), sum_over_rows(costs)
    inverse_b = inverse(mass_b)
    mu = tl.zeros_like(c)
    residual, direction, rz, goal = first_direction(c, sum_over_rows(shares), mass_b, inverse_b, limit)
    step = tl.full((), 0, tl.int32)
    while unfinished(step, M, rz, goal):
        products = tl.zeros_like(masses)
        for i in range(0, N, X):
            x, in_x = tile_indices(N - i, X, 2)
            x += i
            cost = cost_tile(points, x, y, column_points, D, False)
            plan = tl.exp2(along_rows(load_scores(f, a, x, N, unit)) + (along_columns(columns) - cost))
            through = tl.load(inverse_a + x, mask=in_x, other=0.0) * sum_over_columns(plan * along_columns(direction))
            products += plan * along_rows(through)
        image = mass_b * direction - sum_over_rows(products)
        mu, residual, direction, rz = next_direction(mu, residual, direction, rz, image, mass_b, inverse_b)
        step += 1

    signs, masses, costs = tl.zeros_like(masses), tl.zeros_like(masses), tl.zeros_like(masses)
    for i in range(0, N, X):
        x, in_x = tile_indices(N - i, X, 2)
        x += i
        rows = load_scores(f, a, x, N, unit)
        cost = cost_tile(points, x, y, column_points, D, False)
        plan = tl.exp2(along_rows(rows) + (along_columns(columns) - cost))
        lam = tl.load(r + x, mask=in_x, other=0.0) - sum_over_columns(plan * along_columns(mu))
        lam *= tl.load(inverse_a + x, mask=in_x, other=0.0)
        gradient = plan * (1.0 - LN2 * (cost - along_rows(lam) - along_columns(mu)))
        s = tl.load(points.own_values + x, mask=in_x, other=0.0)
        signed = sign(along_rows(s), along_columns(column_points[0])) * gradient
        signs += signed
        tl.store(grad_source + problem * N + x, gain * sum_over_columns(signed), mask=in_x)
        # Computed again from the conditional plans P/a and P/b, which also exist where a or b is 0.
        row_potential = tl.load(f + x, mask=in_x, other=0.0) * unit
        given_row = tl.exp2(along_rows(row_potential) + (along_columns(columns) - cost))
        lam = sum_over_columns(given_row * (cost - along_columns(mu))) / sum_over_columns(given_row)
        lam = tl.where(in_x, lam, 0.0)
        given_column = tl.exp2(along_rows(rows) + (along_columns(column_potential) - cost))
        masses += given_column
        costs += given_column * (cost - along_rows(lam))
        tl.store(grad_a + problem * N + x, lam / unit, mask=in_x)
    tl.store(grad_target + problem * M + y, -gain * sum_over_rows(signs), mask=in_y)
    tl.store(grad_b + problem * M + y, sum_over_rows(costs) / sum_over_rows(masses) / unit, mask=in_y)
