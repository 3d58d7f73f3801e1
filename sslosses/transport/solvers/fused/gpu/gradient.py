"""Triton kernels of the value ⟨P, C⟩ and its gradient: one program a problem, one launch each."""

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

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _sign(s, t):
    return tl.where(s > t, 1.0, tl.where(s < t, -1.0, 0.0)).to(s.dtype)


@triton.jit
def _scores(potential, mass, x, size, unit):
    """log₂ of a side's factor of the plan, −∞ where it has no mass."""
    return tl.load(potential + x, mask=x < size, other=0.0) * unit + _log(tl.load(mass + x, mask=x < size, other=0.0))


@triton.jit
def transport_value(
    source,
    target,
    row_positions,
    column_positions,
    a,
    b,
    f,
    g,
    values,
    N,
    M,
    source_stride,
    target_stride,
    value_weight: tl.float64,
    position_weight: tl.float64,
    scale: tl.float64,
    D: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
):
    """⟨P, C⟩."""
    problem = tl.program_id(0).to(tl.int64)
    points = _points(
        problem, source, target, row_positions, column_positions, N, M, source_stride, target_stride, M, 1,
        tl.full((), value_weight, a.dtype.element_ty), tl.full((), position_weight, a.dtype.element_ty),
    )  # fmt: skip
    unit = tl.full((), scale, a.dtype.element_ty)
    moved = tl.zeros([X, Y], a.dtype.element_ty)
    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        rows = _scores(f + problem * N, a + problem * N, x, N, unit)
        for j in range(0, M, Y):
            y = j + tl.arange(0, Y)
            columns = _scores(g + problem * M, b + problem * M, y, M, unit)
            cost = _cost(points, x, y, _others(points, y, D), D, False)
            moved += tl.exp2(rows[:, None] + (columns[None, :] - cost)) * cost
    tl.store(values + problem, tl.sum(tl.sum(moved, 1), 0) / unit)


@triton.jit
def _inverse(mass):
    return tl.where(mass > 0, 1.0 / mass, 0.0)


@triton.jit
def _dot(x, y):
    # A product that the compiler fuses with the sum's first step is rounded on one side of it only, so that lanes would
    # have different sums of the same numbers, and a loop could end for some of them. Nothing fuses with an fma.
    return _total(tl.fma(x, y, tl.zeros_like(x)))


@triton.jit
def _projected(residual, mass):
    """Off the null space, where rounding would build up as the system has no curvature along it."""
    return residual - mass * (_total(residual) / _total(mass))


