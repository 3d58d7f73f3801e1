"""Questions, answers and the interface of a model, shared by all backends."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from .frames import ClipToCaption
from .prompt import build_prompt


@dataclass(frozen=True)
class Question:
    """A question about one clip.

    Args:
        clip: the clip to caption.
        attempt: number of this attempt, from 0.
        complaint: why the previous answer could not be used; empty for the first attempt.
    """

    clip: ClipToCaption
    attempt: int = 0
    complaint: str = ""

    @property
    def text(self) -> str:
        """The prompt."""
        return build_prompt(self.clip.labels, self.complaint)

    def again(self, complaint: str) -> Question:
        """The next attempt, which tells the model why its answer could not be used."""
        return replace(self, attempt=self.attempt + 1, complaint=complaint)


class Completion(NamedTuple):
    """What the model said, and why that is no answer; ``problem`` is empty if it is one."""

    text: str
    problem: str


@dataclass(frozen=True)
class Answer:
    """The outcome of a question.

    Args:
        question: the question.
        text: what the model said; ``None`` if it said nothing.
        error: why ``text`` is no answer, or why there is none.
        asked: False if the frame can't be read, so that the model was not asked.
    """

    question: Question
    text: str | None = None
    error: str = ""
    asked: bool = True


@dataclass(frozen=True)
class Generation:
    """How answers are generated.

    Args:
        temperature: sampling temperature of repeated questions; first answers are greedy. ``None``: servers choose.
        max_tokens: maximum number of tokens per answer.
        longest_side: frames are scaled down so that no side exceeds this many pixels.
    """

    temperature: float | None = 0.7
    max_tokens: int = 300
    longest_side: int = 1024

    def temperature_of(self, question: Question) -> float | None:
        return self.temperature if question.attempt or self.temperature is None else 0.0


class Backend(Protocol):
    """A model that answers questions."""

    def answers(self, next_question: Callable[[], Question | None]) -> Generator[Answer, None, None]:
        """Yields answers as they arrive, in any order.

        Args:
            next_question: returns the next question, or ``None`` if there is none at the moment. Handling an answer can
                add a question. The iterator ends when there is no question and no answer is outstanding.
        """
        ...
