"""Samples: checks the arguments of an update once and groups them into batches of one shape."""

from __future__ import annotations

import contextlib
import math
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sslosses._checks import FARTHEST_CORNER, IN_PIXELS, check_floating, check_mask, check_shapes
from sslosses._torch import at_least_float32
from sslosses.metrics.functional._inputs import MOST_SIDE, check_maps, check_values
from sslosses.metrics.layout import FrameLayout

MOST_SOURCES = 53  # a float64 keeps one bit per source
_MOST_CLASS = 2**53  # class ids are kept as float64

#: The boxes of one source: rows (xmin, ymin, xmax, ymax) as fractions of the frame.
Boxes = Sequence[Sequence[float]] | Tensor
#: The ground truth of one sample: masks or fractional maps (S, T, T), or the boxes of each source.
SampleTruths = Tensor | Sequence[Boxes]
_BoxRows = list[list[float]]


class Samples(NamedTuple):
    """Samples with the same number of sources and the same map resolution."""

    place: Tensor  # (B,), position in the update
    maps: Tensor  # (B, M, h, w), padded with zeros
    valid: Tensor  # (B, M), bool, False for padding
    truths: Tensor  # (B, S, T, T), or if `boxed`, boxes (B, S, n, 4) padded with NaN
    boxed: bool
    map_classes: Tensor  # (B, M), int64, -1 where unknown
    source_classes: Tensor  # (B, S), int64, -1 where unknown
    confidences: Tensor | None  # (B, M)
    priors: Tensor | None  # (B, h, w)

    def chunks(self, length: int) -> Iterator[Samples]:
        """The same samples in chunks of ``length``."""
        for start in range(0, len(self.place), length):
            part = slice(start, start + length)
            cut: dict[str, Any] = {k: v[part] for k, v in self._asdict().items() if isinstance(v, Tensor)}
            yield self._replace(**cut)

    def merged(self) -> Samples:
        """The same samples with the sum of their maps as the only map, with the largest of their confidences."""
        confidences = self.confidences
        if confidences is not None:
            confidences = confidences.where(self.valid, -torch.inf).amax(1, keepdim=True)
        return self._replace(
            maps=self.maps.sum(1, keepdim=True), valid=self.valid.any(1, keepdim=True), confidences=confidences
        )


def batches(
    maps: Tensor | Sequence[Tensor],
    truths: Tensor | Sequence[SampleTruths],
    valid: Tensor | None,
    extras: dict[str, Any],
    *,
    size: int,
    layout: FrameLayout,
    most_sources: int | None,
) -> list[Samples]:
    """Checks the arguments of an update and groups the samples into as few batches as their shapes allow."""
    _check_types(maps, truths)
    valid = _checked_valid(maps, valid)
    _check_counts(len(maps), {"truths": truths, **extras})
    if isinstance(maps, Tensor) and isinstance(truths, Tensor) and valid is not None:
        check_values("truths", truths)
        groups = [_batch(torch.arange(len(maps)), maps, valid, truths, False, extras)] if len(maps) else []
    else:
        groups = _grouped(maps, truths, valid, extras)
    return [_checked(group, size, layout, most_sources) for group in groups]


def _check_types(maps: Any, truths: Any) -> None:
    for name, value, allowed in (("maps", maps, Tensor), ("truths", truths, Tensor | Sequence)):
        wrong = [type(v).__name__ for v in value if not isinstance(v, allowed)] if isinstance(value, Sequence) else []
        if wrong or not isinstance(value, Tensor | Sequence):
            kind = f"a sequence holding {wrong[0]}" if wrong else type(value).__name__
            raise TypeError(f"Expected `{name}` to be a tensor or a sequence of tensors, but got {kind}")


def _checked_valid(maps: Tensor | Sequence[Tensor], valid: Tensor | None) -> Tensor | None:
    """``valid`` as (B, M) for one tensor of maps; None for a list."""
    if not isinstance(maps, Tensor):
        if valid is not None:
            raise ValueError("Expected `valid` only with `maps` as one tensor; in a list, each sample has its own maps")
        return None
    check_floating("maps", maps)
    check_values("maps", maps)
    shape = check_shapes(maps=(maps, "B M h w"))
    if valid is None:
        return torch.ones(shape["B"], shape["M"], dtype=torch.bool, device=maps.device)
    check_mask("valid", valid)
    check_shapes(maps=(maps, "B M h w"), valid=(valid, "B M"))
    return valid


