"""The linear system behind the exact gradient of ⟨P, C⟩.

The system is [diag a, P; Pᵀ, diag b] [λ; μ] = [r; c] with a = P1, b = Pᵀ1 and Σr = Σc. Eliminating λ leaves

    (diag b − Pᵀ diag(a)⁻¹ P) μ = c − Pᵀ(r / a),    λ = (r − Pμ) / a.

The matrix on the left is symmetric and positive semi-definite, and the system is consistent. Its null space holds the
constants, which cancel in λ ⊕ μ. Alternating between the two rows of the system converges at Sinkhorn's rate; conjugate
gradients, preconditioned by diag b, take about the square root of its iterations.

:func:`solve_columns` is the loop in Python. The compiled kernels of the fused solver have loops of their own and take
the limits below.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslosses._torch import rounds_to_tf32

Product = Callable[[Tensor], Tensor]

# In exact arithmetic M steps suffice; rounding adds some. The loop ends after STEPS_PER_COLUMN · M + EXTRA_STEPS.
STEPS_PER_COLUMN = 3
EXTRA_STEPS = 50
# It also ends when the squared residual is below eps ** RESIDUAL_EXPONENT of the squared scale of λ ⊕ μ, the mean cost
# of a column: a residual of 5e-14, or 1e-6 in float32.
RESIDUAL_EXPONENT = 1.7


def solve_adjoint(rows: Product, columns: Product, a: Tensor, b: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Solves the system for λ (P, N) and μ (P, M) from products with the plan. λ or μ is 0 where a or b is.

    Args:
        rows: v ↦ Pv, (P, M) → (P, N).
        columns: u ↦ Pᵀu, (P, N) → (P, M).
        a: (P, N) row sums of P itself, so that the system is consistent before Sinkhorn has converged, too.
        b: (P, M) column sums of P.
        r: (P, N) right-hand side of the rows.
        c: (P, M) right-hand side of the columns.
    """
    inverse_a = _inverse(a)
    mu = solve_columns(lambda v: columns(inverse_a * rows(v)), b, c, columns(inverse_a * r))
    return inverse_a * (r - rows(mu)), mu


def solve_columns(project: Product, b: Tensor, c: Tensor, projected_r: Tensor, *, eps: float | None = None) -> Tensor:
    """Solves (diag b − Pᵀ diag(a)⁻¹ P) μ = c − Pᵀ(r / a) for μ (..., M) by conjugate gradients.

    Use this instead of :func:`solve_adjoint` if one pass over the plan computes both of its products.

    Args:
        project: μ ↦ Pᵀ(Pμ / a), (..., M) → (..., M).
        b: (..., M) column sums of P; μ is 0 where they are.
        c: (..., M) right-hand side of the columns.
        projected_r: (..., M) Pᵀ(r / a).
        eps: rounding unit of the products; None is that of the dtype of ``b``. Pass it if the products are computed in
            a narrower dtype than the vectors here.
    """
    inverse_b = _inverse(b)
    eps = torch.finfo(b.dtype).eps if eps is None else eps
    limit = eps**RESIDUAL_EXPONENT * (c * inverse_b * c).sum(-1)

    mu = torch.zeros_like(b)
    share = b / b.sum(-1, keepdim=True)
    residual = c - projected_r
    # A residual whose sum is not 0 is rounding. The system has no curvature along its null space to keep it small.
    residual = residual - share * residual.sum(-1, keepdim=True)
    z = inverse_b * residual
    direction = z
    rz = (residual * z).sum(-1)
    for _ in range(STEPS_PER_COLUMN * b.shape[-1] + EXTRA_STEPS):
        active = rz > limit
        if not bool(active.any()):
            break
        image = b * direction - project(direction)
        curvature = (direction * image).sum(-1)
        # A direction without curvature lies in the null space up to rounding; no step along it helps.
        active = active & (curvature > 0)
        step = torch.where(active, rz / curvature, 0).unsqueeze(-1)
        mu = mu + step * direction
        residual = residual - step * image
        residual = residual - share * residual.sum(-1, keepdim=True)
        z = inverse_b * residual
        rz_next = torch.where(active, (residual * z).sum(-1), 0)
        direction = z + torch.where(active, rz_next / rz, 0).unsqueeze(-1) * direction
        rz = rz_next
    return mu


# A custom operator, which torch.compile does not trace: the loop ends on convergence, a branch on data.
@torch.library.custom_op("sslosses::adjoint_potentials", mutates_args=())
def adjoint_potentials(plan: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
    """λ (P, N) and μ (P, M) of a stored plan, for the right-hand side [(P ∘ C)1; (P ∘ C)ᵀ1].

    Args:
        plan: (P, N, M) floating tensor.
        cost: (P, N, M) tensor of the same dtype.
    """
    moved = plan * cost
    # In TF32, conjugate gradients would stop three digits early.
    factor = plan.double() if rounds_to_tf32(plan) else plan
    wide, narrow = factor.dtype, plan.dtype
    return solve_adjoint(
        lambda v: torch.matmul(factor, v.to(wide).unsqueeze(-1)).squeeze(-1).to(narrow),
        lambda u: torch.matmul(u.to(wide).unsqueeze(-2), factor).squeeze(-2).to(narrow),
        a=plan.sum(-1),
        b=plan.sum(-2),
        r=moved.sum(-1),
        c=moved.sum(-2),
    )


@adjoint_potentials.register_fake
def _(plan: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return plan.new_empty(plan.shape[:-1]), plan.new_empty((plan.shape[0], plan.shape[2]))


def _inverse(mass: Tensor) -> Tensor:
    return torch.where(mass > 0, 1 / mass, 0)
