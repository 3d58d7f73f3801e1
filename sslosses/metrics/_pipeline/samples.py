"""From what a user passes to batches of one shape: checks, padding, grouping, chunks."""

from __future__ import annotations

import contextlib
import math
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sslosses._checks import check_floating, check_mask, check_shapes
from sslosses._torch import at_least_float32
from sslosses.metrics._pipeline.targets import Boxes as BoxTargets
from sslosses.metrics._pipeline.targets import Masks, boxes_of
from sslosses.metrics.functional._inputs import check_maps, check_values

LAYOUTS = ("one", "stacked", "side-by-side")
MOST_SOURCES = 53  # which of them have an empty truth is kept as the bits of a float64
_MOST_CLASS = 2**53  # class ids are kept as float64
#: The boxes of a source: rows xmin, ymin, xmax, ymax as fractions of the frame.
Boxes = Sequence[Sequence[float]] | Tensor
#: The truths of a sample: masks or fractional maps (S, T, T), or the boxes of each source.
Truths = Tensor | Sequence[Boxes]


class Samples(NamedTuple):
    """Samples of one number of sources and one map resolution."""

    place: Tensor  # (B,), in the update
    maps: Tensor  # (B, M, h, w); padded with zeros
    valid: Tensor  # (B, M), bool
    truths: Tensor  # (B, S, T, T), or with `boxed` boxes (B, S, n, 4), padded with NaN
    boxed: bool
    map_classes: Tensor  # (B, M), int64, -1 where unknown
    source_classes: Tensor  # (B, S), int64, -1 where unknown
    confidences: Tensor | None  # (B, M)
    priors: Tensor | None  # (B, h, w)

    def chunks(self, length: int) -> Iterator[Samples]:
        """The same samples, ``length`` at a time."""
        for start in range(0, len(self.place), length):
            part = slice(start, start + length)
            cut: dict[str, Any] = {k: v[part] for k, v in self._asdict().items() if isinstance(v, Tensor)}
            yield self._replace(**cut)

    def targets(self, size: int, add: bool) -> Masks | BoxTargets:
        """Truths on frames of T×T; with ``add``, overlapping boxes of a source count 2, 3, …."""
        if self.boxed:
            return boxes_of(self.truths, size, add)
        truths = self.truths if self.truths.dtype.is_floating_point else self.truths.float()
        if self.truths.dtype != torch.bool and not (bool((truths >= 0).all()) and (add or bool((truths <= 1).all()))):
            raise ValueError(f"Expected `truths` to hold values {'>= 0' if add else 'in [0, 1]'} only")
        return Masks(at_least_float32(truths, self.maps)[0])


def batches(
    maps: Tensor | Sequence[Tensor],
    truths: Tensor | Sequence[Truths],
    valid: Tensor | None,
    extras: dict[str, Any],
    *,
    size: int,
    layout: str,
    most_sources: int | None,
) -> list[Samples]:
    """Check the arguments of an update and bring them into as few batches as their shapes allow."""
    for name, value, allowed in (("maps", maps, Tensor), ("truths", truths, Tensor | Sequence)):
        wrong = [type(v).__name__ for v in value if not isinstance(v, allowed)] if isinstance(value, Sequence) else []
        if wrong or not isinstance(value, Tensor | Sequence):
            kind = f"a sequence holding {wrong[0]}" if wrong else type(value).__name__
            raise TypeError(f"Expected `{name}` to be a tensor or a sequence of tensors, but got {kind}")
    if isinstance(maps, Tensor):
        check_floating("maps", maps)
        check_values("maps", maps)
        shape = check_shapes(maps=(maps, "B M h w"))
        if valid is None:
            valid = torch.ones(shape["B"], shape["M"], dtype=torch.bool, device=maps.device)
        check_mask("valid", valid)
        check_shapes(maps=(maps, "B M h w"), valid=(valid, "B M"))
    elif valid is not None:
        raise ValueError("Expected `valid` only with `maps` as one tensor; in a list, each sample has its own maps")
    for name, value in (("truths", truths), *extras.items()):
        if value is None:
            continue
        try:
            count = len(value)
        except TypeError:
            raise TypeError(f"Expected `{name}` to hold a row for each sample, but got {value!r}") from None
        if count != len(maps):
            raise ValueError(f"Expected as many samples in `{name}` as in `maps` ({len(maps)}), but got {count}")
    if isinstance(maps, Tensor) and isinstance(truths, Tensor) and valid is not None:
        check_values("truths", truths)
        groups = [_batch(torch.arange(len(maps)), maps, valid, truths, False, extras)] if len(maps) else []
    else:
        groups = _grouped(maps, truths, valid, extras)
    return [_checked(group, size, layout, most_sources) for group in groups]


