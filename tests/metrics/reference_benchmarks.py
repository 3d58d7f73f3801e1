"""The protocols of benchmarks with negatives, oracles and fixed thresholds as slow loops, written from their rules.

Shares no code with the library. A sample is (maps, truths); without a source, its truths have no first dimension.
"""

import itertools
import math

import numpy as np
from reference import (
    above_upper_median,
    area_under,
    cubic,
    detection_ap,
    frames_of,
    min_max,
    overlap,
    pixel_ap,
    success,
    tent,
    upper_median,
)
from sklearn.metrics import average_precision_score

ACL_THRESHOLDS = [step / 20 for step in range(1, 20)]


def scenes_of(truths, layout):
    """The ground truth of each frame: the union of its sources, or the only source on it."""
    return [np.max(truths, axis=0)] if layout == "one" else list(truths)


def by_frame(samples, layout, size, kernel, aligned, entry, priors=None, prior_kernel=None, prior_aligned=None):
    """What ``entry(map, truth, prior)`` returns for each frame of the samples with a source; None without a map."""
    prior_kernel = prior_kernel or kernel
    prior_aligned = aligned if prior_aligned is None else prior_aligned
    rows = []
    for i, (maps, truths) in enumerate(samples):
        if len(truths) == 0:
            continue
        scenes = scenes_of(truths, layout)
        if len(maps) == 0:
            rows += [None] * len(scenes)
            continue
        objects = [None] * len(scenes)
        if priors is not None:
            objects = frames_of(priors[i], layout, len(truths), size, prior_kernel, prior_aligned)
        frames = frames_of(sum(maps), layout, len(truths), size, kernel, aligned)
        rows += [entry(x, g, o) for x, g, o in zip(frames, scenes, objects, strict=True)]
    return rows


def of_ciou(cious, *names):
    values = {
        "AP50": success(cious, 0.5),
        "LocAcc": success(cious, 0.5),
        "mCIoU": np.mean(cious),
        "AUC": area_under(cious),
        "entries": len(cious),
        **{f"{kind}@{t}": success(cious, t) for kind in ("CIoU", "IoU") for t in (0.3, 0.5, 0.75)},
    }
    return {name: values[name] for name in (*names, "entries")}


def mixed_prior(x, o, weight=0.4):
    x = min_max(x)
    return x if o is None else min_max(weight * x + (1 - weight) * min_max(o))


# Extended sets: entries with a source, and negatives


def fixed_range(x, o, weight, tau=0.03):
    x = (x + 1 / tau) / (2 / tau)
    return x if o is None else weight * x + (1 - weight) * o / 2.5


def mean_of_top_quarter(x):
    return np.sort(x.ravel())[-math.ceil(x.size / 4) :].mean()


def detections(entries, negatives, level, t):
    right = wrong = missed = 0
    for ciou, confidence in entries:
        if confidence < level:
            missed += 1
        elif ciou >= t:
            right += 1
        else:
            wrong += 1
    wrong += sum(confidence >= level for confidence in negatives)
    precision = 1.0 if right + wrong == 0 else right / (right + wrong)
    recall = 1.0 if right + missed == 0 else right / (right + missed)
    return precision, recall


