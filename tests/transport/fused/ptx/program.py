"""The parsed code of a kernel, with the branches at which its threads may not diverge."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple


class Instruction(NamedTuple):
    """``@guard name operands;``, with its line of the source."""

    text: str
    line: str
    guard: str
    negated: bool
    name: str
    marks: tuple[str, ...]
    operands: tuple[Any, ...]


class Program(NamedTuple):
    """Code, names of its registers, and positions of its labels.

    ``syncs`` are the instructions that all threads of a warp or block have to reach together. ``partings`` are the
    branches with such an instruction on one way that the other way may lack.
    """

    instructions: list[Instruction]
    registers: list[str]
    labels: dict[str, int]
    syncs: set[int]
    partings: set[int]


@functools.cache
def program(ptx: str) -> Program:
    """Parses PTX."""
    instructions: list[Instruction] = []
    registers: list[str] = []
    labels: dict[str, int] = {}
    line = ""
    body = ptx[ptx.index("\n{\n") + 3 :].split("\n}\n")[0]
    for raw in body.splitlines():
        text, _, comment = (part.strip() for part in raw.partition("//"))
        if text.startswith(".loc"):
            line = comment
        elif match := re.fullmatch(r"\.reg\s+\.\w+\s+(%\w+)<(\d+)>;", text):
            registers += [f"{match[1]}{i}" for i in range(int(match[2]))]
        elif match := re.fullmatch(r"(\$\w+):", text):
            labels[match[1]] = len(instructions)
        elif text and not text.startswith("."):
            # A scope of its own only serves to drop half of a wide register.
            text = re.sub(r"^\{ \.reg \.b32 tmp; (.*) \}$", r"\1", text).replace("tmp", "_")
            match = re.fullmatch(r"(?:@(!?)(%p\d+)\s+)?([\w.]+)\s*(.*);", text)
            assert match, f"unknown syntax: {raw}"
            name, *marks = match[3].split(".")
            instructions.append(
                Instruction(text, line, match[2] or "", match[1] == "!", name, tuple(marks), tuple(_operands(match[4])))
            )
    syncs = {i for i, instruction in enumerate(instructions) if "sync" in instruction.marks}
    return Program(instructions, registers, labels, syncs, _partings(instructions, labels, syncs))


def _operands(text: str) -> Iterator[Any]:
    """Names and numbers, {vectors} as tuples, and [addresses] as pairs of base and offset."""
    for group, address, plain in re.findall(r"\{([^}]*)\}|\[([^\]]*)\]|([^,\s{}\[\]]+)", text):
        if group:
            yield tuple(re.split(r"\s*,\s*", group.strip()))
        elif address:
            base, _, offset = address.replace(" ", "").partition("+")
            yield base, int(offset or 0)
        else:
            yield plain


def _partings(instructions: list[Instruction], labels: dict[str, int], syncs: set[int]) -> set[int]:
    end = len(instructions)
    following: dict[int, list[int]] = {end: []}
    for i, instruction in enumerate(instructions):
        is_branch, is_return = instruction.name == "bra", instruction.name == "ret"
        jump = [labels[instruction.operands[0]]] if is_branch else [end] if is_return else []
        following[i] = jump + ([i + 1] if instruction.guard or not jump else [])
    # Straight pieces of code by their first instruction, and the pieces that follow them.
    starts = {0, end} | {to for i in range(end) if following[i] != [i + 1] for to in following[i]}
    pieces = {}
    for start in starts - {end}:
        last = start
        while following[last] == [last + 1] and last + 1 not in starts:
            last += 1
        pieces[start] = range(start, last + 1)
    after = {start: following[piece[-1]] for start, piece in pieces.items()}
    # Pieces that every way from there to the end passes.
    through = {start: set(starts) for start in pieces} | {end: {end}}
    changed = True
    while changed:
        changed = False
        for start in sorted(pieces, reverse=True):
            common = {start}.union(set.intersection(*(through[to] for to in after[start])))
            changed |= common != through[start]
            through[start] = common
    partings = set()
    for start, piece in pieces.items():
        between: set[int] = set()
        ahead = list(after[start]) if len(after[start]) > 1 else []
        while ahead:
            way = ahead.pop()
            if way not in between and way not in through[start] - {start}:
                between.add(way)
                ahead += after[way]
        if any(i in syncs for way in between for i in pieces[way]):
            partings.add(piece[-1])
    return partings
