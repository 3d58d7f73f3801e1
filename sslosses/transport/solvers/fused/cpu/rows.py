"""Operations of the fused CPU kernels on one block of ROWS rows, on vectors, compiled by numba.

A sweep of Sinkhorn is a product with rows of the plan, a few operations on one number per row, and a product with Pᵀ.
The second product finds the rows in the first-level cache, so each entry comes from further away only once per
iteration, and the numbers in between never leave the registers.

The rows of a block are those from plan[at]. ``first`` is the index of their numbers in arrays over rows. ``cost_rows``
holds the same rows of the cost, from its start.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sslosses.transport.solvers.fused.cpu.vectors import RowBlock, absolute, exponential, multiply_add

# With scalings in this range, an entry of the plan below the smallest normal number would have contributed 1e-22 at
# most.
SCALING_MIN, SCALING_MAX = 1e-8, 1e8
_START = ir.Constant(ir.IntType(64), 0)


def _blocks_and_arrays(
    context: Any, builder: Any, signature: Any, arguments: Any, *matrices: tuple[int, Any]
) -> list[Any]:
    """Row blocks of the matrices, given as (index of the argument, first row), and the data of all 1-D arrays."""
    operands = [RowBlock.of(context, builder, signature.args[k], arguments[k], first) for k, first in matrices]
    for kind, value in zip(signature.args, arguments, strict=True):
        if isinstance(kind, types.Array) and kind.ndim == 1:
            operands.append(context.make_array(kind)(context, builder, value).data)
    return operands


@intrinsic
def add_value_rows(
    _: Any,
    matrix: Any,
    at: Any,
    scale: Any,
    source: Any,
    first: Any,
    target: Any,
    weight: Any,
    cost_rows: Any,
) -> Any:
    """cost_rows ← scale·matrix + weight·|source ⊖ target|, for rows matrix[at] and source[first]; may be in place."""
    signature = types.void(matrix, types.intp, scale, source, types.intp, target, weight, cost_rows)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, at, scale, _, first, _, weight, _ = arguments
        matrix, cost, source, target = _blocks_and_arrays(context, builder, signature, arguments, (0, at), (7, _START))
        scale, weight = cost.splat(scale), cost.splat(weight)
        row_values = cost.splat_rows(cost.load_rows(source, first))
        with cost.columns() as j:
            column_value = cost.load(target, j)
            for old, new, row_value in zip(matrix.starts, cost.starts, row_values, strict=True):
                difference = builder.fmul(weight, absolute(builder, builder.fsub(row_value, column_value)))
                cost.store(multiply_add(builder, scale, cost.load(old, j), difference), new, j)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def lowest_rows(_: Any, cost_rows: Any, log_columns: Any, lowest: Any, first: Any) -> Any:
    """lowest ← min_j(C − log_columns)."""
    signature = types.void(cost_rows, log_columns, lowest, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cost, log_columns, lowest = _blocks_and_arrays(context, builder, signature, arguments, (0, _START))

        def minimum(x: Any, y: Any) -> Any:
            return builder.select(builder.fcmp_ordered("<", x, y), x, y)

        minima = cost.accumulators(float("inf"))
        with cost.columns() as j:
            shift = cost.load(log_columns, j)
            for row, row_minimum in zip(cost.starts, minima, strict=True):
                shifted = builder.fsub(cost.load(row, j), shift)
                builder.store(minimum(shifted, builder.load(row_minimum)), row_minimum)
        cost.store_rows(cost.fold(minima, minimum), lowest, arguments[3])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def exp_rows(
    _: Any,
    cost_rows: Any,
    log_rows: Any,
    log_columns: Any,
    first: Any,
    plan: Any,
    at: Any,
    totals: Any,
) -> Any:
    """plan ← exp(log_rows ⊕ log_columns − C), totals ← its sums over columns; ``plan`` may be ``cost_rows``."""
    signature = types.void(cost_rows, log_rows, log_columns, types.intp, plan, types.intp, totals)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, _, first, _, at, _ = arguments
        cost, plan, log_rows, log_columns, totals = _blocks_and_arrays(
            context, builder, signature, arguments, (0, _START), (4, at)
        )
        shifts, sums = cost.splat_rows(cost.load_rows(log_rows, first)), cost.accumulators(0.0)
        with cost.columns() as j:
            column = cost.load(log_columns, j)
            for cost_row, plan_row, shift, total in zip(cost.starts, plan.starts, shifts, sums, strict=True):
                value = exponential(builder, builder.fsub(builder.fadd(shift, column), cost.load(cost_row, j)))
                plan.store(value, plan_row, j)
                builder.store(builder.fadd(builder.load(total), value), total)
        cost.store_rows(cost.fold(sums, builder.fadd), totals, first)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def weigh_rows(_: Any, plan: Any, at: Any, factors: Any, first: Any, sums: Any) -> Any:
    """P ← diag(factors) P, and sums += Pᵀ1."""
    signature = types.void(plan, types.intp, factors, types.intp, sums)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        plan, factors, sums = _blocks_and_arrays(context, builder, signature, arguments, (0, arguments[1]))
        splats = plan.splat_rows(plan.load_rows(factors, arguments[3]))
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

    missing += |u P v − mass|, and outside += 1 where new_u is out of range; both have ROWS entries. Where the mass is
    0, new_u is 0 and in range.
    """
    signature = types.void(plan, types.intp, v, mass, types.intp, u, new_u, missing, outside, sums)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = arguments[4]
        rows, v, mass, u, new_u, missing, outside, sums = _blocks_and_arrays(
            context, builder, signature, arguments, (0, arguments[1])
        )
        totals, masses, scalings = rows.dot(v), rows.load_rows(mass, first), rows.load_rows(u, first)
        errors, counts = rows.load_rows(missing, _START), rows.load_rows(outside, _START)
        new_scalings = []
        zero, one, smallest, largest = map(rows.constant, (0.0, 1.0, SCALING_MIN, SCALING_MAX))
        for k, (total, row_mass) in enumerate(zip(totals, masses, strict=True)):
            error = absolute(builder, builder.fsub(builder.fmul(scalings[k], total), row_mass))
            errors[k] = builder.fadd(errors[k], error)
            empty = builder.fcmp_ordered("==", row_mass, zero)
            new = builder.fdiv(row_mass, total)
            inside = builder.and_(builder.fcmp_ordered(">", new, smallest), builder.fcmp_ordered("<", new, largest))
            counts[k] = builder.fadd(counts[k], builder.select(builder.or_(empty, inside), zero, one))
            new_scalings.append(builder.select(empty, zero, new))
        rows.store_rows(errors, missing, _START)
        rows.store_rows(counts, outside, _START)
        rows.store_rows(new_scalings, new_u, first)
        rows.add_weighted(new_scalings, sums)
        return context.get_dummy_value()

    return signature, generate


