"""Triton kernels of the value ⟨P, C⟩ and its gradient, "tiled": one program per problem, in one launch each."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from sslosses.transport.solvers.fused.gpu.conjugate_gradients import inverse, next_rz, step_length, unfinished
from sslosses.transport.solvers.fused.gpu.gradient import LN2
from sslosses.transport.solvers.fused.gpu.tiles import (
    cost_tile,
    load_columns,
    load_scores,
    points_of_problem,
    sign,
    transposed,
)


class Plan(NamedTuple):
    """The plan seen from one side: its points, and log₂ of both sides' factors in memory."""

    points: Any
    own_scores: Any
    other_scores: Any


class Adjoint(NamedTuple):
    """Vectors of the adjoint system in memory; the first four are over rows, the others over columns."""

    inverse_a: Any
    r: Any
    through: Any
    lam: Any
    mass_b: Any
    mu: Any
    residual: Any
    direction: Any
    image: Any


@triton.jit
def transport_value(
    batch,
    a,
    b,
    f,
    g,
    values,
    value_weight: tl.float64,
    position_weight: tl.float64,
    scale: tl.float64,
    D: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
):
    """⟨P, C⟩."""
    problem = tl.program_id(0).to(tl.int64)
    points = points_of_problem(batch, problem, value_weight, position_weight, a.dtype.element_ty)
    N, M = points.own_size, points.other_size
    unit = tl.full((), scale, a.dtype.element_ty)
    moved = tl.zeros([X, Y], a.dtype.element_ty)
    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        rows = load_scores(f + problem * N, a + problem * N, x, N, unit)
        for j in range(0, M, Y):
            y = j + tl.arange(0, Y)
            columns = load_scores(g + problem * M, b + problem * M, y, M, unit)
            cost = cost_tile(points, x, y, load_columns(points, y, D), D, False)
            moved += tl.exp2(rows[:, None] + (columns[None, :] - cost)) * cost
    tl.store(values + problem, tl.sum(tl.sum(moved, 1), 0) / unit)


@triton.jit
def _load_own_scores(plan, x):
    return tl.load(plan.own_scores + x, mask=x < plan.points.own_size, other=-float("inf"))


@triton.jit
def _tile(plan, rows, x, y, D: tl.constexpr):
    """The plan and the cost between the rows x, with their scores, and the columns y."""
    columns = tl.load(plan.other_scores + y, mask=y < plan.points.other_size, other=-float("inf"))
    cost = cost_tile(plan.points, x, y, load_columns(plan.points, y, D), D, False)
    return tl.exp2(rows[:, None] + (columns[None, :] - cost)), cost


@triton.jit
def _product(plan, vector, x, Y: tl.constexpr, D: tl.constexpr):
    """Σ_y P vector of the rows x."""
    rows, size = _load_own_scores(plan, x), plan.points.other_size
    total = tl.zeros([x.shape[0], Y], rows.dtype)
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        tile, _ = _tile(plan, rows, x, y, D)
        total += tile * tl.load(vector + y, mask=y < size, other=0.0)
    return tl.sum(total, 1)


@triton.jit
def _moments(plan, x, Y: tl.constexpr, D: tl.constexpr):
    """Σ_y P and Σ_y P∘C of the rows x."""
    rows, size = _load_own_scores(plan, x), plan.points.other_size
    mass = tl.zeros([x.shape[0], Y], rows.dtype)
    moved = tl.zeros([x.shape[0], Y], rows.dtype)
    for j in range(0, size, Y):
        tile, cost = _tile(plan, rows, x, j + tl.arange(0, Y), D)
        mass += tile
        moved += tile * cost
    return tl.sum(mass, 1), tl.sum(moved, 1)


@triton.jit
def _value_gradient(plan, own_adjoint, other_adjoint, x, EXACT: tl.constexpr, Y: tl.constexpr, D: tl.constexpr):
    """Σ_y sign(s − t) G of the rows x; G is P∘(1 − (C − λ ⊕ μ)/ε), or P without EXACT."""
    rows, points = _load_own_scores(plan, x), plan.points
    size = points.other_size
    s = tl.load(points.own_values + x, mask=x < points.own_size, other=0.0)
    total = tl.zeros([x.shape[0], Y], rows.dtype)
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        gradient, cost = _tile(plan, rows, x, y, D)
        t = tl.load(points.other_values + y, mask=y < size, other=0.0)
        if EXACT:
            lam = tl.load(own_adjoint + x, mask=x < points.own_size, other=0.0)
            mu = tl.load(other_adjoint + y, mask=y < size, other=0.0)
            gradient *= 1.0 - LN2 * (cost - lam[:, None] - mu[None, :])
        total += sign(s[:, None], t[None, :]) * gradient
    return tl.sum(total, 1)


