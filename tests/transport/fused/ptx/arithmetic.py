"""Types and arithmetic instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

TYPES: dict[str, type] = {
    "pred": np.bool_, "b8": np.uint8, "b16": np.uint16, "u16": np.uint16, "s16": np.int16,
    "b32": np.uint32, "u32": np.uint32, "s32": np.int32, "f32": np.float32,
    "b64": np.uint64, "u64": np.uint64, "s64": np.int64, "f64": np.float64,
}  # fmt: skip
REGISTERS: dict[str, type] = {"%p": np.bool_, "%rs": np.uint16, "%r": np.uint32, "%rd": np.uint64}
WIDER: dict[type, type] = {np.int32: np.int64, np.uint32: np.uint64}


def flushed(value: np.ndarray) -> np.ndarray:
    """Flushes subnormal numbers to zero."""
    return np.where(np.abs(value) < np.finfo(value.dtype).tiny, value * 0, value)


def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a·b + c, rounded once in float32 and nearly so in float64."""
    wide = np.float64 if a.dtype == np.float32 else np.longdouble
    return (a.astype(wide) * b.astype(wide) + c.astype(wide)).astype(a.dtype)


def _shl(a: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.where(by < 8 * a.itemsize, a << by.astype(a.dtype), 0).astype(a.dtype)


def _shr(a: np.ndarray, by: np.ndarray) -> np.ndarray:
    assert (by < 8 * a.itemsize).all()
    return a >> by.astype(a.dtype)


def _bits(a: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    return a << (32 - start - length).astype(a.dtype) >> (32 - length).astype(a.dtype)


def _permuted(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    source = np.stack([a, b], 1).view(np.uint8)
    assert not (selector & 0x8888).any()
    picked = [source[np.arange(a.size), selector >> 4 * i & 7] for i in range(4)]
    return np.stack(picked, 1).view(np.uint32).reshape(-1)


def _or_nan(compare: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: compare(a, b) | (a != a) | (b != b)


COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": np.equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "ne": lambda a, b: (a != b) & (a == a) & (b == b), "nan": lambda a, b: (a != a) | (b != b),
    "equ": _or_nan(np.equal), "neu": np.not_equal, "ltu": _or_nan(np.less), "leu": _or_nan(np.less_equal),
    "gtu": _or_nan(np.greater), "geu": _or_nan(np.greater_equal),
}  # fmt: skip
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "neg": np.negative, "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "fma": fused, "mad": lambda a, b, c: a * b + c, "min": np.fmin, "max": np.fmax,
    "sqrt": np.sqrt, "ex2": np.exp2, "rcp": np.reciprocal,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.logical_not,
    "shl": _shl, "shr": _shr, "bfe": _bits, "prmt": _permuted,
}  # fmt: skip
