"""Name → solver, what can run here, and ``solve``."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses import _optional
from sslosses._checks import check_count, check_number, check_option
from sslosses._torch import autocast_off, has_values
from sslosses.transport.costs import PointcloudCost
from sslosses.transport.problem import LazySolver, Potentials, Problem, Solution, Solver, make_problem
from sslosses.transport.result import GRADIENTS, TransportResult
from sslosses.transport.solvers.dense import DenseSolver


class _Entry(NamedTuple):
    """Where a solver is and what it needs, known without importing it."""

    module: str
    attribute: str
    entropic: bool = True
    unrolled: bool = False
    packages: tuple[tuple[str, str | None], ...] = ()  # (package, extra of ours that brings it)
    compiler: bool = False
    supports_init: bool = True  # whether it can start from given potentials


_ENTRIES: Mapping[str, _Entry] = {
    "dense": _Entry("dense", "DenseSolver", unrolled=True),
    "fused": _Entry("fused", "FusedSolver", packages=(("numba", "fused"),)),
    "pot": _Entry("pot", "PotSolver", packages=(("ot", None),)),
    "pot-batch": _Entry("pot", "PotBatchSolver", packages=(("ot", None),), supports_init=False),
    "exact": _Entry("exact", "ExactSolver", entropic=False, packages=(("ot", None),), supports_init=False),
    "geomloss": _Entry("geomloss", "GeomlossSolver", packages=(("geomloss", None),)),
    "geomloss-keops": _Entry("keops", "GeomlossKeopsSolver", packages=(("pykeops", "keops"),), compiler=True),
}

# A cost matrix of which dense and its gradient, several times as large, no longer fit into common memories.
_DENSE_BYTES = 4 << 30

SOLVERS: tuple[str, ...] = ("auto", *_ENTRIES)


@dataclass(frozen=True)
class Availability:
    """Whether a solver can run here; true if it can.

    Attributes:
        ok: whether it can.
        reason: what it is, or why it can't run and the command that changes that.
    """

    ok: bool
    reason: str

    def __bool__(self) -> bool:
        """Same as ``ok``."""
        return self.ok

    def __str__(self) -> str:
        """Same as ``reason``."""
        return self.reason


def available() -> dict[str, Availability]:
    """Which solvers can run here, and for the others why not and which command changes that. Imports none of them.

    Example:
        >>> for name, status in available().items():
        ...     print(f"{name:15} {status}")  # doctest: +SKIP
        dense           ready (epsilon > 0)
        geomloss-keops  The solver 'geomloss-keops' needs the package `pykeops`, ... Run: pip install 'sslosses[keops]'
        >>> bool(available()["dense"])
        True
    """
    statuses = {}
    for name, entry in _ENTRIES.items():
        missing = _missing(name, entry)
        ready = "ready (epsilon > 0)" if entry.entropic else "ready (epsilon = 0)"
        statuses[name] = Availability(missing is None, missing or ready)
    return statuses


def check_solver(
    solver: str | Solver,
    *,
    epsilon: float,
    gradient: str = "exact",
    scaling: float | None = None,
    with_init: bool = False,
) -> str:
    """Raise unless ``solver`` can run here with these options of :func:`solve`; imports and solves nothing.

    ``with_init``: whether it is to start from given potentials.

    Returns:
        The name of the solver that will run. ``"auto"`` is ``"exact"`` for ε = 0; for ε > 0 it stays ``"auto"``, as the
        choice depends on the problems.

    Raises:
        ValueError: if the name is unknown, if an entropic solver gets ε = 0 or the exact one ε > 0, if the solver's
            iterations can't be differentiated and ``gradient`` is ``"unrolled"``, if ``scaling`` is not between 0 and 1
            or comes with ``gradient="unrolled"``, or if the solver can't start from potentials and would have to.
        TypeError: if ``solver`` is neither a name nor has the attributes of :class:`Solver`.
        MissingDependencyError: if a package or a compiler is missing; the message is the command that installs it.

    Example:
        >>> check_solver("auto", epsilon=0.05), check_solver("auto", epsilon=0)
        ('auto', 'exact')
    """
    check_number("epsilon", epsilon, least=0)
    check_option("gradient", gradient, GRADIENTS)
    if scaling is not None:
        check_number("scaling", scaling, above=0)
        if scaling >= 1 or gradient == "unrolled":
            raise ValueError(
                "Expected `scaling` to be below 1, and None for gradient='unrolled', but got "
                f"{scaling:g} with gradient={gradient!r}"
            )
    supports_init = True
    if isinstance(solver, str):
        check_option("solver", solver, SOLVERS)
        if solver == "auto" and epsilon > 0:
            return solver
        name = "exact" if solver == "auto" else solver
        entry = _ENTRIES[name]
        entropic, unrolled, missing = entry.entropic, entry.unrolled, _missing(name, entry)
        supports_init = entry.supports_init
    elif isinstance(solver, Solver) and not isinstance(solver, type):
        name, entropic, unrolled, missing = solver.name, solver.entropic, solver.unrolled, None
    else:
        raise TypeError(
            "Expected `solver` to be a name or an object with name, entropic, unrolled, lazy and solve, "
            f"but got {f'the class {solver.__name__}' if isinstance(solver, type) else type(solver).__name__}"
        )
    if entropic and epsilon == 0:
        raise ValueError(f"The solver {name!r} needs epsilon > 0, but got 0. Use solver='exact' for epsilon = 0")
    if not entropic and epsilon > 0:
        raise ValueError(
            f"The solver {name!r} solves the unregularized problem only, but got epsilon = {epsilon:g}. "
            "Set epsilon=0, or use solver='auto' or 'dense' for epsilon > 0"
        )
    if gradient == "unrolled" and not unrolled:
        raise ValueError(
            f"The iterations of the solver {name!r} can't be differentiated. "
            "Use solver='dense' with gradient='unrolled', or gradient='exact'"
        )
    if (with_init or scaling is not None) and not supports_init:
        raise ValueError(f"The solver {name!r} can't start from potentials. Use another one, such as 'dense'")
    if missing is not None:
        raise _optional.MissingDependencyError(missing)
    return name


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
    """Solve min ⟨P, C⟩ + ε KL(P | abᵀ) over P ≥ 0 with P1 = a, Pᵀ1 = b, for a batch of problems.

    Computes in float64 if any argument is, else in float32, also for half precision and inside autocast. Batch
    dimensions broadcast: one (N, M) cost serves (..., N) marginals.

    Args:
        cost: (..., N, M) floating tensor, or a :func:`pointcloud_cost`; N and M at least 1.
        a: (..., N) non-negative mass of the rows; None is 1/N each. Entries of 0 (padding) are allowed.
        b: (..., M) mass of the columns, with the same sum as ``a``; None is 1/M each.
        epsilon: ε in the units of the cost; 0 is the unregularized problem. From 1e-3 of the largest cost on float32
            suffices.
        solver: a name of ``SOLVERS`` or an object with the protocol :class:`Solver`. ``"auto"`` never changes the
            problem: ``"exact"`` for ε = 0; for ε > 0 ``"fused"`` on a CPU with numba, else ``"dense"``, or
            ``"geomloss-keops"`` for described costs above 4 GiB.
        max_iter: most updates of both potentials. The exact solver has no use for it.
        tol: marginal error Σ|P1 − a| + Σ|Pᵀ1 − b| at which a problem is solved.
        gradient: default of :meth:`TransportResult.value`. ``"unrolled"`` records the iterations, which only
            ``"dense"`` can.
        self_costs: costs (..., N, N) of a against a and (..., M, M) of b against b; solved too, for
            ``value(kind="divergence")``.
        init: potentials (f, g) of shapes (..., N) and (..., M) to start from, such as those of an earlier result.
            What is NaN or inf in them counts as 0. ``"pot-batch"`` and ``"exact"`` can't use it.
        scaling: ε-scaling: solve first at the largest cost instead of ε, then at ``scaling`` times that and so on down
            to ε, each from the potentials of the last; between 0 and 1, for example 0.5. Half of ``max_iter`` at most,
            and no more than 20 updates each, go to the larger ε. It pays for small ε. None: off.

    Returns:
        A :class:`TransportResult`. Lack of convergence is never an error but told by ``result.converged`` and
        ``result.status``.

    Raises:
        TypeError, ValueError: on arguments of a wrong type, shape, device, mass or range; see :func:`check_solver`.
        MissingDependencyError: if the solver needs a package or a compiler that is missing, before any work.

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
        raise ValueError("Expected `init` or `scaling`, which makes its own start, but got both")
    check_count("max_iter", max_iter)
    check_number("tol", tol, above=0)
    problem, batch_shape = make_problem(cost, a, b, float(epsilon), differentiable=gradient == "unrolled")
    if name == "auto":
        name = _automatic(problem, gradient)
    if problem.a.is_meta and isinstance(solver, str) and name != "dense":
        raise ValueError(f"Expected `solver` to be 'dense' for meta tensors, which have no values, but got {name!r}")
    chosen = _load(name) if isinstance(solver, str) else solver
    if not chosen.lazy:
        with autocast_off(problem.a):
            problem = problem.materialized()
    start = None if init is None else _start(init, problem, batch_shape)
    self_results = None
    if self_costs is not None:
        of_a, of_b = (
            solve(
                each,
                mass,
                mass,
                epsilon=epsilon,
                solver=solver,
                max_iter=max_iter,
                tol=tol,
                gradient=gradient,
                scaling=scaling,
            )
            for each, mass in zip(
                self_costs,
                (problem.a.reshape(*batch_shape, -1), problem.b.reshape(*batch_shape, -1)),
                strict=True,
            )
        )
        self_results = (of_a, of_b)
    recorded = gradient == "unrolled" and torch.is_grad_enabled()
    with autocast_off(problem.a), torch.set_grad_enabled(recorded):
        if batch_shape.numel():
            given = problem if recorded else problem.detach()
            if scaling is None:
                solution = chosen.solve(given, max_iter=max_iter, tol=float(tol), init=start)
            else:
                solution = _scaled(given, chosen, max_iter, float(tol), float(scaling))
            if not isinstance(solver, str):
                _check_solution(name, solution, problem)
            solution = _not_a_number_unless_finite(problem, _balanced(problem, solution))
        else:
            solution = _nothing(problem)
    kernels = chosen if isinstance(chosen, LazySolver) else None
    return TransportResult(problem, solution, batch_shape, name, gradient, max_iter, float(tol), self_results, kernels)


