"""Named evaluation protocols: what exactly CAP, CIoU or AUC stand for.

Papers of this field print the same names for different computations, so a figure is only comparable with another one of
the same protocol. :data:`noprior` is what the public evaluation code of NoPrior computes (Kim et al., Learning to
Visually Localize Sound Sources from Mixtures without Prior Source Knowledge, CVPR 2024). :data:`paper` is the same
computation under the figure names of the object-aware losses' paper, whose code is not public and which says that it
follows NoPrior's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from dataclasses import replace as _replace
from typing import Any

from sslosses._checks import check_count, check_option

__all__ = ["Protocol", "available", "get", "noprior", "paper"]

UPSAMPLINGS = ("bicubic",)
BINARIZATIONS = ("above upper median",)
ASSIGNMENTS = ("greedy",)
TASKS = ("mixtures", "single")
FIGURES = ("CAP", "AP", "CIoU@t", "IoU@t", "AUC", "PIAP", "CountAcc")


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol: from raw heatmaps to named figures.

    Args:
        name: the protocol's name.
        mixture_figures: figures reported for samples of several sources, in the order of the result.
        single_figures: figures reported for samples of one source.
        size: side T of a frame; truths are T×T, maps are resized to it.
        upsampling: ``"bicubic"``: a = −0.75, half-pixel centres.
        binarization: ``"above upper median"``: per frame, min-max, then above the value at ⌊N/2⌋ of the sorted pixels.
        assignment: ``"greedy"``: every map in turn takes the source with the largest cIoU among those left.

    The figures: ``"CAP"`` or ``"AP"``, mean over entries of the pixel average precision of the binary map; ``"CIoU@t"``
    or ``"IoU@t"``, share of entries with cIoU ≥ t; ``"AUC"``, area under that share over t = 0, 0.05, …, 1; ``"PIAP"``,
    mean over samples with a map of the pixel average precision of their summed map, binarised per frame, against all
    sources together; ``"CountAcc"``, share of samples with as many maps as sources.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is none of the values above; the message lists them.

    Example:
        >>> from sslosses.metrics import protocols
        >>> print(protocols.paper)
        paper: 224×224, bicubic, above upper median, greedy; mixtures: CAP, CIoU@0.3, AUC; single: AP, IoU@0.5, AUC
        >>> print(protocols.paper.replace(mixture_figures=("CIoU@0.1",)).name)
        paper (changed)
    """

    name: str
    mixture_figures: tuple[str, ...]
    single_figures: tuple[str, ...]
    size: int = 224
    upsampling: str = "bicubic"
    binarization: str = "above upper median"
    assignment: str = "greedy"

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"Expected `name` to be a non-empty string, but got {self.name!r}")
        check_count("size", self.size)
        check_option("upsampling", self.upsampling, UPSAMPLINGS)
        check_option("binarization", self.binarization, BINARIZATIONS)
        check_option("assignment", self.assignment, ASSIGNMENTS)
        for field in ("mixture_figures", "single_figures"):
            figures = getattr(self, field)
            if not isinstance(figures, tuple) or not figures or len(set(figures)) != len(figures):
                raise TypeError(f"Expected `{field}` to be a non-empty tuple of distinct names, but got {figures!r}")
            for figure in figures:
                parse_figure(figure)

    def __str__(self) -> str:
        """Name and contents in one line."""
        how = ", ".join((f"{self.size}×{self.size}", self.upsampling, self.binarization, self.assignment))
        return (
            f"{self.name}: {how}; mixtures: {', '.join(self.mixture_figures)}; single: {', '.join(self.single_figures)}"
        )

    def figures(self, task: str) -> tuple[str, ...]:
        """The figures reported for ``task``, ``"mixtures"`` or ``"single"``."""
        check_option("task", task, TASKS)
        return self.mixture_figures if task == "mixtures" else self.single_figures

    def replace(self, **changes: Any) -> Protocol:
        """Return a copy with some fields changed.

        Unless a new ``name`` is among the changes, the copy is called "<name> (changed)": a figure of it is not
        comparable with one of the original.

        Raises:
            TypeError: if a change names no field, or has the wrong type.
            ValueError: if a value is not available.
        """
        known = [field.name for field in fields(self)]
        unknown = [name for name in changes if name not in known]
        if unknown:
            raise TypeError(f"Expected changes to be among {', '.join(known)}, but got {', '.join(unknown)}")
        name = self.name if self.name.endswith(" (changed)") else f"{self.name} (changed)"
        return _replace(self, **{"name": name, **changes})


def parse_figure(figure: str) -> tuple[str, float | None]:
    """Kind of a figure (``"AP"``, ``"success"``, ``"AUC"``, ``"PIAP"``, ``"CountAcc"``), and its threshold if it has
    one.

    Raises:
        ValueError: if there is no such figure; the message lists what there is.
    """
    if figure in ("CAP", "AP"):
        return "AP", None
    if figure in ("AUC", "PIAP", "CountAcc"):
        return figure, None
    match = re.fullmatch(r"C?IoU@(\d*\.?\d+)", figure) if isinstance(figure, str) else None
    if match is None or not 0 < float(match[1]) <= 1:
        raise ValueError(f"Expected a figure to be one of {', '.join(FIGURES)} with 0 < t <= 1, but got {figure!r}")
    return "success", float(match[1])


paper = Protocol("paper", mixture_figures=("CAP", "CIoU@0.3", "AUC"), single_figures=("AP", "IoU@0.5", "AUC"))
noprior = Protocol(
    "noprior",
    mixture_figures=("CAP", "CIoU@0.3", "CIoU@0.5", "AUC", "PIAP", "CountAcc"),
    single_figures=("CAP", "CIoU@0.3", "CIoU@0.5", "AUC", "PIAP", "CountAcc"),
)

_PRESETS = {protocol.name: protocol for protocol in (noprior, paper)}


def available() -> tuple[str, ...]:
    """Names of the presets."""
    return tuple(_PRESETS)


def get(protocol: str | Protocol) -> Protocol:
    """The preset of that name; a :class:`Protocol` is returned as it is.

    Raises:
        TypeError: if ``protocol`` is neither.
        ValueError: if there is no preset of that name; the message lists those there are.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if not isinstance(protocol, str):
        raise TypeError(f"Expected `protocol` to be a name or a Protocol, but got {type(protocol).__name__}")
    check_option("protocol", protocol, available())
    return _PRESETS[protocol]
