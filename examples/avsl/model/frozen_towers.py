"""Frozen towers that a shared model names in place of their weights, because everybody can get these elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Config
from .encoders import Tower, build_encoders
from .encoders.efficientnet import LITE0
from .locations import is_hub_name

PARTS = ("visual", "audio")


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Computes the SHA-256 of tensors: of the name, type, shape and bytes of each, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def public_towers(model: Any) -> dict[str, dict[str, str]]:
    """Returns the name and the fingerprint of each frozen tower of ``model`` whose weights a package or the hub has.

    The weights are loaded to compare them. A tower with other values is not named: it has to be saved as it is.

    Raises:
        ModuleNotFoundError: if the package of a tower is missing.
        OSError: if a tower can't be loaded from the hub.
    """
    towers = {}
    for part in PARTS:
        encoder, weights = getattr(model, part), getattr(model.config, f"{part}_weights")
        if not isinstance(encoder, Tower) or not encoder.frozen or not _is_public(model.config, weights):
            continue
        sha256 = fingerprint(encoder.tower.state_dict())
        if fingerprint(_load(model.config, model.hparams["architectures"], part, weights)) == sha256:
            towers[part] = {"weights": weights, "sha256": sha256}
    return towers


def load_towers(named: Mapping[str, Mapping[str, str]], config: Config, architectures: Mapping[str, Any]) -> Any:
    """Loads the towers that a shared model names; returns their tensors by the names in the model.

    Raises:
        ModuleNotFoundError: if the package of a tower is missing.
        OSError: if a tower can't be loaded from the hub.
        ValueError: if a tower is not of a package or the hub, or has other values than when the model was shared.
    """
    state: dict[str, Tensor] = {}
    for part, tower in named.items():
        weights = tower["weights"]
        if part not in PARTS or not _is_public(config, weights):  # a foreign file must not select files of this machine
            raise ValueError(f"Expected the frozen tower {part!r} to be of a package or the hub, but got {weights!r}")
        values = _load(config, architectures, part, weights)
        if (sha256 := fingerprint(values)) != tower["sha256"]:
            raise ValueError(
                f"Expected `{part}_weights` {weights!r} to have the SHA-256 {tower['sha256']} with which the model was "
                f"trained, but got {sha256}"
            )
        state |= {f"{part}.tower.{name}": value for name, value in values.items()}
    return state


def _is_public(config: Config, weights: Any) -> bool:
    if config.backbone == "efficientnet-lite0":
        return weights == LITE0
    return config.backbone == "clip-clap" and isinstance(weights, str) and is_hub_name(weights)


def _load(config: Config, architectures: Mapping[str, Any], part: str, weights: str) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):  # the rest of both encoders gets random weights
        encoders = build_encoders(config, {**architectures, part: weights})
    tower: nn.Module = encoders[PARTS.index(part)].tower
    return tower.state_dict()
