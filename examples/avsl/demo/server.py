"""Serves the page and runs the model, one upload at a time."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import tempfile
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..model.localizer import Localizer
from .guard import Guard
from .limits import Limits
from .results import Result, draw, identifications, localize_in_picture, localize_in_video
from .scenes import SCENES, composed_scene
from .uploads import UploadError, check_stream, open_picture, open_sound, refusing

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
KEPT = 8  # results; older ones are forgotten
FORMS = ({"picture", "sound"}, {"video"})


class Demo:
    """The model with its results; every file that it writes lies in ``folder``."""

    def __init__(self, model: Localizer, name: str, limits: Limits) -> None:
        self.model, self.name, self.limits = model, name, limits
        self.folder = Path()
        self._stopped = threading.Event()
        self._results: OrderedDict[str, Result] = OrderedDict()
        self._turn = anyio.CapacityLimiter(1)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Gives the folder while the server runs, and removes it at the end."""
        with tempfile.TemporaryDirectory(prefix="sslosses-demo-", ignore_cleanup_errors=True) as folder:
            self.folder = Path(folder)
            yield
            self.stop()
            async with self._turn:  # a thread that still writes would leave files behind
                pass

    def stop(self) -> None:
        """Ends what is running at its next frame."""
        self._stopped.set()

    def until_stopped(self, frames: Iterator[Any], _: Any, __: str) -> Iterator[Any]:
        """Yields frames as long as the demo runs."""
        for frame in frames:
            if self._stopped.is_set():
                raise HTTPException(503, "The demo was ended in the terminal.")
            yield frame

    async def describe(self, _: Request) -> Response:
        """What the page shows before anything is uploaded."""
        scenes = [await anyio.to_thread.run_sync(composed_scene, number) for number in range(len(SCENES))]
        return JSONResponse(
            {
                "model": self.name,
                "method": self.model.config.method,
                "identifications": identifications(self.model),
                "sources": self.limits.sources,
                "megabytes": self.limits.megabytes,
                "seconds": self.limits.seconds,
                "scenes": [{"sounding": s.sounding, "silent": s.silent, "sources": s.sources} for s in scenes],
            }
        )

    async def scene(self, request: Request) -> Response:
        """The picture or the sound of a composed scene."""
        number = request.path_params["number"]
        if number >= len(SCENES):
            raise HTTPException(404, f"Expected a scene from 0 to {len(SCENES) - 1}, but got {number}")
        scene = await anyio.to_thread.run_sync(composed_scene, number)
        if request.path_params["part"] == "picture":
            return Response(scene.picture, media_type="image/jpeg")
        return Response(scene.sound, media_type="audio/wav")

    async def localize(self, request: Request) -> Response:
        """Runs the model on the files in the body, which follow each other; the query has their sizes in bytes.

        ``POST /localize?picture=1234&sound=5678&sources=2`` or ``POST /localize?video=1234``.
        """
        query = request.query_params
        sizes = {name: _whole(query, name, 0, 2**50) for name in ("picture", "sound", "video") if name in query}
        if set(sizes) not in FORMS:
            raise UploadError(f"Expected a picture and a sound, or a video, but got {' and '.join(sizes) or 'nothing'}")
        total, limit = sum(sizes.values()), self.limits.megabytes * 1e6
        if total > limit:
            raise HTTPException(413, f"Expected files of {limit / 1e6:g} MB or less, but got {total / 1e6:.1f} MB")
        sources = _whole(query, "sources", 1, self.limits.sources) if query.get("sources") else None
        known = identifications(self.model)
        identification = query.get("identification") or known[0]
        if identification not in known:
            raise UploadError(f"Expected `identification` to be one of {', '.join(known)}, but got {identification!r}")
        with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as folder:
            paths = {name: Path(folder) / name for name in sizes}
            await _receive(request, sizes, paths)

            def job() -> Result:
                with refusing(**paths):
                    return self._run(paths, sources, identification)

            result = await anyio.to_thread.run_sync(job, limiter=self._turn)
        return JSONResponse(self._kept(result))

    def _run(self, paths: Mapping[str, Path], sources: int | None, identification: str) -> Result:
        if "video" in paths:
            video = paths["video"]
            count = check_stream(video, "video", self.limits, self.until_stopped)
            check_stream(video, "audio", self.limits, self.until_stopped)
            out = self.folder / f"{secrets.token_hex(8)}.mp4"
            return localize_in_video(self.model, video, count, out, self.until_stopped)
        picture = open_picture(paths["picture"], self.limits)
        return localize_in_picture(
            self.model, picture, open_sound(paths["sound"], self.limits), sources, identification
        )

    def _kept(self, result: Result) -> dict[str, Any]:
        """Keeps a result for drawing, and describes it for the page."""
        name = secrets.token_hex(16)
        self._results[name] = result
        while len(self._results) > KEPT:
            _, oldest = self._results.popitem(last=False)
            if oldest.video:
                oldest.video.unlink(missing_ok=True)
        views = [{"title": view.title, "note": view.note} for view in result.views]
        video = result.video is not None
        return {"id": name, "text": result.text, "warning": result.warning, "views": views, "video": video}

    def _result(self, request: Request) -> Result:
        result = self._results.get(request.path_params["id"])
        if result is None:
            raise HTTPException(404, f"Expected one of the last {KEPT} results, but this one is gone. Run it again.")
        return result

    async def view(self, request: Request) -> Response:
        """Draws one picture of a result; the model does not run."""
        result, number = self._result(request), request.path_params["number"]
        if number >= len(result.views):
            raise HTTPException(404, f"Expected a picture from 0 to {len(result.views) - 1}, but got {number}")
        query = request.query_params
        threshold, opacity = (_whole(query, name, 0, 100, 0) / 100 for name in ("threshold", "opacity"))
        content = await anyio.to_thread.run_sync(draw, result.views[number], threshold, opacity)
        return Response(content, media_type="image/jpeg")

    async def video(self, request: Request) -> Response:
        """The video with the moving heatmap."""
        path = self._result(request).video
        if path is None:
            raise HTTPException(404, "Expected a result of a video, but this is one of a picture")
        return FileResponse(path, media_type="video/mp4")


