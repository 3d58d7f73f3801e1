"""The fused solver: all iterations of all problems in one call, compiled by numba on a CPU and by Triton on a GPU.

The README in this folder says which file does what.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from torch import Tensor

from sslosses import _optional
from sslosses.transport.problem import Potentials, Problem, Solution, ValueGradient


class FusedSolver:
    """Sinkhorn's alternating updates with the plan in a cache, values and gradients included.

    The updates are those of the dense solver, so the potentials after the same number of iterations are, too. A lazy
    cost is recomputed on the fly. For a cost matrix only the iterations are fused; value and gradient use the dense
    code.
    """

    name = "fused"
    entropic = True
    unrolled = False
    lazy = True

    def solve(self, problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
        """Iterates until the row marginals are within ``tol``, and ends with a half-step for f."""
        solution: Solution = _backend(problem).sinkhorn(problem, max_iter=max_iter, tol=tol, init=init)
        return solution

    def transport_value(self, problem: Problem, f: Tensor, g: Tensor) -> Tensor:
        """Computes ⟨P, C⟩ of the plan of f and g, (P,)."""
        value: Tensor = _backend(problem).transport_value(problem, f, g)
        return value

    def value_gradient(self, problem: Problem, f: Tensor, g: Tensor, *, exact: bool) -> ValueGradient:
        """Computes the gradient of ⟨P, C⟩ at the fixed point if ``exact``, else the envelope's: P, f and g."""
        gradient: ValueGradient = _backend(problem).value_gradient(problem, f, g, exact=exact)
        return gradient


def _backend(problem: Problem) -> ModuleType:
    device = problem.a.device.type
    if device == "cpu":
        _optional.require("numba", extra="fused", purpose="The solver 'fused' on a CPU")
        return importlib.import_module("sslosses.transport.solvers.fused.cpu.problems")
    if device == "cuda":
        _optional.require("triton", extra="fused", purpose="The solver 'fused' on a GPU")
        return importlib.import_module("sslosses.transport.solvers.fused.gpu.problems")
    raise ValueError(f"The solver 'fused' runs on cpu and cuda devices, but got {device!r}. Use solver='dense'")
