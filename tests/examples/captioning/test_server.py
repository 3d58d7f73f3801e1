"""The client against a real HTTP server with faults."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import logging
import re
import signal
import threading
from email.utils import formatdate
from pathlib import Path

import pytest
from avsl.captioning.backend import Answer, Generation, Question
from avsl.captioning.frames import read_clips
from avsl.captioning.server import Patience, ServerModel, ServerRefusedError
from PIL import Image


class Clock:
    """A clock that advances only by sleeping."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def ask(model: ServerModel, questions: list[Question]) -> dict[str, Answer]:
    left = iter(questions)
    return {a.question.clip.name: a for a in model.answers(lambda: next(left, None))}


def questions(folder: Path) -> list[Question]:
    return [Question(clip) for clip in read_clips(folder)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connect(server, clock: Clock):
    def make(*urls: str, generation: Generation | None = None, concurrency: int = 1, key: str = "", **patience):
        return ServerModel(
            urls or [server.url],
            "m",
            generation or Generation(),
            concurrency=concurrency,
            patience=Patience(**{"timeout": 30.0, "retries": 3, **patience}),
            key=key,
            sleep=clock.sleep,
            clock=clock,
        )

    return make


def test_what_is_sent(server, connect, folder: Path) -> None:
    first = questions(folder)[0]
    ask(connect(generation=Generation(0.5, 77, 1024)), [first, first.again("it was empty")])
    one, two = sorted((r.body for r in server.requests), key=lambda body: body["temperature"])
    assert (one["model"], one["max_tokens"], one["temperature"], two["temperature"]) == ("m", 77, 0.0, 0.5)
    image, text = one["messages"][0]["content"]
    assert text == {"type": "text", "text": first.text}
    assert "it was empty" in two["messages"][0]["content"][1]["text"]
    header, data = image["image_url"]["url"].split(",")
    assert header == "data:image/jpeg;base64"
    assert base64.b64decode(data) == first.clip.frame.read_bytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_or_foreign_picture_becomes_a_small_jpeg(server, connect, folder: Path, kind: str) -> None:
    first = questions(folder)[0]
    Image.new("RGB", (40, 20), (255, 0, 0)).save(first.clip.frame, kind)
    ask(connect(generation=Generation(longest_side=20 if kind == "JPEG" else 40)), [first])
    url = server.requests[0].body["messages"][0]["content"][0]["image_url"]["url"]
    with Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) as sent:
        assert (sent.format, sent.size) == ("JPEG", (20, 10) if kind == "JPEG" else (40, 20))
        assert sent.getpixel((5, 5)) == pytest.approx((255, 0, 0), abs=3)


@pytest.mark.parametrize("content", [b"no picture", b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(20), b"\xff\xd8\xff"])
def test_an_unreadable_frame(server, connect, folder: Path, content: bytes) -> None:
    (folder / "frames" / "s0.jpg").write_bytes(content)
    answers = ask(connect(), questions(folder))
    assert "can't be read" in answers["s0"].error
    assert answers["s0"].text is None
    assert len(server.requests) == 3


