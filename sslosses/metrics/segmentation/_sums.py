"""What the metrics of masks share: states that are sums, which only fit sums of the same settings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class SumsOfFrames(Metric):
    """Keeps sums over frames. Merging and loading refuse the sums of a metric with other settings."""

    is_differentiable = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    settings: Tensor

    def __init__(self, settings: dict[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        # As a state, they also keep a MetricCollection from sharing the sums of metrics with other settings.
        self.add_state("settings", torch.tensor(list(settings.values())), dist_reduce_fx="max")

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Adds the sums of another metric, or of its ``metric_state``.

        Raises:
            ValueError: if they are of other settings.
        """
        state: Any = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        if not isinstance(state, dict):
            raise TypeError(f"Expected `incoming_state` to be a metric or its state, but got {type(state).__name__}")
        self._check(state.get("settings"), "`incoming_state`")
        self._reduce_states(self._mergeable({name: value.to(self.device) for name, value in state.items()}))

    def _mergeable(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Prepares both states for their sum."""
        return state

    def _check(self, other: Any, name: str) -> None:
        if not isinstance(other, Tensor) or not torch.equal(other.cpu(), self.settings.cpu()):
            known = ", ".join(f"{setting} {value}" for setting, value in self._settings.items())
            raise ValueError(f"Expected {name} to be of a metric with {known}, but got one of other settings")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        try:
            self._check(state_dict.get(f"{prefix}settings", self.settings), f"the state of {prefix or 'this metric'}")
        except ValueError as error:
            args[-1].append(str(error))
            return
        super()._load_from_state_dict(state_dict, prefix, *args)

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:  # noqa: ARG002
        """Keeps the sums in float64: other dtypes would round them."""
        return self
