"""A metric whose sums are of fixed rules, and are never mixed with those of others."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class RuledMetric(Metric):
    """Refuses to merge with, or to load, a metric of other rules.

    A digest of the rules is one of its states. It also keeps a MetricCollection, which shares the states of metrics
    whose states are equal after their first update, from taking two metrics of different rules for one.
    """

    rules: Tensor

    def _fix_rules(self, description: str, *rules: Any) -> None:
        """Adds the digest of ``rules``, all of whose values are known by their ``repr``.

        Errors say that a state of the rules in ``description`` was expected.
        """
        self._description = description
        digest = torch.tensor(list(hashlib.sha256(repr(rules).encode()).digest()), dtype=torch.uint8)
        self.add_state("rules", digest, dist_reduce_fx="max")

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Adds the samples of another metric, or of its ``metric_state``.

        Raises:
            ValueError: if they are of other rules.
        """
        state = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        if isinstance(state, dict) and not self._same_rules(state.get("rules")):
            raise ValueError(f"Expected `incoming_state` to be {self._description}, but got one of other rules")
        super().merge_state(incoming_state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if not self._same_rules(state_dict.get(f"{prefix}rules", self.rules)):
            name = prefix or "this metric"
            args[-1].append(f"Expected the state of {name} to be {self._description}, but got one of other rules")
            return
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _same_rules(self, other: Any) -> bool:
        return isinstance(other, Tensor) and torch.equal(other.cpu(), self.rules.cpu())
