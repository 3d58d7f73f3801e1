"""POT's Sinkhorn in the log domain, per problem or as a batch.

POT minimizes ⟨P, C⟩ + ε Σ P log P, without the reference measure abᵀ of our KL. Its plan is the same, its value is not.
Its dual variables are defined by P = exp(u ⊕ v − C/ε), so u = f/ε + log a and v = g/ε + log b. We take u or v, which is
−∞ where a marginal is 0, and add one half-step of our own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslosses.transport._foreign import load
from sslosses.transport.potentials import column_potential, finish, log_weights, row_potential
from sslosses.transport.problem import Potentials, Problem, Solution


class PotSolver:
    """Calls ``ot.bregman.sinkhorn_log`` per problem."""

    name = "pot"
    entropic = True
    unrolled = False
    lazy = False

    @np.errstate(divide="ignore", invalid="ignore")  # of masses of 0, as in torch
    def solve(self, problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
        """Iterates until POT's error is within ``tol``; POT tests it at iterations 1, 11, 21, … only."""
        ot = load("ot", solver=self.name)
        cost, epsilon = problem.matrix, problem.epsilon
        batch, columns = problem.b.shape
        log_a, log_b = log_weights(problem.a), log_weights(problem.b)
        start = None if init is None else (_array(init[0] / epsilon + log_a), _array(init[1] / epsilon + log_b))
        a, b, matrices = _array(problem.a), _array(problem.b), _array(cost.expand(batch, -1, -1))
        duals, counts = [], []
        for i in range(batch):
            warmstart = None if start is None else (start[0][i], start[1][i])
            _, log = ot.bregman.sinkhorn_log(
                a[i],
                b[i],
                matrices[i],
                epsilon,
                numItermax=max_iter,
                # POT measures in L2, and a vector's L1 norm is at most √M times its L2 norm.
                stopThr=tol / math.sqrt(columns),
                log=True,
                warn=False,
                warmstart=warmstart,
            )
            duals.append(torch.as_tensor(log["log_v"], device=problem.a.device))
            counts.append(log["niter"] + 1)
        # POT updates v, then u: our half-step stands for its u.
        g = _potential(torch.stack(duals), log_b)
        cost = cost / epsilon
        f = row_potential(cost, log_b, g)
        return finish(problem, cost, f, g, torch.tensor(counts, device=f.device))


class PotBatchSolver:
    """Calls ``ot.batch.solve_batch``, which stops when the slowest problem has converged. Takes no ``init``."""

    name = "pot-batch"
    entropic = True
    unrolled = False
    lazy = False

    @np.errstate(divide="ignore", invalid="ignore")  # of masses of 0, as in torch
    def solve(self, problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:  # noqa: ARG002
        """Iterates until POT's error is within ``tol``; POT tests it at iterations 1, 11, 21, … only."""
        batch = load("ot.batch", solver=self.name)
        cost, epsilon = problem.matrix, problem.epsilon
        size, rows = problem.a.shape
        log_a, log_b = log_weights(problem.a), log_weights(problem.b)
        # L2 again, here over the rows.
        solved = batch.solve_batch(
            _array(cost.expand(size, -1, -1)),
            epsilon,
            _array(problem.a),
            _array(problem.b),
            max_iter=max_iter,
            tol=tol / math.sqrt(rows),
            method="log_sinkhorn",
            grad="detach",
        )
        # The batch version updates u, then v: our half-step stands for its v.
        cost = cost / epsilon
        g = column_potential(cost, log_a, _potential(torch.as_tensor(solved.potentials[0], device=log_a.device), log_a))
        f = row_potential(cost, log_b, g)
        return finish(problem, cost, f, g, torch.full((size,), solved.log["n_iter"] + 1, device=f.device))


def _array(tensor: Tensor) -> Any:
    """Returns what POT computes with: the tensor, or for a tensor on the CPU beside a GPU the same memory as NumPy's.

    For any tensor of torch, POT would start CUDA where there is a GPU, which takes some hundred megabytes of it.
    """
    return tensor if tensor.is_cuda or not torch.cuda.is_available() else tensor.detach().numpy()


def _potential(dual: Tensor, log_weight: Tensor) -> Tensor:
    # Where the weight is 0, any finite number is right: the half-step multiplies it by 0.
    return torch.where(log_weight.isfinite(), dual - log_weight, 0)
