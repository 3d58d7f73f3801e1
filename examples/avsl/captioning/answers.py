"""From a model's answer to captions: the JSON in it is found, checked, and its captions put into one form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any, NamedTuple

from .prompt import EXAMPLES, readable

START = "an image of "
LONGEST = 500
LONGEST_ANSWER = 200_000
_OPENING = re.compile(
    r"^\W*(?:(?:an?|the|this)\s+)?(?:image|picture|photo|photograph|frame)\s+(?:of|shows|showing|depicts|depicting)\b",
    re.IGNORECASE,
)


class AnswerError(ValueError):
    """An answer that can't be used; the text says why, in words that the model can be given."""


class Captions(NamedTuple):
    """One foreground caption a label, in the order of the labels, and one background caption."""

    foreground: tuple[str, ...]
    background: str


def parse_answer(text: str, labels: Sequence[str]) -> Captions:
    """Captions out of a model's whole answer; the JSON object may stand in a fence or among other words.

    Raises:
        AnswerError: if there is no such object or more than one, if it has another number of foreground captions than
            ``labels``, or if a caption is empty, overlong, twice the same, or that of an example of the prompt.
    """
    if len(text) > LONGEST_ANSWER:
        raise AnswerError(f"it has {len(text)} characters, at most {LONGEST_ANSWER} are read")
    found = [o for o in _objects(_without_thoughts(text)) if {"foreground", "background"} <= o.keys()]
    if not found:
        raise AnswerError('it holds no JSON object with the keys "foreground" and "background"')
    if any(other != found[0] for other in found[1:]):
        raise AnswerError(f"it holds {len(found)} different JSON objects in place of one")
    foreground, background = found[0]["foreground"], found[0]["background"]
    if isinstance(foreground, str):
        foreground = [foreground]
    if not isinstance(foreground, list) or not all(isinstance(t, str) for t in foreground):
        raise AnswerError('"foreground" is not a list of strings')
    if not isinstance(background, str):
        raise AnswerError('"background" is not a string')
    if len(foreground) != len(labels):
        raise AnswerError(f'"foreground" has {len(foreground)} captions, but {len(labels)} are wanted, one per label')
    captions = Captions(tuple(_caption(t) for t in foreground), _caption(background))
    foreground_texts = set(captions.foreground)
    if captions.background in foreground_texts or len(foreground_texts) < len(set(labels)):
        raise AnswerError("two of the captions are the same")
    if any(captions.background == example.background for example in EXAMPLES):
        raise AnswerError("it repeats an example in place of describing the frame")
    return captions._replace(foreground=in_order_of(labels, captions.foreground))


def _without_thoughts(text: str) -> str:
    """``text`` without what stands in <think>…</think>."""
    kept = []
    while (start := text.find("<think>")) >= 0 and (end := text.find("</think>", start)) >= 0:
        kept.append(text[:start])
        text = text[end + len("</think>") :]
    return "".join([*kept, text])


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """All JSON objects in ``text`` that are not inside another one."""
    decoder = json.JSONDecoder(strict=False)  # line breaks inside strings are let pass
    place = text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
            yield value
        except RecursionError:  # nested without end: each further place would be, too
            return
        except ValueError:
            end = place + 1
        place = text.find("{", end)


def _caption(text: str) -> str:
    """``text`` on one line, starting with "an image of"."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    rest = _OPENING.sub("", words).strip(" .:,;")
    if not any(c.isalpha() for c in rest):
        raise AnswerError(f"the caption {words[:40]!r} says nothing")
    if len(rest) > LONGEST:
        raise AnswerError(f"a caption has {len(rest)} characters, at most {LONGEST} are wanted")
    if rest[0].isupper() and not rest[1:2].isupper():
        rest = rest[0].lower() + rest[1:]
    return START + rest


def in_order_of(labels: Sequence[str], captions: Sequence[str]) -> tuple[str, ...]:
    """The captions, reordered if another order names clearly more of each label's words; else as they are."""
    named = [[_share_of_words(label, caption) for caption in captions] for label in labels]
    given = tuple(range(len(labels)))
    totals = {order: sum(named[i][j] for i, j in enumerate(order)) for order in permutations(given)}
    best = max(totals.values())
    leading = [order for order, total in totals.items() if total > best - 1e-9]
    order = leading[0] if len(leading) == 1 else given
    return tuple(captions[i] for i in order)


def _share_of_words(label: str, caption: str) -> float:
    """How many of the label's words the caption has, 0 to 1; endings as in "guitar" and "guitars" don't count."""
    said = re.findall(r"\w+", caption.lower())
    words = re.findall(r"\w+", readable(label).lower())
    return sum(any(_alike(word, other) for other in said) for word in words) / max(len(words), 1)


def _alike(word: str, other: str) -> bool:
    short, long = sorted((word, other), key=len)
    return word == other or (len(short) > 3 and long.startswith(short) and len(long) - len(short) <= 3)
