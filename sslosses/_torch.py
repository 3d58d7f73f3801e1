"""The precision that everything here computes in: at least float32, whatever autocast says."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_off(tensor: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of ``tensor``: half-precision products undo a cast to float32."""
    if tensor.is_meta:  # has no autocast
        return nullcontext()
    return torch.autocast(device_type=tensor.device.type, enabled=False)
