"""Named evaluation protocols: they define exactly what CAP, CIoU or AUC means.

Papers of this field print the same names for different computations. Metrics are comparable only if they are computed
by the same protocol. Each protocol follows the public evaluation code of a method: :data:`lvs` (Chen et al., CVPR
2021), :data:`ez_vsl` (Mo and Morgado, ECCV 2022), :data:`avgn` (Mo and Tian, CVPR 2023), :data:`noprior` (Kim et al.,
CVPR 2024), :data:`tvsl` (Mahmud et al., CVPR 2024). :data:`paper` is noprior's computation under the metric names of
the paper of the object-aware losses, which says that it follows noprior; its code is not public. :data:`clean` is ours:
every source counts once, and the order of the maps does not matter.

A protocol starts from the corners of boxes or from masks; reading a file's boxes is not part of it. NoPrior's reader of
MUSIC truncates x and width separately, ``int(224 x) + int(224 width)``. On VGG-SS it truncates the corners, as all
others do, so :data:`noprior` truncates corners. Truncating x and width separately moves the far edges of most MUSIC
boxes by one pixel and metrics by up to 0.4 points. To reproduce this, pass such boxes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from dataclasses import replace as _replace
from typing import Any

from sslosses._checks import check_count, check_flag, check_number, check_option

__all__ = ["Protocol", "available", "avgn", "clean", "ez_vsl", "get", "lvs", "noprior", "paper", "tvsl"]

UPSAMPLINGS = ("bicubic", "bilinear", "bilinear, aligned corners")
NORMALIZATIONS = ("min-max", "fixed range, min-max", "inverted min-max")
BINARIZATIONS = ("above upper median", "from upper median", "from value", "area fraction")
ASSIGNMENTS = ("greedy", "position", "optimal", "one per frame")
CANVASES = ("frame", "whole map")
AVERAGE_PRECISIONS = ("binary", "continuous", "swapped")
EMPTY_TRUTHS = ("count", "leave out")
TASKS = ("mixtures", "single")
METRICS = (
    *("CAP", "AP", "CIoU@t", "IoU@t", "AP50", "Precision@t", "CIoU", "mCIoU", "IoU", "AUC", "PIAP", "CountAcc"),
    *("Coverage", "DetAP@t", "DetF1@t", "IIoU@t", "IAUC"),
)
_MOST_SIZE = 4096  # pixel counts of larger frames are not exact in float32
_METRIC_KINDS = {"CAP": "AP", "AP": "AP", "CIoU": "CIoU", "mCIoU": "CIoU", "AP50": "success"}


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol: from raw heatmaps to named metrics.

    Args:
        name: the protocol's name.
        mixture_metrics: metrics reported for samples of several sources, in the order of the result.
        single_metrics: metrics reported for samples of one source.
        size: side T of a frame, at most 4096. The ground truth is T×T, and maps are resized to it.
        upsampling: ``"bicubic"`` (a = −0.75, half-pixel centers), ``"bilinear"`` (half-pixel centers) or ``"bilinear,
            aligned corners"``.
        normalization: applied before binarization. ``"min-max"``; ``"fixed range, min-max"``: from [−1/τ, 1/τ] to
            [0, 1] first, which also gives the confidences; ``"inverted min-max"``: 1 − x after min-max, for maps that
            are low on sounding objects.
        binarization: which pixels are marked. ``"above upper median"``: above the value at index ⌊N/2⌋ of the sorted
            pixels, or at the maximum if half of the pixels or more have it; ``"from upper median"``: at least that
            value; ``"from value"``: at least ``threshold``; ``"area fraction"``: the share ``threshold`` of the pixels
            with the largest values.
        threshold: threshold of ``"from value"`` and ``"area fraction"``, in [0, 1]; None with the others.
        assignment: which map belongs to which source. ``"greedy"``: each map in turn takes the source with the largest
            cIoU among the remaining ones; a surplus map is an entry of 0, and a sample without any map has no entry.
            ``"position"``: map j belongs to source j. ``"optimal"``: the assignment with the largest total cIoU, within
            a class where classes are known. ``"one per frame"``: the sum of the maps against the union of the sources
            in a frame. Except with ``"greedy"``, each source (or frame) is one entry, of 0 without a map.
        canvas: ``"frame"``: each frame is normalized and scored separately. ``"whole map"``: a map of several frames is
            scored as one, and a source's ground truth is 0 outside its own frame.
        average_precision: average precision behind CAP and AP. ``"binary"``: of the binary map; ``"continuous"``: of
            the normalized map; ``"swapped"``: with the binary map as label and the ground truth as score.
        empty_truths: whether to ``"count"`` or ``"leave out"`` sources whose ground truth has no pixel.
        add_boxes: whether overlapping boxes of a source add up to 2, 3, … in mixtures, instead of counting once.
        average_positions: whether metrics are computed per position j, then averaged.
        tau: τ of the fixed range; None without it.
        prior_weight: weight of the model's map if an object prior is given: both are min-max normalized, mixed, and
            normalized again. None: the protocol takes no prior.

    The metrics are:

    - ``"CAP"`` or ``"AP"``: mean pixel average precision over entries;
    - ``"CIoU@t"`` or ``"IoU@t"``: share of entries with cIoU ≥ t; ``"AP50"`` is the same at 0.5;
    - ``"Precision@t"``: share of entries with cIoU > t;
    - ``"CIoU"`` or ``"mCIoU"``: mean cIoU;
    - ``"IoU"``: mean IoU with smoothing 1e-4;
    - ``"AUC"``: area under the share of entries with cIoU ≥ t over t = 0, 0.05, …, 1;
    - ``"PIAP"``: mean over samples with a map of the pixel average precision of their summed map, binarized per canvas,
      against all sources together;
    - ``"CountAcc"``: share of samples with as many maps as sources;
    - ``"Coverage"``: share of samples with a map. Samples without a map are missing from the means above where
      ``assignment`` is ``"greedy"``;
    - ``"DetAP@t"`` and ``"DetF1@t"``: detection over confidence at cIoU ≥ t, see
      :func:`~sslosses.metrics.functional.detection_average_precision`;
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
    threshold: float | None = None
    assignment: str = "greedy"
    canvas: str = "frame"
    average_precision: str = "binary"
    empty_truths: str = "count"
    add_boxes: bool = False
    average_positions: bool = False
    tau: float | None = None
    prior_weight: float | None = None

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
        check_flag("add_boxes", self.add_boxes)
        check_flag("average_positions", self.average_positions)
        needs_threshold = self.binarization in ("from value", "area fraction")
        self._check_optional("threshold", needs_threshold, f"binarization={self.binarization!r}", least=0, most=1)
        if self.binarization == "area fraction":
            check_number("threshold", self.threshold, above=0)
        fixed = self.normalization == "fixed range, min-max"
        self._check_optional("tau", fixed, f"normalization={self.normalization!r}", least=1e-30)
        if self.prior_weight is not None:
            prior_weight = check_number("prior_weight", self.prior_weight, least=0, most=1)
            object.__setattr__(self, "prior_weight", prior_weight)
        if self.assignment == "greedy" and self.empty_truths == "leave out":
            raise ValueError("Expected `empty_truths` to be 'count' with assignment='greedy', but got 'leave out'")
        for field in ("mixture_metrics", "single_metrics"):
            metrics = getattr(self, field)
            if not isinstance(metrics, tuple) or not metrics or len(set(map(repr, metrics))) != len(metrics):
                raise TypeError(f"Expected `{field}` to be a non-empty tuple of distinct names, but got {metrics!r}")
            for metric in metrics:
                parse_metric(metric)

    def _check_optional(self, name: str, needed: bool, where: str, **bounds: float) -> None:
        value = getattr(self, name)
        if needed:
            object.__setattr__(self, name, check_number(name, value, **bounds))
        elif value is not None:
            raise ValueError(f"Expected `{name}` to be None with {where}, which does not use it, but got {value!r}")

    def __str__(self) -> str:
        at = "" if self.threshold is None else f" {self.threshold:g}"
        how = [f"{self.size}×{self.size}", self.upsampling, self.normalization, self.binarization + at, self.assignment]
        how += [f"on the {self.canvas}"] if self.canvas != "frame" else []
        how += [f"{self.average_precision} AP"]
        how += ["empty truths left out"] if self.empty_truths == "leave out" else []
        how += ["overlapping boxes added"] if self.add_boxes else []
        how += ["averaged over positions"] if self.average_positions else []
        how += [] if self.tau is None else [f"τ = {self.tau:g}"]
        how += [] if self.prior_weight is None else [f"object prior at {self.prior_weight:g}"]
        mixtures, single = ", ".join(self.mixture_metrics), ", ".join(self.single_metrics)
        return f"{self.name}: {', '.join(how)}; mixtures: {mixtures}; single: {single}"

    @property
    def one_entry_per_frame(self) -> bool:
        """Whether all sources of a frame are one entry."""
        return self.assignment == "one per frame"

    @property
    def inverts_maps(self) -> bool:
        """Whether maps are low on sounding objects."""
        return self.normalization == "inverted min-max"

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
        ``"CountAcc"``, ``"Coverage"``, ``"DetAP"``, ``"DetF1"``, ``"IIoU"`` or ``"IAUC"``), and its threshold or None.

    Raises:
        ValueError: if there is no such metric; the message lists them.
    """
    if isinstance(metric, str):
        if metric in ("AUC", "PIAP", "CountAcc", "Coverage", "IoU", "IAUC", *_METRIC_KINDS):
            return _METRIC_KINDS.get(metric, metric), 0.5 if metric == "AP50" else None
        match = re.fullmatch(r"(C?IoU|Precision|DetAP|DetF1|IIoU)@(\d*\.?\d+)", metric, re.ASCII)
        if match is not None and 0 < float(match[2]) <= 1:
            kind = {"CIoU": "success", "IoU": "success", "Precision": "precision"}.get(match[1], match[1])
            return kind, float(match[2])
    raise ValueError(f"Expected a metric to be one of {', '.join(METRICS)} with 0 < t <= 1, but got {metric!r}")


