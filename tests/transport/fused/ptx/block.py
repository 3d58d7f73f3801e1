"""Executes a program in the threads of one block."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arithmetic import ARITHMETIC, COMPARISONS, REGISTERS, TYPES, WIDER, flushed, fused
from .memory import WARP, Memory, Now
from .program import Instruction, Program


class Block:
    """Runs a program in all threads at once, or in those at the same instruction."""

    def __init__(
        self, program: Program, block: int, threads: int, parameters: list[Any], memory: Memory, shared: Memory
    ):
        self.program, self.parameters, self.memory, self.shared = program, parameters, memory, shared
        self.block, self.size, self.everyone = block, threads, np.ones(threads, bool)
        self.step, self.barrier, self.of_warps = 0, 0, np.zeros(threads // WARP, int)
        self.registers = {name: np.zeros(threads, REGISTERS[name.rstrip("0123456789")]) for name in program.registers}
        zeros = np.zeros(threads, int)
        self.special = {"%tid.x": np.arange(threads), "%ctaid.x": zeros + block, "global_smem": zeros}
        # The numbers that each predicate compares.
        self.compared: dict[str, list[np.ndarray]] = {}
        self.numbers: dict[tuple[str, type], np.ndarray] = {}
        # The factors of a product that may still be fused with a sum.
        self.factors: dict[str, list[np.ndarray]] = {}

    def run(self) -> None:
        places, waiting = np.zeros(self.size, int), np.zeros(self.size, bool)
        place, active = 0, self.everyone
        end = len(self.program.instructions)
        while place < end:
            instruction = self.program.instructions[place]
            run = active & (self.registers[instruction.guard] ^ instruction.negated) if instruction.guard else active
            self.step += 1
            try:
                if instruction.name in ("bra", "ret"):
                    self.check_parting(place, instruction, active)
                    places[active] = place + 1
                    places[run] = end if instruction.name == "ret" else self.program.labels[instruction.operands[0]]
                elif instruction.name == "bar" and instruction.marks == ("sync",):
                    places[active] = place + 1
                    waiting |= run
                    if waiting.all():
                        assert (places == place + 1).all(), "threads wait at different barriers"
                        waiting[:], self.barrier = False, self.step
                else:
                    self.execute(instruction, run)
                    if active is self.everyone:
                        place += 1
                        continue
                    places[active] += 1
                place, active = self.next(places, waiting)
            except AssertionError as error:
                raise AssertionError(f"{error}: {instruction.text} of {instruction.line}") from None

    def next(self, places: np.ndarray, waiting: np.ndarray) -> tuple[int, np.ndarray]:
        """The next instruction and its threads: those furthest behind, but only whole warps at a synchronization."""
        for place in map(int, np.unique(places[~waiting])):
            active = (places == place) & ~waiting
            if active.all():
                return place, self.everyone
            by_warp = active.reshape(-1, WARP)
            whole = (by_warp.all(1) == by_warp.any(1)).all()
            if place < len(self.program.instructions) and (whole or place not in self.program.syncs):
                return place, active
        raise AssertionError("threads wait for others that do not come")

    def check_parting(self, place: int, instruction: Instruction, active: np.ndarray) -> None:
        """Checks that threads which have to go the same way compare the same numbers."""
        if place in self.program.partings:
            for value in self.compared.get(instruction.guard, []):
                compared = value[active]
                assert np.isnan(compared).all() or (compared == compared[0]).all(), "threads compare different numbers"

    def read(self, operand: str, kind: type) -> np.ndarray:
        if operand in self.registers:
            return self.registers[operand].view(kind)
        if (operand, kind) not in self.numbers:
            self.numbers[operand, kind] = self.number(operand, kind)
            self.numbers[operand, kind].flags.writeable = False
        return self.numbers[operand, kind]

    def number(self, operand: str, kind: type) -> np.ndarray:
        """What never changes: a special register or a number of the code."""
        if operand in self.special:
            return self.special[operand].astype(kind)
        if operand[:2] in ("0f", "0d"):
            bits = np.uint32 if operand[1] == "f" else np.uint64
            return np.full(self.size, int(operand[2:], 16), bits).view(kind)
        return np.full(self.size, int(operand.rstrip("U"), 0)).astype(kind)

    def write(self, operand: str, value: np.ndarray, run: np.ndarray) -> None:
        self.factors.pop(operand, None)
        if operand != "_":
            register = self.registers[operand]
            if run is self.everyone:  # a mask takes longer
                register[...] = value.view(register.dtype)
            else:
                np.copyto(register, value.view(register.dtype), where=run)

    def execute(self, instruction: Instruction, run: np.ndarray) -> None:
        if instruction.name in ("ld", "st", "ldmatrix", "stmatrix"):
            if instruction.marks[0] == "param":
                self.parameter(instruction, run)
            else:
                self.move(instruction, run)
        elif instruction.name == "bar":
            assert instruction.marks == ("warp", "sync"), "unknown instruction"
            self.of_warps[run.reshape(-1, WARP).all(1)] = self.step
        elif run is self.everyone or run.any():
            target, *sources = instruction.operands
            if isinstance(target, tuple):
                halves = self.read(sources[0], np.uint64).view(np.uint32).reshape(-1, 2)
                for i, half in enumerate(target):
                    self.write(half, halves[:, i].copy(), run)
            else:
                kind = TYPES[instruction.marks[-1]]
                result = self.result(instruction, kind, sources)
                # Copied first, as the target can be one of them.
                inputs = []
                if instruction.name in ("setp", "mul"):
                    inputs = [self.read(source, kind).copy() for source in sources]
                self.write(target, result, run)
                self.remember(instruction, target, sources, inputs, run)

    def result(self, instruction: Instruction, kind: type, sources: list[Any]) -> np.ndarray:
        name, marks = instruction.name, instruction.marks
        if name == "mov" and isinstance(sources[0], tuple):
            return np.stack([self.read(half, np.uint32) for half in sources[0]], 1).reshape(-1).view(np.uint64)
        if name == "mov":
            return self.read(sources[0], kind)
        if name == "cvt":
            return self.read(sources[0], kind).astype(TYPES[marks[-2]])
        if name == "setp":
            return COMPARISONS[marks[0]](*(self.read(source, kind) for source in sources))  # type: ignore[no-any-return]
        if name == "selp":
            first, second, which = (
                self.read(source, source_kind) for source, source_kind in zip(sources, (kind, kind, bool), strict=True)
            )
            return np.where(which, first, second)
        if name in ("shfl", "redux"):
            value = self.read(sources[0], kind).reshape(-1, WARP)
            if name == "redux":
                assert marks[1] == "min", "unknown instruction"
                return np.repeat(value.min(1), WARP)
            other, lane = self.read(sources[1], np.int32).reshape(-1, WARP), np.arange(WARP)
            return np.take_along_axis(value, {"bfly": lane ^ other, "idx": other}[marks[1]], 1).reshape(-1)
        assert name in ARITHMETIC, "unknown instruction"
        kinds = [kind] * len(sources)
        if name in ("shl", "shr", "bfe"):
            kinds[1:] = [np.uint32] * (len(sources) - 1)
        if "wide" in marks:
            kinds[2:] = [WIDER[kind]] * (len(sources) - 2)
        values = [self.read(source, source_kind) for source, source_kind in zip(sources, kinds, strict=True)]
        if "wide" in marks:
            values[:2] = [value.astype(WIDER[kind]) for value in values[:2]]
        if "ftz" in marks:
            values = [flushed(value) for value in values]
        result = ARITHMETIC[name](*values)
        if name in ("add", "sub") and len(marks) == 1 and not self.factors.keys().isdisjoint(sources):
            product = 0 if sources[0] in self.factors else 1
            (x, y), other = self.factors[sources[product]], values[1 - product]
            if name == "sub":
                x, other = (x, -other) if product == 0 else (-x, other)
            result = fused(x, y, other)
        if result.dtype.kind == "f":
            # The GPU has one NaN only.
            result = np.where(np.isnan(result), kind(np.nan), flushed(result) if "ftz" in marks else result)
        return result

    def remember(
        self, instruction: Instruction, target: str, sources: list[Any], inputs: list[np.ndarray], run: np.ndarray
    ) -> None:
        """Keeps the numbers that a predicate or a product comes from."""
        if instruction.name == "setp":
            self.compared[target] = inputs
        elif instruction.marks[-1] == "pred":
            self.compared[target] = [value for source in sources for value in self.compared.get(source, [])]
        elif instruction.name == "mul" and instruction.marks in (("f32",), ("f64",)) and run.all():
            self.factors[target] = inputs

    def parameter(self, instruction: Instruction, run: np.ndarray) -> None:
        target, (name, _) = instruction.operands
        parameter_value = self.parameters[int(name.rpartition("_")[2])]
        # Floats are always passed as float64.
        bits = np.float64(parameter_value).view(np.uint64) if isinstance(parameter_value, float) else parameter_value
        value = np.full(self.size, bits).astype(TYPES[instruction.marks[-1]])
        self.write(target, value.astype(np.int64) if self.registers[target].itemsize > value.itemsize else value, run)

    def move(self, instruction: Instruction, run: np.ndarray) -> None:
        """Copies between registers and memory."""
        now, threads = Now(self.block, self.step, self.barrier, self.of_warps), np.flatnonzero(run)
        memory = self.shared if "shared" in instruction.marks else self.memory
        load = instruction.name.startswith("ld")
        registers, (base, offset) = instruction.operands if load else instruction.operands[::-1]
        registers = registers if isinstance(registers, tuple) else (registers,)
        start = self.read(base, np.uint32 if memory is self.shared else np.uint64).astype(np.int64) + offset
        if instruction.name.endswith("matrix"):
            # Eight lanes hold the addresses of a matrix's rows of 16 bytes; each lane gets 4 bytes of one row.
            lane, width, alignment = np.arange(WARP), 4, 16
            starts = [
                (start.reshape(-1, WARP)[:, 8 * i + lane // 4] + 4 * (lane % 4)).reshape(-1)
                for i in range(len(registers))
            ]
            used = start.reshape(-1, WARP)[:, : 8 * len(registers)]
        else:
            width = np.dtype(TYPES[instruction.marks[-1]]).itemsize
            starts = [start + width * i for i in range(len(registers))]
            used, alignment = start[run], width * len(registers)
        assert (used % alignment == 0).all(), "not aligned"
        for register, addresses in zip(registers, starts, strict=True):
            value = self.registers[register].astype(f"u{width}")
            if load:
                value[run] = memory.load(addresses[run], width, threads, now).view(value.dtype).reshape(-1)
                self.write(register, value, run)
            else:
                memory.store(addresses[run], value[run].view(np.uint8).reshape(-1, width), threads, now)
