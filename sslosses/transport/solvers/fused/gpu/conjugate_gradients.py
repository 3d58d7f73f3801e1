"""Steps of the conjugate gradients that solve the adjoint system (see ``sslosses.transport.adjoint``) in Triton."""

from __future__ import annotations

import triton
import triton.language as tl

from sslosses.transport.adjoint import EXTRA_STEPS, STEPS_PER_COLUMN
from sslosses.transport.solvers.fused.gpu.tiles import sum_vector

_STEPS_PER_COLUMN = tl.constexpr(STEPS_PER_COLUMN)
_EXTRA_STEPS = tl.constexpr(EXTRA_STEPS)


@triton.jit
def inverse(mass):
    """1/mass, 0 where there is no mass."""
    return tl.where(mass > 0, 1.0 / mass, 0.0)


@triton.jit
def unfinished(step, M, rz, goal):
    """Whether another step is needed and allowed."""
    return step < M * _STEPS_PER_COLUMN + _EXTRA_STEPS and rz > goal


@triton.jit
def step_length(rz, curvature):
    """How far to go. A direction without curvature lies in the null space up to rounding; no step along it helps."""
    return tl.where(curvature > 0, rz / curvature, 0.0)


@triton.jit
def next_rz(product, curvature):
    """The new ⟨residual, z⟩, or 0 without curvature, which ends the loop."""
    return tl.where(curvature > 0, product, 0.0)


@triton.jit
def _dot(x, y):
    # A product that the compiler fuses with the sum's first step is rounded on one side of it only. Lanes would then
    # have different sums of the same numbers, and a loop could end for some of them. Nothing fuses with an fma.
    return sum_vector(tl.fma(x, y, tl.zeros_like(x)))


@triton.jit
def _project(residual, mass):
    """Removes the null space, along which the system has no curvature to keep rounding errors small."""
    return residual - mass * (sum_vector(residual) / sum_vector(mass))


@triton.jit
def first_direction(c, projected_r, mass, inverse_mass, limit):
    """The residual c − Pᵀ(r/a) at μ = 0, the direction, ⟨residual, z⟩ and the value of it at which to stop."""
    residual = _project(c - projected_r, mass)
    direction = inverse_mass * residual
    goal = _dot(c * inverse_mass, c) * tl.full((), limit, c.dtype)
    return residual, direction, _dot(residual, direction), goal


@triton.jit
def next_direction(mu, residual, direction, rz, image, mass, inverse_mass):
    """One step with all vectors in registers; ``image`` is the system's product with ``direction``."""
    curvature = _dot(direction, image)
    length = step_length(rz, curvature)
    mu += length * direction
    residual = _project(residual - length * image, mass)
    z = inverse_mass * residual
    new_rz = next_rz(_dot(residual, z), curvature)
    direction = z + new_rz / rz * direction
    return mu, residual, direction, new_rz
