"""A multimodal model behind servers with OpenAI's interface: vLLM, TGI, llama.cpp or a hosted service."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import logging
import math
import os
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from .backend import Answer, Completion, Generation, Question
from .completion import MalformedReplyError, error_of, read_completion, unsupported
from .exchange import Connection, NoReplyError, Reply, split_url
from .faults import FrameError, MachineError, read_frame, shortage_of
from .frames import data_url
from .masking import Mask, passwords
from .prompt import messages

T = TypeVar("T")
log = logging.getLogger(__name__)
REFUSED = (401, 403, 404)  # wrong key, address or model: no question can succeed
TRANSIENT = (408, 409, 425, 429)  # worth a retry, as are all codes from 500
LONG_WAIT = 10.0  # seconds; longer waits are logged
MAX_TEXT_LENGTH = 2**19  # characters of an answer with its thoughts


class ServerRefusedError(OSError):
    """The server rejects every question: the key, the address or the model is wrong."""


@dataclass(frozen=True)
class Patience:
    """Time limits and retries of requests. Times are in seconds.

    Args:
        timeout: limit for one request, from sending to the complete answer.
        retries: number of retries of a request without an answer.
        first_wait: wait before the first retry. It doubles with each retry; a longer Retry-After of the server takes
            precedence.
        longest_wait: upper bound of all these waits, whatever the server says.
        requests_per_minute: limit over all servers; ``None``: no limit.
    """

    timeout: float = 120.0
    retries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 300.0
    requests_per_minute: float | None = None

    def wait(self, retry: int, retry_after: float | None) -> float:
        """Seconds to wait before retry number ``retry`` (from 0), shortened by up to a quarter at random.

        The random part keeps requests that failed together from being repeated together.
        """
        backoff = min(self.first_wait * 2.0 ** min(retry, 60), self.longest_wait) * (1 - 0.25 * random.random())
        return max(backoff, min(retry_after or 0.0, self.longest_wait))


class ServerModel:
    """A model behind servers, which answers many questions at once.

    Args:
        urls: base URLs such as ``http://localhost:8000/v1``. Each request goes to the server with the fewest.
        model: the model's name on the servers.
        generation: lengths and temperature.
        concurrency: maximum number of open requests per server.
        patience: time limits and retries.
        key: API key, sent as bearer token and never logged or written. Local servers usually need none.
        token_field: name of the request's field for ``generation.max_tokens``.
        sleep: waits for a number of seconds; replaced in tests.
        clock: current time in seconds; replaced in tests.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        generation: Generation,
        *,
        concurrency: int = 16,
        patience: Patience | None = None,
        key: str = "",
        token_field: str = "max_tokens",
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.urls, self.model, self.generation, self.concurrency = list(urls), model, generation, concurrency
        self.patience = patience or Patience()
        self.token_field = token_field
        self._key, self._sleep, self._clock = key, sleep, clock
        self._mask = Mask([key, *(secret for url in urls for secret in passwords(split_url(url)))])
        self._next_start = self._announced = 0.0

    def answers(self, next_question: Callable[[], Question | None]) -> Generator[Answer, None, None]:
        """Yields answers as they arrive. What comes from a server is made safe here, and in :meth:`_wait`.

        Raises:
            ServerRefusedError: if the key, the address, the model or an option is wrong.
            MachineError: if this machine lacks something, such as file descriptors.
        """
        servers = [_Server(Connection(url, self._key, self.patience.timeout), self.concurrency) for url in self.urls]
        loop = asyncio.new_event_loop()
        running: set[asyncio.Task[Answer]] = set()
        done: set[asyncio.Task[Answer]] = set()
        try:
            while True:
                while len(running) < self.concurrency * len(servers) and (question := next_question()) is not None:
                    running.add(loop.create_task(self._answer(question, servers)))
                if not running:
                    return
                done, running = _run(loop, asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                for task in done:
                    yield self._safe(task.result())
        except ServerRefusedError as error:
            raise ServerRefusedError(self._mask.message(str(error))) from None
        finally:
            loop.run_until_complete(_close(servers, done | running))
            loop.close()

    def _safe(self, answer: Answer) -> Answer:
        text = answer.text and self._mask.text(answer.text)
        return replace(answer, text=text, error=self._mask.message(answer.error))

    async def _answer(self, question: Question, servers: list[_Server]) -> Answer:
        image = ""
        last: _Server | None = None
        for retry in itertools.count():
            try:
                image = image or await self._image(question)
                others = [s for s in servers if s is not last] or servers
                last = min(others, key=lambda s: s.load)  # no other task runs until its load is counted
                return Answer(question, *await self._completion(last, question, image))
            except FrameError as error:
                return Answer(question, error=str(error), asked=False)
            except MachineError as error:
                if retry >= self.patience.retries:
                    raise
                await self._wait(retry, str(error), None)
            except _NoAnswerError as failure:
                if failure.final or retry >= self.patience.retries:
                    return Answer(question, error=str(failure))
                await self._wait(retry, str(failure), failure.retry_after)
        raise AssertionError("unreachable")

    async def _image(self, question: Question) -> str:
        try:
            return await asyncio.to_thread(read_frame, data_url, question.clip.frame, self.generation.longest_side)
        except RuntimeError as error:
            raise shortage_of(error) or error from None

    async def _completion(self, server: _Server, question: Question, image: str) -> Completion:
        payload = {
            "model": self.model,
            "messages": messages(question.text, {"type": "image_url", "image_url": {"url": image}}),
            self.token_field: self.generation.max_tokens,
        }
        temperature = self.generation.temperature_of(question)
        if temperature is not None:
            payload["temperature"] = temperature
        server.load += 1
        try:
            async with server.slots:
                await self._start()
                reply = await server.connection.post(payload)
            if not 200 <= reply.status < 300:
                raise self._refusal(server, reply)
            said = read_completion(reply.body)
        except NoReplyError as error:
            raise _NoAnswerError(str(error)) from None
        except MalformedReplyError as error:
            raise _NoAnswerError(f"{server.connection.name}: {error}") from None
        finally:
            server.load -= 1
        server.has_answered = True
        if len(said.text) > MAX_TEXT_LENGTH:
            return Completion("", f"it has {len(said.text)} characters, at most {MAX_TEXT_LENGTH} are read")
        return said

    def _refusal(self, server: _Server, reply: Reply) -> Exception:
        """The error for a reply that is no success."""
        name, message = server.connection.name, error_of(reply.body)
        if reply.status < 400:
            return _NoAnswerError(
                f"HTTP {reply.status}: {name} redirects to {reply.location!r}. Redirects are not followed; "
                "if you trust that address, name it with --server",
                final=True,
            )
        if reply.status in REFUSED and not server.has_answered:
            return ServerRefusedError(f"{name} refuses the request for {self.model!r}: HTTP {reply.status}: {message}")
        if reply.status in (400, 422):
            other = {"max_tokens": "max_completion_tokens"}.get(self.token_field, "max_tokens")
            hints = [f"--token-field {other}"] if unsupported(self.token_field, message) else []
            hints += ["--no-temperature"] if unsupported("temperature", message) else []
            if hints:
                return ServerRefusedError(f"run again with {' '.join(hints)}, because {name} says: {message}")
        return _NoAnswerError(
            f"HTTP {reply.status} from {name}: {message}",
            final=reply.status not in TRANSIENT and reply.status < 500,
            retry_after=_retry_after(reply.retry_after),
        )

    async def _wait(self, retry: int, reason: str, retry_after: float | None) -> None:
        """Waits before a retry. A long wait is logged, once for the requests that wait together."""
        wait = self.patience.wait(retry, retry_after)
        end = self._clock() + wait
        if wait >= LONG_WAIT and end > self._announced + LONG_WAIT:
            self._announced = end
            asked = f" (the server asks for {retry_after:.0f} s)" if (retry_after or 0.0) > wait else ""
            log.warning("Waiting %.0f s before asking again%s: %s", wait, asked, self._mask.message(reason))
        await self._sleep(wait)

    async def _start(self) -> None:
        """Waits until the limit of requests per minute allows another request."""
        if self.patience.requests_per_minute is None:
            return
        now = self._clock()
        start = max(now, self._next_start)
        self._next_start = start + 60 / self.patience.requests_per_minute
        if start > now:
            await self._sleep(start - now)


class _Server:
    """One server: its client and its load."""

    def __init__(self, connection: Connection, concurrency: int) -> None:
        self.connection, self.load, self.has_answered = connection, 0, False
        self.slots = asyncio.Semaphore(concurrency)


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Runs the loop until ``work`` is done, or until Ctrl-C.

    Ctrl-C takes effect between steps of the loop, because inside a step it would end the task of a request with an
    extra traceback. It also takes effect if it arrives just when ``work`` is done.
    """
    task = loop.create_task(work)
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        loop.call_soon_threadsafe(task.cancel)

    # Only the main thread may set handlers, and a process that ignores Ctrl-C must continue to do so.
    default_handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    handles_interrupt = default_handler and threading.current_thread() is threading.main_thread()
    if handles_interrupt:
        signal.signal(signal.SIGINT, interrupt)
    try:
        result = loop.run_until_complete(task)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        if handles_interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupted:
        raise KeyboardInterrupt
    return result


async def _close(servers: Sequence[_Server], tasks: set[asyncio.Task[Answer]]) -> None:
    unfinished = asyncio.all_tasks() - {asyncio.current_task()}
    for task in unfinished:
        task.cancel()
    # All of them, since asyncio logs errors that nobody has taken, with the key if a server has echoed it.
    await asyncio.gather(*unfinished, *tasks, return_exceptions=True)
    for server in servers:
        await server.connection.close()
    await asyncio.get_running_loop().shutdown_default_executor()


class _NoAnswerError(Exception):
    """A request got no answer. ``final``: a retry would not help. ``retry_after``: the server's wish, in seconds."""

    def __init__(self, text: str, *, final: bool = False, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.final, self.retry_after = final, retry_after


def api_key(variable: str) -> str:
    """The API key in the environment variable, or an empty string.

    Raises:
        ValueError: if it can't be sent, without showing it.
    """
    key = os.environ.get(variable, "").strip()
    if not all("!" <= c <= "~" for c in key):
        raise ValueError(f"Expected the key in {variable} to be ASCII without spaces, but it holds other characters")
    return key


def _retry_after(header: str) -> float | None:
    """Seconds to wait according to a Retry-After header, which contains a number or a date."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError, OSError):
            return None
    return None if math.isnan(seconds) else max(seconds, 0.0)
