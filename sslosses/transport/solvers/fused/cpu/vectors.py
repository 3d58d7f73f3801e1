"""Vectors in LLVM's language for the fused CPU kernels, where it makes none by itself: blocks of rows, and exp."""

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
    """x·y + z, rounded once where the processor can."""
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


def absolute(builder: Any, x: Any) -> Any:
    """|x| of a vector."""
    bits = 32 if isinstance(x.type.element, ir.FloatType) else 64
    function = ir.FunctionType(x.type, [x.type])
    return builder.call(
        cgutils.get_or_insert_function(builder.module, function, f"llvm.fabs.v{x.type.count}f{bits}"), [x]
    )


def _constant(kind: ir.VectorType, value: float) -> Any:
    # llvmlite takes a float32 constant only if it is one exactly.
    return ir.Constant(
        kind, [float(np.float32(value)) if isinstance(kind.element, ir.FloatType) else value] * kind.count
    )


class Rows(NamedTuple):
    """ROWS rows of a matrix. All arrays start at a multiple of VECTOR_BYTES, and every row is some whole vectors long.

    What is one number a row is in vectors of ROWS numbers in all, or in an array from some place.
    """

    builder: Any
    kind: ir.VectorType
    starts: list[Any]
    width: Any

    @classmethod
    def of(cls, context: Any, builder: Any, matrix_type: Any, matrix: Any, first: Any) -> Rows:
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
        """A loop over the vectors of a row, by the place of their first element."""
        start, step = ir.Constant(self.width.type, 0), ir.Constant(self.width.type, self.kind.count)
        with cgutils.for_range_slice(self.builder, start, self.width, step, intp=self.width.type) as (index, _):
            yield index

    def load(self, data: Any, j: Any) -> Any:
        """The vector at ``j`` of a row, or of an array over columns."""
        return self.builder.load(self._place(data, j), align=VECTOR_BYTES)

    def store(self, vector: Any, data: Any, j: Any) -> None:
        """Write there."""
        self.builder.store(vector, self._place(data, j), align=VECTOR_BYTES)

    def constant(self, value: float) -> Any:
        """A vector of one number."""
        return _constant(self.kind, value)

    def variables(self, value: float) -> list[Any]:
        """A variable vector for each row."""
        return [cgutils.alloca_once_value(self.builder, self.constant(value)) for _ in self.starts]

    def each(self, vectors: list[Any]) -> list[Any]:
        """For each row a vector of its number."""
        return [self._splat(vector, lane) for vector in vectors for lane in range(self.kind.count)]

    def everywhere(self, value: Any) -> Any:
        """A vector of one number that is not known beforehand."""
        undefined = ir.Constant(self.kind, ir.Undefined)
        return self._splat(self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0)), 0)

    def numbers(self, array: Any, first: Any) -> list[Any]:
        """One number a row, from ``array[first]``."""
        return [self.builder.load(place, align=self._size) for place in self._places(array, first)]

    def keep(self, vectors: list[Any], array: Any, first: Any) -> None:
        """Write one number a row, from ``array[first]``."""
        for vector, place in zip(vectors, self._places(array, first), strict=True):
            self.builder.store(vector, place, align=self._size)

    def folded(self, variables: list[Any], operation: Callable[[Any, Any], Any]) -> list[Any]:
        """All lanes of each row's variable made one number: neighbors meet, two vectors become one."""
        builder, vectors = self.builder, [self.builder.load(each) for each in variables]
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
        builder, sums = self.builder, self.variables(0.0)
        with self.columns() as j:
            factor = self.load(x, j)
            for row, total in zip(self.starts, sums, strict=True):
                builder.store(multiply_add(builder, self.load(row, j), factor, builder.load(total)), total)
        return self.folded(sums, builder.fadd)

    def add(self, factors: list[Any], out: Any) -> None:
        """``out[j] += Σ_r factors[r]·row_r[j]``."""
        splats = self.each(factors)
        with self.columns() as j:
            total = self.load(out, j)
            for row, factor in zip(self.starts, splats, strict=True):
                total = multiply_add(self.builder, self.load(row, j), factor, total)
            self.store(total, out, j)

    @property
    def _size(self) -> int:
        size: int = VECTOR_BYTES // self.kind.count
        return size

    def _place(self, data: Any, j: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(data, [j]), self.kind.as_pointer())

    def _places(self, array: Any, first: Any) -> list[Any]:
        steps = range(0, ROWS, self.kind.count)
        return [self._place(array, self.builder.add(first, ir.Constant(first.type, step))) for step in steps]

    def _splat(self, vector: Any, lane: int) -> Any:
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.kind.count), [lane] * self.kind.count)
        return self.builder.shuffle_vector(vector, ir.Constant(self.kind, ir.Undefined), lanes)


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


def exponential(builder: Any, x: Any) -> Any:
    """exp of a vector; 0 below the normal numbers, NaN of NaN."""
    kind = x.type
    single = isinstance(kind.element, ir.FloatType)
    of = _SINGLE if single else _DOUBLE
    integers = ir.VectorType(ir.IntType(32 if single else 64), kind.count)

    def constant(value: float) -> Any:
        return _constant(kind, value)

    least = constant(of.least)
    small = builder.fcmp_ordered("<", x, least)
    y = builder.select(small, least, x)
    y = builder.select(builder.fcmp_ordered(">", y, constant(of.most)), constant(of.most), y)
    rounded = multiply_add(builder, y, constant(1 / math.log(2)), constant(of.magic))
    k = builder.fsub(rounded, constant(of.magic))
    r = y
    for part in of.log2:
        r = multiply_add(builder, k, constant(-part), r)
    polynomial = constant(of.polynomial[0])
    for coefficient in of.polynomial[1:]:
        polynomial = multiply_add(builder, polynomial, r, constant(coefficient))
    value = multiply_add(builder, builder.fmul(polynomial, r), r, r)
    value = builder.fadd(value, constant(1.0))
    shift = ir.Constant(integers, [of.fraction_bits] * kind.count)
    exponent = builder.shl(builder.bitcast(rounded, integers), shift)
    value = builder.bitcast(builder.add(builder.bitcast(value, integers), exponent), kind)
    return builder.select(small, ir.Constant(kind, None), value)
