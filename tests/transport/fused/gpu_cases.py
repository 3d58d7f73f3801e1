"""The Triton kernels against the dense solver; ``test_gpu.py`` runs these cases in separate processes.

Without a GPU they run in Triton's interpreter, which has to be switched on before triton is imported, and with the
plugin ``gpu_emulated``.
"""

import numpy as np
import pytest
import torch

from sslosses.transport import pointcloud_cost, solve
from sslosses.transport.solvers.fused.gpu import problems

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Fused:
    """The functions of the GPU module as a solver."""

    name = "fused"
    entropic = True
    unrolled = False
    lazy = True
    solve = staticmethod(problems.sinkhorn)
    transport_value = staticmethod(problems.transport_value)
    value_gradient = staticmethod(problems.value_gradient)


@pytest.fixture(autouse=True)
def _quiet_interpreter():
    # numpy warns of divisions by zero, which the kernels rely on.
    with np.errstate(all="ignore"):
        yield


def make(rows, columns, dtype=torch.float64, batch=2, zeros=True, dimensions=2, seed=0):
    """A lazy cost whose largest entry is about 1, and marginals with some zeros."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def masses(size, empty):
        mass = uniform(batch, size) + 0.1
        if zeros and size > 3:
            mass[:, empty] = 0
            mass[0, 0] = 0
        return (mass / mass.sum(-1, keepdim=True)).to(DEVICE, dtype)

    points = (uniform(batch, rows), uniform(batch, columns), uniform(rows, dimensions), uniform(columns, dimensions))
    source, target, here, there = (each.to(DEVICE, dtype) for each in points)
    return pointcloud_cost(source, target, here, there, 0.7, 0.3), masses(rows, 2), masses(columns, -1)


def solved(cost, a, b, solver, gradient="exact", **options):
    """Result and value, and the gradients of a weighted sum of values by source, target, a and b (matrix: a and b)."""
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    leaves = [a, b]
    if not isinstance(cost, torch.Tensor):
        source, target = cost.source.clone().requires_grad_(), cost.target.clone().requires_grad_()
        leaves = [source, target, a, b]
        positions = cost.source_positions, cost.target_positions
        cost = pointcloud_cost(source, target, *positions, cost.value_weight, cost.position_weight)
    result = solve(cost, a, b, solver=solver, **options)
    value = result.value(gradient=gradient)
    weights = torch.linspace(1, 2, a.shape[0], dtype=a.dtype, device=a.device)
    return result, value.detach(), torch.autograd.grad((value * weights).sum(), leaves)


def assert_close(actual, expected, tolerance):
    """Within ``tolerance`` of the largest entry."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    scale = max(expected.abs().max().item(), 1e-3)
    assert (actual - expected).abs().max().item() <= tolerance * scale


def assert_agree(cost, a, b, tolerance=1e-9, gradient_tolerance=None, **options):
    result, value, gradients = solved(cost, a, b, Fused(), **options)
    expected, expected_value, expected_gradients = solved(cost, a, b, "dense", **options)
    assert result.iterations.tolist() == expected.iterations.tolist()
    assert_close(value, expected_value, tolerance)
    for actual, reference in zip(result.potentials, expected.potentials, strict=True):
        assert_close(actual, reference, tolerance)
    outer, expected_outer = (f.unsqueeze(-1) + g.unsqueeze(-2) for f, g in (result.potentials, expected.potentials))
    assert_close(outer, expected_outer, tolerance)
    assert (result.marginal_error - expected.marginal_error).abs().max() <= 0.1 * tolerance
    for actual, reference in zip(gradients, expected_gradients, strict=True):
        assert_close(actual, reference, gradient_tolerance or tolerance)
    return result


