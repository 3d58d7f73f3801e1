"""What an input class is, and what may come of it: a right result, or a named error."""

from __future__ import annotations

import random
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sslosses.evaluate.errors import CommandError

#: All that a reader or a metric may raise; RuntimeError is that of torch's ``load_state_dict``. A UnicodeError is a
#: ValueError too, but says nothing of the file.
ERRORS = (TypeError, ValueError, OSError, RuntimeError, CommandError)


class Attempt(NamedTuple):
    """A call.

    Attributes:
        run: the call.
        error: regular expression that the error's text has to match; None where there has to be a result.
        check: whether a result is right.
    """

    run: Callable[[], Any]
    error: str | None = None
    check: Callable[[Any], bool] = lambda _: True


class Either(NamedTuple):
    """A call that may have a result, and else an error whose text matches ``error``."""

    run: Callable[[], Any]
    error: str


class InputClass(NamedTuple):
    """Some inputs of a function; ``attempts`` makes the calls, with an empty folder for their files."""

    function: str
    name: str
    attempts: Callable[[Path], Iterable[Attempt | Either]]

    def __str__(self) -> str:
        return f"{self.function}: {self.name}"


class Outcome(NamedTuple):
    """Calls, how many had a result, and the text of one of the errors."""

    cases: int
    results: int
    example: str

    def __str__(self) -> str:
        errors = self.cases - self.results
        if not errors:
            return "result"
        return f"{self.results} × result, {errors} × {self.example}" if self.results else self.example


def outcome(inputs: InputClass) -> Outcome:
    """Run all calls of a class.

    Raises:
        AssertionError: if one does not end as it has to.
    """
    texts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        for attempt in inputs.attempts(Path(folder)):
            text = _run(attempt)
            texts[text.replace(folder, "…")] += 1
    results = texts.pop("", 0)
    example = texts.most_common(1)[0][0] if texts else ""
    return Outcome(results + texts.total(), results, example)


def _run(attempt: Attempt | Either) -> str:
    failure: Exception | None = None
    try:
        result = attempt.run()
    except (RecursionError, NotImplementedError):  # RuntimeErrors too
        raise
    except ERRORS as error:
        failure = error
    if failure is not None:
        text = str(failure)
        assert attempt.error is not None, f"expected a result, but got {type(failure).__name__}: {text}"
        assert not isinstance(failure, UnicodeError), repr(failure)
        assert re.search(attempt.error, text, re.DOTALL), f"{text!r} does not match {attempt.error!r}"
        assert len(text) < 2000, f"an error of {len(text)} characters"
        return f"{type(failure).__name__}: {text}"
    if isinstance(attempt, Attempt):
        assert attempt.error is None, f"expected an error matching {attempt.error!r}, but got {result!r:.200}"
        assert attempt.check(result), f"a wrong result: {result!r:.200}"
    return ""


_LETTERS = b'{}[]",:<>&;.\\/-0123456789eE+ntf\n\x00\xff'


Reader = Callable[[Path], Any]


def written(
    reader: Reader, file: str, contents: Callable[[], Iterator[bytes]], right: str, error: str | None
) -> Callable[[Path], Iterator[Attempt | Either]]:
    """Attempts to read ``file`` with each of ``contents``: all end in ``error``, or if that is None in a value or in an
    error that matches ``right``."""

    def attempts(folder: Path) -> Iterator[Attempt | Either]:
        for content in contents():
            (folder / file).write_bytes(content)
            run = lambda: reader(folder / file)  # noqa: E731
            yield Either(run, right) if error is None else Attempt(run, error)

    return attempts


def truncated(content: bytes) -> Iterator[bytes]:
    """Every beginning of some bytes that lacks something."""
    for end in range(len(content)):
        yield content[:end]


def mutated(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """The bytes with one to four random changes: a byte replaced, inserted, removed, a part repeated or moved."""
    draw = random.Random(seed)
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            at, length = draw.randrange(len(changed) + 1), draw.randint(1, 12)
            kind = draw.randrange(5)
            if kind == 0 and at < len(changed):
                changed[at] = draw.randrange(256)
            elif kind == 1:
                changed[at:at] = bytes(
                    draw.choice(b'{}[]",:<>&;.\\/-0123456789eE+ntf\n\x00\xff') for _ in range(length)
                )
            elif kind == 2:
                del changed[at : at + length]
            elif kind == 3:
                changed[at:at] = changed[at : at + 10 * length]
            else:
                part = bytes(changed[at : at + length])
                del changed[at : at + length]
                place = draw.randrange(len(changed) + 1)
                changed[place:place] = part
        yield bytes(changed)