def _quotients(rows: RowBlock, totals: list[Any], masses: list[Any]) -> list[Any]:
    """totals/masses, 0 where the mass is."""
    builder, zero = rows.builder, rows.constant(0.0)
    return [
        builder.select(builder.fcmp_ordered(">", mass, zero), builder.fdiv(total, mass), zero)
        for total, mass in zip(totals, masses, strict=True)
    ]


@intrinsic
def project_rows(_: Any, plan: Any, at: Any, x: Any, mass: Any, first: Any, sums: Any) -> Any:
    """sums += Pᵀ((P x)/mass), without the rows of mass 0."""
    signature = types.void(plan, types.intp, x, mass, types.intp, sums)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, x, mass, sums = _blocks_and_arrays(context, builder, signature, arguments, (0, arguments[1]))
        rows.add_weighted(_quotients(rows, rows.dot(x), rows.load_rows(mass, arguments[4])), sums)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def dot_rows(_: Any, plan: Any, at: Any, x: Any, out: Any, first: Any) -> Any:
    """out ← P x."""
    signature = types.void(plan, types.intp, x, out, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, x, out = _blocks_and_arrays(context, builder, signature, arguments, (0, arguments[1]))
        rows.store_rows(rows.dot(x), out, arguments[4])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def moment_rows(
    _: Any,
    plan: Any,
    at: Any,
    cost_rows: Any,
    mass: Any,
    first: Any,
    row_moved: Any,
    column_moved: Any,
    column_mass: Any,
    image: Any,
) -> Any:
    """row_moved ← (P∘C)1, column_moved += (P∘C)ᵀ1, column_mass += Pᵀ1, image += Pᵀ(row_moved/mass)."""
    signature = types.void(plan, types.intp, cost_rows, mass, types.intp, row_moved, column_moved, column_mass, image)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, at, _, _, first, *_ = arguments
        plan, cost, mass, row_moved, column_moved, column_mass, image = _blocks_and_arrays(
            context, builder, signature, arguments, (0, at), (2, _START)
        )
        sums = plan.accumulators(0.0)
        with plan.columns() as j:
            moved_here, mass_here = plan.load(column_moved, j), plan.load(column_mass, j)
            for plan_row, cost_row, total in zip(plan.starts, cost.starts, sums, strict=True):
                entry = plan.load(plan_row, j)
                product = builder.fmul(entry, plan.load(cost_row, j))
                builder.store(builder.fadd(builder.load(total), product), total)
                moved_here, mass_here = builder.fadd(moved_here, product), builder.fadd(mass_here, entry)
            plan.store(moved_here, column_moved, j)
            plan.store(mass_here, column_mass, j)
        totals = plan.fold(sums, builder.fadd)
        plan.store_rows(totals, row_moved, first)
        plan.add_weighted(_quotients(plan, totals, plan.load_rows(mass, first)), image)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def gradient_rows(
    _: Any,
    plan: Any,
    at: Any,
    cost_rows: Any,
    exact: Any,
    lam: Any,
    mu: Any,
    source: Any,
    target: Any,
    first: Any,
    grad_source: Any,
    grad_target: Any,
) -> Any:
    """grad_source ← W1 and grad_target −= Wᵀ1 with W = P∘(1 − exact·(C − λ ⊕ μ))∘sign(source ⊖ target).

    An entry of the plan that is 0 has no gradient, however large its cost.
    """
    signature = types.void(
        plan, types.intp, cost_rows, plan.dtype, lam, mu, source, target, types.intp, grad_source, grad_target
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, at, _, exact, _, _, _, _, first, _, _ = arguments
        plan, cost, lam, mu, source, target, grad_source, grad_target = _blocks_and_arrays(
            context, builder, signature, arguments, (0, at), (2, _START)
        )
        zero, exact = plan.constant(0.0), plan.splat(exact)
        # 1 + exact·(λ + μ − C)
        shifts, row_values = plan.splat_rows(plan.load_rows(lam, first)), plan.splat_rows(plan.load_rows(source, first))
        sums = plan.accumulators(0.0)
        with plan.columns() as j:
            shift, column_value, column_sum = plan.load(mu, j), plan.load(target, j), plan.load(grad_target, j)
            for k, (plan_row, cost_row) in enumerate(zip(plan.starts, cost.starts, strict=True)):
                slack = builder.fsub(builder.fadd(shifts[k], shift), plan.load(cost_row, j))
                weight = builder.fmul(plan.load(plan_row, j), multiply_add(builder, exact, slack, plan.constant(1.0)))
                above = builder.fcmp_ordered(">", row_values[k], column_value)
                below = builder.fcmp_ordered("<", row_values[k], column_value)
                signed = builder.select(below, builder.fsub(zero, weight), zero)
                signed = builder.select(above, weight, signed)
                builder.store(builder.fadd(builder.load(sums[k]), signed), sums[k])
                column_sum = builder.fsub(column_sum, signed)
            plan.store(column_sum, grad_target, j)
        plan.store_rows(plan.fold(sums, builder.fadd), grad_source, first)
        return context.get_dummy_value()

    return signature, generate
