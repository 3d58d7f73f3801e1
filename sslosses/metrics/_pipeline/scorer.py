"""One table of every source's scores out of a batch of maps, by the rules of a protocol."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslosses.metrics._pipeline.samples import Samples
from sslosses.metrics._pipeline.targets import Boxes, Masks
from sslosses.metrics.functional import (
    average_precision,
    fixed_range_normalize,
    greedy_assignment,
    min_max_normalize,
    optimal_assignment,
    resize_bicubic,
    resize_bilinear,
    swapped_average_precision,
)
from sslosses.metrics.functional._order import mean_of_largest
from sslosses.metrics.functional.average_precision import binary_average_precision_of_counts
from sslosses.metrics.functional.binarize import binarize_area, level_above_upper_median, upper_median_of
from sslosses.metrics.protocols import Protocol

SMOOTHING = 1e-4


class Scores(NamedTuple):
    """Scores of a batch; S is 1 where a frame with all its sources is one entry. float64 unless said otherwise."""

    ciou: Tensor  # (B, S), 0 without a map
    precision: Tensor  # (B, S), pixel AP, 0 without a map
    iou: Tensor  # (B, S), with smoothing, 0 without a map
    confidence: Tensor  # (B, S), 0 without a map
    area: Tensor  # (B, S), share of the frame that the truth covers
    empty: Tensor  # (B, S'), bool, truths without a pixel, of all sources S'
    summed_precision: Tensor  # (B,), PIAP's; 0 without a map


class Canvases(NamedTuple):
    """Maps on the evaluation frames: F canvases a map, one for all sources or one for each."""

    scores: Tensor  # (B, M, F, H, W), in the order of the pixels; normalized where the protocol needs the values
    binary: Tensor  # (B, M, F, H, W), of 0 and 1, dtype of the scores
    confidence: Tensor  # (B, M, F)


class Scorer:
    """The steps from maps to scores; a subclass may replace what a map becomes."""

    def __init__(self, protocol: Protocol, task: str, layout: str, kinds: set[str]) -> None:
        """Keep the rules; ``kinds`` are those of the metrics wanted, see ``parse_metric``."""
        self.protocol, self.layout, self.kinds = protocol, layout, kinds
        self.add_boxes = protocol.add_boxes and task == "mixtures"

    def score(self, samples: Samples) -> Scores:
        """Scores of a batch."""
        targets = samples.targets(self.protocol.size, self.add_boxes)
        empty = targets.total == 0
        maps, valid = samples.maps, samples.valid
        if self.protocol.assignment == "one per frame":
            maps, valid = maps.sum(1, keepdim=True), valid.any(1, keepdim=True)
            if self.layout == "one" and targets.sources > 1:
                targets = targets.union()
        area = targets.total.double() / self.protocol.size**2
        if samples.maps.shape[1] == 0:
            none = torch.zeros_like(area)
            return Scores(none, none, none, none, area, empty, none[:, 0])
        if self.layout != "one" and self.protocol.canvas == "whole map":
            targets = targets.spread(-2 if self.layout == "stacked" else -1)
        canvases = self.canvases(maps, targets.sources, samples.priors)
        owner, sums = self._assign(samples, canvases, targets, valid)
        picked = owner.clamp(min=0)
        has = owner >= 0
        sums = {name: torch.where(has, value, 0) for name, value in sums.items()}
        ciou = _ciou(sums)
        union = sums["binary"] + sums["truth"] - sums["inter"]
        iou = torch.where(has, (sums["inter"] + SMOOTHING) / (union + SMOOTHING), 0)
        precision = torch.zeros_like(ciou)
        if "AP" in self.kinds:
            precision = torch.where(has, self._precision(canvases, picked, targets, sums), 0)
        given = samples.confidences
        if given is not None and self.protocol.assignment != "one per frame":
            confidence = given.gather(1, picked)
        else:
            confidence = _pick(canvases.confidence, picked).double()
        summed = self._summed(samples, canvases, targets) if "PIAP" in self.kinds else torch.zeros_like(ciou[:, 0])
        return Scores(ciou, precision, iou, torch.where(has, confidence, 0), area, empty, summed)

    def canvases(self, maps: Tensor, sources: int, priors: Tensor | None) -> Canvases:
        """Maps resized as a whole, split into canvases, normalized and binarized."""
        rules = self.protocol
        split = self._split(self._resize(maps, sources), sources)
        confidence = torch.zeros(split.shape[:3], device=split.device)
        if rules.tau is not None:
            split = fixed_range_normalize(split, rules.tau)
            if self.kinds & {"DetAP", "DetF1"}:
                confidence = mean_of_largest(split.flatten(-2), -(-split.shape[-2:].numel() // 4))
        mixed = rules.prior_weight is not None and priors is not None
        # the order of the pixels is all that the rest needs
        ordinal = rules.normalization != "inverted min-max" and rules.binarization != "from value" and not mixed
        scores = split if ordinal else min_max_normalize(split)
        if rules.prior_weight is not None and priors is not None:
            prior = min_max_normalize(self._split(self._resize(priors[:, None], sources), sources))
            scores = min_max_normalize(scores * rules.prior_weight + prior * (1 - rules.prior_weight))
        if rules.normalization == "inverted min-max":
            scores = scores.neg_().add_(1)
        return Canvases(scores, self._binary(scores), confidence)

    def _binary(self, scores: Tensor) -> Tensor:
        rules = self.protocol
        # compared into numbers, as a boolean map has to be converted for every sum
        marked = torch.empty_like(scores)
        if rules.binarization == "above upper median":
            return torch.gt(scores, level_above_upper_median(scores)[..., None, None], out=marked)
        level: Tensor | float = rules.threshold or 0.0
        if rules.binarization == "from upper median":
            level = upper_median_of(scores)[..., None, None]
        elif rules.binarization == "area fraction":
            return binarize_area(scores, rules.threshold or 1.0).to(scores.dtype)
        return torch.ge(scores, level, out=marked)

    def _resize(self, maps: Tensor, sources: int) -> Tensor:
        size = self.protocol.size
        wanted = {"one": (size, size), "stacked": (sources * size, size), "side-by-side": (size, sources * size)}
        if self.protocol.upsampling == "bicubic":
            return resize_bicubic(maps, wanted[self.layout])
        aligned = self.protocol.upsampling == "bilinear, aligned corners"
        return resize_bilinear(maps, wanted[self.layout], align_corners=aligned)

    def _split(self, resized: Tensor, sources: int) -> Tensor:
        size = self.protocol.size
        if self.layout == "one" or self.protocol.canvas == "whole map":
            return resized.unsqueeze(2)
        if self.layout == "stacked":
            return resized.reshape(*resized.shape[:2], sources, size, size)
        return resized.reshape(*resized.shape[:2], size, sources, size).transpose(2, 3)

    def _assign(
        self, samples: Samples, canvases: Canvases, targets: Masks | Boxes, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The map of each source, (B, S), −1 without, and the sums over pixels of that pair, (B, S) each."""
        sources, rule = targets.sources, self.protocol.assignment
        if rule in ("position", "one per frame"):
            slot = torch.arange(sources, device=valid.device) if rule == "position" else valid.new_zeros(sources).long()
            there = slot < valid.shape[1]
            picked = slot.clamp(max=valid.shape[1] - 1).expand(len(valid), -1)
            owner = torch.where(there & valid.gather(1, picked), picked, -1)
            pairs = targets.sums(_pick(canvases.binary, picked)[:, None])
            return owner, {name: value[:, 0] for name, value in pairs.items()}
        pairs = targets.sums(canvases.binary)
        overlap = _ciou(pairs)
        if rule == "greedy":
            taken = greedy_assignment(overlap, valid)
            column = torch.arange(sources, device=valid.device)
            mine = (taken.source[..., None] == column) & taken.fresh[..., None]
            owner = torch.where(mine.any(1), mine.long().argmax(1), -1)
        else:
            mine, theirs = samples.map_classes[:, :, None], samples.source_classes[:, None]
            known = (mine >= 0) & (theirs >= 0)
            same = known & (mine == theirs)
            # a pair of one class outweighs any overlap
            value = overlap + same * (1 + min(overlap.shape[1:]))
            owner = optimal_assignment(value, valid[:, :, None] & (~known | same))
        picked = owner.clamp(min=0)[:, None]
        return owner, {name: value.gather(1, picked)[:, 0] for name, value in pairs.items()}

    def _precision(self, canvases: Canvases, picked: Tensor, targets: Masks | Boxes, sums: dict[str, Tensor]) -> Tensor:
        kind, pixels = self.protocol.average_precision, canvases.binary.shape[-2] * canvases.binary.shape[-1]
        if kind == "binary":
            return binary_average_precision_of_counts(sums["hits"], sums["binary"], sums["positive"], pixels)
        if kind == "continuous":
            return average_precision(_pick(canvases.scores, picked), targets.maps).double()
        if targets.is_binary:
            return binary_average_precision_of_counts(sums["hits"], sums["truth"], sums["binary"], pixels)
        return swapped_average_precision(_pick(canvases.binary, picked), targets.maps).double()

    def _summed(self, samples: Samples, canvases: Canvases, targets: Masks | Boxes) -> Tensor:
        """Pixel AP of the summed map, binarized per canvas, against all sources together, (B,)."""
        sources = targets.sources
        if samples.maps.shape[1] > 1:
            canvases = self.canvases(samples.maps.sum(1, keepdim=True), sources, samples.priors)
        frames = canvases.binary.shape[2]
        sums = (targets.union() if frames == 1 and sources > 1 else targets).sums(canvases.binary[:, :1])
        hits, predicted, positives = (sums[name].sum((1, 2)) for name in ("hits", "binary", "positive"))
        pixels = canvases.binary[0, 0].numel()
        precision = binary_average_precision_of_counts(hits, predicted, positives, pixels)
        return torch.where(samples.valid.any(1), precision, 0)


def _pick(canvases: Tensor, picked: Tensor) -> Tensor:
    """Of each source, the canvas of its map: (B, M, F, …) and (B, S) → (B, S, …)."""
    if canvases.shape[1] == 1:  # nothing to copy
        return canvases[:, 0].expand(-1, picked.shape[1], *canvases.shape[3:])
    rows = torch.arange(len(picked), device=picked.device)[:, None]
    frame = torch.arange(picked.shape[1], device=picked.device) if canvases.shape[2] > 1 else 0
    return canvases[rows, picked, frame]


def _ciou(sums: dict[str, Tensor]) -> Tensor:
    """cIoU out of the sums of :func:`_pixel_sums`; 0 where there is neither map nor truth."""
    below = sums["truth"] + sums["binary"] - sums["hits"]
    return torch.where(below > 0, sums["inter"] / below.clamp(min=1e-300), 0)
