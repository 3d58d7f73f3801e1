"""The compiled CPU kernels against the dense solver, update for update, on every path."""

import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslosses.transport import available, grid_positions, lazy_grid_cost, pointcloud_cost, solve

if not available()["fused"]:
    pytest.skip(available()["fused"].reason, allow_module_level=True)

from numba import njit

from sslosses import _threads as threads
from sslosses.transport.problem import Problem
from sslosses.transport.solvers.fused.cpu import arrays, large, problems
from sslosses.transport.solvers.fused.cpu.rows import exp_rows


def uniform(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.fixture(params=["kept", "rebuilt"])
def path(request, monkeypatch):
    """The plan and the distances in memory, or recomputed in every sweep, as for maps too large for a cache."""
    if request.param == "rebuilt":
        monkeypatch.setattr(problems, "_KEPT_BYTES", 0)
    else:
        monkeypatch.setattr(arrays, "_SHARED_FROM", 1)
    return request.param


def clouds(count, rows, columns, *, seed=0, dtype=torch.float64, zeros=False):
    """A cost with value and position weights, and marginals; with ``zeros`` some points have no mass."""
    values = [uniform(count, n, seed=seed + k, dtype=dtype) for k, n in enumerate((rows, columns))]
    places = [uniform(n, 2, seed=seed + k, dtype=dtype) for k, n in enumerate((rows, columns), 2)]
    masses = []
    for k, n in enumerate((rows, columns), 4):
        mass = uniform(count, n, seed=seed + k, dtype=dtype) + 0.1
        if zeros:
            mass = mass * (uniform(count, n, seed=seed + k + 2, dtype=dtype) > 0.3)
            mass[:, 0] += 0.1
        masses.append(mass / mass.sum(-1, keepdim=True))
    return pointcloud_cost(*values, *places, 0.8, 0.6), *masses


def outcome(cost, a, b, solver, kind="transport", **options):
    """Result, value, and gradients of a weighted sum of values with respect to values and masses."""
    inputs = [x.detach().clone().requires_grad_() for x in (cost.source, cost.target, a, b)]
    points = pointcloud_cost(
        *inputs[:2], cost.source_positions, cost.target_positions, cost.value_weight, cost.position_weight
    )
    result = solve(points, *inputs[2:], solver=solver, **options)
    value = result.value(kind)
    weights = torch.linspace(1, 2, value.numel(), dtype=value.dtype)
    grads = torch.autograd.grad((value * weights).sum(), inputs, allow_unused=True)
    return result, value.detach(), [torch.zeros(()) if g is None else g for g in grads]


@pytest.mark.parametrize("kind", ["transport", "regularized"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (7, 8), (8, 7), (9, 17), (33, 20)])
@pytest.mark.parametrize("zeros", [False, True])
def test_every_update_is_the_dense_solvers(path, rows, columns, zeros, kind):
    problem = clouds(3, rows, columns, zeros=zeros)
    for iterations in (1, 4, 60):
        options = {"epsilon": 0.08, "max_iter": iterations, "tol": 1e-4, "kind": kind}
        fused, dense = outcome(*problem, "fused", **options), outcome(*problem, "dense", **options)
        assert fused[0].iterations.tolist() == dense[0].iterations.tolist()
        close(fused[0].marginal_error, dense[0].marginal_error, 1e-12)
        for actual, expected in zip(fused[0].potentials, dense[0].potentials, strict=True):
            close(actual, expected, 1e-12)
        close(fused[1], dense[1], 1e-12)
        for actual, expected in zip(fused[2], dense[2], strict=True):
            close(actual, expected, 1e-9)


@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 20), st.floats(0.03, 2), st.booleans())
@settings(max_examples=20, deadline=None)
def test_any_problem(seed, rows, columns, epsilon, zeros):
    problem = clouds(2, rows, columns, seed=seed, zeros=zeros)
    options = {"epsilon": epsilon, "max_iter": 30_000, "tol": 1e-12}
    fused, dense = outcome(*problem, "fused", **options), outcome(*problem, "dense", **options)
    assert fused[0].converged.all()
    close(fused[0].plan, dense[0].plan, 1e-10)
    for actual, expected in zip(fused[2], dense[2], strict=True):
        close(actual, expected, 1e-7)


