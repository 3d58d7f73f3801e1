"""Times transport solvers on the problems of the ORI loss: the library's solvers and those of other packages.

Every contestant computes ⟨P, C⟩ for the same pairs of smooth random similarity maps, and its gradient with respect to
the maps. Building the cost matrix, where a contestant needs one, is part of its time. First, a separate process per
contestant compares its result on up to 4 problems with float64, after equal iterations and at the fixed point, and
measures its memory. Then all contestants that succeeded are timed in turns. "forward" is without a graph, "both" is
forward and backward.

    python benchmarks/transport.py --preset target
    python benchmarks/transport.py --pixels 14x14 --batch 32 --sources 2 --epsilon 0.05 --solvers dense pot
    python benchmarks/transport.py --preset target --table

Presets: target, sizes, grid, epsilon, large, choice, iterations. Modes: "fixed", a fixed number of iterations;
"tolerance", until the marginal error is 1e-3; "equal", as many averaged updates as reach the accuracy of the fixed
number of alternating ones. A run resumes where an earlier one stopped; ``--fresh`` measures everything again. Writes
benchmarks/results/transport-*.json, benchmarks/results/transport-*.md and docs/figures/transport-*.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from float64_reference import reference
from peers import Contestant, contestants
from problems import Pairs, pairs_of, similarity_maps
from result_files import (
    FIGURES,
    Results,
    Row,
    add_run_options,
    interleaved,
    open_results,
    reason,
    seconds,
    spread,
    write_text,
)
from torch import Tensor
from transport_report import draw, iterations_table, tables

from sslosses.transport import solve

SIZES = ((7, 7), (14, 7), (14, 14), (28, 28), (56, 56))
EPSILONS = (0.1, 0.05, 0.01)
TOL = 1e-3
MOST = 10_000  # largest number of iterations in mode "tolerance"
OVER = "over the budget"
FEW = 16  # problems timed for a contestant whose loop over all of them takes too long
CHOICES = ("dense", "fused", "geomloss-keops")
PEERS = ("fused", "dense", "ot.sinkhorn2", "ot.solve_batch, autodiff", "SamplesLoss, tensorized")
LARGE = ("fused", "geomloss-keops", "dense", "SamplesLoss, online")


class Case(NamedTuple):
    height: int
    width: int
    batch: int
    sources: int
    epsilon: float

    @property
    def problems(self) -> int:
        return self.batch * self.sources * (self.sources + 1) // 2

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width} B{self.batch} K{self.sources} eps{self.epsilon:g}"

    def maps(self, device: str) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return similarity_maps(self.batch, self.sources, self.height, self.width, generator).to(device)

    def check_problems(self) -> Pairs:
        """The problems on which results are compared."""
        return pairs_of(self.maps("cpu")).take(4 if self.pixels < 500 else 1)


class Preset(NamedTuple):
    cases: list[Case]
    modes: tuple[str, ...] = ("fixed",)
    solvers: tuple[str, ...] | None = None
    loop_problems: int | None = None


def presets() -> dict[str, Preset]:
    by_size = [Case(h, w, batch, 2, 0.05) for (h, w), batch in zip(SIZES, (64, 64, 32, 8, 1), strict=True)]
    by_choice = [Case(h, w, batch, 1, 0.05) for (h, w) in SIZES for batch in (1, 8, 64, 384) if h * w * batch < 60_000]
    # The time of a fixed number of iterations does not depend on ε.
    grid = [Case(h, w, batch, k, 0.05) for (h, w), batch, k in product(SIZES, (8, 32, 128), (1, 2, 3))]
    grid = [case for case in grid if case.pixels**2 * case.problems < 5e8]
    large = [Case(side, side, 1, 1, 0.05) for side in (56, 112)]
    return {
        "target": Preset([Case(14, 7, 64, 2, 0.1)], ("fixed", "equal", "tolerance")),
        "sizes": Preset(by_size, loop_problems=16),
        "epsilon": Preset([Case(14, 7, 64, 2, e) for e in EPSILONS], ("fixed", "tolerance"), loop_problems=16),
        "choice": Preset(by_choice, ("tolerance",), CHOICES),
        "grid": Preset(grid, ("fixed",), PEERS, loop_problems=16),
        "large": Preset(large, ("fixed",), LARGE),
    }


def supports(contestant: Contestant, mode: str) -> bool:
    if mode == "tolerance":
        return contestant.tolerance
    return mode == "fixed" or contestant.updates in ("averaged", "annealed")


def expected_results(case: Case, iterations: int, cache: dict[Case, Row]) -> Row:
    """Tensors to compare with, computed once per case."""
    if case not in cache:
        pairs = case.check_problems()
        # The time of Newton's method is cubic in the pixels.
        result = reference(pairs, case.epsilon, iterations, fixed_point=case.pixels < 1000)
        iterate_error = None
        if result.converged is not None:
            iterate_error = float((result.iterates[0][0] - result.converged[0]).abs().max())
        # The network simplex needs several copies of the matrix, and minutes.
        exact = solve(pairs.to(torch.float64).cost, epsilon=0).value() if case.pixels < 5000 else None
        cache[case] = {**result._asdict(), "iterate_error": iterate_error, "exact": exact}
    return cache[case]


def errors_of(values: Tensor, gradient: Tensor | None, expected: Row, contestant: Contestant) -> Row:
    """Errors of a result: of values the largest absolute one, of gradients the relative one in L2."""
    values = values.double()

    def errors(result: tuple[Tensor, Tensor]) -> tuple[float, float | None]:
        expected_values, expected_gradient = result
        value_error = float((values - expected_values).abs().max())
        if gradient is None:
            return value_error, None
        return value_error, float((gradient - expected_gradient).norm() / expected_gradient.norm())

    # A contestant may start with the rows or with the columns.
    closer = min(map(errors, expected["iterates"]), key=lambda pair: pair[0])
    row: Row = {
        "finite": bool(values.isfinite().all()),
        "value_error_iterate": closer[0],
        "within_1e-4_of_iterate": closer[0] <= 1e-4,
        "gradient_error_unrolled": closer[1] if contestant.gradient == "unrolled" else None,
    }
    if expected["exact"] is not None:
        row["above_exact"] = float((values / expected["exact"] - 1).mean())
    if expected["converged"] is not None:
        row["value_error_converged"], row["gradient_error_exact"] = errors(expected["converged"])
    return row


def solver_call(
    contestant: Contestant, maps: Tensor, epsilon: float, iterations: int, tol: float, count: int
) -> Callable[[], Tensor]:
    """Solves the first ``count`` problems of the maps."""
    return lambda: contestant.answer(pairs_of(maps).take(count), epsilon, iterations, tol)


def forward_of(call: Callable[[], Tensor]) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            call()

    return run


def both_of(call: Callable[[], Tensor], maps: Tensor) -> Callable[[], object]:
    def run() -> None:
        maps.grad = None
        call().mean().backward()

    return run


def done(row: Row | None, budget: float) -> bool:
    """Whether a row needs no measurement: it has one, or failed for a reason other than a smaller budget."""
    if row is None or row.get("unfinished"):
        return False
    return not (OVER in row.get("reason", "") and budget > row["budget"])


def probe(
    case: Case, name: str, mode: str, expected: Row, options: argparse.Namespace, loop_problems: int | None
) -> Row:
    """The row that ``probe.py`` writes about a contestant in a separate process, up to the phase in which it ended."""
    with tempfile.TemporaryDirectory() as folder:
        task, findings = Path(folder, "task.pt"), Path(folder, "findings.json")
        torch.save(
            {
                "case": tuple(case),
                "contestant": name,
                "mode": mode,
                "device": options.device,
                "threads": options.threads,
                "budget": options.budget,
                "memory": options.memory,
                "iterations": options.iterations,
                "loop_problems": loop_problems,
                "expected": expected,
            },
            task,
        )
        script = Path(__file__).with_name("probe.py")
        process = subprocess.run([sys.executable, script, task, findings], capture_output=True, text=True, check=False)
        row: Row = json.loads(findings.read_text()) if findings.exists() else {"phase": "start", "status": "failed"}
    if row["status"] == "running":
        row["status"] = "failed"
        if process.returncode == -14:
            row["reason"] = f"{OVER} of {options.budget:g} s in its {row['phase']}"
        elif process.returncode < 0:
            row["reason"] = f"killed by signal {-process.returncode} in its {row['phase']} (9: out of memory)"
    if row["status"] == "failed" and "reason" not in row:
        row["reason"] = f"exit {process.returncode}: {' '.join(process.stderr.split())[-250:]}"
    return row


def measure(
    case: Case, modes: tuple[str, ...], solvers: dict[str, Contestant], results: Results, options: argparse.Namespace
) -> None:
    """One row per contestant and mode of a case: results and memory first, then times in turns."""
    rows = check(case, modes, solvers, results, options)
    if rows:
        time_in_turns(case, solvers, rows, results, options)


def check(
    case: Case, modes: tuple[str, ...], solvers: dict[str, Contestant], results: Results, options: argparse.Namespace
) -> dict[str, Row]:
    """Probes every contestant that has no measurement yet; returns the rows by key of those that can be timed."""
    cache: dict[Case, Row] = {}
    rows: dict[str, Row] = {}
    for mode, (name, contestant) in product(modes, solvers.items()):
        key = f"{case} {mode} t{options.threads} {name}"
        if not supports(contestant, mode) or done(results.rows.get(key), options.budget):
            continue
        row: Row = {
            **case._asdict(),
            "pixels": case.pixels,
            "problems": case.problems,
            "mode": mode,
            "contestant": name,
            "gradient": contestant.gradient,
            "updates": contestant.updates,
            "loops": contestant.loops,
            "threads": options.threads,
            "budget": options.budget,
        }
        if contestant.missing:
            row |= {"status": "missing", "reason": contestant.missing}
        else:
            expected = expected_results(case, options.iterations, cache)
            row |= probe(case, name, mode, expected, options, options.loop_problems)
            if row["status"] == "failed" and contestant.loops and OVER in row["reason"] and not options.loop_problems:
                # Its time is proportional to the number of problems.
                row |= {"reason": ""} | probe(case, name, mode, expected, options, FEW)
        if row["status"] == "ok":
            rows[key] = row
        results.put(key, row | ({"unfinished": True} if row["status"] == "ok" else {}))
        text = row.get("reason") or f"forward {seconds(row['first_forward'])}, both {seconds(row['first_both'])}"
        print(f"{key}: {row['status']}, {text}", flush=True)
    return rows


def time_in_turns(
    case: Case, solvers: dict[str, Contestant], rows: dict[str, Row], results: Results, options: argparse.Namespace
) -> None:
    """Adds the times to the rows."""
    maps = case.maps(options.device).requires_grad_()
    work: dict[str, Callable[[], object]] = {}
    rounds: dict[str, int] = {}
    for key, row in rows.items():
        call = solver_call(
            solvers[row["contestant"]], maps, case.epsilon, row["iterations"], row["tol"], row["timed_problems"]
        )
        affordable = int(options.budget / (row["first_forward"] + row["first_both"]))
        for part, run in (("forward", forward_of(call)), ("both", both_of(call, maps))):
            work[f"{key}|{part}"], rounds[f"{key}|{part}"] = run, min(options.rounds, affordable)
    # The first round compiles kernels and fills caches; it does not count.
    interleaved(work, {key: min(1, count) for key, count in rounds.items()}, options.device)
    timings = interleaved(work, rounds, options.device)
    for key, row in rows.items():
        scale = case.problems / row["timed_problems"]
        for part in ("forward", "both"):
            times, failure = timings[f"{key}|{part}"]
            if failure:
                row |= {"status": "failed", "reason": f"timed {part}: {failure}"}
            if times:
                row[part] = spread([scale * elapsed for elapsed, _ in times])
                row[part]["processor"] = spread([scale * processor for _, processor in times])["median"]
            else:
                # A second run would exceed the budget: the measurement of the separate process is the only one.
                row[part] = spread([scale * row[f"first_{part}"]]) | {"first_run_only": True}
        if row["mode"] == "fixed" and row["updates"] == "alternating":
            flop = 4 * case.pixels**2 * row["iterations"] * case.problems
            row["gflops"] = flop / row["forward"]["median"] / 1e9
        results.put(key, row)
        print(f"{key}: forward {seconds(row['forward']['median'])}, both {seconds(row['both']['median'])}", flush=True)


def count_iterations(results: Results) -> None:
    import iterations

    for key, row in iterations.measure(results.rows):
        results.put(key, row)
        print(key, row["mean"], flush=True)


def custom_preset(options: argparse.Namespace) -> Preset:
    def cases() -> Iterator[Case]:
        for pixels, batch, sources, epsilon in product(
            options.pixels, options.batch or [64], options.sources or [2], options.epsilon or [0.1]
        ):
            height, width = (int(side) for side in pixels.split("x"))
            yield Case(height, width, batch, sources, epsilon)

    return Preset(list(cases()))


def measure_all(preset: Preset, results: Results, options: argparse.Namespace) -> None:
    options.loop_problems = options.loop_problems or preset.loop_problems
    known = contestants()
    unknown = set(options.solvers or ()) - set(known)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    solvers = {name: known[name] for name in options.solvers or preset.solvers or known if name in known}
    modes = tuple(options.modes or preset.modes)
    cases = preset.cases
    if options.epsilon:
        cases = list(dict.fromkeys(case._replace(epsilon=e) for case in cases for e in options.epsilon))
    for case in cases:
        try:
            measure(case, modes, solvers, results, options)
        except Exception as error:
            # The other cases are still measured. The rows of this one stay unfinished, for the next run.
            print(f"{case}: {reason(error)}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--preset", choices=[*presets(), "iterations"], default="target")
    parser.add_argument("--pixels", nargs="+", metavar="HxW", help="sizes of a map, instead of a preset")
    parser.add_argument("--batch", nargs="+", type=int, help="samples, with --pixels; default: 64")
    parser.add_argument("--sources", nargs="+", type=int, help="sources per sample, with --pixels; default: 2")
    parser.add_argument("--epsilon", nargs="+", type=float, help="default: those of the preset; with --pixels 0.1")
    parser.add_argument(
        "--modes", nargs="+", choices=("fixed", "equal", "tolerance"), help="default: those of the preset"
    )
    parser.add_argument("--solvers", nargs="+", help="names of contestants; default: those of the preset, or all")
    parser.add_argument("--iterations", type=int, default=100, help="of mode fixed; default: 100")
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--budget", type=float, default=60, help="seconds of forward and backward; default: 60")
    parser.add_argument(
        "--memory", type=float, help="GiB per contestant on a CPU; default: nine tenths of the free memory"
    )
    parser.add_argument(
        "--loop-problems", type=int, help="problems on which contestants that loop are timed, then scaled"
    )
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the plots")
    add_run_options(parser)
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    name = "custom" if options.pixels else options.preset
    results = open_results(options, f"transport-{name}")
    if not options.table:
        if name == "iterations":
            count_iterations(results)
        else:
            measure_all(custom_preset(options) if options.pixels else presets()[name], results, options)
    text = iterations_table(results) if name == "iterations" else tables(results)
    print(text)
    if results.rows:
        # Only cases with equal numbers of problems make a curve over sizes.
        if name not in ("iterations", "choice"):
            text += "\n" + draw(results, options.figures)
        write_text(results.path.with_suffix(".md"), text.rstrip() + "\n")


if __name__ == "__main__":
    main()