# One program holds at most 64 × 64 in float64 and 128 × 128 in float32, or some rows of 128 and 256. Blocks are powers
# of two, from 16 rows and 32 columns.
SIZES = [
    (1, 1), (1, 5), (5, 1), (5, 7), (16, 17), (17, 16), (49, 49), (64, 64), (65, 7), (7, 65), (70, 66), (6, 128),
    (35, 129), (1, 300),
]  # fmt: skip
# Each of the three kernels.
KERNELS = pytest.mark.parametrize(("rows", "columns"), [(10, 8), (66, 8), (8, 130)])


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_the_same_iterates(rows, columns):
    # Too few iterations to converge, so that the iterates are compared.
    # A larger ε needs fewer steps for the adjoint system, which take long in the interpreter.
    large = min(rows, columns) > 32
    assert_agree(*make(rows, columns), epsilon=0.5 if large else 0.05, max_iter=2 if large else 6, tol=1e-12)


@pytest.mark.parametrize(
    ("rows", "columns"), [(20, 21), (16, 16), (49, 49), (98, 98), (128, 30), (196, 196), (129, 5), (5, 256), (4, 257)]
)
def test_float32(rows, columns):
    assert_agree(*make(rows, columns, torch.float32), 1e-4, epsilon=0.1, max_iter=5, tol=1e-9)


@pytest.mark.parametrize("rows", [12, 66])
@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
def test_at_convergence(rows, epsilon):
    cost, a, b = make(rows, 9, batch=1 if rows > 64 else 3)
    slow = epsilon < 0.1
    result = assert_agree(cost, a, b, 1e-9, 1e-7, epsilon=epsilon, max_iter=60 if slow else 100, tol=1e-8)
    assert slow or result.converged.all()
    if rows == 12 and not slow:
        # Each problem stopped separately.
        assert len(set(result.iterations.tolist())) > 1


@KERNELS
def test_a_small_epsilon(rows, columns):
    # The adjoint system of a plan close to a permutation is ill-conditioned, so gradients are compared loosely.
    cost, a, b = make(rows, columns, batch=1)
    options = {"epsilon": 1e-3, "max_iter": 30 if rows == 10 else 10, "tol": 1e-9}
    result, value, gradients = solved(cost, a, b, Fused(), **options)
    expected, expected_value, expected_gradients = solved(cost, a, b, "dense", **options)
    for actual, reference in zip(result.potentials, expected.potentials, strict=True):
        assert_close(actual, reference, 1e-9)
    assert_close(value, expected_value, 1e-9)
    for actual, reference in zip(gradients[:2], expected_gradients[:2], strict=True):
        assert_close(actual, reference, 1e-6)
    assert all(each.isfinite().all() for each in gradients)


@pytest.mark.parametrize(("rows", "columns"), [(24, 20), (130, 6), (4, 257)])
def test_a_small_epsilon_in_float32(rows, columns):
    # Compared with float64, because the rounding of C/ε alone is 1e-4 in float32.
    cost, a, b = make(rows, columns, torch.float32, batch=1)
    result = solve(cost, a, b, epsilon=1e-3, max_iter=20, tol=1e-6, solver=Fused())
    wide = solve(cost.to(torch.float64), a.double(), b.double(), epsilon=1e-3, max_iter=20, tol=1e-6, solver="dense")
    for actual, reference in zip(result.potentials, wide.potentials, strict=True):
        assert_close(actual.double(), reference, 1e-5)
    assert_close(result.value().double(), wide.value(), 1e-4)
    assert_close(result.marginal_error.double(), wide.marginal_error, 1e-2)


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (130, 6), (6, 257)])
def test_scalings_beyond_float32(rows, columns):
    # Uneven masses at a small ε move the potentials by up to 192 ε within 12 iterations, exp(192) times the scalings.
    generator = torch.Generator().manual_seed(170)
    cost, a, b = (torch.rand(shape, generator=generator, dtype=torch.float64) for shape in ((6, 6), 6, 6))
    a, b = (mass**3 / (mass**3).sum() for mass in (a, b))
    options = {"epsilon": 1e-3, "max_iter": 12, "tol": 1e-9}
    expected = solve(cost, a, b, solver="dense", **options)
    start = solve(cost, a, b, solver="dense", **(options | {"max_iter": 1}))
    assert (expected.potentials[0] - start.potentials[0]).abs().max() > 100 * 1e-3
    # Points without mass only serve to reach a size.
    wide = torch.zeros(rows, columns)
    wide[:6, :6] = cost
    wide_a, wide_b = torch.zeros(rows), torch.zeros(columns)
    wide_a[:6], wide_b[:6] = a, b
    result = solve(wide.to(DEVICE), wide_a.to(DEVICE), wide_b.to(DEVICE), solver=Fused(), **options)
    for actual, reference in zip(result.potentials, expected.potentials, strict=True):
        assert actual.isfinite().all()
        assert_close(actual[:6].cpu().double(), reference, 1e-4)
    assert result.iterations == 12


