"""Helpers around torch's dtypes, autocast, compilation and ``torch.func``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def autocast_off(tensor: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of ``tensor``, which would compute products in half precision."""
    if tensor.is_meta:  # the meta device has no autocast
        return nullcontext()
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def rounds_to_tf32(tensor: Tensor) -> bool:
    """Whether a matrix product of ``tensor`` may be computed in TF32, with 10 bits, because the program allows it."""
    if not tensor.is_cuda or tensor.dtype != torch.float32:
        return False
    matmul = torch.backends.cuda.matmul
    # Since torch 2.9 there are two settings, and to read `allow_tf32` raises where the newer one was used.
    precision = getattr(matmul, "fp32_precision", None)
    return bool(precision == "tf32" if precision is not None else matmul.allow_tf32)


def full_matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``, in float64 where it would be rounded to TF32; the program's settings stay as they are."""
    if rounds_to_tf32(a):
        return (a.double() @ b.double()).to(a.dtype)
    return a @ b


def at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast all tensors to one dtype: float64 if one of them has it, else float32."""
    wide = any(t.dtype == torch.float64 for t in tensors)
    dtype = torch.float64 if wide else torch.float32
    return tuple(t.to(dtype) for t in tensors)


def safe_divisor(value: float, dtype: torch.dtype) -> float:
    """``value``, at least the smallest normal number of ``dtype``: a cosine divided by less can overflow."""
    return max(value, torch.finfo(dtype).tiny)


def has_values(tensor: Tensor) -> bool:
    """Whether Python can read values of ``tensor``: not during compilation, and not from a meta tensor."""
    return not (torch.compiler.is_compiling() or tensor.is_meta)


def can_branch(tensor: Tensor) -> bool:
    """Whether a branch on values of ``tensor`` is possible and cheap: on a GPU it waits for all work before it."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu"
    return plain and has_values(tensor) and not has_transform()


def has_transform() -> bool:
    """Whether a transform of ``torch.func``, a trace, or a mode that sees all operations is active."""
    core = torch._C
    return core._is_tracing() or core._are_functorch_transforms_active() or core._len_torch_dispatch_stack() > 0


def compiles_transform() -> bool:
    """Whether a graph is being compiled in a transform of ``torch.func``, which a custom operator can't follow."""
    return torch._C._are_functorch_transforms_active()


# torch.compiler.assume_constant_result sets this, too, but imports all of the compiler.
setattr(compiles_transform, "_dynamo_marked_constant", True)  # noqa: B010


def check_no_transform(name: str, value: Tensor, *, differentiable: bool) -> None:
    """Raise if ``value`` is inside ``torch.vmap``, or inside another transform unless ``differentiable``."""
    functorch = torch._C._functorch
    while not torch.compiler.is_compiling() and functorch.is_functorch_wrapped_tensor(value):
        if functorch.is_batchedtensor(value):
            raise ValueError(
                f"Expected `{name}` to be an ordinary tensor, but got one inside torch.vmap, which can't trace "
                "iterations whose number depends on values. Use the batch dimensions instead"
            )
        if not differentiable:
            raise ValueError(
                f"Expected `{name}` to be an ordinary tensor, but got one inside torch.func.grad or another transform. "
                "Use torch.autograd.grad, or solver='dense' with gradient='unrolled'"
            )
        value = functorch.get_unwrapped(value)
    if torch.compiler.is_compiling() or differentiable:
        return
    if torch.autograd.forward_ad.unpack_dual(value).tangent is not None:  # type: ignore[no-untyped-call]
        raise ValueError(
            f"Expected `{name}` to be an ordinary tensor, but got one inside forward-mode differentiation. Use "
            "backward, or solver='dense' with gradient='unrolled'"
        )
