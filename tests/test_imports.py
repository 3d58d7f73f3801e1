"""Which modules may import which, what `import sslosses` loads, and how long that takes."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import sslosses
import sslosses.metrics

ROOT = Path(sslosses.__file__).parent
PRIVATE = {
    f"sslosses.{name}"
    for name in (
        "_caches",
        "_checks",
        "_numba",
        "_objects",
        "_optional",
        "_passes",
        "_prototypes",
        "_threads",
        "_torch",
    )
}
OPTIONAL = {
    "PIL",
    "geomloss",
    "keopscore",
    "lightning",
    "matplotlib",
    "numba",
    "ot",
    "pykeops",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "soundfile",
    "tensorboard",
    "torchmetrics",
    "torchvision",
    "tqdm",
    "transformers",
    "triton",
    "yaml",
}


def imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, inside functions too."""
    package = path.relative_to(ROOT.parent).with_suffix("").parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {imported(module, alias.name) for alias in node.names}
    return names


def imported(module: str, name: str) -> str:
    """The module behind ``from module import name``.

    That is the submodule of this name, unless the package exports the name: ``from sslosses.transport import solve`` is
    the function, although it lives in a file ``solve.py``.
    """
    submodule = f"{module}.{name}"
    return submodule if is_module(submodule) and name not in exported(module) else module


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


@functools.cache
def exported(package: str) -> frozenset[str]:
    """The names in the ``__all__`` of a package."""
    path = ROOT.parent.joinpath(*package.split("."), "__init__.py")
    if not path.exists():
        return frozenset()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "sslosses"} - PRIVATE


def files(folder: str) -> list[Path]:
    return sorted(p for p in (ROOT / folder).rglob("*.py"))


def within(name: str, *packages: str) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in packages)


def test_the_reader_sees_the_files_and_their_imports() -> None:
    """An empty set of imports would pass every rule below."""
    assert "sslosses.losses" in ours(ROOT / "__init__.py")
    assert "sslosses.transport" in ours(ROOT / "losses" / "_pairs.py")
    assert "sslosses.losses._pairs" in ours(ROOT / "losses" / "region_separation.py")
    assert "sslosses.transport.solve" in ours(ROOT / "transport" / "__init__.py")
    assert "sslosses.transport.problem" in ours(ROOT / "transport" / "solvers" / "dense.py")
    assert "sslosses.transport.solvers.fused.cpu.entry" in ours(ROOT / "transport/solvers/fused/cpu/problems.py")
    assert "sslosses.metrics._pipeline.samples" in ours(ROOT / "metrics" / "_pipeline" / "scorer.py")
    assert "sslosses.annotations" in ours(ROOT / "evaluate" / "benchmark.py")
    for folder in (
        "losses",
        "transport",
        "transport/solvers",
        "transport/solvers/fused/cpu",
        "transport/solvers/fused/gpu",
        "metrics/_pipeline",
        "metrics/functional",
        "annotations",
        "evaluate",
    ):
        assert len(files(folder)) >= 3, folder


def test_an_exported_function_is_not_the_module_of_its_name() -> None:
    assert imported("sslosses.transport", "solve") == "sslosses.transport"
    assert imported("sslosses.transport", "problem") == "sslosses.transport.problem"
    assert imported("sslosses.transport.solve", "solve") == "sslosses.transport.solve"
    assert imported("sslosses", "_optional") == "sslosses._optional"


def test_losses() -> None:
    names = ("similarity", "masks", "distributed", "transport", "soft_kmeans")
    allowed = {f"sslosses.{name}" for name in names}
    for path in files("losses"):
        strangers = {name for name in ours(path) if name not in allowed and not within(name, "sslosses.losses")}
        assert not strangers, f"{path.name} imports {strangers}"


