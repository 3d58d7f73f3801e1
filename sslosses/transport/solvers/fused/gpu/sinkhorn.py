"""Triton kernels of Sinkhorn's iterations: one program a problem, all iterations in one launch."""

from __future__ import annotations

import triton
import triton.language as tl

from sslosses.transport.solvers.fused.gpu.tiles import (
    _along_columns,
    _along_rows,
    _cost,
    _log,
    _others,
    _over_columns,
    _over_rows,
    _points,
    _points_of,
    _total,
    _transposed,
)

# Scalings in this range neither overflow nor lose anything that float32 could resolve to underflow.
LOWEST = tl.constexpr(2.0**-40)
HIGHEST = tl.constexpr(2.0**40)


@triton.jit
def _row_update(cost, scores):
    """−log₂ Σ_y exp2(scores − cost)."""
    exponents = _along_columns(scores) - cost
    largest = tl.max(tl.max(exponents, 0), 2)
    return -largest - tl.log2(_over_columns(tl.exp2(exponents - _along_rows(largest))))


@triton.jit
def _column_update(cost, scores):
    """−log₂ Σ_x exp2(scores − cost)."""
    exponents = _along_rows(scores) - cost
    largest = tl.max(tl.max(exponents, 1), 1)
    return -largest - tl.log2(_over_rows(tl.exp2(exponents - _along_columns(largest))))


