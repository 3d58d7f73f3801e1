"""The fused solver on the CPU: tensors in, compiled kernels on threads, tensors out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslosses._threads import run_on_threads
from sslosses.transport.costs import PointcloudCost
from sslosses.transport.potentials import log_weights
from sslosses.transport.problem import Potentials, Problem, Solution, ValueGradient
from sslosses.transport.solvers.fused.cpu import entry, large
from sslosses.transport.solvers.fused.cpu.vectors import ROWS, VECTOR_BYTES

# A plan that fits into the caches is read faster than built anew; beyond, memory stays linear in the number of points,
# and one problem at a time has all threads.
_KEPT_BYTES = 16 << 20
# Distances of the points are computed once if they fit into the cache and enough problems share them.
_SHARED_BYTES = 4 << 20
_SHARED_FROM = 16
# Entries of all plans together from which a thread more is worth its start.
_ENTRIES_PER_THREAD = 50_000


def sinkhorn(problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
    """Alternating updates from g = 0 or ``init``'s, each problem until its row marginal is within ``tol``."""
    f = torch.zeros_like(problem.a, memory_format=torch.contiguous_format)
    g = torch.zeros_like(problem.b, memory_format=torch.contiguous_format)
    if init is not None:
        g.copy_(init[1] / problem.epsilon)
    iterations = torch.zeros(f.shape[0], dtype=torch.int64)
    errors, values = torch.zeros_like(f[:, 0]), torch.zeros_like(f[:, 0])
    cost, masses = _cost(problem), _Masses.of(problem)
    if _is_large(problem):
        for p, passes in enumerate(_passes(problem, cost, masses)):
            found = large.sinkhorn(passes, *masses.at(p), f[p].numpy(), g[p].numpy(), max_iter, tol)
            iterations[p], errors[p], values[p] = found
    else:
        _run(
            entry.sinkhorn_of_problems,
            problem,
            cost,
            *masses,
            f.numpy(),
            g.numpy(),
            max_iter,
            tol,
            iterations.numpy(),
            errors.numpy(),
            values.numpy(),
        )
    epsilon = problem.epsilon
    return Solution(f * epsilon, g * epsilon, iterations, errors, transport=values * epsilon)


def transport_value(problem: Problem, f: Tensor, g: Tensor) -> Tensor:
    """⟨P, C⟩, (P,)."""
    out = torch.zeros_like(problem.a[:, 0])
    cost, masses = _cost(problem), _Masses.of(problem)
    potentials = [(each / problem.epsilon).contiguous().numpy() for each in (f, g)]
    if _is_large(problem):
        for p, passes in enumerate(_passes(problem, cost, masses)):
            _, log_a, _, log_b = masses.at(p)
            out[p] = large.transport_value(passes, log_a, log_b, *(each[p] for each in potentials))
    else:
        logarithms = (masses.log_a, masses.log_b)
        _run(entry.transport_of_problems, problem, cost, *logarithms, *potentials, out.numpy())
    return out * problem.epsilon


def value_gradient(problem: Problem, f: Tensor, g: Tensor, *, exact: bool) -> ValueGradient:
    """Gradient of ⟨P, C⟩ at the fixed point, or the envelope's, with respect to the points' values, a and b."""
    found = ValueGradient(*(torch.zeros(x.shape, dtype=x.dtype) for x in (f, g, f, g)))
    cost, masses = _cost(problem), _Masses.of(problem)
    potentials = [(each / problem.epsilon).contiguous().numpy() for each in (f, g)]
    out = [each.numpy() for each in found]
    if _is_large(problem):
        for p, passes in enumerate(_passes(problem, cost, masses)):
            given = (*masses.at(p), *(each[p] for each in potentials), exact)
            large.value_gradient(passes, *given, *(each[p] for each in out))
    else:
        _run(entry.gradient_of_problems, problem, cost, *masses, *potentials, exact, *out)
    if not exact:
        return found._replace(a=f, b=g)
    return found._replace(a=found.a * problem.epsilon, b=found.b * problem.epsilon)


class _Masses(NamedTuple):
    a: Any
    log_a: Any
    b: Any
    log_b: Any

    @staticmethod
    def of(problem: Problem) -> _Masses:
        """Marginals padded with zeros to the kernels' blocks, and their logarithms."""
        a = _padded(problem.a, ROWS)
        b = _padded(problem.b, _lanes(problem.b))
        return _Masses(a.numpy(), log_weights(a).numpy(), b.numpy(), log_weights(b).numpy())

    def at(self, p: int) -> _Masses:
        """Those of one problem."""
        return _Masses(*(each[p] for each in self))


def _is_large(problem: Problem) -> bool:
    rows, columns = _padded_size(problem)
    return rows * columns * problem.b.element_size() > _KEPT_BYTES


def _passes(problem: Problem, cost: tuple[Any, ...], masses: _Masses) -> Iterator[large.Passes]:
    count, rows = problem.a.shape
    for p in range(count):
        a, _, b, _ = masses.at(p)
        yield large.Passes(cost, p, a, b, rows)


def _cost(problem: Problem) -> tuple[Any, ...]:
    """The cost as the kernels take it, see ``plan``."""
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
    arrays = (
        _padded(matrix, lanes, ROWS),
        _padded(source, ROWS),
        _padded(target, lanes),
        x.contiguous(),
        _padded(y, lanes),
    )
    return (*(array.numpy() for array in arrays), *map(number, weights), number(1 / problem.epsilon))


def _run(kernel: Callable[..., int], problem: Problem, *arguments: Any) -> None:
    """Call ``kernel`` on ranges of problems, on as many threads as torch uses."""
    count, rows = problem.a.shape
    entries = problem.b.shape[1] * rows
    threads = max(1, min(torch.get_num_threads(), count, count * entries // _ENTRIES_PER_THREAD))
    size = max(1, -(-count // (8 * threads) if threads > 1 else count))
    ranges = deque((first, min(first + size, count)) for first in range(0, count, size))

    def work() -> None:
        space = _space(problem)
        while True:
            try:
                first, last = ranges.popleft()
            except IndexError:
                return
            kernel(first, last, *arguments, space)

    run_on_threads(work, threads)


def _space(problem: Problem) -> tuple[Any, ...]:
    """Room of one thread: the plan, ROWS rows of the cost, vectors over rows and columns, two of ROWS."""
    rows, columns = _padded_size(problem)
    shapes = ((rows, columns), (ROWS, columns), (5, rows), (8, columns), (ROWS,), (ROWS,))
    return tuple(torch.zeros(shape, dtype=problem.b.dtype).numpy() for shape in shapes)


def _lanes(x: Tensor) -> int:
    return VECTOR_BYTES // x.element_size()


def _padded_size(problem: Problem) -> tuple[int, int]:
    return _round_up(problem.a.shape[1], ROWS), _round_up(problem.b.shape[1], _lanes(problem.b))


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


def _padded(x: Tensor, *steps: int) -> Tensor:
    """Zeros behind, up to whole steps: of the last dimension, of the one before, …"""
    sides = (each for size, step in zip(reversed(x.shape), steps, strict=False) for each in (0, -size % step))
    return torch.nn.functional.pad(x.detach(), tuple(sides)).contiguous()
