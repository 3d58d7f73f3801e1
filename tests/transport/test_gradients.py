"""The one differentiable value: against autograd through Sinkhorn, finite differences and a dense linear solve."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslosses.transport import (
    ConvergenceWarning,
    available,
    grid_cost,
    grid_positions,
    lazy_grid_cost,
    pointcloud_cost,
    solve,
    warn_if_not_converged,
)
from sslosses.transport.adjoint import adjoint_potentials, solve_adjoint

TIGHT = {"max_iter": 40_000, "tol": 1e-13}
KEOPS = pytest.mark.skipif(not available()["geomloss-keops"], reason=str(available()["geomloss-keops"]))
KINDS = ("transport", "regularized", "divergence")


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def plain_sinkhorn(cost, a, b, epsilon, steps):
    """⟨P, C⟩ and ⟨f, a⟩ + ⟨g, b⟩ of one problem as a torch expression, for autograd."""
    g = torch.zeros_like(b)
    for _ in range(steps):
        f = -epsilon * torch.logsumexp((g - cost) / epsilon + b.log(), dim=1)
        g = -epsilon * torch.logsumexp((f[:, None] - cost) / epsilon + a.log()[:, None], dim=0)
    plan = a[:, None] * b * ((f[:, None] + g - cost) / epsilon).exp()
    return (plan * cost).sum(), (f * a).sum() + (g * b).sum()


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6), st.floats(0.1, 1.0))
@settings(max_examples=20, deadline=None)
def test_exact_equals_autograd_through_sinkhorn(seed, rows, columns, epsilon):
    cost = rand(rows, columns, seed=seed).requires_grad_()
    logits_a = rand(rows, seed=seed + 1).requires_grad_()
    logits_b = rand(columns, seed=seed + 2).requires_grad_()
    inputs = (cost, logits_a, logits_b)
    a, b = logits_a.softmax(0), logits_b.softmax(0)
    expected = plain_sinkhorn(cost, a, b, epsilon, 500)
    recorded = solve(cost, a, b, epsilon=epsilon, gradient="unrolled", **TIGHT)
    result = solve(cost, a, b, epsilon=epsilon, **TIGHT)
    for kind, reference in zip(KINDS, expected, strict=False):
        expected_grads = torch.autograd.grad(reference, inputs, retain_graph=True)
        values = [(result, "exact"), (recorded, "unrolled"), (recorded, "exact")]
        if kind == "regularized":
            values.append((result, "envelope"))
        for solved, gradient in values:
            value = solved.value(kind, gradient)
            close(value, reference, 1e-9)
            for actual, wanted in zip(
                torch.autograd.grad(value, inputs, retain_graph=True), expected_grads, strict=True
            ):
                close(actual, wanted, 1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_gradcheck(kind, epsilon):
    # The self costs move along: the divergence is differentiated with respect to all three.
    def value(cost, logits_a, logits_b):
        self_costs = (cost @ cost.mT, cost.mT @ cost)
        a, b = logits_a.softmax(-1), logits_b.softmax(-1)
        return solve(cost, a, b, epsilon=epsilon, self_costs=self_costs, **TIGHT).value(kind)

    inputs = [rand(2, 4, 3), rand(2, 4, seed=1), rand(2, 3, seed=2)]
    assert torch.autograd.gradcheck(value, [x.requires_grad_() for x in inputs])


def test_gradcheck_of_shared_cost_and_mass_normalized_by_its_sum():
    def value(cost, a, b):
        a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
        return solve(cost, a, b, epsilon=0.1, **TIGHT).value()

    inputs = [rand(4, 3), rand(2, 4, seed=1) + 0.1, rand(2, 3, seed=2) + 0.1]
    assert torch.autograd.gradcheck(value, [x.requires_grad_() for x in inputs])


def test_exact_solver_gradient_is_the_plan_and_the_duals():
    def value(cost, logits_a, logits_b):
        return solve(cost, logits_a.softmax(-1), logits_b.softmax(-1), epsilon=0).value()

    inputs = [x.requires_grad_() for x in (rand(2, 4, 3), rand(2, 4, seed=1), rand(2, 3, seed=2))]
    assert torch.autograd.gradcheck(value, inputs)
    result = solve(inputs[0], epsilon=0)
    close(torch.autograd.grad(result.value().sum(), inputs[0])[0], result.plan, 1e-15)


def test_envelope_is_the_plan_and_biased_for_the_transport_value():
    cost = rand(4, 5).requires_grad_()
    result = solve(cost, epsilon=0.3, **TIGHT)
    envelope, exact = (torch.autograd.grad(result.value(gradient=g), cost)[0] for g in ("envelope", "exact"))
    close(envelope, result.plan, 1e-15)
    assert (envelope - exact).abs().max() > 0.1 * exact.abs().max()
    close(torch.autograd.grad(result.value("regularized"), cost)[0], result.plan, 1e-15)


def test_marginal_gradients_are_centered():
    a, b = (rand(5, seed=s).softmax(-1).requires_grad_() for s in (1, 2))
    cost = rand(5, 5)
    for result in (solve(cost, a, b, epsilon=0.1, **TIGHT), solve(cost, a, b, epsilon=0)):
        for kind in ("transport", "regularized"):
            for mass, grad in zip((a, b), torch.autograd.grad(result.value(kind), (a, b)), strict=True):
                close((mass * grad).sum(), torch.tensor(0.0, dtype=torch.float64), 1e-12)
                assert grad.abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["transport", "regularized"])
def test_the_gradient_at_a_mass_of_zero_is_the_one_sided_derivative(kind):
    cost, b = rand(4, 3), rand(3, seed=1).softmax(-1)

    def value(a):
        return solve(cost, a, b, epsilon=0.1, **TIGHT).value(kind)

    a = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(value(a), a)
    assert grad.isfinite().all()
    # Move mass to the empty point, from all others in proportion.
    step = 1e-6
    direction = -a.detach()
    direction[1] = 1
    with torch.no_grad():
        forward = (4 * value(a + step * direction) - value(a + 2 * step * direction) - 3 * value(a)) / (2 * step)
    close((grad * direction).sum(), forward, 1e-6)


def test_the_adjoint_solves_the_dense_system():
    cost = rand(3, 5, 4)
    a = rand(3, 5, seed=1) + 0.1
    a[0, 2] = 0
    a = a / a.sum(-1, keepdim=True)
    # Before convergence as well as after it.
    for steps in (1, 3, 10_000):
        plan = solve(cost, a, epsilon=0.05, max_iter=steps, tol=1e-12).plan
        rows, columns = plan.sum(-1), plan.sum(-2)
        lam, mu = adjoint_potentials(plan, cost)
        moved = plan * cost
        close(rows * lam + (plan @ mu[..., None])[..., 0], moved.sum(-1), 1e-12)
        close(columns * mu + (plan.mT @ lam[..., None])[..., 0], moved.sum(-2), 1e-12)
        for p in range(3):
            system = torch.cat((torch.cat((rows[p].diag(), plan[p]), 1), torch.cat((plan[p].mT, columns[p].diag()), 1)))
            both = torch.linalg.pinv(system) @ torch.cat((moved[p].sum(-1), moved[p].sum(-2)))
            support = plan[p] > 0
            actual, wanted = lam[p][:, None] + mu[p], both[:5, None] + both[5:]
            close(actual[support], wanted[support], 1e-9)


def test_the_adjoint_keeps_rounding_out_of_its_null_space():
    # Products of large float32 plans are off by some 1e-6; a constant that follows from it must not grow.
    cost, a = grid_cost(12, 12, dtype=torch.float64), rand(2, 144)
    plan = solve(cost, a / a.sum(-1, keepdim=True), epsilon=0.05, max_iter=20).plan
    lam, mu = adjoint_potentials(plan, cost.expand_as(plan).contiguous())
    narrow = plan.float()
    moved = narrow * cost.float()
    actual = solve_adjoint(
        lambda v: (narrow @ v[..., None])[..., 0],
        lambda u: (1 + 1e-6) * (narrow.mT @ u[..., None])[..., 0],
        a=narrow.sum(-1),
        b=narrow.sum(-2),
        r=moved.sum(-1),
        c=moved.sum(-2),
    )
    expected = lam[..., None] + mu[:, None]
    close(actual[0][..., None].double() + actual[1][:, None], expected, 1e-4 * expected.abs().max().item())


def test_the_adjoint_of_a_plan_in_pieces_is_finite():
    # ε so small that no mass connects the two halves: the system is singular in more than one direction.
    cost = torch.tensor([[0.1, 0.2, 1, 1], [0.2, 0.1, 1, 1], [1, 1, 0.1, 0.3], [1, 1, 0.3, 0.1]], requires_grad=True)
    result = solve(cost, epsilon=1e-3, max_iter=1000)
    assert result.converged
    (grad,) = torch.autograd.grad(result.value(), cost)
    torch.testing.assert_close(grad, torch.eye(4) / 4, rtol=0, atol=1e-5)


def test_float32_gradient_is_near_float64():
    cost = grid_cost(6, 6, dtype=torch.float64) + rand(36, 36)
    grads = []
    for dtype in (torch.float32, torch.float64):
        leaf = cost.to(dtype).requires_grad_()
        value = solve(leaf, epsilon=0.05, max_iter=2000, tol=1e-5).value()
        grads.append(torch.autograd.grad(value, leaf)[0].double())
    assert (grads[0] - grads[1]).abs().max() < 1e-3 * grads[1].abs().max()


def values_and_gradients(source, target, formulation, solver, kind, **options):
    """Values of maps on a 4 × 3 grid and their gradients; as measures, pixels of 0 have no mass."""
    source, target = source.clone().requires_grad_(), target.clone().requires_grad_()
    if formulation == "pointcloud":
        positions = grid_positions(4, 3, dtype=source.dtype)
        cost, masses = pointcloud_cost(source, target, positions, positions, 0.7, 1.3), (None, None)
    else:
        cost, masses = lazy_grid_cost(4, 3, dtype=source.dtype), [x / x.sum(-1, keepdim=True) for x in (source, target)]
    value = solve(cost, *masses, epsilon=0.1, solver=solver, **options).value(*kind)
    weights = torch.tensor([1.0, -2.0], dtype=source.dtype)
    return value, *torch.autograd.grad((weights * value).sum(), (source, target))


@KEOPS
@pytest.mark.parametrize("kind", [("transport", "exact"), ("transport", "envelope"), ("regularized", "exact")])
@pytest.mark.parametrize("formulation", ["pointcloud", "distribution"])
def test_gradient_without_the_matrix_is_that_with_it(formulation, kind):
    # Eighths, so that some values are equal, where the cost has a corner, and some are 0.
    source, target = ((8 * rand(2, 12, seed=seed)).floor() / 8 for seed in (3, 4))
    assert (source == 0).any()
    assert (source[:, :, None] == target[:, None]).any()
    expected = values_and_gradients(source, target, formulation, "dense", kind, **TIGHT)
    lazy = values_and_gradients(source, target, formulation, "geomloss-keops", kind, **TIGHT)
    narrow = values_and_gradients(
        source.float(), target.float(), formulation, "geomloss-keops", kind, max_iter=4000, tol=2e-6
    )
    for actual, float32, wanted in zip(lazy, narrow, expected, strict=True):
        assert wanted.abs().max() > 1e-3
        close(actual, wanted, 1e-9)
        assert (float32 - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@KEOPS
def test_gradcheck_without_the_matrix():
    x, y = rand(4, 2, seed=5), rand(3, 2, seed=6)

    def value(source, target, logits_a, logits_b):
        a, b = logits_a.softmax(-1), logits_b.softmax(-1)
        return solve(pointcloud_cost(source, target, x, y), a, b, epsilon=0.1, solver="geomloss-keops", **TIGHT).value()

    inputs = [rand(2, n, seed=seed).requires_grad_() for seed, n in enumerate((4, 3, 4, 3))]
    assert torch.autograd.gradcheck(value, inputs)


def test_unrolled_is_differentiable_twice_and_the_others_refuse():
    cost = rand(3, 3).requires_grad_()

    def value(x, gradient):
        return solve(x, epsilon=0.5, max_iter=30, tol=1e-12, gradient=gradient).value()

    assert torch.autograd.gradgradcheck(lambda x: value(x, "unrolled"), cost)
    for gradient in ("exact", "envelope"):
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(value(cost, gradient), cost, create_graph=True)


def test_plan_and_potentials_carry_a_graph_only_if_unrolled():
    cost = rand(3, 3).requires_grad_()
    result, recorded = (solve(cost, epsilon=0.5, gradient=gradient) for gradient in ("exact", "unrolled"))
    assert not result.plan.requires_grad
    assert not any(x.requires_grad for x in result.potentials)
    assert recorded.plan.requires_grad
    assert all(x.requires_grad for x in recorded.potentials)


def test_errors_of_value():
    result = solve(rand(3, 3), epsilon=0.1)
    with pytest.raises(ValueError, match=r"self_costs=\(cost_aa, cost_bb\)"):
        result.value("divergence")
    with pytest.raises(ValueError, match='Expected a solve with gradient="unrolled"'):
        result.value(gradient="unrolled")
    with pytest.raises(ValueError, match="`kind` to be one of"):
        result.value("wasserstein")
    with pytest.raises(ValueError, match="`gradient` to be one of"):
        result.value(gradient="implicit")


def test_lack_of_convergence_is_said_and_warned_of_but_never_raised():
    cost = torch.stack((rand(6, 6), 1 - torch.eye(6, dtype=torch.float64)))
    result = solve(cost, epsilon=0.01, max_iter=3)
    assert result.converged.tolist() == [False, True]
    assert result.iterations.tolist() == [3, 1]
    assert result.value().isfinite().all()
    for word in ("1 of 2", "did not converge", repr(result.solver), "max_iter (3)", "epsilon (0.01)", "tol"):
        assert word in result.status
    assert "did not converge" in repr(result)
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        assert warn_if_not_converged(result)
    good = solve(cost, epsilon=0.5)
    assert good.status.startswith("All 2 problems converged")
    assert not warn_if_not_converged(good)
    # A self problem that did not converge counts.
    partly = solve(1 - torch.eye(6), epsilon=0.01, max_iter=3, self_costs=(rand(6, 6), rand(6, 6)))
    assert partly.converged
    with pytest.warns(ConvergenceWarning):
        assert warn_if_not_converged(partly)


def test_a_cost_of_nan_did_not_converge():
    cost = rand(2, 3, 3)
    cost[0, 0, 0] = torch.nan
    result = solve(cost, epsilon=0.1, max_iter=30)
    assert result.converged.tolist() == [False, True]
    assert result.value()[1].isfinite()


def loss(cost, logits_a, logits_b):
    result = solve(cost, logits_a.softmax(-1), logits_b.softmax(-1), epsilon=0.1, max_iter=6, tol=1e-2)
    assert not warn_if_not_converged(result)
    return result.value().sum() + result.value("regularized").sum()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own deprecations
def test_compiled_equals_eager(backend):
    torch.compiler.reset()
    inputs = [x.requires_grad_() for x in (rand(3, 4, 5), rand(3, 4, seed=1), rand(3, 5, seed=2))]
    compiled = torch.compile(loss, fullgraph=True, backend=backend)(*inputs)
    eager = solve(inputs[0], inputs[1].softmax(-1), inputs[2].softmax(-1), epsilon=0.1, max_iter=6, tol=1e-2)
    # Some problem freezes before the last iteration, and some does not: both ways are compared.
    assert len(set(eager.iterations.tolist())) > 1
    value = eager.value().sum() + eager.value("regularized").sum()
    close(compiled, value, 1e-12)
    for actual, wanted in zip(torch.autograd.grad(compiled, inputs), torch.autograd.grad(value, inputs), strict=True):
        close(actual, wanted, 1e-12)