@triton.jit
def _conditional_mean(plan, potential, adjoint, x, unit, Y: tl.constexpr, D: tl.constexpr):
    """Mean of C − adjoint under the plan given x, which exists where x has no mass."""
    size = plan.points.other_size
    rows = tl.load(potential + x, mask=x < plan.points.own_size, other=0.0) * unit
    mass = tl.zeros([x.shape[0], Y], rows.dtype)
    moved = tl.zeros([x.shape[0], Y], rows.dtype)
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        given_row, cost = _tile(plan, rows, x, y, D)
        mass += given_row
        moved += given_row * (cost - tl.load(adjoint + y, mask=y < size, other=0.0)[None, :])
    return tl.sum(moved, 1) / tl.sum(mass, 1)


@triton.jit
def _store_scores(potential, mass, size, unit, out, X: tl.constexpr):
    for i in range(0, size, X):
        x = i + tl.arange(0, X)
        tl.store(out + x, load_scores(potential, mass, x, size, unit), mask=x < size)


@triton.jit
def _store_moments(rows, columns, v, unit, X: tl.constexpr, Y: tl.constexpr, D: tl.constexpr):
    """Right-hand sides, masses and the first residual; returns the residual's excess, Σb and ⟨c, c/b⟩."""
    N, M = rows.points.own_size, rows.points.other_size
    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        mass, moved = _moments(rows, x, Y, D)
        tl.store(v.inverse_a + x, inverse(mass), mask=x < N)
        tl.store(v.r + x, moved, mask=x < N)
        tl.store(v.through + x, inverse(mass) * moved, mask=x < N)
    tl.debug_barrier()
    goals, masses, rests = tl.zeros([X], unit.dtype), tl.zeros([X], unit.dtype), tl.zeros([X], unit.dtype)
    for j in range(0, M, X):
        y = j + tl.arange(0, X)
        mass, moved = _moments(columns, y, Y, D)
        rest = moved - _product(columns, v.through, y, Y, D)
        goals += moved * inverse(mass) * moved
        masses += mass
        rests += rest
        tl.store(v.mass_b + y, mass, mask=y < M)
        tl.store(v.mu + y, tl.zeros([X], rest.dtype), mask=y < M)
        tl.store(v.residual + y, rest, mask=y < M)
    total_mass = tl.sum(masses, 0)
    tl.debug_barrier()
    return tl.sum(rests, 0) / total_mass, total_mass, tl.sum(goals, 0)


@triton.jit
def _solve(rows, columns, v, unit, limit, X: tl.constexpr, Y: tl.constexpr, D: tl.constexpr):
    """Solves the adjoint system: stores λ and μ."""
    N, M = rows.points.own_size, rows.points.other_size
    # The excess is subtracted as in conjugate_gradients._project.
    excess, total_mass, goal = _store_moments(rows, columns, v, unit, X, Y, D)
    products = tl.zeros([X], unit.dtype)
    for j in range(0, M, X):
        y = j + tl.arange(0, X)
        mass = tl.load(v.mass_b + y, mask=y < M, other=0.0)
        rest = tl.load(v.residual + y, mask=y < M, other=0.0) - excess * mass
        products += rest * inverse(mass) * rest
        tl.debug_barrier()
        tl.store(v.residual + y, rest, mask=y < M)
        tl.store(v.direction + y, inverse(mass) * rest, mask=y < M)
    rz = tl.sum(products, 0)
    goal *= tl.full((), limit, rz.dtype)
    tl.debug_barrier()
    step = tl.full((), 0, tl.int32)
    while unfinished(step, M, rz, goal):
        for i in range(0, N, X):
            x = i + tl.arange(0, X)
            product = _product(rows, v.direction, x, Y, D)
            tl.store(v.through + x, tl.load(v.inverse_a + x, mask=x < N, other=0.0) * product, mask=x < N)
        tl.debug_barrier()
        products, images = tl.zeros([X], rz.dtype), tl.zeros([X], rz.dtype)
        for j in range(0, M, X):
            y = j + tl.arange(0, X)
            direction = tl.load(v.direction + y, mask=y < M, other=0.0)
            image = tl.load(v.mass_b + y, mask=y < M, other=0.0) * direction
            image -= _product(columns, v.through, y, Y, D)
            products += direction * image
            images += image
            tl.store(v.image + y, image, mask=y < M)
        curvature = tl.sum(products, 0)
        length = step_length(rz, curvature)
        excess = tl.sum(images, 0) / total_mass
        tl.debug_barrier()
        products = tl.zeros([X], rz.dtype)
        for j in range(0, M, X):
            y = j + tl.arange(0, X)
            direction = tl.load(v.direction + y, mask=y < M, other=0.0)
            mu = tl.load(v.mu + y, mask=y < M, other=0.0) + length * direction
            rest = tl.load(v.residual + y, mask=y < M, other=0.0)
            mass = tl.load(v.mass_b + y, mask=y < M, other=0.0)
            rest -= length * (tl.load(v.image + y, mask=y < M, other=0.0) - excess * mass)
            products += rest * inverse(mass) * rest
            tl.debug_barrier()
            tl.store(v.mu + y, mu, mask=y < M)
            tl.store(v.residual + y, rest, mask=y < M)
        new_rz = next_rz(tl.sum(products, 0), curvature)
        tl.debug_barrier()
        for j in range(0, M, X):
            y = j + tl.arange(0, X)
            direction = tl.load(v.direction + y, mask=y < M, other=0.0)
            rest = tl.load(v.residual + y, mask=y < M, other=0.0)
            direction = inverse(tl.load(v.mass_b + y, mask=y < M, other=0.0)) * rest + new_rz / rz * direction
            tl.debug_barrier()
            tl.store(v.direction + y, direction, mask=y < M)
        tl.debug_barrier()
        rz = new_rz
        step += 1
    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        rest = tl.load(v.r + x, mask=x < N, other=0.0) - _product(rows, v.mu, x, Y, D)
        tl.store(v.lam + x, tl.load(v.inverse_a + x, mask=x < N, other=0.0) * rest, mask=x < N)
    tl.debug_barrier()


