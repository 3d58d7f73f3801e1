"""Time of OCA, ORI and the objective: eager, compiled and naive, beside memory bandwidth and a training step.

The naive losses are the paper's formulas in plain torch; see ``naive_losses.py``. The graph of the naive ORI takes
gigabytes, so it is timed on few samples and scaled to the batch. First, values and gradients are compared in float64;
they agree for features whose masks do not underflow. Then all contestants are timed in turns.

The floor is the time to read every input once and to write every gradient once, at the copy bandwidth measured in the
same run. A step is forward, backward and Adam of two ResNet-18 with random weights, for frames and spectrograms of the
paper's sizes. ORI's share is the time of the objective with ORI minus the time without it.

    python benchmarks/losses.py --batch 128
    python benchmarks/losses.py --batch 32 --step-batch 8 --device cpu
    python benchmarks/losses.py --table
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import torch
from naive_losses import EPSILON, ITERATIONS, naive_oca, naive_ori
from result_files import (
    Results,
    Row,
    add_run_options,
    interleaved,
    machine_and_command,
    markdown,
    number,
    open_results,
    reason,
    seconds,
    spread,
    write_text,
)
from torch import Tensor, nn

from sslosses import ObjectAwareObjective, OCALoss, ORILoss
from sslosses.transport import ConvergenceWarning, available

SIZES = ((7, 7), (14, 7), (14, 14))
Inputs = tuple[Tensor, ...]
Loss = Callable[..., Tensor]


def inputs(batch: int, channels: int, height: int, width: int, sources: int, device: str) -> Inputs:
    """Features near their audio, as after training, so that the printed masks do not underflow."""
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(batch, channels, generator=generator)
    noise = torch.randn(batch, channels, height, width, generator=generator)
    lean = 1.5 * torch.rand(batch, 1, height, width, generator=generator)
    visual = noise + lean * audio[..., None, None]
    foreground = torch.randn(batch, sources, channels, generator=generator) + 0.5 * audio[:, None]
    background = torch.randn(batch, channels, generator=generator)
    return tuple(x.to(device).requires_grad_() for x in (visual, audio, foreground, background))


def forward(loss: Loss, tensors: Inputs) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            loss(*tensors)

    return run


def both(loss: Loss, tensors: Inputs) -> Callable[[], object]:
    def run() -> None:
        for x in tensors:
            x.grad = None
        loss(*tensors).backward()

    return run


def copy_bandwidth(device: str) -> float:
    """Bytes per second that a copy of 256 MiB reads and writes; the best of eight."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    timings = interleaved({"copy": lambda: target.copy_(source)}, {"copy": 8}, device)["copy"][0]
    return 2 * source.nbytes / min(elapsed for elapsed, _ in timings)


def without_audio(loss: Loss) -> Loss:
    return lambda visual, _, foreground, background: loss(visual, foreground, background)


def losses(solver: str, *, compiled: bool, compile_objective: bool) -> dict[str, Loss]:
    ori = ORILoss(solver=solver, epsilon=EPSILON, max_iter=ITERATIONS, tol=1e-3)
    contestants: dict[str, Loss] = {
        "OCA, eager": OCALoss(),
        "OCA, naive": naive_oca,
        "ORI, eager": without_audio(ori),
        "ORI, naive": without_audio(naive_ori),
        "objective, eager": ObjectAwareObjective(ori=ori),
    }
    if compiled:
        contestants["OCA, compiled"] = torch.compile(OCALoss(), fullgraph=True)
        # The transport stays eager: compiling unrolls the loop of the dense solver into `max_iter` copies.
        contestants["objective, OCA compiled"] = ObjectAwareObjective(oca=_Compiled(OCALoss()), ori=ori)
    if compile_objective:
        contestants["objective, compiled"] = torch.compile(ObjectAwareObjective(ori=ori))
    return contestants