def test_losses_use_public_names_of_transport() -> None:
    for path in files("losses"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "sslosses.transport":
                assert {alias.name for alias in node.names} <= set(sslosses.transport.__all__)


def test_solvers_know_the_problem_and_no_other_solver() -> None:
    modules = ("problem", "potentials", "result", "costs", "adjoint", "_foreign")
    allowed = {f"sslosses.transport.{name}" for name in modules}
    fused = "sslosses.transport.solvers.fused"
    for path in files("transport/solvers"):
        strangers = ours(path) - allowed
        if "fused" in path.parts:
            side = path.parent.name
            strangers = {n for n in strangers if not within(n, fused if side == "fused" else f"{fused}.{side}")}
        assert not strangers, f"{path} imports {strangers}"


def test_transport_knows_nothing_but_itself() -> None:
    for path in files("transport"):
        assert all(within(name, "sslosses.transport") for name in ours(path)), path.name


def test_functional_metrics_import_nothing_of_ours() -> None:
    for path in files("metrics/functional"):
        assert all(within(name, "sslosses.metrics.functional") for name in ours(path)), path.name


def test_the_pipeline_of_metrics_knows_no_metric_class() -> None:
    allowed = [f"sslosses.metrics.{name}" for name in ("_pipeline", "_protocol", "functional", "layout")]
    for path in files("metrics/_pipeline"):
        strangers = {name for name in ours(path) if not within(name, *allowed)}
        assert not strangers, f"{path.name} imports {strangers}"


def test_private_modules_are_used_in_their_package_only() -> None:
    for path in files("."):
        package = path.relative_to(ROOT).parts[0]
        for name in ours(path):
            private = any(part[0] == "_" for part in name.split("."))
            assert not private or within(name, f"sslosses.{package}"), f"{path} imports {name}"


def test_metrics_losses_and_annotations_do_not_know_each_other() -> None:
    packages = {f"sslosses.{name}" for name in ("metrics", "losses", "annotations")}
    for package in packages:
        for path in files(package.removeprefix("sslosses.")):
            assert not {name for name in ours(path) if within(name, *(packages - {package}))}, path


def test_the_command_joins_metrics_and_annotations_and_nothing_needs_it() -> None:
    for path in files("evaluate"):
        others = {name for name in ours(path) if not within(name, "sslosses.evaluate")}
        strangers = {name for name in others if not within(name, "sslosses.annotations", "sslosses.metrics")}
        assert not strangers, f"{path.name} imports {strangers}"
        assert not any(part[0] == "_" for name in others for part in name.split(".")), path.name
    for path in files("."):
        if "evaluate" not in path.relative_to(ROOT).parts:
            assert not {name for name in ours(path) if within(name, "sslosses.evaluate")}, path


def test_similarity_masks_and_distributed_know_no_loss() -> None:
    for name in ("similarity", "masks", "distributed", "identification", "object_prior", "soft_kmeans"):
        assert ours(ROOT / f"{name}.py") <= {"sslosses.similarity", "sslosses.masks"}
    assert ours(ROOT / "clustering.py") <= {"sslosses.similarity", "sslosses.identification"}


def test_examples_and_benchmarks_use_the_public_api() -> None:
    for folder in ("examples", "benchmarks"):
        paths = sorted((ROOT.parent / folder).rglob("*.py"))
        assert len(paths) >= 10, folder
        for path in paths:
            private = {n for n in imports(path) if within(n, "sslosses") and any(p[0] == "_" for p in n.split("."))}
            assert not private, f"{path} imports {private}"
    assert list((ROOT.parent / "benchmarks" / "studies").glob("*.py"))


def test_the_library_needs_no_example_and_no_benchmark() -> None:
    for path in files("."):
        assert not {name for name in imports(path) if within(name, "avsl", "benchmarks", "examples", "tests")}, path


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return done.stdout


def test_import_loads_torch_only() -> None:
    code = "import torch, sys; before = set(sys.modules); import sslosses; print(*sorted(set(sys.modules) - before))"
    loaded = {name.split(".")[0] for name in run(code).split()}
    assert "sslosses" in loaded
    assert not loaded & OPTIONAL


def test_import_takes_little_beyond_torch() -> None:
    code = "import torch, time; t = time.process_time(); import sslosses; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(2)) < 0.3


@pytest.mark.parametrize("command", ["sslosses.evaluate", "sslosses.evaluate.masks"])
def test_scoring_commands_import_what_takes_seconds_after_their_checks(command: str) -> None:
    of_boxes, of_masks = "--annotations none --format vggss --protocol paper", "--masks none --scale logits"
    wrong = f"--maps none --out out {of_masks if command.endswith('masks') else of_boxes}"
    code = f"""
import sys, runpy, torch
before = set(sys.modules)
for line in (["--help"], {wrong.split()!r}):
    sys.argv = ["command", *line]
    try:
        runpy.run_module({command!r}, run_name="__main__")
    except SystemExit as end:
        print("END", end.code, *sorted({OPTIONAL!r} & (set(sys.modules) - before - {{"PIL"}})))
"""
    ends = [line for line in run(code).splitlines() if line.startswith("END")]
    assert ends == ["END 0", "END 2"]


def test_protocols_and_functions_of_metrics_need_torch_only() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); from sslosses.metrics import functional, protocols;"
        "print(*(set(sys.modules) - before))"
    )
    assert not {name.split(".")[0] for name in run(code).split()} & OPTIONAL


def test_metrics_are_imported_from_the_modules_that_type_checkers_see() -> None:
    tree = ast.parse((ROOT / "metrics" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"sslosses.metrics.{module}" for name, module in sslosses.metrics._MODULES.items()}
    assert set(sslosses.metrics.__all__) == seen.keys() | {"Protocol", "functional", "protocols"}
    assert set(sslosses.metrics.__all__) <= set(dir(sslosses.metrics))
    with pytest.raises(AttributeError, match="has no attribute 'CAPP'"):
        _ = sslosses.metrics.CAPP


def test_every_export_exists() -> None:
    for module in (sslosses, sslosses.metrics, sslosses.losses, sslosses.losses.baselines, sslosses.transport):
        for name in module.__all__:
            assert getattr(module, name).__doc__ or isinstance(getattr(module, name), tuple)
    assert sslosses.__version__
