"""Each metric as a metric of its own, for a logger that wants one number."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from torch import Tensor

from sslosses._checks import check_number
from sslosses.metrics import protocols
from sslosses.metrics._pipeline.tables import metrics_of
from sslosses.metrics.localization import LocalizationTables


class LocalizationMetric(LocalizationTables):
    """One metric of a protocol; ``update`` is that of :class:`~sslosses.metrics.SoundLocalization`.

    Args:
        metric: name of the metric, see :class:`~sslosses.metrics.protocols.Protocol`, e.g. ``"CIoU@0.3"``.
        protocol: name of a protocol, or a protocol object; it need not report that metric itself.
        kwargs: as for :class:`~sslosses.metrics.SoundLocalization`.

    Raises:
        ValueError: if there is no such metric or option; the message lists what there is.

    Example:
        >>> import torch
        >>> from sslosses.metrics import LocalizationMetric
        >>> metric = LocalizationMetric("mCIoU", protocol="clean", task="single")
        >>> metric.update(torch.eye(2)[None, None], [[[(0.0, 0.0, 0.5, 0.5)]]])
        >>> round(metric.compute().item(), 3)
        0.5
    """

    def __init__(self, metric: str, protocol: str | protocols.Protocol = "paper", **kwargs: Any) -> None:
        """Check the figure."""
        protocols.parse_metric(metric)
        super().__init__(protocol, metrics=(metric,), **kwargs)

    def compute(self) -> Tensor:
        """The metric of all samples so far, 0-d float64 in [0, 1]; NaN while there is no entry."""
        entries, samples = self.tables()
        return metrics_of(self.metrics, entries, samples, self.protocol.average_positions)[self.metrics[0]]

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the figure with matplotlib; arguments and result as of :meth:`SoundLocalization.plot`."""
        return self._plot(val, ax)


class CAP(LocalizationMetric):
    """Mean pixel average precision over entries."""

    def __init__(self, protocol: str | protocols.Protocol = "paper", **kwargs: Any) -> None:
        """As :class:`LocalizationMetric`."""
        super().__init__("CAP", protocol, **kwargs)


class CIoU(LocalizationMetric):
    """Share of entries with cIoU of at least ``threshold``; with None, mean cIoU."""

    def __init__(
        self, threshold: float | None = 0.3, protocol: str | protocols.Protocol = "paper", **kwargs: Any
    ) -> None:
        """As :class:`LocalizationMetric`."""
        if threshold is not None:
            check_number("threshold", threshold, above=0, most=1)
        # All digits: a cIoU of exactly 2/3 reaches 2/3, and not 0.666667.
        metric = "mCIoU" if threshold is None else f"CIoU@{Decimal(str(threshold)):f}"
        super().__init__(metric, protocol, **kwargs)


class AUC(LocalizationMetric):
    """Area under the share of entries with cIoU ≥ t over t = 0, 0.05, …, 1."""

    def __init__(self, protocol: str | protocols.Protocol = "paper", **kwargs: Any) -> None:
        """As :class:`LocalizationMetric`."""
        super().__init__("AUC", protocol, **kwargs)


class PIAP(LocalizationMetric):
    """Mean pixel average precision of the samples' summed maps."""

    def __init__(self, protocol: str | protocols.Protocol = "noprior", **kwargs: Any) -> None:
        """As :class:`LocalizationMetric`."""
        super().__init__("PIAP", protocol, **kwargs)


class CountingAccuracy(LocalizationMetric):
    """Share of samples with as many maps as sources."""

    def __init__(self, protocol: str | protocols.Protocol = "noprior", **kwargs: Any) -> None:
        """As :class:`LocalizationMetric`."""
        super().__init__("CountAcc", protocol, **kwargs)