def _grouped(
    maps: Tensor | Sequence[Tensor], truths: Tensor | Sequence[Truths], valid: Tensor | None, extras: dict[str, Any]
) -> list[Samples]:
    members: dict[tuple[object, ...], list[int]] = {}
    given: list[Tensor | list[_Rows]] = []
    for i in range(len(maps)):
        if isinstance(maps, Tensor):
            form: tuple[object, ...] = ()
        else:
            check_floating(f"maps[{i}]", maps[i])
            check_values(f"maps[{i}]", maps[i])
            check_shapes(**{f"maps[{i}]": (maps[i], "M h w")})
            if maps[i].device != maps[0].device:
                raise ValueError(f"Expected `maps[{i}]` to be on the device of `maps[0]`, but got {maps[i].device}")
            form = (maps[i].shape[1:], maps[i].dtype)
        chosen = truths[i]
        truth = chosen if isinstance(chosen, Tensor) else [_box_rows(f"truths[{i}]", boxes) for boxes in chosen]
        given.append(truth)
        boxed = not isinstance(truth, Tensor)
        if isinstance(truth, Tensor):
            check_values(f"truths[{i}]", truth)
            check_shapes(**{f"maps[{i}]": (maps[i], "M h w"), f"truths[{i}]": (truth, "S T T")})
            members.setdefault((*form, truth.shape, truth.dtype, boxed), []).append(i)
        else:
            # of one number of boxes, too: the cells between their edges grow with its square
            members.setdefault((*form, len(truth), max(map(len, truth), default=0), boxed), []).append(i)
    groups = []
    for key, rows in members.items():
        place, boxed = torch.tensor(rows), bool(key[-1])
        if isinstance(maps, Tensor) and valid is not None:
            padded, kept = maps[place.to(maps.device)], valid[place.to(valid.device)]
        else:
            padded = pad_sequence([maps[i] for i in rows], batch_first=True)
            counts = torch.tensor([len(maps[i]) for i in rows])
            kept = (torch.arange(padded.shape[1]) < counts[:, None]).to(padded.device)
        same = [given[i] for i in rows]
        if boxed:
            stacked = _padded_boxes([sample for sample in same if not isinstance(sample, Tensor)])
        else:
            stacked = torch.stack([truth for truth in same if isinstance(truth, Tensor)])
        groups.append(_batch(place, padded, kept, stacked.to(padded.device), boxed, extras))
    return groups


_Rows = list[list[float]]
_FARTHEST = 2.0  # a corner farther out is in pixels: clipped to the frame, it would cover all of it, and score well


def _box_rows(name: str, boxes: Boxes) -> _Rows:
    """The boxes of a source as plain numbers."""
    try:
        rows = boxes.tolist() if isinstance(boxes, Tensor) else boxes
        if all(len(row) == 4 and all(map(math.isfinite, row)) for row in rows):
            plain = [[float(value) for value in row] for row in rows]
            if all(max(row) <= _FARTHEST for row in plain):
                return plain
            raise ValueError(
                f"Expected `{name}` to hold boxes as fractions of the frame, but got {reprlib.repr(boxes)}. "
                "Divide pixels by the frame's width and height"
            )
    except (TypeError, OverflowError, NotImplementedError):  # of what is no number, too large, or on the device meta
        pass
    raise ValueError(
        f"Expected `{name}` to hold for each source rows of 4 finite numbers (xmin, ymin, xmax, ymax), "
        f"but got {reprlib.repr(boxes)}"
    )


def _padded_boxes(samples: list[list[_Rows]]) -> Tensor:
    """Boxes of samples of one number of sources, (B, S, n, 4), padded with NaN; n is at least 1."""
    flat: list[list[float]] = []
    owner: list[tuple[int, int, int]] = []
    most = 1
    for b, sample in enumerate(samples):
        for s, rows in enumerate(sample):
            flat.extend(rows)
            owner.extend((b, s, n) for n in range(len(rows)))
            most = max(most, len(rows))
    table = torch.full((len(samples), len(samples[0]), most, 4), torch.nan, dtype=torch.float64)
    if flat:
        table[tuple(torch.tensor(owner).T)] = torch.tensor(flat, dtype=torch.float64)
    return table


