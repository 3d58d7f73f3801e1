"""One request to a server and its reply: bounded, without redirects, with typed errors."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

# httpx or its successor, whichever the installed openai is built on.
from openai import DefaultAsyncHttpxClient

from .faults import chain, shortage_of

MAX_REPLY_BYTES = 2**21


class Reply(NamedTuple):
    """A server's reply. ``location`` and ``retry_after`` are headers; empty if there were none."""

    status: int
    body: bytes
    location: str
    retry_after: str


class NoReplyError(Exception):
    """There is no reply that can be read: no connection, a timeout, a broken or an oversized reply."""


class Connection:
    """Sends requests to one server.

    Args:
        url: base URL such as ``http://localhost:8000/v1``.
        key: sent as bearer token, if not empty.
        timeout: limit in seconds for one request, from sending to the complete reply.

    Raises:
        ValueError: if ``url`` is malformed, or if the environment's proxies or certificates can't be used.
    """

    def __init__(self, url: str, key: str, timeout: float) -> None:
        parts = split_url(url)
        self.name = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        self.timeout = timeout
        self._endpoint = urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/chat/completions", fragment=""))
        # Compressed replies are read as well, but a server that listens sends none.
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._proxied = parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")
        try:
            self._client = DefaultAsyncHttpxClient(timeout=timeout, follow_redirects=False, cookies=no_cookies)
        except (OSError, ImportError, ValueError) as error:
            raise ValueError(
                "Expected the environment to hold usable proxies (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) and "
                f"certificates (SSL_CERT_FILE, SSL_CERT_DIR), but the client says: {error}"
            ) from error

    async def post(self, payload: dict[str, Any]) -> Reply:
        """Sends ``payload`` as JSON.

        Raises:
            NoReplyError: if no reply can be read.
            MachineError: if this machine is the reason.
        """
        try:
            return await asyncio.wait_for(self._post(json.dumps(payload).encode()), self.timeout)
        except TimeoutError:
            raise NoReplyError(f"no complete answer within {self.timeout:g} s from {self.name}") from None
        except NoReplyError as error:
            raise NoReplyError(f"{error} from {self.name}") from None
        except Exception as error:  # the client and the libraries below it raise errors of many types
            if shortage := shortage_of(error):
                raise shortage from error
            causes = [e for e in chain(error) if str(e)]
            system = [e for e in causes if isinstance(e, OSError) and e.errno is not None]  # says most
            cause = next(iter(system + causes), "no reason given")
            through = ", through a proxy that the environment names" if self._proxied else ""
            raise NoReplyError(f"{type(error).__name__} ({cause}) from {self.name}{through}") from None

    async def _post(self, content: bytes) -> Reply:
        request = self._client.stream("POST", self._endpoint, content=content, headers=self._headers)
        async with request as response:
            header = response.headers.get
            decoded = _decoder(header("content-encoding", ""))
            body, received = bytearray(), 0
            async for chunk in response.aiter_raw(2**16):
                received += len(chunk)
                body += decoded(chunk)
                if max(len(body), received) > MAX_REPLY_BYTES:
                    raise NoReplyError(f"an answer of more than {MAX_REPLY_BYTES} bytes")
            return Reply(response.status_code, bytes(body), header("location", ""), header("retry-after", ""))

    async def close(self) -> None:
        await self._client.aclose()


def split_url(url: str) -> SplitResult:
    """The parts of a server's address.

    Raises:
        ValueError: if it is malformed.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise ValueError(f"Expected `urls` to hold addresses like http://localhost:8000/v1, but got {url!r}")


def _decoder(encoding: str) -> Callable[[bytes], bytes]:
    """Decodes the chunks of a body, to at most one byte more than :data:`MAX_REPLY_BYTES` per chunk."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return bytes
    if name not in ("gzip", "x-gzip", "deflate"):
        raise NoReplyError(f"an answer in the encoding {encoding[:40]!r}, which was not asked for,")
    decompress = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress

    def decoded(chunk: bytes) -> bytes:
        try:
            return decompress(chunk, MAX_REPLY_BYTES + 1)
        except zlib.error as error:
            raise NoReplyError(f"an answer that is not {name} as it says ({error})") from None

    return decoded