@pytest.mark.parametrize("fraction", [0.1, 1e-2, 1e-3])
def test_small_epsilon_in_float32(path, fraction):
    cost, a, b = clouds(4, 49, 40, dtype=torch.float32)
    epsilon = fraction * cost.dense().max().item()
    options = {"epsilon": epsilon, "max_iter": 300, "tol": 1e-30}
    wide = pointcloud_cost(
        *(x.double() for x in (cost.source, cost.target, cost.source_positions, cost.target_positions)), 0.8, 0.6
    )
    reference, value, _ = outcome(wide, a.double(), b.double(), "dense", **options)
    fused, fused_value, _ = outcome(cost, a, b, "fused", **options)
    close(fused_value.double(), value, 1e-4 * value.max().item())
    # Potentials are accurate to the rounding of C/ε.
    assert (fused.plan - reference.plan).abs().sum((-2, -1)).max() < 2e-2 * (1e-3 / fraction)
    assert fused.plan.isfinite().all()


def test_the_scalings_leave_their_range():
    # From distant potentials, the first updates of the plan are by e^±400.
    cost, a, b = clouds(2, 12, 10)
    init = (torch.zeros(2, 12, dtype=torch.float64), 20 * (uniform(2, 10, seed=9) - 0.5))
    for solver in ("fused", "dense"):
        result = solve(cost, a, b, epsilon=0.05, solver=solver, init=init, max_iter=5000, tol=1e-11)
        assert result.converged.all()
        close(result.plan, solve(cost, a, b, epsilon=0.05, solver="dense", max_iter=5000, tol=1e-12).plan, 1e-9)


def test_a_column_that_a_sweep_over_rows_cannot_serve(path):
    # Its mass comes from rows whose plan lies elsewhere, e^-1000 away: the sum underflows and is computed separately.
    x = torch.tensor([[0.0, 0.1, 0.2, 0.3]])
    y = torch.tensor([[0.0, 0.1, 0.2, 10.0]])
    still = torch.zeros(4, 1)
    options = {"epsilon": 0.01, "max_iter": 40, "tol": 1e-30}
    fused = solve(pointcloud_cost(x, y, still, still), solver="fused", **options)
    wide = pointcloud_cost(x.double(), y.double(), still.double(), still.double())
    dense = solve(wide, solver="dense", **options)
    for actual, expected in zip(fused.potentials, dense.potentials, strict=True):
        close(actual.double(), expected, 1e-4)
    # float32 resolves the plan to 6e-5 at an ε of 1e-3 of the largest cost.
    close(fused.value().double(), dense.value(), 2e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_a_matrix(path, shared):
    matrix = uniform(1 if shared else 3, 9, 11).requires_grad_()
    a, b = uniform(3, 9, seed=1).softmax(-1), uniform(3, 11, seed=2).softmax(-1)
    results = []
    for solver in ("fused", "dense"):
        result = solve(matrix, a, b, epsilon=0.1, solver=solver, max_iter=2000, tol=1e-12)
        results.append((*result.potentials, result.plan, *torch.autograd.grad(result.value().sum(), matrix)))
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-9)


def test_many_rows_of_few_columns_from_far_potentials(path):
    # A column that underflows is evaluated separately, in a workspace for all rows.
    cost = uniform(2, 4000, 3, dtype=torch.float32)
    init = (torch.zeros(2, 4000), torch.tensor([-3.0, 0, 0]).expand(2, 3))
    options = {"epsilon": 0.01, "max_iter": 50, "init": init}
    fused, dense = (solve(cost, solver=solver, **options) for solver in ("fused", "dense"))
    close(fused.value(), dense.value(), 1e-5)
    close(fused.potentials[1], dense.potentials[1], 1e-5)


def test_a_matrix_and_the_value_of_given_potentials(path):
    cost, a, b = clouds(3, 21, 34, zeros=True)
    options = {"epsilon": 0.08, "max_iter": 50, "tol": 1e-6}
    fused, dense = (solve(cost.dense(), a, b, solver=solver, **options) for solver in ("fused", "dense"))
    assert fused.iterations.tolist() == dense.iterations.tolist()
    for actual, expected in zip(fused.potentials, dense.potentials, strict=True):
        close(actual, expected, 1e-12)
    close(fused.value(), dense.value(), 1e-12)
    problem = Problem(cost, a, b, 0.08)
    close(problems.transport_value(problem, *dense.potentials), dense.value(), 1e-12)


