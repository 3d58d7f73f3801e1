"""Building blocks of the Triton kernels: the cost between points, and tiles in registers.

Costs and potentials are in units of ε/log₂e inside the kernels, so exp(−C/ε) is one exp2. There are three kinds of
kernels, by where the N × M kernel matrix is:

- "resident" keeps it in registers;
- "strips" recomputes it in each iteration, a few whole rows at a time;
- "tiled" recomputes it tile by tile, for any N and M.

The last two keep vectors in global memory. A barrier separates each write from a read by other threads.

Triton's cache does not see the fields of a named tuple. Construct them by keyword, so that their order is irrelevant.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Points(NamedTuple):
    """The points of one problem, seen from the rows, or :func:`transposed` from the columns.

    With a cost matrix, ``own_values`` is the matrix of the problem, and the strides are those of its rows and columns.
    """

    own_values: Any
    other_values: Any
    own_positions: Any
    other_positions: Any
    own_size: Any
    other_size: Any
    own_stride: Any
    other_stride: Any
    value_weight: Any
    position_weight: Any


@triton.jit
def points_of_problem(batch, problem, value_weight, position_weight, DTYPE: tl.constexpr):
    """The points of one problem from those of the batch; floats become numbers of the kernel's dtype."""
    source, target, row_positions, column_positions, N, M, source_stride, target_stride = batch
    return Points(
        own_values=source + problem * source_stride,
        other_values=target + problem * target_stride,
        own_positions=row_positions,
        other_positions=column_positions,
        own_size=N,
        other_size=M,
        own_stride=M,
        other_stride=1,
        value_weight=tl.full((), value_weight, DTYPE),
        position_weight=tl.full((), position_weight, DTYPE),
    )


@triton.jit
def transposed(points):
    """The same points seen from the other side."""
    return Points(
        own_values=points.other_values,
        other_values=points.own_values,
        own_positions=points.other_positions,
        other_positions=points.own_positions,
        own_size=points.other_size,
        other_size=points.own_size,
        own_stride=points.other_stride,
        other_stride=points.own_stride,
        value_weight=points.value_weight,
        position_weight=points.position_weight,
    )


@triton.jit
def along_rows(vector):
    """Shapes a vector over rows for broadcasting with a tile."""
    return tl.expand_dims(vector, 1) if len(vector.shape) == 1 else tl.expand_dims(tl.expand_dims(vector, 0), 3)


@triton.jit
def along_columns(vector):
    """Shapes a vector over columns for broadcasting with a tile."""
    return tl.expand_dims(vector, 0) if len(vector.shape) == 1 else tl.expand_dims(tl.expand_dims(vector, 1), 1)


@triton.jit
def _load_side(values, positions, index, size, D: tl.constexpr):
    side = (tl.load(values + index, mask=index < size, other=0.0),)
    for d in tl.static_range(D):
        side = side + (tl.load(positions + index * D + d, mask=index < size, other=0.0),)  # type: ignore[assignment]  # noqa: RUF005
    return side


@triton.jit
def load_columns(points, y, D: tl.constexpr):
    """Values and coordinates of the columns y; loops over rows load them once."""
    return _load_side(points.other_values, points.other_positions, y, points.other_size, D)


@triton.jit
def cost_tile(points, x, y, column_points, D: tl.constexpr, MATRIX: tl.constexpr):
    """Costs between the rows x and the columns y; ``column_points`` is ``load_columns(points, y, D)``."""
    if MATRIX:
        offsets = along_rows(x) * points.own_stride + along_columns(y) * points.other_stride
        mask = along_rows(x < points.own_size) & along_columns(y < points.other_size)
        tile = points.value_weight * tl.load(points.own_values + offsets, mask=mask, other=0.0)
    else:
        rows = _load_side(points.own_values, points.own_positions, x, points.own_size, D)
        tile = points.value_weight * tl.abs(along_rows(rows[0]) - along_columns(column_points[0]))
        square = tl.zeros_like(tile)
        for d in tl.static_range(D):
            step = along_rows(rows[1 + d]) - along_columns(column_points[1 + d])
            square += step * step
        tile += points.position_weight * tl.sqrt(square)
    return tile


@triton.jit
def log_mass(mass):
    """log₂ of masses, −∞ where they are 0."""
    return tl.where(mass > 0, tl.log2(tl.where(mass > 0, mass, 1.0)), -float("inf"))


@triton.jit
def load_scores(potential, mass, index, size, unit):
    """log₂ of one side's factor of the plan, −∞ where it has no mass; potentials get the kernels' unit."""
    scaled = tl.load(potential + index, mask=index < size, other=0.0) * unit
    return scaled + log_mass(tl.load(mass + index, mask=index < size, other=0.0))


@triton.jit
def sign(s, t):
    """sign(s − t), 0 where they are equal."""
    return tl.where(s > t, 1.0, tl.where(s < t, -1.0, 0.0)).to(s.dtype)


# A resident tile of X × Y is a tensor (Y/16, X/2, 2, 16): a warp's lanes stand for 2 × 16 entries and each thread holds
# a block, so that sums over either side are mostly sums within threads. As (X, Y), lanes would lie along Y alone, and a
# sum over it would take five shuffles per row.
@triton.jit
def tile_indices(size, LENGTH: tl.constexpr, WIDTH: tl.constexpr):
    """Indices of the points of one side, (LENGTH/WIDTH, WIDTH), and which of them exist."""
    index = tl.arange(0, LENGTH // WIDTH)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    return index, index < size


@triton.jit
def sum_over_columns(tile):
    """One sum per row of a resident tile."""
    return tl.sum(tl.sum(tile, 0), 2)


@triton.jit
def sum_over_rows(tile):
    """One sum per column of a resident tile."""
    merged = tl.reshape(tile, [tile.shape[0], tile.shape[1] * tile.shape[2], tile.shape[3]])
    return tl.sum(merged, 1)


@triton.jit
def sum_vector(vector):
    """The sum of a vector over one side of a resident tile."""
    return tl.sum(tl.sum(vector, 1), 0)
