"""Chance levels: a protocol's metrics for predictions that know nothing of the sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sslosses._checks import check_count, check_number
from sslosses.metrics._pipeline.samples import SampleTruths
from sslosses.metrics._pipeline.scorer import Canvases, Scorer
from sslosses.metrics.functional._inputs import check_size, check_values
from sslosses.metrics.layout import FrameLayout
from sslosses.metrics.localization import SoundLocalization
from sslosses.metrics.protocols import Protocol

_CHUNK = 64


class _WholeFrame(Scorer):
    """Scores the whole frame, which no map can express: above its own median is at most half of it."""

    def canvases(self, maps: Tensor, sources: int, priors: Tensor | None) -> Canvases:
        plain = super().canvases(maps, sources, priors)
        return Canvases(torch.ones_like(plain.scores), torch.ones_like(plain.binary), plain.confidence)


def chance_levels(
    truths: Tensor | Sequence[SampleTruths],
    protocol: str | Protocol = "paper",
    *,
    maps_per_sample: int | None = None,
    resolution: tuple[int, int] = (7, 7),
    seed: int = 0,
    sigma: float = 0.25,
    task: str = "mixtures",
    layout: str = "one",
) -> dict[str, dict[str, Tensor]]:
    """The metrics that a protocol gives to predictions that do not look at the sample.

    On the field's sets these are far from 0, so a metric says little without them beside it.

    Args:
        truths: the evaluation set's truths, as for :meth:`SoundLocalization.update`; they decide the number of sources.
        protocol: name of a protocol, or a protocol object.
        maps_per_sample: maps that each prediction has; None: as many as the sample has sources; one
            where the protocol has one entry a frame.
        resolution: height and width of the random maps, a frame.
        seed: seed of the random maps.
        sigma: standard deviation of the Gaussian, in frame sides, 0.001 to 1000. A binarization at the median sees
            only the order of the pixels, so there it changes nothing.
        task: as for :class:`SoundLocalization`.
        layout: as for :class:`SoundLocalization`.

    Returns:
        Results of :meth:`SoundLocalization.compute` for three predictions, ``"centered Gaussian"`` (the same one
        in the middle of every frame, for every source), ``"whole frame"`` (every pixel marked, as binary map) and
        ``"random maps"`` (independent uniform values at ``resolution``).

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range, or truths do not fit the protocol.

    Example:
        >>> import torch
        >>> from sslosses.metrics import chance_levels, protocols
        >>> truths = torch.zeros(10, 1, 32, 32, dtype=torch.bool)
        >>> truths[..., 8:24, 8:24] = True  # every object is in the middle, a quarter of the frame
        >>> levels = chance_levels(truths, protocols.paper.replace(size=32), task="single")
        >>> for name, metrics in levels.items():
        ...     print(f"{name}: IoU@0.5 {metrics['IoU@0.5']:.2f}, AP {metrics['AP']:.2f}")
        centered Gaussian: IoU@0.5 1.00, AP 0.51
        whole frame: IoU@0.5 0.00, AP 0.25
        random maps: IoU@0.5 0.00, AP 0.26
    """
    if maps_per_sample is not None:
        check_count("maps_per_sample", maps_per_sample)
    check_number("sigma", sigma, least=1e-3, most=1e3)  # beyond, all its values are equal
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"Expected `seed` to be an integer from -2⁶³ to 2⁶⁴ - 1, but got {seed!r}")
    if not isinstance(truths, Tensor | Sequence) or not len(truths):
        got = "an empty one" if isinstance(truths, Tensor | Sequence) else type(truths).__name__
        raise ValueError(f"Expected `truths` to be a tensor or a sequence of at least one sample, but got {got}")
    height, width = check_size("resolution", resolution)
    frames = FrameLayout(layout)
    plain = SoundLocalization(protocol, task=task, layout=layout)
    whole = SoundLocalization(protocol, task=task, layout=layout, scorer=_WholeFrame)
    generator = torch.Generator().manual_seed(seed)
    size = plain.protocol.size
    offset = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    gaussian = torch.exp(-(offset[:, None] ** 2 + offset**2) / (2 * sigma**2))
    if plain.protocol.inverts_maps:
        gaussian = -gaussian  # there a map is low where it sounds
    if maps_per_sample is None and plain.protocol.one_entry_per_frame:
        maps_per_sample = 1

    levels: dict[str, dict[str, Tensor]] = {}
    for name, metric in (("centered Gaussian", plain), ("whole frame", whole), ("random maps", plain)):
        metric.reset()
        for chunk in _chunks(truths):
            maps = []
            for truth in chunk:
                if isinstance(truth, Tensor):
                    check_values("truths", truth)
                sources = len(truth)
                device = truth.device if isinstance(truth, Tensor) else torch.device("cpu")
                count = sources if maps_per_sample is None else maps_per_sample
                down, across = frames.grid(sources)
                if name == "random maps":
                    drawn = torch.rand(count, down * height, across * width, generator=generator)
                    maps.append(drawn.to(device))
                else:
                    maps.append(gaussian.tile(count, down, across).to(device))
            metric.to(device).update(maps, chunk)
        levels[name] = metric.compute()
    return levels


def _chunks(truths: Tensor | Sequence[SampleTruths]) -> Iterator[Tensor | Sequence[SampleTruths]]:
    for start in range(0, len(truths), _CHUNK):
        yield truths[start : start + _CHUNK]
