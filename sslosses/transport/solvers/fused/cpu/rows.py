"""What the fused CPU kernels do with ROWS rows at once, on vectors, compiled by numba.

A pass of Sinkhorn is a product with rows of the plan, a few operations on one number a row, and a product with Pᵀ. The
second product finds the rows in the first-level cache, so each entry is read from further away once an iteration, and
the numbers in between never leave the registers. The rows are those from plan[at]; ``first`` is where their numbers are
in arrays over rows. ``ground`` has the same rows of the cost, from its start.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sslosses.transport.solvers.fused.cpu.vectors import Rows, absolute, exponential, multiply_add

# Scalings of this range lose nothing that counts: what an entry below the smallest normal number would have contributed
# is at most 1e-22.
LEAST, MOST = 1e-8, 1e8
_START = ir.Constant(ir.IntType(64), 0)


def _rows_and_arrays(
    context: Any, builder: Any, signature: Any, arguments: Any, *matrices: tuple[int, Any]
) -> list[Any]:
    """The rows of matrices, given by their places among the arguments, and the data of all arrays of one dimension."""
    found = [Rows.of(context, builder, signature.args[k], arguments[k], first) for k, first in matrices]
    for kind, value in zip(signature.args, arguments, strict=True):
        if isinstance(kind, types.Array) and kind.ndim == 1:
            found.append(context.make_array(kind)(context, builder, value).data)
    return found


@intrinsic
def add_value_rows(
    _: Any,
    given: Any,
    at: Any,
    scale: Any,
    source: Any,
    first: Any,
    target: Any,
    weight: Any,
    ground: Any,
) -> Any:
    """ground ← scale·given + weight·|source ⊖ target|, of rows given[at] and source[first]; may be in place."""
    signature = types.void(given, types.intp, scale, source, types.intp, target, weight, ground)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, at, scale, _, first, _, weight, _ = arguments
        given, cost, source, target = _rows_and_arrays(context, builder, signature, arguments, (0, at), (7, _START))
        scale, weight, values = cost.everywhere(scale), cost.everywhere(weight), cost.each(cost.numbers(source, first))
        with cost.columns() as j:
            theirs = cost.load(target, j)
            for old, new, mine in zip(given.starts, cost.starts, values, strict=True):
                apart = builder.fmul(weight, absolute(builder, builder.fsub(mine, theirs)))
                cost.store(multiply_add(builder, scale, cost.load(old, j), apart), new, j)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def lowest_of_rows(_: Any, ground: Any, log_columns: Any, out: Any, first: Any) -> Any:
    """out ← min_j(C − log_columns)."""
    signature = types.void(ground, log_columns, out, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cost, log_columns, out = _rows_and_arrays(context, builder, signature, arguments, (0, _START))

        def lower(x: Any, y: Any) -> Any:
            return builder.select(builder.fcmp_ordered("<", x, y), x, y)

        lowest = cost.variables(float("inf"))
        with cost.columns() as j:
            shift = cost.load(log_columns, j)
            for row, least in zip(cost.starts, lowest, strict=True):
                builder.store(lower(builder.fsub(cost.load(row, j), shift), builder.load(least)), least)
        cost.keep(cost.folded(lowest, lower), out, arguments[3])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def exp_rows(
    _: Any,
    ground: Any,
    log_rows: Any,
    log_columns: Any,
    first: Any,
    plan: Any,
    at: Any,
    totals: Any,
) -> Any:
    """plan ← exp(log_rows ⊕ log_columns − C), totals ← its sums over columns. ``plan`` may be ``ground``."""
    signature = types.void(ground, log_rows, log_columns, types.intp, plan, types.intp, totals)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, _, first, _, at, _ = arguments
        cost, plan, log_rows, log_columns, totals = _rows_and_arrays(
            context, builder, signature, arguments, (0, _START), (4, at)
        )
        shifts, sums = cost.each(cost.numbers(log_rows, first)), cost.variables(0.0)
        with cost.columns() as j:
            column = cost.load(log_columns, j)
            for source, row, shift, total in zip(cost.starts, plan.starts, shifts, sums, strict=True):
                value = exponential(builder, builder.fsub(builder.fadd(shift, column), cost.load(source, j)))
                plan.store(value, row, j)
                builder.store(builder.fadd(builder.load(total), value), total)
        cost.keep(cost.folded(sums, builder.fadd), totals, first)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def weigh_rows(_: Any, plan: Any, at: Any, factors: Any, first: Any, sums: Any) -> Any:
    """P ← diag(factors) P, and its sums over rows are added to ``sums``."""
    signature = types.void(plan, types.intp, factors, types.intp, sums)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        plan, factors, sums = _rows_and_arrays(context, builder, signature, arguments, (0, arguments[1]))
        splats = plan.each(plan.numbers(factors, arguments[3]))
        with plan.columns() as j:
            total = plan.load(sums, j)
            for row, factor in zip(plan.starts, splats, strict=True):
                value = builder.fmul(factor, plan.load(row, j))
                plan.store(value, row, j)
                total = builder.fadd(total, value)
            plan.store(total, sums, j)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def scale_rows(
    _: Any,
    plan: Any,
    at: Any,
    v: Any,
    mass: Any,
    first: Any,
    u: Any,
    new_u: Any,
    missing: Any,
    outside: Any,
    sums: Any,
) -> Any:
    """Half an iteration: new_u ← mass/(P v), and sums += Pᵀ new_u for the other half.

    missing += |u P v − mass|, and outside += 1 where new_u is out of range, in ROWS numbers each. Where there is no
    mass, new_u is 0 and nothing out of range.
    """
    signature = types.void(plan, types.intp, v, mass, types.intp, u, new_u, missing, outside, sums)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = arguments[4]
        rows, v, mass, u, new_u, missing, outside, sums = _rows_and_arrays(
            context, builder, signature, arguments, (0, arguments[1])
        )
        totals, wanted, old = rows.dot(v), rows.numbers(mass, first), rows.numbers(u, first)
        absent, count, found = rows.numbers(missing, _START), rows.numbers(outside, _START), []
        nothing, one, least, most = map(rows.constant, (0.0, 1.0, LEAST, MOST))
        for k, (total, want) in enumerate(zip(totals, wanted, strict=True)):
            absent[k] = builder.fadd(absent[k], absolute(builder, builder.fsub(builder.fmul(old[k], total), want)))
            empty = builder.fcmp_ordered("==", want, nothing)
            new = builder.fdiv(want, total)
            inside = builder.and_(builder.fcmp_ordered(">", new, least), builder.fcmp_ordered("<", new, most))
            count[k] = builder.fadd(count[k], builder.select(builder.or_(empty, inside), nothing, one))
            found.append(builder.select(empty, nothing, new))
        rows.keep(absent, missing, _START)
        rows.keep(count, outside, _START)
        rows.keep(found, new_u, first)
        rows.add(found, sums)
        return context.get_dummy_value()

    return signature, generate


def _divided(rows: Rows, totals: list[Any], mass: list[Any]) -> list[Any]:
    """totals/mass, 0 where there is no mass."""
    builder, nothing = rows.builder, rows.constant(0.0)
    return [
        builder.select(builder.fcmp_ordered(">", own, nothing), builder.fdiv(total, own), nothing)
        for total, own in zip(totals, mass, strict=True)
    ]


@intrinsic
def project_rows(_: Any, plan: Any, at: Any, x: Any, mass: Any, first: Any, sums: Any) -> Any:
    """sums += Pᵀ((P x)/mass); nothing where there is no mass."""
    signature = types.void(plan, types.intp, x, mass, types.intp, sums)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, x, mass, sums = _rows_and_arrays(context, builder, signature, arguments, (0, arguments[1]))
        rows.add(_divided(rows, rows.dot(x), rows.numbers(mass, arguments[4])), sums)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def dot_rows(_: Any, plan: Any, at: Any, x: Any, out: Any, first: Any) -> Any:
    """out ← P x."""
    signature = types.void(plan, types.intp, x, out, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, x, out = _rows_and_arrays(context, builder, signature, arguments, (0, arguments[1]))
        rows.keep(rows.dot(x), out, arguments[4])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def moments_of_rows(
    _: Any,
    plan: Any,
    at: Any,
    ground: Any,
    mass: Any,
    first: Any,
    moved: Any,
    of_moved: Any,
    of_mass: Any,
    image: Any,
) -> Any:
    """moved ← (P∘C)1, of_moved += (P∘C)ᵀ1, of_mass += Pᵀ1, image += Pᵀ(moved/mass)."""
    signature = types.void(plan, types.intp, ground, mass, types.intp, moved, of_moved, of_mass, image)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, at, _, _, first, *_ = arguments
        plan, cost, mass, moved, of_moved, of_mass, image = _rows_and_arrays(
            context, builder, signature, arguments, (0, at), (2, _START)
        )
        sums = plan.variables(0.0)
        with plan.columns() as j:
            moved_here, mass_here = plan.load(of_moved, j), plan.load(of_mass, j)
            for row, ground, total in zip(plan.starts, cost.starts, sums, strict=True):
                entry = plan.load(row, j)
                product = builder.fmul(entry, plan.load(ground, j))
                builder.store(builder.fadd(builder.load(total), product), total)
                moved_here, mass_here = builder.fadd(moved_here, product), builder.fadd(mass_here, entry)
            plan.store(moved_here, of_moved, j)
            plan.store(mass_here, of_mass, j)
        totals = plan.folded(sums, builder.fadd)
        plan.keep(totals, moved, first)
        plan.add(_divided(plan, totals, plan.numbers(mass, first)), image)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def gradient_of_rows(
    _: Any,
    plan: Any,
    at: Any,
    ground: Any,
    exact: Any,
    lam: Any,
    mu: Any,
    source: Any,
    target: Any,
    first: Any,
    of_source: Any,
    of_target: Any,
) -> Any:
    """of_source ← W1 and of_target −= Wᵀ1 of W = P∘(1 − exact·(C − λ ⊕ μ))∘sign(source ⊖ target).

    Where nothing was moved there is no gradient, however large the cost.
    """
    signature = types.void(
        plan, types.intp, ground, plan.dtype, lam, mu, source, target, types.intp, of_source, of_target
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, at, _, exact, _, _, _, _, first, _, _ = arguments
        plan, cost, lam, mu, source, target, of_source, of_target = _rows_and_arrays(
            context, builder, signature, arguments, (0, at), (2, _START)
        )
        nothing, exact = plan.constant(0.0), plan.everywhere(exact)
        # 1 + exact·(λ + μ − C)
        shifts, values = plan.each(plan.numbers(lam, first)), plan.each(plan.numbers(source, first))
        sums = plan.variables(0.0)
        with plan.columns() as j:
            shift, theirs, back = plan.load(mu, j), plan.load(target, j), plan.load(of_target, j)
            for k, (row, ground) in enumerate(zip(plan.starts, cost.starts, strict=True)):
                slack = builder.fsub(builder.fadd(shifts[k], shift), plan.load(ground, j))
                weight = builder.fmul(plan.load(row, j), multiply_add(builder, exact, slack, plan.constant(1.0)))
                ahead = builder.fcmp_ordered(">", values[k], theirs)
                behind = builder.fcmp_ordered("<", values[k], theirs)
                signed = builder.select(behind, builder.fsub(nothing, weight), nothing)
                signed = builder.select(ahead, weight, signed)
                builder.store(builder.fadd(builder.load(sums[k]), signed), sums[k])
                back = builder.fsub(back, signed)
            plan.store(back, of_target, j)
        plan.keep(plan.folded(sums, builder.fadd), of_source, first)
        return context.get_dummy_value()

    return signature, generate
