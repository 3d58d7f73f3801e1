"""Solves transport problems: ``solve``, ε-scaling, and the choice that ``"auto"`` makes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sslosses._checks import check_count, check_number
from sslosses._optional import can_import
from sslosses._torch import autocast_off, has_values
from sslosses.transport.catalog import check_solver, load_solver, missing_requirement
from sslosses.transport.costs import PointcloudCost
from sslosses.transport.problem import LazySolver, Potentials, Problem, Solution, Solver, make_problem
from sslosses.transport.result import TransportResult
from sslosses.transport.rounding import is_negligible, rounding_error, with_plan_error
from sslosses.transport.solvers.dense import DenseSolver

log = logging.getLogger(__name__)
# Above this size of the cost matrix, the dense solver and its backward pass, which need several such matrices, exceed
# typical memory.
_DENSE_BYTES = 4 << 30
# Largest number of updates at each of the larger ε of ε-scaling.
_UPDATES_PER_LEVEL = 20


def solve(
    cost: Tensor | PointcloudCost,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    solver: str | Solver = "auto",
    max_iter: int = 100,
    tol: float = 1e-3,
    gradient: str = "exact",
    self_costs: tuple[Tensor | PointcloudCost, Tensor | PointcloudCost] | None = None,
    init: Potentials | None = None,
    scaling: float | None = None,
) -> TransportResult:
    """Computes min ⟨P, C⟩ + ε KL(P | abᵀ) over P ≥ 0 with P1 = a, Pᵀ1 = b, for a batch of problems.

    P (N, M) is the plan, C (N, M) the cost, a (N) and b (M) are the marginals. Computes in float64 if any argument is
    float64, else in float32, also for half precision and inside autocast. Batch dimensions broadcast: one (N, M) cost
    serves (..., N) marginals.

    Args:
        cost: (..., N, M) floating tensor or a :func:`pointcloud_cost`, with N and M at least 1.
        a: (..., N) non-negative masses of the rows. None: 1/N each. An entry of 0 (padding) is allowed.
        b: (..., M) non-negative masses of the columns, with the same sum as ``a``. None: 1/M each.
        epsilon: ε, in units of the cost. 0 is the unregularized problem. float32 suffices for ε of at least 1e-3 times
            the largest cost; at 6e-5 and below, nothing converges to the default ``tol``.
        solver: a name of ``SOLVERS``, or an object with the protocol :class:`Solver`. ``"auto"`` never changes the
            problem. It chooses ``"exact"`` for ε = 0; for ε > 0 ``"fused"`` on a CPU with numba, else ``"dense"``, or
            ``"geomloss-keops"`` for lazy costs above 4 GiB.
        max_iter: largest number of updates of both potentials, at least 1. The exact solver ignores it.
        tol: a problem is solved when its marginal error Σ|P1 − a| + Σ|Pᵀ1 − b| is at most this. Above 0. It is
            absolute: masses that sum to m need m times the tolerance of masses that sum to 1.
        gradient: default of :meth:`TransportResult.value`. ``"unrolled"`` records the iterations, which only
            ``"dense"`` can.
        self_costs: costs (..., N, N) of a against a and (..., M, M) of b against b. They are solved too, for
            ``value(kind="divergence")``.
        init: initial potentials f (..., N) and g (..., M), for example those of an earlier result. Non-finite entries
            count as 0. ``"pot-batch"`` and ``"exact"`` can't use it.
        scaling: ratio of ε-scaling, between 0 and 1, for example 0.5. The problem is solved at an ε of the largest
            cost first, then at ``scaling`` times that and so on down to ε, each time from the last potentials. The
            larger ε get at most 20 updates each and half of ``max_iter`` together. It pays for small ε. None: off.

    Returns:
        A :class:`TransportResult`. Lack of convergence is not an error: see ``result.converged`` and ``result.status``.

    Raises:
        TypeError, ValueError: if an argument has a wrong type, shape, device, mass or range; see :func:`check_solver`.
        MissingDependencyError: if the solver needs a package or a compiler that is missing; raised before any work.

    Example:
        >>> import torch
        >>> result = solve(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.1)
        >>> result.value()
        tensor(4.5398e-05)
        >>> result.status
        'All 1 problems converged within 1 iterations to a marginal error of at most 0 (tol 0.001).'
    """
    name = check_solver(solver, epsilon=epsilon, gradient=gradient, scaling=scaling, with_init=init is not None)
    if scaling is not None and init is not None:
        raise ValueError("Expected `init` or `scaling`, which computes initial potentials itself, but got both")
    max_iter = check_count("max_iter", max_iter)
    tol = check_number("tol", tol, above=0)
    problem, batch_shape = make_problem(cost, a, b, float(epsilon), differentiable=gradient == "unrolled")
    if name == "auto":
        name = _choose_solver(problem, gradient)
    if problem.a.is_meta and isinstance(solver, str) and name != "dense":
        raise ValueError(f"Expected `solver` to be 'dense' for meta tensors, which have no values, but got {name!r}")
    chosen = load_solver(name) if isinstance(solver, str) else solver
    if not chosen.lazy:
        with autocast_off(problem.a):
            problem = problem.materialized()
    flat_init = None if init is None else _flatten_init(init, problem, batch_shape)
    self_results = None
    if self_costs is not None:
        masses = (
            problem.a.reshape(*batch_shape, problem.a.shape[-1]),
            problem.b.reshape(*batch_shape, problem.b.shape[-1]),
        )
        result_aa, result_bb = (
            solve(
                self_cost,
                mass,
                mass,
                epsilon=epsilon,
                solver=solver,
                max_iter=max_iter,
                tol=tol,
                gradient=gradient,
                scaling=scaling,
            )
            for self_cost, mass in zip(self_costs, masses, strict=True)
        )
        self_results = (result_aa, result_bb)
    recorded = gradient == "unrolled" and torch.is_grad_enabled()
    with autocast_off(problem.a), torch.set_grad_enabled(recorded):
        if batch_shape.numel():
            solved = problem if recorded else problem.detach()
            solution = _solve_checked(solved, chosen, max_iter, float(tol), flat_init, scaling and float(scaling))
        else:
            solution = _empty_solution(problem)
    lazy_solver = chosen if isinstance(chosen, LazySolver) else None
    return TransportResult(
        problem, solution, batch_shape, name, gradient, max_iter, float(tol), self_results, lazy_solver
    )


def _choose_solver(problem: Problem, gradient: str) -> str:
    """The fastest solver that can run here and solve these problems."""
    if gradient == "unrolled" or not has_values(problem.a):
        return "dense"
    # Not on a GPU: the fused solver has not been measured on one.
    if problem.a.device.type == "cpu" and missing_requirement("fused") is None and can_import("numba"):
        return "fused"
    if problem.a.device.type == "cpu" and missing_requirement("fused") is not None:
        _say_once_that_numba_is_missing()
    entries = problem.a.shape[0] * problem.a.shape[1] * problem.b.shape[1]
    if isinstance(problem.cost, PointcloudCost) and entries * problem.a.element_size() > _DENSE_BYTES:
        return "dense" if missing_requirement("geomloss-keops") else "geomloss-keops"
    return "dense"


@functools.cache
def _say_once_that_numba_is_missing() -> None:
    # Logged and not warned: where warnings are errors, a slow result would end the program.
    log.warning(
        "solver='auto' takes slower solvers than 'fused', because numba is not installed. On a CPU, 'dense' takes 9 to "
        "60 times as long. Run: pip install 'sslosses[fused]'. To silence this message, choose solver='dense'."
    )


def _flatten_init(init: Potentials, problem: Problem, batch_shape: torch.Size) -> Potentials:
    """The initial potentials with the flat batch of ``problem``."""
    flat = []
    for name, potential, mass in zip(("f", "g"), init, (problem.a, problem.b), strict=True):
        try:
            broadcast = potential.detach().to(mass).expand(*batch_shape, mass.shape[-1])
        except RuntimeError:
            expected = (*batch_shape, mass.shape[-1])
            raise ValueError(
                f"Expected `init` to hold {name} of shape {expected}, but got {tuple(potential.shape)}"
            ) from None
        # An earlier problem of NaN has potentials of NaN, from which no problem would ever recover.
        flat.append(broadcast.reshape(mass.shape).nan_to_num(0, 0, 0))
    return flat[0], flat[1]


def _solve_checked(
    problem: Problem, solver: Solver, max_iter: int, tol: float, init: Potentials | None, scaling: float | None
) -> Solution:
    """Solves, with the error of the plan that the returned potentials stand for, and NaN for non-finite problems."""

    def run(part: Problem, part_init: Potentials | None, part_tol: float | Tensor) -> Solution:
        # Only the dense solver gets a tensor, see below.
        limits: dict[str, Any] = {"max_iter": max_iter, "tol": part_tol}
        if scaling is None:
            solution = solver.solve(part, init=part_init, **limits)
        else:
            solution = _solve_scaled(part, solver, scaling=scaling, **limits)
        _check_solution(solver.name, solution, part)
        return solution

    plain = problem.detach()
    largest_cost = plain.largest_cost()
    finite = (largest_cost + plain.a.sum(-1) + plain.b.sum(-1)).isfinite()
    if not problem.epsilon:
        return _nan_unless(finite, _fix_gauge(problem, run(problem, init, tol)))
    rounding = rounding_error(plain, largest_cost)
    if has_values(rounding):
        solution = _solve_groups(run, problem, init, rounding, tol)
    elif isinstance(solver, DenseSolver):
        # A graph can't be divided by values.
        solution = run(problem, init, torch.where(_needs_half(rounding, tol), 0.5 * tol, tol))
    else:
        solution = run(problem, init, tol)
    return _nan_unless(finite, with_plan_error(plain, _fix_gauge(problem, solution), rounding, tol))


def _needs_half(rounding: Tensor, tol: float) -> Tensor:
    """Which problems have to be solved to tol/2, so that the plan of the rounded potentials is within tol."""
    return ~is_negligible(rounding, tol) & (rounding <= tol)


def _solve_groups(
    run: Callable[[Problem, Potentials | None, float], Solution],
    problem: Problem,
    init: Potentials | None,
    rounding: Tensor,
    tol: float,
) -> Solution:
    """Solves some problems to tol/2 and the others to tol, so that no result depends on the rest of the batch."""
    half = _needs_half(rounding, tol)
    if not bool(half.any()):
        return run(problem, init, tol)
    if bool(half.all()):
        return run(problem, init, 0.5 * tol)
    indices = [half.nonzero()[:, 0], (~half).nonzero()[:, 0]]
    parts = [
        run(problem.select(index), init and (init[0][index], init[1][index]), part_tol)
        for index, part_tol in zip(indices, (0.5 * tol, tol), strict=True)
    ]
    order = torch.cat(indices).argsort()
    fields: Any = (None if field[0] is None else torch.cat(field)[order] for field in zip(*parts, strict=True))
    return Solution(*fields)


def _solve_scaled(problem: Problem, solver: Solver, *, max_iter: int, tol: float, scaling: float) -> Solution:
    """Solves at falling ε, each time from the last potentials. The iterations of all levels count."""
    if problem.a.is_meta:
        return solver.solve(problem, max_iter=max_iter, tol=tol, init=None)
    # One non-finite problem does not affect the rest of the batch.
    level = float(problem.cost_range().nan_to_num(0, 0, 0).max())
    levels = []
    while problem.epsilon < level < float("inf"):
        levels.append(level)
        level *= scaling
    updates = min(_UPDATES_PER_LEVEL, max_iter // max(1, 2 * len(levels)))
    init, spent = None, torch.zeros(problem.a.shape[0], dtype=torch.int64, device=problem.a.device)
    for epsilon in levels if updates else []:
        f, g, iterations, *_ = solver.solve(replace(problem, epsilon=epsilon), max_iter=updates, tol=tol, init=init)
        init, spent = (f, g), spent + iterations
    solution = solver.solve(problem, max_iter=max(1, max_iter - int(spent.max())), tol=tol, init=init)
    return solution._replace(iterations=solution.iterations + spent)


def _check_solution(name: str, solution: Solution, problem: Problem) -> None:
    """Raise unless the solver, which may be a user's own, has returned tensors of the right shapes."""
    if not isinstance(solution, Solution):
        raise TypeError(f"Expected the solver {name!r} to return a Solution, but got {type(solution).__name__}")
    batch = problem.a.shape[:1]
    for field, shape in (
        ("f", problem.a.shape),
        ("g", problem.b.shape),
        ("iterations", batch),
        ("marginal_error", batch),
    ):
        value = getattr(solution, field)
        if not isinstance(value, Tensor) or value.shape != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"Expected the solver {name!r} to return `{field}` as a tensor of shape {tuple(shape)}, but got {got}"
            )


