"""LLVM code for vectors and blocks of rows, where LLVM does not vectorize the loops of numba by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils

ROWS = 8
VECTOR_BYTES = 32


def multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x·y + z, rounded once if the processor can."""
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


def absolute(builder: Any, x: Any) -> Any:
    """|x| of a vector."""
    bits = 32 if isinstance(x.type.element, ir.FloatType) else 64
    function = ir.FunctionType(x.type, [x.type])
    return builder.call(
        cgutils.get_or_insert_function(builder.module, function, f"llvm.fabs.v{x.type.count}f{bits}"), [x]
    )


def _constant(kind: ir.VectorType, value: float) -> Any:
    # llvmlite accepts a float32 constant only if float32 holds it exactly.
    return ir.Constant(
        kind, [float(np.float32(value)) if isinstance(kind.element, ir.FloatType) else value] * kind.count
    )


class RowBlock(NamedTuple):
    """ROWS rows of a matrix. All arrays start at a multiple of VECTOR_BYTES; a row is a whole number of vectors.

    One number per row takes a list of vectors with ROWS lanes in all, or ROWS entries of an array.
    """

    builder: Any
    kind: ir.VectorType
    starts: list[Any]
    width: Any

    @classmethod
    def of(cls, context: Any, builder: Any, matrix_type: Any, matrix: Any, first: Any) -> RowBlock:
        """The rows from ``first``."""
        array = context.make_array(matrix_type)(context, builder, matrix)
        width = builder.extract_value(array.shape, 1)
        starts = [builder.gep(array.data, [builder.mul(first, width)])]
        for _ in range(1, ROWS):
            starts.append(builder.gep(starts[-1], [width]))
        dtype = matrix_type.dtype
        element = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
        return cls(builder, ir.VectorType(element, 8 * VECTOR_BYTES // dtype.bitwidth), starts, width)

    @contextmanager
    def columns(self) -> Iterator[Any]:
        """A loop over the vectors of a row; yields the index of their first column."""
        start, step = ir.Constant(self.width.type, 0), ir.Constant(self.width.type, self.kind.count)
        with cgutils.for_range_slice(self.builder, start, self.width, step, intp=self.width.type) as (index, _):
            yield index

    def load(self, data: Any, j: Any) -> Any:
        """The vector at column ``j`` of a row, or of an array over columns."""
        return self.builder.load(self._pointer(data, j), align=VECTOR_BYTES)

    def store(self, vector: Any, data: Any, j: Any) -> None:
        """Writes a vector to column ``j``."""
        self.builder.store(vector, self._pointer(data, j), align=VECTOR_BYTES)

    def constant(self, value: float) -> Any:
        """A vector of one number known at compile time."""
        return _constant(self.kind, value)

    def splat(self, value: Any) -> Any:
        """A vector of one number known at run time."""
        undefined = ir.Constant(self.kind, ir.Undefined)
        return self._splat_lane(self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0)), 0)

    def splat_rows(self, vectors: list[Any]) -> list[Any]:
        """One vector per row of its number."""
        return [self._splat_lane(vector, lane) for vector in vectors for lane in range(self.kind.count)]

    def accumulators(self, value: float) -> list[Any]:
        """One variable vector per row."""
        return [cgutils.alloca_once_value(self.builder, self.constant(value)) for _ in self.starts]

    def load_rows(self, array: Any, first: Any) -> list[Any]:
        """One number per row, from ``array[first]``."""
        return [self.builder.load(pointer, align=self._element_bytes) for pointer in self._pointers(array, first)]

    def store_rows(self, vectors: list[Any], array: Any, first: Any) -> None:
        """Writes one number per row, from ``array[first]``."""
        for vector, pointer in zip(vectors, self._pointers(array, first), strict=True):
            self.builder.store(vector, pointer, align=self._element_bytes)

    def fold(self, accumulators: list[Any], operation: Callable[[Any, Any], Any]) -> list[Any]:
        """Reduces each row's accumulator to one number: neighboring lanes meet, and two vectors become one."""
        builder, vectors = self.builder, [self.builder.load(accumulator) for accumulator in accumulators]
        lanes = ir.VectorType(ir.IntType(32), self.kind.count)
        even, odd = (ir.Constant(lanes, list(range(first, 2 * lanes.count, 2))) for first in (0, 1))
        for _ in range(lanes.count.bit_length() - 1):
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [
                operation(builder.shuffle_vector(x, y, even), builder.shuffle_vector(x, y, odd)) for x, y in pairs
            ]
        return vectors

    def dot(self, x: Any) -> list[Any]:
        """Σ_j row[j]·x[j] of each row."""
        builder, sums = self.builder, self.accumulators(0.0)
        with self.columns() as j:
            factor = self.load(x, j)
            for row, total in zip(self.starts, sums, strict=True):
                builder.store(multiply_add(builder, self.load(row, j), factor, builder.load(total)), total)
        return self.fold(sums, builder.fadd)

    def add_weighted(self, factors: list[Any], out: Any) -> None:
        """``out[j] += Σ_r factors[r]·row_r[j]``."""
        splats = self.splat_rows(factors)
        with self.columns() as j:
            total = self.load(out, j)
            for row, factor in zip(self.starts, splats, strict=True):
                total = multiply_add(self.builder, self.load(row, j), factor, total)
            self.store(total, out, j)

    @property
    def _element_bytes(self) -> int:
        size: int = VECTOR_BYTES // self.kind.count
        return size

    def _pointer(self, data: Any, j: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(data, [j]), self.kind.as_pointer())

    def _pointers(self, array: Any, first: Any) -> list[Any]:
        steps = range(0, ROWS, self.kind.count)
        return [self._pointer(array, self.builder.add(first, ir.Constant(first.type, step))) for step in steps]

    def _splat_lane(self, vector: Any, lane: int) -> Any:
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.kind.count), [lane] * self.kind.count)
        return self.builder.shuffle_vector(vector, ir.Constant(self.kind, ir.Undefined), lanes)


