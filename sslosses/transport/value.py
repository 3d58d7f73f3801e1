"""The value of a solved problem and its gradient. All solvers share them; a solver supplies potentials only.

With P = exp((f ⊕ g − C)/ε)·abᵀ the transport value is V = ⟨P, C⟩. Differentiating the marginal constraints gives

    dV = ⟨P ∘ (1 − (C − λ ⊕ μ)/ε), dC⟩ + ⟨λ, da⟩ + ⟨μ, db⟩,
    [diag a, P; Pᵀ, diag b] [λ; μ] = [(P ∘ C)1; (P ∘ C)ᵀ1].

Gradients with respect to a and b are defined up to a constant, since mass that only one of them gains can't be
transported. Here ⟨∂a, a⟩ = ⟨∂b, b⟩ = 0. A normalization (a softmax, a division by the sum) removes the constant anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslosses._torch import autocast_off
from sslosses.transport.adjoint import adjoint_potentials
from sslosses.transport.costs import PointcloudCost
from sslosses.transport.potentials import log_weights
from sslosses.transport.problem import LazySolver, Problem, Solution

Gradients = tuple[Tensor | None, ...]


def compute_value(
    problem: Problem, solution: Solution, kind: str, gradient: str, lazy_solver: LazySolver | None = None
) -> Tensor:
    """Computes the ``"transport"`` or ``"regularized"`` value of every problem, (P,).

    For a lazy cost, ``lazy_solver`` computes value and gradient without the cost's matrix.
    """
    if lazy_solver is not None and isinstance(problem.cost, PointcloudCost):
        cost, f, g = problem.cost, solution.f.detach(), solution.g.detach()
        return _LazyValue.apply(  # type: ignore[no-any-return, no-untyped-call]
            cost.source,
            cost.target,
            problem.a,
            problem.b,
            f,
            g,
            solution.transport,
            problem,
            lazy_solver,
            kind,
            gradient,
        )
    function = transport_value if kind == "transport" else regularized_value
    if isinstance(problem.cost, Tensor) or problem.a.shape[0] < 2:
        return function(problem, solution, gradient)
    # Imported here, as it makes older versions of torch import SymPy, which takes half a second.
    from torch.utils.checkpoint import checkpoint

    # The solver never stored this cost: build one problem's matrix at a time, here and in the backward pass.
    values: list[Tensor] = []
    for i, part in enumerate(problem.split()):
        part_solution = solution._replace(f=solution.f[i : i + 1], g=solution.g[i : i + 1])
        values.append(
            checkpoint(function, part, part_solution, gradient, use_reentrant=False, preserve_rng_state=False)
        )
    return torch.cat(values)


def plan(problem: Problem, solution: Solution) -> Tensor:
    """Computes P = exp((f ⊕ g − C)/ε)·abᵀ, (P, N, M). At ε = 0 it is the solver's own plan."""
    if solution.plan is not None:
        return solution.plan
    return _plan(problem.matrix, problem.a, problem.b, solution.f, solution.g, problem.epsilon)


def transport_value(problem: Problem, solution: Solution, gradient: str) -> Tensor:
    """Computes ⟨P, C⟩, (P,). At ε = 0 the plan is optimal for C itself, so its gradient is always P, f, g."""
    cost = _batched(problem)
    if gradient == "unrolled":
        return (plan(problem, solution) * cost).sum((-2, -1))
    if gradient == "exact" and solution.plan is None:
        f, g = solution.f.detach(), solution.g.detach()
        return _TransportValue.apply(cost, problem.a, problem.b, f, g, problem.epsilon)  # type: ignore[no-any-return, no-untyped-call]
    p = plan(problem, solution).detach()
    return _with_gradient((p * cost.detach()).sum((-2, -1)), problem, solution, p)


def regularized_value(problem: Problem, solution: Solution, gradient: str) -> Tensor:
    """Computes the regularized optimum ⟨f, a⟩ + ⟨g, b⟩, (P,). It is stationary in f, g: its gradient is P, f, g."""
    value = (solution.f * problem.a).sum(-1) + (solution.g * problem.b).sum(-1)
    if gradient == "unrolled":
        return value
    return _with_gradient(value.detach(), problem, solution, plan(problem, solution).detach())


