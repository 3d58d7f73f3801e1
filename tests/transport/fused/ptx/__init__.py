"""Runs PTX, which a GPU gets of a Triton kernel, on a CPU: block by block, all threads of a block at once.

Triton's interpreter executes a kernel's source, one program as one thread. Here what it is compiled to runs: layouts,
shuffles, shared memory and barriers, and the code is asked more than a GPU would ask of it:

- Every access is inside its memory, aligned, and not to what nothing was written to.
- No two threads touch a byte, one of them writing it, without a barrier between. So no order of them changes anything.
- Where only some threads could go on to a barrier or a shuffle, all of them compare the same numbers.
- A product and a sum that the assembler may fuse are fused.

It knows the instructions that the kernels of this library compile to, and says so of any other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .block import Block
from .memory import Memory
from .program import program


def launch(ptx: str, blocks: int, threads: int, shared: int, arguments: list[Any]) -> None:
    """Run a kernel.

    Args:
        ptx: its code.
        blocks: how many.
        threads: how many a block has.
        shared: bytes of shared memory.
        arguments: arrays, which are written to, and numbers. An array all NaN, or of the largest integer, is what torch
            makes of new memory when it is to be deterministic: nothing was written to it.
    """
    arrays = {each.ctypes.data: each for each in arguments if isinstance(each, np.ndarray)}
    starts, end = {}, 4096
    for address, array in arrays.items():
        starts[address] = end
        # Something between them that belongs to none.
        end += -(-array.nbytes // 256) * 256 + 256
    memory = Memory(end)
    for address, array in arrays.items():
        place = slice(starts[address], starts[address] + array.nbytes)
        memory.bytes[place], memory.allotted[place] = array.reshape(-1).view(np.uint8), True
        new = np.isnan(array) if array.dtype.kind == "f" else array == np.iinfo(array.dtype).max
        memory.filled[place] = not new.all()
    given = [starts[each.ctypes.data] if isinstance(each, np.ndarray) else each for each in arguments]
    for i in range(blocks):
        own = Memory(shared)
        own.allotted[:] = True
        with np.errstate(all="ignore"):
            Block(program(ptx), i, threads, given, memory, own).run()
    for address, array in arrays.items():
        place = slice(starts[address], starts[address] + array.nbytes)
        array.reshape(-1).view(np.uint8)[:] = memory.bytes[place]
