"""Removes a model's thoughts from its answer, whatever marks its vendor puts around them."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = (
    r"think|thought|reason|refle[cx]|analysis|scratchpad|monologue|working|rationale|deliberat|inner_|ponder|draft"
    r"|\b(?:cot|plan|internal)\b"
)
# <think>, </thinking>, [THINK], ◁/think▷, <seed:think>, <|end_of_thought|>, <think budget="9">
_BRACKETED = re.compile(
    rf"[<\[◁【][|｜]?(?P<slash>\\?/)?[|｜]?(?P<name>[\w:.▁-]{{0,30}}?(?:{_NAME})[\w:.▁-]{{0,30}})(?:\s[^<>\[\]]{{0,80}})?"
    r"[|｜]?(?P<empty>/)?[|｜]?[>\]▷】]",
    re.IGNORECASE,
)
_CLOSING_NAME = re.compile(r"^(?:end|close|stop)[_:.▁-]?|[_:.▁-](?:end|close|stop|suffix)$", re.IGNORECASE)
# Marks that are no pair of brackets around one word, as opening and closing ones.
_OTHER = re.compile(
    r"(?P<opening><\|?channel\|?>\s*(?:analysis|commentary|thought)|<unused94>"
    r"|\Aanalysis(?=[A-Z])|\A\s*here(?: is|'s) my thought process:)"
    r"|(?P<closing><\|channel\|>\s*final(?:[^<]{0,40}<\|message\|>)?|<channel\|>|<unused95>|<\|content\|>"
    r"|assistantfinal|here(?: is|'s) my response:)",
    re.IGNORECASE,
)


class _Mark(NamedTuple):
    start: int
    end: int
    closes: bool


class UnfinishedThoughtError(ValueError):
    """The text ends inside a thought."""


def _marks(text: str) -> list[_Mark]:
    marks = [
        _Mark(m.start(), m.end(), bool(m["slash"] or m["empty"] or _CLOSING_NAME.search(m["name"])))
        for m in _BRACKETED.finditer(text)
    ]
    marks += [_Mark(m.start(), m.end(), m["closing"] is not None) for m in _OTHER.finditer(text)]
    return sorted(marks)


def without_thoughts(text: str) -> str:
    """The text after the last closing mark of a thought; all of ``text`` if it has no marks.

    The opening mark may be missing, because many chat templates add it to the prompt.

    Raises:
        UnfinishedThoughtError: if a thought begins after the last closing mark, so that the answer is missing.
    """
    marks = _marks(text)
    if not marks:
        return text
    if not marks[-1].closes:
        raise UnfinishedThoughtError
    return text[marks[-1].end :]


def opening_mark(prompt: str) -> str:
    """The mark at the end of a rendered prompt with which its template begins a thought; empty if there is none."""
    stripped = prompt.rstrip()
    last = [mark for mark in _marks(stripped[-200:]) if mark.end == len(stripped[-200:])]
    return stripped[-200:][last[-1].start :] if last and not last[-1].closes else ""
