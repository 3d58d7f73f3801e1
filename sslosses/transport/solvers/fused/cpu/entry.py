"""The compiled functions that Python calls, kept in numba's cache: loops over problems, ranges of rows, and columns.

numba reuses a cached function as long as the file of that function looks the same, but the functions that it calls may
have changed, as after an upgrade. numba compares closures by value, so each function here closes over a checksum of all
sources that it is compiled from.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from numba import njit

from sslosses._numba import cached_njit
from sslosses.transport import adjoint
from sslosses.transport.solvers.fused.cpu import ranges
from sslosses.transport.solvers.fused.cpu.arrays import Masses
from sslosses.transport.solvers.fused.cpu.gradient import transport_value, value_gradient
from sslosses.transport.solvers.fused.cpu.plan import column_softmax
from sslosses.transport.solvers.fused.cpu.sinkhorn import sinkhorn

_entry = cached_njit(nogil=True, error_model="numpy")
_masses_at = njit(lambda masses, p: Masses(masses.a[p], masses.log_a[p], masses.b[p], masses.log_b[p]))


def _over_problems(checksum: int) -> Any:
    @_entry
    def sinkhorn_problems(
        first: int,
        last: int,
        cost: Any,
        masses: Any,
        f: Any,
        g: Any,
        max_iter: int,
        tol: float,
        iterations: Any,
        errors: Any,
        values: Any,
        workspace: Any,
    ) -> int:
        for p in range(first, last):
            iterations[p], errors[p], values[p] = sinkhorn(
                cost, p, _masses_at(masses, p), f[p], g[p], max_iter, tol, workspace
            )
        return checksum

    @_entry
    def transport_problems(
        first: int, last: int, cost: Any, masses: Any, f: Any, g: Any, values: Any, workspace: Any
    ) -> int:
        for p in range(first, last):
            values[p] = transport_value(cost, p, _masses_at(masses, p), f[p], g[p], workspace)
        return checksum

    @_entry
    def gradient_problems(
        first: int,
        last: int,
        cost: Any,
        masses: Any,
        f: Any,
        g: Any,
        exact: bool,
        grad_source: Any,
        grad_target: Any,
        grad_a: Any,
        grad_b: Any,
        workspace: Any,
    ) -> int:
        for p in range(first, last):
            value_gradient(
                cost,
                p,
                _masses_at(masses, p),
                f[p],
                g[p],
                exact,
                grad_source[p],
                grad_target[p],
                grad_a[p],
                grad_b[p],
                workspace,
            )
        return checksum

    return sinkhorn_problems, transport_problems, gradient_problems


def _over_rows(checksum: int) -> Any:
    @_entry
    def log_range(*arguments: Any) -> Any:
        return ranges.log_range(*arguments), checksum

    @_entry
    def scale_range(*arguments: Any) -> Any:
        return ranges.scale_range(*arguments), checksum

    @_entry
    def value_range(*arguments: Any) -> Any:
        return ranges.value_range(*arguments), checksum

    @_entry
    def potentials_without_mass_range(*arguments: Any) -> Any:
        return ranges.potentials_without_mass_range(*arguments), checksum

    @_entry
    def moment_range(*arguments: Any) -> Any:
        return ranges.moment_range(*arguments), checksum

    @_entry
    def project_range(*arguments: Any) -> Any:
        return ranges.project_range(*arguments), checksum

    @_entry
    def dot_range(*arguments: Any) -> Any:
        return ranges.dot_range(*arguments), checksum

    @_entry
    def means_without_mass_range(*arguments: Any) -> Any:
        return ranges.means_without_mass_range(*arguments), checksum

    @_entry
    def gradient_range(*arguments: Any) -> Any:
        return ranges.gradient_range(*arguments), checksum

    @_entry
    def column_potentials(cost: Any, p: int, columns: Any, rows: int, log_rows: Any, g: Any, weights: Any) -> int:
        for j in columns:
            g[j] = -column_softmax(cost, p, j, log_rows, weights, rows)[1]
        return checksum

    @_entry
    def column_means(cost: Any, p: int, columns: Any, rows: int, log_rows: Any, lam: Any, mu: Any, weights: Any) -> int:
        for j in columns:
            mu[j] = ranges.column_mean(cost, p, j, rows, log_rows, lam, weights)
        return checksum

    return (
        log_range,
        scale_range,
        value_range,
        potentials_without_mass_range,
        moment_range,
        project_range,
        dot_range,
        means_without_mass_range,
        gradient_range,
        column_potentials,
        column_means,
    )


# All files of this folder, and the one that the limits of the conjugate gradients come from.
_SOURCES = [*sorted(Path(__file__).parent.glob("*.py")), Path(adjoint.__file__)]
_CHECKSUM = zlib.crc32(b"".join(path.read_bytes() for path in _SOURCES))
sinkhorn_problems, transport_problems, gradient_problems = _over_problems(_CHECKSUM)
(
    log_range,
    scale_range,
    value_range,
    potentials_without_mass_range,
    moment_range,
    project_range,
    dot_range,
    means_without_mass_range,
    gradient_range,
    column_potentials,
    column_means,
) = _over_rows(_CHECKSUM)
