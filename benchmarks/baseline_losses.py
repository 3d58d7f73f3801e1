"""Time and peak memory of the baselines' losses: forward and backward, beside naive forms and the memory floor.

The naive forms are the documented equations in plain torch; see ``naive_baselines.py`` and ``naive_losses.py``. First,
the value and all gradients of both are compared in float64. Then each runs once in its own process, which measures its
peak memory above that of the inputs. Then both are timed in turns.

The floor is the time to read every input once and to write every gradient once, at the copy bandwidth measured in the
same run. The least memory is that of the gradients. A naive form that would take gigabytes gets fewer samples. For
the ratio, the library is then timed with the same samples.

    python benchmarks/baseline_losses.py
    python benchmarks/baseline_losses.py --batch 16 --rounds 3 --losses EZ-VSL DMC
    python benchmarks/baseline_losses.py --table
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings

import torch
from baseline_cases import SMALL, Case, Sizes, cases
from losses import Inputs, Loss, both, copy_bandwidth, time_cell, time_in_turns
from probe import Memory, limit_memory
from result_files import (
    Results,
    Row,
    add_run_options,
    machine_and_command,
    markdown,
    number,
    open_results,
    reason,
    seconds,
    write_text,
)
from torch import Tensor

from sslosses.transport import ConvergenceWarning

#: Seconds that a process that measures memory may take.
MEMORY_LIMIT = 300


def graded(loss: Loss, tensors: Inputs) -> list[Tensor]:
    """The value, and the gradients with respect to the inputs that have one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        value = loss(*tensors)
    return [value.detach(), *torch.autograd.grad(value, [x for x in tensors if x.requires_grad])]


def difference(case: Case) -> float:
    """The largest difference on a few samples in float64: of the values, and of the gradients relative to their norm.

    A gradient may be 0 by its equation; then its rounding errors are compared with 1.
    """
    few = tuple(
        x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x for x in case.inputs(SMALL)
    )
    ours, plain = graded(case.library, few), graded(case.naive, few)
    norms = [1.0, *(float(x.norm()) for x in plain[1:])]
    return max(
        float((first - second).norm()) / (norm if norm > 1e-12 else 1.0)
        for first, second, norm in zip(ours, plain, norms, strict=True)
    )


def on_device(tensors: Inputs, device: str) -> Inputs:
    return tuple(x.detach().to(device).requires_grad_(x.requires_grad) for x in tensors)


def peak_mib(case: Case, form: str, sizes: Sizes, device: str) -> float:
    """Peak memory of forward and backward above that of the inputs, after a call on few samples."""
    loss: Loss = getattr(case, form)
    both(loss, on_device(case.inputs(SMALL), device))()
    run, memory = both(loss, on_device(case.inputs(sizes), device)), Memory(device)
    run()
    return memory.peak()


