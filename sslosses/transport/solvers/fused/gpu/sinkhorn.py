"""Triton kernels of Sinkhorn's iterations, "resident" and "strips": one program per problem, all iterations in it."""

from __future__ import annotations

import triton
import triton.language as tl

from sslosses.transport.solvers.fused.gpu.tiles import (
    along_columns,
    along_rows,
    cost_tile,
    load_columns,
    log_mass,
    points_of_problem,
    sum_over_columns,
    sum_over_rows,
    sum_vector,
    tile_indices,
)

# Scalings in this range neither overflow nor lose anything that float32 could resolve to underflow.
SCALING_MIN = tl.constexpr(2.0**-40)
SCALING_MAX = tl.constexpr(2.0**40)


@triton.jit
def in_range(sums):
    """Whether scalings by these sums are in the safe range."""
    return (sums > SCALING_MIN) & (sums < SCALING_MAX)


@triton.jit
def mass_excess(mass, potential, update):
    """What the mass of each point has too much or too little, if ``update`` is the potential that gives it its mass."""
    return tl.where(mass > 0, mass * tl.abs(tl.exp2(potential - update) - 1.0), 0.0)


@triton.jit
def _row_update(cost, scores):
    """−log₂ Σ_y exp2(scores − cost)."""
    exponents = along_columns(scores) - cost
    largest = tl.max(tl.max(exponents, 0), 2)
    return -largest - tl.log2(sum_over_columns(tl.exp2(exponents - along_rows(largest))))


@triton.jit
def _column_update(cost, scores):
    """−log₂ Σ_x exp2(scores − cost)."""
    exponents = along_rows(scores) - cost
    largest = tl.max(tl.max(exponents, 1), 1)
    return -largest - tl.log2(sum_over_rows(tl.exp2(exponents - along_columns(largest))))


