"""Sinkhorn, its value and its exact gradient as one Triton launch each.

The matrix of a :class:`PointcloudCost` never exists in memory: small problems keep it in registers, larger ones compute
it again from the points. Memory is linear in the number of points either way.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from sslosses._optional import MissingDependencyError
from sslosses.transport.costs import PointcloudCost
from sslosses.transport.problem import Potentials, Problem, Solution, ValueGradient
from sslosses.transport.solvers.fused.gpu import gradient as gradient_kernels
from sslosses.transport.solvers.fused.gpu import sinkhorn as sinkhorn_kernels

if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 4):
    # Older ones pass every number to a kernel as float32, whatever it asks for.
    raise MissingDependencyError(
        f"The solver 'fused' needs triton 3.4 or newer on a GPU, but found {triton.__version__}. "
        "Run: pip install --upgrade torch triton"
    )

# Largest N and M whose kernel matrix fits into the registers of one program, and largest M of which some rows do.
RESIDENT = {torch.float32: 128, torch.float64: 64}
STRIPS = {torch.float32: 256, torch.float64: 128}
TILE = {torch.float32: (32, 64), torch.float64: (32, 32)}


def sinkhorn(problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
    """Iterate until the row marginals are within ``tol``; the column marginals are exact after every update.

    Args:
        problem: costs (P or 1, N, M) or a :class:`PointcloudCost`, with a (P, N) and b (P, M), on a GPU.
        max_iter: most updates of both potentials, for each problem.
        tol: marginal error at which a problem is left as it is.
        init: potentials (P, N) and (P, M); the second is where to start from.
    """
    a, b = problem.a.contiguous(), problem.b.contiguous()
    (size, rows), columns = a.shape, b.shape[-1]
    start = torch.zeros_like(b) if init is None else init[1].contiguous()
    f, g, error = torch.empty_like(a), torch.empty_like(b), a.new_empty(size)
    iterations = torch.empty(size, dtype=torch.int64, device=a.device)
    cost = problem.cost
    weights: tuple[float, float]
    if isinstance(cost, PointcloudCost):
        points, dimensions, weights, strides = _described(cost)
    else:
        matrix = cost.contiguous()
        points, dimensions, weights = (matrix,) * 4, 0, (1.0, 0.0)
        strides = (0, 0) if matrix.shape[0] == 1 else (rows * columns,) * 2
    scratch: tuple[Tensor, ...] = ()
    if max(rows, columns) <= RESIDENT[a.dtype]:
        kernel, blocks = sinkhorn_kernels.sinkhorn_resident, _blocks(a.dtype, rows, columns)
    elif columns <= STRIPS[a.dtype]:
        kernel, blocks = sinkhorn_kernels.sinkhorn_strips, _strips(a.dtype, columns)
        scratch = (a.new_empty(size, 2 * rows),)
    else:
        kernel, blocks = sinkhorn_kernels.sinkhorn_tiled, _tiles(a.dtype)
        scratch = (torch.empty_like(a),)
    scale = _scale(problem)
    # Triton launches on the current device.
    with torch.cuda.device_of(a):  # type: ignore[no-untyped-call]
        kernel[(size,)](
            *points,
            a,
            b,
            start,
            *scratch,
            f,
            g,
            iterations,
            error,
            rows,
            columns,
            *strides,
            max_iter,
            *(weight * scale for weight in weights),
            scale,
            float(tol),
            D=dimensions,
            MATRIX=not isinstance(cost, PointcloudCost),
            **blocks,
        )
    return Solution(f, g, iterations, error)


def transport_value(problem: Problem, f: Tensor, g: Tensor) -> Tensor:
    """⟨P, C⟩ of the plan that f (P, N) and g (P, M) stand for, (P,); the cost is a :class:`PointcloudCost`."""
    assert isinstance(problem.cost, PointcloudCost)
    a, b = problem.a.contiguous(), problem.b.contiguous()
    (size, rows), columns = a.shape, b.shape[-1]
    values = a.new_empty(size)
    points, dimensions, weights, strides = _described(problem.cost)
    scale = _scale(problem)
    # Triton launches on the current device.
    with torch.cuda.device_of(a):  # type: ignore[no-untyped-call]
        gradient_kernels.transport_value[(size,)](
            *points,
            a,
            b,
            f.contiguous(),
            g.contiguous(),
            values,
            rows,
            columns,
            *strides,
            *(weight * scale for weight in weights),
            scale,
            D=dimensions,
            **_tiles(a.dtype),
        )
    return values


def value_gradient(problem: Problem, f: Tensor, g: Tensor, *, exact: bool) -> ValueGradient:
    """Gradient of ⟨P, C⟩ with respect to the values of the points, a and b; the cost is a :class:`PointcloudCost`.

    Args:
        problem: P problems.
        f: (P, N) potentials.
        g: (P, M) potentials.
        exact: at the fixed point, by the implicit function theorem; otherwise for a fixed plan.
    """
    assert isinstance(problem.cost, PointcloudCost)
    a, b, f, g = (each.contiguous() for each in (problem.a, problem.b, f, g))
    (size, rows), columns = a.shape, b.shape[-1]
    of_source, of_target, of_a, of_b = (torch.empty_like(each) for each in (a, b, a, b))
    points, dimensions, weights, strides = _described(problem.cost)
    scratch: tuple[Tensor, ...] = ()
    options: dict[str, Any]
    if exact and max(rows, columns) <= RESIDENT[a.dtype]:
        kernel, options = gradient_kernels.gradient_resident, _blocks(a.dtype, rows, columns)
    elif exact and columns <= STRIPS[a.dtype]:
        kernel, options = gradient_kernels.gradient_strips, _strips(a.dtype, columns)
        scratch = (a.new_empty(size, 2 * rows),)
    else:
        kernel, options = gradient_kernels.gradient_tiled, {"EXACT": exact, **_tiles(a.dtype)}
        scratch = (a.new_empty(size, 5 * rows + 6 * columns),)
    scale = _scale(problem)
    # Triton launches on the current device.
    with torch.cuda.device_of(a):  # type: ignore[no-untyped-call]
        kernel[(size,)](
            *points,
            a,
            b,
            f,
            g,
            *scratch,
            of_source,
            of_target,
            of_a,
            of_b,
            rows,
            columns,
            *strides,
            *(weight * scale for weight in weights),
            scale,
            torch.finfo(a.dtype).eps ** 1.7,
            D=dimensions,
            **options,
        )
    return ValueGradient(of_source, of_target, of_a, of_b) if exact else ValueGradient(of_source, of_target, f, g)


def _scale(problem: Problem) -> float:
    """From the units of the cost to those of the kernels."""
    return math.log2(math.e) / problem.epsilon


def _described(cost: PointcloudCost) -> tuple[tuple[Tensor, ...], int, tuple[float, float], tuple[int, int]]:
    """Tensors, number of dimensions, weights, and strides of the batch."""
    points = (cost.source, cost.target, cost.source_positions, cost.target_positions)
    sizes = cost.source.shape[-1], cost.target.shape[-1]
    dimensions = cost.source_positions.shape[-1]
    return tuple(each.contiguous() for each in points), dimensions, (cost.value_weight, cost.position_weight), sizes


def _blocks(dtype: torch.dtype, rows: int, columns: int) -> dict[str, int | bool]:
    """Options of a kernel that holds the whole kernel matrix: its size, and warps for it."""
    x, y = max(16, triton.next_power_of_2(rows)), _width(columns)
    # At 128 registers two programs of 8 warps share a multiprocessor; what spills is used outside the iterations.
    return _options(dtype, x, y, max(1, min(8, x * y * dtype.itemsize // 4096)), registers=128)


def _strips(dtype: torch.dtype, columns: int) -> dict[str, int | bool]:
    """Options of a kernel that holds some rows of the kernel matrix, as many as fill 4 warps."""
    y = _width(columns)
    # At 168 registers three programs share a multiprocessor, and nothing that the iterations use spills.
    return _options(dtype, 8192 // (dtype.itemsize * y), y, 4, registers=168)


def _width(columns: int) -> int:
    # At least two of a row's entries in a thread: ``_dot`` says what becomes of one in a sum over lanes.
    return max(32, int(triton.next_power_of_2(columns)))


def _tiles(dtype: torch.dtype) -> dict[str, int | bool]:
    """Options of a kernel that goes through the kernel matrix in tiles."""
    return _options(dtype, *TILE[dtype], 4)


def _options(dtype: torch.dtype, x: int, y: int, warps: int, registers: int | None = None) -> dict[str, int | bool]:
    # Said explicitly as Triton 3.9 warns of a default that is to change.
    options: dict[str, int | bool] = {"X": x, "Y": y, "num_warps": warps, "enable_fp_fusion": True}
    # Only CUDA knows the limit, and float64 needs all registers.
    if registers and dtype == torch.float32 and torch.version.hip is None:
        options["maxnreg"] = registers
    return options
