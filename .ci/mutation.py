"""Checks whether the tests notice a change in what losses and metrics compute.

The mutants are cosmic-ray's: each changes one comparison, sign, number, flag or branch. A random part of them is tried.
Numbers are tried a fourth as often, as most of them are bounds or sizes in messages. A mutant is written into a copy of
the repository, where the tests of its file run until one fails, in a fork of a process that has imported torch already.

    python .ci/mutation.py --count 300 --jobs 2  # resumes an earlier run of the same seed
    python .ci/mutation.py --again               # tries the survivors again, after tests were added
    python .ci/mutation.py --only sslosses/losses/baselines --count 150

Writes mutation.json and mutation.md in benchmarks/results/. The `reason` of a survivor in the JSON file is written by
hand: why no test can or should tell the mutant from the original. Rows are dropped once their line has changed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sslosses/losses", "sslosses/metrics")
# The tests of a file, the fast ones first. A file that is not listed has the tests of its package.
TESTS = {
    "sslosses/losses/object_aware.py": ("tests/losses/test_object_aware.py", "tests/test_distributed.py"),
    "sslosses/losses/objective.py": ("tests/losses/test_objective.py",),
    "sslosses/losses/region_isolation.py": ("tests/losses/test_region_isolation.py",),
    "sslosses/losses/region_separation.py": ("tests/losses/test_region_separation.py",),
    "sslosses/losses/_pairs.py": ("tests/losses/test_region_separation.py", "tests/losses/test_region_isolation.py"),
    "sslosses/losses/trimap.py": ("tests/losses/test_trimap.py", "tests/test_distributed.py"),
    **{
        f"sslosses/losses/baselines/{name}.py": tuple(
            f"tests/losses/baselines/test_{test}.py" for test in tests.split()
        )
        for name, tests in {
            "_kmeans": "dictionary",
            "_negatives": "pairs best_place",
            "_sources": "text_guided",
            "attention": "attention pairs",
            "best_place": "best_place pairs",
            "categories": "categories",
            "class_grouping": "class_grouping",
            "clusters": "clusters pairs",
            "correspondence": "correspondence pairs",
            "cycle_walk": "cycle_walk",
            "dictionary": "dictionary",
            "grouping": "grouping",
            "object_clustering": "object_clustering",
            "text_guidance": "text_guided",
            "text_guided": "text_guided",
        }.items()
    },
    "sslosses/losses": ("tests/losses", "tests/test_distributed.py"),
    "sslosses/metrics": (
        "tests/metrics/test_arguments.py",
        "tests/metrics/test_targets.py",
        "tests/metrics/test_protocols.py",
        "tests/metrics/test_discrimination.py",
        "tests/metrics/test_functional.py",
        "tests/metrics/test_result.py",
        "tests/metrics/test_published_protocols.py",
        "tests/metrics/test_localization.py",
    ),
}
FIRST_TESTS = {  # of those, the one that most likely fails
    "sslosses/losses/_module.py": "tests/losses/test_region_separation.py",
    "sslosses/metrics/_pipeline/samples.py": "tests/metrics/test_targets.py",
    "sslosses/metrics/_pipeline/scorer.py": "tests/metrics/test_published_protocols.py",
    "sslosses/metrics/_pipeline/tables.py": "tests/metrics/test_result.py",
    "sslosses/metrics/_pipeline/targets.py": "tests/metrics/test_targets.py",
    "sslosses/metrics/chance.py": "tests/metrics/test_localization.py",
    "sslosses/metrics/localization.py": "tests/metrics/test_localization.py",
    "sslosses/metrics/result.py": "tests/metrics/test_result.py",
    "sslosses/metrics/functional": "tests/metrics/test_functional.py",
}
REPLACEMENTS = {  # those of cosmic-ray's replacements that a person might confuse
    "ReplaceBinaryOperator": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul BitAnd_BitOr BitOr_BitAnd",
    "ReplaceComparisonOperator": "Eq_NotEq NotEq_Eq Lt_LtE LtE_Lt Gt_GtE GtE_Gt Lt_GtE Gt_LtE GtE_Lt LtE_Gt Is_IsNot "
    "IsNot_Is",
    "ReplaceUnaryOperator": "Delete_Invert Delete_Not Delete_USub",
}
OTHER_OPERATORS = (
    "AddNot", "NumberReplacer", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop",
)  # fmt: skip
OPERATORS = (*OTHER_OPERATORS, *(f"{kind}_{pair}" for kind, pairs in REPLACEMENTS.items() for pair in pairs.split()))
PROCESSOR_SECONDS = 120  # limit per mutant; tests that end take less
Row = dict[str, Any]


class Mutant(NamedTuple):
    """A file, the operator applied to it, and to which of its occurrences."""

    file: str
    operator: str
    occurrence: int


def candidates() -> Iterator[Mutant]:
    """Every mutant of the packages, including those that change nothing that runs."""
    from cosmic_ray.ast import ast_nodes, get_ast

    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = get_ast(path.read_text(encoding="utf-8"))
            for operator in OPERATORS:
                mutator = operator_of(operator)
                count = sum(1 for node in ast_nodes(tree) for _ in mutator.mutation_positions(node))
                yield from (Mutant(str(path.relative_to(ROOT)), operator, i) for i in range(count))


def operator_of(name: str) -> Any:
    import cosmic_ray.plugins

    return cosmic_ray.plugins.get_operator(f"core/{name}")()


def sampled(seed: int, place: str) -> list[Mutant]:
    """All candidates of the files whose path starts with ``place``, shuffled, without three fourths of the numbers."""
    generator = random.Random(seed)
    mutants = [
        m
        for m in candidates()
        if m.file.startswith(place)
        if m.operator != "NumberReplacer" or generator.random() < 0.25
    ]
    generator.shuffle(mutants)
    return mutants


class _WithoutAnnotations(ast.NodeTransformer):
    """Removes annotations, which do not run."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = ast.Constant(None)
        self.generic_visit(node)
        return node


