"""Every protocol as a slow loop in NumPy and scikit-learn, written from the protocols' descriptions.

Shares no code with the library: one sample, one map, one pixel map at a time.
"""

import itertools
import math

import numpy as np
from sklearn.metrics import auc, average_precision_score

THRESHOLDS = [i / 20 for i in range(21)]


def cubic(distance):
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def tent(distance):
    return max(0.0, 1 - abs(distance))


def weights(n, size, kernel, aligned):
    table = np.zeros((size, n))
    for i in range(size):
        center = i * (n - 1) / (size - 1) if aligned else (i + 0.5) * n / size - 0.5
        for tap in range(int(np.floor(center)) - 1, int(np.floor(center)) + 3):
            table[i, min(max(tap, 0), n - 1)] += kernel(center - tap)
    return table


def resized(x, height, width, kernel, aligned=False):
    low = x.min()  # keeps a constant map constant to the last bit
    down, across = weights(x.shape[0], height, kernel, aligned), weights(x.shape[1], width, kernel, aligned)
    return down @ (x - low) @ across.T + low


def frames_of(x, layout, sources, size, kernel, aligned=False):
    if layout == "one":
        return [resized(x, size, size, kernel, aligned)]
    if layout == "stacked":
        return np.split(resized(x, sources * size, size, kernel, aligned), sources, axis=0)
    return np.split(resized(x, size, sources * size, kernel, aligned), sources, axis=1)


def min_max(x):
    x = x - x.min()
    return x / x.max() if x.max() > 0 else x


