"""Odd, hostile and unfinished replies of a server: each is a failed clip with a clear reason, and the job continues."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from avsl.captioning.completion import MalformedReplyError, read_completion
from avsl.captioning.exchange import MAX_REPLY_BYTES
from avsl.commands.caption import main
from hypothesis import given
from hypothesis import strategies as st

DRAFT = '{"foreground": ["an image of a cello"], "background": "an image of a room"}'
GOOD = '{"foreground": ["an image of a man bowing a cello"], "background": "an image of a sofa"}'


def choice(**values: Any) -> dict[str, Any]:
    return {"choice": values}


def message(**values: Any) -> dict[str, Any]:
    return choice(message={"role": "assistant", **values})


def content(value: Any) -> dict[str, Any]:
    return message(content=value)


def body(value: Any, **others: Any) -> dict[str, Any]:
    return {"body": value if isinstance(value, (str, bytes)) else json.dumps(value), **others}


def failure(status: int, value: Any = "{}", **headers: str) -> dict[str, Any]:
    return {"status": status, **body(value), "headers": {k.replace("_", "-"): v for k, v in headers.items()}}


def saying(foreground: str, background: str = "an image of a sofa") -> dict[str, Any]:
    return {"text": json.dumps({"foreground": [foreground], "background": background})}


NO_COMPLETION = "the server sent no chat completion"
NO_MESSAGE = "the server sent a choice without a message"
NO_TEXT = "the server sent a message whose content is no text"
NOT_JSON = "the answer is not JSON"
NO_END = "it is a thought without an end"
NO_OBJECT = "it holds no JSON object"

#: What the server replies, and how the reason of the failed clip begins.
REPLIES: dict[str, tuple[dict[str, Any], str]] = {
    # Types that the interface does not promise.
    "null": (body(None), NO_COMPLETION),
    "a number": (body(5), NO_COMPLETION),
    "a word": (body("true"), NO_COMPLETION),
    "a string": (body('"text"'), NO_COMPLETION),
    "a list": (body([1, 2]), NO_COMPLETION),
    "an empty list": (body([]), NO_COMPLETION),
    "an empty object": (body({}), NO_COMPLETION),
    "nothing": (body(""), NOT_JSON),
    "spaces": (body("  \n"), NOT_JSON),
    "no choices": (body({"choices": []}), NO_COMPLETION),
    "choices null": (body({"choices": None}), NO_COMPLETION),
    "choices a string": (body({"choices": "abc"}), NO_COMPLETION),
    "choices an object": (body({"choices": {"a": 1}}), NO_COMPLETION),
    "choices a number": (body({"choices": 5}), NO_COMPLETION),
    "a choice null": (body({"choices": [None]}), NO_COMPLETION),
    "a choice a string": (body({"choices": ["abc"]}), NO_COMPLETION),
    "a choice a list": (body({"choices": [[]]}), NO_COMPLETION),
    "an empty choice": (body({"choices": [{}]}), NO_MESSAGE),
    "a completion of the older interface": (body({"choices": [{"text": GOOD}]}), NO_MESSAGE),
    "a part of a stream": (body({"choices": [{"delta": {"content": GOOD}}]}), NO_MESSAGE),
    "message null": (choice(message=None), NO_MESSAGE),
    "message a string": (choice(message="text"), NO_MESSAGE),
    "message a list": (choice(message=[1]), NO_MESSAGE),
    "message a number": (choice(message=1), NO_MESSAGE),
    "an empty message": (choice(message={}), "it is empty"),
    "content null": (content(None), "it is empty"),
    "content empty": (content(""), "it is empty"),
    "content blank": (content(" \n "), "it is empty"),
    "content a number": (content(5), NO_TEXT),
    "content a float": (content(1e999), NO_TEXT),
    "content a truth value": (content(True), NO_TEXT),
    "content false": (content(False), NO_TEXT),
    "content an object": (content({"text": GOOD}), NO_TEXT),
    "no parts": (content([]), "it is empty"),
    "a part null": (content([None]), "the server sent a message with a part that is no text"),
    "a part a number": (content([1]), "the server sent a message with a part that is no text"),
    "a part with a number": (content([{"type": "text", "text": 5}]), "the server sent a message with a part without"),
    "a part without text": (content([{"type": "text"}]), "the server sent a message with a part without text"),
    "a picture": (content([{"type": "image_url", "image_url": {"url": "x"}}]), "it is empty"),
    "thoughts in parts only": (content([{"type": "thinking", "thinking": [{"text": GOOD}]}]), "it is empty"),
    "finish_reason a number": ({"text": GOOD, **choice(finish_reason=5)}, "the model did not finish it"),
    "finish_reason a list": ({"text": GOOD, **choice(finish_reason=["stop"])}, "the model did not finish it"),
    "a lone surrogate": (content('"\ud800'), NO_OBJECT),
    # What is no JSON, or too much of it.
    "text": (body("hello"), NOT_JSON),
    "HTML": (body("<html>gateway</html>", headers={"Content-Type": "text/html"}), NOT_JSON),
    "half": (body('{"choices": [{"mess'), NOT_JSON),
    "two bodies": (body("{}{}"), NOT_JSON),
    "server-sent events": (body('data: {"choices": []}\n\ndata: [DONE]\n\n'), NOT_JSON),
    "zeros": (body(bytes(1000)), NOT_JSON),
    "nested lists": (body("[" * 200_000), "the answer is not JSON (it is nested too deeply)"),
    "nested objects": (body('{"a":' * 200_000), "the answer is not JSON (it is nested too deeply)"),
    "a nested answer": (content('{"foreground":' + "[" * 10_000), NO_OBJECT),
    "an integer of 6,000 digits": (
        body('{"created": ' + "9" * 6000 + "}"),
        "the answer is not JSON (Exceeds the limit",
    ),
    "such an integer in the answer": (content('{"foreground": ' + "9" * 6000 + "}"), NO_OBJECT),
    "Latin-1": (body('{"a": "é"}'.encode("latin-1")), "the answer is not UTF-8 text"),
    "UTF-16": (body('{"a": 1}'.encode("utf-16")), "the answer is not UTF-8 text"),
    "random bytes": (body(bytes(range(256))), "the answer is not UTF-8 text"),
    "large": (body(" " * (MAX_REPLY_BYTES + 1)), f"an answer of more than {MAX_REPLY_BYTES} bytes"),
    "a large answer": (content("x" * 1_000_000), "it has 1000000 characters, at most"),
    "a long answer": (content("x" * 30_000), "it has 30000 characters, at most"),
    "braces": (content("{" * 20_000), NO_OBJECT),
    "a bomb": (
        body(gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"}),
        f"an answer of more than {MAX_REPLY_BYTES} bytes",
    ),
    "a bomb and garbage": (
        body(gzip.compress(b"{}") + bytes(MAX_REPLY_BYTES), headers={"Content-Encoding": "gzip"}),
        f"an answer of more than {MAX_REPLY_BYTES} bytes",
    ),
    "no gzip": (body("{}", headers={"Content-Encoding": "gzip"}), "an answer that is not gzip as it says"),
    "half a gzip": (body(gzip.compress(b"[1, 2, 3]")[:15], headers={"Content-Encoding": "gzip"}), NOT_JSON),
    "Brotli": (body("x", headers={"Content-Encoding": "br"}), "an answer in the encoding 'br', which was not asked"),
    "gzip twice": (body("x", headers={"Content-Encoding": "gzip, gzip"}), "an answer in the encoding 'gzip, gzip'"),
    # What the provider says about its failure.
    "an error": (body({"error": {"message": "out of credits"}}), "the server reports an error: out of credits"),
    "an error in words": (body({"error": "out of credits"}), "the server reports an error: out of credits"),
    "a number as an error": (body({"error": 5, "choices": []}), "the server reports an error"),
    "a choice with an error": (
        choice(message=None, finish_reason="error", error={"code": 502, "message": "the provider is down"}),
        "the server reports an error: the provider is down",
    ),
    "a choice with an error in words": (choice(error="overloaded"), "the server reports an error: overloaded"),
    "cut": (
        {"text": DRAFT[:30], **choice(finish_reason="length")},
        "it was cut off at the limit of tokens, which --max",
    ),
    "cut with a draft": ({"text": f"First: {DRAFT}", **choice(finish_reason="length")}, "it was cut off at the limit"),
    "cut in Google's words": ({"text": DRAFT, **choice(finish_reason="MAX_TOKENS")}, "it was cut off at the limit of"),
    "thoughts only": (
        message(content=None, reasoning_content=DRAFT) | {},
        "it is empty, with thoughts in 'reasoning_content' only",
    ),
    "refused": (message(content=None, refusal="I can't help with that."), "the model refused: I can't help with that."),
    "refused oddly": (message(content=GOOD, refusal={"a": 1}), 'the model refused: {"a": 1}'),
    "filtered": (
        {"text": GOOD, **choice(finish_reason="content_filter")},
        'the server\'s content filter withheld it (finish_reason "content_filter")',
    ),
    "filtered in Google's words": ({"text": GOOD, **choice(finish_reason="SAFETY")}, "the server's content filter"),
    "a tool": ({"text": GOOD, **choice(finish_reason="tool_calls")}, "the model did not finish it"),
    "stopped": (
        {"text": GOOD, **choice(finish_reason="abort")},
        'the model did not finish it (finish_reason "abort")',
    ),
    # Answers that are no captions.
    "an unfinished thought": ({"text": f"<think>First: {DRAFT} but wait"}, NO_END),
    "words": ({"text": "I'm sorry, I can't help with that."}, NO_OBJECT),
    "a caption None": (saying("an image of a cello", "None"), "the caption 'None' says nothing"),
    "a caption N/A": (saying("N/A"), "the caption 'N/A' says nothing"),
    "a caption that refuses": (saying("I'm sorry, I can't identify the cello"), "the caption \"I'm sorry, I can't"),
    "a placeholder": (saying("an image of <label>"), "the caption 'an image of <label>' is a placeholder"),
    "French": (saying("une image d'un homme jouant du violoncelle"), "the caption \"une image d'un homme"),
    # HTTP.
    "redirect 301": (failure(301, Location="http://127.0.0.1:9/v1"), "HTTP 301: "),
    "redirect 302": (failure(302, Location="http://127.0.0.1:9/v1"), "HTTP 302: "),
    "redirect 303": (failure(303, Location="/v2"), "HTTP 303: "),
    "redirect 307": (failure(307, Location="http://127.0.0.1:9/v1"), "HTTP 307: "),
    "redirect 308": (failure(308, Location="file:///etc/passwd"), "HTTP 308: "),
    "redirect to nowhere": (failure(307), "HTTP 307: "),
    "no content": (failure(204, ""), NOT_JSON),
    "HTTP 400": (failure(400, {"error": {"message": "image too large"}}), "HTTP 400 from "),
    "HTTP 400 of a list": (failure(400, [1]), "HTTP 400 from "),
    "HTTP 400 of nothing": (failure(400, ""), "HTTP 400 from "),
    "HTTP 400 of bytes": (failure(400, b"\xff\xfe"), "HTTP 400 from "),
    "HTTP 418": (failure(418, "teapot"), "HTTP 418 from "),
    "HTTP 429": (failure(429, Retry_After="inf"), "HTTP 429 from "),
    "HTTP 500": (failure(500, "[" * 200_000), "HTTP 500 from "),
    "HTTP 599": (failure(599, "oops"), "HTTP 599 from "),
    "a large error": (failure(500, "x" * (MAX_REPLY_BYTES + 1)), f"an answer of more than {MAX_REPLY_BYTES} bytes"),
    "a wrong date": (failure(429, Retry_After="Mon, 01 Jan 99999999999999999999 00:00:00 GMT"), "HTTP 429 from "),
    "a date in words": (failure(503, Retry_After="tomorrow"), "HTTP 503 from "),
    "a cut connection": ({"cut": True}, "RemoteProtocolError"),
    "a header of 200 kB": ({"text": GOOD, "headers": {"X": "x" * 200_000}}, "RemoteProtocolError"),
}


@pytest.fixture
def start(server, make_folder_of):
    """Asks about an "odd" clip between two good ones; returns the exit status, the captions and the failures."""

    def make(*arguments: str) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
        root = make_folder_of(["cello", "odd", "flute"])
        waits = ["--first-wait", "0.001", "--concurrency", "1", "--retries", "0", "--attempts", "1"]
        status = main(["--data-root", str(root), "--model", "m", "--server", server.url, *waits, *arguments])
        files = [root / "metadata" / name for name in ("captions.jsonl", "captions.failed.jsonl")]
        return status, *([json.loads(line) for line in f.read_text().splitlines()] if f.exists() else [] for f in files)

    return make


@pytest.mark.parametrize("kind", REPLIES)
def test_an_odd_reply_is_a_failed_clip_with_its_reason(start, server, make_reply, kind: str) -> None:
    reply, reason = REPLIES[kind]
    server.reply = lambda r: make_reply(**reply) if r.labels == ["odd"] else r.good
    status, captions, failed = start()
    assert [entry["id"] for entry in captions] == ["s0", "s2"]
    assert [entry["id"] for entry in failed] == ["s1"]
    assert failed[0]["reason"].removeprefix(f"{server.url}: ").startswith(reason)
    assert len(json.dumps(failed[0])) < 200_000
    assert status == 1


#: What a server may reply as well: each gives the captions of ``GOOD``.
USABLE: dict[str, dict[str, Any]] = {
    "text": {"text": GOOD},
    "text parts": content([{"type": "text", "text": GOOD[:20]}, {"type": "text", "text": GOOD[20:]}]),
    "thoughts in a part of their own": content(
        [{"type": "thinking", "thinking": DRAFT}, {"type": "text", "text": GOOD}]
    ),
    "a part as a string": content([GOOD]),
    "a byte order mark": body(b"\xef\xbb\xbf" + json.dumps({"choices": [{"message": {"content": GOOD}}]}).encode()),
    "no finish_reason": body({"choices": [{"message": {"content": GOOD}}]}),
    "odd values that nobody needs": body(
        {"created": "Mon, 99", "usage": [], "id": 5, "model": None, "error": None}
        | {"choices": [{"index": "x", "finish_reason": "eos_token", "message": {"content": GOOD, "role": 1}}, None]}
    ),
    "another content type": {"text": GOOD, "headers": {"Content-Type": "text/html; charset=utf-16"}},
    "gzip": body(
        gzip.compress(json.dumps({"choices": [{"message": {"content": GOOD}}]}).encode()),
        headers={"Content-Encoding": "gzip"},
    ),
    "deflate": body(
        zlib.compress(json.dumps({"choices": [{"message": {"content": GOOD}}]}).encode()),
        headers={"Content-Encoding": "deflate"},
    ),
    "cookies": {"text": GOOD, "headers": {"Set-Cookie": "a=b; expires=Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}},
    "thoughts": {"text": f"<think>{DRAFT}</think>{GOOD}"},
    "thoughts in a field of their own": message(content=GOOD, reasoning_content=DRAFT),
}


@pytest.mark.parametrize("kind", USABLE)
def test_a_usable_reply(start, server, make_reply, kind: str) -> None:
    server.reply = lambda r: make_reply(**USABLE[kind]) if r.labels == ["odd"] else r.good
    status, captions, failed = start()
    assert (status, failed) == (0, [])
    assert captions[1] == {"id": "s1", **json.loads(GOOD)}


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_endless_reply_is_read_to_its_bound(start, server, make_reply, status: int) -> None:
    endless = make_reply(status=status, body=b" " * 2**16, endless=True)
    server.reply = lambda r: endless if r.labels == ["odd"] else r.good
    _, captions, failed = start()
    assert len(captions) == 2
    assert failed[0]["reason"].startswith(f"an answer of more than {MAX_REPLY_BYTES} bytes from http://127.0.0.1")
    assert server.sent < 10 * MAX_REPLY_BYTES  # the sockets' buffers come on top of the bound


def test_a_redirect_is_named_and_not_followed(start, server, make_server, make_reply) -> None:
    other = make_server()
    redirect = make_reply(status=307, body="", headers={"Location": f"{other.url}/chat/completions"})
    server.reply = lambda r: redirect if r.labels == ["odd"] else r.good
    _, _, failed = start("--retries", "3")
    assert (
        f"{server.url} redirects to '{other.url}/chat/completions'. Redirects are not followed" in failed[0]["reason"]
    )
    assert other.requests == []
    assert len(server.requests) == 3


def test_the_server_of_an_odd_reply_is_named(start, server, make_reply) -> None:
    server.reply = lambda r: make_reply(body="null") if r.labels == ["odd"] else r.good
    assert start()[2][0]["reason"] == f"{server.url}: {NO_COMPLETION}: null"


def test_cookies_are_not_kept(start, server, make_reply) -> None:
    server.reply = lambda r: make_reply(text=r.good.text, headers={"Set-Cookie": "a=b"})
    assert start()[0] == 0
    assert not any("cookie" in r.headers for r in server.requests)


ODD = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eabc\r\nForged: line"


@pytest.mark.parametrize(
    "reply",
    [
        failure(400, {"error": {"message": ODD}}),
        failure(400, ODD),
        failure(302, Location="http://\x1b[2J/"),
        choice(error=ODD),
        choice(finish_reason=ODD),
        message(refusal=ODD),
        body(ODD),
        {"text": ODD},
        saying(f"<{ODD}>"),
    ],
)
def test_escape_sequences_reach_neither_terminal_nor_reason(start, server, make_reply, capfd, caplog, reply) -> None:
    server.reply = lambda r: make_reply(**reply) if r.labels == ["odd"] else r.good
    _, _, failed = start()
    output = capfd.readouterr()
    for text in (output.out, output.err, caplog.text, failed[0]["reason"]):
        assert not any(c in text for c in "\x1b\x07\x9b\u202e")
        assert "\nForged" not in text


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda v: (
        st.lists(v, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "message", "content", "error", "finish_reason", "text"]), v)
    ),
)


@given(values, values, values)
def test_any_values_give_a_completion_or_a_reason(choices: Any, message: Any, content: Any) -> None:
    nested = {"choices": [{"message": {"content": content, "refusal": message}, "finish_reason": choices}]}
    for value in (choices, {"choices": choices}, {"choices": [{"message": message}]}, nested):
        try:
            completion = read_completion(json.dumps(value).encode())
        except MalformedReplyError:
            continue
        assert isinstance(completion.text, str)
        assert completion.text.strip() or completion.problem


@given(st.binary())
def test_any_bytes_give_a_completion_or_a_reason(content: bytes) -> None:
    with pytest.raises(MalformedReplyError):
        read_completion(content)
