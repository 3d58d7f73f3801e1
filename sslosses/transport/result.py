"""The result of ``solve``: potentials, values, and how the solver ended."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from sslosses._checks import check_option
from sslosses._torch import autocast_off, has_values
from sslosses.transport.problem import LazySolver, Potentials, Problem, Solution
from sslosses.transport.status import describe
from sslosses.transport.value import compute_value, plan

KINDS = ("transport", "regularized", "divergence")
GRADIENTS = ("exact", "envelope", "unrolled")


class ConvergenceWarning(UserWarning):
    """A transport problem stopped before its marginal error was within the tolerance."""


@dataclass(frozen=True, eq=False, repr=False)
class TransportResult:
    """A batch of solved transport problems. Its tensors have the batch shape (...) of the arguments of ``solve``.

    Attributes:
        problem: the problems as solved, with a flat batch.
        solution: their solution, with a flat batch.
        batch_shape: the shape (...).
        solver: name of the solver that ran; never ``"auto"``.
        gradient: the default of :meth:`value`.
        max_iter: the limit of the iterations.
        tol: the tolerance of the marginal error.
        self_results: results of a against a and of b against b, if ``solve`` got ``self_costs``; else None.
        lazy_solver: the solver, if it computes values and gradients without the cost's matrix; else None.
    """

    problem: Problem
    solution: Solution
    batch_shape: torch.Size
    solver: str
    gradient: str
    max_iter: int
    tol: float
    self_results: tuple[TransportResult, TransportResult] | None = None
    lazy_solver: LazySolver | None = None

    @property
    def potentials(self) -> Potentials:
        """f (..., N) and g (..., M), in units of the cost, with ⟨f, a⟩ = ⟨g, b⟩; finite also where a marginal is 0."""
        f, g = self.solution.f, self.solution.g
        return f.reshape(*self.batch_shape, f.shape[-1]), g.reshape(*self.batch_shape, g.shape[-1])

    @property
    def plan(self) -> Tensor:
        """P, (..., N, M). It has a graph only if ``solve`` was unrolled; differentiate :meth:`value` instead."""
        with autocast_off(self.solution.f):
            p = plan(self.problem, self.solution)
        p = p if self.gradient == "unrolled" else p.detach()
        return p.reshape(*self.batch_shape, *p.shape[-2:])

    @property
    def marginal_error(self) -> Tensor:
        """Σ|P1 − a| + Σ|Pᵀ1 − b|, (...)."""
        return self.solution.marginal_error.reshape(self.batch_shape)

    @property
    def iterations(self) -> Tensor:
        """Number of updates of both potentials, (...) int64; 0 for the exact solver."""
        return self.solution.iterations.reshape(self.batch_shape)

    @property
    def converged(self) -> Tensor:
        """True where the marginal error is within ``tol``, (...) bool."""
        return self.marginal_error <= self.tol

    @property
    def epsilon(self) -> float:
        """ε of the problems, in units of the cost."""
        return self.problem.epsilon

    def value(self, kind: str = "transport", gradient: str | None = None) -> Tensor:
        """Computes the value of every problem, differentiable with respect to the cost, a and b.

        Gradients with respect to a and b are centered, ⟨∂a, a⟩ = 0. They are the gradients of the value after a
        normalization to mass 1.

        Args:
            kind:
                - ``"transport"``: ⟨P, C⟩, Cuturi's Sinkhorn distance; at ε = 0 the Wasserstein distance.
                - ``"regularized"``: ⟨f, a⟩ + ⟨g, b⟩ = ⟨P, C⟩ + ε KL(P | abᵀ).
                - ``"divergence"``: regularized(a, b) − ½ regularized(a, a) − ½ regularized(b, b). It is 0 between equal
                  measures and needs ``self_costs``.
            gradient:
                - ``"exact"``: gradient of this value at the fixed point, by the implicit function theorem.
                - ``"envelope"``: P for the cost, f and g for a and b. This is the gradient of the regularized value. It
                  is exact for ``"regularized"`` and ``"divergence"``, and biased for ``"transport"``, as it treats the
                  plan as constant.
                - ``"unrolled"``: through the iterations, if ``solve`` was called with it.
                - None: the ``gradient`` of ``solve``.

        Returns:
            (...) tensor in units of the cost.

        Raises:
            ValueError: if an option is unknown, if ``"unrolled"`` was not the ``gradient`` of ``solve``, or if
                ``"divergence"`` has no ``self_costs``.

        Example:
            >>> from sslosses.transport import grid_cost, solve
            >>> result = solve(grid_cost(2, 2), epsilon=0.05)
            >>> result.value(), result.value("regularized")
            (tensor(4.5906e-05), tensor(0.0693))
        """
        gradient = self.gradient if gradient is None else gradient
        check_option("kind", kind, KINDS)
        check_option("gradient", gradient, GRADIENTS)
        if gradient == "unrolled" and self.gradient != "unrolled":
            raise ValueError(
                'Expected a solve with gradient="unrolled" for value(gradient="unrolled"), but it was called with '
                f"gradient={self.gradient!r}"
            )
        if kind == "divergence":
            if self.self_results is None:
                raise ValueError(
                    'value(kind="divergence") needs the costs of a against a and of b against b. '
                    "Call solve(..., self_costs=(cost_aa, cost_bb))"
                )
            value_aa, value_bb = (result.value("regularized", gradient) for result in self.self_results)
            return self.value("regularized", gradient) - 0.5 * value_aa - 0.5 * value_bb
        with autocast_off(self.solution.f):
            value = compute_value(self.problem, self.solution, kind, gradient, self.lazy_solver)
        return value.reshape(self.batch_shape)

    @property
    def status(self) -> str:
        """How the solver ended. If a problem did not converge, it says why and what to change."""
        return describe(self)

    def __repr__(self) -> str:
        size = " x ".join(str(n) for n in (self.solution.f.shape[-1], self.solution.g.shape[-1]))
        return (
            f"TransportResult(batch={tuple(self.batch_shape)}, size={size}, solver={self.solver!r}, "
            f"epsilon={self.problem.epsilon:g}, status={self.status!r})"
        )


def warn_if_not_converged(result: TransportResult, stacklevel: int = 2) -> bool:
    """Warns with the status of ``result``, or of its self problems, if a problem did not converge.

    Args:
        result: the result of ``solve``.
        stacklevel: as for ``warnings.warn``.

    Returns:
        True if it warned. Always False under ``torch.compile`` and for meta tensors, as there are no values to look at.

    Example:
        >>> import torch
        >>> from sslosses.transport import solve
        >>> warn_if_not_converged(solve(torch.eye(3), epsilon=0.1))
        False
    """
    if not has_values(result.solution.f):
        return False
    for solved in (result, *(result.self_results or ())):
        if not bool(solved.converged.all()):
            warnings.warn(solved.status, ConvergenceWarning, stacklevel=stacklevel + 1)
            return True
    return False
