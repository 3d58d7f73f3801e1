"""Localization metrics of a protocol, as a torchmetrics metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from sslosses.metrics import protocols
from sslosses.metrics._pipeline.ids import Ids, columns_of, names_of
from sslosses.metrics._pipeline.notes import notes_of
from sslosses.metrics._pipeline.rules import RuledMetric
from sslosses.metrics._pipeline.samples import SampleTruths, batches
from sslosses.metrics._pipeline.scorer import Scorer
from sslosses.metrics._pipeline.tables import (
    ENTRY_COLUMNS,
    OF_GROUPS,
    SAMPLE_COLUMNS,
    counts_of,
    in_order,
    joined,
    metrics_of,
    rows_of,
)
from sslosses.metrics._protocol import DETECTION, parse_metric
from sslosses.metrics.layout import FrameLayout
from sslosses.metrics.reporting import result_of
from sslosses.metrics.result import LocalizationResult

#: Kinds of metrics whose column of a table is computed only if one of them is wanted.
_ON_DEMAND = {"AP", "PIAP", *DETECTION}
_PIXELS = 2**19  # scored at once: about 10 maps of 224², which fit into a processor's cache
_BOXES = 2**8  # scored at once, times maps, where no canvas is kept


class LocalizationTables(RuledMetric):
    """Accumulates one row per entry and one row per sample; subclasses compute their metrics from these tables.

    Memory grows by 56 bytes per entry and 72 bytes per sample, by the ids of videos, and with several thresholds by 8
    per entry and further threshold. A fixed number of pixels is scored at once.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    entry_rows: list[Tensor]
    sample_rows: list[Tensor]
    video_names: list[Tensor]  # the ids of videos, as bytes: with several processes, each knows those of all

    def __init__(
        self,
        protocol: str | protocols.Protocol = "paper",
        *,
        task: str = "mixtures",
        layout: str = "one",
        metrics: tuple[str, ...] | None = None,
        scorer: type[Scorer] = Scorer,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._layout = FrameLayout(layout)
        self.protocol = protocols.get(protocol)
        self.metrics = self.protocol.metrics(task) if metrics is None else metrics
        self.task = task
        self.layout = layout
        for metric in self.metrics:
            self.protocol.check_metric(metric)
        kinds = {parse_metric(metric)[0] for metric in self.metrics}
        self.scorer = scorer(self.protocol, task, self._layout, kinds)
        self._entry_columns = ENTRY_COLUMNS + len(self.scorer.thresholds) - 1
        columns = (ENTRY_COLUMNS, SAMPLE_COLUMNS)
        # A metric that needs groups shares no rows with one that takes samples without them.
        needed = (*sorted(kinds & _ON_DEMAND), bool(kinds.intersection(OF_GROUPS)))
        description = f"of protocol {self.protocol.name!r}, task {task!r} and layout {layout!r}"
        self._fix_rules(description, self.protocol, task, layout, needed, scorer.__qualname__, columns)
        self.add_state("entry_rows", [], dist_reduce_fx="cat")
        self.add_state("sample_rows", [], dist_reduce_fx="cat")
        self.add_state("video_names", [], dist_reduce_fx="cat")

    def update(
        self,
        maps: Tensor | Sequence[Tensor],
        truths: Tensor | Sequence[SampleTruths],
        valid: Tensor | None = None,
        *,
        map_classes: Tensor | Sequence[Any] | None = None,
        source_classes: Tensor | Sequence[Any] | None = None,
        confidences: Tensor | Sequence[Any] | None = None,
        priors: Tensor | Sequence[Tensor] | None = None,
        videos: Ids | None = None,
        groups: Ids | None = None,
    ) -> None:
        """Adds samples. After an error nothing is added.

        Args:
            maps: raw heatmaps, higher is more likely, in the model's order: one tensor (B, M, h, w), or B tensors (M_i,
                h, w) with any M_i ≥ 0 and any resolution. Floating; half precision is computed in float32.
            truths: ground truth of each sample: a tensor (S_i, T, T) of masks, boolean or in [0, 1]; or a sequence with
                the boxes of each of its S_i sources, rows (xmin, ymin, xmax, ymax) as fractions of the frame; 0 ≤ S_i ≤
                53. One tensor (B, S, T, T) holds all samples. Sources without a positive pixel are counted in
                ``empty_truths``. A sample without a source, ``[]`` or a tensor (0, T, T), has no entry. Its maps have
                one frame, and only metrics of detection count it: as a false alarm with the largest confidence of its
                maps.
            valid: with ``maps`` as one tensor: True for maps that exist, False for padding, (B, M), bool; None: all
                exist.
            map_classes: class ids ≥ 0 of the maps, (B, M) or B rows of M_i, −1 where unknown; used by
                ``assignment="optimal"``.
            source_classes: class ids of the sources, (B, S) or B rows of S_i, −1 where unknown; used by
                ``assignment="optimal"`` and for metrics by class.
            confidences: confidence that the sound of each map is present, (B, M) or B rows of M_i; None: computed by
                the protocol. Where the maps of a frame are summed, the largest counts.
            priors: one map of objects per sample, (B, p, q), for protocols with a ``prior_weight``.
            videos: id of each sample's video, a string or an integer, for :meth:`SoundLocalization.result`; None: each
                group is its own video, and each sample without one.
            groups: id of each sample's group, a string or an integer, for the metrics IIoU@t and IAUC.

        Raises:
            TypeError: if dtypes are wrong, or an id is neither a string nor an integer.
            ValueError: if shapes or devices do not fit, maps have their channels last, maps hold NaN, infinite values
                or values whose sums may be infinite, the ground truth is outside [0, 1], boxes are in pixels, class ids
                are not integers, the protocol takes no prior, or a metric needs ``groups``.
        """
        wanting = [name for name in self.metrics if parse_metric(name)[0] in OF_GROUPS]
        if wanting and groups is None:
            raise ValueError(
                f"Expected `groups` to hold one id per sample, as {', '.join(wanting)} is over groups, but got None"
            )
        if priors is not None and self.protocol.prior_weight is None:
            raise ValueError(f"Expected `priors` to be None, as protocol {self.protocol.name!r} takes no object prior")
        extras = {
            "map_classes": map_classes,
            "source_classes": source_classes,
            "confidences": confidences,
            "priors": priors,
            "videos": videos,
            "groups": groups,
        }
        same_shapes = batches(
            maps,
            truths,
            valid,
            extras,
            size=self.protocol.size,
            layout=self._layout,
            most_sources=1 if self.task == "single" else None,
        )
        ids, names = columns_of(len(maps), videos, groups)
        parts = []
        for batch in same_shapes:
            sources = batch.truths.shape[1]
            frames = max(1, batch.maps.shape[1]) * math.prod(self._layout.grid(sources))
            length = max(1, _PIXELS // (self.protocol.size**2 * max(frames, sources)))
            if self.scorer.only_counts(batch):
                length = max(length, _BOXES // max(1, batch.truths.shape[1:3].numel() * frames))
            parts += [rows_of(self.scorer.score(chunk), chunk, self.protocol) for chunk in batch.chunks(length)]
        if parts:
            entries, samples = in_order(parts, ids)
            self.entry_rows = joined([*self.entry_rows, entries.to(self.device)])
            self.sample_rows = joined([*self.sample_rows, samples.to(self.device)])
            self.video_names = joined([*self.video_names, names.to(self.device)])

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the tables of all processes; a process without samples contributes empty tables."""
        for name, nothing in self._nothing().items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [nothing])
        super().sync(*args, **kwargs)

    def reset(self) -> None:
        """Removes all samples. The lists of rows are replaced: wrappers such as ``Running`` keep the earlier ones."""
        self.entry_rows, self.sample_rows, self.video_names = [], [], []
        super().reset()

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        # ``forward`` and ``merge_state`` add the tables of other updates here.
        super()._reduce_states(incoming_state)
        for name in self._nothing():
            setattr(self, name, joined(getattr(self, name)))

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:  # noqa: ARG002
        """Keeps the tables in float64: other dtypes would round their counts and class ids."""
        return self

    def tables(self) -> tuple[Tensor, Tensor]:
        """Returns the entries (n, 7) and samples (m, 9) so far, float64; a column more per further threshold."""
        return self._whole("entry_rows"), self._whole("sample_rows")

    def _whole(self, name: str) -> Tensor:
        """A state as one tensor."""
        state: list[Tensor] | Tensor = getattr(self, name)
        if isinstance(state, Tensor):  # gathered from several processes
            return state
        return torch.cat(state) if state else self._nothing()[name]

    def _nothing(self) -> dict[str, Tensor]:
        """The states without samples."""
        return {
            "entry_rows": torch.zeros(0, self._entry_columns, dtype=torch.float64, device=self.device),
            "sample_rows": torch.zeros(0, SAMPLE_COLUMNS, dtype=torch.float64, device=self.device),
            "video_names": torch.zeros(0, dtype=torch.uint8, device=self.device),
        }

    def __repr__(self) -> str:
        names = ", ".join(self.metrics)
        options = f"protocol={self.protocol.name!r}, task={self.task!r}, layout={self.layout!r}"
        return f"{type(self).__name__}({names}; {options})"

    def gathered_names(self) -> dict[int, str]:
        """Returns the ids of the videos of all processes by their digest."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return names_of(self._whole("video_names"))

    def gathered_tables(self) -> tuple[Tensor, Tensor]:
        """Returns the entries and samples of all processes, as :meth:`tables`."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self.tables()

    def _warn(self, samples: Tensor) -> None:
        """Warns of samples that the metrics leave out, and of maps and ground truth that look wrong."""
        for note in notes_of(self.metrics, samples, self.protocol):
            rank_zero_warn(note, UserWarning)


class SoundLocalization(LocalizationTables):
    r"""Computes the localization metrics of a protocol over samples with any number of sources and maps.

    The protocol defines how maps are resized to T×T, normalized, binarized and assigned to sources. An entry is a
    source (or frame) with the cIoU and the pixel average precision of its map. The metrics are means and success rates
    over entries, see :class:`~sslosses.metrics.protocols.Protocol`.

    The metric keeps one row of numbers per entry and per sample, 128 bytes together, and ids of videos. It scores a
    fixed number of pixels at once. DDP synchronizes by gathering the rows.

    Lightning's ``log`` and the best epoch of torchmetrics' ``MetricTracker`` need one number per metric. Pass them a
    ``MetricCollection`` of :class:`~sslosses.metrics.LocalizationMetric`, such as ``CAP()``.

    Args:
        protocol: name of a protocol (``protocols.available()`` lists them) or a
            :class:`~sslosses.metrics.protocols.Protocol`.
        task: ``"mixtures"`` or ``"single"``: which of the protocol's metrics to report. ``"single"`` refuses samples of
            several sources.
        layout: where the frames are in the maps. ``"one"``: all sources are in one frame, maps (h, w). ``"stacked"``:
            source j is alone on frame j, frames stacked along the height, maps (S·h, w), as in NoPrior's mixtures.
            ``"side-by-side"``: the same along the width, maps (h, S·w), as in T-VSL's mixtures.
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an option is not one of these; the message lists them.

    Example:
        >>> import torch
        >>> from sslosses.metrics import SoundLocalization, protocols
        >>> truth = torch.zeros(2, 4, 4)
        >>> truth[0, :2] = 1  # source 0 is the upper half of the frame, source 1 the lower
        >>> truth[1, 2:] = 1
        >>> maps = truth + 0.1 * torch.arange(16.0).reshape(4, 4) / 16
        >>> metric = SoundLocalization(protocols.paper.replace(size=4))
        >>> metric.update([maps, maps[:1]], [truth, truth])  # the second sample has one map for two sources
        >>> for name, value in metric.compute().items():
        ...     print(f"{name}: {value:.3g}")
        CAP: 0.703
        CIoU@0.3: 0.75
        AUC: 0.663
        entries: 4
        samples: 2
        samples_without_map: 0
        empty_truths: 0
        samples_without_source: 0
    """

    def __init__(
        self,
        protocol: str | protocols.Protocol = "paper",
        *,
        task: str = "mixtures",
        layout: str = "one",
        **kwargs: Any,
    ) -> None:
        super().__init__(protocol, task=task, layout=layout, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """Computes the metrics of all samples so far.

        Returns:
            0-d tensors: first the protocol's metrics as fractions in [0, 1] (float64, NaN without an entry), then the
            counts ``entries``, ``samples``, ``samples_without_map``, ``empty_truths`` and ``samples_without_source``
            (int64).

        Warns:
            UserWarning: if the metrics leave out samples without a map or a source, or sources without a pixel, if most
                samples have more maps than sources, or if many maps are constant or many sources have no pixel.
        """
        entries, samples = self.tables()
        self._warn(samples)
        metrics = metrics_of(self.metrics, entries, samples, self.protocol.average_positions)
        return metrics | counts_of(entries, samples)

    def result(
        self,
        *,
        chance: Mapping[str, Mapping[str, Tensor]] | None = None,
        class_names: Sequence[str] | None = None,
        resamples: int | None = None,
        level: float = 0.95,
        seed: int = 0,
        over_classes: bool = False,
    ) -> LocalizationResult:
        """Computes the metrics with breakdowns and intervals, as an object to print and export.

        Args:
            chance: result of :func:`~sslosses.metrics.chance_levels` for the same ground truth.
            class_names: names of the class ids; None: their numbers.
            resamples: number of bootstrap resamples for the intervals; 0: no intervals; None: 1,000 if samples have
                ids of ``videos`` or ``groups``, else 0.
            level: share of the resamples that an interval holds, in (0, 1).
            seed: seed of the resamples.
            over_classes: whether to compute intervals over classes, too. They ask how the metrics would be for other
                classes, and leave out entries without a class.

        Returns:
            See :class:`~sslosses.metrics.LocalizationResult`.

        Raises:
            TypeError: if an option has the wrong type.
            ValueError: if a metric lacks a chance level, a class id lacks a name, two class ids have the same name, an
                option is out of range, or a group has samples of several videos.

        Warns:
            UserWarning: as :meth:`compute`. The result holds these texts as ``notes``.
        """
        tables = self.gathered_tables()
        result = result_of(
            self.metrics,
            tables,
            self.protocol,
            self.task,
            chance=chance,
            class_names=class_names,
            video_names=self.gathered_names(),
            resamples=resamples,
            level=level,
            seed=seed,
            over_classes=over_classes,
        )
        self._warn(tables[1])
        return result

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots the metrics, without the counts, with matplotlib.

        Args:
            val: a result of ``compute`` or ``forward``, or a list of results over time; None: the current result.
            ax: matplotlib axes to draw on; None: new axes.

        Returns:
            Figure and axes.

        Raises:
            ModuleNotFoundError: if matplotlib is not installed.
        """
        results = self.compute() if val is None else val
        if isinstance(results, dict):
            return self._plot({name: results[name] for name in self.metrics}, ax)
        return self._plot([{name: result[name] for name in self.metrics} for result in results], ax)


class QuietLocalization(SoundLocalization):
    """Does not warn: for chance levels, and for callers that show the result's notes themselves."""

    def _warn(self, samples: Tensor) -> None:
        pass
