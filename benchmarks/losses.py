"""What OCA and the whole objective cost: eager, compiled, naive, against memory bandwidth and a training step.

The naive ones are the paper's formulas in plain torch, with a loop over samples, masks and pooled features as printed;
ORI as a loop over pairs with log-domain iterations differentiated through, on few samples, since its graph takes
gigabytes, and scaled to the batch. Values are compared in float64 first: with features whose masks do not underflow,
they agree. Times are taken in turns.

The floor is what reading every input once and writing every gradient once takes at the copy bandwidth measured in the
same run. A step is ResNet-18 for frames and for spectrograms, forward, backward and Adam, at the paper's input sizes,
with random weights; ORI's share is the objective's time with it less that without.

    python benchmarks/losses.py --batch 128
    python benchmarks/losses.py --batch 32 --step-batch 8 --device cpu
    python benchmarks/losses.py --table
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peers import SinkhornDistance
from result_files import (
    ROOT,
    Results,
    Row,
    environment,
    interleaved,
    machine_and_command,
    markdown,
    number,
    reason,
    seconds,
    spread,
)
from torch import Tensor, nn

from sslosses import ObjectAwareObjective, OCALoss, ORILoss
from sslosses.transport import ConvergenceWarning, available, grid_positions, pointcloud_cost

SIZES = ((7, 7), (14, 7), (14, 14))
EPSILON, ITERATIONS = 0.05, 100
Inputs = tuple[Tensor, ...]
Loss = Callable[..., Tensor]


def naive_oca(visual: Tensor, audio: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Eqs. 1-6, sample after sample, with the masks and the pooling as printed."""
    sounding, silent = [], []
    for features, sound in zip(visual, audio, strict=True):
        similarity = F.cosine_similarity(features, sound[:, None, None], dim=0)
        inside = torch.sigmoid((similarity - 0.65) / 0.03)
        outside = 1 - torch.sigmoid((similarity - 0.4) / 0.03)
        sounding.append((features * inside).mean((1, 2)))
        silent.append((features * outside).mean((1, 2)))
    references = foreground.mean(1)
    losses = []
    for i in range(len(visual)):
        positive = F.cosine_similarity(sounding[i], references[i], dim=0, eps=1e-30).exp()
        hard = F.cosine_similarity(silent[i], references[i], dim=0, eps=1e-30).exp()
        soft = torch.zeros_like(positive)
        for j in range(len(visual)):
            other = F.cosine_similarity(sounding[j], references[i], dim=0, eps=1e-30)
            if j != i and other <= 0.7:
                soft = soft + other.exp()
        frg = -torch.log(positive / (positive + hard + soft))
        positive = F.cosine_similarity(silent[i], background[i], dim=0, eps=1e-30).exp()
        hard = F.cosine_similarity(sounding[i], background[i], dim=0, eps=1e-30).exp()
        losses.append((frg - torch.log(positive / (positive + hard))) / 2)
    return torch.stack(losses).mean()


