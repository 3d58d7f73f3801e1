"""Negative sounds as a slow loop in NumPy and float64, written from the text: one entry, one kind, one pixel at a time.

It shares no code with the library.
"""

import math
from itertools import combinations, pairwise

import numpy as np
import reference


def resized(x, size, upsampling):
    kernel = reference.cubic if upsampling == "bicubic" else reference.tent
    return reference.resized(x, *size, kernel, upsampling == "bilinear, aligned corners")


def marked(x, size, upsampling, threshold):
    x = resized(x, size, upsampling)
    return np.array([[1.0 if value > threshold else 0.0 for value in row] for row in x])


def share_of_pixels(b):
    return sum(value for row in b for value in row) / b.size


def iou(a, b):
    inter = union = 0
    for p, q in zip(a.ravel(), b.ravel(), strict=True):
        inter += bool(p and q)
        union += bool(p or q)
    return inter / union if union else 1.0


def trapezoid(heights):
    return sum((a + b) / 2 / 20 for a, b in pairwise(heights))


def harmonic(a, b):
    return 2 * a * b / (a + b) if a + b else 0.0


def negative_sounds(maps, truths, negatives, threshold, upsampling="bilinear", overlaps=False):
    """Metrics by name; ``maps`` and every entry of ``negatives`` are lists of arrays, like ``truths``."""
    kinds, count = list(negatives), len(maps)
    own = [marked(m, g.shape, upsampling, threshold) for m, g in zip(maps, truths, strict=True)]
    other = {
        kind: [marked(m, g.shape, upsampling, threshold) for m, g in zip(negatives[kind], truths, strict=True)]
        for kind in kinds
    }
    cious = [reference.overlap(b, g) for b, g in zip(own, truths, strict=True)]
    steps = [i / 20 for i in range(21)]
    ciou = sum(cious) / count
    auc = trapezoid([sum(c >= t for c in cious) / count for t in steps])
    result = {"CIoU_U": ciou, "AUC_U": auc}
    areas = {kind: [share_of_pixels(b) for b in other[kind]] for kind in kinds}
    auc_n = {kind: trapezoid([sum(a <= t for a in areas[kind]) / count for t in steps]) for kind in kinds}
    result |= {f"pIA {kind}": sum(areas[kind]) / count for kind in kinds}
    result |= {f"AUC_N {kind}": auc_n[kind] for kind in kinds}
    result["F_LOC"] = harmonic(ciou, sum(1 - result[f"pIA {kind}"] for kind in kinds) / len(kinds))
    result["F_AUC"] = harmonic(auc, sum(auc_n.values()) / len(kinds))
    if overlaps:
        named = {"own": own, **other}
        for a, b in combinations(named, 2):
            result[f"IoU {a}+{b}"] = sum(iou(x, y) for x, y in zip(named[a], named[b], strict=True)) / count
    return result | {"entries": count}


def threshold_from(maps, rule, size=None, upsampling="bilinear"):
    maxima = sorted(float((m if size is None else resized(m, size, upsampling)).max()) for m in maps)
    if rule == "max":
        return maxima[-1]
    place = 0.75 * (len(maxima) - 1)
    low, high = math.floor(place), math.ceil(place)
    return maxima[low] + (place - low) * (maxima[high] - maxima[low])
