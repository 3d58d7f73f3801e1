"""Means over videos and bootstrap intervals as slow loops over plain numbers, written from their definitions.

Shares no code with the library. A sample is a dict: its ``video`` and ``group`` (or None), its numbers of ``maps`` and
``sources``, the average precision of its ``summed`` maps, and its ``entries``, dicts of ``position``, ``ciou``,
``ap`` and ``confidence``.
"""

import hashlib
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from reference import THRESHOLDS, area_under, detection_ap, detection_f1, success

OF_ALL = ("DetAP@0.3", "DetF1@0.3")


def place_of(name):
    """Where the library puts a video: in the order of the first 53 bits of SHA-256."""
    return int(hashlib.sha256(str(name).encode()).hexdigest()[:16], 16) >> 11


def videos_of(samples):
    """The samples of each video; a sample without one is its own, the last one first, before all named ones."""
    named, own = {}, []
    for sample in samples:
        video = sample["group"] if sample["video"] is None else sample["video"]
        if video is None:
            own.insert(0, [sample])
        else:
            named.setdefault(str(video), []).append(sample)
    return own + [named[name] for name in sorted(named, key=place_of)]


def metric(name, samples, average_positions=False):
    entries = [entry for sample in samples for entry in sample["entries"]]
    if name == "PIAP":
        return mean([sample["summed"] for sample in samples if sample["maps"] > 0])
    if name == "Coverage":
        return mean([sample["maps"] > 0 for sample in samples])
    if name == "CountAcc":
        return mean([sample["maps"] == sample["sources"] for sample in samples])
    if name[0] == "I" and name != "IoU" and not name.startswith("IoU@"):
        return interactive(name, samples)
    if not average_positions:
        return of_entries(name, entries)
    positions = {entry["position"] for entry in entries if entry["position"] >= 0}
    return mean([of_entries(name, [e for e in entries if e["position"] == p]) for p in positions])


def interactive(name, samples):
    groups = {}
    for number, sample in enumerate(samples):
        # A video that is drawn twice brings each of its groups twice.
        key = (sample.get("draw", 0), sample["group"]) if sample["group"] is not None else number
        groups.setdefault(key, []).extend(entry["ciou"] for entry in sample["entries"])
    known = [cious for cious in groups.values() if cious]
    if not known:
        return np.nan

    def share(t):
        return mean([all(c >= t for c in cious) for cious in known])

    if name == "IAUC":
        shares = [share(t) for t in THRESHOLDS]
        return sum((a + b) / 2 * 0.05 for a, b in pairwise(shares))
    return share(float(name.split("@")[1]))


def of_entries(name, entries):
    cious = [entry["ciou"] for entry in entries]
    if not cious:
        return np.nan
    if name in ("CAP", "AP"):
        return mean([entry["ap"] for entry in entries])
    if name in ("mCIoU", "CIoU"):
        return mean(cious)
    if name == "AUC":
        return area_under(cious)
    kind, t = name.split("@")
    if kind == "DetAP":
        return detection_ap(cious, [entry["confidence"] for entry in entries], float(t))
    if kind == "DetF1":
        return detection_f1(cious, [entry["confidence"] for entry in entries], float(t))
    return mean([c > float(t) for c in cious]) if kind == "Precision" else success(cious, float(t))


def mean(values):
    return float(np.mean(values)) if len(values) else np.nan


def effective_count(samples):
    sizes = [sum(len(sample["entries"]) for sample in video) for video in videos_of(samples)]
    return 1 / sum((size / sum(sizes)) ** 2 for size in sizes)


def mean_over_videos(name, videos, average_positions):
    values = [metric(name, video, average_positions) for video in videos]
    return mean([value for value in values if not np.isnan(value)])


def resamples(samples, count, seed):
    """Lists of videos, each as often as it was drawn."""
    videos = videos_of(samples)
    drawn = torch.randint(len(videos), (count, len(videos)), generator=torch.Generator().manual_seed(seed))
    for row in drawn.tolist():
        yield [[{**sample, "draw": number} for sample in videos[v]] for number, v in enumerate(row)]


def interval(values, level):
    known = [value for value in values if not np.isnan(value)]
    return np.percentile(known, [50 * (1 - level), 50 * (1 + level)]) if known else (np.nan, np.nan)


def spread(names, samples, average_positions, *, count, level, seed):
    """Means over videos, intervals, and intervals of the means, by name of the metric."""
    drawn = list(resamples(samples, count, seed))
    means, intervals, mean_intervals = {}, {}, {}
    for name in names:
        flat = [metric(name, [s for video in draw for s in video], average_positions) for draw in drawn]
        intervals[name] = interval(flat, level)
        if name not in OF_ALL:
            means[name] = mean_over_videos(name, videos_of(samples), average_positions)
            over = [mean_over_videos(name, draw, average_positions) for draw in drawn]
            mean_intervals[name] = interval(over, level)
    return means, intervals, mean_intervals