@triton.jit
def gradient_resident(
    source,
    target,
    row_positions,
    column_positions,
    a,
    b,
    f,
    g,
    source_out,
    target_out,
    a_out,
    b_out,
    N,
    M,
    source_stride,
    target_stride,
    value_weight: tl.float64,
    position_weight: tl.float64,
    scale: tl.float64,
    limit: tl.float64,
    D: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
):
    """The adjoint system by conjugate gradients with P in registers (see ``adjoint.py``), and the gradient from it."""
    problem = tl.program_id(0).to(tl.int64)
    x, in_x = _points_of(N, X, 2)
    y, in_y = _points_of(M, Y, 16)
    points = _points(
        problem, source, target, row_positions, column_positions, N, M, source_stride, target_stride, M, 1,
        tl.full((), value_weight, a.dtype.element_ty), tl.full((), position_weight, a.dtype.element_ty),
    )  # fmt: skip
    others = _others(points, y, D)
    unit = tl.full((), scale, a.dtype.element_ty)
    of_f = tl.load(f + problem * N + x, mask=in_x, other=0.0) * unit
    of_g = tl.load(g + problem * M + y, mask=in_y, other=0.0) * unit
    rows = of_f + _log(tl.load(a + problem * N + x, mask=in_x, other=0.0))
    columns = of_g + _log(tl.load(b + problem * M + y, mask=in_y, other=0.0))

    cost = _cost(points, x, y, others, D, False)
    plan = tl.exp2(_along_rows(rows) + (_along_columns(columns) - cost))
    moved = plan * cost
    r, c = _over_columns(moved), _over_rows(moved)
    inverse_a, mass_b = _inverse(_over_columns(plan)), _over_rows(plan)
    inverse_b = _inverse(mass_b)

    mu = tl.zeros_like(c)
    residual = _projected(c - _over_rows(plan * _along_rows(inverse_a * r)), mass_b)
    direction = inverse_b * residual
    rz = _dot(residual, direction)
    goal = _dot(c * inverse_b, c) * tl.full((), limit, c.dtype)
    step = tl.full((), 0, tl.int32)
    while step < 3 * M + 50 and rz > goal:
        through = inverse_a * _over_columns(plan * _along_columns(direction))
        image = mass_b * direction - _over_rows(plan * _along_rows(through))
        curvature = _dot(direction, image)
        # A direction without curvature lies in the null space up to rounding: nothing is left to gain along it.
        length = tl.where(curvature > 0, rz / curvature, 0.0)
        mu += length * direction
        residual = _projected(residual - length * image, mass_b)
        rest = inverse_b * residual
        next_rz = tl.where(curvature > 0, _dot(residual, rest), 0.0)
        direction = rest + next_rz / rz * direction
        rz = next_rz
        step += 1
    lam = inverse_a * (r - _over_columns(plan * _along_columns(mu)))

    cost = _cost(points, x, y, others, D, False)
    s = tl.load(source + problem * N + x, mask=in_x, other=0.0)
    t = tl.load(target + problem * M + y, mask=in_y, other=0.0)
    gradient = plan * (1.0 - LN2 * (cost - _along_rows(lam) - _along_columns(mu)))
    signed = _sign(_along_rows(s), _along_columns(t)) * gradient
    gain = points[8] / unit
    tl.store(source_out + problem * N + x, gain * _over_columns(signed), mask=in_x)
    tl.store(target_out + problem * M + y, -gain * _over_rows(signed), mask=in_y)

    # Once more through the conditional plans P/a and P/b, which exist where a or b is 0.
    given_a = tl.exp2(_along_rows(of_f) + (_along_columns(columns) - cost))
    lam = _over_columns(given_a * (cost - _along_columns(mu))) / _over_columns(given_a)
    lam = tl.where(in_x, lam, 0.0)
    given_b = tl.exp2(_along_rows(rows) + (_along_columns(of_g) - cost))
    mu = _over_rows(given_b * (cost - _along_rows(lam))) / _over_rows(given_b)
    tl.store(a_out + problem * N + x, lam / unit, mask=in_x)
    tl.store(b_out + problem * M + y, mu / unit, mask=in_y)


