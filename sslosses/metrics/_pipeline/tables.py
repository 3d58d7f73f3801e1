"""Tables: one row per entry and one row per sample, and the metrics computed from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses.metrics._pipeline.samples import Samples
from sslosses.metrics._pipeline.scorer import SourceScores
from sslosses.metrics._protocol import DETECTION, Protocol, parse_metric
from sslosses.metrics.functional.auc import _success_auc
from sslosses.metrics.functional.detection import _detection_average_precision, _detection_f1, _detection_max_f1

#: Columns of the entries' table. The source is −1 for a map beyond the number of sources, the class −1 if unknown.
SOURCE, CIOU, PRECISION, IOU, CONFIDENCE, AREA, CLASS = range(7)
ENTRY_COLUMNS = 7
#: Columns of the samples' table. The entries of a sample are the next ENTRIES rows of the entries' table. Bit j of
#: EMPTY is set where source j has no pixel. CONSTANT counts the maps of one value. FALSE_ALARM is the confidence in a
#: sample without a source. VIDEO and GROUP are digests of ids, −1 without one.
ENTRIES, MAPS, SOURCES, SUMMED, EMPTY, CONSTANT, FALSE_ALARM, VIDEO, GROUP = range(9)
SAMPLE_COLUMNS = 9
#: Kinds of metrics over samples or groups. A part of the entries, such as those of one class, has none of them.
OF_SAMPLES = ("PIAP", "CountAcc", "Coverage")
OF_GROUPS = ("IIoU", "IAUC")
#: AVGN's bounds of an object's area, 32², 96² and 144² pixels of a 224² frame, as shares of any frame.
SIZES = {"small": 32**2 / 224**2, "medium": 96**2 / 224**2, "large": 144**2 / 224**2, "huge": float("inf")}


class TableRows(NamedTuple):
    """Rows of a batch of samples, and the place of their samples in the update."""

    entries: Tensor  # (n, 7), and a column with the cIoU at each further threshold
    entry_places: Tensor  # (n,)
    samples: Tensor  # (B, 7), without VIDEO and GROUP
    sample_places: Tensor  # (B,)


def rows_of(scores: SourceScores, batch: Samples, protocol: Protocol) -> TableRows:
    """Returns the rows of a batch."""
    maps, sources = batch.valid.sum(1), batch.truths.shape[1]
    width = scores.ciou.shape[1]
    classes = batch.source_classes.double()
    if width != sources:  # an entry of several sources has a class only if they share it
        classes = torch.where((classes == classes[:, :1]).all(1, keepdim=True), classes[:, :1], -1.0)
    source = torch.arange(width, device=maps.device, dtype=torch.float64).expand_as(scores.ciou)
    columns = (source, scores.ciou, scores.precision, scores.iou, scores.confidence, scores.area, classes)
    table = torch.stack(columns, -1)
    if scores.further is not None:
        table = torch.cat([table, scores.further], -1)
    keep = torch.ones_like(scores.empty[:, :width])
    surplus = torch.zeros_like(maps)
    if protocol.assignment == "greedy":
        keep = (maps > 0)[:, None].expand_as(keep)
        surplus = (maps - width).clamp(min=0) if sources else surplus
    elif protocol.empty_truths == "leave out":
        keep = scores.area > 0
    extra = table.new_zeros(int(surplus.sum()), table.shape[-1])
    extra[:, [SOURCE, CLASS]] = -1
    place = batch.place.to(maps.device)
    empty = (scores.empty.long() << torch.arange(sources, device=maps.device)).sum(1)
    sample = (
        keep.sum(1) + surplus,
        maps,
        torch.full_like(maps, sources),
        scores.summed_precision,
        empty,
        _constant(batch),
        scores.false_alarm,
    )
    return TableRows(
        torch.cat([table[keep], extra]),
        torch.cat([place.repeat_interleave(keep.sum(1)), place.repeat_interleave(surplus)]),
        torch.stack([column.double() for column in sample], -1),
        place,
    )


def _constant(batch: Samples) -> Tensor:
    """Counts the maps of each sample whose pixels all have one value, (B,)."""
    if batch.maps.numel() == 0:
        return batch.valid.sum(1)
    low, high = batch.maps.flatten(2).aminmax(dim=-1)
    return ((low == high) & batch.valid).sum(1)


def in_order(parts: list[TableRows], ids: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the entries and samples of all batches in the order of the update; ``ids`` (B, 2) are VIDEO and GROUP."""
    entries, entry_places, samples, sample_places = (torch.cat(column) for column in zip(*parts, strict=True))
    ordered = torch.cat([samples[sample_places.argsort()], ids.to(samples.device)], 1)
    return entries[entry_places.argsort(stable=True)], ordered


def joined(tables: list[Tensor]) -> list[Tensor]:
    """Joins tables until each has more than twice the rows of the next one.

    So n rows are in at most log2(n) tables, and each row is copied a few times only. One small tensor per update would
    pin the memory of the large temporary tensors that lay around it.
    """
    result: list[Tensor] = []
    for table in tables:
        result.append(table)
        while len(result) > 1 and len(result[-2]) <= 2 * len(result[-1]):
            last = result.pop()
            result[-1] = torch.cat([result[-1], last.to(result[-1].device)])
    return result


def metrics_of(names: tuple[str, ...], entries: Tensor, samples: Tensor, average_positions: bool) -> dict[str, Tensor]:
    """Computes the named metrics as 0-d float64 tensors, NaN where there is nothing to average.

    With several thresholds, each metric is its best over them.
    """
    if entries.shape[1] > ENTRY_COLUMNS:
        results = [metrics_of(names, part, samples, average_positions) for part in per_threshold(entries)]
        return {name: torch.stack([result[name] for result in results]).amax() for name in names}
    if average_positions:
        positions = [p for p in torch.unique(entries[:, SOURCE]).tolist() if p >= 0]
        parts = [entries[entries[:, SOURCE] == p] for p in positions] or [entries]
    else:
        parts = [entries]
    return {
        name: _metric(name, entries, samples)
        if parse_metric(name)[0] in OF_GROUPS  # a group holds sources of all positions
        else torch.stack([_metric(name, part, samples) for part in parts]).mean()
        for name in names
    }


