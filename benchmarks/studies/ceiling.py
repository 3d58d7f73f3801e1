"""What the boxes of the public sets allow: the best metrics of any map, those of a coarse one, and those without skill.

A protocol that marks all pixels above the median marks half of the frame, unless many pixels have one value. Few
objects fill half a frame, so even the best map is far from 100. Overlap and average precision of binary maps depend
only on the areas of map and ground truth and on their intersection, so the ceilings are closed forms over all boxes.

    python benchmarks/studies/ceiling.py --metadata DIR

The folder also holds ``lists/DTaoo+DSOL`` with DSOL's boxes. Takes half a minute on one core. Writes ceiling.md,
ceiling-coarse.md, ceiling-no-skill.md and ceiling-quoted.md to benchmarks/results; the last one compares the numbers
that examples/configs/tables quotes from the paper with the ceilings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from study import ROOT, markdown, metadata_folder, study_parser, write_text
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from sslosses.annotations import (
    rasterize,
    read_dsol_music,
    read_music_duet,
    read_music_solo,
    read_vggsound_mixtures,
    read_vggss,
)
from sslosses.metrics.functional import (
    average_precision,
    binarize_above_upper_median,
    detection_average_precision,
    resize_bilinear,
    success_auc,
    success_rate,
)

SIZE = 224
PIXELS = SIZE * SIZE
#: Pixels above the upper median of a map without ties.
MARKED = PIXELS - PIXELS // 2 - 1
SHARES = (0.1, 0.2, 0.5)
ROUNDING = 0.0005  # printed numbers have one decimal of a percent
DSOL = Path("lists") / "DTaoo+DSOL"


class Truths(NamedTuple):
    """Boxes of every ground truth of a set.

    ``frames`` is None, or the frame of each ground truth: an entry is then the mean over the sources of a frame.
    """

    title: str
    boxes: Sequence[Any]
    frames: Sequence[int] | None = None

    def entries(self, values: Tensor) -> Tensor:
        """(entries,): the overlaps of the ground truths, averaged over each frame where frames are entries."""
        if self.frames is None:
            return values
        frames = torch.tensor(self.frames)
        return values.new_zeros(int(frames.max()) + 1).index_add_(0, frames, values) / frames.bincount()


class Overlap(NamedTuple):
    """Pixels of ground truths, of binary maps and of their intersections, all (n,) in float64."""

    truth: Tensor
    marked: Tensor
    both: Tensor

    @property
    def ciou(self) -> Tensor:
        return self.both / (self.truth + self.marked - self.both)

    @property
    def binary(self) -> Tensor:
        """Average precision of the binary map; 0 for an empty ground truth."""
        rest = torch.where(self.truth > 0, self.truth - self.both, 0) / PIXELS
        return self._first_level() + rest

    @property
    def swapped(self) -> Tensor:
        """The same with the binary map as label and the ground truth as score."""
        return self._first_level() + (self.marked - self.both) / PIXELS

    def _first_level(self) -> Tensor:
        return self.both.square() / (self.truth * self.marked).clamp(min=1)


def best(area: Tensor) -> Overlap:
    """The best overlap of a map that marks half of the frame: as much of the ground truth as fits."""
    return Overlap(area, torch.full_like(area, MARKED), area.clamp(max=MARKED))


def least_swapped(area: Tensor) -> Tensor:
    """The lowest AP with swapped arguments of a map that marks half of the frame: its intersection is a quarter."""
    least = (area + MARKED - PIXELS).clamp(min=0)
    both = (area * MARKED / (2 * PIXELS)).clamp(min=least)
    return Overlap(area, torch.full_like(area, MARKED), both).swapped


def most_auc(ciou: Tensor, threshold: float, share: float) -> float:
    """The highest AUC with at most a ``share`` of successes at ``threshold``, where ``ciou`` are the best overlaps."""
    single = success_auc(ciou[:, None]).sort(descending=True).values
    below = success_auc(torch.tensor([[threshold - 1e-6]], dtype=ciou.dtype))
    kept = int(share * len(single))
    return float((single[:kept].sum() + single[kept:].minimum(below).sum()) / len(single))


def sets(folder: Path) -> Iterator[Truths]:
    def sources(records: Any) -> list[Any]:
        return [source for record in records for source in record.boxes]

    solo, duet = read_music_solo(folder / "music_solo.json"), read_music_duet(folder / "music_duet.json")
    yield Truths("MUSIC-Solo", sources(solo))
    yield Truths("MUSIC-Solo, NoPrior's truncation", [[truncated(*source[0])] for source in sources(solo)])
    yield Truths("MUSIC-Solo, DSOL's frames", sources(read_dsol_music(folder / DSOL / "solotest.json")))
    yield Truths("MUSIC-Duet", sources(duet))
    yield Truths("MUSIC-Duet, NoPrior's truncation", [[truncated(*source[0])] for source in sources(duet)])
    yield Truths("MUSIC-Duet, both boxes as one", [sum(record.boxes, ()) for record in duet])
    frames = list(read_dsol_music(folder / DSOL / "duettest.json"))
    numbers = [number for number, record in enumerate(frames) for _ in record.boxes]
    yield Truths("MUSIC-Duet, DSOL's frames", sources(frames), numbers)
    yield Truths("VGGSound-Single", sources(read_vggss(folder / "vggss.json")))
    yield Truths(
        "VGGSound-Duet", sources(read_vggsound_mixtures(folder / "vggsound_duet_test.csv", folder / "vggss.json"))
    )


def truncated(left: float, top: float, right: float, bottom: float) -> tuple[float, ...]:
    """A box whose corners fall into the pixels that NoPrior's code takes: corner and side are truncated apart."""
    x, y = int(SIZE * left), int(SIZE * top)
    width, height = (int(SIZE * round(side, 9)) for side in (right - left, bottom - top))
    return tuple((pixel + 0.5) / SIZE for pixel in (x, y, x + width, y + height))


