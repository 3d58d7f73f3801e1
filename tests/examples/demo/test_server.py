"""The page's server: its answers, what it refuses, what it keeps, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from avsl.demo.limits import Limits
from avsl.model.localizer import Localizer
from PIL import Image

from .videos import write_video

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from avsl.demo import server
from avsl.demo.guard import is_loopback
from avsl.demo.server import KEPT, make_app, run
from starlette.applications import Starlette

LOCAL = "127.0.0.1:8321"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Client:
    """Asks an application without a network. The folder of the demo is there between two calls of ``lifespan``."""

    def __init__(self, app: Starlette) -> None:
        self.app = app

    async def ask(self, path: str, body: bytes | None = None, pieces: int = 1000, **headers: str) -> Answer:
        """Sends a request; a ``body`` makes it a POST."""
        path, _, query = path.partition("?")
        names = {"host": LOCAL} | {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": "GET" if body is None else "POST",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in names.items()],
        }
        parts = [(body or b"")[start : start + pieces] for start in range(0, len(body or b"") or 1, pieces)]
        messages = iter(
            [
                {"type": "http.request", "body": part, "more_body": number < len(parts)}
                for number, part in enumerate(parts, 1)
            ]
        )
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any] | None:
            message = next(messages, None)
            if message is None:
                await anyio.sleep_forever()  # the client stays
            return message

        async def send(message: Any) -> None:
            sent.append(message)

        with contextlib.suppress(MemoryError):  # raised again after the answer, for the terminal
            await self.app(scope, receive, send)
        start = sent[0]
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], found, b"".join(message.get("body", b"") for message in sent))


@pytest.fixture
def app(model: Localizer) -> Starlette:
    return make_app(model, "tiny", Limits(megabytes=0.5, seconds=5), "127.0.0.1")


@contextlib.asynccontextmanager
async def client(app: Starlette) -> AsyncIterator[Client]:
    async with app.router.lifespan_context(app):
        yield Client(app)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing that the demo writes outlives it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def upload(picture: Path, sound: Path, more: str = "") -> tuple[str, bytes]:
    files = [picture.read_bytes(), sound.read_bytes()]
    return f"/localize?picture={len(files[0])}&sound={len(files[1])}{more}", b"".join(files)


def test_a_picture_and_its_sound(app: Starlette, picture: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def job() -> None:
        async with client(app) as demo:
            answer = await demo.ask(*upload(picture, sound, "&sources=2"))
            assert answer.status == 200
            assert answer.json["text"].startswith("2 sources asked for, 2 found")
            assert [view["title"] for view in answer.json["views"]] == ["The whole sound", "Source 1", "Source 2"]
            # From here on the model must not run: the sliders draw from what is kept.
            monkeypatch.setattr(Localizer, "encode", None)
            address = f"/results/{answer.json['id']}/1.jpg"
            drawn = [await demo.ask(f"{address}?threshold={t}&opacity={o}") for t, o in ((0, 70), (50, 70), (50, 10))]
            assert {picture.headers["content-type"] for picture in drawn} == {"image/jpeg"}
            assert len({picture.content for picture in drawn}) == 3
            assert Image.open(io.BytesIO(drawn[0].content)).size == (448, 336)
            for bad in ("threshold=101&opacity=1", "threshold=1&opacity=nan", "threshold=-1", "threshold=0.5"):
                assert "to be a whole number from 0 to 100" in (await demo.ask(f"{address}?{bad}")).json["error"]
            assert (await demo.ask(f"/results/{answer.json['id']}/3.jpg")).status == 404
            assert (await demo.ask(f"/results/{answer.json['id']}/video.mp4")).status == 404

    anyio.run(job)


def test_a_video_is_served_until_it_is_forgotten(app: Starlette, tmp_path: Path, temporary: Path) -> None:
    content = write_video(tmp_path / "upload", count=6).read_bytes()

    async def job() -> None:
        async with client(app) as demo:
            answer = (await demo.ask(f"/localize?video={len(content)}", content)).json
            assert answer["video"]
            assert "2 maps" in answer["text"]
            served = await demo.ask(f"/results/{answer['id']}/video.mp4")
            assert served.content[4:8] == b"ftyp"
            assert (await demo.ask(f"/results/{answer['id']}/video.mp4", range="bytes=0-9")).status == 206
            (folder,) = temporary.iterdir()
            assert [path.suffix for path in folder.iterdir()] == [".mp4"]  # and not the upload
            for _ in range(KEPT):
                await demo.ask(f"/localize?video={len(content)}", content)
            assert len(list(folder.iterdir())) == KEPT
            assert "is gone" in (await demo.ask(f"/results/{answer['id']}/0.jpg")).json["error"]

    anyio.run(job)


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/localize", b"", 400, "Expected a picture and a sound, or a video, but got nothing"),
        ("/localize?picture=4", b"1234", 400, "but got picture"),
        ("/localize?picture=4&video=4", b"12345678", 400, "but got picture and video"),
        (
            "/localize?video=x",
            b"",
            400,
            "Expected `video` to be a whole number from 0 to 1125899906842624, but got 'x'",
        ),
        ("/localize?video=500001", b"", 413, "Expected files of 0.5 MB or less, but got 0.5 MB"),
        ("/localize?video=99999999999", b"", 413, "but got 100000.0 MB"),
        ("/localize?video=5", b"1234", 400, "Expected a body of 5 bytes, as announced, but got 4"),
        ("/localize?video=5", b"123456", 400, "Expected a body of 5 bytes, as announced, but got more"),
        ("/localize?video=11", b"/etc/passwd", 400, "Expected the video to be a video, but got text"),
        ("/localize?picture=1&sound=1", b"ab", 400, "Expected the picture to be a picture (JPEG,"),
        ("/localize?picture=1&sound=1&sources=9", b"ab", 400, "Expected `sources` to be a whole number from 1 to 8"),
        ("/localize?picture=1&sound=1&identification=given", b"ab", 400, "Expected `identification` to be one of"),
        ("/localize", None, 405, "Method Not Allowed"),
        ("/scenes/9/picture", None, 404, "Expected a scene from 0 to 3, but got 9"),
        ("/results/0/0.jpg", None, 404, "Expected one of the last 8 results"),
        ("/page/../../results.py", None, 404, "Not Found"),
        ("/page/%2e%2e/server.py", None, 404, "Not Found"),
    ],
)
def test_refused(app: Starlette, path: str, body: bytes | None, status: int, reason: str) -> None:
    async def job() -> None:
        async with client(app) as demo:
            answer = await demo.ask(path, body, pieces=3)
            assert answer.status == status
            assert reason in answer.json["error"]
            assert "/tmp" not in answer.json["error"]

    anyio.run(job)


def test_more_than_announced_is_not_written(app: Starlette, temporary: Path) -> None:
    async def job() -> None:
        async with client(app) as demo:
            await demo.ask("/localize?video=5", bytes(100_000), pieces=10_000)
            (folder,) = temporary.iterdir()
            assert not list(folder.iterdir())

    anyio.run(job)


def test_an_error_of_this_machine(app: Starlette, picture: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(server, "localize_in_picture", fail)

    async def job() -> None:
        async with client(app) as demo:
            answer = await demo.ask(*upload(picture, sound))
            assert answer.status == 500
            assert answer.json["error"] == "The demo failed: MemoryError. The terminal has the details."

    anyio.run(job)


def test_other_pages_and_other_hosts_are_refused(app: Starlette, model: Localizer) -> None:
    async def job() -> None:
        async with client(app) as demo:
            assert (await demo.ask("/")).status == 200
            assert (await demo.ask("/", host="localhost:8321")).status == 200
            assert (await demo.ask("/", host="[::1]:8321")).status == 200
            assert (await demo.ask("/", origin=f"http://{LOCAL}")).status == 200
            for headers in ({"host": "evil.org"}, {"host": ""}, {"host": "[x"}, {"host": "127.0.0.1.evil.org:8321"}):
                assert (await demo.ask("/", **headers)).status == 403
            for origin in ("https://evil.org", "null", "http://127.0.0.1:8322"):
                answer = await demo.ask("/localize?video=1", b"1", origin=origin)
                assert answer.status == 403
                assert "Expected requests of the demo's own page, but got one of" in answer.json["error"]
        open_to_all = Client(make_app(model, "tiny", Limits(), "0.0.0.0"))
        assert (await open_to_all.ask("/", host="desk.example:8321")).status == 200
        assert (await open_to_all.ask("/", host="desk.example:8321", origin="http://evil.org")).status == 403

    anyio.run(job)
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.0.2")] == [
        *(True, True, True),
        *(False, False),
    ]


def test_the_page_names_no_other_host(app: Starlette) -> None:
    async def job() -> None:
        async with client(app) as demo:
            for path in ("/", "/page/page.js", "/page/page.css", "/model"):
                answer = await demo.ask(path)
                assert answer.status == 200
                assert not re.search(rb"https?:|['\"(]//|@import", answer.content)
                assert "default-src 'none'" in answer.headers["content-security-policy"]
                assert answer.headers["x-content-type-options"] == "nosniff"
            described = (await demo.ask("/model")).json
            assert described["model"] == "tiny"
            for number in range(len(described["scenes"])):
                assert (await demo.ask(f"/scenes/{number}/picture")).headers["content-type"] == "image/jpeg"
                assert (await demo.ask(f"/scenes/{number}/sound")).headers["content-type"] == "audio/wav"

    anyio.run(job)


def test_what_runs_ends_at_its_next_frame(app: Starlette, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_video(tmp_path / "upload", count=12).read_bytes()
    encode, seen = Localizer.encode, []

    def stopping(self: Localizer, *parts: Any) -> Any:
        app.state.demo.stop()
        seen.append(len(parts[0]))
        return encode(self, *parts)

    monkeypatch.setattr(Localizer, "encode", stopping)
    monkeypatch.setattr("avsl.localization.video.BATCH", 1)

    async def job() -> None:
        async with client(app) as demo:
            answer = await demo.ask(f"/localize?video={len(content)}", content)
            assert answer.status == 503
            assert answer.json["error"] == "The demo was ended in the terminal."

    anyio.run(job)
    assert seen == [1]


def test_ctrl_c_ends_it(app: Starlette, picture: Path, sound: Path, interruptible: None) -> None:
    answers: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def visit() -> None:
            path, body = upload(picture, sound)
            with contextlib.closing(urllib.request.urlopen(address + path, body, timeout=20)) as answer:
                answers.append(json.load(answer))
            signal.raise_signal(signal.SIGINT)

        run(app, listener, threading.Thread(target=visit).start)
    assert "found" in answers[0]["text"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
