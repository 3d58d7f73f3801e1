"""Every solver against Sinkhorn written as loops, against the other solvers, and on problems with known answers."""

import itertools
import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslosses.transport import (
    available,
    grid_cost,
    grid_positions,
    lazy_grid_cost,
    pointcloud_cost,
    solve,
)

from .. import processes

processes.preload("hypothesis.strategies", "sslosses.transport")

ENTROPIC = ("dense", "fused", "pot", "pot-batch", "geomloss")
KEOPS = pytest.mark.skipif(not available()["geomloss-keops"], reason=str(available()["geomloss-keops"]))
TIGHT = {"max_iter": 40_000, "tol": 1e-12}
VALUES = (("transport", "exact"), ("transport", "envelope"), ("regularized", "exact"))


def loop_sinkhorn(cost, a, b, epsilon):
    """f, g, P of one problem by alternating updates, in plain Python and float64; zero masses are summed over too."""
    n, m = len(a), len(b)

    def soft_minimum(values, weights):
        lowest = min(v for v, w in zip(values, weights, strict=True) if w > 0)
        mass = sum(w * math.exp(-(v - lowest) / epsilon) for v, w in zip(values, weights, strict=True) if w > 0)
        return lowest - epsilon * math.log(mass)

    f, g = [0.0] * n, [0.0] * m
    for _ in range(100_000):
        f = [soft_minimum([cost[i][j] - g[j] for j in range(m)], b) for i in range(n)]
        before, g = g, [soft_minimum([cost[i][j] - f[i] for i in range(n)], a) for j in range(m)]
        if max(abs(x - y) for x, y in zip(before, g, strict=True)) < 1e-14:
            break
    plan = [[a[i] * b[j] * math.exp((f[i] + g[j] - cost[i][j]) / epsilon) for j in range(m)] for i in range(n)]
    return f, g, plan


