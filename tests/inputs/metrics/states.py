"""Metrics that are stored, merged, cast and collected, and their results."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torchmetrics import Metric, MetricCollection

from inputs.cases import InputClass, Row, called, input_classes
from inputs.metrics.tensors import MAPS, PAPER, TRUTHS, computed, equal_scores, localization, scores
from sslosses.metrics import (
    AUC,
    CAP,
    PIAP,
    CIoU,
    CountingAccuracy,
    Coverage,
    NegativeSounds,
    SilentObjectDiscrimination,
)


class Kind(NamedTuple):
    """How a metric is made and filled."""

    make: Callable[[], Metric]
    fill: Callable[[Metric], object]

    def filled(self) -> Metric:
        metric = self.make()
        self.fill(metric)
        return metric

    def restored(self) -> Metric:
        source, target = self.filled(), self.make()
        source.persistent(True)
        target.persistent(True)
        buffer = io.BytesIO()
        torch.save(source.state_dict(), buffer)
        buffer.seek(0)
        target.load_state_dict(torch.load(buffer, weights_only=True))
        target._update_count = 1
        return target

    def merged(self) -> Metric:
        target = self.make()
        target.merge_state(self.filled())
        target._update_count = 1
        return target

    def refilled(self) -> Metric:
        metric = self.filled()
        metric.reset()
        self.fill(metric)
        return metric


def update_in_parts(metric: Metric) -> None:
    for i in range(5):
        metric.update(MAPS[i : i + 1], TRUTHS[i : i + 1])


KINDS = {
    "SoundLocalization": Kind(localization, update_in_parts),
    "SilentObjectDiscrimination": Kind(
        SilentObjectDiscrimination, lambda metric: metric.update(MAPS[:, 0], TRUTHS[:, 0], TRUTHS[:, 1:])
    ),
    "NegativeSounds": Kind(
        lambda: NegativeSounds(0.5, overlaps=True),
        lambda metric: metric.update(MAPS[:, 0], TRUTHS[:, 0], dict.fromkeys(metric.kinds, MAPS[:, 1])),
    ),
    **{
        kind.__name__: Kind(lambda kind=kind: kind(protocol=PAPER), update_in_parts)
        for kind in (CAP, CIoU, AUC, PIAP, CountingAccuracy, Coverage)
    },
}
#: Every way has to give the metric that it is given, and its values.
CHANGES: tuple[Callable[[Kind], Metric], ...] = (
    lambda kind: pickle.loads(pickle.dumps(kind.filled())),
    lambda kind: copy.deepcopy(kind.filled()),
    lambda kind: kind.filled().clone(),
    Kind.restored,
    Kind.merged,
    Kind.refilled,
    lambda kind: kind.filled().to("cpu"),
    lambda kind: kind.filled().half(),
    lambda kind: kind.filled().float(),
    lambda kind: kind.filled().double(),
    lambda kind: kind.filled().bfloat16(),
    lambda kind: kind.filled().set_dtype(torch.float16),
    lambda kind: kind.filled().set_dtype(torch.float32),
)


def scores_of_threads() -> list[dict[str, float]]:
    results: list[dict[str, float]] = []
    workers = [threading.Thread(target=lambda: results.append(scores())) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results


def deterministic_scores() -> dict[str, float]:
    torch.use_deterministic_algorithms(True)
    try:
        return scores()
    finally:
        torch.use_deterministic_algorithms(False)


def members() -> list[Metric]:
    return [AUC(PAPER), CAP(PAPER), CIoU(0.3, PAPER)]


def scores_of_collection() -> dict[str, float]:
    collection = MetricCollection(members())
    collection.update(MAPS[:1], TRUTHS[:1] & False)  # after it the tables of all metrics are equal
    for _ in range(2):
        collection.update(MAPS, TRUTHS)
    return {name: float(value) for name, value in collection.compute().items()}


def scores_alone() -> dict[str, float]:
    values = {}
    for metric in members():
        for maps, truths in ((MAPS[:1], TRUTHS[:1] & False), (MAPS, TRUTHS), (MAPS, TRUTHS)):
            metric.update(maps, truths)
        values[type(metric).__name__] = computed(metric)["value"]
    return values


def take_other_protocol(how: str) -> None:
    """Merge with a metric of another protocol, or load its state."""
    source, target = localization("lvs"), localization()
    source.persistent(True)
    target.persistent(True)
    source.update(MAPS, TRUTHS)
    if how == "merge":
        target.merge_state(source)
    else:
        target.load_state_dict(source.state_dict())


def result_with_names(names: Any) -> Any:
    metric = localization()
    metric.update(MAPS, TRUTHS, source_classes=[[0, 7]] * 5)
    return metric.result(class_names=names)


def _classes() -> Iterator[InputClass]:
    changed = "pickled, copied, stored, merged, reset, moved, cast"
    for name, kind in KINDS.items():
        row = Row(changed, CHANGES, equal_scores(computed(kind.filled())))
        yield from input_classes(name, lambda change, kind=kind: computed(change(kind)), [row])
    same = equal_scores(scores())
    rows = (
        Row("four threads with a metric each", [scores_of_threads], lambda r: len(r) == 4 and all(map(same, r))),
        Row("deterministic algorithms", [deterministic_scores], same),
    )
    yield from input_classes("SoundLocalization", called, rows)
    row = Row("a first update that all metrics see alike", [scores_of_collection], equal_scores(scores_alone()))
    yield from input_classes("MetricCollection", called, [row])
    row = Row("merged with, loaded from a metric of another protocol", ("merge", "load"), "of other rules")
    yield from input_classes("SoundLocalization", take_other_protocol, [row])
    row = Row("too few class names, one twice", (["a"], ["a"] * 8), "`class_names`")
    yield from input_classes("LocalizationResult", result_with_names, [row])
    empty = localization
    rows = (
        Row(
            "chance levels without a metric",
            [lambda: empty().result(chance={"x": {"AUC": torch.tensor(1.0)}})],
            "`chance`",
        ),
        Row(
            "no sample; JSON, Markdown, LaTeX",
            [lambda: (empty().result().to_json(), empty().result().to_markdown(), empty().result().to_latex())],
        ),
    )
    yield from input_classes("LocalizationResult", called, rows)


CLASSES = list(_classes())