class _Compiled(nn.Module):
    def __init__(self, loss: OCALoss) -> None:
        super().__init__()
        self.reduction = loss.reduction
        self.compiled = torch.compile(loss, fullgraph=True)

    def forward(self, *tensors: Tensor) -> Tensor:
        value: Tensor = self.compiled(*tensors)
        return value


def differences(solver: str, height: int, width: int, sources: int) -> Row:
    """Differences between the library and the naive losses on 4 samples: values absolute, gradients relative."""
    tensors = tuple(x.detach().double().requires_grad_() for x in inputs(4, 64, height, width, sources, "cpu"))
    # The naive ORI runs all its iterations, and its gradient goes through them.
    options: Row = {"epsilon": EPSILON, "max_iter": ITERATIONS, "tol": 1e-30}
    unrolled, timed = ORILoss(solver="dense", gradient="unrolled", **options), ORILoss(solver=solver, **options)
    pairs: dict[str, tuple[Loss, Loss]] = {
        "OCA": (OCALoss(), naive_oca),
        "ORI unrolled": (without_audio(unrolled), without_audio(naive_ori)),
        f"ORI by {solver}": (without_audio(timed), without_audio(naive_ori)),
    }
    row: Row = {}
    for name, losses_compared in pairs.items():
        values, gradients = [], []
        for loss in losses_compared:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                value = loss(*tensors)
            values.append(float(value.detach()))
            gradients.append(torch.autograd.grad(value, tensors[0])[0])
        row[f"{name} value"] = abs(values[0] - values[1])
        row[f"{name} gradient"] = float((gradients[0] - gradients[1]).norm() / gradients[1].norm())
    return row


def time_in_turns(work: dict[str, Callable[[], object]], options: Any) -> dict[str, Row]:
    """Spread of every contestant over the rounds that the budget allows; the first call does not count."""
    first = interleaved(work, dict.fromkeys(work, 1), options.device)
    rounds = {}
    for name, (times, _) in first.items():
        rounds[name] = min(options.rounds, int(options.budget / times[0][0])) if times else 0
    # The first call of a compiled loss includes the compilation, so it says nothing about a round.
    rounds |= {name: options.rounds for name in rounds if "compiled" in name and first[name][0]}
    timings = interleaved(work, rounds, options.device)
    spreads: dict[str, Row] = {}
    for name, (times, failure) in timings.items():
        first_times, first_failure = first[name]
        if failure or first_failure:
            spreads[name] = {"failed": failure or first_failure}
            continue
        elapsed, processor = zip(*(times or first_times), strict=True)
        spreads[name] = spread(elapsed) | {"first": first_times[0][0], "first_run_only": not times}
        spreads[name]["processor"] = spread(processor)["median"]
    return spreads


def measure_size(results: Results, height: int, width: int, options: Any) -> None:
    key = (
        f"{height}x{width} B{options.batch} C{options.channels} K{options.sources} {options.solver} t{options.threads}"
    )
    if key in results.rows:
        return
    tensors = inputs(options.batch, options.channels, height, width, options.sources, options.device)
    row: Row = {
        "kind": "loss",
        "pixels": f"{height}x{width}",
        "batch": options.batch,
        "channels": options.channels,
        "sources": options.sources,
        "solver": options.solver,
        "differences": differences(options.solver, height, width, options.sources),
    }
    for name, difference in row["differences"].items():
        # The gradient at the fixed point differs from the gradient through 100 iterations.
        if difference > 1e-4 and not name.startswith("ORI by"):
            print(f"{key}: {name} differs by {difference:.1e} from the naive loss", flush=True)
    read = sum(x.nbytes for x in tensors)
    bandwidth = copy_bandwidth(options.device)
    row |= {"bandwidth": bandwidth, "floor_forward": read / bandwidth, "floor_both": 2 * read / bandwidth}
    work: dict[str, Callable[[], object]] = {}
    few = tuple(x.detach()[: options.naive_batch].requires_grad_() for x in tensors)
    contestants = losses(options.solver, compiled=options.compile, compile_objective=options.compile_objective)
    for name, loss in contestants.items():
        batch = few if name == "ORI, naive" else tensors
        work[f"{name}|forward"], work[f"{name}|both"] = forward(loss, batch), both(loss, batch)
    row["times"] = time_in_turns(work, options)
    for part in ("forward", "both"):
        naive = row["times"][f"ORI, naive|{part}"]
        if len(few[0]) < options.batch and "median" in naive:
            scale = options.batch / len(few[0])
            for statistic in ("median", "processor"):
                naive[statistic] *= scale
            for statistic in ("quartiles", "range"):
                naive[statistic] = [scale * value for value in naive[statistic]]
            naive["samples"] = len(few[0])
    results.put(key, row)
    print(key, {name: seconds(times.get("median")) for name, times in row["times"].items()}, flush=True)


