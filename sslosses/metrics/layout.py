"""Layout of a sample's maps: where the frames of its sources are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sslosses._checks import check_option

_MOST_CHANNELS = 4  # of a picture with transparency
LAYOUTS = ("one", "stacked", "side-by-side")


@dataclass(frozen=True)
class FrameLayout:
    """Layout of the frames in the maps of a sample.

    Args:
        name: ``"one"``: all sources are in one frame. ``"stacked"``: source j is alone on frame j, and the frames are
            stacked along the height. ``"side-by-side"``: the same along the width.

    Raises:
        ValueError: if ``name`` is none of these.

    Example:
        >>> import torch
        >>> from sslosses.metrics.layout import FrameLayout
        >>> layout = FrameLayout("stacked")
        >>> layout.grid(sources=2), layout.shape(sources=2)
        ((2, 1), '(M, 2·h, w)')
        >>> layout.split(torch.zeros(5, 14, 7), sources=2).shape
        torch.Size([5, 2, 7, 7])
    """

    name: str = "one"

    def __post_init__(self) -> None:
        check_option("layout", self.name, LAYOUTS)

    @property
    def axis(self) -> int | None:
        """Dimension along which the frames follow each other: −2, −1, or None for one frame."""
        return {"stacked": -2, "side-by-side": -1}.get(self.name)

    def grid(self, sources: int) -> tuple[int, int]:
        """Number of frames along the height and along the width of a map; a map without a source has one frame."""
        sources = max(1, sources)
        return {"stacked": (sources, 1), "side-by-side": (1, sources)}.get(self.name, (1, 1))

    def split(self, maps: Tensor, sources: int) -> Tensor:
        """Splits maps (..., h, w) into their F frames, (..., F, h', w')."""
        down, across = self.grid(sources)
        height, width = maps.shape[-2:]
        grid = maps.reshape(*maps.shape[:-2], down, height // down, across, width // across)
        return grid.movedim(-2, -3).flatten(-4, -3)

    def channels_last(self, shape: Sequence[int], sources: int) -> bool:
        """Whether maps of this shape are one map (h, w, C) with its channels last, far more likely than h maps.

        Read as (M, h, w), there are more maps than sources, and they are slivers of 1 to 4 columns.
        """
        maps, height, width = shape
        down, across = self.grid(sources)
        return width // across < min(maps, height // down) and width // across <= _MOST_CHANNELS and maps > sources

    def shape(self, sources: int, *, height: str = "h", width: str = "w") -> str:
        """Shape of a sample's maps as text, with the height and width of one frame as named."""
        sides = [height, width]
        if self.axis is not None:
            sides[self.axis] = f"{max(1, sources)}·{sides[self.axis]}"
        return f"(M, {', '.join(sides)})"
