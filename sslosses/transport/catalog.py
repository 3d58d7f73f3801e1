"""The solvers by name: which exist, which can run here, and how they are loaded."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sslosses import _optional
from sslosses._checks import check_number, check_option
from sslosses.transport._foreign import find_keops_problem, load
from sslosses.transport.problem import Solver
from sslosses.transport.result import GRADIENTS
from sslosses.transport.solvers.dense import DenseSolver


class _Entry(NamedTuple):
    """Where a solver is and what it needs, known without importing it."""

    module: str
    attribute: str
    entropic: bool = True
    unrolled: bool = False
    packages: tuple[tuple[str, str | None], ...] = ()  # (package, the extra of sslosses that installs it)
    compiler: bool = False
    supports_init: bool = True


_ENTRIES: Mapping[str, _Entry] = {
    "dense": _Entry("dense", "DenseSolver", unrolled=True),
    "fused": _Entry("fused", "FusedSolver", packages=(("numba", "fused"),)),
    "pot": _Entry("pot", "PotSolver", packages=(("ot", None),)),
    "pot-batch": _Entry("pot", "PotBatchSolver", packages=(("ot", None),), supports_init=False),
    "exact": _Entry("exact", "ExactSolver", entropic=False, packages=(("ot", None),), supports_init=False),
    "geomloss": _Entry("geomloss", "GeomlossSolver", packages=(("geomloss", None),)),
    "geomloss-keops": _Entry("keops", "GeomlossKeopsSolver", packages=(("pykeops", "keops"),), compiler=True),
}

SOLVERS: tuple[str, ...] = ("auto", *_ENTRIES)


@dataclass(frozen=True)
class Availability:
    """Whether a solver can run here. Its truth value is ``ok``, its text is ``reason``.

    Attributes:
        ok: True if the solver can run.
        reason: "ready" and the range of ε, or what is missing and the command that installs it.
    """

    ok: bool
    reason: str

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return self.reason


def available() -> dict[str, Availability]:
    """Lists which solvers can run here, and what the others need.

    It imports their packages, to see whether that works, and makes KeOps' cache folder, to see whether it can be
    written.

    Returns:
        One :class:`Availability` per solver name, without ``"auto"``.

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
        missing = missing_requirement(name) or _find_import_problem(name)
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
    """Checks that ``solver`` can run here with these options of :func:`solve`. Imports and solves nothing.

    Args:
        solver: a name of ``SOLVERS``, or an object with the protocol :class:`Solver`.
        epsilon: ε, at least 0.
        gradient: ``"exact"``, ``"envelope"`` or ``"unrolled"``.
        scaling: ratio of ε-scaling between 0 and 1, or None.
        with_init: True if the solver will get initial potentials.

    Returns:
        The name of the solver that will run. ``"auto"`` becomes ``"exact"`` for ε = 0. For ε > 0 it stays ``"auto"``,
        as the choice depends on the problems.

    Raises:
        ValueError: if the name is unknown; if an entropic solver gets ε = 0 or the exact one ε > 0; if ``gradient`` is
            ``"unrolled"`` and the solver's iterations can't be differentiated; if ``scaling`` is not between 0 and 1
            or comes with ``gradient="unrolled"``; if the solver can't start from potentials, but ``with_init`` or
            ``scaling`` asks for it.
        TypeError: if ``solver`` is neither a name nor an object with the attributes of :class:`Solver`.
        MissingDependencyError: if a package, a compiler or a folder for what it compiles is missing. The message says
            what to do.

    Example:
        >>> check_solver("auto", epsilon=0.05), check_solver("auto", epsilon=0)
        ('auto', 'exact')
    """
    epsilon = check_number("epsilon", epsilon, least=0)
    check_option("gradient", gradient, GRADIENTS)
    if scaling is not None:
        scaling = check_number("scaling", scaling, above=0)
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
        entropic, unrolled, supports_init = entry.entropic, entry.unrolled, entry.supports_init
        missing = missing_requirement(name)
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


def load_solver(name: str) -> Solver:
    """Imports a solver and makes one."""
    # The one solver that needs torch only is imported above: torch.compile can't trace an import.
    if name == "dense":
        return DenseSolver()
    entry = _ENTRIES[name]
    module = importlib.import_module(f"sslosses.transport.solvers.{entry.module}")
    solver: Solver = getattr(module, entry.attribute)()
    return solver


def missing_requirement(name: str) -> str | None:
    """Returns what the solver ``name`` lacks and the command that installs it; None if it can run here."""
    entry = _ENTRIES[name]
    for package, extra in entry.packages:
        if not _optional.is_installed(package):
            target = f"'sslosses[{extra}]'" if extra else "sslosses"
            needs = f"The solver {name!r} needs the package `{package}`, which is not installed."
            return f"{needs} Run: pip install {target}"
    if not entry.compiler:
        return None
    if not _find_compiler():
        return (
            f"The solver {name!r} compiles its formulas and needs a C++ compiler (g++, or the one that CXX names), but "
            "found none. Run: apt-get install g++ (Debian, Ubuntu), xcode-select --install (macOS) or "
            "conda install -c conda-forge cxx-compiler"
        )
    problem = find_keops_problem()
    return None if problem is None else f"The solver {name!r} compiles its formulas, but {problem}"


def _find_import_problem(name: str) -> str | None:
    """Says why a package of the solver ``name`` that is installed can't be imported."""
    for package, extra in _ENTRIES[name].packages:
        try:
            load(package, solver=name, extra=extra)
        except _optional.MissingDependencyError as error:
            return str(error)
    return None


def _find_compiler() -> str | None:
    # KeOps looks in these places, in this order.
    candidates = [os.environ.get("CXX") or "g++", "clang++" if sys.platform == "darwin" else "g++", "g++"]
    return next((path for path in map(shutil.which, candidates) if path), None)
