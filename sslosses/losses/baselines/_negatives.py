"""Which samples of a batch are the negatives of a sample, for losses that tell matching from mismatched pairs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_dense, check_option, check_shapes
from sslosses._torch import has_values
from sslosses.distributed import gather_rows

NEGATIVES = ("all", "shift")
#: What another sample gives to a mismatched pair: its sound or its frame.
SWAPS = ("sound", "frame")


class Negatives(NamedTuple):
    """The negatives of B samples among the G samples of the batch, which is that of all processes if gathered.

    Attributes:
        own: (B,), the index of each sample itself.
        partner: (B,), the index of its only negative; None if all others are negatives.
        counted: (B, G) bool, or (B, 1) with ``partner``; False for the sample itself and for samples with NaN or inf.
    """

    own: Tensor
    partner: Tensor | None
    counted: Tensor

    def select(self, rows: Tensor) -> Tensor:
        """The rows (G, ...) of each sample's negatives: (1, G, ...), or (B, 1, ...) with ``partner``."""
        return rows[None] if self.partner is None else rows[self.partner][:, None]

    def pick(self, values: Tensor) -> Tensor:
        """The values (B, G, ...) of each sample's negatives: (B, G, ...), or (B, 1, ...) with ``partner``."""
        if self.partner is None:
            return values
        return values[torch.arange(values.shape[0], device=values.device), self.partner][:, None]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values (B, G) or (B, 1) over the negatives, 0 for samples without a negative: (B,)."""
        return values.where(self.counted, 0).sum(1) / self.counted.sum(1).clamp(min=1)


def check_negatives(negatives: Any, **samples: tuple[Tensor, str]) -> None:
    """Raise unless the option is one of the words, or an index of samples, which are given as in ``check_shapes``."""
    if not isinstance(negatives, Tensor):
        check_option("negatives", negatives, NEGATIVES)
        return
    check_dense("negatives", negatives)
    if negatives.is_floating_point() or negatives.is_complex() or negatives.dtype == torch.bool:
        raise TypeError(f"Expected `negatives` to have an integer dtype, but got {negatives.dtype}")
    batch = check_shapes(**samples, negatives=(negatives, "B"))["B"]
    if has_values(negatives) and bool(((negatives < 0) | (negatives >= batch)).any()):
        raise ValueError(
            f"Expected `negatives` to hold indices of the {batch} samples, but got values from {int(negatives.min())} "
            f"to {int(negatives.max())}"
        )


def choose_negatives(negatives: str | Tensor, finite: Tensor, *, gather: bool) -> Negatives:
    """Choose the negatives of each sample.

    Args:
        negatives: "all"; "shift", the next sample without NaN or inf, and the first one after the last; or (B,)
            integers, the index of one sample of this process. A sample with its own index has no negative.
        finite: (B,) bool, False for samples with NaN or inf.
        gather: whether "all" and "shift" are about the samples of all processes.
    """
    everyone, offset = finite, 0
    if gather:
        flags, offset = gather_rows(finite.to(torch.float32))
        everyone = flags > 0
    own = offset + torch.arange(finite.shape[0], device=finite.device)
    if isinstance(negatives, Tensor):
        partner = offset + negatives.long()
    elif negatives == "shift":
        partner = _next(everyone)[own]
    else:
        samples = torch.arange(everyone.shape[0], device=finite.device)
        return Negatives(own, None, everyone & (samples != own[:, None]))
    return Negatives(own, partner, (everyone[partner] & (partner != own))[:, None])


def _next(finite: Tensor) -> Tensor:
    """The index of the next finite sample, cyclically: (G,) bool → (G,).

    So a sample with NaN or inf changes nothing for the others: they have the partners of a batch without it.
    """
    order = (~finite).to(torch.int8).argsort(stable=True)  # the finite samples come first
    rank = finite.cumsum(0) - 1
    return order[(rank + 1) % finite.sum().clamp(min=1)]
