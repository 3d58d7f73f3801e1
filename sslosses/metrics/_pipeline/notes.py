"""Notes: what a reader has to know about the samples behind a metric, such as samples that the metric leaves out."""

from __future__ import annotations

from torch import Tensor

from sslosses.metrics._pipeline.bootstrap import videos_of
from sslosses.metrics._pipeline.tables import CONSTANT, MAPS, SOURCES, VIDEO, empty_count
from sslosses.metrics._protocol import DETECTION, Protocol, parse_metric

_MANY_EMPTY = 0.1  # a share of the sources; public data has a few
_FEW_VIDEOS = 10  # effectively; percentiles of resamples of fewer are far too close


def notes_of(metrics: tuple[str, ...], samples: Tensor, protocol: Protocol) -> tuple[str, ...]:
    """Returns one sentence or two on each of: samples left out, surplus maps, constant maps, empty truths, few videos.

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
        *few_videos(samples),
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


def few_videos(samples: Tensor) -> list[str]:
    """Returns a note if the entries are effectively of a few videos only, and ids of videos are known."""
    if not bool((samples[:, VIDEO] >= 0).any()):
        return []
    videos = videos_of(samples)
    count, effective, share = len(videos.keys), videos.effective_count(), videos.largest_share()
    if count == 1:
        return ["All entries are of one video, so there is no interval over videos"]
    if share > 0.5:
        start = f"One of {count:,} videos has {100 * share:.1f} % of the entries"
    elif effective < _FEW_VIDEOS:
        start = f"The entries are of {count:,} videos, effectively {effective:.1f}"
    else:
        return []
    return [f"{start}, so an interval over videos means little. Report the metrics of each video"]
