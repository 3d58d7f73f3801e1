"""Metrics with one number each, for loggers that expect one number per metric."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from torch import Tensor

from sslosses._checks import check_number
from sslosses.metrics import protocols
from sslosses.metrics._pipeline.tables import metrics_of
from sslosses.metrics._protocol import parse_metric
from sslosses.metrics.localization import LocalizationTables


class LocalizationMetric(LocalizationTables):
    """Computes one metric of a protocol; ``update`` is that of :class:`~sslosses.metrics.SoundLocalization`.

    Args:
        metric: name of the metric, e.g. ``"CIoU@0.3"``, see :class:`~sslosses.metrics.protocols.Protocol`.
        protocol: name of a protocol, or a protocol object. It need not report that metric itself.
        kwargs: as for :class:`~sslosses.metrics.SoundLocalization`.

    Raises:
        ValueError: if there is no such metric or option; the message lists the allowed values.

    Example:
        >>> import torch
        >>> from sslosses.metrics import LocalizationMetric
        >>> metric = LocalizationMetric("mCIoU", protocol="clean", task="single")
        >>> metric.update(torch.eye(2)[None, None], [[[(0.0, 0.0, 0.5, 0.5)]]])
        >>> round(metric.compute().item(), 3)
        0.5
    """

    def __init__(self, metric: str, protocol: str | protocols.Protocol = "paper", **kwargs: Any) -> None:
        parse_metric(metric)
        super().__init__(protocol, metrics=(metric,), **kwargs)

    def compute(self) -> Tensor:
        """Computes the metric of all samples so far, 0-d float64 in [0, 1], NaN without an entry.

        Warns:
            UserWarning: as :meth:`SoundLocalization.compute`.
        """
        entries, samples = self.tables()
        self._warn(samples)
        return metrics_of(self.metrics, entries, samples, self.protocol.average_positions)[self.metrics[0]]

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots the metric with matplotlib; arguments and result as for :meth:`SoundLocalization.plot`."""
        return self._plot(val, ax)


class CAP(LocalizationMetric):
    """Computes the mean pixel average precision over entries."""

    def __init__(self, protocol: str | protocols.Protocol = "paper", **kwargs: Any) -> None:
        super().__init__("CAP", protocol, **kwargs)


class CIoU(LocalizationMetric):
    """Computes the share of entries with cIoU of at least ``threshold``, or with None the mean cIoU."""

    def __init__(
        self, threshold: float | None = 0.3, protocol: str | protocols.Protocol = "paper", **kwargs: Any
    ) -> None:
        if threshold is not None:
            threshold = check_number("threshold", threshold, above=0, most=1)
        # All digits of the threshold: a cIoU of exactly 2/3 reaches 2/3, but not 0.666667.
        metric = "mCIoU" if threshold is None else f"CIoU@{Decimal(str(threshold)):f}"
        super().__init__(metric, protocol, **kwargs)


class AUC(LocalizationMetric):
    """Computes the area under the share of entries with cIoU ≥ t over t = 0, 0.05, …, 1."""

    def __init__(self, protocol: str | protocols.Protocol = "paper", **kwargs: Any) -> None:
        super().__init__("AUC", protocol, **kwargs)


class PIAP(LocalizationMetric):
    """Computes the mean pixel average precision of the samples' summed maps."""

    def __init__(self, protocol: str | protocols.Protocol = "noprior", **kwargs: Any) -> None:
        super().__init__("PIAP", protocol, **kwargs)


class CountingAccuracy(LocalizationMetric):
    """Computes the share of samples with as many maps as sources."""

    def __init__(self, protocol: str | protocols.Protocol = "noprior", **kwargs: Any) -> None:
        super().__init__("CountAcc", protocol, **kwargs)


class Coverage(LocalizationMetric):
    """Computes the share of samples with a map.

    Report it beside metrics that leave out samples without a map, such as :class:`CAP`, :class:`CIoU` and :class:`AUC`
    of the protocol ``"paper"``: a model that finds no map in hard samples raises them.

    Example:
        >>> import torch
        >>> from sslosses.metrics import Coverage
        >>> metric = Coverage(task="single")
        >>> metric.update([torch.eye(2)[None], torch.zeros(0, 2, 2)], [[[(0.0, 0.0, 0.5, 0.5)]]] * 2)
        >>> metric.compute().item()
        0.5
    """

    def __init__(self, protocol: str | protocols.Protocol = "paper", **kwargs: Any) -> None:
        super().__init__("Coverage", protocol, **kwargs)
