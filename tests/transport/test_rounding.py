"""A result that says it converged is right: small ε in both dtypes, huge and non-finite costs, tiny masses."""

import pytest
import torch

from sslosses.transport import Solution, available, grid_positions, pointcloud_cost, solve

KEOPS = pytest.mark.skipif(not available()["geomloss-keops"], reason=str(available()["geomloss-keops"]))
MATRIX = ("dense", "fused", "pot", "pot-batch", "geomloss")
LAZY = ("fused", pytest.param("geomloss-keops", marks=KEOPS))


def plan_error(result, a, b):
    p = result.plan
    return (p.sum(-1) - a).abs().sum(-1) + (p.sum(-2) - b).abs().sum(-1)


@pytest.mark.parametrize("solver", MATRIX)
def test_an_epsilon_below_the_resolution_of_float32_is_named(solver):
    # One target: the plan is a, whatever the cost.
    cost = torch.tensor([[1000.3], [0.1], [777.7]])
    result = solve(cost, epsilon=1e-4, solver=solver)
    assert not result.converged
    torch.testing.assert_close(
        result.marginal_error, plan_error(result, 1 / 3, 1.0).clamp(min=0.5962), rtol=1e-3, atol=0
    )
    assert "epsilon (0.0001) is below what float32 resolves" in result.status
    assert "Pass the cost and the masses in float64, an epsilon of 0.24 or more" in result.status
    assert "max_iter" not in result.status
    for change in ({"cost": cost.double(), "epsilon": 1e-4}, {"cost": cost, "epsilon": 0.24}):
        mended = solve(**change, solver=solver)
        assert mended.converged, mended.status
        torch.testing.assert_close(mended.value().double(), cost.double().mean(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("solver", MATRIX)
@pytest.mark.parametrize("epsilon", [1e-6, 1e-10, 1e-45])
def test_a_cost_of_squared_pixels_never_converges_to_garbage(solver, epsilon):
    generator = torch.Generator().manual_seed(0)
    here, there = (224 * torch.rand(2, 1, 25, 2, generator=generator)).unbind()
    cost = (here.unsqueeze(2) - there.unsqueeze(1)).square().sum(-1)
    result = solve(cost, epsilon=epsilon, solver=solver)
    assert not result.converged.any()
    assert not result.marginal_error.isnan().any()
    assert f"epsilon ({epsilon:g}) is below what float32 resolves" in result.status
    assert "NaN" not in result.status


@pytest.mark.parametrize("solver", LAZY)
def test_a_lazy_cost_is_checked_by_its_plan_too(solver):
    source, target = torch.rand(2, 3, 9, generator=torch.Generator().manual_seed(1)).unbind()
    positions = grid_positions(3, 3)
    cost = pointcloud_cost(1e4 * source, 1e4 * target, positions, positions)
    result = solve(cost, epsilon=0.01, solver=solver)
    assert not result.converged.any()
    assert (result.marginal_error > 0.1).all()
    assert "is below what float32 resolves" in result.status


def test_epsilon_below_the_resolution_of_float64_is_named():
    result = solve(torch.tensor([[1000.3], [0.1]], dtype=torch.float64), epsilon=1e-14)
    assert not result.converged
    assert "is below what float64 resolves" in result.status
    assert "Pass an epsilon of" in result.status


@pytest.mark.parametrize("solver", MATRIX)
def test_convergence_holds_for_the_plan(solver):
    generator = torch.Generator().manual_seed(2)
    claimed = 0
    for size in (1, 2, 5, 20):
        for ratio in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
            cost = 50 * torch.rand(4, size, 7, generator=generator) - 20
            for tol in (1e-2, 1e-4):
                epsilon = ratio * cost.abs().max().item()
                result = solve(cost, epsilon=epsilon, solver=solver, max_iter=300, tol=tol)
                error = plan_error(result, 1 / size, 1 / 7)[result.converged]
                assert (error <= 1.06 * tol).all()
                claimed += len(error)
    assert claimed > 30


def test_a_result_near_the_resolution_does_not_depend_on_its_batch():
    cost = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(3))
    cost[1] *= 100  # solved to half the tolerance
    cost[2] *= 1e6  # can't be solved
    together = solve(cost, epsilon=0.05, max_iter=2000)
    assert together.converged.tolist() == [True, True, False]
    for i in range(3):
        alone = solve(cost[i], epsilon=0.05, max_iter=2000)
        assert alone.iterations == together.iterations[i]
        torch.testing.assert_close(alone.value(), together.value()[i], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
def test_compiled_and_eager_agree_near_the_resolution():
    cost = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(4))
    cost[1] *= 100
    cost[2] *= 1e6

    def run(cost):
        result = solve(cost, epsilon=0.05, solver="dense", max_iter=60)
        return result.value("transport", "envelope"), result.marginal_error, result.converged, result.iterations

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(compiled(cost), run(cost), strict=True):
        torch.testing.assert_close(actual[:2], expected[:2], rtol=1e-5, atol=1e-6)
    assert not compiled(cost)[2][2]


def test_potentials_that_are_not_finite_never_converge():
    class Boaster:
        name, entropic, unrolled, lazy = "boaster", True, False, False

        def solve(self, problem, *, max_iter, tol, init):  # noqa: ARG002
            count = problem.a.shape[0]
            error = problem.a.new_zeros(count)
            f = torch.full_like(problem.a, self.filler)
            return Solution(f, torch.zeros_like(problem.b), torch.ones(count, dtype=torch.int64), error)

    for filler in (torch.nan, torch.inf, -torch.inf):
        solver = Boaster()
        solver.filler = filler
        result = solve(torch.rand(2, 3, 4), solver=solver)
        assert not result.converged.any()
        assert result.marginal_error.isposinf().all()


def test_non_finite_input_is_named_with_its_place():
    cost = torch.rand(2, 3, 4, 5)
    cost[1, 2, 0, 3] = torch.nan
    status = solve(cost).status
    assert "1 of 6 problems hold NaN or inf" in status
    assert "In problem [1, 2], `cost` holds nan at [0, 3]." in status
    assert "max_iter" not in status
    mass = torch.tensor([0.5, torch.inf])
    assert "In the problem, `a` holds inf at [1]." in solve(torch.rand(2, 2), mass).status
    positions = grid_positions(2, 2)
    values = torch.rand(3, 4)
    values[2, 1] = -torch.inf
    lazy = pointcloud_cost(torch.rand(3, 4), values, positions, positions)
    assert "In problem [2], `target` holds -inf at [1]." in solve(lazy, solver="fused").status


def test_each_cause_gets_its_sentence():
    cost = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(5))
    cost[1] *= 1e7
    cost[2] = torch.nan
    status = solve(cost, epsilon=0.01, max_iter=2).status
    assert status.count("of 3 problems") == 3
    assert "hold NaN or inf" in status
    assert "is below what float32 resolves" in status
    assert "Raise max_iter (2) or epsilon (0.01)" in status