def test_a_picture_too_large_to_decode(server, connect, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "can't be read: Image size" in ask(connect(), questions(folder)[:1])["s0"].error


FAULTS = {
    "500": {"status": 500, "body": "oops"},
    "503": {"status": 503, "body": '{"error": {"message": "loading"}}'},
    "429": {"status": 429, "body": "{}"},
    "cut": {"cut": True},
    "HTML": {"body": "<html>gateway</html>", "headers": {"Content-Type": "text/html"}},
    "no JSON": {"body": "<html>gateway</html>"},
    "half": {"body": '{"choices": [{"mess'},
    "other JSON": {"body": "[1, 2]"},
    "no choices": {"body": '{"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": []}'},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes(server, connect, clock: Clock, folder: Path, make_reply, fault: str) -> None:
    server.reply = lambda r: make_reply(**FAULTS[fault]) if r.number < 2 else r.good
    answers = ask(connect(first_wait=8.0, longest_wait=100.0), questions(folder)[:1])
    assert json.loads(answers["s0"].text or "")["background"] == "an image of a chair"
    assert len(server.requests) == 3
    assert [6 <= clock.slept[0] <= 8, 12 <= clock.slept[1] <= 16] == [True, True]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays(server, connect, clock: Clock, folder: Path, make_reply, fault: str) -> None:
    server.reply = lambda r: make_reply(**FAULTS[fault]) if "cello" in r.labels and len(r.labels) == 1 else r.good
    answers = ask(connect(first_wait=10.0, longest_wait=15.0, retries=3), [questions(folder)[0], questions(folder)[-1]])
    assert answers["s0"].text is None
    assert answers["s0"].error
    assert answers["d0"].text
    assert len(server.requests) == 5
    assert max(clock.slept) <= 15


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        *(
            ("90", 90.0),
            ("0", 1.0),
            ("soon", 1.0),
            ("-5", 1.0),
            (None, 1.0),
            ("date", 120.0),
            ("nan", 1.0),
            ("-inf", 1.0),
        ),
        # Longer than anybody should stand still:
        *((wait, 300.0) for wait in ("3600", "198300", "inf", "1e999", "9" * 5000)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 1.0),
    ],
)
def test_retry_after(server, connect, clock: Clock, folder: Path, make_reply, header: str | None, wait: float) -> None:
    import time

    value = formatdate(time.time() + 120, usegmt=True) if header == "date" else header
    busy = make_reply(status=429, body="{}", headers={} if value is None else {"Retry-After": value})
    server.reply = lambda r: r.good if r.number else busy
    assert ask(connect(), questions(folder)[:1])["s0"].text
    assert clock.slept == [pytest.approx(wait, rel=0.25)]
    assert header != "90" or clock.slept == [90.0]


def test_a_long_wait_is_logged_once_for_all_that_wait(
    server, connect, folder: Path, make_reply, caplog: pytest.LogCaptureFixture
) -> None:
    busy = make_reply(status=429, body='{"error": {"message": "\x1b[2J secret-key is over its quota"}}')
    busy.headers["Retry-After"] = "3600"
    server.reply = lambda r: r.good if r.number > 3 else busy
    model = connect(concurrency=4, longest_wait=60.0, key="secret-key")
    model._clock = lambda: 0.0  # all four wait at the same time
    answers = ask(model, questions(folder))
    assert all(a.text for a in answers.values())
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("Waiting 60 s before asking again (the server asks for 3600 s): HTTP 429 from http://127")
    assert line.endswith("[2J [key] is over its quota")


def test_a_slow_answer(server, connect, clock: Clock, folder: Path) -> None:
    def reply(request):
        if request.number == 0:
            server.released.wait(60)
        return request.good

    server.reply = reply
    assert ask(connect(timeout=0.3), questions(folder)[:1])["s0"].text
    assert len(clock.slept) == 1


def test_nobody_listens(connect, clock: Clock, folder: Path) -> None:
    answers = ask(connect("http://127.0.0.1:9/v1", retries=2), questions(folder)[:1])
    assert re.search(r"^ConnectError \(\[Errno \d+\] Connect call failed .*\) from http://127", answers["s0"].error)
    assert len(clock.slept) == 2