def _check_counts(samples: int, arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if value is None:
            continue
        try:
            count = len(value)
        except TypeError:
            raise TypeError(f"Expected `{name}` to hold one row per sample, but got {value!r}") from None
        if count != samples:
            raise ValueError(f"Expected as many samples in `{name}` as in `maps` ({samples}), but got {count}")


def _grouped(
    maps: Tensor | Sequence[Tensor],
    truths: Tensor | Sequence[SampleTruths],
    valid: Tensor | None,
    extras: dict[str, Any],
) -> list[Samples]:
    members: dict[tuple[object, ...], list[int]] = {}
    checked: list[Tensor | list[_BoxRows]] = []
    for i in range(len(maps)):
        map_shape = () if isinstance(maps, Tensor) else _checked_map_shape(maps, i)
        truth, truth_shape = _checked_truth(maps[i], truths[i], i)
        checked.append(truth)
        members.setdefault((*map_shape, *truth_shape), []).append(i)
    groups = []
    for rows in members.values():
        place = torch.tensor(rows)
        if isinstance(maps, Tensor) and valid is not None:
            padded, present = maps[place.to(maps.device)], valid[place.to(valid.device)]
        else:
            padded = pad_sequence([maps[i] for i in rows], batch_first=True)
            counts = torch.tensor([len(maps[i]) for i in rows])
            present = (torch.arange(padded.shape[1]) < counts[:, None]).to(padded.device)
        group_truths = [checked[i] for i in rows]
        boxed = not isinstance(group_truths[0], Tensor)
        if boxed:
            stacked = _padded_boxes([sample for sample in group_truths if not isinstance(sample, Tensor)])
        else:
            stacked = torch.stack([truth for truth in group_truths if isinstance(truth, Tensor)])
        groups.append(_batch(place, padded, present, stacked.to(padded.device), boxed, extras))
    return groups


def _checked_map_shape(maps: Sequence[Tensor], i: int) -> tuple[object, ...]:
    """Checks the maps of a sample; returns their shape and dtype, which must be the same for all samples of a batch."""
    name = f"maps[{i}]"
    check_floating(name, maps[i])
    check_values(name, maps[i])
    check_shapes(**{name: (maps[i], "M h w")})
    if maps[i].device != maps[0].device:
        raise ValueError(f"Expected `{name}` to be on the device of `maps[0]`, but got {maps[i].device}")
    return maps[i].shape[1:], maps[i].dtype


def _checked_truth(maps: Tensor, truth: SampleTruths, i: int) -> tuple[Tensor | list[_BoxRows], tuple[object, ...]]:
    """The ground truth of a sample, and its shape, which must be the same for all samples of a batch."""
    name = f"truths[{i}]"
    if isinstance(truth, Tensor):
        check_values(name, truth)
        check_shapes(**{f"maps[{i}]": (maps, "M h w"), name: (truth, "S T T")})
        return truth, (truth.shape, truth.dtype)
    sources = [_box_rows(name, boxes) for boxes in truth]
    # The number of boxes is part of the shape: the number of cells between their edges grows with its square.
    return sources, (len(sources), max(map(len, sources), default=0))


def _box_rows(name: str, boxes: Boxes) -> _BoxRows:
    """The boxes of one source as plain numbers."""
    try:
        rows = boxes.tolist() if isinstance(boxes, Tensor) else boxes
        if all(len(row) == 4 and all(map(math.isfinite, row)) for row in rows):
            plain = [[float(value) for value in row] for row in rows]
            if all(max(row) <= FARTHEST_CORNER for row in plain):
                return plain
            raise ValueError(
                f"Expected `{name}` to hold boxes as fractions of the frame, but got {reprlib.repr(boxes)}, {IN_PIXELS}"
            )
    except (TypeError, OverflowError, NotImplementedError):  # not a number, too large, or on the device meta
        pass
    raise ValueError(
        f"Expected `{name}` to hold for each source rows of 4 finite numbers (xmin, ymin, xmax, ymax), "
        f"but got {reprlib.repr(boxes)}"
    )


def _padded_boxes(samples: list[list[_BoxRows]]) -> Tensor:
    """Boxes of samples with the same number of sources, (B, S, n, 4), padded with NaN; n is at least 1."""
    flat: list[list[float]] = []
    places: list[tuple[int, int, int]] = []
    most = 1
    for b, sample in enumerate(samples):
        for s, rows in enumerate(sample):
            flat.extend(rows)
            places.extend((b, s, n) for n in range(len(rows)))
            most = max(most, len(rows))
    table = torch.full((len(samples), len(samples[0]), most, 4), torch.nan, dtype=torch.float64)
    if flat:
        table[tuple(torch.tensor(places).T)] = torch.tensor(flat, dtype=torch.float64)
    return table


def _batch(index: Tensor, maps: Tensor, valid: Tensor, truths: Tensor, boxed: bool, extras: dict[str, Any]) -> Samples:
    def padded(name: str, width: int, dtype: torch.dtype, fill: float) -> Tensor:
        table = torch.full((len(index), width), fill, dtype=dtype)
        values = extras.get(name)
        if values is not None:
            for b, i in enumerate(index.tolist()):
                row = _row(f"{name}[{i}]", values[i], dtype)
                # In a list, a row has one value per map of its sample, so it can be shorter than the padded row.
                if row.ndim != 1 or len(row) > width or (len(row) < width and isinstance(values, Tensor)):
                    raise ValueError(f"Expected `{name}[{i}]` to have shape ({width},), but got {tuple(row.shape)}")
                table[b, : len(row)] = row
        return table.to(maps.device)

    count = maps.shape[1]
    return Samples(
        index,
        maps,
        valid,
        truths,
        boxed,
        padded("map_classes", count, torch.int64, -1),
        padded("source_classes", truths.shape[1] if truths.ndim == 4 else 0, torch.int64, -1),
        padded("confidences", count, torch.float64, 0) if extras.get("confidences") is not None else None,
        _stacked_priors(index, maps, extras["priors"]) if extras.get("priors") is not None else None,
    )


def _stacked_priors(index: Tensor, maps: Tensor, priors: Any) -> Tensor:
    for i in index.tolist():
        check_maps(f"priors[{i}]", priors[i])
        check_shapes(**{"priors[0]": (priors[0], "p q"), f"priors[{i}]": (priors[i], "p q")})
    (stacked,) = at_least_float32(torch.stack([priors[i] for i in index.tolist()]))
    check_shapes(maps=(maps, "B M h w"), priors=(stacked, "B p q"))
    return stacked


def _row(name: str, values: Any, dtype: torch.dtype) -> Tensor:
    """A row of class ids (int64) or numbers (float64)."""
    whole = dtype == torch.int64
    row = None
    with contextlib.suppress(TypeError, ValueError, RuntimeError, OverflowError):
        row = torch.as_tensor(values).cpu()
    if row is None or (row.numel() and (row.dtype == torch.bool or row.dtype.is_complex)):
        fits = False
    else:
        fits = not (whole and row.numel()) or (not row.dtype.is_floating_point and bool((row <= _MOST_CLASS).all()))
    if row is None or not fits:
        kind = f"integers up to {_MOST_CLASS}" if whole else "numbers"
        raise ValueError(f"Expected `{name}` to be a row of {kind}, but got {reprlib.repr(values)}")
    return row.to(dtype)


def _checked(group: Samples, size: int, layout: FrameLayout, most_sources: int | None) -> Samples:
    """The batch in at least float32 and with zeros for padding, after the checks of shapes and values."""
    (maps,) = at_least_float32(group.maps)
    valid, truths = group.valid, group.truths
    frame = truths.shape[-2:] == (size, size) or group.boxed
    if truths.ndim != 4 or not frame:
        raise ValueError(
            f"Expected each sample's truths to have shape (S, {size}, {size}), but got {tuple(truths.shape[1:])}"
        )
    check_shapes(maps=(maps, "B M h w"), truths=(truths, "B S T U"))
    _check_sources(maps, truths.shape[1], size, layout, most_sources)
    # A share of the largest number, so that sums and differences of maps and resized maps stay finite.
    limit = torch.finfo(maps.dtype).max / 8
    _check_range("maps", maps[valid], limit / max(1, maps.shape[1]))
    if group.priors is not None:
        _check_range("priors", group.priors, torch.finfo(group.priors.dtype).max / 8)
    if group.confidences is not None:
        _check_range("confidences", group.confidences, torch.inf)
    # Maps that are not valid may hold anything.
    return group._replace(maps=torch.where(valid[..., None, None], maps, 0.0))


def _check_sources(maps: Tensor, sources: int, size: int, layout: FrameLayout, most_sources: int | None) -> None:
    if most_sources is not None and sources > most_sources:
        raise ValueError(f"Expected at most {most_sources} source(s) per sample for this task, but got {sources}")
    if sources > MOST_SOURCES:
        raise ValueError(f"Expected at most {MOST_SOURCES} sources per sample, but got {sources}")
    if maps.shape[1] == 0:
        return
    down, across = layout.grid(sources)
    height, width = maps.shape[-2:]
    if 0 in (height, width) or height % down or width % across:
        raise ValueError(
            f"Expected the maps of a sample of {sources} source(s) to have shape {layout.shape(sources)} with "
            f"layout={layout.name!r}, but got {tuple(maps.shape[1:])}"
        )
    if layout.channels_last(maps.shape[1:], sources):
        raise ValueError(
            f"Expected the maps of a sample of {sources} source(s) to have shape {layout.shape(sources)}, but got "
            f"{tuple(maps.shape[1:])}, which looks like one map with its channels last. Move the last dimension to the "
            "front"
        )
    if max(down, across) * size > MOST_SIDE:
        raise ValueError(
            f"Expected the frames of a sample to have at most {MOST_SIDE} pixels along a side with "
            f"layout={layout.name!r}, but got {sources} frames of {size}"
        )


def _check_range(name: str, values: Tensor, limit: float) -> None:
    if values.numel() == 0:
        return
    largest = float(values.abs().amax())
    if not math.isfinite(largest):
        raise ValueError(f"Expected `{name}` to be finite, but got NaN or infinite values")
    if largest > limit:
        raise ValueError(f"Expected `{name}` to be within ±{limit:.2g}, but got larger values")