def _fix_gauge(problem: Problem, solution: Solution) -> Solution:
    """Fix the constant that can move from f to g by ⟨f, a⟩ = ⟨g, b⟩, so that all solvers return the same pair."""
    a, b = problem.a.detach(), problem.b.detach()
    row_value, column_value = (solution.f * a).sum(-1, keepdim=True), (solution.g * b).sum(-1, keepdim=True)
    shift = 0.5 * (row_value - column_value) / a.sum(-1, keepdim=True)
    return solution._replace(f=solution.f - shift, g=solution.g + shift)


def _nan_unless(finite: Tensor, solution: Solution) -> Solution:
    """Make every result of a problem with NaN or inf in its cost or masses NaN, as solvers differ on these."""
    # Reading a value waits for a GPU, and there the passes below cost less.
    if finite.device.type == "cpu" and has_values(finite) and bool(finite.all()):
        return solution

    def where_finite(x: Tensor) -> Tensor:
        return x.where(finite.reshape(-1, *[1] * (x.ndim - 1)), torch.nan)

    f, g, iterations, error, plan, transport = solution
    return Solution(
        where_finite(f),
        where_finite(g),
        iterations,
        where_finite(error),
        None if plan is None else where_finite(plan),
        None if transport is None else where_finite(transport),
    )


def _empty_solution(problem: Problem) -> Solution:
    """The solution of an empty batch."""
    empty = problem.a.new_zeros(0)
    plan = None if problem.epsilon else problem.a.new_zeros(0, problem.a.shape[-1], problem.b.shape[-1])
    return Solution(torch.zeros_like(problem.a), torch.zeros_like(problem.b), empty.to(torch.int64), empty, plan)
