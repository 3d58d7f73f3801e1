"""What Python calls of the compiled kernels, kept in numba's cache: loops over a range of problems, and of rows.

numba takes a function from its cache as long as the file of that function looks the same; what it calls may have
changed, as after an upgrade. Closures it compares by value, so these have a checksum of all sources in theirs.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from numba import njit

from sslosses.transport.solvers.fused.cpu import ranges
from sslosses.transport.solvers.fused.cpu.gradient import transport_value, value_gradient
from sslosses.transport.solvers.fused.cpu.plan import column_softmax
from sslosses.transport.solvers.fused.cpu.sinkhorn import sinkhorn

_entry = njit(nogil=True, error_model="numpy", cache=True)


def _of_problems(sources: int) -> Any:
    @_entry
    def sinkhorn_of_problems(
        first: int,
        last: int,
        cost: Any,
        a: Any,
        log_a: Any,
        b: Any,
        log_b: Any,
        f: Any,
        g: Any,
        max_iter: int,
        tol: float,
        iterations: Any,
        errors: Any,
        values: Any,
        space: Any,
    ) -> int:
        for p in range(first, last):
            iterations[p], errors[p], values[p] = sinkhorn(
                cost, p, a[p], log_a[p], b[p], log_b[p], f[p], g[p], max_iter, tol, space
            )
        return sources

    @_entry
    def transport_of_problems(
        first: int, last: int, cost: Any, log_a: Any, log_b: Any, f: Any, g: Any, out: Any, space: Any
    ) -> int:
        for p in range(first, last):
            out[p] = transport_value(cost, p, log_a[p], log_b[p], f[p], g[p], space)
        return sources

    @_entry
    def gradient_of_problems(
        first: int,
        last: int,
        cost: Any,
        a: Any,
        log_a: Any,
        b: Any,
        log_b: Any,
        f: Any,
        g: Any,
        exact: bool,
        of_source: Any,
        of_target: Any,
        lam: Any,
        mu: Any,
        space: Any,
    ) -> int:
        for p in range(first, last):
            value_gradient(
                cost,
                p,
                a[p],
                log_a[p],
                b[p],
                log_b[p],
                f[p],
                g[p],
                exact,
                of_source[p],
                of_target[p],
                lam[p],
                mu[p],
                space,
            )
        return sources

    return sinkhorn_of_problems, transport_of_problems, gradient_of_problems


def _of_rows(sources: int) -> Any:
    @_entry
    def log_range(*arguments: Any) -> Any:
        return ranges.log_range(*arguments), sources

    @_entry
    def scale_range(*arguments: Any) -> Any:
        return ranges.scale_range(*arguments), sources

    @_entry
    def value_range(*arguments: Any) -> Any:
        return ranges.value_range(*arguments), sources

    @_entry
    def rows_without_mass(*arguments: Any) -> Any:
        return ranges.rows_without_mass(*arguments), sources

    @_entry
    def moments_range(*arguments: Any) -> Any:
        return ranges.moments_range(*arguments), sources

    @_entry
    def project_range(*arguments: Any) -> Any:
        return ranges.project_range(*arguments), sources

    @_entry
    def dot_range(*arguments: Any) -> Any:
        return ranges.dot_range(*arguments), sources

    @_entry
    def row_means_without_mass(*arguments: Any) -> Any:
        return ranges.row_means_without_mass(*arguments), sources

    @_entry
    def gradient_range(*arguments: Any) -> Any:
        return ranges.gradient_range(*arguments), sources

    @_entry
    def column_potentials(cost: Any, p: int, columns: Any, rows: int, log_rows: Any, g: Any, room: Any) -> int:
        for j in columns:
            g[j] = -column_softmax(cost, p, j, log_rows, room, rows)[1]
        return sources

    @_entry
    def column_means(cost: Any, p: int, columns: Any, rows: int, log_rows: Any, lam: Any, mu: Any, room: Any) -> int:
        for j in columns:
            mu[j] = ranges.column_mean(cost, p, j, rows, log_rows, lam, room)
        return sources

    return (
        log_range,
        scale_range,
        value_range,
        rows_without_mass,
        moments_range,
        project_range,
        dot_range,
        row_means_without_mass,
        gradient_range,
        column_potentials,
        column_means,
    )


_SOURCES = zlib.crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
sinkhorn_of_problems, transport_of_problems, gradient_of_problems = _of_problems(_SOURCES)
(
    log_range,
    scale_range,
    value_range,
    rows_without_mass,
    moments_range,
    project_range,
    dot_range,
    row_means_without_mass,
    gradient_range,
    column_potentials,
    column_means,
) = _of_rows(_SOURCES)
