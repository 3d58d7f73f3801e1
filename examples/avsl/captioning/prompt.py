"""The prompt about a frame, structured as in the paper (section 3.2, Table 10)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple


class WorkedExample(NamedTuple):
    """A worked example of the prompt, in text only: its frame is not shown to the model."""

    scenario: str
    labels: tuple[str, ...]
    foreground: tuple[str, ...]
    background: str

    @property
    def answer(self) -> str:
        return json.dumps({"foreground": self.foreground, "background": self.background})


EXAMPLES = (
    WorkedExample(
        "Several objects, one of which sounds",
        ("lawn mowing",),
        ("an image of a woman pushing a lawn mower",),
        "an image of a garden fence, a parked bicycle, and trees",
    ),
    WorkedExample(
        "Objects that look alike, one of which sounds",
        ("playing trumpet",),
        ("an image of a girl in a red coat playing the trumpet",),
        "an image of unplayed trumpets on a wall, listeners, and chairs",
    ),
    WorkedExample(
        "Several objects that sound",
        ("cello", "flute"),
        ("an image of a man bowing a cello", "an image of a woman playing the flute"),
        "an image of a closed piano, a bookshelf, and a lamp",
    ),
)

_INSTRUCTIONS = """\
You are shown one frame of a video and told by labels which sounds are heard in it. Sort what the frame shows into \
what makes these sounds and what is silent. A frame can be crowded, and an object of a sounding kind can be silent too.

What to do:
1. Foreground: for each label, find the object in the frame that makes this sound and say what it looks like and does.
2. Background: name other things in the frame that have no part in the sounds, also silent ones of a sounding kind.
3. Say only what can be seen. Don't guess at what is hidden or outside the frame.

Answer format:
One JSON object with two keys. "foreground" is a list with one caption per label, in the order of the labels. \
"background" is a single caption. Every caption is one phrase that starts with "an image of".

Examples:
"""


def build_prompt(labels: Sequence[str], complaint: str = "") -> str:
    """Builds the prompt about a frame in which ``labels`` sound.

    Args:
        labels: names of the sounding classes, in the order of their captions.
        complaint: why an earlier answer could not be used; empty if there was none.
    """
    parts = [_INSTRUCTIONS]
    for number, example in enumerate(EXAMPLES, 1):
        parts.append(
            f"({number}) {example.scenario}\nInput: frame of example {number}, {_listed(example.labels)}\n"
            f"Output: {example.answer}\n\n"
        )
    captions = "1 foreground caption" if len(labels) == 1 else f"{len(labels)} foreground captions in this order"
    parts.append(f"Now answer in the same way.\nInput: the frame you were given, {_listed(labels)}\n")
    if complaint:
        parts.append(f"An earlier answer could not be used: {complaint}.\n")
    parts.append(f"Return only the JSON object, with {captions} and 1 background caption.")
    return "".join(parts)


def _listed(labels: Sequence[str]) -> str:
    return f"labels {json.dumps([readable(label) for label in labels], ensure_ascii=False)}"


def readable(label: str) -> str:
    """A class name in words: "acoustic guitar" for ``acoustic_guitar``."""
    return " ".join(label.replace("_", " ").split())


def messages(prompt: str, image: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation: one user message with the frame, in the backend's form, and the prompt."""
    return [{"role": "user", "content": [image, {"type": "text", "text": prompt}]}]


def prompt_hash() -> str:
    """SHA-256 of the prompt without the labels."""
    texts = [build_prompt(labels, complaint) for labels in (["x"], ["x", "y"]) for complaint in ("", "z")]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
