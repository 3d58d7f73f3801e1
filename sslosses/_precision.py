"""The precision that everything here computes in: at least float32, whatever autocast says."""

from __future__ import annotations

import torch
from torch import Tensor


def autocast_off(tensor: Tensor) -> torch.autocast:
    """A context without autocast on the device of ``tensor``: half-precision products undo a cast to float32."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)