def peak_of_process(name: str, form: str, samples: int, options: argparse.Namespace) -> Row:
    """The peak of a process that computes the loss once, or the reason why it did not."""
    command = [sys.executable, __file__, "--memory-of", name, form, "--batch", str(samples)]
    command += ["--channels", str(options.channels), "--device", options.device, "--threads", str(options.threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MEMORY_LIMIT)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {MEMORY_LIMIT} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    return {"mib": float(done.stdout.split()[-1])}


def measure(results: Results, name: str, case: Case, options: argparse.Namespace) -> None:
    sizes = Sizes(options.batch, options.channels)
    key = f"{name} B{sizes.batch} C{sizes.channels} t{options.threads}"
    if key in results.rows:
        return
    few = sizes._replace(batch=min(case.naive_samples or sizes.batch, sizes.batch))
    tensors = on_device(case.inputs(sizes), options.device)
    row: Row = {"name": name, "sizes": sizes._asdict(), "naive_samples": few.batch, "difference": difference(case)}
    if not row["difference"] <= case.atol:  # NaN, too
        results.put(key, row | {"failed": f"differs by {row['difference']:.1e} from the naive form"})
        return
    bandwidth = copy_bandwidth(options.device)
    gradients = sum(x.nbytes for x in tensors if x.requires_grad)
    row |= {"bandwidth": bandwidth, "least_mib": gradients / 2**20}
    row["floor"] = (sum(x.nbytes for x in tensors) + gradients) / bandwidth
    work = {"library": both(case.library, tensors)}
    if few != sizes:
        fewer = on_device(case.inputs(few), options.device)
        work["library, few"], work["naive"] = both(case.library, fewer), both(case.naive, fewer)
    else:
        work["naive"] = both(case.naive, tensors)
    if not options.no_memory:
        row["memory"] = {
            "library": peak_of_process(name, "library", sizes.batch, options),
            "naive": peak_of_process(name, "naive", few.batch, options),
        }
        if few != sizes:
            row["memory"]["library, few"] = peak_of_process(name, "library", few.batch, options)
    row["times"] = time_in_turns(work, options)
    results.put(key, row)
    print(key, {form: seconds(times.get("median")) for form, times in row["times"].items()}, flush=True)


def table(results: Results) -> str:
    columns = ("loss", "time (quartiles)", "× floor", "naive, time", "naive ÷ library")
    columns += ("peak, MiB", "naive, MiB", "gradients, MiB")
    cells = (_cells(row) for row in results.rows.values())
    return f"{machine_and_command(results.runs)}\n{markdown(columns, cells)}"


def _cells(row: Row) -> list[str]:
    if "failed" in row:
        return [row["name"], f"failed: {row['failed']}", *["–"] * 6]
    times, memory = row["times"], row.get("memory", {})
    few = row["naive_samples"] < row["sizes"]["batch"]
    remark = f" ({row['naive_samples']} samples)" if few else ""
    ours, plain = (times[form].get("median") for form in ("library, few" if few else "library", "naive"))
    whole = times["library"].get("median")
    return [
        row["name"],
        time_cell(times["library"]),
        number(whole and whole / row["floor"], 3),
        time_cell(times["naive"]) + remark,
        number(ours and plain and plain / ours, 3),
        _mib(memory.get("library")),
        _mib(memory.get("naive")) + remark,
        f"{row['least_mib']:.3g}",
    ]


def _mib(peak: Row | None) -> str:
    if peak is None:
        return "–"
    return f"{peak['mib']:.0f}" if "mib" in peak else f"failed: {peak['failed']}"


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    options.add_argument("--batch", type=int, default=128, help="samples; default: 128")
    options.add_argument("--channels", type=int, default=512, help="default: 512")
    options.add_argument("--losses", nargs="+", default=[""], metavar="NAME", help="beginnings of names; default: all")
    options.add_argument("--rounds", type=int, default=7, help="default: 7")
    options.add_argument("--budget", type=float, default=30, help="seconds for the rounds of one form; default: 30")
    options.add_argument("--no-memory", action="store_true", help="do not measure memory")
    add_run_options(options)
    options.add_argument("--memory-of", nargs=2, metavar=("NAME", "FORM"), help=argparse.SUPPRESS)
    return options


def main(arguments: list[str] | None = None) -> None:
    every = cases()
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.memory_of:
        name, form = options.memory_of
        if options.device == "cpu":
            limit_memory(None)
        try:
            print(peak_mib(every[name], form, Sizes(options.batch, options.channels), options.device))
        except Exception as error:
            raise SystemExit(reason(error)) from error
        return
    chosen = {name: case for name, case in every.items() if name.startswith(tuple(options.losses))}
    if not chosen:
        parser().error(f"no loss begins with {' or '.join(options.losses)}; there are {', '.join(every)}")
    results = open_results(options, "baseline-losses")
    if not options.table:
        for name, case in chosen.items():
            measure(results, name, case, options)
    text = table(results)
    print(text)
    write_text(results.path.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
