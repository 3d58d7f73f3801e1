"""What LLVM does not vectorise by itself for the fused CPU kernels: products with eight rows at once, and exp of a row.

A pass of Sinkhorn needs P·w, a scalar update of each row, and Pᵀ·z. Taking eight rows at a time, the second product
finds them in the first-level cache: each entry is read from further away once an iteration instead of twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 8
VECTOR_BYTES = 32


def _vector(dtype: Any) -> ir.VectorType:
    element = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(element, 8 * VECTOR_BYTES // dtype.bitwidth)


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.make_array(kind)(context, builder, value).data


def _at(builder: Any, base: Any, index: Any, vector: ir.VectorType) -> Any:
    return builder.bitcast(builder.gep(base, [index]), vector.as_pointer())


def _multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


def _splat(builder: Any, value: Any, kind: ir.VectorType) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    lane = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(lane, undefined, lanes)


def _sum(builder: Any, vector: Any) -> Any:
    kind = vector.type
    bits = 32 if isinstance(kind.element, ir.FloatType) else 64
    reduction = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind.element, [kind.element, kind]),
        f"llvm.vector.reduce.fadd.v{kind.count}f{bits}",
    )
    return builder.call(reduction, [ir.Constant(kind.element, -0.0), vector], fastmath=("reassoc",))


def _row_starts(builder: Any, first: Any, width: Any) -> list[Any]:
    starts = [builder.mul(first, width)]
    for _ in range(1, ROWS):
        starts.append(builder.add(starts[-1], width))
    return starts


@contextmanager
def _vectors(builder: Any, width: Any, kind: ir.VectorType) -> Iterator[Any]:
    """A loop over 0, lanes, 2·lanes, … below ``width``."""
    start, step = ir.Constant(width.type, 0), ir.Constant(width.type, kind.count)
    with cgutils.for_range_slice(builder, start, width, step, intp=width.type) as (index, _):
        yield index


@intrinsic
def dot_rows(_: Any, matrix: Any, first: Any, width: Any, vector: Any, out: Any) -> Any:  # noqa: ARG001
    """``out[r] = Σ_j matrix[first + r, j]·vector[j]`` for r < ROWS and j < width.

    All arrays start at a multiple of VECTOR_BYTES, and so does every row: ``width``, the length of a row, is a whole
    number of vectors.
    """
    signature = types.void(matrix, types.intp, types.intp, vector, out)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, first, width, _, _ = arguments
        kinds = signature.args
        base, x, result = (_data(context, builder, kinds[k], arguments[k]) for k in (0, 3, 4))
        kind = _vector(kinds[0].dtype)
        sums = [cgutils.alloca_once_value(builder, ir.Constant(kind, None)) for _ in range(ROWS)]
        starts = _row_starts(builder, first, width)
        with _vectors(builder, width, kind) as j:
            w = builder.load(_at(builder, x, j, kind), align=VECTOR_BYTES)
            for start, total in zip(starts, sums, strict=True):
                row = builder.load(_at(builder, base, builder.add(start, j), kind), align=VECTOR_BYTES)
                builder.store(_multiply_add(builder, row, w, builder.load(total)), total)
        for r, total in enumerate(sums):
            builder.store(_sum(builder, builder.load(total)), builder.gep(result, [ir.Constant(width.type, r)]))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_rows(_: Any, out: Any, matrix: Any, first: Any, width: Any, factors: Any, at: Any) -> Any:  # noqa: ARG001
    """``out[j] += Σ_r factors[at + r]·matrix[first + r, j]`` for r < ROWS and j < width; alignment as for dot_rows."""
    signature = types.void(out, matrix, types.intp, types.intp, factors, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, first, width, _, at = arguments
        kinds = signature.args
        result, base, scale = (_data(context, builder, kinds[k], arguments[k]) for k in (0, 1, 4))
        kind = _vector(kinds[1].dtype)
        places = [builder.add(at, ir.Constant(at.type, r)) for r in range(ROWS)]
        factors = [builder.load(builder.gep(scale, [place])) for place in places]
        splats = [_splat(builder, value, kind) for value in factors]
        starts = _row_starts(builder, first, width)
        with _vectors(builder, width, kind) as j:
            place = _at(builder, result, j, kind)
            total = builder.load(place, align=VECTOR_BYTES)
            for start, splat in zip(starts, splats, strict=True):
                row = builder.load(_at(builder, base, builder.add(start, j), kind), align=VECTOR_BYTES)
                total = _multiply_add(builder, row, splat, total)
            builder.store(total, place, align=VECTOR_BYTES)
        return context.get_dummy_value()

    return signature, generate


class _Exponential(NamedTuple):
    """Cody and Waite: exp(x) = 2ᵏ eʳ with x = k·ln 2 + r, eʳ = 1 + r + r²·polynomial(r); right to 2 ulp."""

    magic: float  # 1.5·2^(bits of the fraction): adding it rounds to an integer and leaves that in the low bits
    fraction_bits: int
    log2: tuple[float, float]
    least: float
    most: float
    polynomial: tuple[float, ...]


_SINGLE = _Exponential(
    12582912.0,
    23,
    (0.693359375, -2.12194440e-4),
    -87.0,
    88.0,
    # Cephes' expf
    (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
)
_DOUBLE = _Exponential(
    6755399441055744.0,
    52,
    (6.93147180369123816490e-01, 1.90821492927058770002e-10),
    -708.0,
    709.0,
    tuple(1 / math.factorial(n) for n in range(13, 1, -1)),
)


def _exponential(builder: Any, x: Any) -> Any:
    """exp of a vector; 0 below the normal numbers, NaN of NaN."""
    kind = x.type
    single = isinstance(kind.element, ir.FloatType)
    of = _SINGLE if single else _DOUBLE
    integers = ir.VectorType(ir.IntType(32 if single else 64), kind.count)

    def constant(value: float) -> Any:
        # llvmlite takes a float32 constant only if it is one exactly.
        return ir.Constant(kind, [float(np.float32(value)) if single else value] * kind.count)

    least = constant(of.least)
    small = builder.fcmp_ordered("<", x, least)
    y = builder.select(small, least, x)
    y = builder.select(builder.fcmp_ordered(">", y, constant(of.most)), constant(of.most), y)
    rounded = _multiply_add(builder, y, constant(1 / math.log(2)), constant(of.magic))
    k = builder.fsub(rounded, constant(of.magic))
    r = y
    for part in of.log2:
        r = _multiply_add(builder, k, constant(-part), r)
    polynomial = constant(of.polynomial[0])
    for coefficient in of.polynomial[1:]:
        polynomial = _multiply_add(builder, polynomial, r, constant(coefficient))
    value = _multiply_add(builder, builder.fmul(polynomial, r), r, r)
    value = builder.fadd(value, constant(1.0))
    shift = ir.Constant(integers, [of.fraction_bits] * kind.count)
    exponent = builder.shl(builder.bitcast(rounded, integers), shift)
    value = builder.bitcast(builder.add(builder.bitcast(value, integers), exponent), kind)
    return builder.select(small, ir.Constant(kind, None), value)


@intrinsic
def exp_row(_: Any, shift: Any, x: Any, y: Any, out: Any, width: Any) -> Any:  # noqa: ARG001
    """``out[j] = exp(shift + x[j] − y[j])`` for j < width; returns their sum. ``out`` may be x or y."""
    signature = shift(shift, x, y, out, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shift, _, _, _, width = arguments
        kinds = signature.args
        left, right, result = (_data(context, builder, kinds[k], arguments[k]) for k in (1, 2, 3))
        kind = _vector(kinds[0])
        start = _splat(builder, shift, kind)
        total = cgutils.alloca_once_value(builder, ir.Constant(kind, None))
        with _vectors(builder, width, kind) as j:
            terms = [builder.load(_at(builder, base, j, kind), align=VECTOR_BYTES) for base in (left, right)]
            value = _exponential(builder, builder.fsub(builder.fadd(start, terms[0]), terms[1]))
            builder.store(value, _at(builder, result, j, kind), align=VECTOR_BYTES)
            builder.store(builder.fadd(builder.load(total), value), total)
        return _sum(builder, builder.load(total))

    return signature, generate