def _batch(index: Tensor, maps: Tensor, valid: Tensor, truths: Tensor, boxed: bool, extras: dict[str, Any]) -> Samples:
    def rows(name: str, width: int, dtype: torch.dtype, fill: float) -> Tensor:
        table = torch.full((len(index), width), fill, dtype=dtype)
        given = extras.get(name)
        if given is not None:
            for b, i in enumerate(index.tolist()):
                row = _row(f"{name}[{i}]", given[i], dtype)
                # a list of samples has a list of maps each, shorter than the padded row
                if row.ndim != 1 or len(row) > width or (len(row) < width and isinstance(given, Tensor)):
                    raise ValueError(f"Expected `{name}[{i}]` to have shape ({width},), but got {tuple(row.shape)}")
                table[b, : len(row)] = row
        return table.to(maps.device)

    count = maps.shape[1]
    confidences = rows("confidences", count, torch.float64, 0) if extras.get("confidences") is not None else None
    priors = extras.get("priors")
    if priors is not None:
        for i in index.tolist():
            check_floating(f"priors[{i}]", priors[i])
            check_maps(f"priors[{i}]", priors[i])
            check_shapes(**{"priors[0]": (priors[0], "p q"), f"priors[{i}]": (priors[i], "p q")})
        priors = torch.stack([priors[i] for i in index.tolist()])
        check_shapes(maps=(maps, "B M h w"), priors=(priors, "B p q"))
    return Samples(
        index,
        maps,
        valid,
        truths,
        boxed,
        rows("map_classes", count, torch.int64, -1),
        rows("source_classes", truths.shape[1] if truths.ndim == 4 else 0, torch.int64, -1),
        confidences,
        priors,
    )


def _row(name: str, given: Any, dtype: torch.dtype) -> Tensor:
    """A row of class ids (int64) or numbers (float64)."""
    whole = dtype == torch.int64
    row = None
    with contextlib.suppress(TypeError, ValueError, RuntimeError, OverflowError):
        row = torch.as_tensor(given).cpu()
    if row is None or (row.numel() and (row.dtype == torch.bool or row.dtype.is_complex)):
        fits = False
    else:
        fits = not (whole and row.numel()) or (not row.dtype.is_floating_point and bool((row <= _MOST_CLASS).all()))
    if row is None or not fits:
        kind = f"integers up to {_MOST_CLASS}" if whole else "numbers"
        raise ValueError(f"Expected `{name}` to be a row of {kind}, but got {reprlib.repr(given)}")
    return row.to(dtype)


def _checked(group: Samples, size: int, layout: str, most_sources: int | None) -> Samples:
    (maps,) = at_least_float32(group.maps)
    valid, truths = group.valid, group.truths
    frame = truths.shape[-2:] == (size, size) or group.boxed
    if truths.ndim != 4 or not frame or truths.shape[1] == 0:
        raise ValueError(
            f"Expected each sample's truths to have shape (S, {size}, {size}) with S >= 1, "
            f"but got {tuple(truths.shape[1:])}"
        )
    check_shapes(maps=(maps, "B M h w"), truths=(truths, "B S T U"))
    sources = truths.shape[1]
    if most_sources is not None and sources > most_sources:
        raise ValueError(f"Expected at most {most_sources} source(s) a sample for this task, but got {sources}")
    if sources > MOST_SOURCES:
        raise ValueError(f"Expected at most {MOST_SOURCES} sources a sample, but got {sources}")
    axis = {"stacked": -2, "side-by-side": -1}.get(layout)
    if maps.shape[1] and (0 in maps.shape[-2:] or (axis and maps.shape[axis] % sources)):
        shape = {"one": "(M, h, w)", "stacked": f"(M, {sources}·h, w)", "side-by-side": f"(M, h, {sources}·w)"}[layout]
        raise ValueError(
            f"Expected the maps of a sample of {sources} source(s) to have shape {shape} with layout={layout!r}, "
            f"but got {tuple(maps.shape[1:])}"
        )
    for name, values in (("maps", maps[valid]), ("priors", group.priors), ("confidences", group.confidences)):
        if values is not None and not bool(torch.isfinite(values).all()):
            raise ValueError(f"Expected `{name}` to be finite, but got NaN or infinite values")
    limit = torch.finfo(maps.dtype).max / (8 * max(1, maps.shape[1]))  # for sums and differences
    if maps.numel() and bool((maps[valid].abs() > limit).any()):
        raise ValueError(f"Expected `maps` to be within ±{limit:.2g}, but got larger values")
    # what is masked out may hold anything
    return group._replace(maps=torch.where(valid[..., None, None], maps, 0.0))
