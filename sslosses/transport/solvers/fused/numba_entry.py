"""What Python calls of the compiled kernels: loops over a range of problems, kept in numba's cache.

numba takes a function from its cache as long as the file of that function looks the same; what it calls may have
changed, as after an upgrade. Closures it compares by value, so these three have a checksum of all sources in theirs.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from numba import njit

from sslosses.transport.solvers.fused.numba_gradient import transport_value, value_gradient
from sslosses.transport.solvers.fused.numba_sinkhorn import sinkhorn


def _compiled(sources: int) -> Any:
    @njit(nogil=True, error_model="numpy", cache=True)
    def sinkhorn_range(
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

    @njit(nogil=True, error_model="numpy", cache=True)
    def transport_range(
        first: int, last: int, cost: Any, log_a: Any, log_b: Any, f: Any, g: Any, out: Any, space: Any
    ) -> int:
        for p in range(first, last):
            out[p] = transport_value(cost, p, log_a[p], log_b[p], f[p], g[p], space)
        return sources

    @njit(nogil=True, error_model="numpy", cache=True)
    def gradient_range(
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

    return sinkhorn_range, transport_range, gradient_range


_SOURCES = sorted(Path(__file__).parent.glob("numba_*.py"))
sinkhorn_range, transport_range, gradient_range = _compiled(zlib.crc32(b"".join(p.read_bytes() for p in _SOURCES)))
