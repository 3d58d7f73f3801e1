"""The maps of one model under every protocol: why numbers of different papers can't be compared.

The maps are those of a trained model on its test scenes: solos, duets, and solos of which every frame is scored a
second time with the sound of another clip, none of whose classes is in sight. A solo has the map of the sound, which
holds cosine similarities. A duet has the two maps of the clustering. Protocols that compute the same share a row.

    OMP_NUM_THREADS=1 python examples/train_music.py --seed 0
    python benchmarks/studies/same_maps.py --run runs/composed-seed0

Takes a minute on one core. Writes benchmarks/results/same-maps.md, same-maps-silent.md and
docs/figures/same-maps.png.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import torch
from study import ROOT, markdown, study_parser, write_figure, write_text
from torch import Tensor

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from sslosses.metrics import LocalizationResult, Protocol, SoundLocalization, protocols

sys.path.insert(0, str(ROOT / "examples"))
from avsl.evaluation.negative_sounds import offscreen_clips
from avsl.evaluation.predict import Prediction
from avsl.evaluation.score import protocol_result
from avsl.model.localizer import Localizer
from clustering import TestScenes, encode

#: Names that readers take for one metric, and the metrics of that name.
FAMILIES = {
    "“AP”": r"C?AP|AP50",
    "“IoU”, “CIoU”": r"m?C?IoU|C?IoU@.*|Precision@.*|LocAcc",
    "“AUC”": r"AUC",
}
CONFIDENT = r"(DetAP|MaxF1)@.*"  # metrics that a frame without its sound enters
CHANCE = {"centered Gaussian": "^", "whole frame": "s", "random maps": "x"}
DRAWS = 5  # of random confidences
Scores = Mapping[str, LocalizationResult]


class Confident(NamedTuple):
    """A metric over confidences: on solos alone, with the frames without their sound, and at random confidences."""

    protocol: str
    metric: str
    alone: float
    mixed: float
    random: float


def different_protocols() -> dict[str, Protocol]:
    """The protocols by label; one that computes the same as an earlier one only adds its name to the label."""
    groups: list[list[Protocol]] = []
    for protocol in map(protocols.get, protocols.available()):
        equal = [group for group in groups if group[0] == protocol.replace(name=group[0].name)]
        if equal:
            equal[0].append(protocol)
        else:
            groups.append([protocol])
    return {", ".join(protocol.name for protocol in group): group[0] for group in groups}


def in_range(maps: Tensor, protocol: Protocol) -> Tensor:
    """Cosine similarities as a protocol expects them: divided by τ where it has one."""
    return maps if protocol.tau is None else maps / protocol.tau


def is_meant_for(protocol: Protocol, num_sources: int) -> bool:
    """Whether a threshold on cosine similarities fits the maps: those of a duet are no cosines, and are summed."""
    sums = protocol.one_entry_per_frame and num_sources > 1
    return not (sums and protocol.normalization in ("fixed range", "none"))


@torch.no_grad()
def scores(model: Localizer, scenes: TestScenes) -> dict[str, LocalizationResult]:
    """The results of every protocol for one subset, by label."""
    held_out, encoded = scenes
    maps = model.sound_map(encoded)[:, None]
    valid = torch.ones(maps.shape[:2], dtype=torch.bool)
    if held_out.num_sources > 1:
        maps, valid, _ = model.source_maps(encoded, held_out.num_sources, "clustering")
    results = {}
    for label, protocol in different_protocols().items():
        if is_meant_for(protocol, held_out.num_sources):
            scaled = in_range(maps, protocol)
            results[label] = protocol_result(held_out, Prediction(scaled[:, 0], scaled, valid), protocol)
    return results


@torch.no_grad()
def other_sounds(model: Localizer, scenes: TestScenes, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Maps (N, 1, h, w) of every solo with its own sound, and with that of a clip without a class in sight."""
    held_out, encoded = scenes
    row = {scene[0]: i for i, scene in enumerate(held_out.test.scenes)}
    others = [row[clip] for clip in offscreen_clips(held_out, seed) if clip is not None]
    assert len(others) == len(row), "every scene has a clip without its classes"
    swapped = encoded._replace(audio=encoded.audio[others], sound=encoded.sound[others])
    own, other = (model.sound_map(sounds)[:, None] for sounds in (encoded, swapped))
    return own, other


def confident_rows(own: Tensor, other: Tensor, boxes: Sequence[object]) -> Iterator[Confident]:
    """The metrics that frames without their sound enter, of every protocol that has them."""
    truths = [*boxes, *([] for _ in other)]
    draws = torch.rand(DRAWS, len(truths), 1, generator=torch.Generator().manual_seed(0))
    for label, protocol in different_protocols().items():
        names = [name for name in protocol.metrics("single") if re.fullmatch(CONFIDENT, name)]
        if names:
            maps = in_range(torch.cat((own, other)), protocol)
            alone = computed(protocol, maps[: len(own)], truths[: len(own)])
            mixed = computed(protocol, maps, truths)
            drawn = [computed(protocol, maps, truths, draw) for draw in draws]
            for name in names:
                random = sum(values[name] for values in drawn) / DRAWS
                yield Confident(label, name, alone[name], mixed[name], random)


def computed(
    protocol: Protocol, maps: Tensor, truths: Sequence[object], confidences: Tensor | None = None
) -> dict[str, float]:
    metric = SoundLocalization(protocol, task="single")
    metric.update(maps, truths, confidences=confidences)
    return {name: float(value) for name, value in metric.compute().items()}


