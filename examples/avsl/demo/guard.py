"""Keeps other web pages away from the demo, and the demo's page away from other hosts."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Refuses requests that another page made, and names of other hosts; adds headers to every answer.

    A page on the internet can send requests to a loopback address, or give its own name this address. The browser then
    names that page's origin, or that host.

    Args:
        app: the application.
        host: the address that it is served on. If it is no loopback, any name of this machine will do.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app, self._local = app, is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        reason = self._fault(Headers(scope=scope))
        app = JSONResponse({"error": reason}, status_code=403) if reason else self._app
        await app(scope, receive, send_with_headers)

    def _fault(self, headers: Headers) -> str:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._local and not is_loopback(_name(host)):
            return f"Expected `Host` to be a loopback address, but got {host[:100]!r}"
        if origin is not None and urlsplit(origin).netloc != host:
            return f"Expected requests of the demo's own page, but got one of {origin[:100]!r}"
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address is that of the machine itself, for itself only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The name in a ``Host`` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
