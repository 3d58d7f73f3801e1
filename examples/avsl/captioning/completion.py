"""Reads the body of a chat completion. Nothing in it is trusted to have the type that the interface promises."""

from __future__ import annotations

import json
import re
from typing import Any

from .backend import Completion

_FINISHED = frozenset({"", "stop", "eos", "eos_token", "stop_sequence", "end_turn", "end", "complete", "completed"})
_CUT = frozenset({"length", "max_tokens", "model_length", "max_output_tokens", "max_completion_tokens"})
_FILTERED = frozenset({"content_filter", "safety", "refusal", "recitation", "blocklist", "prohibited_content", "spii"})
_UNSUPPORTED = re.compile(
    r"unsupported|n[o']t support|unrecogni[sz]ed|unexpected|unknown|not (?:permitted|allowed)|\binstead\b|\bextra\b",
    re.IGNORECASE,
)


class MalformedReplyError(ValueError):
    """The body is no chat completion, or it says that the provider failed. A retry may help."""


def read_completion(body: bytes) -> Completion:
    """Reads the first choice of a chat completion.

    Raises:
        MalformedReplyError: with the reason, for any other body.
    """
    value = _parsed(body)
    if not isinstance(value, dict):
        raise MalformedReplyError(f"the server sent no chat completion: {_excerpt(value)}")
    if value.get("error"):
        raise MalformedReplyError(f"the server reports an error: {message_of(value)}")
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise MalformedReplyError(f"the server sent no chat completion: {_excerpt(value)}")
    if choice.get("error"):
        raise MalformedReplyError(f"the server reports an error: {message_of(choice)}")
    message = choice.get("message")
    if not isinstance(message, dict):
        raise MalformedReplyError(f"the server sent a choice without a message: {_excerpt(choice)}")
    text = _text(message.get("content"))
    return Completion(text, _problem(choice.get("finish_reason"), message, text))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8-sig"), strict=False)  # line breaks in strings
    except UnicodeDecodeError as error:
        raise MalformedReplyError(f"the answer is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise MalformedReplyError(f"the answer is not JSON ({reason[:100]}): {_excerpt(body)}") from None


def _text(content: Any) -> str:
    """The text of a message: a string, or a list of parts, of which those with thoughts are left out."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise MalformedReplyError(f"the server sent a message whose content is no text: {_excerpt(content)}")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise MalformedReplyError(f"the server sent a message with a part that is no text: {_excerpt(part)}")
        if part.get("type", "text") in ("text", "output_text"):
            text = part.get("text")
            if not isinstance(text, str):
                raise MalformedReplyError(f"the server sent a message with a part without text: {_excerpt(part)}")
            texts.append(text)
    return "".join(texts)


def _problem(finish_reason: Any, message: dict[str, Any], text: str) -> str:
    reason = "" if finish_reason is None else finish_reason
    known = reason.casefold() if isinstance(reason, str) else None
    stated = f"(finish_reason {json.dumps(reason)[:60]})"
    if refusal := message.get("refusal"):
        return f"the model refused: {_excerpt(refusal)}"
    if known in _FILTERED:
        return f"the server's content filter withheld it {stated}"
    if known in _CUT:
        return f"it was cut off at the limit of tokens, which --max-tokens raises {stated}"
    if known not in _FINISHED:
        return f"the model did not finish it {stated}"
    if not text.strip():
        thoughts = next((k for k in ("reasoning_content", "reasoning", "thinking") if message.get(k)), "")
        return f"it is empty, with thoughts in {thoughts!r} only" if thoughts else "it is empty"
    return ""


def message_of(value: Any) -> str:
    """The message of an error in its usual places in ``value``; otherwise an excerpt of ``value``."""
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    return value[:1000] if isinstance(value, str) else _excerpt(value)


def error_of(body: bytes) -> str:
    """The message in the body of an HTTP error."""
    try:
        return message_of(_parsed(body))
    except MalformedReplyError:
        return _excerpt(body) if body else "without a message"


def unsupported(parameter: str, message: str) -> bool:
    """Whether an error's ``message`` says that the server doesn't take ``parameter`` of a request."""
    return bool(re.search(rf"\b{parameter}\b", message) and _UNSUPPORTED.search(message))


def _excerpt(value: Any) -> str:
    """The beginning of ``value`` as text, however large or deep it is."""
    if isinstance(value, bytes):
        return value[:1000].decode("utf-8", "replace")
    if isinstance(value, str):
        return value[:1000]
    try:
        return json.dumps(value, ensure_ascii=False)[:1000]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