@st.composite
def problems(draw, epsilon=(0.05, 1.0)):
    """A cost in [0, 1], marginals with some entries 0, and ε."""
    rows, columns, batch = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))

    def uniform(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def masses(size):
        mass = uniform(batch, size) + 0.1
        mass = mass * (uniform(batch, size) > 0.2)
        mass[:, 0] += 0.1
        return mass / mass.sum(-1, keepdim=True)

    source, target = uniform(batch, rows), uniform(batch, columns)
    cost = pointcloud_cost(source, target, uniform(rows, 2), uniform(columns, 2), 0.5, 0.3)
    return cost, masses(rows), masses(columns), draw(st.floats(*epsilon))


def outer_sum(potentials):
    f, g = potentials
    return f.unsqueeze(-1) + g.unsqueeze(-2)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@given(problems())
@settings(max_examples=15, deadline=None)
def test_dense_equals_the_loop(problem):
    cost, a, b, epsilon = problem
    result = solve(cost, a, b, epsilon=epsilon, solver="dense", **TIGHT)
    for p, matrix in enumerate(cost.dense()):
        f, g, plan = loop_sinkhorn(matrix.tolist(), a[p].tolist(), b[p].tolist(), epsilon)
        plan = torch.tensor(plan, dtype=torch.float64)
        close(result.plan[p], plan, 1e-9)
        actual = outer_sum(result.potentials)[p]
        close(actual, torch.tensor(f, dtype=torch.float64)[:, None] + torch.tensor(g, dtype=torch.float64), 1e-9)
        close(result.value()[p], (plan * matrix).sum(), 1e-9)
        reference = a[p][:, None] * b[p]
        divergence = torch.where(plan > 0, plan * (plan / reference).log(), 0).sum()
        close(result.value("regularized")[p], (plan * matrix).sum() + epsilon * divergence, 1e-9)


def solved(cost, a, b, epsilon, solver, **options):
    """Result, and gradients of a weighted sum of values with respect to the values of the maps and the marginals."""
    source, target, a, b = (x.clone().requires_grad_() for x in (cost.source, cost.target, a, b))
    cost = pointcloud_cost(
        source, target, cost.source_positions, cost.target_positions, cost.value_weight, cost.position_weight
    )
    result = solve(cost, a, b, epsilon=epsilon, solver=solver, **options)
    weights = torch.linspace(1, 2, a.shape[0], dtype=a.dtype)
    grads = {
        kind: torch.autograd.grad((result.value(*kind) * weights).sum(), (source, target, a, b), retain_graph=True)
        for kind in VALUES
    }
    return result, grads


def assert_agree(problem, solver, plan=1e-8, value=1e-8, gradient=1e-6, converged=True, **options):
    cost, a, b, epsilon = problem
    result, grads = solved(cost, a, b, epsilon, solver, **options)
    expected, expected_grads = solved(cost, a, b, epsilon, "dense", **options)
    assert not converged or result.converged.all(), result.status
    assert result.solver == solver
    close(outer_sum(result.potentials), outer_sum(expected.potentials), plan)
    for actual, wanted in zip(result.potentials, expected.potentials, strict=True):
        close(actual, wanted, plan)
    close(result.plan, expected.plan, plan)
    for kind in VALUES:
        close(result.value(*kind), expected.value(*kind), value)
        for actual, wanted in zip(grads[kind], expected_grads[kind], strict=True):
            close(actual, wanted, gradient)
    return result, expected


@pytest.mark.parametrize("solver", ENTROPIC[1:])
@given(problem=problems())
@settings(max_examples=15, deadline=None)
def test_solvers_agree(solver, problem):
    assert_agree(problem, solver, **TIGHT)


@KEOPS
@given(problem=problems(epsilon=(0.1, 1.0)))
@settings(max_examples=8, deadline=None)
def test_keops_agrees(problem):
    assert_agree(problem, "geomloss-keops", **TIGHT)


@KEOPS
@given(problem=problems())
@settings(max_examples=8, deadline=None)
def test_keops_takes_the_steps_of_dense(problem):
    # Stopped early, some problems of a batch before the others.
    limits = {"max_iter": 5, "tol": 1e-3}
    result, expected = assert_agree(problem, "geomloss-keops", 1e-11, 1e-11, 1e-8, converged=False, **limits)
    assert torch.equal(result.iterations, expected.iterations)
    close(result.marginal_error, expected.marginal_error, 1e-11)


@KEOPS
@pytest.mark.parametrize("dimension", [1, 2])
def test_keops_solves_a_batch_as_one_by_one(dimension):
    generator = torch.Generator().manual_seed(19)
    source, target, a = (torch.rand(4, n, generator=generator, dtype=torch.float64) for n in (6, 5, 6))
    a[0, 2] = 0
    a = a / a.sum(-1, keepdim=True)
    source[1] *= 10
    x, y = (torch.rand(n, dimension, generator=generator, dtype=torch.float64) for n in (6, 5))
    b = torch.full((4, 5), 0.2, dtype=torch.float64)

    def run(rows):
        return solved(
            pointcloud_cost(source[rows], target[rows], x, y), a[rows], b[rows], 0.1, "geomloss-keops", max_iter=500
        )

    together, grads = run(slice(None))
    assert len(set(together.iterations.tolist())) > 1
    weights = torch.linspace(1, 2, 4, dtype=torch.float64)
    for i in range(4):
        alone, alone_grads = run(slice(i, i + 1))
        assert alone.iterations == together.iterations[i]
        for kind in VALUES:
            close(alone.value(*kind)[0], together.value(*kind)[i], 1e-12)
            for alone_grad, together_grad in zip(alone_grads[kind], grads[kind], strict=True):
                close(weights[i] * alone_grad[0], together_grad[i], 1e-10)


@pytest.mark.parametrize("solver", [*ENTROPIC[1:], pytest.param("geomloss-keops", marks=KEOPS)])
def test_solvers_agree_in_float32(solver):
    generator = torch.Generator().manual_seed(1)
    positions = grid_positions(5, 4)
    source, target = (torch.rand(3, 20, generator=generator) for _ in range(2))
    cost = pointcloud_cost(source, target, positions, positions)
    a = torch.rand(3, 20, generator=generator).softmax(-1)
    b = torch.rand(3, 20, generator=generator).softmax(-1)
    wide = pointcloud_cost(source.double(), target.double(), positions.double(), positions.double())
    # Compared with float64, as two float32 results differ from each other.
    result, grads = solved(cost, a, b, 0.1, solver, max_iter=4000, tol=2e-6)
    expected, expected_grads = solved(wide, a.double(), b.double(), 0.1, "dense", **TIGHT)
    assert result.plan.dtype == result.value().dtype == torch.float32
    pairs = [(result.plan, expected.plan)]
    for kind in VALUES:
        pairs.append((result.value(*kind), expected.value(*kind)))
        pairs.extend(zip(grads[kind], expected_grads[kind], strict=True))
    for actual, wanted in pairs:
        assert (actual - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("solver", ENTROPIC)
def test_a_small_epsilon_is_stable(solver):
    # 1e-3 of the largest cost, in float32: exp(-C/ε) alone would underflow.
    cost = grid_cost(1, 6)
    result = solve(cost, epsilon=1e-3 * cost.max().item(), solver=solver, max_iter=20_000)
    assert result.converged.all(), result.status
    close(result.plan, torch.eye(6) / 6, 1e-5)


@pytest.mark.parametrize("solver", ENTROPIC)
def test_scaling_cost_and_epsilon(solver):
    cost = torch.rand(4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    one = solve(cost, epsilon=0.1, solver=solver, **TIGHT)
    ten = solve(10 * cost, epsilon=1.0, solver=solver, **TIGHT)
    close(ten.plan, one.plan, 1e-10)
    close(ten.value(), 10 * one.value(), 1e-9)


@pytest.mark.parametrize("solver", ENTROPIC)
def test_separable_costs_move_the_potentials_only(solver):
    generator = torch.Generator().manual_seed(3)
    cost, u, v = (torch.rand(s, generator=generator, dtype=torch.float64) for s in ((4, 5), (4, 1), (1, 5)))
    plain = solve(cost, epsilon=0.1, solver=solver, **TIGHT)
    moved = solve(cost + u + v, epsilon=0.1, solver=solver, **TIGHT)
    close(moved.plan, plain.plan, 1e-10)
    close(outer_sum(moved.potentials), outer_sum(plain.potentials) + u + v, 1e-10)


@pytest.mark.parametrize(("solver", "epsilon"), [*((s, 0.05) for s in ENTROPIC), ("exact", 0)])
def test_translation(solver, epsilon):
    # ‖x − y − τ‖² = ‖x − y‖² + ‖τ‖² + parts of x and of y alone: the plan stays, the value of equal clouds is ‖τ‖².
    points = torch.rand(6, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    shift = torch.tensor([0.3, -0.2], dtype=torch.float64)
    here = ((points[:, None] - points) ** 2).sum(-1)
    there = ((points[:, None] - points - shift) ** 2).sum(-1)
    still = solve(here, epsilon=epsilon, solver=solver, **TIGHT)
    moved = solve(there, epsilon=epsilon, solver=solver, **TIGHT)
    close(moved.plan, still.plan, 1e-10)
    close(moved.value(), still.value() + (shift**2).sum(), 1e-10)
    if not epsilon:
        close(moved.value(), (shift**2).sum(), 1e-12)


@pytest.mark.parametrize(("solver", "epsilon"), [*((s, 0.02) for s in ENTROPIC), ("exact", 0)])
def test_permutation(solver, epsilon):
    order = torch.tensor([2, 0, 3, 1])
    cost = torch.ones(4, 4, dtype=torch.float64)
    cost[torch.arange(4), order] = 0
    result = solve(cost, epsilon=epsilon, solver=solver, max_iter=1000, tol=1e-10)
    close(result.plan, (1 - cost) / 4, 1e-12)
    close(result.value(), torch.tensor(0.0, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize(("solver", "epsilon"), [*((s, 0.02) for s in ENTROPIC), ("exact", 0)])
def test_diracs(solver, epsilon):
    cost = torch.tensor([[0.1, 0.7, 0.4]], dtype=torch.float64)
    b = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    # N = 1: all mass comes from one point. M = 1: it all goes to one. A Dirac among points: the others have no mass.
    expected = (cost[0] * b).sum()
    one_row = solve(cost, None, b, epsilon=epsilon, solver=solver, max_iter=1000, tol=1e-12)
    close(one_row.plan[0], b, 1e-12)
    close(one_row.value(), expected, 1e-12)
    one_column = solve(cost.mT, b, None, epsilon=epsilon, solver=solver, max_iter=1000, tol=1e-12)
    close(one_column.value(), expected, 1e-12)
    padded = torch.cat((cost, torch.zeros_like(cost)))
    dirac = solve(padded, torch.tensor([1.0, 0.0], dtype=torch.float64), b, epsilon=epsilon, solver=solver, tol=1e-12)
    close(dirac.value(), expected, 1e-12)
    assert all(x.isfinite().all() for x in dirac.potentials)
    point = solve(cost[:, :1], epsilon=epsilon, solver=solver)
    close(point.value(), cost[0, 0], 1e-12)


def line_distance(x, a, y, b):
    """W1 on the line: the area between the distribution functions."""
    points = sorted([*x, *y])
    area = 0.0
    for left, right in itertools.pairwise(points):
        mass_x = sum(m for p, m in zip(x, a, strict=True) if p <= left)
        mass_y = sum(m for p, m in zip(y, b, strict=True) if p <= left)
        area += abs(mass_x - mass_y) * (right - left)
    return area


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_on_the_line(seed, rows, columns):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(n, generator=generator, dtype=torch.float64) for n in (rows, columns))
    a, b = ((w := torch.rand(n, generator=generator, dtype=torch.float64) + 0.1) / w.sum() for n in (rows, columns))
    cost = (x[:, None] - y).abs()
    expected = line_distance(x.tolist(), a.tolist(), y.tolist(), b.tolist())
    exact = solve(cost, a, b, epsilon=0)
    assert exact.value().item() == pytest.approx(expected, abs=1e-10)
    assert exact.value("regularized").item() == pytest.approx(expected, abs=1e-10)
    # Sinkhorn's distance is above by at most ε KL(P*|abᵀ), which no plan takes above log 1/min(a).
    epsilon = 0.01
    result = solve(cost, a, b, epsilon=epsilon, max_iter=20_000, tol=1e-9)
    bound = epsilon * math.log(1 / min(a.min().item(), b.min().item()))
    assert expected - 1e-8 <= result.value().item() <= expected + bound + 1e-8


def test_sorted_uniform_points_on_the_line():
    x, y = (torch.rand(7, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (5, 6))
    expected = (x.sort().values - y.sort().values).abs().mean()
    close(solve((x[:, None] - y).abs(), epsilon=0).value(), expected, 1e-12)


@given(problems())
@settings(max_examples=15, deadline=None)
def test_exact_is_optimal(problem):
    cost, a, b, _ = problem
    cost = cost.dense()
    result = solve(cost, a, b, epsilon=0, solver="exact")
    assert result.converged.all()
    assert (result.iterations == 0).all()
    close(result.plan.sum(-1), a, 1e-12)
    close(result.plan.sum(-2), b, 1e-12)
    # Feasible duals of the same value prove it, for the points that have mass.
    no_mass = (a == 0).unsqueeze(-1) & (b == 0).unsqueeze(-2)
    assert ((outer_sum(result.potentials) <= cost + 1e-9) | no_mass).all()
    close(result.value("regularized"), result.value(), 1e-10)


def test_exact_solves_negative_costs():
    cost = torch.tensor([[-2.0, -3.0], [-3.0, -2.0]], requires_grad=True)
    result = solve(cost, epsilon=0)
    result.value().backward()
    assert result.converged, result.status
    assert result.value() == result.value("regularized") == -3
    close(cost.grad, torch.tensor([[0.0, 0.5], [0.5, 0.0]]), 0)


@given(problems(), st.floats(-1e6, 0.0))
@settings(max_examples=25, deadline=None)
def test_exact_moves_with_a_shift_of_the_cost(problem, shift):
    cost, a, b, _ = problem
    cost = cost.dense()
    plain = solve(cost, a, b, epsilon=0)
    # The points without mass keep their costs: they set no scale for the others.
    masked = (a == 0).unsqueeze(-1) | (b == 0).unsqueeze(-2)
    moved = solve(torch.where(masked, 1e9, cost + shift), a, b, epsilon=0)
    assert moved.converged.all()
    for kind in ("transport", "regularized"):
        close(moved.value(kind), plain.value(kind) + shift, 1e-9 * (1 - shift))
    close(moved.plan.sum(-1), a, 1e-12)
    close(moved.plan.sum(-2), b, 1e-12)


def test_equal_measures():
    positions = torch.rand(6, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    cost = torch.cdist(positions, positions)
    mass = torch.rand(6, generator=torch.Generator().manual_seed(8), dtype=torch.float64).softmax(-1)
    for epsilon in (0, 0.1):
        result = solve(cost, mass, mass, epsilon=epsilon, self_costs=(cost, cost), max_iter=5000, tol=1e-12)
        close(result.value("divergence"), torch.tensor(0.0, dtype=torch.float64), 1e-10)
    # The Sinkhorn distance itself is not 0: the divergence removes it.
    assert result.value() > 0.01
    assert solve(cost, mass, mass, epsilon=0).value().abs() < 1e-12


@given(problems(epsilon=(0.1, 1.0)))
@settings(max_examples=15, deadline=None)
def test_divergence_is_not_negative(problem):
    cost, a, b, epsilon = problem
    # |x − y| and ‖x − y‖ make exp(−C/ε) a positive definite kernel, for which the divergence is one.
    result = solve(cost, a, b, epsilon=epsilon, self_costs=cost.self_costs(), max_iter=5000, tol=1e-11)
    assert (result.value("divergence") >= -1e-9).all()
    result_aa, result_bb = result.self_results
    expected = result.value("regularized") - 0.5 * (result_aa.value("regularized") + result_bb.value("regularized"))
    close(result.value("divergence"), expected, 1e-15)


@pytest.mark.parametrize("solver", [*ENTROPIC, pytest.param("geomloss-keops", marks=KEOPS)])
def test_masses_of_zero_are_as_if_left_out(solver):
    generator = torch.Generator().manual_seed(9)
    positions = torch.rand(5, 2, generator=generator, dtype=torch.float64)
    values = torch.rand(2, 5, generator=generator, dtype=torch.float64)
    a = torch.tensor([0.5, 0.0, 0.25, 0.25, 0.0], dtype=torch.float64)
    b = torch.tensor([0.0, 0.2, 0.2, 0.2, 0.4], dtype=torch.float64)
    full = solve(pointcloud_cost(values[0], values[1], positions, positions), a, b, epsilon=0.1, solver=solver, **TIGHT)
    part = solve(
        pointcloud_cost(values[0, a > 0], values[1, b > 0], positions[a > 0], positions[b > 0]),
        a[a > 0],
        b[b > 0],
        epsilon=0.1,
        solver=solver,
        **TIGHT,
    )
    assert all(x.isfinite().all() for x in full.potentials)
    close(full.value(), part.value(), 1e-10)
    close(full.plan[a > 0][:, b > 0], part.plan, 1e-10)
    assert (full.plan[a == 0] == 0).all()


@pytest.mark.parametrize("solver", [*ENTROPIC, "exact", pytest.param("geomloss-keops", marks=KEOPS)])
def test_empty_batch(solver):
    epsilon = 0 if solver == "exact" else 0.1
    positions = grid_positions(2, 2)
    values = torch.rand(0, 4, requires_grad=True)
    result = solve(pointcloud_cost(values, values, positions, positions), epsilon=epsilon, solver=solver)
    for kind in ("transport", "regularized"):
        value = result.value(kind)
        assert value.shape == (0,)
        value.sum().backward(retain_graph=True)
    assert values.grad.shape == (0, 4)
    assert result.plan.shape == (0, 4, 4)
    assert result.iterations.shape == result.converged.shape == (0,)
    assert result.status == "Nothing to solve: the batch is empty."


@pytest.mark.parametrize("solver", [*ENTROPIC, "exact"])
def test_batch_shapes(solver):
    epsilon = 0 if solver == "exact" else 0.1
    cost = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    a = torch.rand(3, 4, generator=torch.Generator().manual_seed(11), dtype=torch.float64).softmax(-1)
    result = solve(cost, a, epsilon=epsilon, solver=solver, **TIGHT)
    assert result.plan.shape == (2, 3, 4, 5)
    assert [x.shape for x in result.potentials] == [(2, 3, 4), (2, 3, 5)]
    assert result.value().shape == result.marginal_error.shape == result.iterations.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = solve(cost[i, 0], a[j], epsilon=epsilon, solver=solver, **TIGHT)
            assert alone.value().shape == ()
            close(result.value()[i, j], alone.value(), 1e-10)
    # One cost for a batch of marginals, and a layout that is not contiguous.
    shared = solve(cost[0, 0], a, epsilon=epsilon, solver=solver, **TIGHT)
    close(shared.value(), result.value()[0], 1e-10)
    strided = solve(cost[0, 0].mT.contiguous().mT, a.mT.contiguous().mT, epsilon=epsilon, solver=solver, **TIGHT)
    close(strided.value(), shared.value(), 1e-12)


def test_a_result_does_not_depend_on_its_batch():
    cost = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(12))
    cost[1] *= 10
    together = solve(cost, epsilon=0.05, max_iter=500)
    assert len(set(together.iterations.tolist())) > 1
    for i in range(3):
        alone = solve(cost[i], epsilon=0.05, max_iter=500)
        assert alone.iterations == together.iterations[i]
        close(alone.value(), together.value()[i], 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    cost = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(13)).to(dtype).requires_grad_()
    a = torch.rand(2, 4, generator=torch.Generator().manual_seed(14)).softmax(-1).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = solve(cost, a, epsilon=0.05)
        value = result.value()
    assert value.dtype == torch.float32
    value.sum().backward()
    assert cost.grad.dtype == dtype
    wide = a.float() / a.float().sum(-1, keepdim=True)
    expected = solve(cost.detach().float(), wide, epsilon=0.05).value()
    torch.testing.assert_close(value.detach(), expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize("solver", ENTROPIC)
def test_autocast_changes_nothing(solver):
    cost = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(15), requires_grad=True)
    values, grads = [], []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            value = solve(cost, epsilon=0.05, solver=solver).value()
            grads.append(torch.autograd.grad(value.sum(), cost)[0])
        values.append(value)
    assert torch.equal(values[0], values[1])
    assert torch.equal(grads[0], grads[1])


@pytest.mark.parametrize("solver", ["dense", "pot", "geomloss", pytest.param("geomloss-keops", marks=KEOPS)])
def test_the_solution_as_init(solver):
    cost = lazy_grid_cost(3, 3, dtype=torch.float64)
    a = torch.rand(9, generator=torch.Generator().manual_seed(16), dtype=torch.float64).softmax(-1)
    cold = solve(cost, a, epsilon=0.02, solver=solver, max_iter=5000, tol=1e-8)
    warm = solve(cost, a, epsilon=0.02, solver=solver, max_iter=5000, tol=1e-8, init=cold.potentials)
    assert warm.iterations < cold.iterations
    assert warm.iterations <= 4
    close(warm.value(), cold.value(), 1e-8)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_the_gradient_of_a_point_without_mass_is_what_its_first_mass_costs(epsilon):
    generator = torch.Generator().manual_seed(19)
    cost = torch.rand(3, 5, 4, generator=generator, dtype=torch.float64)
    a, b = (torch.rand(3, n, generator=generator, dtype=torch.float64) for n in (5, 4))
    a[:, 1] = a[1:, 3] = b[:, 2] = 0

    def value(a, b):
        a, b = (x / x.sum(-1, keepdim=True) for x in (a, b))
        return solve(cost, a, b, epsilon=epsilon, max_iter=20_000, tol=1e-13).value()

    gradients = torch.autograd.grad(value(a.requires_grad_(), b.requires_grad_()).sum(), (a, b))
    with torch.no_grad():
        for mass, gradient, empty in ((a, gradients[0], (1, 3)), (b, gradients[1], (2,))):
            for k in empty:
                more = mass.clone()
                more[:, k] += 1e-6
                after = value(more, b) if mass is a else value(a, more)
                close((after - value(a, b)) / 1e-6, gradient[:, k], 1e-4)


@pytest.mark.parametrize("solver", ["dense", "fused", "pot", "geomloss", pytest.param("geomloss-keops", marks=KEOPS)])
def test_potentials_of_nan_as_init_count_as_zeros(solver):
    cost = lazy_grid_cost(2, 3, dtype=torch.float64)
    a = torch.rand(2, 6, generator=torch.Generator().manual_seed(18), dtype=torch.float64).softmax(-1)
    broken = a.clone()
    broken[0, 2] = torch.nan
    last = solve(cost, broken, epsilon=0.1, solver=solver)
    assert last.potentials[0].isnan().any(1).tolist() == [True, False]
    again = solve(cost, a, epsilon=0.1, solver=solver, init=last.potentials)
    assert again.converged.all()
    close(again.value(), solve(cost, a, epsilon=0.1, solver=solver).value(), 1e-3)


@pytest.mark.parametrize("solver", [*ENTROPIC, pytest.param("geomloss-keops", marks=KEOPS)])
def test_the_marginal_error_is_that_of_the_plan(solver):
    generator = torch.Generator().manual_seed(17)
    positions = grid_positions(3, 3, dtype=torch.float64)
    source, target = torch.rand(2, 2, 9, generator=generator, dtype=torch.float64)
    a = torch.rand(2, 9, generator=generator, dtype=torch.float64).softmax(-1)
    cost = pointcloud_cost(source, target, positions, positions)
    result = solve(cost, a, epsilon=0.02, solver=solver, max_iter=8, tol=1e-9)
    error = (result.plan.sum(-1) - a).abs().sum(-1) + (result.plan.sum(-2) - 1 / 9).abs().sum(-1)
    close(result.marginal_error, error, 1e-12)
    assert not result.converged.any()
    assert (result.iterations == 8).all()


def test_arguments_are_checked():
    cost = torch.rand(2, 3)
    half = torch.full((2,), 0.5)
    with pytest.raises(ValueError, match=r"`cost` to have shape \(..., N, M\)"):
        solve(half)
    with pytest.raises(ValueError, match="N >= 1 and M >= 1"):
        solve(cost[:0])
    with pytest.raises(TypeError, match="`cost` to have a floating dtype"):
        solve(cost.long())
    with pytest.raises(ValueError, match=r"`a` to have shape \(..., 2\)"):
        solve(cost, cost[0])
    with pytest.raises(ValueError, match="batch shapes of `cost`, `a` and `b` to broadcast"):
        solve(cost.expand(2, 2, 3), half.expand(3, 2))
    with pytest.raises(ValueError, match="`a` to be non-negative"):
        solve(cost, torch.tensor([1.5, -0.5]))
    with pytest.raises(ValueError, match="equal masses"):
        solve(cost, 2 * half)
    with pytest.raises(ValueError, match="positive mass"):
        solve(cost.expand(2, 2, 3), torch.stack((half, 0 * half)))
    with pytest.raises(ValueError, match="`max_iter`"):
        solve(cost, max_iter=0)
    with pytest.raises(ValueError, match="`tol`"):
        solve(cost, tol=0.0)
    with pytest.raises(ValueError, match="`epsilon`"):
        solve(cost, epsilon=-1.0)
    with pytest.raises(ValueError, match="`init` to hold f of shape"):
        solve(cost, init=(torch.zeros(5), torch.zeros(3)))
    with pytest.raises(ValueError, match="takes no matrix"):
        solve(cost, solver="geomloss-keops")


def peak():
    # Not ru_maxrss: that begins with the peak of the process that started this one.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def use_lazily(size, solver):
    positions = grid_positions(size, size, dtype=torch.float64)
    source, target = torch.rand(2, 2, size**2, dtype=torch.float64).unbind()
    cost = pointcloud_cost(source.requires_grad_(), target, positions, positions)
    solve(cost, epsilon=1.0, solver=solver, max_iter=1).value().sum().backward()


def growth(_rank, solver):
    if solver == "fused":
        from sslosses.transport.solvers.fused.cpu import problems as cpu

        cpu._KEPT_BYTES = 0  # the path of large problems for both sizes, so that both use the same compiled code
    use_lazily(4, solver)
    before = peak()
    use_lazily(40, solver)
    return peak() - before


@KEOPS
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_lazy_solvers_build_no_matrix():
    # Peak memory of a forward and backward pass in MB; the matrix of one of the two problems takes 20 MB.
    grown = {}
    for solver in ("geomloss-keops", "fused", "dense"):
        (grown[solver],) = processes.run(growth, solver, processes=1)
    assert grown["dense"] > 40, grown
    assert grown["geomloss-keops"] < 10
    assert grown["fused"] < 10
