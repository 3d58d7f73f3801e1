"""The arrays that the CPU kernels share: cost, masses and workspace, padded to whole blocks; everything in units of ε.

The kernels read and write whole vectors of VECTOR_BYTES and whole blocks of ROWS rows. The plan, and vectors over rows
or columns, therefore have padding: zeros, or −∞ in logarithms. The padding of the matrix, source, target and y may be
any finite numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslosses.transport.costs import PointcloudCost
from sslosses.transport.potentials import log_weights
from sslosses.transport.problem import Problem
from sslosses.transport.solvers.fused.cpu.vectors import ROWS, VECTOR_BYTES

# The distances between points are computed once if they fit into the cache and enough problems share them.
_SHARED_BYTES = 4 << 20
_SHARED_FROM = 16


class Cost(NamedTuple):
    """The cost of a batch of problems.

    It is scale·(matrix + value_weight·|source ⊖ target|). With a matrix of size 0, position_weight·‖x ⊖ y‖ takes its
    place.

    Attributes:
        matrix: (P, N, M), (1, N, M) if all problems share it, or (1, 0, 0).
        source: (P, N) values of the rows.
        target: (P, M) values of the columns.
        x: (D, N) positions of the rows, which all problems share.
        y: (D, M) positions of the columns.
        value_weight: 0 without values.
        position_weight: 0 with a matrix.
        scale: 1/ε.
    """

    matrix: Any
    source: Any
    target: Any
    x: Any
    y: Any
    value_weight: Any
    position_weight: Any
    scale: Any

    @staticmethod
    def of(problem: Problem) -> Cost:
        """Converts the cost of a problem, or its points."""
        cost = problem.cost
        number = np.float32 if problem.a.dtype == torch.float32 else np.float64
        none = torch.zeros(0, 0, dtype=problem.a.dtype)
        if not isinstance(cost, PointcloudCost):
            points, weights, matrix = (none, none, none, none), (0.0, 0.0), cost
        else:
            points = (cost.source, cost.target, cost.source_positions.mT, cost.target_positions.mT)
            weights, matrix = (cost.value_weight, cost.position_weight), none[None]
            fits = cost.shape[-2:].numel() * none.element_size() <= _SHARED_BYTES
            if fits and problem.a.shape[0] >= _SHARED_FROM:
                difference = cost.source_positions.unsqueeze(1) - cost.target_positions
                matrix = cost.position_weight * torch.linalg.vector_norm(difference, dim=-1)[None]
        source, target, x, y = points
        lanes = _lanes(problem.b)
        value_weight, position_weight = weights
        with np.errstate(over="ignore"):  # an ε that the dtype can't resolve; the plan's error says so
            scale = number(1 / problem.epsilon)
        return Cost(
            _padded(matrix, lanes, ROWS).numpy(),
            _padded(source, ROWS).numpy(),
            _padded(target, lanes).numpy(),
            x.contiguous().numpy(),
            _padded(y, lanes).numpy(),
            number(value_weight),
            number(position_weight),
            scale,
        )


class Masses(NamedTuple):
    """The marginals and their logarithms, of a batch (P, N) and (P, M) or of one problem (N,) and (M,)."""

    a: Any
    log_a: Any
    b: Any
    log_b: Any

    @staticmethod
    def of(problem: Problem) -> Masses:
        """Pads the marginals of a batch."""
        a = _padded(problem.a, ROWS)
        b = _padded(problem.b, _lanes(problem.b))
        return Masses(a.numpy(), log_weights(a).numpy(), b.numpy(), log_weights(b).numpy())

    def at(self, p: int) -> Masses:
        """Returns those of one problem."""
        return Masses(*(array[p] for array in self))


class Workspace(NamedTuple):
    """The memory in which one thread solves problems one after another.

    Attributes:
        plan: (N, M).
        cost_rows: (ROWS, M) cost of the current row block.
        row_vectors: (5, N); each kernel names them.
        column_vectors: (8, M); each kernel names them.
        missing: (ROWS,) sums of the row error.
        outside: (ROWS,) counts of scalings out of range.
    """

    plan: Any
    cost_rows: Any
    row_vectors: Any
    column_vectors: Any
    missing: Any
    outside: Any

    @staticmethod
    def of(problem: Problem) -> Workspace:
        """Allocates it with zeros; torch aligns them to vectors."""
        rows, columns = padded_size(problem)
        shapes = ((rows, columns), (ROWS, columns), (5, rows), (8, columns), (ROWS,), (ROWS,))
        return Workspace(*(torch.zeros(shape, dtype=problem.b.dtype).numpy() for shape in shapes))


def padded_size(problem: Problem) -> tuple[int, int]:
    """Returns N and M with padding."""
    return _round_up(problem.a.shape[1], ROWS), _round_up(problem.b.shape[1], _lanes(problem.b))


def _lanes(x: Tensor) -> int:
    return VECTOR_BYTES // x.element_size()


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


def _padded(x: Tensor, *steps: int) -> Tensor:
    """Appends zeros up to multiples of the steps: of the last dimension, of the one before, …"""
    sides = (side for size, step in zip(reversed(x.shape), steps, strict=False) for side in (0, -size % step))
    return torch.nn.functional.pad(x.detach(), tuple(sides)).contiguous()