def det_ap(entries, negatives, t):
    confidences = np.sort([c for _, c in entries] + list(negatives))
    levels = confidences[:-1][:: -max(1, len(confidences) // 200)]
    points = [detections(entries, negatives, level, t) for level in levels]
    best = [max(p for p, _ in points[i:]) for i in range(len(points))]
    return sum(best[i] * (points[i + 1][1] - points[i][1]) for i in range(len(points) - 1))


def max_f1(entries, negatives, t):
    confidences = np.sort([c for _, c in entries] + list(negatives))
    values = []
    for level in confidences[:: max(1, len(confidences) // 10)]:
        p, r = detections(entries, negatives, level, t)
        values.append(2 * p * r / (p + r) if p + r > 0 else 0.0)
    return max(values)


def negatives_of(samples, size, kernel, aligned, priors, weight):
    rows = []
    for i, (maps, truths) in enumerate(samples):
        if len(truths) == 0 and len(maps) == 0:
            rows.append(0.0)
        elif len(truths) == 0:
            o = None if priors is None else frames_of(priors[i], "one", 1, size, kernel, aligned)[0]
            x = frames_of(sum(maps), "one", 1, size, kernel, aligned)[0]
            rows.append(mean_of_top_quarter(fixed_range(x, o, weight)))
    return rows


def extended(samples, layout, size, priors, *, relative, weight):
    def entry(x, g, o):
        x = fixed_range(x, o, weight)
        confidence = mean_of_top_quarter(x)
        b = min_max(x) >= upper_median(min_max(x)) if relative else x >= 0.5
        swapped = average_precision_score(b.ravel(), g.ravel()) if b.any() else 0.0
        return overlap(b, g), confidence, swapped

    rows = by_frame(samples, layout, size, cubic, True, entry, priors)
    rows = [row or (0.0, 0.0, 0.0) for row in rows]
    return rows, negatives_of(samples, size, cubic, True, priors, weight)


def slavc(samples, layout, size, priors=None, relative=True):
    rows, negatives = extended(samples, layout, size, priors, relative=relative, weight=0.9)
    counts = {"samples_without_source": sum(len(truths) == 0 for _, truths in samples)}
    if not rows:
        return {"entries": 0, **counts}
    entries = [(ciou, confidence) for ciou, confidence, _ in rows]
    return {
        **of_ciou([ciou for ciou, _ in entries], "LocAcc", "AUC"),
        **counts,
        "DetAP@0.5": det_ap(entries, negatives, 0.5),
        "MaxF1@0.5": max_f1(entries, negatives, 0.5),
    }


def slavc_fixed(samples, layout, size, priors=None):
    return slavc(samples, layout, size, priors, relative=False)


def avgn_test(samples, layout, size, priors=None):
    rows, negatives = extended(samples, layout, size, priors, relative=False, weight=0.4)
    if not rows:
        return {"entries": 0}
    cious, confidences, swapped = (list(column) for column in zip(*rows, strict=True))
    result = of_ciou(cious, "CIoU@0.3", "CIoU@0.5", "CIoU@0.75", "AUC") | {"AP": np.mean(swapped)}
    for t in (0.3, 0.5, 0.75):
        result[f"DetAP@{t}"] = det_ap(list(zip(cious, confidences, strict=True)), negatives, t)
        if not negatives:
            assert result[f"DetAP@{t}"] == detection_ap(cious, confidences, t)
    return result


# One binary map per frame


def sslalign(samples, layout, size, priors=None, adaptive=False):
    def entry(x, g, o):
        x = mixed_prior(x, o)
        count = np.count_nonzero(g) or x.size // 2
        level = np.sort(x.ravel())[x.size - count] if adaptive else upper_median(x)
        return overlap(x > level, g)

    cious = [row or 0.0 for row in by_frame(samples, layout, size, tent, False, entry, priors)]
    return of_ciou(cious, "CIoU@0.5", "AUC", "mCIoU") if cious else {"entries": 0}


def sslalign_adaptive(samples, layout, size, priors=None):
    return sslalign(samples, layout, size, priors, adaptive=True)


def fnac(samples, layout, size, priors=None, bicubic=False):
    def entry(x, g, o):
        x = mixed_prior(x, o)
        return overlap(x >= upper_median(x), g)

    kernel, aligned = (cubic, False) if bicubic else (tent, True)
    rows = by_frame(samples, layout, size, kernel, aligned, entry, priors, tent, True)
    return of_ciou([row or 0.0 for row in rows], "AP50", "mCIoU", "AUC") if rows else {"entries": 0}


def fnac_bicubic(samples, layout, size, priors=None):
    return fnac(samples, layout, size, priors, bicubic=True)


def plain(samples, layout, size, kernel, marked):
    rows = by_frame(samples, layout, size, kernel, False, lambda x, g, _: overlap(marked(min_max(x)), g))
    return of_ciou([row or 0.0 for row in rows], "CIoU@0.5", "AUC") if rows else {"entries": 0}


def htf(samples, layout, size):
    return plain(samples, layout, size, cubic, above_upper_median)


def ssl_tie(samples, layout, size):
    return plain(samples, layout, size, tent, above_upper_median)


def rcgrad(samples, layout, size):
    return plain(samples, layout, size, tent, lambda x: x >= 0.5)


def acl(samples, layout, size, thresholds=ACL_THRESHOLDS):
    results = []
    for t in thresholds:
        rows = by_frame(samples, layout, size, cubic, False, lambda x, g, _, t=t: overlap(x >= t, g))
        if not rows:
            return {"entries": 0}
        results.append(of_ciou([row or 0.0 for row in rows], "CIoU@0.5", "AUC"))
    return {name: max(result[name] for result in results) for name in results[0]}


# Other entries


def dsol(samples, layout, size, single=False, classes=None):
    """The mean cIoU of the sources in the assignment with most pairs of one class, then the largest total."""
    cious = []
    for i, (maps, truths) in enumerate(samples):
        sources = len(truths)
        if sources == 0:
            continue
        table = {}
        for m, x in enumerate(maps):
            frames = frames_of(x, layout, sources, size, tent) * (sources if layout == "one" else 1)
            for s, g in enumerate(truths):
                table[m, s] = overlap(frames[s] > (0.1 if single else 0.2) * frames[s].max(), g)
        of_maps, of_sources = ([-1] * len(maps), [-1] * sources) if classes is None else classes[i]
        best = (-1, 0.0)
        for chosen in itertools.permutations([*range(len(maps)), *([None] * sources)], sources):
            pairs = [(m, s) for s, m in enumerate(chosen) if m is not None]
            if all(-1 in (of_maps[m], of_sources[s]) or of_maps[m] == of_sources[s] for m, s in pairs):
                same = sum(of_maps[m] == of_sources[s] != -1 for m, s in pairs)
                best = max(best, (same, sum(table[pair] for pair in pairs)))
        cious.append(best[1] / sources)
    return of_ciou(cious, *(("IoU@0.5",) if single else ("CIoU@0.3",)), "AUC") if cious else {"entries": 0}


def noprior_union(samples, layout, size):
    """In one frame: the first map against the union of the boxes; each further map is an entry of 0."""
    assert layout == "one"
    entries, summed = [], []
    for maps, truths in samples:
        if len(truths) == 0 or len(maps) == 0:
            continue
        union = np.max(truths, axis=0)

        def binary(x):
            return above_upper_median(min_max(frames_of(x, "one", 1, size, cubic)[0]))

        entries.append((overlap(binary(maps[0]), union), pixel_ap(binary(maps[0]), union)))
        entries += [(0.0, 0.0)] * (len(maps) - 1)
        summed.append(pixel_ap(binary(sum(maps)), union))
    if not entries:
        return {"entries": 0}
    cious, aps = (list(column) for column in zip(*entries, strict=True))
    return of_ciou(cious, "CIoU@0.3", "CIoU@0.5", "AUC") | {"CAP": np.mean(aps), "PIAP": np.mean(summed)}
