"""A problem whose plan fits into no cache: passes over ranges of its rows on all threads, with the plan built anew.

The updates are those of ``sinkhorn`` and ``gradient``. As each pass starts from the potentials so far, no
scalings are kept between them. Memory is linear in the number of points.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from sslosses._threads import parallel_for
from sslosses.transport.solvers.fused.cpu import entry
from sslosses.transport.solvers.fused.cpu.rows import LEAST, MOST
from sslosses.transport.solvers.fused.cpu.sinkhorn import SAFE
from sslosses.transport.solvers.fused.cpu.vectors import ROWS

# Ranges of rows, whatever the number of threads: sums are added up in the same order, so results are the same.
_PARTS = 32


class Passes:
    """Calls kernels of ``entry`` for all ranges of rows, or for some columns, of one problem.

    Args:
        cost: as ``plan`` describes it.
        p: the problem's place in the batch.
        a: padded marginal of the rows.
        b: padded marginal of the columns.
        rows: their number without padding.
    """

    def __init__(self, cost: tuple[Any, ...], p: int, a: Any, b: Any, rows: int) -> None:
        """Divide the rows into ranges."""
        self.cost, self.p, self.rows = cost, p, rows
        self.height, self.width, self.dtype = a.shape[0], b.shape[0], torch.from_numpy(b).dtype
        step = -(-rows // (_PARTS * ROWS)) * ROWS
        self._ranges = [(first, min(first + step, rows)) for first in range(0, rows, step)]
        self._rooms: deque[Any] = deque()
        self._sums: list[Any] = []

    def room(self, *shape: int) -> Any:
        """Zeros that begin where vectors have to."""
        return torch.zeros(shape, dtype=self.dtype).numpy()

    def over_rows(self, kernel: Callable[..., Any], *arguments: Any, sums: Sequence[int] = ()) -> tuple[Any, list[Any]]:
        """What the kernel returns and what it adds up in arrays of these lengths, over all ranges, in float64."""
        while len(self._sums) < len(sums):
            self._sums.append(self.room(len(self._ranges), max(self.width, ROWS)))
        adding = [each[:, :length] for each, length in zip(self._sums, sums, strict=False)]
        for each in adding:
            each[:] = 0
        returned = [None] * len(self._ranges)

        def do(i: int) -> None:
            try:
                room = self._rooms.pop()
            except IndexError:
                room = self.room(2, ROWS, self.width)
            where = (self.cost, self.p, *self._ranges[i], self.rows)
            returned[i], _ = kernel(*where, *arguments, *(each[i] for each in adding), *room)
            self._rooms.append(room)

        parallel_for(do, len(self._ranges))
        return returned, [each.sum(0, dtype=np.float64) for each in adding]

    def over_columns(self, kernel: Callable[..., Any], which: Any, *arguments: Any) -> None:
        """One column after another, for those whose indices are given."""
        parts = [part for part in np.array_split(which, _PARTS) if part.size]

        def do(i: int) -> None:
            kernel(self.cost, self.p, parts[i], self.rows, *arguments, self.room(self.height))

        parallel_for(do, len(parts))


@np.errstate(all="ignore")  # as in the kernels, what is not a number is not news
def sinkhorn(
    passes: Passes, a: Any, log_a: Any, b: Any, log_b: Any, f: Any, g: Any, max_iter: int, tol: float
) -> tuple[int, float, float]:
    """Potentials from g, in place. Returns iterations, L1 error of the row marginal, ⟨P, C⟩."""
    new_u, lowest, totals, log_rows, u = passes.room(5, passes.height)
    log_columns, v = passes.room(2, passes.width)
    u[:], v[:] = a > 0, b > 0
    has_row, has_column = a[: f.size] > 0, b[: g.size] > 0
    iterations, new_v = 0, None
    while True:
        iterations += 1
        if new_v is None:
            _shift(g, log_b, log_columns)
            _, (sums,) = passes.over_rows(entry.log_range, a, log_columns, f, lowest, totals, sums=(passes.width,))
            _shift(f, log_a, log_rows)
            sums = sums[: g.size]
            enough = has_column & (sums > SAFE)
            g[enough] -= np.log(sums[enough] / b[: g.size][enough])
            lost = np.flatnonzero(has_column & ~enough)
            passes.over_columns(entry.column_potentials, lost, log_rows, g)
        else:
            f[has_row] += np.log(new_u[: f.size][has_row])
            g[has_column] += np.log(new_v[has_column])
        _shift(f, log_a, log_rows)
        _shift(g, log_b, log_columns)
        given = (False, log_rows, log_columns, a, u, v, new_u, totals)
        _, (missing, outside, sums) = passes.over_rows(entry.scale_range, *given, sums=(ROWS, ROWS, passes.width))
        error = float(missing.sum())
        if error <= tol or iterations == max_iter:
            break
        new_v = None if outside.any() else _scaling(b[: g.size], sums[: g.size], has_column)
    values, _ = passes.over_rows(entry.value_range, log_rows, log_columns, totals)
    # Points without mass took no part: theirs are the potentials that a half-step from the other side gives.
    passes.over_columns(entry.column_potentials, np.flatnonzero(~has_column), log_rows, g)
    passes.over_rows(entry.rows_without_mass, a, log_columns, f, lowest, totals)
    return iterations, error, float(sum(values))


@np.errstate(all="ignore")
def transport_value(passes: Passes, log_a: Any, log_b: Any, f: Any, g: Any) -> float:
    """⟨P, C⟩."""
    log_rows, totals = passes.room(2, passes.height)
    log_columns = passes.room(passes.width)
    _shift(f, log_a, log_rows)
    _shift(g, log_b, log_columns)
    values, _ = passes.over_rows(entry.value_range, log_rows, log_columns, totals)
    return float(sum(values))


@np.errstate(all="ignore")
def value_gradient(
    passes: Passes, a: Any, log_a: Any, b: Any, log_b: Any, f: Any, g: Any, exact: bool, *out: Any
) -> None:
    """Gradient with respect to the values, into the first two of ``out``; ``exact``: and λ, μ, into the others."""
    of_source, of_target, of_a, of_b = out
    log_rows, lam, lowest, totals, found = passes.room(5, passes.height)
    log_columns, mu = passes.room(2, passes.width)
    _shift(f, log_a, log_rows)
    _shift(g, log_b, log_columns)
    if exact:
        _adjoint(passes, log_rows, log_columns, lam, mu)
        given = (a, log_columns, mu, g.size, lam, lowest, totals)
        passes.over_rows(entry.row_means_without_mass, *given)
        without_mass = np.flatnonzero(b[: g.size] == 0)
        passes.over_columns(entry.column_means, without_mass, log_rows, lam, mu)
        of_a[:], of_b[:] = lam[: f.size], mu[: g.size]
    value_weight = passes.cost[5]
    if value_weight > 0:
        given = (exact, log_rows, log_columns, lam, mu, totals, found)
        _, (of_columns,) = passes.over_rows(entry.gradient_range, *given, sums=(passes.width,))
        of_source[:], of_target[:] = value_weight * found[: f.size], value_weight * of_columns[: g.size]


def _adjoint(passes: Passes, log_rows: Any, log_columns: Any, lam: Any, mu: Any) -> None:
    """λ and μ by conjugate gradients, see ``sslosses.transport.adjoint``; 0 where a or b is."""
    mass, moved, totals = passes.room(3, passes.height)
    along = passes.room(passes.width)
    _, (of_moved, of_mass, image) = passes.over_rows(
        entry.moments_range, log_rows, log_columns, mass, moved, sums=(passes.width,) * 3
    )

    def projected(residual: Any) -> Any:
        # Off the null space, where rounding would build up as the system has no curvature along it.
        return residual - residual.sum() / of_mass.sum() * of_mass

    limit = torch.finfo(passes.dtype).eps ** 1.7 * (of_moved @ _quotient(of_moved, of_mass))
    residual = projected(of_moved - image)
    direction = z = _quotient(residual, of_mass)
    solution, rz = np.zeros_like(z), residual @ z
    for _ in range(3 * passes.width + 50):
        if not rz > limit:
            break
        along[:] = direction
        given = (log_rows, log_columns, along, mass, totals)
        _, (image,) = passes.over_rows(entry.project_range, *given, sums=(passes.width,))
        image = of_mass * direction - image
        curvature = direction @ image
        # A direction without curvature lies in the null space up to rounding: nothing is left to gain along it.
        if not curvature > 0:
            break
        solution += rz / curvature * direction
        residual = projected(residual - rz / curvature * image)
        z = _quotient(residual, of_mass)
        rz, previous = residual @ z, rz
        direction = z + rz / previous * direction
    mu[:] = solution
    passes.over_rows(entry.dot_range, log_rows, log_columns, mu, totals)
    lam[:] = _quotient(moved - totals, mass)


def _shift(potential: Any, log_mass: Any, out: Any) -> None:
    """f + log a, whose sum with g + log b − C is the plan's logarithm; −∞ behind it."""
    out[: potential.size] = potential + log_mass[: potential.size]
    out[potential.size :] = -np.inf


def _scaling(mass: Any, sums: Any, has_mass: Any) -> Any:
    """mass/sums, or nothing where one of them is out of range."""
    new = np.ones_like(sums)
    np.divide(mass, sums, out=new, where=has_mass)
    return new if ((new > LEAST) & (new < MOST)).all() else None


def _quotient(x: Any, y: Any) -> Any:
    return np.divide(x, y, out=np.zeros_like(x), where=y > 0)