@KERNELS
def test_initial_potentials(rows, columns):
    cost, a, b = make(rows, columns, zeros=False, batch=1)
    cold = solve(cost, a, b, epsilon=0.1, max_iter=4, tol=1e-12, solver="dense")
    assert_agree(cost, a, b, epsilon=0.1, max_iter=3, tol=1e-12, init=cold.potentials)
    done = solve(cost, a, b, epsilon=0.1, max_iter=200, tol=1e-9, solver="dense")
    again = solve(cost, a, b, epsilon=0.1, max_iter=200, tol=1e-8, solver=Fused(), init=done.potentials)
    assert (again.iterations == 1).all()


@KERNELS
@pytest.mark.parametrize("shared", [False, True])
def test_a_matrix(rows, columns, shared):
    cost, a, b = make(rows, columns, batch=3)
    matrix = cost.dense()[0] if shared else cost.dense().mT.contiguous().mT
    result = assert_agree(matrix, a, b, epsilon=0.05, max_iter=8, tol=1e-12)
    assert result.problem.cost.shape[0] == (1 if shared else 3)


def test_a_matrix_as_large_as_that_of_training():
    cost, a, b = make(98, 98, torch.float32)
    assert_agree(cost.dense(), a, b, 1e-4, epsilon=0.1, max_iter=5, tol=1e-9)


@KERNELS
@pytest.mark.parametrize("kind", ["transport", "regularized"])
def test_the_envelope_gradient(rows, columns, kind):
    cost, a, b = make(rows, columns)
    gradients = []
    for solver in (Fused(), "dense"):
        source = cost.source.clone().requires_grad_()
        target = cost.target.clone().requires_grad_()
        leaves = source, target, a.clone().requires_grad_(), b.clone().requires_grad_()
        lazy_cost = pointcloud_cost(source, target, cost.source_positions, cost.target_positions, 0.7, 0.3)
        result = solve(lazy_cost, *leaves[2:], epsilon=0.1, max_iter=5, solver=solver)
        gradients.append(torch.autograd.grad(result.value(kind, "envelope").sum(), leaves))
    for actual, reference in zip(*gradients, strict=True):
        assert_close(actual, reference, 1e-9)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_other_dimensions(dimensions):
    assert_agree(*make(9, 8, dimensions=dimensions), epsilon=0.1, max_iter=5, tol=1e-12)


@KERNELS
def test_equal_values_have_no_gradient(rows, columns):
    # sign(0) = 0, as in torch's derivative of |x|.
    cost, a, b = make(rows, columns)
    cost.target[:, :3] = cost.source[:, :3]
    assert_agree(cost, a, b, epsilon=0.5, max_iter=5, tol=1e-12)


@KERNELS
def test_layouts_that_are_not_contiguous(rows, columns):
    cost, a, b = make(rows, columns)
    expected = solve(cost, a, b, epsilon=0.1, max_iter=5, solver=Fused())
    strided = pointcloud_cost(
        *(each.mT.contiguous().mT for each in (cost.source, cost.target, cost.source_positions, cost.target_positions)),
        0.7,
        0.3,
    )
    result = solve(strided, a.mT.contiguous().mT, b.mT.contiguous().mT, epsilon=0.1, max_iter=5, solver=Fused())
    assert torch.equal(result.value(), expected.value())


@pytest.mark.filterwarnings("ignore:All-NaN")
@KERNELS
def test_a_cost_of_nan_never_converges(rows, columns):
    cost, a, b = make(rows, columns)
    cost.source[1, 4] = torch.nan
    result = solve(cost, a, b, epsilon=1.0, max_iter=7, solver=Fused())
    assert result.converged.tolist() == [True, False]
    assert result.iterations[1] == 7
    assert result.value()[0].isfinite()
