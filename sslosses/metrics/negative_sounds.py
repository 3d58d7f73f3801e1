"""Negative sounds: what a model marks when it hears silence, noise, or the sound of something that is not in sight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sslosses._checks import check_flag, check_floating, check_number, check_option, check_shapes
from sslosses._torch import at_least_float32
from sslosses.metrics._pipeline.rules import RuledMetric
from sslosses.metrics._protocol import UPSAMPLINGS
from sslosses.metrics.functional._inputs import check_fractions, check_size, check_values, extremes
from sslosses.metrics.functional.auc import AUC_THRESHOLDS, area_under_success
from sslosses.metrics.functional.ciou import ciou, ratio_or_zero
from sslosses.metrics.functional.resize import resize_bicubic, resize_bilinear
from sslosses.metrics.result import LocalizationResult

KINDS = ("silence", "noise", "offscreen")
RULES = ("maxQ3", "max")
_PIXELS = 2**21  # of one kind of map, marked at once


def threshold_from(
    negatives: Mapping[str, Tensor],
    rule: str = "maxQ3",
    *,
    size: tuple[int, int] | None = None,
    upsampling: str = "bilinear",
) -> float:
    """Computes a threshold U from the maps of negative sounds: what a map has to exceed to mean something.

    The maxima of all maps of all kinds are pooled. ``"maxQ3"`` is their third quartile, interpolated linearly, and
    ``"max"`` the largest one. Pass maps of a split that is not scored. A threshold from the scored maps knows the
    answers: score with ``NegativeSounds(threshold, oracle=True)`` then.

    Args:
        negatives: maps by kind of negative sound, (N, h, w) each, floating, finite, N ≥ 1 in one of them.
        rule: ``"maxQ3"`` or ``"max"``.
        size: height and width to which the maps are resized first: those of the ground truth, as the scored maps will
            be. None: maps stay as they are.
        upsampling: as for :class:`NegativeSounds`.

    Returns:
        The threshold, in the unit of the maps.

    Raises:
        TypeError: if ``negatives`` is not a mapping of floating tensors.
        ValueError: if there is no map, one is not finite, or an option is not one of these.

    Example:
        >>> import torch
        >>> from sslosses.metrics import threshold_from
        >>> maps = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.8])[:, None, None].expand(5, 7, 7)
        >>> round(threshold_from({"silence": maps}), 3), round(threshold_from({"silence": maps}, "max"), 3)
        (0.3, 0.8)
    """
    check_option("rule", rule, RULES)
    check_option("upsampling", upsampling, UPSAMPLINGS)
    if not isinstance(negatives, Mapping):
        raise TypeError(f"Expected `negatives` to be a mapping of maps by kind, but got {type(negatives).__name__}")
    size = None if size is None else check_size("size", size)
    maxima = []
    for kind, maps in negatives.items():
        name = f"negatives[{kind!r}]"
        check_raw(name, maps)
        check_shapes(**{name: (maps, "N h w")})
        for part in _parts(maps, size or maps.shape[-2:]):
            maxima.append(_resized(part, size or part.shape[-2:], upsampling).amax((-2, -1)).double().cpu())
    pooled = torch.cat(maxima) if maxima else torch.zeros(0)
    if not len(pooled):
        raise ValueError("Expected `negatives` to hold at least one map, but got none")
    return float(pooled.quantile(0.75) if rule == "maxQ3" else pooled.amax())


class NegativeSounds(RuledMetric):
    r"""Computes whether a model marks the sounding object, and marks nothing when no object in sight sounds.

    Each frame has a map of its own sound and one map per kind of negative sound: silence, noise, and the sound of an
    object that is out of sight. Maps are raw: they are not scaled by their extremes, since that would mark something
    on every map. All are resized to the ground truth, and pixels above one threshold U are marked, :math:`b = [m > U]`.

    .. math:: \mathrm{pIA} = \frac{1}{HW} \sum b^-, \qquad
              \mathrm{AUC_N} = \int_0^1 \frac1n \sum_i [\mathrm{pIA}_i \le t]\, dt, \qquad
              F_\mathrm{LOC} = H\Big(\mathrm{CIoU_U},\ \frac1K \sum_k (1 - \mathrm{pIA}_k)\Big)

    with the map :math:`b^-` of a negative sound, the K kinds, and the harmonic mean :math:`H(x, y) = 2xy / (x + y)`.

    - ``CIoU_U`` is the mean cIoU of the own sound's map, not a share of successes; high is good. An entry whose map and
      ground truth are both empty is 0.
    - ``AUC_U`` is the area under the share of entries with cIoU ≥ t over t = 0, 0.05, …, 1; high is good.
    - ``pIA`` is the share of pixels that a negative sound marks, the mean over entries per kind; low is good.
    - ``AUC_N`` is computed per kind, by the trapezoid rule over the same t; high is good. Empty maps give 1.
    - ``F_LOC``, and ``F_AUC`` of ``AUC_U`` and the mean ``AUC_N``, are 0 where both of their parts are 0.
    - With ``overlaps``: ``IoU own+silence`` and so on, the mean IoU of the marked pixels of two sounds of one frame; 1
      where both are empty. Near 1, the model does not listen.

    Estimate U with :func:`threshold_from` on a split that is not scored.

    The authors' code has two faults, which this metric does not repeat. It appends the cIoU of five thresholds (the
    median, 0.5, and three universal ones) to one list, so its plain "CIoU" and "AUC" are averages over five
    binarizations; CIoU_U and pIA are right. And its noise comes from a generator without a seed, so numbers with noise
    can't be reproduced. Its F of 0 and 0 is NaN.

    Args:
        threshold: U, in the unit of the maps.
        kinds: names of the kinds of negative sound.
        upsampling: one of the upsamplings of :class:`~sslosses.metrics.protocols.Protocol`.
        overlaps: whether to compute the IoU of pairs.
        oracle: whether U was estimated on the scored samples. :meth:`result` then says so.
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if ``threshold`` is not finite, there is no kind or one twice, or an option is not one of these.

    Reference:
        Juanola et al., A Critical Assessment of Visual Sound Source Localization Models Including Negative Audio,
        ICASSP 2025, and its public code.

    Example:
        >>> import torch
        >>> from sslosses.metrics import NegativeSounds
        >>> truth = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> truth[:, :2] = True
        >>> maps = truth.float()
        >>> metric = NegativeSounds(threshold=0.5, kinds=("silence", "noise"))
        >>> metric.update(maps, truth, {"silence": 0 * maps, "noise": maps})  # noise marks what the sound marks
        >>> for name, value in metric.compute().items():
        ...     print(f"{name}: {value:.3g}")
        CIoU_U: 1
        AUC_U: 1
        pIA silence: 0
        pIA noise: 0.5
        AUC_N silence: 1
        AUC_N noise: 0.525
        F_LOC: 0.857
        F_AUC: 0.865
        entries: 1
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    entries: Tensor
    ciou_sum: Tensor
    hits: Tensor
    area_sums: Tensor
    quiet: Tensor
    overlap_sums: Tensor

    def __init__(
        self,
        threshold: float,
        *,
        kinds: tuple[str, ...] = KINDS,
        upsampling: str = "bilinear",
        overlaps: bool = False,
        oracle: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.threshold = check_number("threshold", threshold)
        self.kinds = _check_kinds(kinds)
        check_option("upsampling", upsampling, UPSAMPLINGS)
        check_flag("overlaps", overlaps)
        check_flag("oracle", oracle)
        self.upsampling, self.overlaps, self.oracle = upsampling, overlaps, oracle
        #: Pairs of sounds by position, the own one first.
        self._pairs = list(combinations(range(1 + len(self.kinds)), 2)) if overlaps else []
        rules = (self.threshold, self.kinds, upsampling, overlaps, oracle)
        self._fix_rules(f"of the rules {', '.join(map(repr, rules))}", *rules)
        steps = len(AUC_THRESHOLDS)
        for name, shape in (("entries", ()), ("hits", (steps,)), ("quiet", (len(self.kinds), steps))):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        sums = (("ciou_sum", ()), ("area_sums", (len(self.kinds),)), ("overlap_sums", (len(self._pairs),)))
        for name, shape in sums:
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def extra_repr(self) -> str:
        """Names the settings, for ``repr``."""
        names = ("threshold", "kinds", "upsampling", "overlaps", "oracle")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def update(self, maps: Tensor, truths: Tensor, negatives: Mapping[str, Tensor]) -> None:
        """Adds one entry per frame. After an error nothing is added.

        Args:
            maps: raw map of each frame's own sound, (B, h, w), floating, finite.
            truths: ground truth of all sounding objects of the frame, (B, H, W), boolean or in [0, 1].
            negatives: raw maps of the same frames by kind of negative sound, (B, h, w) each; of any resolution.

        Raises:
            TypeError: if dtypes are wrong or ``negatives`` is not a mapping.
            ValueError: if the kinds are not those of the metric, shapes or devices do not fit, or values are out of
                range.
        """
        if not isinstance(negatives, Mapping):
            raise TypeError(f"Expected `negatives` to be a mapping of maps by kind, but got {type(negatives).__name__}")
        if set(negatives) != set(self.kinds):
            raise ValueError(f"Expected `negatives` to hold {', '.join(self.kinds)}, but got {list(negatives)}")
        check_raw("maps", maps)
        check_values("truths", truths)
        check_shapes(maps=(maps, "B h w"), truths=(truths, "B H W"))
        check_fractions("truths", truths)
        for kind in self.kinds:
            name = f"negatives[{kind!r}]"
            check_raw(name, negatives[kind])
            check_shapes(maps=(maps, "B h w"), **{name: (negatives[kind], "B p q")})
        size = truths.shape[-2:]
        sounds = [list(_parts(sound, size)) for sound in (maps, *(negatives[kind] for kind in self.kinds))]
        for part, *parts in zip(_parts(truths, size), *sounds, strict=True):
            self._add(part, [_resized(sound, size, self.upsampling) > self.threshold for sound in parts])

    def _add(self, truths: Tensor, marked: list[Tensor]) -> None:
        """Adds the marked pixels of the own sound, and of one negative sound per kind."""
        own, negative = marked[0], torch.stack(marked[1:])
        steps = torch.tensor(AUC_THRESHOLDS, dtype=torch.float64, device=truths.device)
        # In float64, an overlap of exactly t is rounded to the same number as t.
        overlap = ciou(own, truths.double())
        areas = negative.sum((-2, -1)).double() / (negative.shape[-2] * negative.shape[-1])
        self.entries += len(truths)
        self.ciou_sum += overlap.sum()
        self.hits += (overlap[:, None] >= steps).sum(0)
        self.area_sums += areas.sum(1)
        self.quiet += (areas[..., None] <= steps).sum(1)
        for i, (a, b) in enumerate(self._pairs):
            self.overlap_sums[i] += _iou(marked[a], marked[b]).sum()

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:  # noqa: ARG002
        """Keeps the sums in float64: other dtypes would round them."""
        return self

    def compute(self) -> dict[str, Tensor]:
        """Computes the metrics of all frames so far: 0-d float64, NaN without an entry, and ``entries`` (int64)."""
        count = self.entries.double()
        ciou_u, auc_u = self.ciou_sum / count, area_under_success(self.hits / count)
        areas, auc_n = self.area_sums / count, area_under_success(self.quiet / count)
        names = ("own", *self.kinds)
        return {
            "CIoU_U": ciou_u,
            "AUC_U": auc_u,
            **{f"pIA {kind}": area for kind, area in zip(self.kinds, areas, strict=True)},
            **{f"AUC_N {kind}": area for kind, area in zip(self.kinds, auc_n, strict=True)},
            "F_LOC": _harmonic(ciou_u, (1 - areas).mean()),
            "F_AUC": _harmonic(auc_u, auc_n.mean()),
            **{
                f"IoU {names[a]}+{names[b]}": total / count
                for (a, b), total in zip(self._pairs, self.overlap_sums, strict=True)
            },
            "entries": self.entries.clone(),
        }

    def result(self) -> LocalizationResult:
        """Computes the metrics as an object to print and export, which says whether the threshold is an oracle's."""
        values = dict(self.compute())  # a copy: torchmetrics keeps the result
        entries = int(values.pop("entries"))
        origin = "estimated on the scored samples (oracle)" if self.oracle else "estimated elsewhere"
        rule = f"raw maps, {self.upsampling}, marked above {self.threshold:.4g}, {origin}"
        return LocalizationResult(
            protocol="negative sounds",
            oracle=self.oracle,
            description=f"negative sounds: {rule}",
            task="whole sounds",
            metrics={name: float(value) for name, value in values.items()},
            counts={"entries": entries},
            notes=("The threshold was estimated on the scored samples (oracle)",) if self.oracle else (),
        )


def check_raw(name: str, maps: Any) -> None:
    """Raises unless ``maps`` is a floating tensor of finite maps with at least one pixel each."""
    check_floating(name, maps)
    check_values(name, maps)
    if maps.ndim != 3 or 0 in maps.shape[-2:]:
        raise ValueError(f"Expected `{name}` to have shape (B, h, w) with h, w >= 1, but got {tuple(maps.shape)}")
    extremes(name, maps)


def _check_kinds(kinds: Any) -> tuple[str, ...]:
    if not isinstance(kinds, tuple | list) or not all(isinstance(kind, str) for kind in kinds):
        raise TypeError(f"Expected `kinds` to be a tuple of names, but got {kinds!r}")
    if not kinds or len(set(kinds)) < len(kinds) or "own" in kinds:
        raise ValueError(f"Expected `kinds` to be one or more distinct names other than 'own', but got {kinds!r}")
    return tuple(kinds)


def _parts(values: Tensor, size: tuple[int, ...]) -> Iterator[Tensor]:
    """Yields as many rows at once as keep the marked pixels of one kind within a fixed number."""
    yield from torch.split(values, max(1, _PIXELS // (size[0] * size[1])))


def _resized(maps: Tensor, size: tuple[int, ...], upsampling: str) -> Tensor:
    sides = (size[0], size[1])
    (maps,) = at_least_float32(maps)
    resize = resize_bicubic if upsampling.startswith("bicubic") else resize_bilinear
    return resize(maps, sides, align_corners=upsampling.endswith("aligned corners"))


def _iou(a: Tensor, b: Tensor) -> Tensor:
    union = (a | b).sum((-2, -1)).double()
    return torch.where(union == 0, 1.0, (a & b).sum((-2, -1)) / union.clamp(min=1))


def _harmonic(a: Tensor, b: Tensor) -> Tensor:
    return ratio_or_zero(2 * a * b, a + b)
