"""Extracts captions from a model's answer: finds the JSON after its thoughts, checks it, normalizes the captions."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any, NamedTuple

from .caption_checks import why_unusable
from .prompt import EXAMPLES, readable
from .thoughts import UnfinishedThoughtError, without_thoughts

START = "an image of "
MAX_CAPTION_LENGTH = 500
MAX_ANSWER_LENGTH = 20_000  # without thoughts
_OPENING = re.compile(
    r"^[\W\d]*(?:(?:an?|the|this)\s+)?(?:image|picture|photo|photograph|frame)\s+"
    r"(?:of|shows|showing|depicts|depicting|features|featuring|contains|captures|displays|portrays)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"""\W*(["'“‘])([^"“”]*)["'”’]\W*""")


class AnswerError(ValueError):
    """The answer can't be used. The message gives the reason, in words that can be sent to the model."""


class Captions(NamedTuple):
    """One foreground caption per label, in the order of the labels, and one background caption."""

    foreground: tuple[str, ...]
    background: str


def parse_answer(text: str, labels: Sequence[str]) -> Captions:
    """Extracts the captions from a model's answer. The JSON object may be fenced or surrounded by other text.

    If the answer holds thoughts, what follows the last closing mark of a thought is read.

    Raises:
        AnswerError: if a thought has no end, if the answer has no such object or several different ones, if the number
            of foreground captions differs from the number of ``labels``, or if a caption is empty, too long, a
            duplicate, copied from an example of the prompt, a placeholder, a refusal, or not in English.
    """
    try:
        answer = without_thoughts(text)
    except UnfinishedThoughtError:
        raise AnswerError("it is a thought without an end, no answer follows") from None
    if len(answer) > MAX_ANSWER_LENGTH:
        raise AnswerError(f"it has {len(answer)} characters, at most {MAX_ANSWER_LENGTH} are read")
    try:
        return _checked(_only_object(answer), labels)
    except RecursionError:  # comparing objects may go deeper than decoding them
        raise AnswerError("its JSON is nested too deeply") from None


def _only_object(text: str) -> dict[str, Any]:
    """The JSON object with captions in ``text``."""
    candidates = [o for o in _objects(text) if {"foreground", "background"} <= o.keys()]
    if not candidates:
        raise AnswerError('it holds no JSON object with the keys "foreground" and "background" that can be read')
    if any(other != candidates[0] for other in candidates[1:]):
        raise AnswerError(f"it holds {len(candidates)} different JSON objects in place of one")
    return candidates[0]


def _checked(answer: dict[str, Any], labels: Sequence[str]) -> Captions:
    foreground, background = answer["foreground"], answer["background"]
    if isinstance(foreground, str):
        foreground = [foreground]
    if not isinstance(foreground, list) or not all(isinstance(t, str) for t in foreground):
        raise AnswerError('"foreground" is not a list of strings')
    if not isinstance(background, str):
        raise AnswerError('"background" is not a string')
    if len(foreground) != len(labels):
        raise AnswerError(f'"foreground" has {len(foreground)} captions, but {len(labels)} are wanted, one per label')
    captions = Captions(tuple(_normalized(t) for t in foreground), _normalized(background))
    foreground_texts = set(captions.foreground)
    if captions.background in foreground_texts or len(foreground_texts) < len(set(labels)):
        raise AnswerError("two of the captions are the same")
    if any(captions.background == example.background for example in EXAMPLES):
        raise AnswerError("it repeats an example in place of describing the frame")
    return captions._replace(foreground=in_order_of(labels, captions.foreground))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """All outermost JSON objects in ``text``.

    Raises:
        AnswerError: if there are so many braces without an object that trying them all would take long.
    """
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_without_repetition)  # allows line breaks in strings
    effort = 20 * MAX_ANSWER_LENGTH  # characters to read in vain
    start = text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
            yield value
        except RecursionError:  # nested too deeply: decoding from any later brace would fail as well
            return
        except AnswerError:
            raise
        except ValueError as error:  # without a position for an integer of thousands of digits
            effort -= getattr(error, "pos", len(text)) - start
            if effort < 0:
                raise AnswerError("it holds too many braces that begin no JSON object") from None
            end = start + 1
        start = text.find("{", end)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise AnswerError("it holds a JSON object that has a key twice")
    return value


def _normalized(text: str) -> str:
    """Puts a caption on one line that starts with "an image of", without Markdown and quotation marks around it."""
    # Invisible characters, such as zero-width spaces and marks of direction, can stand inside words.
    words = " ".join("".join(c for c in text if unicodedata.category(c) != "Cf").split())
    if not words.isprintable() or "\ufffd" in words:
        raise AnswerError(f"the caption {words[:40]!r} holds characters that are no text")
    words = _QUOTED.sub(r"\2", words) if _QUOTED.fullmatch(words) else words
    rest = _OPENING.sub("", words).strip(" .:,;…*`")
    if not any(c.isalpha() for c in rest):
        raise AnswerError(f"the caption {words[:40]!r} says nothing")
    if len(rest) > MAX_CAPTION_LENGTH:
        raise AnswerError(f"a caption has {len(rest)} characters, at most {MAX_CAPTION_LENGTH} are wanted")
    if rest[0].isupper() and not rest[1:2].isupper():
        rest = rest[0].lower() + rest[1:]
    if reason := why_unusable(rest):
        raise AnswerError(f"the caption {words[:40]!r} {reason}")
    return START + rest


def in_order_of(labels: Sequence[str], captions: Sequence[str]) -> tuple[str, ...]:
    """Reorders the captions to match the labels, if exactly one order matches the labels' words best."""
    shares = [[_share_of_words(label, caption) for caption in captions] for label in labels]
    original_order = tuple(range(len(labels)))
    totals = {order: sum(shares[i][j] for i, j in enumerate(order)) for order in permutations(original_order)}
    highest = max(totals.values())
    best_orders = [order for order, total in totals.items() if total > highest - 1e-9]
    order = best_orders[0] if len(best_orders) == 1 else original_order
    return tuple(captions[i] for i in order)


def _share_of_words(label: str, caption: str) -> float:
    """Fraction of the label's words that occur in the caption, ignoring endings ("guitar" matches "guitars")."""
    caption_words = re.findall(r"\w+", caption.lower())
    label_words = re.findall(r"\w+", readable(label).lower())
    matches = sum(any(_same_stem(word, other) for other in caption_words) for word in label_words)
    return matches / max(len(label_words), 1)


def _same_stem(word: str, other: str) -> bool:
    short, long = sorted((word, other), key=len)
    return word == other or (len(short) > 3 and long.startswith(short) and len(long) - len(short) <= 3)