def masks(truths: Truths, chunk: int = 64) -> Iterator[Tensor]:
    for start in range(0, len(truths.boxes), chunk):
        yield torch.stack([rasterize(boxes, SIZE) for boxes in truths.boxes[start : start + chunk]])


def percent(value: float | Tensor) -> str:
    return f"{100 * float(value):.1f}"


def overlaps(entries: Tensor) -> tuple[str, str, str]:
    return (percent(success_rate(entries, 0.5)), percent(success_rate(entries, 0.3)), percent(success_auc(entries)))


def ceiling_row(truths: Truths, area: Tensor) -> tuple[str, ...]:
    overlap = best(area)
    entries = truths.entries(overlap.ciou)
    size = (truths.title, f"{len(entries):,}", percent(area.mean() / PIXELS))
    if truths.frames is not None:
        return (*size, *overlaps(entries), "–", "–", "–")
    swapped = f"{percent(least_swapped(area).mean())} to {percent(overlap.swapped.mean())}"
    detection = ", ".join(percent(detection_average_precision(entries, entries, t)) for t in (0.3, 0.5))
    return (*size, *overlaps(entries), percent(overlap.binary.mean()), swapped, detection)


def gaussian_rows(truths: Truths) -> list[tuple[str, ...]]:
    """Rows of the centered Gaussian for one set: the median, and three shares of its maximum."""
    offset = (torch.arange(SIZE) + 0.5) / SIZE - 0.5
    gaussian = torch.exp(-8 * (offset[:, None] ** 2 + offset**2))
    marks = [binarize_above_upper_median(gaussian), *(gaussian > share * gaussian.max() for share in SHARES)]
    marked = torch.stack(marks).flatten(1).double()
    both, area, continuous = [], [], []
    for chunk in masks(truths):
        pixels = chunk.flatten(1).double()
        both.append(pixels @ marked.T)
        area.append(pixels.sum(1))
        if truths.frames is None:
            continuous.append(average_precision(gaussian.expand(len(chunk), -1, -1), chunk))
    truth, rows = torch.cat(area), []
    for rule, hits in enumerate(torch.cat(both).T):
        overlap = Overlap(truth, torch.full_like(truth, float(marked[rule].sum())), hits)
        name = f"{SHARES[rule - 1]:g} of the maximum" if rule else "median"
        precisions = (overlap.binary, overlap.swapped, torch.cat(continuous)) if not rule and continuous else ()
        cells = [percent(values.mean()) for values in precisions] or ["–"] * 3
        rows.append((truths.title if rule == 0 else "", name, *overlaps(truths.entries(overlap.ciou)), *cells))
    return rows


def coarse_rows(truths: Truths) -> Iterator[tuple[str, ...]]:
    """What maps of 7×7 reach at least: the best of a few maps that are made from the ground truth."""
    best_overlap, precision = torch.zeros(len(SHARES), 0), []
    for chunk in masks(truths):
        coarse = adaptive_avg_pool2d(chunk.float(), 7)
        coarse = coarse / coarse.amax((1, 2), keepdim=True)
        precision.append(average_precision(resize_bilinear(coarse, (SIZE, SIZE)), chunk))
        levels = [(coarse >= level).float() for level in (0.2, 0.4, 0.5, 0.6, 0.8, 1.0)]
        candidates = torch.stack([coarse, coarse.sqrt(), coarse.square(), *levels])
        maps = resize_bilinear(candidates, (SIZE, SIZE))
        peak, overlap = maps.amax((-2, -1), keepdim=True), []
        for share in SHARES:
            marks = maps > share * peak
            overlap.append(((marks & chunk).sum((-2, -1)) / (marks | chunk).sum((-2, -1))).amax(0))
        best_overlap = torch.cat((best_overlap, torch.stack(overlap)), 1)
    for share, entries in zip(SHARES, best_overlap, strict=True):
        yield (f"{share:g} of the maximum", *overlaps(entries))
    yield (f"none: continuous AP {percent(torch.cat(precision).mean())}", "–", "–", "–")


