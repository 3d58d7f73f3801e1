"""The emulator of compiled kernels finds the errors of wrong kernels."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton", minversion="3.4")
sys.path.insert(0, str(Path(__file__).parent))

import ptx
import triton
import triton.language as tl
from gpu_emulated import Emulated

SIZE = 128
TRIPLED_AND_ONE = """
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<3>;
    ld.param.b64 %rd0, [tripled_param_0];
    mov.u32 %r0, %tid.x;
    mul.wide.u32 %rd1, %r0, 4;
    add.s64 %rd2, %rd0, %rd1;
    ld.global.b32 %r1, [%rd2];
    mul.f32 %r1, %r1, 0f40400000;
    add.f32 %r1, %r1, 0f3F800000;
    st.global.b32 [%rd2], %r1;
    ret;
}
"""


def reversed_twice(x, there, back, barrier: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(there + i, tl.load(x + i))
    if barrier:
        tl.debug_barrier()
    tl.store(back + i, tl.load(there + N - 1 - i))


def outside(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i + 1))


def of_both_blocks(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i) + tl.program_id(0))


def shrunk(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    own, other = tl.load(x + i), tl.load(y + i)
    total = tl.sum(own * other, 0)
    while total > 1.0:
        own *= 0.9
        total = tl.sum(own * other, 0)
    tl.store(out + i, own)


def shrunk_alike(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    own, other = tl.load(x + i), tl.load(y + i)
    total = tl.sum(tl.fma(own, other, tl.zeros_like(own)), 0)
    while total > 1.0:
        own *= 0.9
        total = tl.sum(tl.fma(own, other, tl.zeros_like(own)), 0)
    tl.store(out + i, own)


def launch(kernel, *tensors, blocks=1, warps=4, **constants):
    options = {"num_warps": warps, "enable_fp_fusion": True}
    Emulated(triton.JITFunction(kernel))[(blocks,)](*tensors, **constants, **options)


def tensors(count, size=SIZE):
    x = torch.rand(size, generator=torch.Generator().manual_seed(0)) + 0.5
    return x, *(torch.full((size,), torch.nan) for _ in range(count))


def test_a_correct_kernel():
    x, there, back = tensors(2)
    launch(reversed_twice, x, there, back, barrier=True, N=SIZE)
    assert torch.equal(there, x)
    assert torch.equal(back, x.flip(0))


def test_a_product_in_the_place_of_its_factor():
    numbers = np.arange(32, dtype=np.float32)
    ptx.launch(TRIPLED_AND_ONE, 1, 32, 0, [numbers])
    assert (numbers == 3 * np.arange(32) + 1).all()


def test_a_missing_barrier():
    with pytest.raises(AssertionError, match=r"written and read without a barrier between: .*test_ptx.py"):
        launch(reversed_twice, *tensors(2), barrier=False, N=SIZE)


def test_reading_outside():
    with pytest.raises(AssertionError, match="outside of its memory"):
        launch(outside, *tensors(1), N=SIZE)


def test_reading_unwritten_memory():
    _, new, out = tensors(2, 2 * SIZE)
    with pytest.raises(AssertionError, match="never written"):
        launch(outside, new, out, N=SIZE)


def test_two_blocks_that_write_the_same():
    with pytest.raises(AssertionError, match="written by one block, used by another"):
        launch(of_both_blocks, *tensors(1), blocks=2, N=SIZE)


def test_a_loop_that_could_end_for_some_threads():
    # Products that are fused with the first step of the sum make threads round the sum differently, most of all where
    # the two products of that step outweigh the others.
    x, out = tensors(1, 32)
    y = 8 * x.roll(1) * 0.1 ** (torch.arange(32) % 16)
    with pytest.raises(AssertionError, match=r"threads (compare|write) different numbers"):
        launch(shrunk, x, y, out, warps=1, N=32)
    launch(shrunk_alike, x, y, out, warps=1, N=32)
    assert 0.9 < (out * y).sum() <= 1
    torch.testing.assert_close(out / x, (out / x)[0].expand(32))