def test_a_proxy_that_fails_is_named(server, connect, clock: Clock, folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answers = ask(connect(retries=0), questions(folder)[:1])
    assert answers["s0"].error.endswith(f"from {server.url}, through a proxy that the environment names")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert not ask(connect(retries=0), questions(folder)[:1])["s0"].error


@pytest.mark.parametrize("setting", [("SSL_CERT_FILE", "/nowhere"), ("http_proxy", "a://b")])
def test_an_environment_that_cannot_be_used_is_named(connect, folder: Path, monkeypatch, setting) -> None:
    monkeypatch.setenv(*setting)
    with pytest.raises(ValueError, match=r"HTTP_PROXY, .*SSL_CERT_FILE"):
        ask(connect(), questions(folder)[:1])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_no_retry_helps(server, connect, clock: Clock, folder: Path, make_reply, status: int) -> None:
    wrong = make_reply(status=status, body='{"error": {"message": "image too large"}}')
    server.reply = lambda r: r.good if r.number else wrong
    answers = ask(connect(), questions(folder))
    assert f"HTTP {status}" in answers["s0"].error
    assert "image too large" in answers["s0"].error
    assert sum(a.text is not None for a in answers.values()) == 3
    assert clock.slept == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_everything(
    server, connect, folder: Path, make_reply, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.reply = lambda _: make_reply(status=status, body='{"error": {"message": "key secret-key is wrong"}}')
    with pytest.raises(ServerRefusedError, match=r"refuses the request for 'm': .* key \[key\] is wrong"):
        ask(connect(concurrency=3, key="secret-key"), questions(folder))
    gc.collect()  # asyncio logs errors of tasks that nobody has taken
    assert "secret-key" not in caplog.text


def test_the_key_is_sent_and_never_logged(
    server, connect, folder: Path, make_reply, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    padded = "x" * (300 - len("Error code: 400 - secr")) + "secret-key"
    server.reply = lambda _: make_reply(status=400, body=json.dumps({"error": {"message": padded}}))
    answers = ask(connect(key="secret-key"), questions(folder)[:1])
    assert server.requests[0].headers["authorization"] == "Bearer secret-key"
    assert "HTTP 400" in answers["s0"].error
    assert "secr" not in answers["s0"].error
    assert "secret-key" not in "\n".join(f"{r.getMessage()} {r.args}" for r in caplog.records)


@pytest.mark.parametrize("concurrency", [1, 3, 6])
def test_as_many_requests_at_once_as_asked_for_and_never_more(server, connect, make_folder, concurrency: int) -> None:
    """The server answers only when that many requests are open, so fewer would wait forever."""
    folder = make_folder(solos=12, duets=0)
    together = threading.Barrier(concurrency, timeout=60)

    def reply(request):
        together.wait()
        return request.good

    server.reply = reply
    answers = ask(connect(concurrency=concurrency), questions(folder))
    assert sum(a.text is not None for a in answers.values()) == 12
    assert server.most_in_flight == concurrency


def test_questions_are_taken_as_they_are_needed(server, connect, make_folder) -> None:
    asked = iter(questions(make_folder(solos=20, duets=0)))
    taken = []

    def take() -> Question | None:
        taken.append(next(asked, None))
        return taken[-1]

    answers = connect(concurrency=4).answers(take)
    next(answers)
    assert len(taken) == 4
    answers.close()
    assert len(server.requests) <= 4


def test_several_servers_share_the_requests(server, make_server, connect, make_folder) -> None:
    other = make_server()
    folder = make_folder(solos=12, duets=0)
    together = threading.Barrier(4, timeout=60)

    def reply(request):
        together.wait()
        return request.good

    server.reply = other.reply = reply
    assert len(ask(connect(server.url, other.url, concurrency=2), questions(folder))) == 12
    assert (server.most_in_flight, other.most_in_flight) == (2, 2)
    assert len(server.requests) == len(other.requests) == 6


def test_a_dead_server_beside_a_living_one(server, connect, make_folder) -> None:
    answers = ask(
        connect("http://127.0.0.1:9/v1", server.url, concurrency=2, retries=1), questions(make_folder(solos=8))
    )
    assert all(a.text for a in answers.values())


def test_requests_per_minute(server, connect, clock: Clock, make_folder) -> None:
    starts = []
    server.reply = lambda r: (starts.append(clock.now), r.good)[1]
    ask(connect(requests_per_minute=30, concurrency=1), questions(make_folder(solos=5, duets=0)))
    assert starts == [0.0, 2.0, 4.0, 6.0, 8.0]


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_at_the_last_moment_counts(connect, folder: Path, monkeypatch) -> None:
    """Ctrl-C just when an answer arrived used to be lost, and the job continued."""
    wait = asyncio.wait

    async def interrupted(*arguments, **options):
        found = await wait(*arguments, **options)
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(asyncio, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(connect(), questions(folder))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