#: Boxes with which the numbers of a test set are compared.
COMPARED = {
    "MUSIC-Solo": ("MUSIC-Solo", "MUSIC-Solo, DSOL's frames"),
    "MUSIC-Duet": ("MUSIC-Duet", "MUSIC-Duet, both boxes as one", "MUSIC-Duet, DSOL's frames"),
    "VGGSound-Single": ("VGGSound-Single",),
    "VGGSound-Duet": ("VGGSound-Duet",),
}


def quoted() -> Iterator[tuple[str, str, list[float | None]]]:
    """(test set, row, [AP, success, AUC]) of the paper's Tables 2 and 1."""
    for number in (2, 1):
        table = yaml.safe_load((ROOT / "examples" / "configs" / "tables" / f"{number}.yaml").read_text())
        for i, name in enumerate(table["sets"]):
            for row in table["rows"]:
                if "paper" in row:
                    title = {"ResNet-18": "the paper's, ResNet-18", "AudioCLIP as backbone": "the paper's, AudioCLIP"}
                    yield name, title.get(row["name"], row["name"]), row["paper"][i]


def too_high(numbers: Sequence[float | None], names: Sequence[str], truths: Truths, area: Tensor) -> str:
    """The quoted numbers that no map without ties reaches if half of the frame is marked; a dash if there are none."""
    overlap, threshold = best(area), float(names[1].partition("@")[2])
    entries = truths.entries(overlap.ciou)
    precision = 1.0 if truths.frames is not None else float(overlap.binary.mean())
    limits = {
        names[0]: precision,
        names[1]: float(success_rate(entries, threshold)),
        names[2]: float(success_auc(entries)),
    }
    lowest = [None if number is None else number / 100 - ROUNDING for number in numbers]
    above = [name for name, number in zip(names, lowest, strict=True) if number is not None and number > limits[name]]
    if names[2] not in above and numbers[1] is not None and lowest[2] is not None:
        together = most_auc(entries, threshold, numbers[1] / 100 + ROUNDING)
        if lowest[2] > together:
            above.append(f"{names[2]} (at most {percent(together)} beside this {names[1]})")
    return ", ".join(above) or "–"


def swapped_verdict(number: float | None, area: Tensor) -> str:
    if number is None:
        return "–"
    low, high = least_swapped(area).mean(), best(area).swapped.mean()
    return "too low" if number / 100 + ROUNDING < low else "too high" if number / 100 - ROUNDING > high else "possible"


def quoted_tables(areas: dict[str, tuple[Truths, Tensor]]) -> str:
    parts = []
    for name, boxes in COMPARED.items():
        names = ("CAP", "CIoU@0.3", "AUC") if "Duet" in name else ("AP", "IoU@0.5", "AUC")
        rows = []
        for _, row, numbers in (entry for entry in quoted() if entry[0] == name):
            cells = ["–" if number is None else f"{number:.1f}" for number in numbers]
            impossible = [too_high(numbers, names, *areas[title]) for title in boxes]
            rows.append((row, *cells, *impossible, swapped_verdict(numbers[0], areas[name][1])))
        heads = [f"too high for {title.partition(', ')[2] or 'the usual boxes'}" for title in boxes]
        columns = ("row", *(f"{label}, quoted" for label in names), *heads, f"{names[0]} with swapped arguments")
        parts.append(f"**{name}**\n\n{markdown(columns, rows)}")
    return "\n".join(parts)


def main() -> None:
    parser = study_parser(__doc__, metadata=True)
    options = parser.parse_args()
    folder = metadata_folder(parser, options)
    areas, ceilings, no_skill, coarse = {}, [], [], ""
    for truths in sets(folder):
        area = torch.cat([chunk.sum((1, 2)) for chunk in masks(truths)]).double()
        areas[truths.title] = (truths, area)
        ceilings.append(ceiling_row(truths, area))
        if "truncation" not in truths.title and truths.title != "VGGSound-Duet":
            no_skill += gaussian_rows(truths)
        if truths.title == "MUSIC-Solo":
            coarse = markdown(("threshold", "IoU@0.5", "IoU@0.3", "AUC"), list(coarse_rows(truths)))
    overlap = ("(C)IoU@0.5", "(C)IoU@0.3", "AUC")
    columns = ("boxes", "entries", "mean area, %", *overlap, "binary AP", "AP with swapped arguments")
    texts = {
        "ceiling": markdown((*columns, "detection AP@0.3, @0.5"), ceilings),
        "ceiling-coarse": coarse,
        "ceiling-no-skill": markdown(
            ("boxes", "marked above", *overlap, "binary AP", "AP with swapped arguments", "continuous AP"), no_skill
        ),
        "ceiling-quoted": quoted_tables(areas),
    }
    for name, text in texts.items():
        write_text(options.output / f"{name}.md", text)
        print(text)


if __name__ == "__main__":
    main()