def naive_ori(visual: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Eq. 7, sample after sample and pair after pair; the distance is symmetric, so each counts twice."""
    positions = grid_positions(*visual.shape[-2:], dtype=visual.dtype, device=visual.device)
    sinkhorn = SinkhornDistance(EPSILON, ITERATIONS)
    total = visual.new_zeros(())
    for i, features in enumerate(visual):
        references = torch.cat([foreground[i], background[i, None]])
        maps = [F.cosine_similarity(features, each[:, None, None], dim=0).flatten() for each in references]
        for one, two in combinations(maps, 2):
            total = total + 2 * sinkhorn(pointcloud_cost(one, 1 - two, positions, positions).dense()[None]).sum()
    return total / len(visual)


def inputs(batch: int, channels: int, height: int, width: int, sources: int, device: str) -> Inputs:
    """Features that lean towards their audio, as after training, so that the printed masks do not underflow."""
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(batch, channels, generator=generator)
    noise = torch.randn(batch, channels, height, width, generator=generator)
    lean = 1.5 * torch.rand(batch, 1, height, width, generator=generator)
    visual = noise + lean * audio[..., None, None]
    foreground = torch.randn(batch, sources, channels, generator=generator) + 0.5 * audio[:, None]
    background = torch.randn(batch, channels, generator=generator)
    return tuple(each.to(device).requires_grad_() for each in (visual, audio, foreground, background))


def forward(loss: Loss, given: Inputs) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            loss(*given)

    return run


def both(loss: Loss, given: Inputs) -> Callable[[], object]:
    def run() -> None:
        for each in given:
            each.grad = None
        loss(*given).backward()

    return run


def copy_bandwidth(device: str) -> float:
    """Bytes a second that a copy of 256 MiB reads and writes; the best of several."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    timings = interleaved({"copy": lambda: target.copy_(source)}, {"copy": 8}, device)["copy"][0]
    return 2 * source.nbytes / min(elapsed for elapsed, _ in timings)


def without_audio(loss: Loss) -> Loss:
    return lambda visual, _, foreground, background: loss(visual, foreground, background)


def losses(solver: str, *, compiled: bool, compile_objective: bool) -> dict[str, Loss]:
    ori = ORILoss(solver=solver, epsilon=EPSILON, max_iter=ITERATIONS, tol=1e-3)
    found: dict[str, Loss] = {
        "OCA, eager": OCALoss(),
        "OCA, naive": naive_oca,
        "ORI, eager": without_audio(ori),
        "ORI, naive": without_audio(naive_ori),
        "objective, eager": ObjectAwareObjective(ori=ori),
    }
    if compiled:
        found["OCA, compiled"] = torch.compile(OCALoss(), fullgraph=True)
        # The transport stays eager: the dense solver's loop is compiled as `max_iter` copies of its body.
        found["objective, OCA compiled"] = ObjectAwareObjective(oca=_Compiled(OCALoss()), ori=ori)
    if compile_objective:
        found["objective, compiled"] = torch.compile(ObjectAwareObjective(ori=ori))
    return found


class _Compiled(nn.Module):
    def __init__(self, loss: OCALoss) -> None:
        super().__init__()
        self.reduction = loss.reduction
        self.compiled = torch.compile(loss, fullgraph=True)

    def forward(self, *given: Tensor) -> Tensor:
        value: Tensor = self.compiled(*given)
        return value


def differences(solver: str, height: int, width: int, sources: int) -> Row:
    """Largest difference of value and relative difference of gradient between ours and the naive, on 4 samples."""
    given = tuple(each.detach().double().requires_grad_() for each in inputs(4, 64, height, width, sources, "cpu"))
    # The naive one makes all its iterations and is differentiated through them.
    options: Row = {"epsilon": EPSILON, "max_iter": ITERATIONS, "tol": 1e-30}
    unrolled, timed = ORILoss(solver="dense", gradient="unrolled", **options), ORILoss(solver=solver, **options)
    pairs: dict[str, tuple[Loss, Loss]] = {
        "OCA": (OCALoss(), naive_oca),
        "ORI unrolled": (without_audio(unrolled), without_audio(naive_ori)),
        f"ORI by {solver}": (without_audio(timed), without_audio(naive_ori)),
    }
    row: Row = {}
    for name, (ours, naive) in pairs.items():
        values, gradients = [], []
        for loss in (ours, naive):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                value = loss(*given)
            values.append(float(value.detach()))
            gradients.append(torch.autograd.grad(value, given[0])[0])
        row[f"{name} value"] = abs(values[0] - values[1])
        row[f"{name} gradient"] = float((gradients[0] - gradients[1]).norm() / gradients[1].norm())
    return row


def time_in_turns(work: dict[str, Callable[[], object]], options: Any) -> dict[str, Row]:
    """Spread of every contestant; as many rounds as the budget allows after a first one that does not count."""
    first = interleaved(work, dict.fromkeys(work, 1), options.device)
    rounds = {}
    for name, (times, _) in first.items():
        rounds[name] = min(options.rounds, int(options.budget / times[0][0])) if times else 0
    # A compilation is in the first time: it is no measure of what a round takes.
    rounds |= {name: options.rounds for name in rounds if "compiled" in name and first[name][0]}
    timings = interleaved(work, rounds, options.device)
    found: dict[str, Row] = {}
    for name, (times, failed) in timings.items():
        failed = failed or first[name][1]
        counted = [elapsed for elapsed, _ in times or first[name][0]]
        if failed:
            found[name] = {"failed": failed}
        else:
            found[name] = spread(counted) | {"first": first[name][0][0][0], "first_run_only": not times}
            found[name]["processor"] = spread([processor for _, processor in times or first[name][0]])["median"]
    return found


def measure_size(results: Results, height: int, width: int, options: Any) -> None:
    key = (
        f"{height}x{width} B{options.batch} C{options.channels} K{options.sources} {options.solver} t{options.threads}"
    )
    if key in results.rows:
        return
    given = inputs(options.batch, options.channels, height, width, options.sources, options.device)
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
        # The gradient of the fixed point is another than that through 100 iterations.
        if difference > 1e-4 and not name.startswith("ORI by"):
            print(f"{key}: {name} differs by {difference:.1e} from the naive one", flush=True)
    read = sum(each.nbytes for each in given)
    bandwidth = copy_bandwidth(options.device)
    row |= {"bandwidth": bandwidth, "floor_forward": read / bandwidth, "floor_both": 2 * read / bandwidth}
    work: dict[str, Callable[[], object]] = {}
    few = tuple(each.detach()[: options.naive_batch].requires_grad_() for each in given)
    chosen = losses(options.solver, compiled=options.compile, compile_objective=options.compile_objective)
    for name, loss in chosen.items():
        own = few if name == "ORI, naive" else given
        work[f"{name}|forward"], work[f"{name}|both"] = forward(loss, own), both(loss, own)
    row["times"] = time_in_turns(work, options)
    for part in ("forward", "both"):
        naive = row["times"][f"ORI, naive|{part}"]
        if len(few[0]) < options.batch and "median" in naive:
            scale = options.batch / len(few[0])
            for metric in ("median", "processor"):
                naive[metric] *= scale
            for metric in ("quartiles", "range"):
                naive[metric] = [scale * value for value in naive[metric]]
            naive["samples"] = len(few[0])
    results.put(key, row)
    print(key, {name: seconds(each.get("median")) for name, each in row["times"].items()}, flush=True)


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
    """A mixture's training step, 448 × 224 frames and 257 × 200 spectrograms, with and without each loss."""
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
    given = tuple(each.detach().requires_grad_() for each in (visual, audio))
    alone = time_in_turns(
        {f"{name}|both": both(objective(w), given) for name, w in (("OCA", 0.0), ("OCA + ORI", 0.1))}, options
    )
    row: Row = {
        "kind": "step",
        "batch": batch,
        "sources": options.sources,
        "solver": options.solver,
        "pixels": f"{visual.shape[2]}x{visual.shape[3]}",
        "times": times | alone,
    }
    if all("median" in each for each in row["times"].values()):
        own = alone["OCA + ORI|both"]["median"] - alone["OCA|both"]["median"]
        row["ori_seconds"] = own
        row["ori_share"] = own / times["step, OCA + ORI"]["median"]
        row["ori_share_of_difference"] = 1 - times["step, OCA"]["median"] / times["step, OCA + ORI"]["median"]
    results.put(key, row)
    print(key, {name: seconds(each.get("median")) for name, each in row["times"].items()}, flush=True)


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
                    ((name.replace("|both", " alone"), _time(each)) for name, each in times.items()),
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
            of = {part: times[f"{name}|{part}"] for part in ("forward", "both")}
            over = [
                number(of[part]["median"] / row[f"floor_{part}"], 3) if "median" in of[part] else "–" for part in of
            ]
            lines.append((name, *map(_time, of.values()), *over))
        columns = ("", "forward", "forward + backward", "× floor, forward", "× floor, both")
        parts.append(markdown(columns, lines))
        off = ", ".join(f"{name} {value:.1e}" for name, value in row["differences"].items())
        parts.append(
            f"Floor: {seconds(row['floor_forward'])} and {seconds(row['floor_both'])} at a copy bandwidth of "
            f"{row['bandwidth'] / 1e9:.3g} GB/s. Ours against naive, float64: {off}.\n"
        )
    return "\n".join(parts)


def _time(row: Row) -> str:
    if "failed" in row:
        return f"failed: {row['failed']}"
    low, high = row["quartiles"]
    remark = ", first run only" if row["first_run_only"] else ""
    if "samples" in row:
        remark += f", of {row['samples']} samples and scaled"
    return f"{seconds(row['median'])} ({seconds(low)}–{seconds(high)}{remark})"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--step-batch", type=int, help="of the training step, 0 for none; 128 on a GPU, else 16")
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--sources", type=int, default=2)
    parser.add_argument("--pixels", nargs="+", metavar="HxW", default=[f"{h}x{w}" for h, w in SIZES])
    ready = [name for name, status in available().items() if status]
    parser.add_argument("--solver", choices=["auto", *ready], default="auto")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=60, help="seconds for the rounds of one contestant")
    parser.add_argument("--naive-batch", type=int, default=4, help="samples of the naive ORI")
    parser.add_argument("--compile-objective", action="store_true", help="with ORI's iterations; takes many minutes")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--fresh", action="store_true", help="measure again what the file holds")
    parser.add_argument("--table", action="store_true", help="print the tables of the file and measure nothing")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.step_batch is None:
        options.step_batch = 16 if options.device == "cpu" else 128
    stem = "losses" + ("" if options.device == "cpu" else f"-{options.device.split(':')[0]}")
    path = options.output / f"{stem}.json"
    if options.table and not path.exists():
        raise SystemExit(f"{path} does not exist: measure first")
    results = Results(path, environment(options.device, options.threads), fresh=options.fresh and not options.table)
    if options.table:
        results.runs.pop()
    else:
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
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{stem}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
