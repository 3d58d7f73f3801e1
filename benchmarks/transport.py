"""Transport solvers on the problems of the ORI loss: the library's own and the ways in which others do the same.

Every contestant answers ⟨P, C⟩ of the same pairs of smooth random similarity maps and its derivative by the maps; one
that needs the cost's matrix builds it inside its time. First comes the answer, on up to 4 problems, against float64:
after equal iterations and at the fixed point. A process of its own for each checks that, measures its memory and shows
whether it survives; then all that did are timed in turns. "forward" is without a graph, "both" is forward and backward.

    python benchmarks/transport.py --preset target
    python benchmarks/transport.py --pixels 14x14 --batch 32 --sources 2 --epsilon 0.05 --solvers dense pot
    python benchmarks/transport.py --preset target --table

Presets: target, sizes, grid, epsilon, large, choice, iterations. Modes: "fixed" iterations; "tolerance", until the
marginal error is 1e-3; "equal", iterations that make averaged updates as accurate as the fixed number of alternating
ones. A run goes on where an earlier one stopped; ``--fresh`` starts anew. Results: benchmarks/results/transport-*.json,
benchmarks/results/transport-*.md and docs/figures/transport-*.png.
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
from typing import Any, NamedTuple

import torch
from peers import Contestant, contestants
from problems import Pairs, pairs_of, similarity_maps
from reference import reference
from result_files import ROOT, Results, Row, environment, interleaved, reason, seconds, spread
from torch import Tensor
from transport_report import draw, iterations_table, tables

from sslosses.transport import solve

SIZES = ((7, 7), (14, 7), (14, 14), (28, 28), (56, 56))
EPSILONS = (0.1, 0.05, 0.01)
TOL = 1e-3
MOST = 10_000  # iterations in mode "tolerance"
OVER = "over the budget"
FEW = 16  # problems of a contestant that loops over them and can't afford all
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

    def checked(self) -> Pairs:
        """The problems on which answers are checked."""
        return pairs_of(self.maps("cpu")).take(4 if self.pixels < 500 else 1)


class Preset(NamedTuple):
    cases: list[Case]
    modes: tuple[str, ...] = ("fixed",)
    solvers: tuple[str, ...] | None = None
    loop_problems: int | None = None


def presets() -> dict[str, Preset]:
    by_size = [Case(h, w, batch, 2, 0.05) for (h, w), batch in zip(SIZES, (64, 64, 32, 8, 1), strict=True)]
    by_choice = [Case(h, w, batch, 1, 0.05) for (h, w) in SIZES for batch in (1, 8, 64, 384) if h * w * batch < 60_000]
    # With a fixed number of iterations the time does not depend on ε.
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


def plays(contestant: Contestant, mode: str) -> bool:
    if mode == "tolerance":
        return contestant.tolerance
    return mode == "fixed" or contestant.updates in ("averaged", "annealed")


def check(case: Case, iterations: int, cache: dict[Case, Row]) -> Row:
    """Tensors to compare with, computed once a case."""
    if case not in cache:
        pairs = case.checked()
        # Newton's method is cubic in the pixels.
        found = reference(pairs, case.epsilon, iterations, fixed_point=case.pixels < 1000)
        iterate_error = None
        if found.converged is not None:
            iterate_error = float((found.iterates[0][0] - found.converged[0]).abs().max())
        # The network simplex needs the matrix several times, and minutes.
        exact = solve(pairs.to(torch.float64).cost, epsilon=0).value() if case.pixels < 5000 else None
        cache[case] = {**found._asdict(), "iterate_error": iterate_error, "exact": exact}
    return cache[case]


def judged(values: Tensor, gradient: Tensor | None, against: Row, contestant: Contestant) -> Row:
    """Errors of an answer: values absolute, largest of the problems; gradients relative, in L2."""
    values = values.double()

    def off(expected: tuple[Tensor, Tensor]) -> tuple[float, float | None]:
        value, expected_gradient = expected
        apart = None if gradient is None else float((gradient - expected_gradient).norm() / expected_gradient.norm())
        return float((values - value).abs().max()), apart

    of_iterates = [off(each) for each in against["iterates"]]
    closer = min(of_iterates, key=lambda pair: pair[0])
    row: Row = {
        "finite": bool(values.isfinite().all()),
        "value_error_iterate": closer[0],
        "within_1e-4_of_iterate": closer[0] <= 1e-4,
        "gradient_error_unrolled": closer[1] if contestant.gradient == "unrolled" else None,
    }
    if against["exact"] is not None:
        row["above_exact"] = float((values / against["exact"] - 1).mean())
    if against["converged"] is not None:
        row["value_error_converged"], row["gradient_error_exact"] = off(against["converged"])
    return row


def answered(
    contestant: Contestant, maps: Tensor, epsilon: float, iterations: int, tol: float, take: int
) -> Callable[[], Tensor]:
    return lambda: contestant.answer(pairs_of(maps).take(take), epsilon, iterations, tol)


def forward_of(answer: Callable[[], Tensor]) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            answer()

    return run


def both_of(answer: Callable[[], Tensor], maps: Tensor) -> Callable[[], object]:
    def run() -> None:
        maps.grad = None
        answer().mean().backward()

    return run


def done(row: Row | None, budget: float) -> bool:
    """Whether a row needs no measurement: it has one, or failed for another reason than a smaller budget."""
    if row is None or row.get("unfinished"):
        return False
    return not (OVER in row.get("reason", "") and budget > row["budget"])


def probed(
    case: Case, name: str, mode: str, against: Row, options: argparse.Namespace, loop_problems: int | None
) -> Row:
    """What a process of its own finds out about a contestant: ``probe.py`` writes as it goes, whatever ends it."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "given.pt"), Path(folder, "found.pt")
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
                "against": against,
            },
            given,
        )
        script = Path(__file__).with_name("probe.py")
        ended = subprocess.run([sys.executable, script, given, found], capture_output=True, text=True, check=False)
        row: Row = json.loads(found.read_text()) if found.exists() else {"phase": "start", "status": "failed"}
    if row["status"] == "running":
        row["status"] = "failed"
        if ended.returncode == -14:
            row["reason"] = f"{OVER} of {options.budget:g} s in its {row['phase']}"
        elif ended.returncode < 0:
            row["reason"] = f"killed by signal {-ended.returncode} in its {row['phase']} (9: out of memory)"
    if row["status"] == "failed" and "reason" not in row:
        row["reason"] = f"exit {ended.returncode}: {' '.join(ended.stderr.split())[-250:]}"
    return row


