"""From what a user passes to batches of one shape: checks, padding, grouping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sslosses._checks import check_floating, check_mask, check_shapes

FRAMES = ("one", "stacked", "side-by-side")


class Samples(NamedTuple):
    """Samples of one number of sources and one map resolution."""

    maps: Tensor  # (B, M, h, w); padded with zeros
    valid: Tensor  # (B, M), bool
    truths: Tensor  # (B, S, T, T), float


def batches(
    maps: Tensor | Sequence[Tensor],
    truths: Tensor | Sequence[Tensor],
    valid: Tensor | None,
    *,
    size: int,
    frames: str,
    most_sources: int | None,
) -> list[Samples]:
    """Check the arguments of an update and bring them into as few batches as their shapes allow."""
    for name, value in (("maps", maps), ("truths", truths)):
        wrong = [type(v).__name__ for v in value if not isinstance(v, Tensor)] if isinstance(value, Sequence) else []
        if wrong or not isinstance(value, Tensor | Sequence):
            kind = f"a sequence holding {wrong[0]}" if wrong else type(value).__name__
            raise TypeError(f"Expected `{name}` to be a tensor or a sequence of tensors, but got {kind}")
    if isinstance(maps, Tensor):
        check_floating("maps", maps)
        shape = check_shapes(maps=(maps, "B M h w"))
        if valid is None:
            valid = torch.ones(shape["B"], shape["M"], dtype=torch.bool, device=maps.device)
        check_mask("valid", valid)
        check_shapes(maps=(maps, "B M h w"), valid=(valid, "B M"))
    elif valid is not None:
        raise ValueError("Expected `valid` only with `maps` as one tensor; in a list, each sample has its own maps")
    if len(maps) != len(truths):
        raise ValueError(f"Expected as many samples in `truths` as in `maps` ({len(maps)}), but got {len(truths)}")
    if isinstance(maps, Tensor) and isinstance(truths, Tensor) and valid is not None:
        groups = [Samples(maps, valid, truths)] if len(maps) else []
    else:
        groups = _grouped(maps, truths, valid)
    return [_checked(group, size, frames, most_sources) for group in groups]


def _grouped(maps: Tensor | Sequence[Tensor], truths: Tensor | Sequence[Tensor], valid: Tensor | None) -> list[Samples]:
    members: dict[tuple[object, ...], list[int]] = {}
    for i in range(len(maps)):
        check_floating(f"maps[{i}]", maps[i])
        check_shapes(**{f"maps[{i}]": (maps[i], "M h w"), f"truths[{i}]": (truths[i], "S T T")})
        key = (maps[i].shape[1:], maps[i].dtype, truths[i].shape, truths[i].dtype)
        members.setdefault(key, []).append(i)
    groups = []
    for rows in members.values():
        chosen = [maps[i] for i in rows]
        counts = torch.tensor([len(m) for m in chosen])
        if valid is None:
            kept = torch.arange(int(counts.max())) < counts[:, None]
            kept = kept.to(chosen[0].device)
        else:
            kept = valid[rows]
        stacked = torch.stack([truths[i] for i in rows])
        groups.append(Samples(pad_sequence(chosen, batch_first=True), kept, stacked))
    return groups


def _checked(group: Samples, size: int, frames: str, most_sources: int | None) -> Samples:
    maps, valid, truths = group
    if truths.ndim != 4 or truths.shape[-2:] != (size, size) or truths.shape[1] == 0:
        raise ValueError(
            f"Expected each sample's truths to have shape (S, {size}, {size}) with S >= 1, "
            f"but got {tuple(truths.shape[1:])}"
        )
    check_shapes(maps=(maps, "B M h w"), truths=(truths, "B S T T"))
    sources = truths.shape[1]
    if most_sources is not None and sources > most_sources:
        raise ValueError(f"Expected at most {most_sources} source(s) a sample for this task, but got {sources}")
    axis = {"stacked": -2, "side-by-side": -1}.get(frames)
    if maps.shape[1] and (0 in maps.shape[-2:] or (axis and maps.shape[axis] % sources)):
        layout = {"one": "(M, h, w)", "stacked": f"(M, {sources}·h, w)", "side-by-side": f"(M, h, {sources}·w)"}[frames]
        raise ValueError(
            f"Expected the maps of a sample of {sources} source(s) to have shape {layout} with frames={frames!r}, "
            f"but got {tuple(maps.shape[1:])}"
        )
    if not bool(torch.isfinite(maps[valid]).all()):
        raise ValueError("Expected `maps` to be finite, but got NaN or infinite values")
    maps = torch.where(valid[..., None, None], maps, 0.0)  # what is masked out may hold anything
    truths = truths.to(truths.dtype if truths.dtype.is_floating_point else torch.float32)
    if not bool(((truths >= 0) & (truths <= 1)).all()):
        raise ValueError("Expected `truths` to hold values in [0, 1] only")
    return Samples(maps, valid, truths)
