"""Writes the maps, boxes and metrics of ``python -m sslosses.evaluate --self-test``.

    python tests/metrics/write_self_test.py

The metrics are those of the slow loops beside this file, not of the library. Writes
sslosses/evaluate/self_test.json.gz.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import reference
import reference_benchmarks
from test_localization import reference as noprior_loop

from sslosses.metrics import protocols

PATH = Path(__file__).resolve().parents[2] / "sslosses" / "evaluate" / "self_test.json.gz"
SIZE, SIDE = 224, 7
#: Maps and sources of each sample.
SINGLE = (*[(1, 1)] * 8, *[(1, 0)] * 4)
MIXTURES = ((2, 2), (2, 2), (3, 2), (2, 2), (1, 2), (0, 2), (2, 1), (1, 0))
#: What maps are multiplied by; ACL's are in [0, 1].
SCALES = {"acl": 1 / 32}
#: Protocols whose metrics count samples without a source.
WITH_NEGATIVES = ("slavc", "slavc-fixed", "avgn-test")


def drawn(boxes, add=False):
    truth = np.zeros((SIZE, SIZE))
    for xmin, ymin, xmax, ymax in ([min(max(int(SIZE * v), 0), SIZE) for v in box] for box in boxes):
        truth[ymin:ymax, xmin:xmax] += 1
    return truth if add else truth.clip(max=1)


def made(single):
    """Samples: maps that are higher in the boxes of a source, more or less, and the boxes of each source.

    The pixels of a map are distinct integers, so that no two are equal by chance and sums are exact.
    """
    generator = np.random.default_rng(1 if single else 2)

    def box():
        corner = generator.integers(-10, 50, 2)
        return [float(v) / 100 for v in (*corner, *(corner + generator.integers(30, 80, 2)))]

    samples = []
    for i, (maps, sources) in enumerate(SINGLE if single else MIXTURES):
        boxes = [[box() for _ in range(generator.integers(1, 3))] for _ in range(sources)]
        values = []
        for m in range(maps):
            seen = generator.random((SIDE, SIDE))
            if m < sources:
                inside = drawn(boxes[(m + i) % sources])[16::32, 16::32]
                seen += generator.uniform(0, 1.5) * inside
            ranks = seen.ravel().argsort().argsort().reshape(SIDE, SIDE)
            values.append((ranks - 24 + generator.integers(-8, 9)).tolist())
        samples.append({"maps": values, "boxes": boxes})
    if not single:
        samples[1]["boxes"][1] = [[0.5, 0.5, 0.5, 0.9]]  # without a pixel
    return samples


def loop_of(name, samples, single):
    if name in ("noprior", "paper"):
        return noprior_loop(samples, "one", SIZE)
    if name == "avgn":
        return reference.avgn(samples, "one", SIZE, single)
    if name == "dsol":
        return reference_benchmarks.dsol(samples, "one", SIZE, single)
    module = reference if hasattr(reference, name.replace("-", "_")) else reference_benchmarks
    return getattr(module, name.replace("-", "_"))(samples, "one", SIZE)


def expected(name, samples, single):
    add = protocols.get(name).add_boxes and not single
    pairs = []
    for sample in samples:
        if sample["boxes"] or name in WITH_NEGATIVES:
            truths = [drawn(boxes, add) for boxes in sample["boxes"]]
            maps = np.array(sample["maps"], dtype=float).reshape(-1, SIDE, SIDE) * SCALES.get(name, 1)
            pairs.append((maps, np.stack(truths) if truths else np.zeros((0, SIZE, SIZE))))
    values = loop_of(name, pairs, single)
    names = protocols.get(name).metrics("single" if single else "mixtures")
    return {metric: float(values[metric]) for metric in (*names, "entries")}


def main(path=PATH):
    content = {"with_negatives": WITH_NEGATIVES, "scales": SCALES, "samples": {}, "expected": {}}
    for task in ("mixtures", "single"):
        samples = content["samples"][task] = made(task == "single")
        for name in protocols.available():
            content["expected"].setdefault(name, {})[task] = expected(name, samples, task == "single")
    text = json.dumps(content, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))  # the same bytes every time
    return content


if __name__ == "__main__":
    main()