def test_a_grid_without_values(path):
    cost = lazy_grid_cost(4, 5, dtype=torch.float64)
    logits = [uniform(2, 20, seed=s).requires_grad_() for s in (1, 2)]
    results = []
    for solver in ("fused", "dense"):
        result = solve(cost, *(x.softmax(-1) for x in logits), epsilon=0.05, solver=solver, max_iter=4000, tol=1e-12)
        results.append((result.value(), *torch.autograd.grad(result.value().sum(), logits)))
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-8)


def test_strides_and_expanded_input():
    cost, a, b = clouds(3, 10, 12)
    strided = pointcloud_cost(
        cost.source.mT.contiguous().mT,
        cost.target.repeat_interleave(2, -1)[:, ::2],
        cost.source_positions,
        cost.target_positions,
        0.8,
        0.6,
    )
    options = {"epsilon": 0.1, "solver": "fused"}
    assert torch.equal(solve(strided, a, b, **options).value(), solve(cost, a, b, **options).value())
    one = pointcloud_cost(
        cost.source[:1].expand(3, -1), cost.target, cost.source_positions, cost.target_positions, 0.8, 0.6
    )
    expected = solve(one, a[:1].expand(3, -1), b[0], epsilon=0.1, solver="dense").value()
    close(solve(one, a[:1].expand(3, -1), b[0], **options).value(), expected, 1e-12)


def test_a_problem_with_nan_fails_alone(path):
    cost, a, b = clouds(3, 20, 20, dtype=torch.float32)
    clean = solve(cost, a, b, epsilon=0.1, solver="fused")
    cost.source[1, 3] = torch.nan
    result = solve(cost, a, b, epsilon=0.1, solver="fused", max_iter=20)
    assert result.converged.tolist() == [True, False, True]
    assert result.value().isnan().tolist() == [False, True, False]
    assert torch.equal(result.value()[::2], clean.value()[::2])


@pytest.fixture(params=["torch's threads", "own threads"])
def pool(request, monkeypatch):
    if request.param == "own threads":
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    elif threads._openmp() is None:
        pytest.skip("torch does not run on GCC's OpenMP here")


@pytest.mark.usefixtures("pool")
def test_work_runs_on_several_threads_and_fails_as_on_one():
    seen, barrier = set(), threading.Barrier(3)

    def work():
        barrier.wait(timeout=30)
        seen.add(threading.get_ident())

    threads.run_on_threads(work, 3)
    assert len(seen) == 3
    for count in (1, 3):
        with pytest.raises(ZeroDivisionError):
            threads.run_on_threads(lambda: 1 / 0, count)


@pytest.mark.usefixtures("pool")
def test_threads_do_not_change_the_result():
    cost, a, b = clouds(40, 60, 50, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(outcome(cost, a, b, "fused", epsilon=0.1))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][1], results[1][1])
    assert all(map(torch.equal, results[0][2], results[1][2]))