def measure(case: Case, modes: tuple[str, ...], chosen: dict[str, Contestant], results: Results, options: Any) -> None:
    """One row per contestant and mode of a case: answers and memory first, then times in turns."""
    cache: dict[Case, Row] = {}
    rows: dict[str, Row] = {}
    for mode, (name, contestant) in product(modes, chosen.items()):
        key = f"{case} {mode} t{options.threads} {name}"
        if not plays(contestant, mode) or done(results.rows.get(key), options.budget):
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
            against = check(case, options.iterations, cache)
            row |= probed(case, name, mode, against, options, options.loop_problems)
            if row["status"] == "failed" and contestant.loops and OVER in row["reason"] and not options.loop_problems:
                # Its time is proportional to the problems.
                row |= {"reason": ""} | probed(case, name, mode, against, options, FEW)
        if row["status"] == "ok":
            rows[key] = row
        results.put(key, row | ({"unfinished": True} if row["status"] == "ok" else {}))
        said = row.get("reason") or f"forward {seconds(row['first_forward'])}, both {seconds(row['first_both'])}"
        print(f"{key}: {row['status']}, {said}", flush=True)
    if not rows:
        return

    maps = case.maps(options.device).requires_grad_()
    work: dict[str, Callable[[], object]] = {}
    rounds: dict[str, int] = {}
    for key, row in rows.items():
        answer = answered(
            chosen[row["contestant"]], maps, case.epsilon, row["iterations"], row["tol"], row["timed_problems"]
        )
        affordable = int(options.budget / (row["first_forward"] + row["first_both"]))
        for part, run in (("forward", forward_of(answer)), ("both", both_of(answer, maps))):
            work[f"{key}|{part}"], rounds[f"{key}|{part}"] = run, min(options.rounds, affordable)
    # Kernels are compiled and caches filled before the first round; a round that counts is not the first.
    interleaved(work, {key: min(1, count) for key, count in rounds.items()}, options.device)
    timings = interleaved(work, rounds, options.device)
    for key, row in rows.items():
        scale = case.problems / row["timed_problems"]
        for part in ("forward", "both"):
            times, failed = timings[f"{key}|{part}"]
            if failed:
                row |= {"status": "failed", "reason": f"timed {part}: {failed}"}
            if times:
                row[part] = spread([scale * elapsed for elapsed, _ in times])
                row[part]["processor"] = spread([scale * processor for _, processor in times])["median"]
            else:
                # Longer than the budget allows for: the only measurement is that of the process of its own.
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