class _Exponential(NamedTuple):
    """Cody and Waite's exp(x) = 2ᵏ eʳ with x = k·ln 2 + r, eʳ = 1 + r + r²·polynomial(r); accurate to 2 ulp."""

    magic: float  # 1.5·2^(bits of the fraction): adding it rounds to an integer, kept in the low bits
    fraction_bits: int
    log2: tuple[float, float]
    smallest: float
    largest: float
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


def exponential(builder: Any, x: Any) -> Any:
    """exp of a vector; 0 where it would be below the normal numbers, NaN for NaN."""
    kind = x.type
    single = isinstance(kind.element, ir.FloatType)
    parameters = _SINGLE if single else _DOUBLE
    integers = ir.VectorType(ir.IntType(32 if single else 64), kind.count)

    def constant(value: float) -> Any:
        return _constant(kind, value)

    smallest = constant(parameters.smallest)
    small = builder.fcmp_ordered("<", x, smallest)
    y = builder.select(small, smallest, x)
    y = builder.select(builder.fcmp_ordered(">", y, constant(parameters.largest)), constant(parameters.largest), y)
    rounded = multiply_add(builder, y, constant(1 / math.log(2)), constant(parameters.magic))
    k = builder.fsub(rounded, constant(parameters.magic))
    r = y
    for part in parameters.log2:
        r = multiply_add(builder, k, constant(-part), r)
    polynomial = constant(parameters.polynomial[0])
    for coefficient in parameters.polynomial[1:]:
        polynomial = multiply_add(builder, polynomial, r, constant(coefficient))
    value = multiply_add(builder, builder.fmul(polynomial, r), r, r)
    value = builder.fadd(value, constant(1.0))
    shift = ir.Constant(integers, [parameters.fraction_bits] * kind.count)
    exponent = builder.shl(builder.bitcast(rounded, integers), shift)
    value = builder.bitcast(builder.add(builder.bitcast(value, integers), exponent), kind)
    return builder.select(small, ir.Constant(kind, None), value)