def upper_median(x):
    return np.sort(x.ravel())[x.size // 2]


def above_upper_median(x):
    """As LVS's and NoPrior's codes do it: pixels at 1 stay at 1, whatever the threshold."""
    x, threshold = x.copy(), upper_median(x)
    x[x > threshold] = 1
    x[x < 1] = 0
    return x > 0


def overlap(b, g):
    below = g.sum() + (b * (g == 0)).sum()
    return (b * g).sum() / below if below > 0 else 0.0


def pixel_ap(score, label):
    return average_precision_score((label > 0).ravel(), score.ravel()) if (label > 0).any() else 0.0


def success(cious, t):
    return np.mean(np.array(cious) >= t)


def area_under(cious):
    return auc(THRESHOLDS, [success(cious, t) for t in THRESHOLDS])


def lvs(samples, layout, size):
    cious = []
    for maps, truths in samples:
        sources = len(truths)
        scenes = [np.max(truths, axis=0)] if layout == "one" else list(truths)
        if len(maps) == 0:
            cious += [0.0] * len(scenes)
            continue
        for x, g in zip(frames_of(sum(maps), layout, sources, size, tent), scenes, strict=True):
            x = min_max(x)
            cious.append(overlap(above_upper_median(x), g))
    return {"CIoU@0.5": success(cious, 0.5), "AUC": area_under(cious), "entries": len(cious)}


def ez_vsl(samples, layout, size, priors=None):
    cious = []
    for i, (maps, truths) in enumerate(samples):
        sources = len(truths)
        scenes = [np.max(truths, axis=0)] if layout == "one" else list(truths)
        if len(maps) == 0:
            cious += [0.0] * len(scenes)
            continue
        objects = None if priors is None else frames_of(priors[i], layout, sources, size, tent, True)
        for j, x in enumerate(frames_of(sum(maps), layout, sources, size, tent, True)):
            x = min_max(x)
            if objects is not None:
                x = min_max(0.4 * x + 0.6 * min_max(objects[j]))
            cious.append(overlap(x >= upper_median(x), scenes[j]))
    return {
        "AP50": success(cious, 0.5),
        "mCIoU": np.mean(cious),
        "AUC": area_under(cious),
        "entries": len(cious),
    }


def detections(cious, confidences, level, t):
    right = wrong = missed = 0
    for c, confidence in zip(cious, confidences, strict=True):
        if confidence < level:
            missed += 1
        elif c >= t:
            right += 1
        else:
            wrong += 1
    precision = 1.0 if right + wrong == 0 else right / (right + wrong)
    recall = 1.0 if right + missed == 0 else right / (right + missed)
    return precision, recall


def detection_ap(cious, confidences, t):
    step = max(1, len(cious) // 200)
    points = [detections(cious, confidences, level, t) for level in np.sort(confidences)[:-1][::-step]]
    best = [max(p for p, _ in points[i:]) for i in range(len(points))]
    return sum(best[i] * (points[i + 1][1] - points[i][1]) for i in range(len(points) - 1))


def detection_f1(cious, confidences, t):
    p, r = detections(cious, confidences, 0.5, t)
    return 2 * p * r / (p + r) if p + r > 0 else 0.0


def avgn(samples, layout, size, single, tau=0.03):
    positions = {}
    for maps, truths in samples:
        for j, g in enumerate(truths):
            rows = positions.setdefault(j, [])
            if j >= len(maps):
                rows.append((0.0, 0.0, 0.0))
                continue
            x = frames_of(maps[j], layout, len(truths), size, cubic)
            x = (x[0] if layout == "one" else x[j]) * tau / 2 + 0.5
            confidence = np.sort(x.ravel())[-math.ceil(x.size / 4) :].mean()
            x = min_max(x)
            b = x >= upper_median(x)
            rows.append((overlap(b, g), average_precision_score(b.ravel(), g.ravel()), confidence))
    t = 0.3 if single else 0.1
    metrics = {f"Precision@{t}": [], "AP": [], "DetAP@0.3": [], "DetF1@0.3": [], "AUC": []}
    for rows in positions.values():
        cious, aps, confidences = (list(column) for column in zip(*rows, strict=True))
        metrics[f"Precision@{t}"].append(np.mean(np.array(cious) > t))
        metrics["AP"].append(np.mean(aps))
        metrics["DetAP@0.3"].append(detection_ap(cious, confidences, 0.3))
        metrics["DetF1@0.3"].append(detection_f1(cious, confidences, 0.3))
        metrics["AUC"].append(area_under(cious))
    return {name: np.mean(values) for name, values in metrics.items()} | {
        "entries": sum(len(rows) for rows in positions.values())
    }


def tvsl(samples, layout, size):
    cious, ious, aps = [], [], []
    for maps, truths in samples:
        sources = len(truths)
        for k, g in enumerate(truths):
            if k >= len(maps):
                cious.append(0.0), ious.append(0.0), aps.append(0.0)
                continue
            parts = frames_of(maps[k], layout, sources, size, cubic)
            axis = 0 if layout == "stacked" else 1
            x = 1 - min_max(np.concatenate(parts, axis=axis))
            wide = g if layout == "one" else np.concatenate([g if j == k else 0 * g for j in range(sources)], axis)
            b = x >= 0.3
            cious.append(overlap(b, wide))
            inter = (b * wide).sum()
            ious.append((inter + 1e-4) / (b.sum() + wide.sum() - inter + 1e-4))
            aps.append(pixel_ap(x, wide))
    return {
        "CIoU": np.mean(cious),
        "IoU": np.mean(ious),
        "AUC": area_under(cious),
        "AP": np.mean(aps),
        "entries": len(cious),
    }


def clean(samples, layout, size, classes=None, threshold=0.5, area=None):
    cious, aps, right = [], [], []
    for i, (maps, truths) in enumerate(samples):
        sources = len(truths)
        right.append(len(maps) == sources)
        table = {}
        for m, x in enumerate(maps):
            parts = [min_max(f) for f in frames_of(x, layout, sources, size, tent)] * (
                sources if layout == "one" else 1
            )
            for s, g in enumerate(truths):
                if area is None:
                    b = parts[s] >= threshold
                else:
                    b = parts[s] >= np.sort(parts[s].ravel())[-max(1, round(area * parts[s].size))]
                table[m, s] = (overlap(b, g), pixel_ap(parts[s], g))
        mine, theirs = ([-1] * len(maps), [-1] * sources) if classes is None else classes[i]

        def value(chosen, table=table, mine=mine, theirs=theirs):
            pairs = [(m, s) for s, m in enumerate(chosen) if m is not None]
            same = sum(mine[m] == theirs[s] != -1 for m, s in pairs)
            return same, round(sum(table[p][0] for p in pairs), 9), len(pairs)

        def fits(chosen, mine=mine, theirs=theirs):
            pairs = [(m, s) for s, m in enumerate(chosen) if m is not None]
            return all(-1 in (mine[m], theirs[s]) or mine[m] == theirs[s] for m, s in pairs)

        options = [*range(len(maps)), *([None] * sources)]  # a source may go without; earlier maps first
        candidates = [c for c in itertools.permutations(options, sources) if fits(c)]
        best = max(candidates, key=value)  # the first of equals
        for s, m in enumerate(best):
            if truths[s].any():
                cious.append(0.0 if m is None else table[m, s][0])
                aps.append(0.0 if m is None else table[m, s][1])
    metrics = {"CountAcc": np.mean(right), "entries": len(cious)}
    if not cious:
        return metrics
    return metrics | {
        "CAP": np.mean(aps),
        "AP": np.mean(aps),
        "CIoU@0.3": success(cious, 0.3),
        "CIoU@0.5": success(cious, 0.5),
        "mCIoU": np.mean(cious),
        "AUC": area_under(cious),
    }