@triton.jit
def gradient_strips(
    source,
    target,
    row_positions,
    column_positions,
    a,
    b,
    f,
    g,
    scratch,
    source_out,
    target_out,
    a_out,
    b_out,
    N,
    M,
    source_stride,
    target_stride,
    value_weight: tl.float64,
    position_weight: tl.float64,
    scale: tl.float64,
    limit: tl.float64,
    D: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
):
    """What :func:`gradient_resident` does, with P computed again in each step, X rows at a time; scratch is (P, 2N)."""
    problem = tl.program_id(0).to(tl.int64)
    y, in_y = _points_of(M, Y, 16)
    points = _points(
        problem, source, target, row_positions, column_positions, N, M, source_stride, target_stride, M, 1,
        tl.full((), value_weight, a.dtype.element_ty), tl.full((), position_weight, a.dtype.element_ty),
    )  # fmt: skip
    others = _others(points, y, D)
    unit = tl.full((), scale, a.dtype.element_ty)
    gain = points[8] / unit
    of_g = tl.load(g + problem * M + y, mask=in_y, other=0.0) * unit
    columns = of_g + _log(tl.load(b + problem * M + y, mask=in_y, other=0.0))
    a += problem * N
    f += problem * N
    inverse_a, r = scratch + problem * 2 * N, scratch + problem * 2 * N + N

    masses = tl.zeros([Y // 16, X // 2, 2, 16], of_g.dtype)
    costs, shares = tl.zeros_like(masses), tl.zeros_like(masses)
    for i in range(0, N, X):
        x, in_x = _points_of(N - i, X, 2)
        x += i
        cost = _cost(points, x, y, others, D, False)
        plan = tl.exp2(_along_rows(_scores(f, a, x, N, unit)) + (_along_columns(columns) - cost))
        moved = plan * cost
        of_row, inverse = _over_columns(moved), _inverse(_over_columns(plan))
        masses += plan
        costs += moved
        shares += plan * _along_rows(inverse * of_row)
        tl.store(inverse_a + x, inverse, mask=in_x)
        tl.store(r + x, of_row, mask=in_x)
    tl.debug_barrier()

    mass_b, c = _over_rows(masses), _over_rows(costs)
    inverse_b = _inverse(mass_b)
    mu = tl.zeros_like(c)
    residual = _projected(c - _over_rows(shares), mass_b)
    direction = inverse_b * residual
    rz = _dot(residual, direction)
    goal = _dot(c * inverse_b, c) * tl.full((), limit, c.dtype)
    step = tl.full((), 0, tl.int32)
    while step < 3 * M + 50 and rz > goal:
        products = tl.zeros_like(masses)
        for i in range(0, N, X):
            x, in_x = _points_of(N - i, X, 2)
            x += i
            cost = _cost(points, x, y, others, D, False)
            plan = tl.exp2(_along_rows(_scores(f, a, x, N, unit)) + (_along_columns(columns) - cost))
            through = tl.load(inverse_a + x, mask=in_x, other=0.0) * _over_columns(plan * _along_columns(direction))
            products += plan * _along_rows(through)
        image = mass_b * direction - _over_rows(products)
        curvature = _dot(direction, image)
        # A direction without curvature lies in the null space up to rounding: nothing is left to gain along it.
        length = tl.where(curvature > 0, rz / curvature, 0.0)
        mu += length * direction
        residual = _projected(residual - length * image, mass_b)
        rest = inverse_b * residual
        next_rz = tl.where(curvature > 0, _dot(residual, rest), 0.0)
        direction = rest + next_rz / rz * direction
        rz = next_rz
        step += 1

    signs, masses, costs = tl.zeros_like(masses), tl.zeros_like(masses), tl.zeros_like(masses)
    for i in range(0, N, X):
        x, in_x = _points_of(N - i, X, 2)
        x += i
        rows = _scores(f, a, x, N, unit)
        cost = _cost(points, x, y, others, D, False)
        plan = tl.exp2(_along_rows(rows) + (_along_columns(columns) - cost))
        lam = tl.load(r + x, mask=in_x, other=0.0) - _over_columns(plan * _along_columns(mu))
        lam *= tl.load(inverse_a + x, mask=in_x, other=0.0)
        gradient = plan * (1.0 - LN2 * (cost - _along_rows(lam) - _along_columns(mu)))
        s = tl.load(points[0] + x, mask=in_x, other=0.0)
        signed = _sign(_along_rows(s), _along_columns(others[0])) * gradient
        signs += signed
        tl.store(source_out + problem * N + x, gain * _over_columns(signed), mask=in_x)
        # Once more through the conditional plans P/a and P/b, which exist where a or b is 0.
        of_f = tl.load(f + x, mask=in_x, other=0.0) * unit
        given_a = tl.exp2(_along_rows(of_f) + (_along_columns(columns) - cost))
        lam = _over_columns(given_a * (cost - _along_columns(mu))) / _over_columns(given_a)
        lam = tl.where(in_x, lam, 0.0)
        given_b = tl.exp2(_along_rows(rows) + (_along_columns(of_g) - cost))
        masses += given_b
        costs += given_b * (cost - _along_rows(lam))
        tl.store(a_out + problem * N + x, lam / unit, mask=in_x)
    tl.store(target_out + problem * M + y, -gain * _over_rows(signs), mask=in_y)
    tl.store(b_out + problem * M + y, _over_rows(costs) / _over_rows(masses) / unit, mask=in_y)


@triton.jit
def _plan_times(points, own, other, vector, x, Y: tl.constexpr, D: tl.constexpr):
    """Σ_y P vector of the rows x; ``own`` and ``other`` hold the two sides' log₂ factors of the plan."""
    size = points[5]
    rows = tl.load(own + x, mask=x < points[4], other=-float("inf"))
    total = tl.zeros([x.shape[0], Y], rows.dtype)
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        columns = tl.load(other + y, mask=y < size, other=-float("inf"))
        cost = _cost(points, x, y, _others(points, y, D), D, False)
        total += tl.exp2(rows[:, None] + (columns[None, :] - cost)) * tl.load(vector + y, mask=y < size, other=0.0)
    return tl.sum(total, 1)


@triton.jit
def _plan_moments(points, own, other, x, Y: tl.constexpr, D: tl.constexpr):
    """Σ_y P and Σ_y P∘C of the rows x."""
    size = points[5]
    rows = tl.load(own + x, mask=x < points[4], other=-float("inf"))
    mass = tl.zeros([x.shape[0], Y], rows.dtype)
    moved = tl.zeros([x.shape[0], Y], rows.dtype)
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        columns = tl.load(other + y, mask=y < size, other=-float("inf"))
        cost = _cost(points, x, y, _others(points, y, D), D, False)
        plan = tl.exp2(rows[:, None] + (columns[None, :] - cost))
        mass += plan
        moved += plan * cost
    return tl.sum(mass, 1), tl.sum(moved, 1)


@triton.jit
def _value_gradient(
    points, own, other, own_adjoint, other_adjoint, x, EXACT: tl.constexpr, Y: tl.constexpr, D: tl.constexpr
):
    """Σ_y sign(s − t) G of the rows x."""
    size = points[5]
    rows = tl.load(own + x, mask=x < points[4], other=-float("inf"))
    s = tl.load(points[0] + x, mask=x < points[4], other=0.0)
    total = tl.zeros([x.shape[0], Y], rows.dtype)
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        columns = tl.load(other + y, mask=y < size, other=-float("inf"))
        t = tl.load(points[1] + y, mask=y < size, other=0.0)
        cost = _cost(points, x, y, _others(points, y, D), D, False)
        gradient = tl.exp2(rows[:, None] + (columns[None, :] - cost))
        if EXACT:
            lam = tl.load(own_adjoint + x, mask=x < points[4], other=0.0)
            mu = tl.load(other_adjoint + y, mask=y < size, other=0.0)
            gradient *= 1.0 - LN2 * (cost - lam[:, None] - mu[None, :])
        total += _sign(s[:, None], t[None, :]) * gradient
    return tl.sum(total, 1)


@triton.jit
def _conditional_mean(points, potential, other, adjoint, x, unit, Y: tl.constexpr, D: tl.constexpr):
    """Mean of C − adjoint under the plan given x, which exists where x has no mass."""
    size = points[5]
    rows = tl.load(potential + x, mask=x < points[4], other=0.0) * unit
    mass = tl.zeros([x.shape[0], Y], rows.dtype)
    moved = tl.zeros([x.shape[0], Y], rows.dtype)
    for j in range(0, size, Y):
        y = j + tl.arange(0, Y)
        columns = tl.load(other + y, mask=y < size, other=-float("inf"))
        cost = _cost(points, x, y, _others(points, y, D), D, False)
        given = tl.exp2(rows[:, None] + (columns[None, :] - cost))
        mass += given
        moved += given * (cost - tl.load(adjoint + y, mask=y < size, other=0.0)[None, :])
    return tl.sum(moved, 1) / tl.sum(mass, 1)


@triton.jit
def gradient_tiled(
    source,
    target,
    row_positions,
    column_positions,
    a,
    b,
    f,
    g,
    scratch,
    source_out,
    target_out,
    a_out,
    b_out,
    N,
    M,
    source_stride,
    target_stride,
    value_weight: tl.float64,
    position_weight: tl.float64,
    scale: tl.float64,
    limit: tl.float64,
    D: tl.constexpr,
    EXACT: tl.constexpr,
    X: tl.constexpr,
    Y: tl.constexpr,
):
    """What :func:`gradient_resident` does, over tiles; ``scratch`` is (P, 5N + 6M). Without EXACT, G is P."""
    problem = tl.program_id(0).to(tl.int64)
    rows = _points(
        problem, source, target, row_positions, column_positions, N, M, source_stride, target_stride, M, 1,
        tl.full((), value_weight, a.dtype.element_ty), tl.full((), position_weight, a.dtype.element_ty),
    )  # fmt: skip
    columns = _transposed(rows)
    unit = tl.full((), scale, a.dtype.element_ty)
    gain = rows[8] / unit
    f += problem * N
    g += problem * M
    a_out += problem * N
    b_out += problem * M
    scratch += problem * (5 * N + 6 * M)
    row_scores, inverse_a, r, through, lam = scratch, scratch + N, scratch + 2 * N, scratch + 3 * N, scratch + 4 * N
    scratch += 5 * N
    column_scores, mass_b, mu, residual, direction, image = (
        scratch, scratch + M, scratch + 2 * M, scratch + 3 * M, scratch + 4 * M, scratch + 5 * M,
    )  # fmt: skip

    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        tl.store(row_scores + x, _scores(f, a + problem * N, x, N, unit), mask=x < N)
    for j in range(0, M, X):
        y = j + tl.arange(0, X)
        tl.store(column_scores + y, _scores(g, b + problem * M, y, M, unit), mask=y < M)
    tl.debug_barrier()

    if EXACT:
        for i in range(0, N, X):
            x = i + tl.arange(0, X)
            mass, moved = _plan_moments(rows, row_scores, column_scores, x, Y, D)
            tl.store(inverse_a + x, _inverse(mass), mask=x < N)
            tl.store(r + x, moved, mask=x < N)
            tl.store(through + x, _inverse(mass) * moved, mask=x < N)
        tl.debug_barrier()
        goals, masses, rests = tl.zeros([X], unit.dtype), tl.zeros([X], unit.dtype), tl.zeros([X], unit.dtype)
        for j in range(0, M, X):
            y = j + tl.arange(0, X)
            mass, moved = _plan_moments(columns, column_scores, row_scores, y, Y, D)
            rest = moved - _plan_times(columns, column_scores, row_scores, through, y, Y, D)
            goals += moved * _inverse(mass) * moved
            masses += mass
            rests += rest
            tl.store(mass_b + y, mass, mask=y < M)
            tl.store(mu + y, tl.zeros([X], rest.dtype), mask=y < M)
            tl.store(residual + y, rest, mask=y < M)
        total_mass = tl.sum(masses, 0)
        # As _projected does.
        excess = tl.sum(rests, 0) / total_mass
        tl.debug_barrier()
        products = tl.zeros([X], unit.dtype)
        for j in range(0, M, X):
            y = j + tl.arange(0, X)
            mass = tl.load(mass_b + y, mask=y < M, other=0.0)
            rest = tl.load(residual + y, mask=y < M, other=0.0) - excess * mass
            products += rest * _inverse(mass) * rest
            tl.debug_barrier()
            tl.store(residual + y, rest, mask=y < M)
            tl.store(direction + y, _inverse(mass) * rest, mask=y < M)
        rz = tl.sum(products, 0)
        goal = tl.sum(goals, 0) * tl.full((), limit, rz.dtype)
        tl.debug_barrier()
        step = tl.full((), 0, tl.int32)
        while step < 3 * M + 50 and rz > goal:
            for i in range(0, N, X):
                x = i + tl.arange(0, X)
                image_a = _plan_times(rows, row_scores, column_scores, direction, x, Y, D)
                tl.store(through + x, tl.load(inverse_a + x, mask=x < N, other=0.0) * image_a, mask=x < N)
            tl.debug_barrier()
            products, images = tl.zeros([X], rz.dtype), tl.zeros([X], rz.dtype)
            for j in range(0, M, X):
                y = j + tl.arange(0, X)
                along = tl.load(direction + y, mask=y < M, other=0.0)
                image_b = tl.load(mass_b + y, mask=y < M, other=0.0) * along
                image_b -= _plan_times(columns, column_scores, row_scores, through, y, Y, D)
                products += along * image_b
                images += image_b
                tl.store(image + y, image_b, mask=y < M)
            curvature = tl.sum(products, 0)
            # A direction without curvature lies in the null space up to rounding: nothing is left to gain along it.
            length = tl.where(curvature > 0, rz / curvature, 0.0)
            excess = tl.sum(images, 0) / total_mass
            tl.debug_barrier()
            products = tl.zeros([X], rz.dtype)
            for j in range(0, M, X):
                y = j + tl.arange(0, X)
                along = tl.load(direction + y, mask=y < M, other=0.0)
                solution = tl.load(mu + y, mask=y < M, other=0.0) + length * along
                rest = tl.load(residual + y, mask=y < M, other=0.0)
                mass = tl.load(mass_b + y, mask=y < M, other=0.0)
                rest -= length * (tl.load(image + y, mask=y < M, other=0.0) - excess * mass)
                products += rest * _inverse(mass) * rest
                tl.debug_barrier()
                tl.store(mu + y, solution, mask=y < M)
                tl.store(residual + y, rest, mask=y < M)
            next_rz = tl.where(curvature > 0, tl.sum(products, 0), 0.0)
            tl.debug_barrier()
            for j in range(0, M, X):
                y = j + tl.arange(0, X)
                along = tl.load(direction + y, mask=y < M, other=0.0)
                rest = tl.load(residual + y, mask=y < M, other=0.0)
                along = _inverse(tl.load(mass_b + y, mask=y < M, other=0.0)) * rest + next_rz / rz * along
                tl.debug_barrier()
                tl.store(direction + y, along, mask=y < M)
            tl.debug_barrier()
            rz = next_rz
            step += 1
        for i in range(0, N, X):
            x = i + tl.arange(0, X)
            rest = tl.load(r + x, mask=x < N, other=0.0) - _plan_times(rows, row_scores, column_scores, mu, x, Y, D)
            tl.store(lam + x, tl.load(inverse_a + x, mask=x < N, other=0.0) * rest, mask=x < N)
        tl.debug_barrier()

    for i in range(0, N, X):
        x = i + tl.arange(0, X)
        total = _value_gradient(rows, row_scores, column_scores, lam, mu, x, EXACT, Y, D)
        tl.store(source_out + problem * N + x, gain * total, mask=x < N)
    for j in range(0, M, X):
        y = j + tl.arange(0, X)
        total = _value_gradient(columns, column_scores, row_scores, mu, lam, y, EXACT, Y, D)
        tl.store(target_out + problem * M + y, gain * total, mask=y < M)

    if EXACT:
        # Once more through the conditional plans P/a and P/b, which exist where a or b is 0.
        tl.debug_barrier()
        for i in range(0, N, X):
            x = i + tl.arange(0, X)
            tl.store(lam + x, _conditional_mean(rows, f, column_scores, mu, x, unit, Y, D), mask=x < N)
        tl.debug_barrier()
        for i in range(0, N, X):
            x = i + tl.arange(0, X)
            tl.store(a_out + x, tl.load(lam + x, mask=x < N, other=0.0) / unit, mask=x < N)
        for j in range(0, M, X):
            y = j + tl.arange(0, X)
            tl.store(b_out + y, _conditional_mean(columns, g, row_scores, lam, y, unit, Y, D) / unit, mask=y < M)
