"""The linear system behind the exact gradient of ⟨P, C⟩."""

from __future__ import annotations

import torch
from torch import Tensor


# An operator of its own, so that torch.compile takes it as it is: it ends when it has converged, a branch on data.
@torch.library.custom_op("sslosses::adjoint_potentials", mutates_args=())
def adjoint_potentials(plan: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
    """Solve [diag a, P; Pᵀ, diag b] [λ; μ] = [(P ∘ C)1; (P ∘ C)ᵀ1] for λ (P, N) and μ (P, M), where P1 = a, Pᵀ1 = b.

    Eliminating λ leaves (diag b − Pᵀ diag(a)⁻¹ P) μ = (P ∘ C)ᵀ1 − Pᵀ((P ∘ C)1 / a). It is symmetric, positive
    semi-definite and consistent; its null space, a constant, is that of (1, −1) in the system, which λ ⊕ μ does not
    see. Alternating between the two rows of the system converges at Sinkhorn's rate; conjugate gradients,
    preconditioned by diag b, take about the square root of its iterations. As a and b are read off P, the system is
    consistent also before Sinkhorn has converged. λ or μ is 0 where a or b is.

    Args:
        plan: (P, N, M) floating tensor.
        cost: (P, N, M) tensor of the same dtype.
    """
    moved = plan * cost
    r, c = moved.sum(-1), moved.sum(-2)
    a, b = plan.sum(-1), plan.sum(-2)
    inverse_a, inverse_b = _inverse(a), _inverse(b)
    # A residual of 5e-14 (float32: 1e-6) of the mean cost of a column, the scale of λ ⊕ μ; squared, as rz below is.
    limit = torch.finfo(plan.dtype).eps ** 1.7 * (c * inverse_b * c).sum(-1)

    mu = torch.zeros_like(b)
    residual = c - _columns(plan, inverse_a * r)
    z = inverse_b * residual
    direction = z
    rz = (residual * z).sum(-1)
    # In exact arithmetic M steps suffice; with rounding some more.
    for _ in range(3 * b.shape[-1] + 50):
        active = rz > limit
        if not bool(active.any()):
            break
        image = b * direction - _columns(plan, inverse_a * _rows(plan, direction))
        curvature = (direction * image).sum(-1)
        # A direction without curvature lies in the null space up to rounding: nothing is left to gain along it.
        active = active & (curvature > 0)
        step = torch.where(active, rz / curvature, 0).unsqueeze(-1)
        mu = mu + step * direction
        residual = residual - step * image
        z = inverse_b * residual
        rz_next = torch.where(active, (residual * z).sum(-1), 0)
        direction = z + torch.where(active, rz_next / rz, 0).unsqueeze(-1) * direction
        rz = rz_next
    return inverse_a * (r - _rows(plan, mu)), mu


@adjoint_potentials.register_fake
def _(plan: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return plan.new_empty(plan.shape[:-1]), plan.new_empty((plan.shape[0], plan.shape[2]))


def _inverse(mass: Tensor) -> Tensor:
    return torch.where(mass > 0, 1 / mass, 0)


def _rows(plan: Tensor, columns: Tensor) -> Tensor:
    return torch.matmul(plan, columns.unsqueeze(-1)).squeeze(-1)


def _columns(plan: Tensor, rows: Tensor) -> Tensor:
    return torch.matmul(rows.unsqueeze(-2), plan).squeeze(-2)
