"""What an input class is, and how its calls may end: with a right result, or with an error that names the place."""

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
from sslosses.transport import ConvergenceWarning

#: Errors that a reader or a metric may raise. RuntimeError is what torch's ``load_state_dict`` raises.
ERRORS = (TypeError, ValueError, OSError, RuntimeError, CommandError)

Reader = Callable[[Path], Any]
#: Returns False, or raises AssertionError, for a wrong result.
Check = Callable[[Any], Any]
#: A list, or a function that makes one where it is large.
Contents = Iterable[bytes] | Callable[[], Iterable[bytes]]


def any_result(_: Any) -> bool:
    return True


class Case(NamedTuple):
    """A call and how it has to end.

    Attributes:
        run: the call.
        error: regular expression that the error's text has to match; None where a result is required.
        check: what a result has to pass.
        may_succeed: whether a result is allowed too.
    """

    run: Callable[[], Any]
    error: str | None = None
    check: Check = any_result
    may_succeed: bool = False


class InputClass(NamedTuple):
    """Some inputs of one function.

    Attributes:
        function: its name.
        name: what the inputs have in common.
        cases: makes the calls, given an empty folder for their files.
        errors: the types of error that the function may raise.
    """

    function: str
    name: str
    cases: Callable[[Path], Iterable[Case]]
    errors: tuple[type[Exception], ...] = ERRORS

    def __str__(self) -> str:
        return f"{self.function}: {self.name}"


class Outcome(NamedTuple):
    """Number of results, and how often each error came."""

    results: int
    errors: Counter[str]

    @property
    def cases(self) -> int:
        return self.results + self.errors.total()

    def __str__(self) -> str:
        if not self.errors:
            return "result"
        error = self.errors.most_common(1)[0][0]
        return f"{self.results} × result, {self.errors.total()} × {error}" if self.results else error


def outcome(inputs: InputClass) -> Outcome:
    """Run all calls of a class.

    Raises:
        AssertionError: if a call does not end as it has to.
    """
    results, errors = 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Of samples without a map, of surplus and constant maps, and of ground truth without a pixel.
        warnings.filterwarnings("ignore", ".* (samples|sources|maps) have ", UserWarning)
        warnings.filterwarnings("ignore", ".*interval over videos", UserWarning)
        for case in inputs.cases(Path(folder)):
            error = _run(case, inputs.errors)
            if error is None:
                results += 1
            else:
                errors[error.replace(folder, "…")] += 1
    return Outcome(results, errors)


def _run(case: Case, allowed: tuple[type[Exception], ...]) -> str | None:
    failure: Exception | None = None
    try:
        result = case.run()
    except (RecursionError, NotImplementedError):  # they are RuntimeErrors
        raise
    except allowed as error:
        failure = error
    if failure is None:
        assert case.error is None or case.may_succeed, (
            f"expected an error matching {case.error!r}, but got {result!r:.200}"
        )
        verdict = case.check(result)
        assert verdict is None or verdict, f"a wrong result: {result!r:.200}"
        return None
    text = str(failure)
    assert case.error is not None, f"expected a result, but got {type(failure).__name__}: {text}"
    # It is a ValueError, but says nothing about the file.
    assert not isinstance(failure, UnicodeError), repr(failure)
    assert re.search(case.error, text, re.DOTALL), f"{text!r} does not match {case.error!r}"
    assert len(text) < 2000, f"an error of {len(text)} characters"
    return f"{type(failure).__name__}: {text}"


class Row(NamedTuple):
    """An input class as data: its name, the argument of each call, and the error (a regular expression) or a check."""

    name: str
    arguments: Iterable[Any]
    expected: str | Check = any_result

    def cases(self, run: Callable[[Any], Any]) -> list[Case]:
        error, check = (self.expected, any_result) if isinstance(self.expected, str) else (None, self.expected)
        return [Case(lambda argument=argument: run(argument), error, check) for argument in self.arguments]


def input_classes(function: str, run: Callable[[Any], Any], rows: Iterable[Row]) -> Iterator[InputClass]:
    """The classes of a table, each of whose arguments ``run`` is called with."""
    for row in rows:
        yield InputClass(function, row.name, lambda _, row=row: row.cases(run))


def called(function: Callable[[], Any]) -> Any:
    """The ``run`` of tables whose arguments are functions."""
    return function()


class Format(NamedTuple):
    """A reader, the name of its file, and small valid contents."""

    reader: Reader
    file: str
    valid: bytes


class FileRow(NamedTuple):
    """An input class of files: its name, their contents, and the error. None allows a result as well."""

    name: str
    contents: Contents
    error: str | None


def file_cases(format_: Format, row: FileRow, allowed: str) -> Callable[[Path], Iterator[Case]]:
    """Cases that read a file with each of the contents; ``allowed`` is the error where a result is allowed as well."""

    def cases(folder: Path) -> Iterator[Case]:
        path = folder / format_.file
        for content in row.contents() if callable(row.contents) else row.contents:
            path.write_bytes(content)
            yield Case(lambda: format_.reader(path), row.error or allowed, may_succeed=row.error is None)

    return cases


def changed_bytes(valid: bytes, changes: int = 300) -> tuple[FileRow, FileRow]:
    """The two classes of files that were valid before."""
    return (
        FileRow("truncated at every byte", lambda: truncated(valid), None),
        FileRow("random bytes changed, inserted, moved", lambda: mutated(valid, changes), None),
    )


def truncated(content: bytes) -> Iterator[bytes]:
    """Every proper prefix of some bytes."""
    for end in range(len(content)):
        yield content[:end]


def mutated(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """The bytes with one to four random changes: bytes replaced, inserted, removed, repeated or moved."""
    draw = random.Random(seed)
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            at, length = draw.randrange(len(changed) + 1), draw.randint(1, 12)
            kind = draw.randrange(5)
            if kind == 0 and at < len(changed):
                changed[at] = draw.randrange(256)
            elif kind == 1:
                changed[at:at] = bytes(draw.choice(_LETTERS) for _ in range(length))
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


#: Punctuation and digits of the formats that are read.
_LETTERS = b'{}[]",:<>&;.\\/-0123456789eE+ntf\n\x00\xff'
