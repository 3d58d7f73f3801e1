"""A multimodal model behind one or more servers with OpenAI's interface: vLLM, TGI, llama.cpp or a hosted one."""

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
REFUSED = (401, 403, 404)  # wrong key, address or model: wrong for every question
TRANSIENT = (408, 409, 425, 429)


class ServerRefusedError(OSError):
    """A server that answers no question at all as it is asked."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, in seconds, and how often to ask it.

    Args:
        timeout: of one request, from sending to the complete answer.
        retries: of a request that got no answer.
        first_wait: before the first retry; it doubles with each, up to ``longest_wait``. The server's Retry-After
            counts if it is longer.
    """

    timeout: float = 120.0
    retries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    requests_per_minute: float | None = None

    def wait(self, retry: int, asked: float | None) -> float:
        """Seconds before retry number ``retry`` (from 0); up to a quarter less, so that requests don't meet again."""
        own = min(self.first_wait * 2**retry, self.longest_wait) * (1 - 0.25 * random.random())
        return max(own, asked or 0.0)


class ServerModel:
    """Answers by many requests at once.

    Args:
        urls: base URLs, as in ``http://localhost:8000/v1``; requests go to the one with the fewest.
        model: the name that the servers know the model by.
        generation: lengths and temperature.
        concurrency: open requests a server.
        patience: time limits and retries.
        key: sent as bearer token; nothing logs or writes it. Servers on one's own machine usually want none.
        sleep, clock: for tests.
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

    def answers(self, take: Callable[[], Question | None]) -> Generator[Answer, None, None]:
        """Answers as they come.

        Raises:
            ServerRefusedError: if the key, the address or the model is wrong.
        """
        loop = asyncio.new_event_loop()
        servers = [_Server(url, self._key or "none", self.patience.timeout, self.concurrency) for url in self.urls]
        running: set[asyncio.Task[Answer]] = set()
        done: set[asyncio.Task[Answer]] = set()
        try:
            while True:
                while len(running) < self.concurrency * len(servers) and (question := take()) is not None:
                    running.add(loop.create_task(self._answer(question, servers)))
                if not running:
                    return
                done, running = _run(loop, asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                for task in done:
                    yield task.result()
        finally:
            loop.run_until_complete(_wind_up(servers, done))
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
        """Wait for this request's turn under the limit of requests per minute."""
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
    """One base URL and what is being asked of it."""

    def __init__(self, url: str, key: str, timeout: float, concurrency: int) -> None:
        self.url, self.load = url, 0
        # Retries are ours: the client knows one server only, and doesn't honor a long Retry-After.
        self.client = AsyncOpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=0)
        self.slots = asyncio.Semaphore(concurrency)


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run until ``work`` is done. Ctrl-C takes effect between the loop's steps: within one, it would end a request's
    task with a traceback of its own. It counts also where it comes when ``work`` is just done."""
    task = loop.create_task(work)
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        loop.call_soon_threadsafe(task.cancel)

    # Only a main thread may set handlers, and one that ignores Ctrl-C is to go on doing so.
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    takes = raises and threading.current_thread() is threading.main_thread()
    if takes:
        signal.signal(signal.SIGINT, interrupt)
    try:
        result = loop.run_until_complete(task)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        if takes:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupted:
        raise KeyboardInterrupt
    return result


async def _wind_up(servers: Sequence[_Server], done: set[asyncio.Task[Answer]]) -> None:
    unfinished = asyncio.all_tasks() - {asyncio.current_task()}
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, *done, return_exceptions=True)
    for server in servers:
        await server.client.close()
    await asyncio.get_running_loop().shutdown_default_executor()


class _NoAnswerError(Exception):
    def __init__(self, text: str, *, final: bool = False, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.final, self.retry_after = final, retry_after


def api_key(variable: str) -> str:
    """The key in this environment variable, or none."""
    return os.environ.get(variable, "").strip()


def _text_of(completion: object) -> str:
    if not isinstance(completion, ChatCompletion) or not completion.choices:
        raise _NoAnswerError(f"the server sent no chat completion: {str(completion)[:200]!r}")
    return completion.choices[0].message.content or ""


def _retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date."""
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
