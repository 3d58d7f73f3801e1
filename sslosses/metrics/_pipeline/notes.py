"""Notes: what a reader has to know about the samples behind a metric, such as samples that the metric leaves out."""

from __future__ import annotations

from torch import Tensor

from sslosses.metrics._pipeline.tables import CONSTANT, MAPS, SOURCES, empty_count
from sslosses.metrics._protocol import DETECTION, Protocol, parse_metric

_MANY_EMPTY = 0.1  # a share of the sources; public data has a few


def notes_of(metrics: tuple[str, ...], samples: Tensor, protocol: Protocol) -> tuple[str, ...]:
    """Returns a sentence or two on each of: samples left out, surplus maps, constant maps, and empty ground truth.

    Args:
        metrics: names of the metrics that are computed.
        samples: the samples' table.
        protocol: the rules.
    """
    without_source = _without_source(metrics, samples, protocol)
    samples = samples[samples[:, SOURCES] > 0]
    return (
        *without_source,
        *_without_map(metrics, samples, protocol),
        *_surplus(samples),
        *_constant(samples),
        *_empty(samples, protocol),
    )


def _without_source(metrics: tuple[str, ...], samples: Tensor, protocol: Protocol) -> list[str]:
    count = int((samples[:, SOURCES] == 0).sum())
    if not count or any(parse_metric(name)[0] in DETECTION for name in metrics):
        return []
    return [
        f"{count:,} of {len(samples):,} samples have no source and are left out by protocol {protocol.name!r}, as none "
        "of its metrics is about detection. Report DetAP or MaxF1, which count them as false alarms"
    ]


def _without_map(metrics: tuple[str, ...], samples: Tensor, protocol: Protocol) -> list[str]:
    count = int((samples[:, MAPS] == 0).sum())
    if not count or not any(_leaves_out(parse_metric(name)[0], protocol) for name in metrics):
        return []
    return [
        f"{count:,} of {len(samples):,} samples have no map and are left out by protocol {protocol.name!r}, which "
        "raises its means if these are the hard samples. Report the metric Coverage beside them"
    ]


def _leaves_out(kind: str, protocol: Protocol) -> bool:
    """Whether a metric has no value for samples without a map, instead of 0."""
    if kind in ("CountAcc", "Coverage"):
        return False
    return kind == "PIAP" or protocol.assignment == "greedy"


def _surplus(samples: Tensor) -> list[str]:
    surplus = samples[:, MAPS] > samples[:, SOURCES]
    count = int(surplus.sum())
    if 2 * count <= len(samples):  # a model that counts sources itself is wrong now and then
        return []
    rows = samples[surplus]
    maps, sources = (int(value) for value in rows[int((rows[:, MAPS] - rows[:, SOURCES]).argmax())][[MAPS, SOURCES]])
    return [
        f"{count:,} of {len(samples):,} samples have more maps than sources, such as {maps:,} maps for {sources} "
        "source(s). Maps have shape (M, h, w), where M is their number; channels are not the last dimension"
    ]


def _constant(samples: Tensor) -> list[str]:
    count, maps = (int(column) for column in samples[:, [CONSTANT, MAPS]].sum(0))
    if 2 * count <= maps:  # a model may find nothing in a few samples
        return []
    return [f"{count:,} of {maps:,} maps have one value in all pixels, so they point to no place"]


def _empty(samples: Tensor, protocol: Protocol) -> list[str]:
    sources, empty = int(samples[:, SOURCES].sum()), empty_count(samples)
    start = f"{empty:,} of {sources:,} sources have no pixel in their ground truth"
    if empty and protocol.empty_truths == "leave out":
        return [f"{start} and are left out by protocol {protocol.name!r}"]
    if empty > _MANY_EMPTY * sources:
        return [f"{start} and count as 0. Boxes are corners (xmin, ymin, xmax, ymax), not widths and heights"]
    return []