async def _receive(request: Request, sizes: Mapping[str, int], paths: Mapping[str, Path]) -> None:
    """Writes the files of a request's body as they come in, and no more than was announced."""
    total, names, got = sum(sizes.values()), list(sizes), 0
    ends = [sum(list(sizes.values())[: number + 1]) for number in range(len(names))]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(paths[name].open("wb")) for name in names]
        async for chunk in request.stream():
            if got + len(chunk) > total:
                raise UploadError(f"Expected a body of {total} bytes, as announced, but got more")
            for end, file in zip(ends, files, strict=True):
                part = chunk[: max(end - got, 0)]
                file.write(part)
                chunk, got = chunk[len(part) :], got + len(part)
    if got < total:
        raise UploadError(f"Expected a body of {total} bytes, as announced, but got {got}")


def _whole(query: Mapping[str, str], name: str, low: int, high: int, default: int | None = None) -> int:
    """Reads a whole number of the query."""
    text = query.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 17 and low <= int(text) <= high):
        raise UploadError(f"Expected `{name}` to be a whole number from {low} to {high}, but got {text[:40]!r}")
    return int(text)


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def _failed(_: Request, error: Exception) -> Response:
    """An error that is no fault of the upload; Starlette raises it again, so that the terminal shows it."""
    reason = type(error).__name__
    return JSONResponse({"error": f"The demo failed: {reason}. The terminal has the details."}, status_code=500)


def make_app(model: Localizer, name: str, limits: Limits, host: str) -> Starlette:
    """Makes the application.

    Args:
        model: the model.
        name: its name on the page.
        limits: of uploads.
        host: the address that it is served on; requests for other hosts are refused if it is a loopback.
    """
    demo = Demo(model, name, limits)

    async def page(_: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    routes = [
        Route("/", page),
        Route("/model", demo.describe),
        Route("/scenes/{number:int}/{part}", demo.scene),
        Route("/localize", demo.localize, methods=["POST"]),
        Route("/results/{id}/video.mp4", demo.video),
        Route("/results/{id}/{number:int}.jpg", demo.view),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    handlers: Any = {UploadError: _refused, HTTPException: _http_error, Exception: _failed}
    guard = Middleware(Guard, host=host)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=demo.lifespan)
    app.state.demo = demo
    return app


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce, self._stop = started, stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stop()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


def run(app: Starlette, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serves until Ctrl-C; calls ``started`` once the page is there."""
    config = uvicorn.Config(
        app,
        access_log=False,
        h11_max_incomplete_event_size=16_384,
        http="h11",
        lifespan="on",
        limit_concurrency=32,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=5,
        ws="none",
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again, after its clean end
        _Server(config, started, app.state.demo.stop).run(sockets=[listener])
