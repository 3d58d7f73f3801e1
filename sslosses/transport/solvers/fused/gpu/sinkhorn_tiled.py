"""Triton kernel of Sinkhorn's iterations, "tiled": one program per problem, all iterations in it."""

from __future__ import annotations

import triton
import triton.language as tl

from sslosses.transport.solvers.fused.gpu.sinkhorn import in_range, mass_excess
from sslosses.transport.solvers.fused.gpu.tiles import (
    cost_tile,
    load_columns,
    load_scores,
    points_of_problem,
    transposed,
)


@triton.jit
def _sum_exponentials(points, potential, mass, x, shift, Y: tl.constexpr, D: tl.constexpr, MATRIX: tl.constexpr):
    """Σ_y mass exp2(shift + potential − C) of the rows x."""
    total = tl.zeros([x.shape[0], Y], shift.dtype)
    size = points.other_size
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        scores = load_scores(potential, mass, y, size, 1.0)
        cost = cost_tile(points, x, y, load_columns(points, y, D), D, MATRIX)
        total += tl.exp2(shift[:, None] + (scores[None, :] - cost))
    return tl.sum(total, 1)


@triton.jit
def _largest_exponent(points, potential, mass, x, Y: tl.constexpr, D: tl.constexpr, MATRIX: tl.constexpr):
    """max_y (potential + log₂ mass − C) of the rows x."""
    largest = tl.full([x.shape[0], Y], -float("inf"), mass.dtype.element_ty)
    size = points.other_size
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        scores = load_scores(potential, mass, y, size, 1.0)
        cost = cost_tile(points, x, y, load_columns(points, y, D), D, MATRIX)
        largest = tl.maximum(largest, scores[None, :] - cost)
    return tl.max(largest, 1)


@triton.jit
def _half_step(points, potential, mass, x, guess, Y: tl.constexpr, D: tl.constexpr, MATRIX: tl.constexpr):
    """−log₂ Σ_y mass exp2(potential − C) of the rows x; a guess near it spares the search for the maximum."""
    total = _sum_exponentials(points, potential, mass, x, guess, Y, D, MATRIX)
    safe = (x >= points.own_size) | in_range(total)
    if tl.min(safe.to(tl.int32), 0) == 0:
        guess = -_largest_exponent(points, potential, mass, x, Y, D, MATRIX)
        total = _sum_exponentials(points, potential, mass, x, guess, Y, D, MATRIX)
    return guess - tl.log2(total)


@triton.jit
def sinkhorn_tiled(
    batch,
    a,
    b,
    init,
    updates,
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
    """Log-domain iterations over tiles; ``updates`` (P, N) is scratch memory."""
    problem = tl.program_id(0).to(tl.int64)
    rows = points_of_problem(batch, problem, value_weight, position_weight, a.dtype.element_ty)
    columns = transposed(rows)
    N, M = rows.own_size, rows.other_size
    unit = tl.full((), scale, a.dtype.element_ty)
    a += problem * N
    b += problem * M
    f_out += problem * N
    g_out += problem * M
    updates += problem * N

    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        tl.store(f_out + x, tl.zeros([X], a.dtype.element_ty), mask=x < N)
    for j in range(0, M, X):
        y = j + tl.arange(0, X)
        tl.store(g_out + y, tl.load(init + problem * M + y, mask=y < M, other=0.0) * unit, mask=y < M)
    tl.debug_barrier()

    error = tl.full((), float("inf"), a.dtype.element_ty)
    done = tl.full((), 0, tl.int32)
    running = done < max_iter
    while running:
        excess = tl.zeros([X], a.dtype.element_ty)
        for i in range(0, N, X):
            x = i + tl.arange(0, X)
            mass = tl.load(a + x, mask=x < N, other=0.0)
            f = tl.load(f_out + x, mask=x < N, other=0.0)
            update = _half_step(rows, g_out, b, x, f, Y, D, MATRIX)
            excess += mass_excess(mass, f, update)
            tl.store(updates + x, update, mask=x < N)
        error = tl.sum(excess, 0)
        tl.debug_barrier()
        running = (done < max_iter) and (done == 0 or not (error <= tol))
        if running:
            for i in range(0, N, X):
                x = i + tl.arange(0, X)
                tl.store(f_out + x, tl.load(updates + x, mask=x < N, other=0.0), mask=x < N)
            for j in range(0, M, X):
                y = j + tl.arange(0, X)
                g = tl.load(g_out + y, mask=y < M, other=0.0)
                g = _half_step(columns, updates, a, y, g, Y, D, MATRIX)
                tl.debug_barrier()
                tl.store(g_out + y, g, mask=y < M)
            tl.debug_barrier()
            done += 1

    # The last half-step, for f; see ``sslosses.transport.potentials.finish``.
    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        tl.store(f_out + x, tl.load(updates + x, mask=x < N, other=0.0) / unit, mask=x < N)
    excess = tl.zeros([X], a.dtype.element_ty)
    for j in range(0, M, X):
        y = j + tl.arange(0, X)
        mass = tl.load(b + y, mask=y < M, other=0.0)
        g = tl.load(g_out + y, mask=y < M, other=0.0)
        update = _half_step(columns, updates, a, y, g, Y, D, MATRIX)
        excess += mass_excess(mass, g, update)
        g = tl.where(mass > 0, g, update) / unit
        tl.debug_barrier()
        tl.store(g_out + y, g, mask=y < M)
    tl.store(iterations + problem, done)
    tl.store(errors + problem, tl.sum(excess, 0))