class Encoders(nn.Module):
    """ResNet-18 for frames and for spectrograms with random weights, as the paper trains them."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetModel

        options: Row = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
        self.visual = ResNetModel(ResNetConfig(**options, layer_type="basic"))
        self.audio = ResNetModel(ResNetConfig(**options, layer_type="basic", num_channels=1))

    def forward(self, frames: Tensor, spectrograms: Tensor) -> tuple[Tensor, Tensor]:
        return self.visual(frames).last_hidden_state, self.audio(spectrograms).pooler_output.flatten(1)


def measure_step(results: Results, options: Any) -> None:
    """A training step with mixtures, 448 × 224 frames and 257 × 200 spectrograms, with and without each loss."""
    key = f"step B{options.step_batch} K{options.sources} {options.solver} t{options.threads}"
    if key in results.rows:
        return
    torch.manual_seed(0)
    device, batch = options.device, options.step_batch
    model = Encoders().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    frames = torch.randn(batch, 3, 448, 224, device=device)
    spectrograms = torch.randn(batch, 1, 257, 200, device=device)
    foreground = torch.randn(batch, options.sources, 512, device=device)
    background = torch.randn(batch, 512, device=device)
    ori = ORILoss(solver=options.solver, epsilon=EPSILON, max_iter=ITERATIONS, tol=1e-3)

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss(*model(frames, spectrograms)).backward()
            optimizer.step()

        return run

    def objective(weight: float) -> Callable[[Tensor, Tensor], Tensor]:
        both_losses = ObjectAwareObjective(ori_weight=weight, ori=ori)
        return lambda visual, audio: both_losses(visual, audio, foreground, background)

    def cheapest(visual: Tensor, audio: Tensor) -> Tensor:
        return visual.mean() + audio.mean()

    work = {
        "step, mean of the features": step(cheapest),
        "step, OCA": step(objective(0.0)),
        "step, OCA + ORI": step(objective(0.1)),
    }
    times = time_in_turns(work, options)
    with torch.no_grad():
        visual, audio = model(frames, spectrograms)
    tensors = tuple(x.detach().requires_grad_() for x in (visual, audio))
    alone = time_in_turns(
        {f"{name}|both": both(objective(w), tensors) for name, w in (("OCA", 0.0), ("OCA + ORI", 0.1))}, options
    )
    row: Row = {
        "kind": "step",
        "batch": batch,
        "sources": options.sources,
        "solver": options.solver,
        "pixels": f"{visual.shape[2]}x{visual.shape[3]}",
        "times": times | alone,
    }
    if all("median" in spreads for spreads in row["times"].values()):
        ori = alone["OCA + ORI|both"]["median"] - alone["OCA|both"]["median"]
        row["ori_seconds"] = ori
        row["ori_share"] = ori / times["step, OCA + ORI"]["median"]
        row["ori_share_of_difference"] = 1 - times["step, OCA"]["median"] / times["step, OCA + ORI"]["median"]
    results.put(key, row)
    print(key, {name: seconds(times.get("median")) for name, times in row["times"].items()}, flush=True)


def tables(results: Results) -> str:
    parts = [machine_and_command(results.runs)] if results.runs else []
    for row in results.rows.values():
        times: dict[str, Row] = row["times"]
        if row["kind"] == "step":
            size = f"B = {row['batch']}, K = {row['sources']}, maps {row['pixels']}"
            parts.append(f"**Training step, {size}, solver `{row['solver']}`**\n")
            parts.append(
                markdown(
                    ("", "time (quartiles)"),
                    ((name.replace("|both", " alone"), time_cell(spreads)) for name, spreads in times.items()),
                )
            )
            if "ori_share" in row:
                shares = [f"{100 * row[name]:.2g} %" for name in ("ori_share", "ori_share_of_difference")]
                parts.append(
                    f"ORI takes {seconds(row['ori_seconds'])} forward and backward, {shares[0]} of the step; by the "
                    f"difference of whole steps, {shares[1]}.\n"
                )
            continue
        size = f"{row['pixels']}, B = {row['batch']}, C = {row['channels']}, K = {row['sources']}"
        parts.append(f"**{size}, solver `{row['solver']}`**\n")
        names = list(dict.fromkeys(name.split("|")[0] for name in times))
        lines = []
        for name in names:
            parts_of = {part: times[f"{name}|{part}"] for part in ("forward", "both")}
            over_floor = [
                number(spreads["median"] / row[f"floor_{part}"], 3) if "median" in spreads else "–"
                for part, spreads in parts_of.items()
            ]
            lines.append((name, *map(time_cell, parts_of.values()), *over_floor))
        columns = ("", "forward", "forward + backward", "× floor, forward", "× floor, both")
        parts.append(markdown(columns, lines))
        differences = ", ".join(f"{name} {value:.1e}" for name, value in row["differences"].items())
        parts.append(
            f"Floor: {seconds(row['floor_forward'])} and {seconds(row['floor_both'])} at a copy bandwidth of "
            f"{row['bandwidth'] / 1e9:.3g} GB/s. Differences between library and naive in float64: {differences}.\n"
        )
    return "\n".join(parts)


def time_cell(row: Row) -> str:
    if "failed" in row:
        return f"failed: {row['failed']}"
    low, high = row["quartiles"]
    remark = ", first run only" if row["first_run_only"] else ""
    if "samples" in row:
        remark += f", of {row['samples']} samples and scaled"
    return f"{seconds(row['median'])} ({seconds(low)}–{seconds(high)}{remark})"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--batch", type=int, default=128, help="samples; default: 128")
    parser.add_argument(
        "--step-batch", type=int, help="samples of the training step, 0 for none; default: 128 on a GPU, else 16"
    )
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--sources", type=int, default=2)
    parser.add_argument(
        "--pixels", nargs="+", metavar="HxW", default=[f"{h}x{w}" for h, w in SIZES], help="sizes of a map"
    )
    ready = [name for name, status in available().items() if status]
    parser.add_argument("--solver", choices=["auto", *ready], default="auto")
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument(
        "--budget", type=float, default=60, help="seconds for the rounds of one contestant; default: 60"
    )
    parser.add_argument("--naive-batch", type=int, default=4, help="samples of the naive ORI; default: 4")
    parser.add_argument(
        "--compile-objective",
        action="store_true",
        help="compile the objective with ORI's iterations, which takes many minutes",
    )
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave out compiled losses")
    add_run_options(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.step_batch is None:
        options.step_batch = 16 if options.device == "cpu" else 128
    results = open_results(options, "losses")
    if not options.table:
        for pixels in options.pixels:
            height, width = (int(side) for side in pixels.split("x"))
            measure_size(results, height, width, options)
        if options.step_batch:
            try:
                measure_step(results, options)
            except Exception as error:
                print(f"training step: {reason(error)}", flush=True)
    text = tables(results)
    print(text)
    write_text(results.path.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
