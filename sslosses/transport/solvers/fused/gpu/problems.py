"""The fused solver on a GPU: one Triton launch each for Sinkhorn, its value and its exact gradient.

The matrix of a :class:`PointcloudCost` never exists in memory: small problems keep it in registers, larger ones
recompute it from the points. Memory is linear in the number of points either way.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from sslosses._optional import MissingDependencyError
from sslosses.transport.adjoint import RESIDUAL_EXPONENT
from sslosses.transport.costs import PointcloudCost
from sslosses.transport.problem import Potentials, Problem, Solution, ValueGradient
from sslosses.transport.solvers.fused.gpu import gradient as gradient_kernels
from sslosses.transport.solvers.fused.gpu import gradient_tiled as gradient_tiled_kernels
from sslosses.transport.solvers.fused.gpu import sinkhorn as sinkhorn_kernels
from sslosses.transport.solvers.fused.gpu import sinkhorn_tiled as sinkhorn_tiled_kernels

if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 4):
    # Older versions pass every number to a kernel as float32, whatever its annotation says.
    raise MissingDependencyError(
        f"The solver 'fused' needs triton 3.4 or newer on a GPU, but found {triton.__version__}. "
        "Run: pip install --upgrade torch triton"
    )

# Largest N and M for which one program holds the kernel matrix in registers.
RESIDENT = {torch.float32: 128, torch.float64: 64}
# Largest M for which one program holds some whole rows of it.
STRIPS = {torch.float32: 256, torch.float64: 128}
TILE = {torch.float32: (32, 64), torch.float64: (32, 32)}


def sinkhorn(problem: Problem, *, max_iter: int, tol: float, init: Potentials | None) -> Solution:
    """Iterate until the row marginals are within ``tol``; the column marginals are exact after every update.

    Args:
        problem: costs (P or 1, N, M) or a :class:`PointcloudCost`, with a (P, N) and b (P, M), on a GPU.
        max_iter: most updates of both potentials, for each problem.
        tol: marginal error at which a problem stops.
        init: starting potentials (P, N) and (P, M), of which only the second is used.
    """
    a, b = problem.a.contiguous(), problem.b.contiguous()
    (count, rows), columns = a.shape, b.shape[-1]
    g_init = torch.zeros_like(b) if init is None else init[1].contiguous()
    f, g, error = torch.empty_like(a), torch.empty_like(b), a.new_empty(count)
    iterations = torch.empty(count, dtype=torch.int64, device=a.device)
    scratch: tuple[Tensor, ...] = ()
    if max(rows, columns) <= RESIDENT[a.dtype]:
        kernel, blocks = sinkhorn_kernels.sinkhorn_resident, _blocks(a.dtype, rows, columns)
    elif columns <= STRIPS[a.dtype]:
        kernel, blocks = sinkhorn_kernels.sinkhorn_strips, _strips(a.dtype, columns)
        scratch = (a.new_empty(count, 2 * rows),)
    else:
        kernel, blocks = sinkhorn_tiled_kernels.sinkhorn_tiled, _tiles(a.dtype)
        scratch = (torch.empty_like(a),)
    cost = _Cost.of(problem)
    # Triton launches on the current device.
    with torch.cuda.device_of(a):  # type: ignore[no-untyped-call]
        kernel[(count,)](
            cost.batch,
            a,
            b,
            g_init,
            *scratch,
            f,
            g,
            iterations,
            error,
            max_iter,
            *cost.weights,
            cost.scale,
            float(tol),
            D=cost.dimensions,
            MATRIX=not isinstance(problem.cost, PointcloudCost),
            **blocks,
        )
    return Solution(f, g, iterations, error)


def transport_value(problem: Problem, f: Tensor, g: Tensor) -> Tensor:
    """⟨P, C⟩ of the plan of f (P, N) and g (P, M), (P,); the cost is a :class:`PointcloudCost`."""
    assert isinstance(problem.cost, PointcloudCost)
    a, b, f, g = (tensor.contiguous() for tensor in (problem.a, problem.b, f, g))
    values = a.new_empty(a.shape[0])
    cost = _Cost.of(problem)
    # Triton launches on the current device.
    with torch.cuda.device_of(a):  # type: ignore[no-untyped-call]
        gradient_tiled_kernels.transport_value[(a.shape[0],)](
            cost.batch, a, b, f, g, values, *cost.weights, cost.scale, D=cost.dimensions, **_tiles(a.dtype)
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
    a, b, f, g = (tensor.contiguous() for tensor in (problem.a, problem.b, f, g))
    (count, rows), columns = a.shape, b.shape[-1]
    result = ValueGradient(*(torch.empty_like(tensor) for tensor in (a, b, a, b)))
    scratch: tuple[Tensor, ...] = ()
    options: dict[str, Any]
    if exact and max(rows, columns) <= RESIDENT[a.dtype]:
        kernel, options = gradient_kernels.gradient_resident, _blocks(a.dtype, rows, columns)
    elif exact and columns <= STRIPS[a.dtype]:
        kernel, options = gradient_kernels.gradient_strips, _strips(a.dtype, columns)
        scratch = (a.new_empty(count, 2 * rows),)
    else:
        kernel, options = gradient_tiled_kernels.gradient_tiled, {"EXACT": exact, **_tiles(a.dtype)}
        scratch = (a.new_empty(count, 5 * rows + 6 * columns),)
    cost = _Cost.of(problem)
    # Triton launches on the current device.
    with torch.cuda.device_of(a):  # type: ignore[no-untyped-call]
        kernel[(count,)](
            cost.batch,
            a,
            b,
            f,
            g,
            *scratch,
            *result,
            *cost.weights,
            cost.scale,
            torch.finfo(a.dtype).eps ** RESIDUAL_EXPONENT,
            D=cost.dimensions,
            **options,
        )
    return result if exact else result._replace(a=f, b=g)


class _Cost(NamedTuple):
    """The cost in the form that the kernels take.

    Attributes:
        batch: values and positions of rows and columns, N, M, and the strides of both sides' values between problems.
            For a cost matrix, all four tensors are the matrix.
        weights: of values and positions, or 1 and 0 for a cost matrix, in units of ε/log₂e.
        scale: from the units of the cost to those of the kernels.
        dimensions: of the positions.
    """

    batch: tuple[Any, ...]
    weights: tuple[float, float]
    scale: float
    dimensions: int

    @staticmethod
    def of(problem: Problem) -> _Cost:
        cost, rows, columns = problem.cost, problem.a.shape[-1], problem.b.shape[-1]
        scale = math.log2(math.e) / problem.epsilon
        if not isinstance(cost, PointcloudCost):
            matrix = cost.contiguous()
            stride = 0 if matrix.shape[0] == 1 else rows * columns
            return _Cost((matrix,) * 4 + (rows, columns, stride, stride), (scale, 0.0), scale, 0)
        tensors = (cost.source, cost.target, cost.source_positions, cost.target_positions)
        points = (*(tensor.contiguous() for tensor in tensors), rows, columns, rows, columns)
        weights = (cost.value_weight * scale, cost.position_weight * scale)
        return _Cost(points, weights, scale, cost.source_positions.shape[-1])


def _blocks(dtype: torch.dtype, rows: int, columns: int) -> dict[str, int | bool]:
    """Options of a kernel that holds the whole kernel matrix: its size, and warps for it."""
    x, y = max(16, triton.next_power_of_2(rows)), _width(columns)
    # At 128 registers two programs of 8 warps share a multiprocessor; values that spill are used outside the
    # iterations.
    return _options(dtype, x, y, max(1, min(8, x * y * dtype.itemsize // 4096)), registers=128)


def _strips(dtype: torch.dtype, columns: int) -> dict[str, int | bool]:
    """Options of a kernel that holds some rows of the kernel matrix, as many as fill 4 warps."""
    y = _width(columns)
    # At 168 registers three programs share a multiprocessor, and nothing that the iterations use spills.
    return _options(dtype, 8192 // (dtype.itemsize * y), y, 4, registers=168)


def _width(columns: int) -> int:
    # At least two entries of a row per thread, so that sums over lanes stay equal; see conjugate_gradients._dot.
    return max(32, int(triton.next_power_of_2(columns)))


def _tiles(dtype: torch.dtype) -> dict[str, int | bool]:
    """Options of a kernel that goes through the kernel matrix in tiles."""
    return _options(dtype, *TILE[dtype], 4)


def _options(dtype: torch.dtype, x: int, y: int, warps: int, registers: int | None = None) -> dict[str, int | bool]:
    # Fusion is set explicitly because Triton 3.9 warns that its default will change.
    options: dict[str, int | bool] = {"X": x, "Y": y, "num_warps": warps, "enable_fp_fusion": True}
    # Only CUDA has this limit, and float64 needs all registers.
    if registers and dtype == torch.float32 and torch.version.hip is None:
        options["maxnreg"] = registers
    return options
