"""Writes the tables and figures of ``transport.py`` from its results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from result_files import Results, Row, machine_and_command, markdown, number, seconds, write_figure

MODES = {
    "fixed": "Equal iterations",
    "equal": "Averaged updates, as many as reach the accuracy of alternating ones",
    "tolerance": "To a marginal error of 1e-3",
}
REFERENCE = "fused"
COLUMNS = (
    "contestant",
    "forward",
    "forward + backward",
    "× fused, forward",
    "× fused, both",
    "peak MiB",
    "iterations",
    "error, iterate",
    "error, fixed point",
    "gradient error (kind)",
    "above W₁",
    "remark",
)
FEW_CASES = 12
GRID_NOTE = """\
Median wall time of the rounds, and its ratio to the time of `fused`; > means that it exceeded the budget. Spread,
errors and memory are in the JSON file.
"""
NOTES = """\
Median wall time of the rounds, with quartiles in brackets. "× fused" is the ratio to the time of the solver `fused` in
the same case and mode (to its fixed iterations in the mode of averaged updates). Peak memory is that of forward and
backward, above the memory in use before. "error": largest absolute error of ⟨P, C⟩ on the checked problems, against
float64 after the same iterations and at the fixed point. The gradient error is relative; an unrolled gradient is
compared with the derivative through the same float64 iterations, the others with the exact gradient at the fixed point.
"above W₁" is the mean excess over the exact, unregularized distance.
"""


def tables(results: Results) -> str:
    """One section per case and mode."""
    parts = [machine_and_command(results.runs)] if results.runs else []
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in results.rows.values():
        case = (row["height"], row["width"], row["batch"], row["sources"], row["epsilon"], row["threads"])
        groups.setdefault((*case, row["mode"]), []).append(row)
    parts += _summaries(results.rows.values())
    if len(groups) > FEW_CASES:
        return "\n".join([*parts, GRID_NOTE])
    for (height, width, batch, sources, epsilon, threads, mode), rows in groups.items():
        title = f"{rows[0]['problems']} problems of {height} × {width} pixels, ε = {epsilon:g}: {MODES[str(mode)]}"
        parts.append(f"**{title}** (B = {batch}, K = {sources}, {threads} threads)\n")
        base_mode = "fixed" if mode == "equal" else mode
        base_rows = groups.get((height, width, batch, sources, epsilon, threads, base_mode), [])
        base = next((row for row in base_rows if row["contestant"] == REFERENCE and "forward" in row), None)
        parts.append(markdown(COLUMNS, (_cells(row, base) for row in sorted(rows, key=_order))))
    parts.append(NOTES)
    fused = [row for row in results.rows.values() if row["contestant"] == "fused" and "gflops" in row]
    for row in fused:
        parts.append(
            f"`fused`, {row['problems']} problems of {row['pixels']} pixels, ε = {row['epsilon']:g}: "
            f"{row['gflops']:.1f} GFLOP/s forward, as 4 · N · M · iterations · P / time.\n"
        )
    return "\n".join(parts)


def _summaries(rows: Iterable[Row]) -> list[str]:
    """Forward and backward of every case: one row per case, one table per mode that has several cases."""
    parts = []
    for mode, title in MODES.items():
        cases: dict[tuple[str, ...], dict[str, Row]] = {}
        for row in rows:
            if row["mode"] == mode:
                size = f"{row['height']} × {row['width']}"
                case = (size, row["batch"], row["sources"], row["problems"], f"{row['epsilon']:g}")
                cases.setdefault(tuple(map(str, case)), {})[row["contestant"]] = row
        if len(cases) > 1:
            names = list(dict.fromkeys(name for rows_of_case in cases.values() for name in rows_of_case))
            lines = [
                (*map(_unbroken, case), *(_summary(rows_of_case, name) for name in names))
                for case, rows_of_case in cases.items()
            ]
            parts.append(f"**{title}: forward and backward of every case**\n")
            parts.append(markdown(("pixels", "B", "K", "problems", "ε", *(f"`{name}`" for name in names)), lines))
    return parts


def _summary(rows: dict[str, Row], name: str) -> str:
    """The time and its ratio to that of the reference solver, or the reason why there is no time."""
    row, base = rows.get(name), rows.get(REFERENCE, {})
    if row is None:
        return "–"
    if "both" not in row:
        return f"> {row['budget']:g} s" if "over the budget" in row["reason"] else row["status"]
    time = seconds(row["both"]["median"])
    return f"{time} ({_ratio(row, base, 'both')} ×)" if name != REFERENCE and "both" in base else time


def _order(row: Row) -> float:
    return row["both"]["median"] if "both" in row else float("inf")


def _cells(row: Row, base: Row | None) -> list[str]:
    remarks = []
    if row["status"] != "ok":
        remarks.append(f"{row['status']}: {row['reason']}")
        if "first_forward" in row and "forward" not in row:
            remarks.append(f"first forward {seconds(row['first_forward'])} of {row['timed_problems']} problems")
    if row.get("timed_problems", row["problems"]) < row["problems"]:
        remarks.append(f"timed on {row['timed_problems']} of {row['problems']} problems and scaled")
    if row.get("both", {}).get("first_run_only"):
        remarks.append("first run only")
    if row.get("finite") is False:
        remarks.append("not finite")
    if row["mode"] == "fixed" and row["updates"] == "alternating" and row.get("within_1e-4_of_iterate") is False:
        remarks.append("differs by more than 1e-4 from the same iterate")
    if row.get("reached") is False:
        remarks.append("accuracy not reached")
    unrolled = row["gradient"] == "unrolled"
    # With a tolerance the iterations differ from those of the reference: only the fixed point can be compared.
    same_iterations = unrolled and row["mode"] == "fixed"
    gradient = row.get("gradient_error_unrolled" if same_iterations else "gradient_error_exact")
    compared = row["updates"] == "alternating" and row["mode"] == "fixed"
    peak = row.get("peak_both_mib")
    numbers = [
        *(_time(row.get(part)) for part in ("forward", "both")),
        *(_ratio(row, base, part) for part in ("forward", "both")),
        "–" if peak is None else f"{peak:.0f}",
        _iterations(row),
        number(row.get("value_error_iterate")) if compared else "–",
        number(row.get("value_error_converged")) if row["updates"] != "none" else "–",
        "–" if gradient is None or row["updates"] == "none" else f"{gradient:.1e} ({row['gradient']})",
        "–" if "above_exact" not in row else f"{100 * row['above_exact']:.2g} %",
    ]
    return [f"`{row['contestant']}`", *map(_unbroken, numbers), "; ".join(remarks)]


def _unbroken(cell: str) -> str:
    """The text with spaces and hyphens that do not break, so that narrow columns keep numbers on one line."""
    return cell.replace(" ", "\N{NO-BREAK SPACE}").replace("-", "\N{NON-BREAKING HYPHEN}")


def _iterations(row: Row) -> str:
    if row["updates"] == "none" or "iterations" not in row:
        return "–"
    return f"{'≤ ' if row['mode'] == 'tolerance' else ''}{row['iterations']}"


def _time(times: Row | None) -> str:
    if times is None:
        return "–"
    low, high = times["quartiles"]
    return f"{seconds(times['median'])} ({seconds(low)}–{seconds(high)})"


def _ratio(row: Row, base: Row | None, part: str) -> str:
    if base is None or part not in row:
        return "–"
    return f"{row[part]['median'] / base[part]['median']:.3g}"


def iterations_table(results: Results) -> str:
    """The mean number of iterations per method, the largest in brackets."""
    rows = list(results.rows.values())
    if not rows:
        return ""
    methods = list(rows[0]["mean"])
    columns = ["pixels", "maps", "ε", *methods, "best ω, value", "ω slower than plain or diverging"]

    def cells(row: Row) -> Iterable[str]:
        yield from (row["pixels"].replace("x", " × "), row["maps"], f"{row['epsilon']:g}")
        for method in methods:
            # Over-relaxation was stopped at that number.
            beyond = "ω" in method and row["most"][method] > row["most"]["plain"]
            yield "–" if beyond else f"{row['mean'][method]:.0f} ({row['most'][method]})"
        yield f"{row['best_omega']:.1f}"
        yield ", ".join(f"{omega:.1f}" for omega in row["slower_or_diverging_omega"])

    note = "Mean over the problems, the largest number in brackets; – is an ω that is slower than plain or diverges.\n"
    return "\n".join([machine_and_command(results.runs), markdown(columns, map(cells, rows)), note])


def draw(results: Results, folder: Path) -> str:
    """Draws the time against the pixels and against the error of ⟨P, C⟩, where there is more than one point.

    Returns:
        Markdown that shows the figures, for a page beside ``folder``.
    """
    shown = []
    timed = [row for row in results.rows.values() if "both" in row]
    for axis, unit in (("pixels", "pixels of a map"), ("above_exact", "mean of ⟨P, C⟩ / exact W₁ − 1")):
        for mode in MODES:
            rows = [row for row in timed if row["mode"] == mode and row.get(axis, 0) > 0]
            varied, kept = ("pixels", "epsilon") if axis == "pixels" else ("epsilon", "pixels")
            # One curve per contestant: the cases of one ε or of one size, with the largest number of problems.
            fixed = min((row[kept] for row in rows), default=None)
            rows = sorted((row for row in rows if row[kept] == fixed), key=lambda row: row["problems"])
            rows = list({(row["contestant"], row[varied]): row for row in rows}.values())
            if len(_all(rows, varied)) > 1:
                path = folder / f"{results.path.stem}-{mode}-{'size' if axis == 'pixels' else 'error'}.png"
                _draw(rows, axis, unit, path)
                shown.append(f"![{MODES[mode]}: time by {unit}](../../docs/{folder.name}/{path.name})\n")
    return "\n".join(shown)


def _all(rows: Iterable[Row], name: str) -> set[Any]:
    return {row[name] for row in rows}


def _draw(rows: list[Row], axis: str, unit: str, path: Path) -> None:
    # The processes that measure do not need it.
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.5, 5), layout="constrained")
    colors = plt.get_cmap("tab20").colors
    for i, name in enumerate(dict.fromkeys(row["contestant"] for row in rows)):
        curve = sorted((row for row in rows if row["contestant"] == name), key=lambda row: -row["epsilon"])
        if axis == "pixels":
            curve.sort(key=lambda row: row["pixels"])
        # The number of problems differs between cases, the time per problem is comparable.
        times = [1e3 * row["both"]["median"] / row["problems"] for row in curve]
        axes.plot([row[axis] for row in curve], times, "o-", color=colors[i % 20], markersize=4, label=name)
    axes.set(xscale="log", yscale="log", xlabel=unit, ylabel="forward + backward, ms per problem")
    if axis == "pixels":
        sizes = sorted(_all(rows, "pixels"))
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    write_figure(figure, path, dpi=130)
    plt.close(figure)
