"""OCA and a loss of region maps from the same pass over the pixels, as the objective computes them."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from sslosses._checks import check_floating, check_shapes
from sslosses._passes import is_plain, pool_by_first_map, unit
from sslosses._torch import at_least_float32, autocast_off
from sslosses.losses._inputs import check_references
from sslosses.losses._module import PairLossModule
from sslosses.losses._pairs import stack_references
from sslosses.losses.object_aware import ObjectAwareContrastiveLoss, ObjectAwareOptions, contrast
from sslosses.losses.region_isolation import ObjectRegionIsolationLoss
from sslosses.losses.region_separation import ObjectRegionSeparationLoss


def is_oca(loss: nn.Module) -> TypeGuard[ObjectAwareContrastiveLoss]:
    """Whether ``loss`` is the library's OCA loss and nothing watches its calls."""
    return type(loss) is ObjectAwareContrastiveLoss and not _has_hooks(loss)


def is_of_maps(loss: nn.Module) -> TypeGuard[PairLossModule]:
    """Whether ``loss`` is one of the library's losses of region maps and nothing watches its calls."""
    return type(loss) in (ObjectRegionIsolationLoss, ObjectRegionSeparationLoss) and not _has_hooks(loss)


def _has_hooks(module: nn.Module) -> bool:
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    replaced = "forward" in vars(module) or module._compiled_call_impl is not None
    return any(hooks) or replaced


def can_share(*inputs: Tensor) -> bool:
    """Whether one pass can serve both losses: not in a compiled graph or another transform, which get plain losses."""
    return all(isinstance(x, Tensor) for x in inputs) and not is_plain(*inputs)


def shared_losses(
    oca: ObjectAwareContrastiveLoss,
    ori: PairLossModule,
    visual: Tensor,
    audio: Tensor,
    foreground: Tensor,
    background: Tensor,
    source_mask: Tensor | None,
    background_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute both losses, as they are when each is called by itself."""
    options = ObjectAwareOptions(**oca._call_options()).checked()
    present = check_references(visual, foreground, background, source_mask, background_mask)
    check_floating("audio", audio)
    check_shapes(visual=(visual, "B C H W"), audio=(audio, "B C"))
    pixels, sound, captions, silence = at_least_float32(visual, audio, foreground, background)
    with autocast_off(pixels):
        references, exists = stack_references(captions, silence, present)
        directions = unit(torch.cat([sound[:, None], references], dim=1), -1)
        cosines, pooled = pool_by_first_map(pixels.flatten(2), directions, *options.masks(pixels.dtype))
        contrasted = contrast(pooled, captions, silence, present, options).loss
        maps = cosines.view(*cosines.shape[:2], *pixels.shape[2:])[:, 1:]
    inputs = visual, foreground, background, source_mask, background_mask
    return contrasted, ori.of_maps(maps, exists, inputs)