@pytest.mark.parametrize("solver", [*MATRIX, "exact"])
def test_masses_that_differ_by_more_than_tol_are_named(solver):
    cost = torch.rand(5, 7, generator=torch.Generator().manual_seed(7))
    a, b = torch.full((5,), 0.2), torch.full((7,), 1.0005 / 7)
    options = {"epsilon": 0 if solver == "exact" else 0.1, "max_iter": 500, "tol": 1e-4, "solver": solver}
    status = solve(cost, a, b, **options).status
    assert "the sums of a and b differ by up to 0.0005, so no plan has a smaller marginal error" in status
    assert "Divide a and b by their sums" in status
    assert "max_iter" not in status
    assert solve(cost, a, b / b.sum(), **options).converged


@pytest.mark.parametrize("solver", [*MATRIX, "exact"])
def test_a_tolerance_below_what_the_masses_resolve_is_named(solver):
    cost = torch.rand(5, 7, generator=torch.Generator().manual_seed(8))
    a, b = torch.full((5,), 2e5), torch.full((7,), 1e6 / 7)
    options = {"epsilon": 0 if solver == "exact" else 0.1, "max_iter": 500, "solver": solver}
    status = solve(cost, a, b, **options).status
    assert "tol (0.001) is below what float32 resolves of a mass of 1e+06" in status
    assert "Pass the cost and the masses in float64, masses that sum to 1, or a tol of 3.9 or more." in status
    assert "max_iter" not in status
    assert solve(cost, a / a.sum(), b / b.sum(), **options).converged
    assert solve(cost, a, b, **options | {"tol": 3.9}).converged
    assert solve(cost.double(), a.double(), torch.full((7,), 1e6 / 7).double(), **options | {"tol": 0.1}).converged


@pytest.mark.parametrize("solver", ["dense", "fused"])
def test_the_epsilon_that_the_status_names_is_enough(solver):
    # The rounding of few points does not average out.
    for seed in range(20):
        cost = 100 + torch.rand(1, 1 + seed % 2, generator=torch.Generator().manual_seed(seed))
        options = {"tol": 1e-5, "max_iter": 500, "solver": solver}
        status = solve(cost, epsilon=0.01, **options).status
        epsilon = float(status.partition("an epsilon of ")[2].partition(" ")[0])
        assert solve(cost, epsilon=epsilon, **options).converged


def test_scaling_sees_the_range_of_negative_costs():
    cost = torch.rand(20, 20, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    options = {"epsilon": 0.005, "max_iter": 20_000, "scaling": 0.5, "solver": "dense"}
    assert torch.equal(solve(cost - 1, **options).iterations, solve(cost, **options).iterations)


@pytest.mark.parametrize("solver", [*MATRIX, pytest.param("geomloss-keops", marks=KEOPS)])
@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("tiny", [1e-9, 0.0])
def test_the_gradient_for_a_tiny_mass_is_exact_where_the_solver_stops_at_once(solver, side, tiny):
    # The points with mass are equal, so that one update solves the problem for them, from potentials of 0.
    own = torch.tensor([[0.2, 0.2, 0.9]], dtype=torch.float64)
    other = torch.tensor([[0.0, 0.5, 1.0, 0.3]], dtype=torch.float64)
    own_mass = torch.tensor([0.5, 0.5 - tiny, tiny], dtype=torch.float64)
    other_mass = torch.tensor([0.1, 0.2, 0.4, 0.3], dtype=torch.float64)
    values, masses = (own, other), (own_mass, other_mass)
    if side == "b":
        values, masses = values[::-1], masses[::-1]
    cost = pointcloud_cost(*values, *(torch.zeros(x.shape[1], 1, dtype=torch.float64) for x in values))

    def gradient(solver, **options):
        leaves = [mass.clone().requires_grad_() for mass in masses]
        result = solve(cost, *leaves, epsilon=0.05, solver=solver, **options)
        assert result.converged.all()
        return torch.autograd.grad(result.value("regularized").sum(), leaves["ab".index(side)])[0]

    expected = gradient("dense", max_iter=20_000, tol=1e-14)
    torch.testing.assert_close(gradient(solver, max_iter=200, tol=1e-6), expected, rtol=0, atol=1e-6)
