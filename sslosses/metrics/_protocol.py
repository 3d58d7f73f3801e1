"""The class Protocol: the rules by which maps are scored, and the names of metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from dataclasses import replace as _replace
from typing import Any

from sslosses._checks import check_count, check_flag, check_number, check_option

UPSAMPLINGS = ("bicubic", "bicubic, aligned corners", "bilinear", "bilinear, aligned corners")
NORMALIZATIONS = ("min-max", "fixed range, min-max", "fixed range", "inverted min-max", "none")
BINARIZATIONS = (
    *("above upper median", "above upper median, strict", "from upper median", "from value", "from value, strict"),
    *("share of maximum", "area fraction", "truth's area"),
)
_WITH_THRESHOLD = ("from value", "from value, strict", "share of maximum", "area fraction")
ASSIGNMENTS = ("greedy", "position", "optimal", "one per frame")
CANVASES = ("frame", "whole map")
AVERAGE_PRECISIONS = ("binary", "continuous", "swapped")
EMPTY_TRUTHS = ("count", "leave out")
TASKS = ("mixtures", "single")
METRICS = (
    *("CAP", "AP", "CIoU@t", "IoU@t", "AP50", "Precision@t", "CIoU", "mCIoU", "IoU", "AUC", "PIAP", "CountAcc"),
    *("Coverage", "DetAP@t", "DetF1@t", "MaxF1@t", "LocAcc", "IIoU@t", "IAUC"),
)
#: Kinds of metrics over confidence, the only ones that samples without a source enter.
DETECTION = frozenset({"DetAP", "DetF1", "MaxF1"})
_MOST_SIZE = 4096  # pixel counts of larger frames are not exact in float32
_METRIC_KINDS = {"CAP": "AP", "AP": "AP", "CIoU": "CIoU", "mCIoU": "CIoU", "AP50": "success", "LocAcc": "success"}


def labeled(protocol: str, oracle: bool) -> str:
    """Returns the protocol's name as it is printed, with “(oracle)” behind it for an oracle."""
    return f"{protocol} (oracle)" if oracle else protocol


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol: from raw heatmaps to named metrics.

    Args:
        name: the protocol's name.
        mixture_metrics: metrics reported for samples of several sources, in the order of the result.
        single_metrics: metrics reported for samples of one source.
        size: side T of a frame, at most 4096. The ground truth is T×T, and maps are resized to it.
        upsampling: ``"bicubic"`` (a = −0.75, half-pixel centers), ``"bicubic, aligned corners"``, ``"bilinear"``
            (half-pixel centers) or ``"bilinear, aligned corners"``.
        normalization: applied before binarization. ``"min-max"``; ``"fixed range"``: from [−1/τ, 1/τ] to [0, 1], which
            also gives the confidences; ``"fixed range, min-max"``: both; ``"inverted min-max"``: 1 − x after min-max,
            for maps that are low on sounding objects; ``"none"``.
        binarization: which pixels are marked. ``"above upper median"``: above the value at index ⌊N/2⌋ of the sorted
            pixels, or at the maximum if half of the pixels or more have it; ``"above upper median, strict"``: without
            that exception; ``"from upper median"``: at least that value; ``"from value"``: at least ``threshold``;
            ``"from value, strict"``: above it; ``"share of maximum"``: above ``threshold`` times the maximum;
            ``"area fraction"``: the share ``threshold`` of the pixels with the largest values; ``"truth's area"``:
            above the value at index N − n of the sorted pixels, where n is the number of positive pixels of the ground
            truth, or ⌊N/2⌋ if it has none.
        threshold: threshold of ``"from value"``, ``"share of maximum"`` and ``"area fraction"``, None with the others.
            It is in [0, 1], unless maps are not normalized. Several thresholds: each metric is its best over them.
        mixture_threshold: threshold for ``task="mixtures"``; None: ``threshold``.
        assignment: which map belongs to which source. ``"greedy"``: each map in turn takes the source with the largest
            cIoU among the remaining ones; a surplus map is an entry of 0, and a sample without any map has no entry.
            ``"position"``: map j belongs to source j. ``"optimal"``: the assignment with the largest total cIoU, within
            a class where classes are known. ``"one per frame"``: the sum of the maps against the union of the sources
            in a frame. Except with ``"greedy"``, each source (or frame) is one entry, of 0 without a map.
        union_sources: with ``"greedy"``, whether the sources of a frame are one source, their union.
        average_sources: whether the mean over the sources of a sample is one entry.
        canvas: ``"frame"``: each frame is normalized and scored separately. ``"whole map"``: a map of several frames is
            scored as one, and a source's ground truth is 0 outside its own frame.
        average_precision: average precision behind CAP and AP. ``"binary"``: of the binary map; ``"continuous"``: of
            the normalized map; ``"swapped"``: with the binary map as label and the ground truth as score.
        empty_truths: whether to ``"count"`` or ``"leave out"`` sources whose ground truth has no pixel.
        add_boxes: whether overlapping boxes of a source add up to 2, 3, … in mixtures, instead of counting once.
        average_positions: whether metrics are computed per position j, then averaged.
        tau: τ of the fixed range; None without it.
        prior_weight: weight of the model's map if an object prior is given: both are normalized, mixed, and normalized
            again; with ``"none"``, they are only mixed. None: the protocol takes no prior.
        prior_range: the object prior is divided by it and mixed with the map in the fixed range, before confidences and
            min-max; None: the prior is min-max normalized.
        prior_upsampling: how the object prior is resized; None: as the maps.

    The metrics are:

    - ``"CAP"`` or ``"AP"``: mean pixel average precision over entries;
    - ``"CIoU@t"`` or ``"IoU@t"``: share of entries with cIoU ≥ t; ``"AP50"`` and ``"LocAcc"`` are the same at 0.5;
    - ``"Precision@t"``: share of entries with cIoU > t;
    - ``"CIoU"`` or ``"mCIoU"``: mean cIoU;
    - ``"IoU"``: mean IoU with smoothing 1e-4;
    - ``"AUC"``: area under the share of entries with cIoU ≥ t over t = 0, 0.05, …, 1;
    - ``"PIAP"``: mean over samples with a map of the pixel average precision of their summed map, binarized per canvas,
      against all sources together;
    - ``"CountAcc"``: share of samples with as many maps as sources;
    - ``"Coverage"``: share of samples with a map. Samples without a map are missing from the means above where
      ``assignment`` is ``"greedy"``;
    - ``"DetAP@t"``, ``"DetF1@t"`` and ``"MaxF1@t"``: detection over confidence at cIoU ≥ t, see
      :func:`~sslosses.metrics.functional.detection_average_precision`. Only these count samples without a source;
    - ``"IIoU@t"``: share of groups whose entries all have cIoU ≥ t, of ``update(…, groups=…)``, such as the sources of
      one image, each with its own sound; ``"IAUC"``: area under that share over t = 0, 0.05, …, 1.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is not one of the values above, or two do not fit; the message lists the allowed
            values.

    Example:
        >>> from sslosses.metrics import protocols
        >>> print(protocols.paper)
        paper: 224×224, bicubic, min-max, above upper median, greedy, binary AP;
        mixtures: CAP, CIoU@0.3, AUC; single: AP, IoU@0.5, AUC
        >>> print(protocols.tvsl.replace(threshold=0.5).name)
        tvsl (changed)
    """

    name: str
    mixture_metrics: tuple[str, ...]
    single_metrics: tuple[str, ...]
    size: int = 224
    upsampling: str = "bicubic"
    normalization: str = "min-max"
    binarization: str = "above upper median"
    threshold: float | tuple[float, ...] | None = None
    assignment: str = "greedy"
    canvas: str = "frame"
    average_precision: str = "binary"
    empty_truths: str = "count"
    add_boxes: bool = False
    average_positions: bool = False
    tau: float | None = None
    prior_weight: float | None = None
    prior_range: float | None = None
    prior_upsampling: str | None = None
    mixture_threshold: float | None = None
    union_sources: bool = False
    average_sources: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"Expected `name` to be a non-empty string, but got {self.name!r}")
        object.__setattr__(self, "size", check_count("size", self.size))
        check_number("size", self.size, most=_MOST_SIZE)
        check_option("upsampling", self.upsampling, UPSAMPLINGS)
        check_option("normalization", self.normalization, NORMALIZATIONS)
        check_option("binarization", self.binarization, BINARIZATIONS)
        check_option("assignment", self.assignment, ASSIGNMENTS)
        check_option("canvas", self.canvas, CANVASES)
        check_option("average_precision", self.average_precision, AVERAGE_PRECISIONS)
        check_option("empty_truths", self.empty_truths, EMPTY_TRUTHS)
        for flag in ("union_sources", "average_sources", "add_boxes", "average_positions"):
            check_flag(flag, getattr(self, flag))
        self._check_thresholds()
        fixed = self.normalization.startswith("fixed range")
        self._check_optional("tau", fixed, f"normalization={self.normalization!r}", least=1e-30)
        self._check_prior(fixed)
        self._check_entries()
        for field in ("mixture_metrics", "single_metrics"):
            metrics = getattr(self, field)
            if not isinstance(metrics, tuple) or not metrics or len(set(map(repr, metrics))) != len(metrics):
                raise TypeError(f"Expected `{field}` to be a non-empty tuple of distinct names, but got {metrics!r}")
            for metric in metrics:
                self.check_metric(metric)

    def _check_thresholds(self) -> None:
        needed, where = self.binarization in _WITH_THRESHOLD, f"binarization={self.binarization!r}"
        bounds: dict[str, float] = {} if self.normalization == "none" else {"least": 0, "most": 1}
        if self.binarization in ("share of maximum", "area fraction"):
            bounds = {"least": 0, "most": 1}
        if isinstance(self.threshold, tuple) and needed:
            several = tuple(check_number("threshold", value, **bounds) for value in self.threshold)
            if len(several) < 2 or list(several) != sorted(set(several)):
                raise ValueError(f"Expected `threshold` to be two numbers or more, ascending, but got {self.threshold}")
            object.__setattr__(self, "threshold", several)
        else:
            self._check_optional("threshold", needed, where, **bounds)
        if self.mixture_threshold is not None:
            if isinstance(self.threshold, tuple):
                raise ValueError("Expected `mixture_threshold` to be None with several thresholds, but got a number")
            self._check_optional("mixture_threshold", needed, where, **bounds)
        if self.binarization == "area fraction":
            for value in (*self.thresholds("single"), *self.thresholds("mixtures")):
                check_number("threshold", value, above=0)
        # The other assignments depend on the binary maps, of which there would be several.
        fitting = ("one per frame",) if self.binarization == "truth's area" else ("one per frame", "position")
        if self.oracle and self.assignment not in fitting:
            rule = "several thresholds" if isinstance(self.threshold, tuple) else where
            allowed = " or ".join(map(repr, fitting))
            raise ValueError(f"Expected `assignment` to be {allowed} with {rule}, but got {self.assignment!r}")
        if self.binarization == "truth's area" and self.canvas != "frame":
            raise ValueError(f"Expected `canvas` to be 'frame' with {where}, but got {self.canvas!r}")

    def _check_prior(self, fixed: bool) -> None:
        if self.prior_weight is not None:
            prior_weight = check_number("prior_weight", self.prior_weight, least=0, most=1)
            object.__setattr__(self, "prior_weight", prior_weight)
        takes_range = fixed and self.prior_weight is not None
        if takes_range and (self.prior_range is not None or self.normalization == "fixed range"):
            object.__setattr__(self, "prior_range", check_number("prior_range", self.prior_range, least=1e-30))
        elif self.prior_range is not None:
            raise ValueError(
                "Expected `prior_range` to be None without a `prior_weight` and a fixed range, "
                f"but got {self.prior_range!r}"
            )
        if self.prior_upsampling is not None:
            check_option("prior_upsampling", self.prior_upsampling, UPSAMPLINGS)
            if self.prior_weight is None:
                got = self.prior_upsampling
                raise ValueError(f"Expected `prior_upsampling` to be None without a `prior_weight`, but got {got!r}")

    def _check_entries(self) -> None:
        if self.empty_truths == "leave out" and (self.assignment == "greedy" or self.average_sources):
            where = "average_sources=True" if self.average_sources else "assignment='greedy'"
            raise ValueError(f"Expected `empty_truths` to be 'count' with {where}, but got 'leave out'")
        if self.union_sources and self.assignment != "greedy":
            raise ValueError(
                f"Expected `assignment` to be 'greedy' with union_sources=True, but got {self.assignment!r}"
            )
        if self.average_sources and (self.assignment not in ("position", "optimal") or self.average_positions):
            raise ValueError(
                "Expected `average_sources` to be False unless `assignment` is 'position' or 'optimal' and "
                "`average_positions` is False, but got True"
            )

    def _check_optional(self, name: str, needed: bool, where: str, **bounds: float) -> None:
        value = getattr(self, name)
        if needed:
            object.__setattr__(self, name, check_number(name, value, **bounds))
        elif value is not None:
            raise ValueError(f"Expected `{name}` to be None with {where}, which does not use it, but got {value!r}")

    def __str__(self) -> str:
        how = [f"{self.size}×{self.size}", self.upsampling, self.normalization, self._marking(), self.assignment]
        how += ["union of the sources"] if self.union_sources else []
        how += ["averaged over sources"] if self.average_sources else []
        how += [f"on the {self.canvas}"] if self.canvas != "frame" else []
        how += [f"{self.average_precision} AP"]
        how += ["empty truths left out"] if self.empty_truths == "leave out" else []
        how += ["overlapping boxes added"] if self.add_boxes else []
        how += ["averaged over positions"] if self.average_positions else []
        how += [] if self.tau is None else [f"τ = {self.tau:g}"]
        how += [] if self.prior_weight is None else [f"object prior at {1 - self.prior_weight:g}{self._prior()}"]
        mixtures, single = ", ".join(self.mixture_metrics), ", ".join(self.single_metrics)
        return f"{self.label}: {', '.join(how)}; mixtures: {mixtures}; single: {single}"

    def _marking(self) -> str:
        if self.threshold is None:
            return self.binarization
        if isinstance(self.threshold, tuple):
            low, high = self.threshold[0], self.threshold[-1]
            return f"{self.binarization}, best of {len(self.threshold)} thresholds from {low:g} to {high:g}"
        mixtures = "" if self.mixture_threshold is None else f" (mixtures: {self.mixture_threshold:g})"
        return f"{self.binarization} {self.threshold:g}{mixtures}"

    def _prior(self) -> str:
        scale = "" if self.prior_range is None else f" in [0, {self.prior_range:g}]"
        return scale + ("" if self.prior_upsampling is None else f" ({self.prior_upsampling})")

    @property
    def oracle(self) -> bool:
        """Whether the ground truth that is scored sets the area or the threshold of the marked pixels."""
        return self.binarization == "truth's area" or isinstance(self.threshold, tuple)

    @property
    def label(self) -> str:
        """The name as it is printed, with “(oracle)” behind it for an oracle."""
        return labeled(self.name, self.oracle)

    @property
    def one_entry_per_frame(self) -> bool:
        """Whether all sources of a frame are one entry."""
        return self.assignment == "one per frame"

    @property
    def inverts_maps(self) -> bool:
        """Whether maps are low on sounding objects."""
        return self.normalization == "inverted min-max"

    def thresholds(self, task: str) -> tuple[float | None, ...]:
        """Returns the thresholds for ``task``: one or, for an oracle, several; one None without a threshold."""
        check_option("task", task, TASKS)
        if isinstance(self.threshold, tuple):
            return self.threshold
        mixtures = task == "mixtures" and self.mixture_threshold is not None
        return (self.mixture_threshold if mixtures else self.threshold,)

    def check_metric(self, metric: str) -> None:
        """Raises :class:`ValueError` unless there is a metric of this name and the protocol can compute it."""
        kind = parse_metric(metric)[0]
        of_one_binary_map = kind in ("IoU", "PIAP") or (kind == "AP" and self.average_precision != "continuous")
        if isinstance(self.threshold, tuple) and of_one_binary_map:
            raise ValueError(
                f"Expected metrics that do not need one binary map, with several thresholds, but got {metric!r}"
            )

    def metrics(self, task: str) -> tuple[str, ...]:
        """Returns the metrics reported for ``task``, ``"mixtures"`` or ``"single"``."""
        check_option("task", task, TASKS)
        return self.mixture_metrics if task == "mixtures" else self.single_metrics

    def replace(self, **changes: Any) -> Protocol:
        """Returns a copy with some fields changed.

        Without a new ``name``, the copy is called "<name> (changed)", as its metrics are not comparable with those of
        the original.

        Raises:
            TypeError: if a field is unknown or has the wrong type.
            ValueError: if a value is not available.
        """
        known = [field.name for field in fields(self)]
        unknown = [name for name in changes if name not in known]
        if unknown:
            raise TypeError(f"Expected changes to be among {', '.join(known)}, but got {', '.join(unknown)}")
        name = self.name if self.name.endswith(" (changed)") else f"{self.name} (changed)"
        return _replace(self, **{"name": name, **changes})


def parse_metric(metric: str) -> tuple[str, float | None]:
    """Parses the name of a metric.

    Args:
        metric: a name, see :class:`Protocol`.

    Returns:
        Its kind (``"AP"``, ``"success"``, ``"precision"``, ``"CIoU"``, ``"IoU"``, ``"AUC"``, ``"PIAP"``,
        ``"CountAcc"``, ``"Coverage"``, ``"DetAP"``, ``"DetF1"``, ``"MaxF1"``, ``"IIoU"`` or ``"IAUC"``), and its
        threshold or None.

    Raises:
        ValueError: if there is no such metric; the message lists them.
    """
    if isinstance(metric, str):
        if metric in ("AUC", "PIAP", "CountAcc", "Coverage", "IoU", "IAUC", *_METRIC_KINDS):
            return _METRIC_KINDS.get(metric, metric), 0.5 if metric in ("AP50", "LocAcc") else None
        match = re.fullmatch(r"(C?IoU|Precision|DetAP|DetF1|MaxF1|IIoU)@(\d*\.?\d+)", metric, re.ASCII)
        if match is not None and 0 < float(match[2]) <= 1:
            kind = {"CIoU": "success", "IoU": "success", "Precision": "precision"}.get(match[1], match[1])
            return kind, float(match[2])
    raise ValueError(f"Expected a metric to be one of {', '.join(METRICS)} with 0 < t <= 1, but got {metric!r}")