def shown(result: LocalizationResult, label: str) -> str:
    return f"{label} (oracle)" if result.oracle else label


def family(results: Scores, pattern: str) -> list[tuple[str, str]]:
    """(protocol, metric) of a family, in the order of the protocols."""
    return [(p, m) for p, result in results.items() for m in result.metrics if re.fullmatch(pattern, m)]


def table(results: Scores) -> str:
    """One row per protocol: its metrics of each family, with the highest chance level in brackets."""
    rows = []
    for label, result in results.items():
        cells = []
        for pattern in FAMILIES.values():
            names = [metric for name, metric in family(results, pattern) if name == label]
            best = {m: max(level[m] for level in result.chance.values()) for m in names}
            cells.append("<br>".join(f"{m} **{100 * result.metrics[m]:.1f}** ({100 * best[m]:.1f})" for m in names))
        name = ", ".join(f"`{part}`" for part in label.split(", "))
        rows.append((shown(result, name), *(cell or "–" for cell in cells)))
    return markdown(("protocol", *FAMILIES), rows)


def draw(axis: Axes, results: Scores, pattern: str) -> None:
    rows = family(results, pattern)[::-1]
    for height, (label, metric) in enumerate(rows):
        result = results[label]
        for name, marker in CHANCE.items():
            axis.plot(100 * result.chance[name][metric], height, marker, color="tab:gray", markersize=5)
        marker, color = ("D", "tab:orange") if result.oracle else ("o", "tab:blue")
        axis.plot(100 * result.metrics[metric], height, marker, color=color, markersize=7)
    names = [f"{shown(results[label], label)}: {metric}" for label, metric in rows]
    finish(axis, names)


def draw_confident(axis: Axes, rows: Sequence[Confident]) -> None:
    for height, row in enumerate(rows[::-1]):
        axis.plot(100 * row.random, height, "*", color="tab:gray", markersize=7)
        axis.plot(100 * row.alone, height, "o", color="tab:blue", markersize=7, fillstyle="none")
        axis.plot(100 * row.mixed, height, "o", color="tab:blue", markersize=7)
    finish(axis, [f"{row.protocol}: {row.metric}" for row in rows[::-1]])


def finish(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlim=(-3, 103), ylim=(-0.6, len(names) - 0.4))
    axis.grid(alpha=0.3)


def picture(subsets: Mapping[str, Scores], confident: Sequence[Confident]) -> plt.Figure:
    lengths = [max(len(family(results, p)) for p in FAMILIES.values()) for results in subsets.values()]
    heights = [0.24 * rows + 0.7 for rows in (*lengths, len(confident))]
    figure = plt.figure(figsize=(13, sum(heights) + 0.5), layout="constrained")
    grid = figure.add_gridspec(len(heights), len(FAMILIES), height_ratios=heights)
    for i, (subset, results) in enumerate(subsets.items()):
        for j, (name, pattern) in enumerate(FAMILIES.items()):
            axis = figure.add_subplot(grid[i, j])
            draw(axis, results, pattern)
            axis.set_title(f"{name} of the same maps, {subset}s, %", fontsize=10)
    axis = figure.add_subplot(grid[-1, 1])
    draw_confident(axis, confident)
    axis.set_title("solos, and the same frames with another sound, %", fontsize=10)
    for name, marker, color, fill in (
        ("model", "o", "tab:blue", "full"),
        ("model, oracle", "D", "tab:orange", "full"),
        ("model, own sounds only (last panel)", "o", "tab:blue", "none"),
        *((name, marker, "tab:gray", "full") for name, marker in CHANCE.items()),
        ("confidences at random (last panel)", "*", "tab:gray", "full"),
    ):
        axis.plot([], [], marker, color=color, fillstyle=fill, markersize=7, label=name)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def main() -> None:
    parser = study_parser(__doc__, figures=True)
    parser.add_argument("--run", type=Path, default=Path("runs/composed-seed0"), help="folder of a complete run")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".* maps are constant")  # the whole frame is
    model, tests = encode(options.run)
    subsets = {scenes.held_out.subset: scores(model, scenes) for scenes in tests}
    solos = next(scenes for scenes in tests if scenes.held_out.num_sources == 1)
    own, other = other_sounds(model, solos)
    confident = list(confident_rows(own, other, solos.held_out.test.boxes))
    write_figure(picture(subsets, confident), options.figures / "same-maps.png", dpi=100, metadata={"Software": None})
    counts = {scenes.held_out.subset: len(scenes.held_out.test.scenes) for scenes in tests}
    parts = [
        f"**{name.capitalize()}s**, {counts[name]} scenes\n\n{table(results)}" for name, results in subsets.items()
    ]
    write_text(options.output / "same-maps.md", "\n".join(parts))
    rows = [(f"`{row.protocol}`", row.metric, *(f"{100 * value:.1f}" for value in row[2:])) for row in confident]
    columns = (
        "protocol",
        "metric, %",
        "own sounds only",
        "and other sounds",
        "and other sounds, confidences at random",
    )
    level = [maps.flatten(1).topk(maps[0].numel() // 4).values.mean(1) for maps in (own, other)]
    same, any_two = (100 * float((level[0] > sounds).double().mean()) for sounds in (level[1], level[1][:, None]))
    text = (
        f"The own sound has the higher confidence in {same:.1f} % of the frames, and in {any_two:.1f} % of all pairs of"
    )
    text = f"{text} a frame with its own sound and any frame with another one.\n\n{markdown(columns, rows)}"
    write_text(options.output / "same-maps-silent.md", text)
    print("\n".join(parts), text)


if __name__ == "__main__":
    main()
