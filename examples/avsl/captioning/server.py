"""A multimodal model behind servers with OpenAI's interface: vLLM, TGI, llama.cpp or a hosted service."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from openai import APIConnectionError, APIStatusError, AsyncOpenAI, OpenAIError
from openai.types.chat import ChatCompletion

from .backend import Answer, Generation, Question
from .frames import data_url
from .prompt import messages

T = TypeVar("T")
REFUSED = (401, 403, 404)  # wrong key, address or model: no question can succeed
TRANSIENT = (408, 409, 425, 429)  # worth a retry, as are all codes from 500


class ServerRefusedError(OSError):
    """The server rejects every question: the key, the address or the model is wrong."""


@dataclass(frozen=True)
class Patience:
    """Time limits and retries of requests. Times are in seconds.

    Args:
        timeout: limit for one request, from sending to the complete answer.
        retries: number of retries of a request without an answer.
        first_wait: wait before the first retry. It doubles with each retry, up to ``longest_wait``; a longer
            Retry-After of the server takes precedence.
        longest_wait: upper bound of these waits.
        requests_per_minute: limit over all servers; ``None``: no limit.
    """

    timeout: float = 120.0
    retries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    requests_per_minute: float | None = None

    def wait(self, retry: int, retry_after: float | None) -> float:
        """Seconds to wait before retry number ``retry`` (from 0), shortened by up to a quarter at random.

        The random part keeps requests that failed together from being repeated together.
        """
        backoff = min(self.first_wait * 2**retry, self.longest_wait) * (1 - 0.25 * random.random())
        return max(backoff, retry_after or 0.0)


class ServerModel:
    """A model behind servers, which answers many questions at once.

    Args:
        urls: base URLs such as ``http://localhost:8000/v1``. Each request goes to the server with the fewest.
        model: the model's name on the servers.
        generation: lengths and temperature.
        concurrency: maximum number of open requests per server.
        patience: time limits and retries.
        key: API key, sent as bearer token and never logged or written. Local servers usually need none.
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
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.urls, self.model, self.generation, self.concurrency = list(urls), model, generation, concurrency
        self.patience = patience or Patience()
        self._key, self._sleep, self._clock = key, sleep, clock
        self._next_start = 0.0

    def answers(self, next_question: Callable[[], Question | None]) -> Generator[Answer, None, None]:
        """Yields answers as they arrive.

        Raises:
            ServerRefusedError: if the key, the address or the model is wrong.
        """
        loop = asyncio.new_event_loop()
        servers = [_Server(url, self._key or "none", self.patience.timeout, self.concurrency) for url in self.urls]
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
                    yield task.result()
        finally:
            loop.run_until_complete(_close(servers, done))
            loop.close()

    async def _answer(self, question: Question, servers: list[_Server]) -> Answer:
        try:
            url = await asyncio.to_thread(data_url, question.clip.frame, self.generation.longest_side)
        except OSError as error:
            return Answer(question, error=f"the frame can't be read: {error}")
        last: _Server | None = None
        for retry in itertools.count():
            others = [s for s in servers if s is not last] or servers
            last = min(others, key=lambda s: s.load)
            try:
                return Answer(question, await self._request(last, question, url))
            except _NoAnswerError as failure:
                if failure.final or retry == self.patience.retries:
                    return Answer(question, error=str(failure))
                await self._sleep(self.patience.wait(retry, failure.retry_after))
        raise AssertionError("unreachable")

    async def _request(self, server: _Server, question: Question, image: str) -> str:
        server.load += 1
        try:
            async with server.slots:
                await self._start()
                completion = await asyncio.wait_for(
                    server.client.chat.completions.create(
                        model=self.model,
                        messages=messages(question.text, {"type": "image_url", "image_url": {"url": image}}),
                        max_tokens=self.generation.max_tokens,
                        temperature=self.generation.temperature_of(question),
                    ),
                    self.patience.timeout,
                )
            return _text_of(completion)
        except APIStatusError as error:
            if error.status_code in REFUSED:
                raise ServerRefusedError(
                    self._without_key(f"{server.url} refuses the request for {self.model!r}: {error}")
                ) from None
            transient = error.status_code in TRANSIENT or error.status_code >= 500
            raise _NoAnswerError(
                f"HTTP {error.status_code}: {self._without_key(str(error))[:300]}",
                final=not transient,
                retry_after=_retry_after(error.response.headers.get("retry-after")),
            ) from None
        except (asyncio.TimeoutError, APIConnectionError) as error:
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            raise _NoAnswerError(f"{type(error).__name__}{cause} from {server.url}") from None
        except (OpenAIError, json.JSONDecodeError) as error:
            raise _NoAnswerError(f"{type(error).__name__}: {self._without_key(str(error))[:300]}") from None
        finally:
            server.load -= 1

    async def _start(self) -> None:
        """Waits until the limit of requests per minute allows another request."""
        if self.patience.requests_per_minute is None:
            return
        now = self._clock()
        start = max(now, self._next_start)
        self._next_start = start + 60 / self.patience.requests_per_minute
        if start > now:
            await self._sleep(start - now)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


class _Server:
    """One server: its client and its load."""

    def __init__(self, url: str, key: str, timeout: float, concurrency: int) -> None:
        self.url, self.load = url, 0
        # Retries are done here: the client knows one server only and ignores a long Retry-After.
        self.client = AsyncOpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=0)
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


async def _close(servers: Sequence[_Server], done: set[asyncio.Task[Answer]]) -> None:
    unfinished = asyncio.all_tasks() - {asyncio.current_task()}
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, *done, return_exceptions=True)
    for server in servers:
        await server.client.close()
    await asyncio.get_running_loop().shutdown_default_executor()


class _NoAnswerError(Exception):
    """A request got no answer. ``final``: a retry would not help. ``retry_after``: the server's wish, in seconds."""

    def __init__(self, text: str, *, final: bool = False, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.final, self.retry_after = final, retry_after


def api_key(variable: str) -> str:
    """The API key in the environment variable, or an empty string."""
    return os.environ.get(variable, "").strip()


def _text_of(completion: object) -> str:
    if not isinstance(completion, ChatCompletion) or not completion.choices:
        raise _NoAnswerError(f"the server sent no chat completion: {str(completion)[:200]!r}")
    return completion.choices[0].message.content or ""


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait according to a Retry-After header, which contains a number or a date."""
    if header is None:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None