@triton.jit
def sinkhorn_resident(
    source,
    target,
    row_positions,
    column_positions,
    a,
    b,
    start,
    f_out,
    g_out,
    iterations,
    errors,
    N,
    M,
    source_stride,
    target_stride,
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
    """Alternating scalings of K = exp2(f ⊕ g − C), a matrix–vector product each.

    When a scaling leaves the safe range, or isn't finite, that iteration is done in the log domain instead and K is
    rebuilt at the potentials that it gives. The first one always is.
    """
    problem = tl.program_id(0).to(tl.int64)
    x, in_x = _points_of(N, X, 2)
    y, in_y = _points_of(M, Y, 16)
    points = _points(
        problem, source, target, row_positions, column_positions, N, M, source_stride, target_stride, M, 1,
        tl.full((), value_weight, a.dtype.element_ty), tl.full((), position_weight, a.dtype.element_ty),
    )  # fmt: skip
    others = _others(points, y, D)
    unit = tl.full((), scale, a.dtype.element_ty)
    of_a = tl.load(a + problem * N + x, mask=in_x, other=0.0)
    of_b = tl.load(b + problem * M + y, mask=in_y, other=0.0)

    f = tl.zeros_like(of_a)
    g = tl.load(start + problem * M + y, mask=in_y, other=0.0) * unit
    # The masses times their scalings, a∘u and b∘v; 0 where the mass is.
    w, z = of_a, of_b
    kernel = tl.zeros([Y // 16, X // 2, 2, 16], of_a.dtype)
    sums = tl.zeros_like(of_a)
    error = tl.full((), float("inf"), of_a.dtype)
    done = tl.full((), 0, tl.int32)
    while done < max_iter and not (error <= tol):
        safe = (sums > LOWEST) & (sums < HIGHEST)
        next_w = tl.where(of_a > 0, tl.where(safe, of_a / sums, float("nan")), 0.0)
        column_sums = _over_rows(kernel * _along_rows(next_w))
        safe_columns = (of_b == 0) | ((column_sums > LOWEST) & (column_sums < HIGHEST))
        if tl.min(tl.min(safe_columns.to(tl.int32), 1), 0) == 1:
            w = next_w
            z = tl.where(of_b > 0, of_b / column_sums, 0.0)
        else:
            g += tl.where(of_b > 0, tl.log2(z / of_b), 0.0)
            cost = _cost(points, x, y, others, D, MATRIX)
            f = _row_update(cost, g + _log(of_b))
            g = _column_update(cost, f + _log(of_a))
            rows, columns = tl.where(of_a > 0, f, -float("inf")), tl.where(of_b > 0, g, -float("inf"))
            kernel = tl.exp2(_along_rows(rows) + (_along_columns(columns) - cost))
            w, z = of_a, of_b
        sums = _over_columns(kernel * _along_columns(z))
        error = _total(tl.abs(w * sums - of_a))
        done += 1

    f += tl.where(of_a > 0, tl.log2(w / of_a), 0.0)
    g += tl.where(of_b > 0, tl.log2(z / of_b), 0.0)
    # A point without mass took no part; its potential is the one that the others imply in the end.
    cost = _cost(points, x, y, others, D, MATRIX)
    rows, columns = _row_update(cost, g + _log(of_b)), _column_update(cost, f + _log(of_a))
    tl.store(f_out + problem * N + x, tl.where(of_a > 0, f, rows) / unit, mask=in_x)
    tl.store(g_out + problem * M + y, tl.where(of_b > 0, g, columns) / unit, mask=in_y)
    tl.store(iterations + problem, done)
    tl.store(errors + problem, error)


@triton.jit
def _log_pass(
    points,
    a,
    w,
    f_out,
    scores,
    y,
    others,
    unit,
    X: tl.constexpr,
    D: tl.constexpr,
    MATRIX: tl.constexpr,
    FINISH: tl.constexpr,
):
    """One log-domain iteration over strips from the columns' scores; stores f and w = a, and returns g.

    With FINISH f is updated only where a is 0; elsewhere it is what its scaling makes of it, in the units of the cost.
    """
    N = points[4]
    largest = tl.full(y.shape, -float("inf"), scores.dtype)
    total = tl.zeros(y.shape, scores.dtype)
    for i in range(0, N, X):
        x, in_x = _points_of(N - i, X, 2)
        x += i
        cost = _cost(points, x, y, others, D, MATRIX)
        mass = tl.load(a + x, mask=in_x, other=0.0)
        f = _row_update(cost, scores)
        if FINISH:
            scaled = tl.load(f_out + x, mask=in_x, other=0.0) + tl.log2(tl.load(w + x, mask=in_x, other=1.0) / mass)
            f = tl.where(mass > 0, scaled, f)
            tl.debug_barrier()
            tl.store(f_out + x, f / unit, mask=in_x)
        else:
            tl.store(f_out + x, f, mask=in_x)
            tl.store(w + x, mass, mask=in_x)
        exponents = _along_rows(f + _log(mass)) - cost
        top = tl.maximum(largest, tl.max(tl.max(exponents, 1), 1))
        base = tl.where(top > -float("inf"), top, 0.0)
        total = total * tl.exp2(largest - base) + _over_rows(tl.exp2(exponents - _along_columns(base)))
        largest = top
    return -largest - tl.log2(total)


@triton.jit
def sinkhorn_strips(
    source,
    target,
    row_positions,
    column_positions,
    a,
    b,
    start,
    scratch,
    f_out,
    g_out,
    iterations,
    errors,
    N,
    M,
    source_stride,
    target_stride,
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
    """What :func:`sinkhorn_resident` does, with K computed again in each iteration, X rows at a time.

    As a strip holds whole rows, it gives their scalings at once and serves the columns' sums too: K is evaluated once
    an iteration. ``scratch`` is (P, 2N).
    """
    problem = tl.program_id(0).to(tl.int64)
    y, in_y = _points_of(M, Y, 16)
    points = _points(
        problem, source, target, row_positions, column_positions, N, M, source_stride, target_stride, M, 1,
        tl.full((), value_weight, a.dtype.element_ty), tl.full((), position_weight, a.dtype.element_ty),
    )  # fmt: skip
    others = _others(points, y, D)
    unit = tl.full((), scale, a.dtype.element_ty)
    of_b = tl.load(b + problem * M + y, mask=in_y, other=0.0)
    g = tl.load(start + problem * M + y, mask=in_y, other=0.0) * unit
    a += problem * N
    f_out += problem * N
    scratch += problem * 2 * N

    # The masses times their scalings, as in the resident kernel; w and the next w take turns in the scratch memory.
    z = of_b
    turn = tl.full((), 0, tl.int32)
    error = tl.full((), float("inf"), of_b.dtype)
    done = tl.full((), 0, tl.int32)
    lost = done == 0
    running = done < max_iter
    while running:
        if lost:
            g += tl.where(of_b > 0, tl.log2(z / of_b), 0.0)
            g = _log_pass(points, a, scratch + turn * N, f_out, g + _log(of_b), y, others, unit, X, D, MATRIX, False)
            z = of_b
            done += 1
            tl.debug_barrier()
        columns = tl.where(of_b > 0, g, -float("inf"))
        excess = tl.zeros([X // 2, 2], of_b.dtype)
        products = tl.zeros([Y // 16, X // 2, 2, 16], of_b.dtype)
        for i in range(0, N, X):
            x, in_x = _points_of(N - i, X, 2)
            x += i
            of_a = tl.load(a + x, mask=in_x, other=0.0)
            f = tl.where(of_a > 0, tl.load(f_out + x, mask=in_x, other=0.0), -float("inf"))
            cost = _cost(points, x, y, others, D, MATRIX)
            kernel = tl.exp2(_along_rows(f) + (_along_columns(columns) - cost))
            sums = _over_columns(kernel * _along_columns(z))
            excess += tl.abs(tl.load(scratch + turn * N + x, mask=in_x, other=0.0) * sums - of_a)
            safe = (sums > LOWEST) & (sums < HIGHEST)
            next_w = tl.where(of_a > 0, tl.where(safe, of_a / sums, float("nan")), 0.0)
            products += kernel * _along_rows(next_w)
            tl.store(scratch + (1 - turn) * N + x, next_w, mask=in_x)
        error = _total(excess)
        tl.debug_barrier()
        running = done < max_iter and not (error <= tol)
        if running:
            column_sums = _over_rows(products)
            safe_columns = (of_b == 0) | ((column_sums > LOWEST) & (column_sums < HIGHEST))
            lost = tl.min(tl.min(safe_columns.to(tl.int32), 1), 0) == 0
            if not lost:
                z = tl.where(of_b > 0, of_b / column_sums, 0.0)
                turn = 1 - turn
                done += 1

    g += tl.where(of_b > 0, tl.log2(z / of_b), 0.0)
    # A point without mass took no part; its potential is the one that the others imply in the end.
    columns = _log_pass(points, a, scratch + turn * N, f_out, g + _log(of_b), y, others, unit, X, D, MATRIX, True)
    tl.store(g_out + problem * M + y, tl.where(of_b > 0, g, columns) / unit, mask=in_y)
    tl.store(iterations + problem, done)
    tl.store(errors + problem, error)


@triton.jit
def _sum_exponentials(points, potential, mass, x, shift, Y: tl.constexpr, D: tl.constexpr, MATRIX: tl.constexpr):
    """Σ_y mass exp2(shift + potential − C) of the rows x."""
    total = tl.zeros([x.shape[0], Y], shift.dtype)
    size = points[5]
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        weight = _log(tl.load(mass + y, mask=y < size, other=0.0))
        scores = tl.load(potential + y, mask=y < size, other=0.0) + weight
        total += tl.exp2(shift[:, None] + (scores[None, :] - _cost(points, x, y, _others(points, y, D), D, MATRIX)))
    return tl.sum(total, 1)


@triton.jit
def _largest_exponent(points, potential, mass, x, Y: tl.constexpr, D: tl.constexpr, MATRIX: tl.constexpr):
    """max_y (potential + log₂ mass − C) of the rows x."""
    largest = tl.full([x.shape[0], Y], -float("inf"), mass.dtype.element_ty)
    size = points[5]
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        weight = _log(tl.load(mass + y, mask=y < size, other=0.0))
        scores = tl.load(potential + y, mask=y < size, other=0.0) + weight
        largest = tl.maximum(largest, scores[None, :] - _cost(points, x, y, _others(points, y, D), D, MATRIX))
    return tl.max(largest, 1)


@triton.jit
def _half_step(points, potential, mass, x, guess, Y: tl.constexpr, D: tl.constexpr, MATRIX: tl.constexpr):
    """−log₂ Σ_y mass exp2(potential − C) of the rows x; a guess near it spares the search for the maximum."""
    total = _sum_exponentials(points, potential, mass, x, guess, Y, D, MATRIX)
    safe = (x >= points[4]) | ((total > LOWEST) & (total < HIGHEST))
    if tl.min(safe.to(tl.int32), 0) == 0:
        guess = -_largest_exponent(points, potential, mass, x, Y, D, MATRIX)
        total = _sum_exponentials(points, potential, mass, x, guess, Y, D, MATRIX)
    return guess - tl.log2(total)


@triton.jit
def sinkhorn_tiled(
    source,
    target,
    row_positions,
    column_positions,
    a,
    b,
    start,
    updates,
    f_out,
    g_out,
    iterations,
    errors,
    N,
    M,
    source_stride,
    target_stride,
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
    rows = _points(
        problem, source, target, row_positions, column_positions, N, M, source_stride, target_stride, M, 1,
        tl.full((), value_weight, a.dtype.element_ty), tl.full((), position_weight, a.dtype.element_ty),
    )  # fmt: skip
    columns = _transposed(rows)
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
        tl.store(g_out + y, tl.load(start + problem * M + y, mask=y < M, other=0.0) * unit, mask=y < M)
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
            excess += tl.where(mass > 0, mass * tl.abs(tl.exp2(f - update) - 1.0), 0.0)
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

    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        mass = tl.load(a + x, mask=x < N, other=0.0)
        # A point without mass took no part; its potential is the one that the others imply in the end.
        f = tl.where(mass > 0, tl.load(f_out + x, mask=x < N), tl.load(updates + x, mask=x < N))
        tl.debug_barrier()
        tl.store(f_out + x, f / unit, mask=x < N)
    for j in range(0, M, X):
        y = j + tl.arange(0, X)
        g = tl.load(g_out + y, mask=y < M, other=0.0) / unit
        tl.debug_barrier()
        tl.store(g_out + y, g, mask=y < M)
    tl.store(iterations + problem, done)
    tl.store(errors + problem, error)