def mutated(mutant: Mutant) -> tuple[str, int] | None:
    """The mutant's text and the line that it changes; None if it is not valid Python or runs the same."""
    from cosmic_ray.mutating import mutate_code

    code = (ROOT / mutant.file).read_text(encoding="utf-8")
    text = mutate_code(code, operator_of(mutant.operator), mutant.occurrence)
    try:
        before, after = (ast.dump(_WithoutAnnotations().visit(ast.parse(source))) for source in (code, text))
    except SyntaxError:
        return None
    pairs = zip(code.splitlines(), text.splitlines(), strict=False)
    line = next((i for i, (old, new) in enumerate(pairs, 1) if old != new), None)
    return None if before == after or line is None else (text, line)


def tests_of(file: str) -> tuple[str, ...]:
    """The file itself, for the examples in its docstrings, and its tests."""
    first = [test for place, test in FIRST_TESTS.items() if file.startswith(place)]
    tests = TESTS.get(file, TESTS[file[: file.index("/", len("sslosses/"))]])
    return tuple(dict.fromkeys((file, *first, *tests)))


def run_tests(copy: Path, output: Path, tests: tuple[str, ...]) -> int:
    import hypothesis
    import pytest

    os.setsid()
    os.chdir(copy)
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
    sys.path.insert(0, str(copy))
    os.environ["PYTHONPATH"] = str(copy)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # One failing example is enough: it is not shrunk.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutation", phases=phases, database=None, derandomize=True)
    hypothesis.settings.load_profile("mutation")
    # Tests of torch.compile take minutes and show nothing new. Plugins that the fork has loaded can't be rewritten.
    options = ["-x", "-q", "-p", "no:cacheprovider", "-k", "not compiles and not processes"]
    return int(pytest.main([*options, "-W", "ignore::pytest.PytestAssertRewriteWarning", *tests]))


def first_failure(copy: Path, tests: tuple[str, ...]) -> tuple[str, str]:
    """Run the tests in a fork of this process and return the outcome and the first test that failed."""
    output = copy / "output"
    child = os.fork()
    if child == 0:
        try:
            os._exit(run_tests(copy, output, tests))
        except BaseException:
            traceback.print_exc()
            os._exit(3)
    _, status = os.waitpid(child, 0)
    # Ends processes that a test left behind.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    text = output.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    test = lines[0].split(" ", 1)[1].split(" - ")[0] if lines else ""
    return ("survived" if code == 0 else "killed"), test or ("timeout" if code < 0 else f"exit {code}")


def try_mutant(copy: Path, mutant: Mutant, text: str, line: int) -> Row:
    path = copy / mutant.file
    original = (ROOT / mutant.file).read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    start = time.monotonic()
    outcome, test = first_failure(copy, tests_of(mutant.file))
    path.write_text(original, encoding="utf-8")
    row = {
        "file": mutant.file,
        "line": line,
        "operator": mutant.operator,
        "old": original.splitlines()[line - 1].strip(),
        "new": text.splitlines()[line - 1].strip(),
        "outcome": outcome,
        "seconds": round(time.monotonic() - start, 1),
    }
    return row | ({"test": test} if outcome == "killed" else {"reason": ""})


def key(row: Row) -> tuple[str, str, str]:
    return row["file"], row["old"], row["new"]


