"""The linear system behind the exact gradient of ⟨P, C⟩."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def solve_adjoint(rows: Product, columns: Product, a: Tensor, b: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Solve [diag a, P; Pᵀ, diag b] [λ; μ] = [r; c] for λ (P, N) and μ (P, M), where a = P1, b = Pᵀ1 and Σr = Σc.

    Eliminating λ leaves (diag b − Pᵀ diag(a)⁻¹ P) μ = c − Pᵀ(r / a). It is symmetric, positive semi-definite and
    consistent; its null space, a constant, is that of (1, −1) in the system, which λ ⊕ μ does not see. Alternating
    between the two rows of the system converges at Sinkhorn's rate; conjugate gradients, preconditioned by diag b, take
    about the square root of its iterations. λ or μ is 0 where a or b is.

    Args:
        rows: v ↦ Pv, (P, M) → (P, N).
        columns: u ↦ Pᵀu, (P, N) → (P, M).
        a: (P, N) row sums of P itself, so that the system is consistent also before Sinkhorn has converged.
        b: (P, M) column sums of P.
        r: (P, N) right-hand side of the rows.
        c: (P, M) right-hand side of the columns.
    """
    inverse_a, inverse_b = _inverse(a), _inverse(b)
    # A residual of 5e-14 (float32: 1e-6) of the mean cost of a column, the scale of λ ⊕ μ; squared, as rz below is.
    limit = torch.finfo(b.dtype).eps ** 1.7 * (c * inverse_b * c).sum(-1)

    mu = torch.zeros_like(b)
    share = b / b.sum(-1, keepdim=True)
    residual = c - columns(inverse_a * r)
    # A sum other than 0 is rounding. Along the null space the system has no curvature to keep it small.
    residual = residual - share * residual.sum(-1, keepdim=True)
    z = inverse_b * residual
    direction = z
    rz = (residual * z).sum(-1)
    # In exact arithmetic M steps suffice; with rounding some more.
    for _ in range(3 * b.shape[-1] + 50):
        active = rz > limit
        if not bool(active.any()):
            break
        image = b * direction - columns(inverse_a * rows(direction))
        curvature = (direction * image).sum(-1)
        # A direction without curvature lies in the null space up to rounding: nothing is left to gain along it.
        active = active & (curvature > 0)
        step = torch.where(active, rz / curvature, 0).unsqueeze(-1)
        mu = mu + step * direction
        residual = residual - step * image
        residual = residual - share * residual.sum(-1, keepdim=True)
        z = inverse_b * residual
        rz_next = torch.where(active, (residual * z).sum(-1), 0)
        direction = z + torch.where(active, rz_next / rz, 0).unsqueeze(-1) * direction
        rz = rz_next
    return inverse_a * (r - rows(mu)), mu


# An operator of its own, so that torch.compile takes it as it is: it ends when it has converged, a branch on data.
@torch.library.custom_op("sslosses::adjoint_potentials", mutates_args=())
def adjoint_potentials(plan: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`solve_adjoint` of a plan that is stored, with [(P ∘ C)1; (P ∘ C)ᵀ1] on the right: λ (P, N) and μ (P, M).

    Args:
        plan: (P, N, M) floating tensor.
        cost: (P, N, M) tensor of the same dtype.
    """
    moved = plan * cost
    return solve_adjoint(
        lambda v: torch.matmul(plan, v.unsqueeze(-1)).squeeze(-1),
        lambda u: torch.matmul(u.unsqueeze(-2), plan).squeeze(-2),
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
