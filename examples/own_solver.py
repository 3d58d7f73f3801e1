"""Pass a transport solver of your own to the ORI loss.

A solver returns potentials. The library computes plan, value and exact gradient from them, so there is no backward pass
to write. This solver is Sinkhorn's iteration as in textbooks. The program compares it with the library's reference
solver, and then computes the ORI loss and its gradient with both.

    python examples/own_solver.py
"""

import torch
from torch import Tensor

from sslosses import ORILoss
from sslosses.transport import Problem, Solution, solve


class Textbook:
    """Scales K = exp(-C/ε) until rows and columns have the right sums. A small ε exceeds the range of float32."""

    name = "textbook"  # appears in messages
    entropic = True  # solves problems with ε > 0
    unrolled = False  # its iterations are not differentiated
    lazy = False  # needs the cost as a matrix

    def solve(self, problem: Problem, *, max_iter: int, tol: float, init: tuple[Tensor, Tensor] | None) -> Solution:
        a, b, epsilon = problem.a, problem.b, problem.epsilon  # (P, N), (P, M)
        kernel = torch.exp(-problem.matrix / epsilon)  # (P, N, M)
        v = torch.ones_like(b) if init is None else torch.exp(init[1] / epsilon)
        iterations, error = 0, torch.full_like(a[:, 0], torch.inf)
        while iterations < max_iter and bool((error > tol).any()):
            iterations += 1
            u = 1 / (kernel @ (b * v)[..., None])[..., 0]
            v = 1 / (kernel.mT @ (a * u)[..., None])[..., 0]  # now the columns are exact
            row_sums = a * u * (kernel @ (b * v)[..., None])[..., 0]
            error = (row_sums - a).abs().sum(-1)
        return Solution(epsilon * u.log(), epsilon * v.log(), torch.full(error.shape, iterations), error)


torch.manual_seed(0)
cost = torch.rand(4, 49, 49)
for epsilon in (0.1, 0.02):
    result = solve(cost, epsilon=epsilon, solver=Textbook(), max_iter=500, tol=1e-5)
    reference = solve(cost, epsilon=epsilon, solver="dense", max_iter=500, tol=1e-5)
    difference = float((result.plan - reference.plan).abs().max() / reference.plan.max())
    print(
        f"ε = {epsilon}: <P, C> = {result.value().mean():.4f} after {int(result.iterations.max())} iterations; "
        f"dense: {reference.value().mean():.4f}; plans differ by {difference:.0e} of the largest entry"
    )

visual = torch.randn(2, 16, 7, 7, requires_grad=True)
foreground, background = torch.randn(2, 2, 16), torch.randn(2, 16)
for solver in (Textbook(), "dense"):
    visual.grad = None
    loss = ORILoss(solver=solver, epsilon=0.1, max_iter=500, tol=1e-5)(visual, foreground, background)
    loss.backward()
    name = solver if isinstance(solver, str) else solver.name
    print(f"ORI with {name}: loss {loss.item():.4f}, norm of the gradient {visual.grad.norm().item():.5f}")