def _scaled(problem: Problem, solver: Solver, max_iter: int, tol: float, scaling: float) -> Solution:
    """Solve at falling ε, each time from the potentials before; the iterations of all levels count."""
    if problem.a.is_meta:
        return solver.solve(problem, max_iter=max_iter, tol=tol, init=None)
    largest = problem.cost.bound() if isinstance(problem.cost, PointcloudCost) else _largest(problem.cost)
    levels = []
    while problem.epsilon < largest < float("inf"):
        levels.append(largest)
        largest *= scaling
    each = min(20, max_iter // max(1, 2 * len(levels)))
    start, spent = None, torch.zeros(problem.a.shape[0], dtype=torch.int64, device=problem.a.device)
    for epsilon in levels if each else []:
        f, g, iterations, *_ = solver.solve(replace(problem, epsilon=epsilon), max_iter=each, tol=tol, init=start)
        start, spent = (f, g), spent + iterations
    solution = solver.solve(problem, max_iter=max(1, max_iter - int(spent.max())), tol=tol, init=start)
    return solution._replace(iterations=solution.iterations + spent)


def _largest(cost: Tensor) -> float:
    """The largest finite entry: a problem that is not finite is no matter of the others."""
    return float(cost.nan_to_num(0, 0, 0).max())


def _automatic(problem: Problem, gradient: str) -> str:
    """The fastest solver for these problems of those that can run here."""
    if gradient == "unrolled" or not has_values(problem.a):
        return "dense"
    # On a GPU only once it has been measured on one.
    if problem.a.device.type == "cpu" and _missing("fused", _ENTRIES["fused"]) is None:
        return "fused"
    described = isinstance(problem.cost, PointcloudCost)
    entries = problem.a.shape[0] * problem.a.shape[1] * problem.b.shape[1]
    if described and entries * problem.a.element_size() > _DENSE_BYTES:
        keops = "geomloss-keops"
        return "dense" if _missing(keops, _ENTRIES[keops]) else keops
    return "dense"


def _missing(name: str, entry: _Entry) -> str | None:
    """Why a solver can't run here and the command that changes that, or None."""
    for package, extra in entry.packages:
        if not _optional.is_installed(package):
            target = f"'sslosses[{extra}]'" if extra else "sslosses"
            needs = f"The solver {name!r} needs the package `{package}`, which is not installed."
            return f"{needs} Run: pip install {target}"
    if entry.compiler and not _compiler():
        return (
            f"The solver {name!r} compiles its formulas and needs a C++ compiler (g++, or the one that CXX names), but "
            "found none. Run: apt-get install g++ (Debian, Ubuntu), xcode-select --install (macOS) or "
            "conda install -c conda-forge cxx-compiler"
        )
    return None


def _compiler() -> str | None:
    # KeOps looks in these places, in this order.
    candidates = [os.environ.get("CXX") or "g++", "clang++" if sys.platform == "darwin" else "g++", "g++"]
    return next((path for path in map(shutil.which, candidates) if path), None)


def _load(name: str) -> Solver:
    # The one solver that needs torch only is imported above: torch.compile can't trace an import.
    if name == "dense":
        return DenseSolver()
    entry = _ENTRIES[name]
    module = importlib.import_module(f"sslosses.transport.solvers.{entry.module}")
    solver: Solver = getattr(module, entry.attribute)()
    return solver


def _start(init: Potentials, problem: Problem, batch_shape: torch.Size) -> Potentials:
    start = []
    for name, value, like in zip(("f", "g"), init, (problem.a, problem.b), strict=True):
        try:
            broadcast = value.detach().to(like).expand(*batch_shape, like.shape[-1])
        except RuntimeError:
            expected = (*batch_shape, like.shape[-1])
            raise ValueError(
                f"Expected `init` to hold {name} of shape {expected}, but got {tuple(value.shape)}"
            ) from None
        # A problem of NaN has potentials of NaN, from which none would ever recover: it starts from nothing.
        start.append(broadcast.reshape(like.shape).nan_to_num(0, 0, 0))
    return start[0], start[1]


def _check_solution(name: str, solution: Solution, problem: Problem) -> None:
    """Raise unless a solver of the user's own has returned what it should."""
    if not isinstance(solution, Solution):
        raise TypeError(f"Expected the solver {name!r} to return a Solution, but got {type(solution).__name__}")
    each = problem.a.shape[:1]
    for field, shape in (
        ("f", problem.a.shape),
        ("g", problem.b.shape),
        ("iterations", each),
        ("marginal_error", each),
    ):
        value = getattr(solution, field)
        if not isinstance(value, Tensor) or value.shape != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"Expected the solver {name!r} to return `{field}` as a tensor of shape {tuple(shape)}, but got {got}"
            )