def _metric(name: str, entries: Tensor, samples: Tensor) -> Tensor:
    kind, threshold = parse_metric(name)
    if kind in DETECTION:
        negatives = samples[samples[:, SOURCES] == 0, FALSE_ALARM]
        detection = {"DetAP": _detection_average_precision, "DetF1": _detection_f1, "MaxF1": _detection_max_f1}[kind]
        assert threshold is not None
        return detection(entries[:, CIOU], entries[:, CONFIDENCE], negatives, threshold)
    if kind == "AUC":
        return _success_auc(entries[:, CIOU])
    if kind == "IAUC":
        return _success_auc(_least_ciou(entries, samples)[0])
    return _values(kind, threshold, entries, samples).mean()


def _values(kind: str, threshold: float | None, entries: Tensor, samples: Tensor) -> Tensor:
    """The values whose mean is the metric: one per entry, sample with a source, or group."""
    if kind in OF_SAMPLES:
        samples = samples[samples[:, SOURCES] > 0]
    if kind == "PIAP":
        return samples[samples[:, MAPS] > 0, SUMMED]
    if kind == "Coverage":
        return (samples[:, MAPS] > 0).double()
    if kind == "CountAcc":
        return (samples[:, MAPS] == samples[:, SOURCES]).double()
    if kind in ("AP", "CIoU", "IoU"):
        return entries[:, {"AP": PRECISION, "CIoU": CIOU, "IoU": IOU}[kind]]
    ciou = _least_ciou(entries, samples)[0] if kind in OF_GROUPS else entries[:, CIOU]
    if kind in ("AUC", "IAUC"):
        return _success_auc(ciou[:, None])
    assert threshold is not None
    return (ciou > threshold if kind == "precision" else ciou >= threshold).double()


class Terms(NamedTuple):
    """The terms of a metric that is a mean."""

    values: Tensor  # (k,)
    samples: Tensor  # (k,), the sample that each belongs to


def terms_of(name: str, entries: Tensor, samples: Tensor) -> Terms:
    """Returns the terms whose mean is the metric, which is none of detection, from entries at one threshold."""
    kind, threshold = parse_metric(name)
    if kind in OF_SAMPLES:
        place = (samples[:, SOURCES] > 0).nonzero()[:, 0]
        place = place[samples[place, MAPS] > 0] if kind == "PIAP" else place
    else:
        place = _least_ciou(entries, samples)[1] if kind in OF_GROUPS else samples_of(samples)
    return Terms(_values(kind, threshold, entries, samples), place)


def samples_of(samples: Tensor) -> Tensor:
    """Returns the sample that each entry belongs to, (n,)."""
    place = torch.arange(len(samples), device=samples.device)
    return place.repeat_interleave(samples[:, ENTRIES].long())


def _least_ciou(entries: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest cIoU of each group that has an entry, and the first sample of that group."""
    place = samples_of(samples)
    _, group = torch.unique(samples[place, GROUP], return_inverse=True)
    count = int(group.max()) + 1 if len(group) else 0
    least = entries.new_full((count,), torch.inf).scatter_reduce(0, group, entries[:, CIOU], "amin")
    first = torch.full((count,), len(samples), device=place.device).scatter_reduce(0, group, place, "amin")
    return least, first


def per_threshold(entries: Tensor) -> Iterator[Tensor]:
    """The table of the entries at each threshold, with the columns of a single one."""
    for column in (CIOU, *range(ENTRY_COLUMNS, entries.shape[1])):
        part = entries[:, :ENTRY_COLUMNS].clone()
        part[:, CIOU] = entries[:, column]
        yield part


def counts_of(entries: Tensor, samples: Tensor) -> dict[str, Tensor]:
    """Counts the entries, samples, samples without a map or source, and empty targets, as 0-d int64 tensors."""
    return {
        "entries": torch.tensor(len(entries), device=entries.device),
        "samples": torch.tensor(len(samples), device=entries.device),
        "samples_without_map": ((samples[:, MAPS] == 0) & (samples[:, SOURCES] > 0)).sum(),
        "empty_truths": torch.tensor(empty_count(samples), device=entries.device),
        "samples_without_source": (samples[:, SOURCES] == 0).sum(),
    }


def empty_count(samples: Tensor) -> int:
    """Counts the sources whose ground truth has no pixel."""
    empty = torch.zeros(len(samples), dtype=torch.int64, device=samples.device)
    for j in range(int(samples[:, SOURCES].max()) if len(samples) else 0):
        empty += (samples[:, EMPTY].long() >> j) & 1
    return int(empty.sum())


def empty_truths_of(samples: Tensor) -> tuple[tuple[int, int], ...]:
    """Lists the sources whose ground truth has no pixel, as (sample, source)."""
    return tuple(
        (i, j)
        for i, (bits, sources) in enumerate(samples[:, [EMPTY, SOURCES]].long().tolist())
        for j in range(sources)
        if bits >> j & 1
    )


def by_size(entries: Tensor) -> dict[str, Tensor]:
    """Groups the entries by the size of their object, without surplus maps, which have none."""
    sized, low, groups = entries[entries[:, SOURCE] >= 0], -1.0, {}
    for name, high in SIZES.items():
        groups[name] = sized[(sized[:, AREA] >= low) & (sized[:, AREA] < high)]
        low = high
    return groups