def stands(row: Row) -> bool:
    """Whether the line of an earlier run is still in its file."""
    path = ROOT / row["file"]
    return path.exists() and row["old"] in (line.strip() for line in path.read_text(encoding="utf-8").splitlines())


def copy_of_repository(copy: Path) -> Path:
    for name in ("sslosses", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "examples", "results"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def report(kept: Row) -> str:
    rows: list[Row] = kept["rows"]
    counts: dict[str, Counter[str]] = {}
    for row in sorted(rows, key=key):
        counts.setdefault(row["file"].rpartition("/")[0], Counter())[row["outcome"]] += 1
    survivors = sorted((row for row in rows if row["outcome"] == "survived"), key=key)
    text = io.StringIO()
    print(
        "# Mutation run\n\n"
        f"{len(rows)} mutants, drawn with seed {kept['seed']}. Made by `python .ci/mutation.py`, which explains how; "
        "the rows are in `mutation.json`.\n\n"
        "| folder | mutants | killed | survived |\n| --- | ---: | ---: | ---: |",
        file=text,
    )
    for name, count in counts.items():
        print(f"| `{name}` | {count.total()} | {count['killed']} | {count['survived']} |", file=text)
    print("\n## Survivors\n\n| place | instead of | mutant | why it stays |\n| --- | --- | --- | --- |", file=text)
    for row in survivors:
        cells = [f"`{row['file'].removeprefix('sslosses/')}`", f"`{row['old']}`", f"`{row['new']}`", row["reason"]]
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |", file=text)
    return text.getvalue()


def write(kept: Row, folder: Path) -> None:
    # The benchmarks' own writer: one row per line, and no half-written file.
    sys.path.append(str(ROOT / "benchmarks"))
    from result_files import write_json, write_text

    write_json(folder / "mutation.json", kept)
    write_text(folder / "mutation.md", report(kept))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--count", type=int, default=300, help="number of mutants, including those of earlier runs")
    parser.add_argument("--only", default="", metavar="PLACE", help="only files whose path starts with this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="number of mutants tried at once")
    parser.add_argument("--again", action="store_true", help="only try the survivors without a reason again")
    parser.add_argument("--report", action="store_true", help="only write the Markdown file from the JSON file")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    path = options.output / "mutation.json"
    kept: Row = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"seed": options.seed, "rows": []}
    if kept["seed"] != options.seed:
        raise SystemExit(f"{path} was made with seed {kept['seed']}. Remove it, or choose another --output")
    kept["rows"] = [row for row in kept["rows"] if stands(row)]
    if options.report:
        write(kept, options.output)
        return

    # Loaded once, for all forks. The package itself is not: every fork imports its mutant.
    import hypothesis
    import numba
    import pytest
    import scipy.optimize
    import sklearn.metrics
    import torch
    import torchmetrics

    del hypothesis, numba, pytest, scipy, sklearn, torchmetrics
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ.pop("SSLOSSES_METADATA", None)
    sys.dont_write_bytecode = True
    everything = sampled(options.seed, options.only)
    with tempfile.TemporaryDirectory() as folder:
        copies = [copy_of_repository(Path(folder, str(i))) for i in range(options.jobs)]
        for package in PACKAGES:
            if not options.only.startswith(package) and not package.startswith(options.only):
                continue
            outcome, test = first_failure(copies[0], TESTS[package])
            if outcome != "survived":
                raise SystemExit(
                    f"The tests fail without a mutant: {test}\n{(copies[0] / 'output').read_text()[-3000:]}"
                )
        done = {tuple(row["mutant"]) for row in kept["rows"]}
        again = {tuple(row["mutant"]) for row in kept["rows"] if row["outcome"] == "survived" and not row["reason"]}
        wanted = [m for m in everything if (m in again if options.again else m not in done)]
        changes = ((mutant, change) for mutant in wanted if (change := mutated(mutant)))
        if not options.again:
            tried = sum(row["file"].startswith(options.only) for row in kept["rows"])
            changes = islice(changes, max(0, options.count - tried))
        lock = threading.Lock()

        def work(copy: Path) -> None:
            while True:
                with lock:
                    mutant, change = next(changes, (None, None))
                if mutant is None or change is None:
                    return
                row = try_mutant(copy, mutant, *change) | {"mutant": mutant}
                with lock:
                    kept["rows"] = [other for other in kept["rows"] if tuple(other["mutant"]) != mutant] + [row]
                    write(kept, options.output)
                message = (row["outcome"], row["file"], row["line"], row["new"], row.get("test", ""))
                print(len(kept["rows"]), *message, flush=True)

        # Threads are enough: each only waits for its fork.
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(work, copies))


if __name__ == "__main__":
    main()
