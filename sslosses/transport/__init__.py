"""Optimal transport: problem → solver → result → one differentiable value.

All solvers follow one convention: min ⟨P, C⟩ + ε KL(P | abᵀ) over P ≥ 0 with P1 = a, Pᵀ1 = b. Importing this package
imports torch only. The packages of a solver are imported when it is used.
"""

from sslosses._optional import MissingDependencyError
from sslosses.transport.catalog import SOLVERS, Availability, available, check_solver
from sslosses.transport.costs import (
    PointcloudCost,
    grid_cost,
    grid_positions,
    lazy_grid_cost,
    pointcloud_cost,
)
from sslosses.transport.problem import LazySolver, Problem, Solution, Solver, ValueGradient
from sslosses.transport.result import (
    GRADIENTS,
    KINDS,
    ConvergenceWarning,
    TransportResult,
    warn_if_not_converged,
)
from sslosses.transport.solve import solve

__all__ = [
    "GRADIENTS",
    "KINDS",
    "SOLVERS",
    "Availability",
    "ConvergenceWarning",
    "LazySolver",
    "MissingDependencyError",
    "PointcloudCost",
    "Problem",
    "Solution",
    "Solver",
    "TransportResult",
    "ValueGradient",
    "available",
    "check_solver",
    "grid_cost",
    "grid_positions",
    "lazy_grid_cost",
    "pointcloud_cost",
    "solve",
    "warn_if_not_converged",
]