class _TransportValue(torch.autograd.Function):
    """⟨P, C⟩ with its exact gradient. Only the backward pass solves the linear system."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(cost, a, b, f, g)
        ctx.epsilon = epsilon
        return (_plan(cost, a, b, f, g, epsilon) * cost).sum((-2, -1))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Gradients:
        (grad_output,) = grad_outputs
        _refuse_double_backward()
        cost, a, b, f, g = ctx.saved_tensors
        epsilon = ctx.epsilon
        with autocast_off(cost):
            p = _plan(cost, a, b, f, g, epsilon)
            lam, mu = adjoint_potentials(p, cost)
            grads: list[Tensor | None] = [None, None, None]
            if ctx.needs_input_grad[0]:
                grad_cost = p * (1 - (cost - lam.unsqueeze(-1) - mu.unsqueeze(-2)) / epsilon)
                grads[0] = grad_output[:, None, None] * grad_cost
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
                # Computed again from the conditional plans P/a and P/b, which also exist where a or b is 0.
                plan_given_row = torch.softmax((log_weights(b) + g / epsilon).unsqueeze(-2) - cost / epsilon, dim=-1)
                lam = (plan_given_row * (cost - mu.unsqueeze(-2))).sum(-1)
                plan_given_column = torch.softmax((log_weights(a) + f / epsilon).unsqueeze(-1) - cost / epsilon, dim=-2)
                mu = (plan_given_column * (cost - lam.unsqueeze(-1))).sum(-2)
                grads[1] = grad_output[:, None] * _centered(lam, a)
                grads[2] = grad_output[:, None] * _centered(mu, b)
        return (*grads, None, None, None)


class _LazyValue(torch.autograd.Function):
    """Either value of a lazy cost, computed from the points by the solver itself."""

    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        target: Tensor,
        a: Tensor,
        b: Tensor,
        f: Tensor,
        g: Tensor,
        transport: Tensor | None,
        problem: Problem,
        lazy_solver: LazySolver,
        kind: str,
        gradient: str,
    ) -> Tensor:
        ctx.save_for_backward(source, target, a, b, f, g)
        ctx.problem, ctx.lazy_solver = problem.detach(), lazy_solver
        ctx.exact = kind == "transport" and gradient == "exact"
        if kind == "regularized":
            return (f * a).sum(-1) + (g * b).sum(-1)
        return lazy_solver.transport_value(ctx.problem, f, g) if transport is None else transport.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Gradients:
        (grad_output,) = grad_outputs
        _refuse_double_backward()
        _, _, a, b, f, g = ctx.saved_tensors
        with autocast_off(a):
            gradient = ctx.lazy_solver.value_gradient(ctx.problem, f, g, exact=ctx.exact)
            weight = grad_output.unsqueeze(-1)
            grad_a, grad_b = weight * _centered(gradient.a, a), weight * _centered(gradient.b, b)
        return (weight * gradient.source, weight * gradient.target, grad_a, grad_b, *[None] * 7)


class _WithGradient(torch.autograd.Function):
    """A value whose gradients with respect to cost, a and b are passed in."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs_and_gradients: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs_and_gradients[3:])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Gradients:
        (grad_output,) = grad_outputs
        _refuse_double_backward()
        grad_cost, grad_a, grad_b = ctx.saved_tensors
        return (
            None,
            grad_output[:, None, None] * grad_cost if ctx.needs_input_grad[1] else None,
            grad_output[:, None] * grad_a,
            grad_output[:, None] * grad_b,
            None,
            None,
            None,
        )


def _with_gradient(value: Tensor, problem: Problem, solution: Solution, p: Tensor) -> Tensor:
    a, b = problem.a, problem.b
    grad_a, grad_b = _centered(solution.f.detach(), a.detach()), _centered(solution.g.detach(), b.detach())
    return _WithGradient.apply(value, _batched(problem), a, b, p, grad_a, grad_b)  # type: ignore[no-any-return, no-untyped-call]


def _batched(problem: Problem) -> Tensor:
    return problem.matrix.expand(problem.a.shape[0], -1, -1)


def _plan(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float) -> Tensor:
    scores = (f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / epsilon
    # log a and log b go into the exponent, as exp of the scores alone may overflow where a or b is tiny.
    return (scores + log_weights(a).unsqueeze(-1) + log_weights(b).unsqueeze(-2)).exp()


def _centered(gradient: Tensor, weights: Tensor) -> Tensor:
    mean = (gradient * weights).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
    return gradient - mean


def _refuse_double_backward() -> None:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            'The transport value has no second derivative. Use gradient="unrolled" with the dense solver, '
            "or call backward without create_graph."
        )
