"""Parts of the Triton kernels: the cost between points, and tiles in registers.

Costs and potentials are in units of ε/log₂e inside the kernels, so that exp(−C/ε) is one exp2. Kernels named "resident"
keep the N × M kernel matrix in registers. Those named "strips" compute it again from the points in each iteration, some
whole rows at a time; those named "tiled" do so tile by tile, for any N and M. Both keep vectors in global memory, where
a barrier stands between a write and a read of it by other threads.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _along_rows(vector):
    """A vector of rows, as it meets a tile."""
    return tl.expand_dims(vector, 1) if len(vector.shape) == 1 else tl.expand_dims(tl.expand_dims(vector, 0), 3)


@triton.jit
def _along_columns(vector):
    """A vector of columns, as it meets a tile."""
    return tl.expand_dims(vector, 0) if len(vector.shape) == 1 else tl.expand_dims(tl.expand_dims(vector, 1), 1)


@triton.jit
def _side(values, positions, index, size, D: tl.constexpr):
    """Values and coordinates of the points of one side."""
    side = (tl.load(values + index, mask=index < size, other=0.0),)
    for d in tl.static_range(D):
        side = side + (tl.load(positions + index * D + d, mask=index < size, other=0.0),)  # type: ignore[assignment]  # noqa: RUF005
    return side


@triton.jit
def _others(points, y, D: tl.constexpr):
    """The side of the columns y; loops over rows load it once."""
    return _side(points[1], points[3], y, points[5], D)


@triton.jit
def _cost(points, x, y, others, D: tl.constexpr, MATRIX: tl.constexpr):
    """Tile of the cost between the rows x and the columns y, which ``others`` describes."""
    own, _, own_positions, _, N, M, own_stride, other_stride, value_weight, position_weight = points
    if MATRIX:
        offsets = _along_rows(x) * own_stride + _along_columns(y) * other_stride
        mask = _along_rows(x < N) & _along_columns(y < M)
        tile = value_weight * tl.load(own + offsets, mask=mask, other=0.0)
    else:
        here = _side(own, own_positions, x, N, D)
        tile = value_weight * tl.abs(_along_rows(here[0]) - _along_columns(others[0]))
        square = tl.zeros_like(tile)
        for d in tl.static_range(D):
            step = _along_rows(here[1 + d]) - _along_columns(others[1 + d])
            square += step * step
        tile += position_weight * tl.sqrt(square)
    return tile


@triton.jit
def _log(mass):
    return tl.where(mass > 0, tl.log2(tl.where(mass > 0, mass, 1.0)), -float("inf"))


# A resident tile of X × Y is a tensor (Y/16, X/2, 2, 16): a warp's lanes stand for 2 × 16 entries and each thread holds
# a block, so that sums over either side are mostly sums within threads. As (X, Y), lanes would lie along Y alone, and a
# sum over it would take five shuffles for each row.
@triton.jit
def _points_of(size, LENGTH: tl.constexpr, WIDTH: tl.constexpr):
    """Indices of one side's points, (LENGTH/WIDTH, WIDTH), and which of them exist."""
    index = tl.arange(0, LENGTH // WIDTH)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    return index, index < size


@triton.jit
def _over_columns(tile):
    return tl.sum(tl.sum(tile, 0), 2)


@triton.jit
def _over_rows(tile):
    merged = tl.reshape(tile, [tile.shape[0], tile.shape[1] * tile.shape[2], tile.shape[3]])
    return tl.sum(merged, 1)


@triton.jit
def _total(vector):
    return tl.sum(tl.sum(vector, 1), 0)


@triton.jit
def _points(
    problem,
    source,
    target,
    row_positions,
    column_positions,
    N,
    M,
    source_stride,
    target_stride,
    row_stride,
    column_stride,
    value_weight,
    position_weight,
):
    """What :func:`_cost` takes, for one problem of the batch."""
    source += problem * source_stride
    target += problem * target_stride
    return (
        source, target, row_positions, column_positions, N, M, row_stride, column_stride, value_weight, position_weight,
    )  # fmt: skip


@triton.jit
def _transposed(points):
    """The same cost seen from the columns."""
    own, other, own_positions, other_positions, N, M, own_stride, other_stride, value_weight, position_weight = points
    return other, own, other_positions, own_positions, M, N, other_stride, own_stride, value_weight, position_weight
