"""What the loop asks and gets back, whichever model answers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Protocol

from .frames import ClipToCaption
from .prompt import build_prompt


@dataclass(frozen=True)
class Question:
    """A question about one clip, asked for the ``attempt``-th time (from 0)."""

    clip: ClipToCaption
    attempt: int = 0
    complaint: str = ""

    @property
    def text(self) -> str:
        return build_prompt(self.clip.labels, self.complaint)

    def again(self, complaint: str) -> Question:
        return replace(self, attempt=self.attempt + 1, complaint=complaint)


@dataclass(frozen=True)
class Answer:
    """The model's words, or, where there are none, why."""

    question: Question
    text: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Generation:
    """How answers are generated. The first one is greedy, later ones are sampled at ``temperature``."""

    temperature: float = 0.7
    max_tokens: int = 300
    longest_side: int = 1024

    def temperature_of(self, question: Question) -> float:
        return self.temperature if question.attempt else 0.0


class Backend(Protocol):
    """A model that answers questions."""

    def answers(self, take: Callable[[], Question | None]) -> Generator[Answer, None, None]:
        """Answers in the order in which they come.

        Args:
            take: gives the next question, or ``None`` if there is none at the moment; handling an answer can bring a
                new one. The iterator ends when there is none and no answer is outstanding.
        """
        ...
