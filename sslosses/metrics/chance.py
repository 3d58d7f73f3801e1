"""Chance levels: a protocol's metrics for input-independent predictions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslosses._checks import check_count, check_number, check_seed
from sslosses.metrics._pipeline.ids import Ids
from sslosses.metrics._pipeline.samples import Samples, SampleTruths
from sslosses.metrics._pipeline.scorer import Canvases, Scorer
from sslosses.metrics._pipeline.targets import Targets
from sslosses.metrics.functional._inputs import check_size, check_values
from sslosses.metrics.layout import FrameLayout
from sslosses.metrics.localization import QuietLocalization
from sslosses.metrics.protocols import Protocol

_CHUNK = 64


class _WholeFrame(Scorer):
    """Marks the whole frame, which no map can do by itself: at most half of its pixels are above its median."""

    def canvases(self, samples: Samples, targets: Targets) -> Canvases:
        plain = super().canvases(samples, targets)
        return plain._replace(scores=torch.ones_like(plain.scores))

    def binary(self, scores: Tensor, threshold: float | None, targets: Targets) -> Tensor:  # noqa: ARG002
        return torch.ones_like(scores)


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
    groups: Ids | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Computes a protocol's metrics for three predictions that do not depend on the sample.

    On the public data sets they are far from 0, so a metric says little without its chance level.

    Args:
        truths: ground truth of the evaluation set, as for :meth:`SoundLocalization.update`; it gives the number of
            sources of each sample. Samples without a source get one map.
        protocol: name of a protocol, or a protocol object.
        maps_per_sample: number of predicted maps; None: as many as the sample has sources, or one if the protocol has
            one entry per frame.
        resolution: height and width of the random maps, per frame.
        seed: seed of the random maps.
        sigma: standard deviation of the Gaussian, in frame sides, 0.001 to 1000. It has no effect if the binarization
            is at the median, which depends only on the order of the pixels.
        task: as for :class:`SoundLocalization`.
        layout: as for :class:`SoundLocalization`.
        groups: id of each sample's group, as for :meth:`SoundLocalization.update`.

    Returns:
        Results of :meth:`SoundLocalization.compute` for ``"centered Gaussian"`` (the same one in the middle of every
        frame, for every source), ``"whole frame"`` (a binary map with every pixel marked) and ``"random maps"``
        (independent uniform values at ``resolution``). Maps have values in [0, 1]; for a protocol with the
        normalization ``"fixed range"``, in [−1/τ, 1/τ].

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range, or the ground truth does not fit the protocol.

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
        maps_per_sample = check_count("maps_per_sample", maps_per_sample)
    sigma = check_number("sigma", sigma, least=1e-3, most=1e3)  # beyond, all values are equal
    check_seed("seed", seed)
    if not isinstance(truths, Tensor | Sequence) or not len(truths):
        got = "an empty one" if isinstance(truths, Tensor | Sequence) else type(truths).__name__
        raise ValueError(f"Expected `truths` to be a tensor or a sequence of at least one sample, but got {got}")
    if groups is not None and len(groups) != len(truths):
        raise ValueError(
            f"Expected as many ids in `groups` as samples in `truths` ({len(truths)}), but got {len(groups)}"
        )
    height, width = check_size("resolution", resolution)
    frames = FrameLayout(layout)
    plain = QuietLocalization(protocol, task=task, layout=layout)
    whole = QuietLocalization(protocol, task=task, layout=layout, scorer=_WholeFrame)
    generator = torch.Generator().manual_seed(seed)
    size = plain.protocol.size

    def spread(maps: Tensor) -> Tensor:
        """Values in [0, 1] over the range of a protocol that takes maps as they are."""
        tau = plain.protocol.tau
        return maps if tau is None or plain.protocol.normalization != "fixed range" else (2 * maps - 1) / tau

    offset = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    gaussian = torch.exp(-(offset[:, None] ** 2 + offset**2) / (2 * sigma**2))
    if plain.protocol.inverts_maps:
        gaussian = -gaussian  # maps of this protocol are low on sounding objects
    gaussian = spread(gaussian)
    if maps_per_sample is None and plain.protocol.one_entry_per_frame:
        maps_per_sample = 1

    levels: dict[str, dict[str, Tensor]] = {}
    for name, metric in (("centered Gaussian", plain), ("whole frame", whole), ("random maps", plain)):
        metric.reset()
        for start in range(0, len(truths), _CHUNK):
            chunk = truths[start : start + _CHUNK]
            maps = []
            for truth in chunk:
                if isinstance(truth, Tensor):
                    check_values("truths", truth)
                sources = len(truth)
                device = truth.device if isinstance(truth, Tensor) else torch.device("cpu")
                # Without a source, one map: its confidence is what counts.
                count = max(1, sources) if maps_per_sample is None else maps_per_sample
                down, across = frames.grid(sources)
                if name == "random maps":
                    drawn = torch.rand(count, down * height, across * width, generator=generator)
                    maps.append(spread(drawn).to(device))
                else:
                    maps.append(gaussian.tile(count, down, across).to(device))
            metric.to(device).update(maps, chunk, groups=None if groups is None else groups[start : start + _CHUNK])
        levels[name] = metric.compute()
    return levels
