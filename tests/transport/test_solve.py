"""Names, availability, arguments that are refused before any work, `auto`, ε-scaling and a user's own solver."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sslosses
from sslosses import _optional
from sslosses._optional import MissingDependencyError
from sslosses.transport import (
    SOLVERS,
    Solution,
    available,
    catalog,
    check_solver,
    grid_positions,
    pointcloud_cost,
    solve,
)
from sslosses.transport.solvers.dense import DenseSolver

# The package's attribute of this name is the function.
solve_module = sys.modules["sslosses.transport.solve"]

# Not a cost: an error about another argument shows that it was raised before the cost was checked.
NO_COST = object()


def test_names():
    assert SOLVERS == ("auto", "dense", "fused", "pot", "pot-batch", "exact", "geomloss", "geomloss-keops")
    assert set(available()) == set(SOLVERS) - {"auto"}


def test_auto_never_changes_the_problem():
    cost = torch.rand(3, 3)
    assert solve(cost, epsilon=0.1).solver in ("fused", "dense")
    assert solve(cost, epsilon=0).solver == "exact"


@pytest.mark.parametrize("name", ["sinkhorn", None])
def test_an_unknown_solver_names_the_known(name):
    error = ValueError if isinstance(name, str) else TypeError
    with pytest.raises(error) as raised:
        solve(NO_COST, solver=name)
    if isinstance(name, str):
        assert all(repr(solver) in str(raised.value) for solver in SOLVERS)


@pytest.mark.parametrize("name", ["dense", "fused", "pot", "pot-batch", "geomloss", "geomloss-keops"])
def test_entropic_solvers_need_epsilon(name):
    with pytest.raises(ValueError, match=r"needs epsilon > 0, but got 0\. Use solver='exact'"):
        solve(NO_COST, epsilon=0, solver=name)


def test_the_exact_solver_needs_epsilon_zero():
    with pytest.raises(ValueError, match="Set epsilon=0"):
        solve(NO_COST, epsilon=0.05, solver="exact")


@pytest.mark.parametrize(("name", "epsilon"), [("pot", 0.1), ("geomloss", 0.1), ("exact", 0), ("auto", 0)])
def test_only_dense_unrolls(name, epsilon):
    with pytest.raises(ValueError, match=r"can't be differentiated\. Use solver='dense'"):
        solve(NO_COST, epsilon=epsilon, solver=name, gradient="unrolled")


@pytest.mark.parametrize(
    ("package", "names", "command"),
    [
        ("ot", {"pot", "pot-batch", "exact"}, "pip install sslosses"),
        ("geomloss", {"geomloss"}, "pip install sslosses"),
        ("numba", {"fused"}, "pip install 'sslosses[fused]'"),
        ("pykeops", {"geomloss-keops"}, "pip install 'sslosses[keops]'"),
    ],
)
def test_a_missing_package_fails_before_any_work(monkeypatch, package, names, command):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    assert not _optional.is_installed(package)
    assert {name for name, status in available().items() if not status} >= names
    for name in names:
        with pytest.raises(MissingDependencyError) as raised:
            solve(NO_COST, epsilon=0 if name == "exact" else 0.1, solver=name)
        assert f"`{package}`" in str(raised.value)
        assert str(raised.value).endswith(command)
        assert available()[name].reason == str(raised.value)
    assert available()["dense"]


def test_a_missing_compiler_fails_before_any_work(monkeypatch):
    monkeypatch.setattr(catalog.shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    status = available()["geomloss-keops"]
    assert not status
    assert "apt-get install g++" in str(status)
    with pytest.raises(MissingDependencyError, match=r"needs a C\+\+ compiler"):
        solve(NO_COST, solver="geomloss-keops")
    assert available()["geomloss"]


def test_the_compiler_that_cxx_names_counts(monkeypatch):
    monkeypatch.setenv("CXX", "my-compiler")
    monkeypatch.setattr(catalog.shutil, "which", lambda name: f"/bin/{name}" if name == "my-compiler" else None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert catalog.missing_requirement("geomloss-keops") is None


def run_python(code):
    path = os.pathsep.join(filter(None, [str(Path(sslosses.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)


OPTIONAL = "{'ot', 'geomloss', 'pykeops', 'keopscore', 'scipy', 'numba', 'matplotlib'}"


def test_importing_and_solving_load_no_optional_package():
    code = (
        "import sys, torch; before = set(sys.modules); import sslosses.transport as t; "
        "t.solve(torch.rand(3, 3), solver='dense').value(); "
        f"print(sorted({OPTIONAL} & (set(sys.modules) - before)))"
    )
    assert run_python(code).stdout.strip() == "[]"


@pytest.mark.parametrize("solver", ["pot", "geomloss"])
def test_a_solver_prints_nothing_and_leaves_the_environment_alone(solver):
    code = (
        "import os, torch; from sslosses.transport import solve; "
        f"solve(torch.rand(3, 3), solver={solver!r}).value(); print('KEOPS_VERBOSE' in os.environ)"
    )
    if "KEOPS_VERBOSE" in os.environ:
        pytest.skip("KEOPS_VERBOSE is set outside")
    assert run_python(code).stdout == "False\n"


class Independent:
    """The solution P = abᵀ at ε = ∞, which needs no iterations."""

    name = "independent"
    entropic = True
    unrolled = False
    lazy = False

    def solve(self, problem, *, max_iter, tol, init):  # noqa: ARG002
        count = problem.a.shape[0]
        error = problem.a.new_full((count,), 0.25)
        f = problem.matrix.mean((-2, -1))[:, None].expand_as(problem.a)
        return Solution(f, torch.zeros_like(problem.b), torch.ones(count, dtype=torch.int64), error)


def test_a_solver_of_ones_own():
    cost = torch.full((2, 3, 4), 0.5)
    result = solve(cost, solver=Independent(), epsilon=1.0)
    assert result.solver == "independent"
    torch.testing.assert_close(result.value(), torch.tensor([0.5, 0.5]))
    assert "'independent'" in result.status
    assert check_solver(Independent(), epsilon=1.0) == "independent"
    with pytest.raises(ValueError, match="needs epsilon > 0"):
        solve(cost, solver=Independent(), epsilon=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: (s.f, s.g), "the solver 'independent' to return a Solution, but got tuple"),
        (lambda _: None, "to return a Solution, but got NoneType"),
        (lambda s: s._replace(f=s.f[:, :-1]), r"to return `f` as a tensor of shape \(2, 3\), but got \(2, 2\)"),
        (lambda s: s._replace(g=s.f), r"to return `g` as a tensor of shape \(2, 4\), but got \(2, 3\)"),
        (lambda s: s._replace(iterations=7), r"to return `iterations` as a tensor of shape \(2,\), but got int"),
        (lambda s: s._replace(marginal_error=s.f), r"to return `marginal_error` as .* \(2,\), but got \(2, 3\)"),
    ],
)
def test_the_solution_of_a_solver_of_ones_own_is_checked(change, message):
    class Wrong(Independent):
        def solve(self, problem, **options):
            return change(super().solve(problem, **options))

    with pytest.raises((TypeError, ValueError), match=message):
        solve(torch.full((2, 3, 4), 0.5), solver=Wrong(), epsilon=1.0)


def test_a_class_instead_of_its_object():
    with pytest.raises(TypeError, match="but got the class Independent"):
        solve(torch.zeros(2, 2), solver=Independent)


def far_apart():
    """Maps around 0 against complements of other maps: a small ε needs hundreds of updates from zeros."""
    generator = torch.Generator().manual_seed(3)
    one, other = (torch.rand(2, 30, generator=generator, dtype=torch.float64) - 0.5 for _ in range(2))
    positions = grid_positions(5, 6, dtype=torch.float64)
    return pointcloud_cost(one, 1 - other, positions, positions)


@pytest.mark.parametrize("solver", ["dense", "fused", "pot", "geomloss"])
@pytest.mark.parametrize("lazy", [True, False])
def test_scaling_saves_iterations_and_changes_nothing(solver, lazy):
    cost = far_apart() if lazy else far_apart().dense()
    options = {"epsilon": 0.005, "solver": solver, "max_iter": 20_000}
    plain, scaled = (solve(cost, scaling=scaling, **options) for scaling in (None, 0.5))
    assert plain.converged.all()
    assert scaled.converged.all()
    assert (3 * scaled.iterations < plain.iterations).all()
    exact = solve(cost, scaling=0.5, **options, tol=1e-6)
    torch.testing.assert_close(exact.value(), solve(cost, **options, tol=1e-6).value(), rtol=0, atol=1e-5)
    few = solve(cost, scaling=0.5, **{**options, "max_iter": 80})
    assert (few.iterations <= 80).all()
    # A cost below ε leaves nothing to scale.
    assert torch.equal(
        solve(cost, scaling=0.5, epsilon=5.0, solver=solver).value(), solve(cost, epsilon=5.0, solver=solver).value()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaling": 1.0}, "`scaling` to be below 1"),
        ({"scaling": 0.0}, "`scaling`"),
        ({"scaling": 0.5, "gradient": "unrolled"}, "None for gradient='unrolled'"),
        ({"scaling": 0.5, "epsilon": 0}, "'exact' can't start from potentials"),
        ({"scaling": 0.5, "solver": "pot-batch"}, "'pot-batch' can't start from potentials"),
        ({"init": (torch.zeros(3), torch.zeros(3)), "solver": "pot-batch"}, "'pot-batch' can't start from potentials"),
        ({"scaling": 0.5, "init": (torch.zeros(3), torch.zeros(3))}, "`init` or `scaling`"),
    ],
)
def test_an_init_that_cannot_be_used_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        solve(NO_COST, **{"epsilon": 0.1, **options})


def test_auto_chooses_a_solver(monkeypatch):
    small = torch.rand(3, 3)
    installed = {"numba", "pykeops"}
    monkeypatch.setattr(_optional, "is_installed", lambda package: package in installed)
    monkeypatch.setattr(catalog, "_find_compiler", lambda: "g++")
    chosen = []
    monkeypatch.setattr(solve_module, "load_solver", lambda name: chosen.append(name) or DenseSolver())
    large = far_apart()
    for installed, cost, gradient, name in (  # noqa: B007
        ({"numba"}, small, "exact", "fused"),
        ({"numba"}, small, "unrolled", "dense"),
        ({"triton"}, small, "exact", "dense"),
        ({"pykeops"}, large, "exact", "dense"),
    ):
        assert solve(cost, epsilon=0.1, gradient=gradient).solver == name
        assert chosen.pop() == name
    monkeypatch.setattr(solve_module, "_DENSE_BYTES", 100)
    installed = {"pykeops"}
    assert solve(large, epsilon=0.1).solver == "geomloss-keops"
    assert solve(large.dense(), epsilon=0.1).solver == "dense"
    installed = set()
    assert solve(large, epsilon=0.1).solver == "dense"


def test_an_empty_batch_may_have_self_costs() -> None:
    cost, mass = torch.zeros(0, 3, 4), torch.zeros(0, 3)
    result = solve(cost, mass, torch.zeros(0, 4), self_costs=(torch.zeros(0, 3, 3), torch.zeros(0, 4, 4)))
    assert result.value(kind="divergence").shape == (0,)


def test_auto_says_once_that_numba_is_missing(monkeypatch, caplog):
    """It is logged, so that programs that turn warnings into errors go on."""
    solve_module._say_once_that_numba_is_missing.cache_clear()
    monkeypatch.setattr(_optional, "is_installed", lambda package: package != "numba")
    for _ in range(2):
        assert solve(torch.rand(3, 3), epsilon=0.1).solver == "dense"
    (message,) = [r.getMessage() for r in caplog.records if r.name == "sslosses.transport.solve"]
    assert "pip install 'sslosses[fused]'" in message
    assert "9 to 60 times" in message
    caplog.clear()
    solve_module._say_once_that_numba_is_missing.cache_clear()
    solve(torch.rand(3, 3), epsilon=0.1, solver="dense")
    solve(torch.rand(3, 3), epsilon=0.1, gradient="unrolled")
    assert not caplog.records
