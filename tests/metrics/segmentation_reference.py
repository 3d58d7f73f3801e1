"""The metrics of masks as slow loops in NumPy and float64, written from their descriptions.

Shares no code with the library: one frame, one threshold, one class at a time.
"""

import math

import numpy as np
import torch

#: In float32, as the published code has them; the last one is 1.
THRESHOLDS = [float(t) for t in torch.linspace(0, 1 - 1e-10, 255)]


def frame_iou(probabilities, truth):
    """J of a frame. Without an object: the share of the pixels that are predicted as background."""
    b, g = probabilities > 0.5, truth > 0
    if not g.any():
        return (~b).sum() / (b.size + 1e-7)
    return (b & g).sum() / ((b | g).sum() + 1e-7)


def frame_curve(probabilities, truth):
    curve = []
    for threshold in THRESHOLDS:
        b = probabilities >= threshold
        hits = (b & (truth > 0)).sum()
        precision, recall = hits / (b.sum() + 1e-20), hits / ((truth > 0).sum() + 1e-20)
        below = 0.3 * precision + recall
        curve.append(1.3 * precision * recall / below if below > 0 else 0.0)
    return np.array(curve)


def mean_curve(frames):
    curves = [frame_curve(p, g) for p, g in frames if g.any()]
    return np.mean(curves, axis=0) if curves else None


def avsbench(videos, videos_per_batch):
    """``videos``: for each video its list of (probabilities, truth)."""
    ious, scores = [], []
    for start in range(0, len(videos), videos_per_batch):
        frames = [frame for video in videos[start : start + videos_per_batch] for frame in video]
        ious.append(np.mean([frame_iou(p, g) for p, g in frames]))
        curve = mean_curve(frames)
        scores.append(0.0 if curve is None else curve.max())
    frames = [frame for video in videos for frame in video]
    curve = mean_curve(frames)
    return {
        "M_J": np.mean(ious),
        "M_F (oracle)": np.mean(scores),
        "M_J pooled": np.mean([frame_iou(p, g) for p, g in frames]),
        "M_F pooled (oracle)": math.nan if curve is None else curve.max(),
        "F@0.5 pooled": math.nan if curve is None else curve[127],
        "frames": len(frames),
        "frames_without_object": sum(not g.any() for _, g in frames),
        "videos": len(videos),
        "batches": len(ious),
    }


def areas(predicted, truth, c, ignored):
    p, g = (predicted == c)[truth != ignored], (truth == c)[truth != ignored]
    return (p & g).sum(), p.sum(), g.sum()


def divided(a, b):
    return a / b if b else math.nan


def nan_mean(values):
    known = [v for v in values if not math.isnan(v)]
    return np.mean(known) if known else math.nan


def per_frame(frames, classes, ignored):
    """IoU and F of each class, averaged over the frames where it is predicted or true; NaN without one."""
    ious, scores = [], []
    for c in classes:
        iou = score = count = 0
        for predicted, truth in frames:
            both, p, g = areas(predicted, truth, c, ignored)
            union = p + g - both
            iou += both / (union + 2e-16)
            count += union > 0
            precision, recall = divided(both, p), divided(both, g)
            f = divided(1.3 * precision * recall, 0.3 * precision + recall)
            score += 0 if math.isnan(f) else f
        ious.append(divided(iou, count))
        scores.append(divided(score, count))
    return ious, scores


def pooled(frames, classes, ignored):
    columns = []
    for c in classes:
        both, p, g = np.sum([areas(predicted, truth, c, ignored) for predicted, truth in frames], axis=0)
        right, wrong, missed = both, p - both, g - both

        def f(beta2, right=right, wrong=wrong, missed=missed):
            return divided((1 + beta2) * right, (1 + beta2) * right + beta2 * missed + wrong)

        columns.append((divided(both, right + wrong + missed), f(0.3), f(1.0), divided(wrong, wrong + right)))
    return list(zip(*columns, strict=True))


def semantic(frames, num_classes, ignored=None, without=()):
    """``frames``: (predicted class ids, true class ids) of each frame."""
    classes = [c for c in range(num_classes) if c not in without]
    ious, scores = per_frame(frames, classes, ignored)
    all_ious, f03, f1, fdr = pooled(frames, classes, ignored)

    def zeros(values):
        return np.mean(np.nan_to_num(values))

    return {
        "mIoU per frame": zeros(ious),
        "mF per frame": zeros(scores),
        "mIoU per frame, occurring classes": nan_mean(ious),
        "mF per frame, occurring classes": nan_mean(scores),
        "mIoU pooled": zeros(all_ious),
        "mIoU pooled, occurring classes": nan_mean(all_ious),
        "F0.3 pooled": nan_mean(f03),
        "F1 pooled": nan_mean(f1),
        "FDR pooled": nan_mean(fdr),
        "frames": len(frames),
        "classes": sum(not math.isnan(v) for v in ious),
    }
