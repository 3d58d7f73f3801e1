"""The metrics with and without the clips that a training list holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sslosses.evaluate.benchmark import Benchmark
from sslosses.evaluate.leaks import Leak
from sslosses.evaluate.output import markdown
from sslosses.evaluate.progress import progress
from sslosses.evaluate.saved_maps import SavedMaps
from sslosses.evaluate.scoring import BenchmarkScores, score, steps
from sslosses.metrics import LocalizationResult, Protocol
from sslosses.metrics.comparison import signed
from sslosses.metrics.result import percent


def compare_unseen(
    leak: Leak,
    benchmark: Benchmark,
    scores: BenchmarkScores,
    *,
    saved: SavedMaps,
    protocols: Sequence[Protocol],
    missing: Collection[str],
    chance: bool,
    seed: int,
    resamples: int,
) -> Comparison:
    """Scores the clips again that were not seen in training, if some were; see :func:`score` for the arguments."""
    unseen = tuple(record for record in benchmark.records if record.clip not in leak.seen)
    if len(unseen) in (0, len(benchmark.records)):
        return Comparison(leak, scores.results, [])
    part = replace(benchmark, records=unseen, list_name=None)
    with progress(steps(part, protocols, chance)) as tick:
        rest = score(
            saved,
            part,
            protocols,
            missing={record.clip for record in unseen}.intersection(missing),
            chance=chance,
            seed=seed,
            tick=tick,
            resamples=resamples,
        )
    return Comparison(leak, scores.results, rest.results)


class Comparison(NamedTuple):
    """Results with and without the clips that were seen in training."""

    leak: Leak
    every: list[LocalizationResult]
    unseen: list[LocalizationResult]  #: empty if no clip was seen, or every one

    def __str__(self) -> str:
        """A Markdown table of all metrics with and without these clips, in percent; empty if there is no difference."""
        if not self.unseen:
            return ""
        rest = self.leak.scored - len(self.leak.seen)
        head = ["metric, %", f"all {self.leak.scored:,} clips", f"{rest:,} not seen in training", "difference"]
        rows = [head]
        for before, after in zip(self.every, self.unseen, strict=True):
            for name, value in before.metrics.items():
                other = after.metrics[name]
                cells = [percent(value), percent(other), signed(other - value)]
                rows.append([f"{before.label}, {name}", *cells])
        return markdown(rows)

    def to_dict(self) -> dict[str, Any]:
        """Returns the leak, and metrics, counts and chance levels without the clips by protocol."""
        names = ("metrics", "counts", "chance")
        parts = {result.protocol: result.to_dict() for result in self.unseen}
        unseen = {protocol: {name: content[name] for name in names} for protocol, content in parts.items()}
        return {**self.leak.to_dict(), "without_these_clips": unseen}
