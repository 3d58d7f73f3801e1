"""Makes text from a server safe to write and to log: without the API key, control characters, or great length."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable
from urllib.parse import SplitResult, unquote

MASK = "[key]"
MAX_MESSAGE_LENGTH = 400
#: Characters in a row that give a key away. Shorter keys, such as "EMPTY", are masked as whole words.
_TELLING = 8
_SHORTEST = 4


class Mask:
    """Replaces secrets by ``[key]``: all of a secret or its beginning, as it is or escaped for JSON, URLs or HTML.

    Args:
        secrets: the API key, and passwords in addresses. Those of fewer than 4 characters are no secrets.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        found = sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True)
        self._words = [re.compile(rf"(?<!\w){re.escape(s)}(?!\w)") for s in found if len(s) < _TELLING]
        long = [s for s in found if len(s) >= _TELLING]
        encoded = [base64.b64encode(s.encode()).decode().rstrip("=") for s in long]
        patterns = [[_escaped(c) for c in s] for s in (*long, *encoded)]
        self._beginnings = [re.compile("".join(s[:_TELLING]), re.IGNORECASE) for s in patterns]
        self._rests = [[re.compile(c, re.IGNORECASE) for c in s[_TELLING:]] for s in patterns]

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        for beginning, rest in zip(self._beginnings, self._rests, strict=True):
            kept, position = [], 0
            while match := beginning.search(text, position):
                kept += [text[position : match.start()], MASK]
                position = match.end()
                for character in rest:
                    following = character.match(text, position)
                    if following is None:
                        break
                    position = following.end()
            text = "".join([*kept, text[position:]])
        for word in self._words:
            text = word.sub(MASK, text)
        return text

    def message(self, text: str) -> str:
        """``text`` without secrets, on one line of printable characters, shortened."""
        return one_line(self.text(text))


def one_line(text: str) -> str:
    """``text`` on one line of printable characters, shortened."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_MESSAGE_LENGTH else line[: MAX_MESSAGE_LENGTH - 1] + "…"


def passwords(parts: SplitResult) -> list[str]:
    """What is secret in an address: the part before ``@``, and values of its query."""
    account = parts.netloc.rpartition("@")[0]
    values = [pair.partition("=")[2] for pair in parts.query.split("&")]
    return [unquote(s) for s in (account, account.partition(":")[2], *values) if s]


def _escaped(character: str) -> str:
    """A pattern of one character of a secret, also as JSON, URLs and HTML escape it."""
    code = ord(character)
    # Escaped text may be escaped again, which doubles its backslashes.
    forms = [rf"\\{{0,4}}{re.escape(character)}", rf"\\{{1,4}}u{code:04x}", rf"&#0*{code};", rf"&#x0*{code:x};"]
    forms += [re.escape(form) for form in (f"%{code:02x}", html.escape(character))]
    return f"(?:{'|'.join(forms)})"