def test_one_thread_takes_all_problems_in_one_call(monkeypatch):
    """A call of a kernel costs microseconds."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    problem = Problem(uniform(40, 5, 5), *(torch.full((40, 5), 0.2).double() for _ in range(2)), 0.1)
    calls = []
    problems._run(lambda *arguments: calls.append(arguments[:2]), problem)
    assert calls == [(0, 40)]


@pytest.mark.usefixtures("pool")
def test_many_callers_at_once():
    cost, a, b = clouds(40, 60, 50, dtype=torch.float32)
    expected = solve(cost, a, b, epsilon=0.1, solver="fused").value()
    results = []
    callers = [
        threading.Thread(target=lambda: results.append(solve(cost, a, b, epsilon=0.1, solver="fused").value()))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 4
    assert all(torch.equal(value, expected) for value in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_fork_after_use():
    # As in a worker of a data loader: torch needs one thread there, because its threads do not survive a fork.
    code = (
        "import os, torch; from sslosses.transport import grid_positions, pointcloud_cost, solve; "
        "x, y, at = torch.rand(64, 64), torch.rand(64, 64), grid_positions(8, 8); torch.set_num_threads(2); "
        "run = lambda: solve(pointcloud_cost(x, y, at, at), epsilon=0.1, solver='fused').value().sum().item(); "
        "one = run(); child = os.fork(); child or torch.set_num_threads(1); same = run() == one; "
        "os._exit(not same) if child == 0 else print(same, os.waitpid(child, 0)[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["True", "0"], done.stderr


@njit
def exponentials(cost_rows, log_rows, log_columns, plan, totals):
    exp_rows(cost_rows, log_rows, log_columns, 0, plan, 0, totals)


def aligned(*shape, dtype):
    return torch.zeros(shape, dtype=dtype).numpy()


@given(st.lists(st.floats(-800, 800), min_size=16, max_size=16), st.lists(st.floats(-5, 5), min_size=8, max_size=8))
@settings(max_examples=100, deadline=None)
def test_exp_of_rows(values, shifts):
    for dtype, least, most, tolerance in (
        (torch.float32, -87, 88, 3e-7),
        (torch.float64, -708, 709, 1e-15),
    ):
        cost_rows, plan = (aligned(8, 16, dtype=dtype) for _ in range(2))
        log_rows, log_columns, totals = aligned(8, dtype=dtype), aligned(16, dtype=dtype), aligned(8, dtype=dtype)
        log_columns[:] = values
        log_rows[:] = shifts
        cost_rows[:] = 0.25
        exponentials(cost_rows, log_rows, log_columns, plan, totals)
        exact = (log_rows[:, None] + log_columns) - cost_rows
        expected = np.exp(np.clip(exact.astype(np.float64), least, most))
        expected[exact < least] = 0
        np.testing.assert_allclose(plan, expected, rtol=tolerance)
        if plan.max() < 1e30:
            np.testing.assert_allclose(totals, plan.sum(1, dtype=np.float64), rtol=1e-5)


def test_exp_of_non_finite_values():
    cost_rows, plan = (aligned(8, 8, dtype=torch.float32) for _ in range(2))
    log_rows, log_columns, totals = (aligned(8, dtype=torch.float32) for _ in range(3))
    log_columns[:3] = -math.inf, math.nan, 0
    exponentials(cost_rows, log_rows, log_columns, plan, totals)
    assert (plan[:, 0] == 0).all()
    assert np.isnan(plan[:, 1]).all()
    assert (plan[:, 2:] == 1).all()


def test_a_large_problem_has_all_threads_and_the_same_result_on_any_number(monkeypatch):
    monkeypatch.setattr(problems, "_KEPT_BYTES", 0)
    seen = set()
    kernel = large.entry.scale_range

    def watched(*arguments):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            everyone.wait(60)
        return kernel(*arguments)

    monkeypatch.setattr(large.entry, "scale_range", watched)
    problem = clouds(1, 200, 90, dtype=torch.float32, zeros=True)
    before, outcomes = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            seen.clear()
            everyone = threading.Barrier(count)
            torch.set_num_threads(count)
            outcomes.append(outcome(*problem, "fused", epsilon=0.05, max_iter=50, tol=1e-30))
            assert len(seen) == count
    finally:
        torch.set_num_threads(before)
    one, three = ((*result.potentials, value, *gradients) for result, value, gradients in outcomes)
    assert all(torch.equal(x, y) for x, y in zip(one, three, strict=True))


def test_large_maps_take_the_path_without_a_plan():
    # The plan would take 39 MB.
    assert problems._is_large(type("P", (), {"a": torch.zeros(1, 3136), "b": torch.zeros(1, 3136)}))
    positions = grid_positions(56, 56)
    source, target = (uniform(1, 3136, seed=s, dtype=torch.float32) for s in (1, 2))
    options = {"epsilon": 0.1, "max_iter": 3, "tol": 1e-30}
    cost = pointcloud_cost(source, target, positions, positions)
    fused, dense = (solve(cost, solver=s, **options) for s in ("fused", "dense"))
    close(fused.value(), dense.value(), 1e-5)
    for actual, expected in zip(fused.potentials, dense.potentials, strict=True):
        close(actual, expected, 1e-5)