@triton.jit
def sinkhorn_resident(
    batch,
    a,
    b,
    init,
    f_out,
    g_out,
    iterations,
    errors,
    max_iter,
    value_weight: tl.float64,
    position_weight: tl.float64,
    scale: tl.float64,
    tol: tl.float64,
    D: tl.constexpr,
    MATRIX: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
):
    """Alternating scalings of K = exp2(f ⊕ g − C), one matrix–vector product each.

    An iteration whose scalings leave the safe range, or are not finite, is done in the log domain instead. K is then
    rebuilt at the resulting potentials. The first iteration always is of this kind.
    """
    problem = tl.program_id(0).to(tl.int64)
    points = points_of_problem(batch, problem, value_weight, position_weight, a.dtype.element_ty)
    N, M = points.own_size, points.other_size
    x, in_x = tile_indices(N, X, 2)
    y, in_y = tile_indices(M, Y, 16)
    column_points = load_columns(points, y, D)
    unit = tl.full((), scale, a.dtype.element_ty)
    row_mass = tl.load(a + problem * N + x, mask=in_x, other=0.0)
    column_mass = tl.load(b + problem * M + y, mask=in_y, other=0.0)

    f = tl.zeros_like(row_mass)
    g = tl.load(init + problem * M + y, mask=in_y, other=0.0) * unit
    # The masses times their scalings, a∘u and b∘v; 0 where the mass is.
    w, z = row_mass, column_mass
    kernel = tl.zeros([Y // 16, X // 2, 2, 16], row_mass.dtype)
    sums = tl.zeros_like(row_mass)
    error = tl.full((), float("inf"), row_mass.dtype)
    done = tl.full((), 0, tl.int32)
    while done < max_iter and not (error <= tol):
        next_w = tl.where(row_mass > 0, tl.where(in_range(sums), row_mass / sums, float("nan")), 0.0)
        column_sums = sum_over_rows(kernel * along_rows(next_w))
        safe_columns = (column_mass == 0) | in_range(column_sums)
        if tl.min(tl.min(safe_columns.to(tl.int32), 1), 0) == 1:
            w = next_w
            z = tl.where(column_mass > 0, column_mass / column_sums, 0.0)
        else:
            g += tl.where(column_mass > 0, tl.log2(z / column_mass), 0.0)
            cost = cost_tile(points, x, y, column_points, D, MATRIX)
            f = _row_update(cost, g + log_mass(column_mass))
            g = _column_update(cost, f + log_mass(row_mass))
            rows = tl.where(row_mass > 0, f, -float("inf"))
            columns = tl.where(column_mass > 0, g, -float("inf"))
            kernel = tl.exp2(along_rows(rows) + (along_columns(columns) - cost))
            w, z = row_mass, column_mass
        sums = sum_over_columns(kernel * along_columns(z))
        error = sum_vector(tl.abs(w * sums - row_mass))
        done += 1

    g += tl.where(column_mass > 0, tl.log2(z / column_mass), 0.0)
    # The last half-step, for f; see ``sslosses.transport.potentials.finish``.
    cost = cost_tile(points, x, y, column_points, D, MATRIX)
    f = _row_update(cost, g + log_mass(column_mass))
    columns = _column_update(cost, f + log_mass(row_mass))
    tl.store(f_out + problem * N + x, f / unit, mask=in_x)
    tl.store(g_out + problem * M + y, tl.where(column_mass > 0, g, columns) / unit, mask=in_y)
    tl.store(iterations + problem, done)
    tl.store(errors + problem, sum_vector(mass_excess(column_mass, g, columns)))


@triton.jit
def _log_pass(
    points,
    a,
    w,
    f_out,
    scores,
    y,
    column_points,
    unit,
    X: tl.constexpr,
    D: tl.constexpr,
    MATRIX: tl.constexpr,
    FINISH: tl.constexpr,
):
    """One log-domain iteration over strips from the columns' scores; stores f and w = a, and returns g.

    With FINISH it stores f in the units of the cost, and nothing else.
    """
    N = points.own_size
    largest = tl.full(y.shape, -float("inf"), scores.dtype)
    total = tl.zeros(y.shape, scores.dtype)
    for i in range(0, N, X):
        x, in_x = tile_indices(N - i, X, 2)
        x += i
        cost = cost_tile(points, x, y, column_points, D, MATRIX)
        mass = tl.load(a + x, mask=in_x, other=0.0)
        f = _row_update(cost, scores)
        if FINISH:
            tl.store(f_out + x, f / unit, mask=in_x)
        else:
            tl.store(f_out + x, f, mask=in_x)
            tl.store(w + x, mass, mask=in_x)
        exponents = along_rows(f + log_mass(mass)) - cost
        top = tl.maximum(largest, tl.max(tl.max(exponents, 1), 1))
        base = tl.where(top > -float("inf"), top, 0.0)
        total = total * tl.exp2(largest - base) + sum_over_rows(tl.exp2(exponents - along_columns(base)))
        largest = top
    return -largest - tl.log2(total)


@triton.jit
def sinkhorn_strips(
    batch,
    a,
    b,
    init,
    scratch,
    f_out,
    g_out,
    iterations,
    errors,
    max_iter,
    value_weight: tl.float64,
    position_weight: tl.float64,
    scale: tl.float64,
    tol: tl.float64,
    D: tl.constexpr,
    MATRIX: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
):
    """:func:`sinkhorn_resident` with K recomputed in each iteration, X rows at a time; ``scratch`` is (P, 2N).

    A strip holds whole rows, so it gives their scalings at once and serves the columns' sums too: K is evaluated once
    per iteration.
    """
    problem = tl.program_id(0).to(tl.int64)
    points = points_of_problem(batch, problem, value_weight, position_weight, a.dtype.element_ty)
    N, M = points.own_size, points.other_size
    y, in_y = tile_indices(M, Y, 16)
    column_points = load_columns(points, y, D)
    unit = tl.full((), scale, a.dtype.element_ty)
    column_mass = tl.load(b + problem * M + y, mask=in_y, other=0.0)
    g = tl.load(init + problem * M + y, mask=in_y, other=0.0) * unit
    a += problem * N
    f_out += problem * N
    scratch += problem * 2 * N

    # The masses times their scalings, as in the resident kernel; w and the next w take turns in the scratch memory.
    z = column_mass
    turn = tl.full((), 0, tl.int32)
    error = tl.full((), float("inf"), column_mass.dtype)
    done = tl.full((), 0, tl.int32)
    lost = done == 0
    running = done < max_iter
    while running:
        if lost:
            g += tl.where(column_mass > 0, tl.log2(z / column_mass), 0.0)
            scores = g + log_mass(column_mass)
            g = _log_pass(points, a, scratch + turn * N, f_out, scores, y, column_points, unit, X, D, MATRIX, False)
            z = column_mass
            done += 1
            tl.debug_barrier()
        columns = tl.where(column_mass > 0, g, -float("inf"))
        excess = tl.zeros([X // 2, 2], column_mass.dtype)
        products = tl.zeros([Y // 16, X // 2, 2, 16], column_mass.dtype)
        for i in range(0, N, X):
            x, in_x = tile_indices(N - i, X, 2)
            x += i
            mass = tl.load(a + x, mask=in_x, other=0.0)
            f = tl.where(mass > 0, tl.load(f_out + x, mask=in_x, other=0.0), -float("inf"))
            cost = cost_tile(points, x, y, column_points, D, MATRIX)
            kernel = tl.exp2(along_rows(f) + (along_columns(columns) - cost))
            sums = sum_over_columns(kernel * along_columns(z))
            excess += tl.abs(tl.load(scratch + turn * N + x, mask=in_x, other=0.0) * sums - mass)
            next_w = tl.where(mass > 0, tl.where(in_range(sums), mass / sums, float("nan")), 0.0)
            products += kernel * along_rows(next_w)
            tl.store(scratch + (1 - turn) * N + x, next_w, mask=in_x)
        error = sum_vector(excess)
        tl.debug_barrier()
        running = done < max_iter and not (error <= tol)
        if running:
            column_sums = sum_over_rows(products)
            safe_columns = (column_mass == 0) | in_range(column_sums)
            lost = tl.min(tl.min(safe_columns.to(tl.int32), 1), 0) == 0
            if not lost:
                z = tl.where(column_mass > 0, column_mass / column_sums, 0.0)
                turn = 1 - turn
                done += 1

    g += tl.where(column_mass > 0, tl.log2(z / column_mass), 0.0)
    # The last half-step, for f; see ``sslosses.transport.potentials.finish``.
    scores = g + log_mass(column_mass)
    columns = _log_pass(points, a, scratch + turn * N, f_out, scores, y, column_points, unit, X, D, MATRIX, True)
    tl.store(g_out + problem * M + y, tl.where(column_mass > 0, g, columns) / unit, mask=in_y)
    tl.store(iterations + problem, done)
    tl.store(errors + problem, sum_vector(mass_excess(column_mass, g, columns)))
