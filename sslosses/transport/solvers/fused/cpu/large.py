"""Problems whose plan exceeds the cache: all threads sweep ranges of rows and rebuild the plan in each sweep.

The updates are those of ``sinkhorn`` and ``gradient``. Each sweep starts from the latest potentials, so no scalings are
kept between sweeps. Memory is linear in the number of points.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslosses._threads import parallel_for
from sslosses.transport.adjoint import solve_columns
from sslosses.transport.solvers.fused.cpu import entry
from sslosses.transport.solvers.fused.cpu.arrays import Cost, Masses
from sslosses.transport.solvers.fused.cpu.rows import SCALING_MAX, SCALING_MIN
from sslosses.transport.solvers.fused.cpu.sinkhorn import SUM_MIN
from sslosses.transport.solvers.fused.cpu.vectors import ROWS

# The number of ranges does not depend on the number of threads, so sums are added in the same order and results are
# equal on any number of threads.
_RANGES = 32


class RowSweep:
    """Calls functions of ``entry`` for all ranges of rows, or for some columns, of one problem.

    Args:
        cost: the cost of the batch.
        p: the index of the problem in the batch.
        masses: its padded marginals.
        rows: the number of rows without padding.
    """

    def __init__(self, cost: Cost, p: int, masses: Masses, rows: int) -> None:
        self.cost, self.p, self.rows = cost, p, rows
        self.height, self.width = masses.a.shape[0], masses.b.shape[0]
        self.dtype = torch.from_numpy(masses.b).dtype
        step = -(-rows // (_RANGES * ROWS)) * ROWS
        self._ranges = [(first, min(first + step, rows)) for first in range(0, rows, step)]
        self._workspaces: deque[Any] = deque()
        self._sums: list[Any] = []

    def zeros(self, *shape: int) -> Any:
        """Allocates an array that is aligned to vectors."""
        return torch.zeros(shape, dtype=self.dtype).numpy()

    def over_rows(self, kernel: Callable[..., Any], *arguments: Any, sums: Sequence[int] = ()) -> tuple[Any, list[Any]]:
        """Calls ``kernel`` for all ranges of rows.

        Args:
            kernel: a function over a range of rows.
            arguments: its arguments between the range and the sums.
            sums: lengths of the arrays to which it adds.

        Returns:
            Its return values per range, and the sums over all ranges in float64.
        """
        while len(self._sums) < len(sums):
            self._sums.append(self.zeros(len(self._ranges), max(self.width, ROWS)))
        partial_sums = [array[:, :length] for array, length in zip(self._sums, sums, strict=False)]
        for array in partial_sums:
            array[:] = 0
        returned = [None] * len(self._ranges)

        def sweep_range(i: int) -> None:
            try:
                workspace = self._workspaces.pop()
            except IndexError:
                workspace = self.zeros(2, ROWS, self.width)
            where = (self.cost, self.p, *self._ranges[i], self.rows)
            returned[i], _ = kernel(*where, *arguments, *(array[i] for array in partial_sums), *workspace)
            self._workspaces.append(workspace)

        parallel_for(sweep_range, len(self._ranges))
        return returned, [array.sum(0, dtype=np.float64) for array in partial_sums]

    def over_columns(self, kernel: Callable[..., Any], columns: Any, *arguments: Any) -> None:
        """Calls ``kernel`` for the columns of these indices."""
        parts = [part for part in np.array_split(columns, _RANGES) if part.size]

        def visit_part(i: int) -> None:
            kernel(self.cost, self.p, parts[i], self.rows, *arguments, self.zeros(self.height))

        parallel_for(visit_part, len(parts))


@np.errstate(all="ignore")  # NaN and infinity are expected here, as in the kernels.
def sinkhorn(sweep: RowSweep, masses: Masses, f: Any, g: Any, max_iter: int, tol: float) -> tuple[int, float, float]:
    """Potentials from g, in place. Returns iterations, L1 error of the plan's marginals, ⟨P, C⟩."""
    new_u, lowest, totals, log_rows, u = sweep.zeros(5, sweep.height)
    log_columns, v = sweep.zeros(2, sweep.width)
    u[:], v[:] = masses.a > 0, masses.b > 0
    a, b = masses.a, masses.b[: g.size]
    has_row, has_column = a[: f.size] > 0, b > 0
    iterations, new_v = 0, None
    while True:
        iterations += 1
        if new_v is None:
            _add_log_mass(g, masses.log_b, log_columns)
            _, (sums,) = sweep.over_rows(entry.log_range, a, log_columns, f, lowest, totals, sums=(sweep.width,))
            _add_log_mass(f, masses.log_a, log_rows)
            sums = sums[: g.size]
            enough = has_column & (sums > SUM_MIN)
            g[enough] -= np.log(sums[enough] / b[enough])
            underflowed = np.flatnonzero(has_column & ~enough)
            sweep.over_columns(entry.column_potentials, underflowed, log_rows, g)
        else:
            f[has_row] += np.log(new_u[: f.size][has_row])
            g[has_column] += np.log(new_v[has_column])
        _add_log_mass(f, masses.log_a, log_rows)
        _add_log_mass(g, masses.log_b, log_columns)
        arguments = (False, log_rows, log_columns, a, u, v, new_u, totals)
        _, (missing, outside, sums) = sweep.over_rows(entry.scale_range, *arguments, sums=(ROWS, ROWS, sweep.width))
        error = float(missing.sum())
        if error <= tol or iterations == max_iter:
            break
        new_v = None if outside.any() else _scalings(b, sums[: g.size], has_column)
    # The last half-step, for f; see ``sslosses.transport.potentials.finish``.
    if outside.any():
        _, (sums,) = sweep.over_rows(entry.log_range, a, log_columns, f, lowest, totals, sums=(sweep.width,))
    else:
        f[has_row] += np.log(new_u[: f.size][has_row])
    error = float(np.abs(sums[: g.size] - b).sum())
    _add_log_mass(f, masses.log_a, log_rows)
    values, _ = sweep.over_rows(entry.value_range, log_rows, log_columns, totals)
    sweep.over_columns(entry.column_potentials, np.flatnonzero(~has_column), log_rows, g)
    sweep.over_rows(entry.potentials_without_mass_range, a, log_columns, f, lowest, totals)
    return iterations, error, float(sum(values))


