"""Silent-object discrimination as a torchmetrics metric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sslosses.metrics.functional.discrimination import pair_outcomes


class SilentObjectDiscrimination(Metric):
    """Computes the share of (sounding, silent) object pairs whose mean map value is higher on the sounding object.

    Chance is 0.5. See :func:`~sslosses.metrics.functional.silent_object_discrimination` for the equation.

    Args:
        kwargs: passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from sslosses.metrics import SilentObjectDiscrimination
        >>> metric = SilentObjectDiscrimination()
        >>> maps = torch.tensor([[[0.9, 0.2, 0.9]]])
        >>> sounding = torch.tensor([[[True, False, False]]])
        >>> silent = torch.tensor([[[[False, True, False]], [[False, False, True]]]])
        >>> metric.update(maps, sounding, silent, same_class=torch.tensor([[False, True]]))
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'share': 0.75, 'same_class_share': 0.5, 'pairs': 2, 'same_class_pairs': 1}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    wins: Tensor
    same_class_wins: Tensor
    pairs: Tensor
    same_class_pairs: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("wins", "same_class_wins"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("pairs", "same_class_pairs"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        maps: Tensor,
        sounding: Tensor,
        silent: Tensor,
        same_class: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Adds one row per sounding source, with the silent objects of its frame.

        Args:
            maps: (B, h, w), floating.
            sounding: mask of the sounding object, (B, H, W), bool.
            silent: masks of silent objects, (B, Q, H, W), bool; pad with empty masks.
            same_class: whether the silent object has the class of the sounding one, (B, Q), bool; None: none has.
            valid: True for silent objects that exist, (B, Q), bool; None: all with a non-empty mask.

        Raises:
            TypeError: if dtypes are wrong.
            ValueError: if shapes or devices do not fit.
        """
        wins, counted, same = pair_outcomes(maps, sounding, silent, same_class, valid)
        self.wins += (wins * counted).sum(dtype=torch.float64)
        self.same_class_wins += (wins * (counted & same)).sum(dtype=torch.float64)
        self.pairs += counted.sum()
        self.same_class_pairs += (counted & same).sum()

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:  # noqa: ARG002
        """Keeps the sums in float64: other dtypes would round them."""
        return self

    def compute(self) -> dict[str, Tensor]:
        """Computes the shares over all pairs and over same-class pairs (float64, NaN without a pair), and the numbers
        of pairs (int64)."""
        return {
            "share": self.wins / self.pairs,
            "same_class_share": self.same_class_wins / self.same_class_pairs,
            "pairs": self.pairs.clone(),
            "same_class_pairs": self.same_class_pairs.clone(),
        }