lvs = Protocol(
    "lvs",
    mixture_metrics=("CIoU@0.5", "AUC"),
    single_metrics=("CIoU@0.5", "AUC"),
    upsampling="bilinear",
    assignment="one per frame",
)
ez_vsl = Protocol(
    "ez-vsl",
    mixture_metrics=("AP50", "mCIoU", "AUC"),
    single_metrics=("AP50", "mCIoU", "AUC"),
    upsampling="bilinear, aligned corners",
    binarization="from upper median",
    assignment="one per frame",
    prior_weight=0.4,
)
avgn = Protocol(
    "avgn",
    mixture_metrics=("Precision@0.1", "AP", "DetAP@0.3", "DetF1@0.3", "AUC"),
    single_metrics=("Precision@0.3", "AP", "DetAP@0.3", "DetF1@0.3", "AUC"),
    normalization="fixed range, min-max",
    binarization="from upper median",
    assignment="position",
    average_precision="swapped",
    add_boxes=True,
    average_positions=True,
    tau=0.03,
)
noprior = Protocol(
    "noprior",
    mixture_metrics=("CAP", "CIoU@0.3", "CIoU@0.5", "AUC", "PIAP", "CountAcc"),
    single_metrics=("CAP", "CIoU@0.3", "CIoU@0.5", "AUC", "PIAP", "CountAcc"),
)
tvsl = Protocol(
    "tvsl",
    mixture_metrics=("CIoU", "IoU", "AUC", "AP"),
    single_metrics=("CIoU", "IoU", "AUC", "AP"),
    normalization="inverted min-max",
    binarization="from value",
    threshold=0.3,
    assignment="position",
    canvas="whole map",
    average_precision="continuous",
)
paper = Protocol("paper", mixture_metrics=("CAP", "CIoU@0.3", "AUC"), single_metrics=("AP", "IoU@0.5", "AUC"))
clean = Protocol(
    "clean",
    mixture_metrics=("CAP", "CIoU@0.3", "CIoU@0.5", "mCIoU", "AUC", "CountAcc"),
    single_metrics=("AP", "CIoU@0.5", "mCIoU", "AUC"),
    upsampling="bilinear",
    binarization="from value",
    threshold=0.5,
    assignment="optimal",
    average_precision="continuous",
    empty_truths="leave out",
)

_PROTOCOLS = {protocol.name: protocol for protocol in (lvs, ez_vsl, avgn, noprior, tvsl, paper, clean)}


def available() -> tuple[str, ...]:
    """Returns the names of all protocols."""
    return tuple(_PROTOCOLS)


def get(protocol: str | Protocol) -> Protocol:
    """Returns the protocol of that name; a :class:`Protocol` is returned unchanged.

    Raises:
        TypeError: if ``protocol`` is neither a name nor a protocol.
        ValueError: if there is no protocol of that name; the message lists the names.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if not isinstance(protocol, str):
        raise TypeError(f"Expected `protocol` to be a name or a Protocol, but got {type(protocol).__name__}")
    check_option("protocol", protocol, available())
    return _PROTOCOLS[protocol]