def _balanced(problem: Problem, solution: Solution) -> Solution:
    """Fix the constant that f and g share, so that all solvers return the same pair: ⟨f, a⟩ = ⟨g, b⟩."""
    a, b = problem.a.detach(), problem.b.detach()
    of_f, of_g = (solution.f * a).sum(-1, keepdim=True), (solution.g * b).sum(-1, keepdim=True)
    shift = 0.5 * (of_f - of_g) / a.sum(-1, keepdim=True)
    return solution._replace(f=solution.f - shift, g=solution.g + shift)


def _not_a_number_unless_finite(problem: Problem, solution: Solution) -> Solution:
    """NaN in all that a problem with NaN or inf in its cost or masses has; what solvers make of these differs."""
    cost = problem.cost
    if isinstance(cost, Tensor):
        finite = cost.isfinite().flatten(1).all(1)
    else:
        finite = (cost.source.isfinite().all(-1) & cost.target.isfinite().all(-1)) & (
            cost.source_positions.isfinite().all() & cost.target_positions.isfinite().all()
        )
    finite = finite & problem.a.isfinite().all(-1) & problem.b.isfinite().all(-1)

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


def _nothing(problem: Problem) -> Solution:
    count = problem.a.new_zeros(0)
    p = None if problem.epsilon else problem.a.new_zeros(0, problem.a.shape[-1], problem.b.shape[-1])
    return Solution(torch.zeros_like(problem.a), torch.zeros_like(problem.b), count.to(torch.int64), count, p)