def explicit(options: argparse.Namespace) -> Preset:
    def cases() -> Iterator[Case]:
        for pixels, batch, sources, epsilon in product(
            options.pixels, options.batch or [64], options.sources or [2], options.epsilon or [0.1]
        ):
            height, width = (int(side) for side in pixels.split("x"))
            yield Case(height, width, batch, sources, epsilon)

    return Preset(list(cases()))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=[*presets(), "iterations"], default="target")
    parser.add_argument("--pixels", nargs="+", metavar="HxW", help="cases of one's own, instead of a preset")
    parser.add_argument("--batch", nargs="+", type=int, help="with --pixels; 64")
    parser.add_argument("--sources", nargs="+", type=int, help="with --pixels; 2")
    parser.add_argument("--epsilon", nargs="+", type=float, help="the preset's without; with --pixels 0.1")
    parser.add_argument("--modes", nargs="+", choices=("fixed", "equal", "tolerance"))
    parser.add_argument("--solvers", nargs="+", help="names of contestants; all without")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=60, help="seconds for a contestant's forward and backward")
    parser.add_argument("--memory", type=float, help="GiB a contestant may take on a CPU; nine tenths of what is free")
    parser.add_argument("--loop-problems", type=int, help="time contestants that loop on so many problems and scale")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--fresh", action="store_true", help="measure again what the file holds")
    parser.add_argument("--table", action="store_true", help="print the tables of the file and measure nothing")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs" / "figures", help="folder of the plots")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    name = "custom" if options.pixels else options.preset
    stem = f"transport-{name}" + ("" if options.device == "cpu" else f"-{options.device.split(':')[0]}")
    path = options.output / f"{stem}.json"
    if options.table and not path.exists():
        raise SystemExit(f"{path} does not exist: measure first")
    results = Results(path, environment(options.device, options.threads), fresh=options.fresh and not options.table)
    if options.table:
        results.runs.pop()
    elif name == "iterations":
        count_iterations(results)
    else:
        preset = explicit(options) if options.pixels else presets()[name]
        options.loop_problems = options.loop_problems or preset.loop_problems
        known = contestants()
        wanted = options.solvers or preset.solvers or list(known)
        unknown = set(options.solvers or ()) - set(known)
        if unknown:
            raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
        chosen = {each: known[each] for each in wanted if each in known}
        modes = tuple(options.modes or preset.modes)
        cases = preset.cases
        if options.epsilon:
            cases = list(dict.fromkeys(case._replace(epsilon=e) for case in cases for e in options.epsilon))
        for case in cases:
            try:
                measure(case, modes, chosen, results, options)
            except Exception as error:
                # The other cases go on; this one's rows stay unfinished and are taken up by the next run.
                print(f"{case}: {reason(error)}", file=sys.stderr, flush=True)
    text = iterations_table(results) if name == "iterations" else tables(results)
    print(text)
    if results.rows:
        # A line over sizes needs equal numbers of problems.
        if name not in ("iterations", "choice"):
            text += "\n" + draw(results, options.figures, stem)
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"{stem}.md").write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
