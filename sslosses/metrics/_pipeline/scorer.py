"""Scorer: computes the scores of every source from a batch of maps, by the rules of a protocol."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._optional import can_import
from sslosses.metrics._pipeline.marks import MedianMarks
from sslosses.metrics._pipeline.samples import Samples
from sslosses.metrics._pipeline.targets import Targets, targets_of
from sslosses.metrics._protocol import DETECTION, Protocol
from sslosses.metrics.functional._inputs import extremes
from sslosses.metrics.functional._order import mean_of_largest
from sslosses.metrics.functional.assignment import _greedy_assignment, _optimal_assignment
from sslosses.metrics.functional.average_precision import _average_precision, _binary_average_precision_of_counts
from sslosses.metrics.functional.binarize import (
    _binarize_area,
    _fixed_range_normalize,
    _level_above_truth_area,
    _level_above_upper_median,
    _min_max_normalize,
    _upper_median,
)
from sslosses.metrics.functional.resize import _resize_bicubic, _resize_bilinear
from sslosses.metrics.layout import FrameLayout

SMOOTHING = 1e-4
_WORTH_COMPILING = 2**18  # with fewer pixels, loading the compiled kernel takes longer than it saves
_BY_VALUE = ("from value", "from value, strict", "share of maximum")


class SourceScores(NamedTuple):
    """Scores of a batch; S is 1 where all sources of a frame are one entry. float64 unless stated otherwise."""

    ciou: Tensor  # (B, S), 0 without a map
    precision: Tensor  # (B, S), pixel AP, 0 without a map
    iou: Tensor  # (B, S), with smoothing, 0 without a map
    confidence: Tensor  # (B, S), 0 without a map
    area: Tensor  # (B, S), share of the frame that the target covers
    empty: Tensor  # (B, S'), bool, True for targets without a pixel, of all sources S'
    summed_precision: Tensor  # (B,), pixel AP of the summed map, 0 without a map
    false_alarm: Tensor  # (B,), confidence of a sample without a source, 0 without a map and for other samples
    further: Tensor | None = None  # (B, S, K), cIoU at each further threshold; None with one threshold


class Canvases(NamedTuple):
    """Maps on the evaluation frames: F canvases per map, one for all sources or one per source."""

    scores: Tensor  # (B, M, F, H, W), in the order of the pixels; normalized where the protocol needs the values
    binary: Tensor | MedianMarks  # (B, M, F, H, W), of 0 and 1, dtype of the scores; marks if only counts matter
    confidence: Tensor  # (B, M, F)


class Assignment(NamedTuple):
    """The map of each source."""

    owner: Tensor  # (B, S), int64, −1 without a map
    sums: dict[str, Tensor]  # (B, S) each, the pair's sums over pixels, see `MaskTargets.sums`

    @property
    def has_map(self) -> Tensor:
        """(B, S), bool."""
        return self.owner >= 0

    @property
    def picked(self) -> Tensor:
        """(B, S), index of the map, 0 where a source has none."""
        return self.owner.clamp(min=0)


class Scorer:
    """The steps from maps to scores. A subclass may override :meth:`binary`.

    Args:
        protocol: the rules.
        task: ``"mixtures"`` or ``"single"``.
        layout: layout of the maps.
        kinds: the kinds of metrics to compute, see :func:`~sslosses.metrics.protocols.parse_metric`.
    """

    def __init__(self, protocol: Protocol, task: str, layout: FrameLayout, kinds: set[str]) -> None:
        self.protocol, self.layout, self.kinds = protocol, layout, kinds
        self.add_boxes = protocol.add_boxes and task == "mixtures"
        self.thresholds = protocol.thresholds(task)

    def score(self, samples: Samples) -> SourceScores:
        """Scores a batch: targets → canvases → assignment → scores."""
        if samples.truths.shape[1] == 0:
            return self._without_source(samples)
        rules = self.protocol
        targets = targets_of(samples, rules.size, self.add_boxes)
        empty = targets.total == 0
        one_source = rules.one_entry_per_frame or rules.union_sources
        if one_source and self.layout.axis is None and targets.sources > 1:
            targets = targets.union()
        area = targets.total.double() / rules.size**2
        none = torch.zeros_like(area[:, 0])
        if samples.maps.shape[1] == 0:
            zero = torch.zeros_like(area)
            no_map = SourceScores(zero, zero, zero, zero, area, empty, none, none, self._no_further(zero))
            return self._entries(no_map)
        if rules.one_entry_per_frame:
            samples = samples.merged()
        if self.layout.axis is not None and rules.canvas == "whole map":
            targets = targets.spread(self.layout.axis)
        canvases = self.canvases(samples, targets)
        assignment = self._assign(samples, canvases, targets)
        return self._entries(
            SourceScores(
                _ciou(assignment.sums),
                self._precision(canvases, targets, assignment),
                _smoothed_iou(assignment),
                _confidence(samples, canvases, assignment),
                area,
                empty,
                self._summed_precision(samples, canvases, targets),
                none,
                self._further(samples, canvases, targets),
            )
        )

    def _entries(self, scores: SourceScores) -> SourceScores:
        """The scores of the entries, from those of the sources."""
        if not self.protocol.average_sources:
            return scores
        names = ("ciou", "precision", "iou", "confidence", "area", "further")
        parts = {name: value for name in names if (value := getattr(scores, name)) is not None}
        return scores._replace(**{name: value.mean(1, keepdim=True) for name, value in parts.items()})

    def _without_source(self, samples: Samples) -> SourceScores:
        """No entry, and the largest confidence of the maps: whoever localizes a sound here raises a false alarm."""
        confidence = torch.zeros(len(samples.maps), dtype=torch.float64, device=samples.maps.device)
        if samples.maps.shape[1] and self.kinds & DETECTION:
            if self.protocol.one_entry_per_frame:
                samples = samples.merged()
            of_maps = samples.confidences
            if of_maps is None:
                of_maps = self._normalized(samples.maps, 1, samples.priors)[1][..., 0].double()
            largest = of_maps.where(samples.valid, -torch.inf).amax(1)
            confidence = largest.where(samples.valid.any(1), 0)
        none = confidence.new_zeros(len(confidence), 0)
        summed = torch.zeros_like(confidence)
        return SourceScores(none, none, none, none, none, none.bool(), summed, confidence, self._no_further(none))

    def _no_further(self, zero: Tensor) -> Tensor | None:
        """Zeros for the cIoU of each source (B, S) at each threshold but the first; None with one threshold."""
        count = len(self.thresholds) - 1
        return zero[..., None].expand(-1, -1, count) if count else None

    def _further(self, samples: Samples, canvases: Canvases, targets: Targets) -> Tensor | None:
        """The cIoU of each source at each threshold but the first, (B, S, K)."""
        if len(self.thresholds) == 1:
            return None
        columns = []
        for threshold in self.thresholds[1:]:
            again = canvases._replace(binary=self.binary(canvases.scores, threshold, targets))
            columns.append(_ciou(self._assign(samples, again, targets).sums))
        return torch.stack(columns, -1)

    def only_counts(self, samples: Samples) -> bool:
        """Whether all metrics follow from counts of marked pixels, which a compiled kernel takes without canvases."""
        rules, maps = self.protocol, samples.maps
        of_rules = (
            "upper median" in rules.binarization
            and rules.tau is None
            and not rules.inverts_maps
            and not (rules.average_precision == "continuous" and "AP" in self.kinds)
            and self.layout.axis is None
            and not self.add_boxes
            and type(self).binary is Scorer.binary
        )
        of_samples = (
            samples.boxed
            and samples.priors is None
            and maps.device.type == "cpu"
            and maps.dtype == torch.float32
            and max(maps.shape[-2:]) < rules.size
            and maps.shape[:2].numel() * rules.size**2 >= _WORTH_COMPILING
        )
        return of_rules and of_samples and can_import("numba")

    def canvases(self, samples: Samples, targets: Targets) -> Canvases:
        """Resizes the maps as a whole, splits them into canvases, normalizes and binarizes these."""
        if self.only_counts(samples):
            confidence = torch.zeros(*samples.maps.shape[:2], 1)
            return Canvases(samples.maps, MedianMarks(samples.maps, self.protocol), confidence)
        scores, confidence = self._normalized(samples.maps, targets.sources, samples.priors)
        return Canvases(scores, self.binary(scores, self.thresholds[0], targets), confidence)

    def _normalized(self, maps: Tensor, sources: int, priors: Tensor | None) -> tuple[Tensor, Tensor]:
        """The canvases (B, M, F, H, W) and their confidence (B, M, F)."""
        rules = self.protocol
        split = self._split(self._resize(maps, sources, rules.upsampling), sources)
        confidence = torch.zeros(split.shape[:3], device=split.device)
        prior = None
        if rules.prior_weight is not None and priors is not None:
            prior = self._resize(priors[:, None], sources, rules.prior_upsampling or rules.upsampling)
            prior = self._split(prior, sources)
        if rules.tau is not None:
            split = _fixed_range_normalize(split, rules.tau)
            if prior is not None and rules.prior_range is not None:
                split, prior = self._mixed(split, prior / rules.prior_range), None
            extremes("maps", split)  # a large τ can make finite maps infinite
            if self.kinds & DETECTION:
                confidence = mean_of_largest(split.flatten(-2), -(-split.shape[-2:].numel() // 4))
        if prior is not None and rules.normalization == "none":
            split, prior = self._mixed(split, prior), None
        of_range = rules.normalization in ("none", "fixed range")
        # Otherwise only the order of the pixels matters.
        needs_values = rules.inverts_maps or rules.binarization in _BY_VALUE or prior is not None
        scores = _min_max_normalize(split) if needs_values and not of_range else split
        if prior is not None:
            scores = _min_max_normalize(self._mixed(scores, _min_max_normalize(prior)))
        if rules.inverts_maps:
            scores = scores.neg_().add_(1)
        return scores, confidence

    def _mixed(self, maps: Tensor, prior: Tensor) -> Tensor:
        weight = self.protocol.prior_weight or 0.0
        return maps * weight + prior * (1 - weight)

    def _resize(self, maps: Tensor, sources: int, upsampling: str) -> Tensor:
        down, across = self.layout.grid(sources)
        size = (down * self.protocol.size, across * self.protocol.size)
        resize = _resize_bicubic if upsampling.startswith("bicubic") else _resize_bilinear
        return resize(maps, size, align_corners=upsampling.endswith("aligned corners"))

    def _split(self, resized: Tensor, sources: int) -> Tensor:
        if self.protocol.canvas == "whole map":
            return resized.unsqueeze(2)
        return self.layout.split(resized, sources)

    def binary(self, scores: Tensor, threshold: float | None, targets: Targets) -> Tensor:
        """Marks pixels of the canvases with 1, the others with 0."""
        rules = self.protocol
        if rules.binarization == "area fraction":
            return _binarize_area(scores, threshold or 1.0).to(scores.dtype)
        # The comparison writes 0 and 1 as numbers: a boolean map would have to be converted for every sum.
        marked = torch.empty_like(scores)
        compare = torch.ge if rules.binarization in ("from upper median", "from value") else torch.gt
        return compare(scores, self._level(scores, threshold, targets), out=marked)

    def _level(self, scores: Tensor, threshold: float | None, targets: Targets) -> Tensor | float:
        kind = self.protocol.binarization
        if kind in ("from value", "from value, strict"):
            return threshold or 0.0
        if kind == "share of maximum":
            return scores.amax((-2, -1), keepdim=True) * (threshold or 0.0)
        if kind == "truth's area":
            level = _level_above_truth_area(scores, targets.positive[:, None].expand(scores.shape[:3]))
        elif kind == "above upper median":
            level = _level_above_upper_median(scores)
        else:
            level = _upper_median(scores)
        return level[..., None, None]

    def _assign(self, samples: Samples, canvases: Canvases, targets: Targets) -> Assignment:
        if self.protocol.assignment in ("position", "one per frame"):
            owner, sums = self._assign_by_position(samples, canvases, targets)
        else:
            owner, sums = self._assign_by_overlap(samples, canvases, targets)
        return Assignment(owner, {name: torch.where(owner >= 0, value, 0) for name, value in sums.items()})

    def _assign_by_position(
        self, samples: Samples, canvases: Canvases, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Map j for source j, or the only map for every source."""
        valid = samples.valid
        slot = torch.arange(targets.sources, device=valid.device)
        if self.protocol.one_entry_per_frame:
            slot = torch.zeros_like(slot)
        picked = slot.clamp(max=valid.shape[1] - 1).expand(len(valid), -1)
        owner = torch.where((slot < valid.shape[1]) & valid.gather(1, picked), picked, -1)
        if isinstance(canvases.binary, MedianMarks):
            pairs = targets.sums(canvases.binary)
            return owner, {name: value.gather(1, picked[:, None])[:, 0] for name, value in pairs.items()}
        pairs = targets.sums(_pick(canvases.binary, picked)[:, None])
        return owner, {name: value[:, 0] for name, value in pairs.items()}

    def _assign_by_overlap(
        self, samples: Samples, canvases: Canvases, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = targets.sums(canvases.binary)
        overlap = _ciou(pairs)
        if self.protocol.assignment == "greedy":
            greedy = _greedy_assignment(overlap, samples.valid)
            source = torch.arange(targets.sources, device=overlap.device)
            first = (greedy.source[..., None] == source) & greedy.fresh[..., None]
            owner = torch.where(first.any(1), first.long().argmax(1), -1)
        else:
            map_class, source_class = samples.map_classes[:, :, None], samples.source_classes[:, None]
            known = (map_class >= 0) & (source_class >= 0)
            same = known & (map_class == source_class)
            # A pair of one class outweighs any overlap.
            value = overlap + same * (1 + min(overlap.shape[1:]))
            owner = _optimal_assignment(value, samples.valid[:, :, None] & (~known | same))
        picked = owner.clamp(min=0)[:, None]
        return owner, {name: value.gather(1, picked)[:, 0] for name, value in pairs.items()}

    def _precision(self, canvases: Canvases, targets: Targets, assignment: Assignment) -> Tensor:
        """Pixel AP of each source's map, (B, S)."""
        sums, kind = assignment.sums, self.protocol.average_precision
        if "AP" not in self.kinds:
            return torch.zeros_like(sums["inter"])
        pixels = canvases.binary.shape[-2:].numel()
        if kind == "binary":
            precision = _binary_average_precision_of_counts(sums["hits"], sums["binary"], sums["positive"], pixels)
        elif kind == "continuous":
            precision = _average_precision(_pick(canvases.scores, assignment.picked), targets.maps > 0).double()
        elif targets.is_binary:
            precision = _binary_average_precision_of_counts(sums["hits"], sums["truth"], sums["binary"], pixels)
        else:
            assert isinstance(canvases.binary, Tensor)  # marks are of boxes, which are binary
            precision = _average_precision(targets.maps, _pick(canvases.binary, assignment.picked) > 0).double()
        return torch.where(assignment.has_map, precision, 0)

    def _summed_precision(self, samples: Samples, canvases: Canvases, targets: Targets) -> Tensor:
        """Pixel AP of the summed map, binarized per canvas, against all sources together, (B,)."""
        if "PIAP" not in self.kinds:
            return torch.zeros(len(samples.maps), dtype=torch.float64, device=samples.maps.device)
        sources = targets.sources
        if samples.maps.shape[1] > 1:
            canvases = self.canvases(samples._replace(maps=samples.maps.sum(1, keepdim=True)), targets)
        frames = canvases.binary.shape[2]
        sums = (targets.union() if frames == 1 and sources > 1 else targets).sums(canvases.binary)
        hits, predicted, positives = (sums[name].sum((1, 2)) for name in ("hits", "binary", "positive"))
        pixels = canvases.binary.shape[2:].numel()
        precision = _binary_average_precision_of_counts(hits, predicted, positives, pixels)
        return torch.where(samples.valid.any(1), precision, 0)


def _pick(canvases: Tensor, picked: Tensor) -> Tensor:
    """The canvas of each source's map: (B, M, F, …) and (B, S) → (B, S, …)."""
    if canvases.shape[1] == 1:  # nothing to copy
        return canvases[:, 0].expand(-1, picked.shape[1], *canvases.shape[3:])
    rows = torch.arange(len(picked), device=picked.device)[:, None]
    frame = torch.arange(picked.shape[1], device=picked.device) if canvases.shape[2] > 1 else 0
    return canvases[rows, picked, frame]


def _ciou(sums: dict[str, Tensor]) -> Tensor:
    """cIoU from sums over pixels; 0 where both map and target are empty."""
    denominator = sums["truth"] + sums["binary"] - sums["hits"]
    return torch.where(denominator > 0, sums["inter"] / denominator.clamp(min=1e-300), 0)


def _smoothed_iou(assignment: Assignment) -> Tensor:
    sums = assignment.sums
    union = sums["binary"] + sums["truth"] - sums["inter"]
    return torch.where(assignment.has_map, (sums["inter"] + SMOOTHING) / (union + SMOOTHING), 0)


def _confidence(samples: Samples, canvases: Canvases, assignment: Assignment) -> Tensor:
    if samples.confidences is not None:
        confidence = samples.confidences.gather(1, assignment.picked)
    else:
        confidence = _pick(canvases.confidence, assignment.picked).double()
    return torch.where(assignment.has_map, confidence, 0)
