"""Each figure as a metric of its own, for a logger that wants one number."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from torch import Tensor

from sslosses._checks import check_number
from sslosses.metrics import protocols
from sslosses.metrics._pipeline.tables import figures_of
from sslosses.metrics.localization import LocalizationTables


class LocalizationFigure(LocalizationTables):
    """One figure of a protocol; ``update`` is that of :class:`~sslosses.metrics.SoundLocalization`.

    Args:
        figure: name of the figure, see :class:`~sslosses.metrics.protocols.Protocol`, e.g. ``"CIoU@0.3"``.
        protocol: name of a preset, or a protocol; it need not report that figure itself.
        kwargs: as for :class:`~sslosses.metrics.SoundLocalization`.

    Raises:
        ValueError: if there is no such figure or option; the message lists what there is.

    Example:
        >>> import torch
        >>> from sslosses.metrics import LocalizationFigure
        >>> metric = LocalizationFigure("mCIoU", protocol="clean", task="single")
        >>> metric.update(torch.eye(2)[None, None], [[[(0.0, 0.0, 0.5, 0.5)]]])
        >>> round(metric.compute().item(), 3)
        0.5
    """

    def __init__(self, figure: str, protocol: str | protocols.Protocol = "paper", **kwargs: Any) -> None:
        """Check the figure."""
        protocols.parse_figure(figure)
        super().__init__(protocol, figures=(figure,), **kwargs)

    def compute(self) -> Tensor:
        """The figure of all samples so far, 0-d float64 in [0, 1]; NaN while there is no entry."""
        entries, samples = self.tables()
        return figures_of(self.figures, entries, samples, self.protocol.average_positions)[self.figures[0]]

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the figure with matplotlib; arguments and result as of :meth:`SoundLocalization.plot`."""
        return self._plot(val, ax)


class CAP(LocalizationFigure):
    """Mean pixel average precision over entries."""

    def __init__(self, protocol: str | protocols.Protocol = "paper", **kwargs: Any) -> None:
        """As :class:`LocalizationFigure`."""
        super().__init__("CAP", protocol, **kwargs)


class CIoU(LocalizationFigure):
    """Share of entries with cIoU of at least ``threshold``; with None, mean cIoU."""

    def __init__(
        self, threshold: float | None = 0.3, protocol: str | protocols.Protocol = "paper", **kwargs: Any
    ) -> None:
        """As :class:`LocalizationFigure`."""
        if threshold is not None:
            check_number("threshold", threshold, above=0, most=1)
        # All digits: a cIoU of exactly 2/3 reaches 2/3, and not 0.666667.
        figure = "mCIoU" if threshold is None else f"CIoU@{Decimal(str(threshold)):f}"
        super().__init__(figure, protocol, **kwargs)


class AUC(LocalizationFigure):
    """Area under the share of entries with cIoU ≥ t over t = 0, 0.05, …, 1."""

    def __init__(self, protocol: str | protocols.Protocol = "paper", **kwargs: Any) -> None:
        """As :class:`LocalizationFigure`."""
        super().__init__("AUC", protocol, **kwargs)


class PIAP(LocalizationFigure):
    """Mean pixel average precision of the samples' summed maps."""

    def __init__(self, protocol: str | protocols.Protocol = "noprior", **kwargs: Any) -> None:
        """As :class:`LocalizationFigure`."""
        super().__init__("PIAP", protocol, **kwargs)


class CountingAccuracy(LocalizationFigure):
    """Share of samples with as many maps as sources."""

    def __init__(self, protocol: str | protocols.Protocol = "noprior", **kwargs: Any) -> None:
        """As :class:`LocalizationFigure`."""
        super().__init__("CountAcc", protocol, **kwargs)
