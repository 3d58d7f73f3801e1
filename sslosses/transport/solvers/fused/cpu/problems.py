"""The fused solver on the CPU: converts tensors to arrays, calls compiled kernels on threads, and converts back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sslosses._threads import run_on_threads
from sslosses.transport.problem import Potentials, Problem, Solution, ValueGradient
from sslosses.transport.solvers.fused.cpu import entry, large
from sslosses.transport.solvers.fused.cpu.arrays import Cost, Masses, Workspace, padded_size

# A plan that fits into the caches is read faster than rebuilt. Above this size, memory stays linear in the number of
# points, and one problem at a time has all threads.
_KEPT_BYTES = 16 << 20
# One more thread is worth its start for this many entries of all plans together.
_ENTRIES_PER_THREAD = 50_000


def sinkhorn(problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
    """Alternates updates from g = 0 or that of ``init``, until the row marginal of each problem is within ``tol``."""
    f = torch.zeros_like(problem.a, memory_format=torch.contiguous_format)
    g = torch.zeros_like(problem.b, memory_format=torch.contiguous_format)
    if init is not None:
        g.copy_(init[1] / problem.epsilon)
    iterations = torch.zeros(f.shape[0], dtype=torch.int64)
    errors, values = torch.zeros_like(f[:, 0]), torch.zeros_like(f[:, 0])
    cost, masses = Cost.of(problem), Masses.of(problem)
    if _is_large(problem):
        for p, sweep in enumerate(_sweeps(problem, cost, masses)):
            result = large.sinkhorn(sweep, masses.at(p), f[p].numpy(), g[p].numpy(), max_iter, tol)
            iterations[p], errors[p], values[p] = result
    else:
        measures = (iterations.numpy(), errors.numpy(), values.numpy())
        _run(entry.sinkhorn_problems, problem, cost, masses, f.numpy(), g.numpy(), max_iter, tol, *measures)
    epsilon = problem.epsilon
    return Solution(f * epsilon, g * epsilon, iterations, errors, transport=values * epsilon)


def transport_value(problem: Problem, f: Tensor, g: Tensor) -> Tensor:
    """Computes ⟨P, C⟩, (P,)."""
    values = torch.zeros_like(problem.a[:, 0])
    cost, masses = Cost.of(problem), Masses.of(problem)
    scaled_f, scaled_g = _scaled(f, problem), _scaled(g, problem)
    if _is_large(problem):
        for p, sweep in enumerate(_sweeps(problem, cost, masses)):
            values[p] = large.transport_value(sweep, masses.at(p), scaled_f[p], scaled_g[p])
    else:
        _run(entry.transport_problems, problem, cost, masses, scaled_f, scaled_g, values.numpy())
    return values * problem.epsilon


def value_gradient(problem: Problem, f: Tensor, g: Tensor, *, exact: bool) -> ValueGradient:
    """Computes the gradient of ⟨P, C⟩ with respect to the values of the points, a and b.

    It is that at the fixed point if ``exact``, else the envelope's.
    """
    result = ValueGradient(*(torch.zeros(x.shape, dtype=x.dtype) for x in (f, g, f, g)))
    cost, masses = Cost.of(problem), Masses.of(problem)
    scaled_f, scaled_g = _scaled(f, problem), _scaled(g, problem)
    gradients = [tensor.numpy() for tensor in result]
    if _is_large(problem):
        for p, sweep in enumerate(_sweeps(problem, cost, masses)):
            out = [gradient[p] for gradient in gradients]
            large.value_gradient(sweep, masses.at(p), scaled_f[p], scaled_g[p], exact, out)
    else:
        _run(entry.gradient_problems, problem, cost, masses, scaled_f, scaled_g, exact, *gradients)
    if not exact:
        return result._replace(a=f, b=g)
    return result._replace(a=result.a * problem.epsilon, b=result.b * problem.epsilon)


def _scaled(potential: Tensor, problem: Problem) -> Any:
    """Converts a potential to an array in units of ε."""
    return (potential / problem.epsilon).contiguous().numpy()


def _is_large(problem: Problem) -> bool:
    rows, columns = padded_size(problem)
    return rows * columns * problem.b.element_size() > _KEPT_BYTES


def _sweeps(problem: Problem, cost: Cost, masses: Masses) -> Iterator[large.RowSweep]:
    count, rows = problem.a.shape
    for p in range(count):
        yield large.RowSweep(cost, p, masses.at(p), rows)


def _run(kernel: Callable[..., int], problem: Problem, *arguments: Any) -> None:
    """Calls ``kernel`` on ranges of problems, on as many threads as torch uses."""
    count, rows = problem.a.shape
    entries = problem.b.shape[1] * rows
    threads = max(1, min(torch.get_num_threads(), count, count * entries // _ENTRIES_PER_THREAD))
    size = max(1, -(-count // (8 * threads)) if threads > 1 else count)
    ranges = deque((first, min(first + size, count)) for first in range(0, count, size))

    def work() -> None:
        workspace = Workspace.of(problem)
        while True:
            try:
                first, last = ranges.popleft()
            except IndexError:
                return
            kernel(first, last, *arguments, workspace)

    run_on_threads(work, threads)