@triton.jit
def _store_value_gradient(
    plan, own, other, gain, out, EXACT: tl.constexpr, X: tl.constexpr, Y: tl.constexpr, D: tl.constexpr
):
    size = plan.points.own_size
    for i in range(0, size, X):
        x = i + tl.arange(0, X)
        tl.store(out + x, gain * _value_gradient(plan, own, other, x, EXACT, Y, D), mask=x < size)


@triton.jit
def _store_mass_gradient(
    rows, columns, f, g, v, unit, grad_a, grad_b, X: tl.constexpr, Y: tl.constexpr, D: tl.constexpr
):
    """Computed again from the conditional plans P/a and P/b, which also exist where a or b is 0."""
    N, M = rows.points.own_size, rows.points.other_size
    tl.debug_barrier()
    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        tl.store(v.lam + x, _conditional_mean(rows, f, v.mu, x, unit, Y, D), mask=x < N)
    tl.debug_barrier()
    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        tl.store(grad_a + x, tl.load(v.lam + x, mask=x < N, other=0.0) / unit, mask=x < N)
    for j in range(0, M, X):
        y = j + tl.arange(0, X)
        tl.store(grad_b + y, _conditional_mean(columns, g, v.lam, y, unit, Y, D) / unit, mask=y < M)


@triton.jit
def gradient_tiled(
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
    EXACT: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
):
    """:func:`gradient_resident` over tiles, or the envelope's gradient without EXACT; ``scratch`` is (P, 5N + 6M)."""
    problem = tl.program_id(0).to(tl.int64)
    points = points_of_problem(batch, problem, value_weight, position_weight, a.dtype.element_ty)
    N, M = points.own_size, points.other_size
    unit = tl.full((), scale, a.dtype.element_ty)
    gain = points.value_weight / unit
    f += problem * N
    g += problem * M
    row_vectors = scratch + problem * (5 * N + 6 * M)
    column_vectors = row_vectors + 5 * N
    rows = Plan(points=points, own_scores=row_vectors, other_scores=column_vectors)
    columns = Plan(points=transposed(points), own_scores=column_vectors, other_scores=row_vectors)
    v = Adjoint(
        inverse_a=row_vectors + N,
        r=row_vectors + 2 * N,
        through=row_vectors + 3 * N,
        lam=row_vectors + 4 * N,
        mass_b=column_vectors + M,
        mu=column_vectors + 2 * M,
        residual=column_vectors + 3 * M,
        direction=column_vectors + 4 * M,
        image=column_vectors + 5 * M,
    )
    _store_scores(f, a + problem * N, N, unit, rows.own_scores, X)
    _store_scores(g, b + problem * M, M, unit, columns.own_scores, X)
    tl.debug_barrier()
    if EXACT:
        _solve(rows, columns, v, unit, limit, X, Y, D)
    _store_value_gradient(rows, v.lam, v.mu, gain, grad_source + problem * N, EXACT, X, Y, D)
    _store_value_gradient(columns, v.mu, v.lam, gain, grad_target + problem * M, EXACT, X, Y, D)
    if EXACT:
        _store_mass_gradient(rows, columns, f, g, v, unit, grad_a + problem * N, grad_b + problem * M, X, Y, D)