@np.errstate(all="ignore")
def transport_value(sweep: RowSweep, masses: Masses, f: Any, g: Any) -> float:
    """⟨P, C⟩."""
    log_rows, totals = sweep.zeros(2, sweep.height)
    log_columns = sweep.zeros(sweep.width)
    _add_log_mass(f, masses.log_a, log_rows)
    _add_log_mass(g, masses.log_b, log_columns)
    values, _ = sweep.over_rows(entry.value_range, log_rows, log_columns, totals)
    return float(sum(values))


@np.errstate(all="ignore")
def value_gradient(sweep: RowSweep, masses: Masses, f: Any, g: Any, exact: bool, out: Sequence[Any]) -> None:
    """Writes the gradient with respect to source and target values; if ``exact``, also λ and μ, those of a and b."""
    grad_source, grad_target, grad_a, grad_b = out
    log_rows, lam, lowest, totals, row_sums = sweep.zeros(5, sweep.height)
    log_columns, mu = sweep.zeros(2, sweep.width)
    _add_log_mass(f, masses.log_a, log_rows)
    _add_log_mass(g, masses.log_b, log_columns)
    if exact:
        _adjoint(sweep, log_rows, log_columns, lam, mu)
        arguments = (masses.a, log_columns, mu, g.size, lam, lowest, totals)
        sweep.over_rows(entry.means_without_mass_range, *arguments)
        without_mass = np.flatnonzero(masses.b[: g.size] == 0)
        sweep.over_columns(entry.column_means, without_mass, log_rows, lam, mu)
        grad_a[:], grad_b[:] = lam[: f.size], mu[: g.size]
    value_weight = sweep.cost.value_weight
    if value_weight > 0:
        arguments = (exact, log_rows, log_columns, lam, mu, totals, row_sums)
        _, (column_sums,) = sweep.over_rows(entry.gradient_range, *arguments, sums=(sweep.width,))
        grad_source[:], grad_target[:] = value_weight * row_sums[: f.size], value_weight * column_sums[: g.size]


def _adjoint(sweep: RowSweep, log_rows: Any, log_columns: Any, lam: Any, mu: Any) -> None:
    """λ and μ of ``sslosses.transport.adjoint``; 0 where a or b is."""
    mass, row_moved, totals = sweep.zeros(3, sweep.height)
    x = sweep.zeros(sweep.width)
    _, sums = sweep.over_rows(entry.moment_range, log_rows, log_columns, mass, row_moved, sums=(sweep.width,) * 3)
    column_moved, column_mass, projected = map(torch.from_numpy, sums)

    def project(direction: Tensor) -> Tensor:
        x[:] = direction.numpy()
        arguments = (log_rows, log_columns, x, mass, totals)
        _, (image,) = sweep.over_rows(entry.project_range, *arguments, sums=(sweep.width,))
        return torch.from_numpy(image)

    # The sums are float64, the products are not.
    eps = torch.finfo(sweep.dtype).eps
    mu[:] = solve_columns(project, column_mass, column_moved, projected, eps=eps).numpy()
    sweep.over_rows(entry.dot_range, log_rows, log_columns, mu, totals)
    np.divide(row_moved - totals, mass, out=lam, where=mass > 0)


def _add_log_mass(potential: Any, log_mass: Any, out: Any) -> None:
    """out ← f + log a, or −∞ in the padding; the logarithm of the plan is (f + log a) ⊕ (g + log b) − C."""
    out[: potential.size] = potential + log_mass[: potential.size]
    out[potential.size :] = -np.inf


def _scalings(mass: Any, sums: Any, has_mass: Any) -> Any:
    """mass/sums, or None if one of them is out of range."""
    new = np.ones_like(sums)
    np.divide(mass, sums, out=new, where=has_mass)
    return new if ((new > SCALING_MIN) & (new < SCALING_MAX)).all() else None
