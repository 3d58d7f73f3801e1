"""Runs PTX, the code that a GPU gets for a Triton kernel, on a CPU: block by block, all threads of a block at once.

Triton's interpreter executes the source of a kernel, one program as one thread. This emulator executes the compiled
code, with its layouts, shuffles, shared memory and barriers, and checks more than a GPU would:

- Every access is inside its memory, aligned, and reads only bytes that were written.
- No two threads touch a byte, one of them writing it, without a barrier between them. So no order of the threads
  changes a result.
- Where only some threads could reach a barrier or a shuffle, all threads compare the same numbers.
- A product and a sum that the assembler may fuse are fused.

It supports the instructions that the kernels of this library compile to, and reports any other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .block import Block
from .memory import Memory
from .program import program


def launch(ptx: str, blocks: int, threads: int, shared: int, arguments: list[Any]) -> None:
    """Runs a kernel.

    Args:
        ptx: its code.
        blocks: number of blocks.
        threads: number of threads per block.
        shared: bytes of shared memory.
        arguments: numbers, and arrays that the kernel may write to. An array that is all NaN, or all the largest
            integer, counts as not written yet: torch fills new memory so in deterministic mode.
    """
    arrays = {value.ctypes.data: value for value in arguments if isinstance(value, np.ndarray)}
    starts, end = {}, 4096
    for address, array in arrays.items():
        starts[address] = end
        # A gap between them that belongs to none.
        end += -(-array.nbytes // 256) * 256 + 256
    memory = Memory(end)
    for address, array in arrays.items():
        place = slice(starts[address], starts[address] + array.nbytes)
        memory.bytes[place], memory.allotted[place] = array.reshape(-1).view(np.uint8), True
        new = np.isnan(array) if array.dtype.kind == "f" else array == np.iinfo(array.dtype).max
        memory.filled[place] = not new.all()
    parameters = [starts[value.ctypes.data] if isinstance(value, np.ndarray) else value for value in arguments]
    for i in range(blocks):
        block_memory = Memory(shared)
        block_memory.allotted[:] = True
        with np.errstate(all="ignore"):
            Block(program(ptx), i, threads, parameters, memory, block_memory).run()
    for address, array in arrays.items():
        place = slice(starts[address], starts[address] + array.nbytes)
        array.reshape(-1).view(np.uint8)[:] = memory.bytes[place]
