"""The command ``demo.py``: a local page to try a model."""

from __future__ import annotations

import argparse
import contextlib
import errno
import math
import socket
import webbrowser
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from ..demo.limits import Limits
from ..model.locations import check_model
from .arguments import add_model
from .exit_status import exit_status

PACKAGES = ("starlette", "uvicorn")
PORT = 8321


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    parser = argparse.ArgumentParser(
        description="Try a model on a local page: drop a picture and a sound, or a video. Ctrl-C ends it.",
        allow_abbrev=False,
    )
    add_model(parser)
    add, limits = parser.add_argument, Limits()
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any but a loopback lets others in (default: this one)",
    )
    add("--port", type=_port, default=PORT, help=f"port to listen on, 0 for a free one (default: {PORT})")
    add("--open", action="store_true", help="open the page in the browser")
    size, length = limits.megabytes, limits.seconds
    add("--max-megabytes", type=_above_zero, default=size, help=f"largest upload, in MB (default: {size:g})")
    add("--max-seconds", type=_above_zero, default=length, help=f"longest sound or video, in s (default: {length:g})")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the page until Ctrl-C; returns 0, or 2 on an error, 130 if interrupted before the page is there."""
    options = build_parser().parse_args(arguments)
    return exit_status(lambda: serve(options), resumes=False)


def serve(options: argparse.Namespace) -> None:
    """Opens the model and serves the page.

    Raises:
        ModuleNotFoundError: if a package of the extra ``demo`` is missing.
        OSError: if the port or the host can't be used.
        FileNotFoundError, ValueError: as :func:`~avsl.commands.arguments.selected_model`.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ModuleNotFoundError(
            f"The demo needs packages that are not installed: {', '.join(missing)}. "
            "Run in the checkout: pip install '.[demo]'"
        )
    with listening(options.host, options.port) as listener:  # first, because a model takes seconds to open
        check_model(options.model)
        from ..demo.server import make_app, run
        from .arguments import selected_model

        limits = Limits(megabytes=options.max_megabytes, seconds=options.max_seconds)
        app = make_app(selected_model(options), options.model.name, limits, options.host)
        run(app, listener, lambda: _announce(listener, open_page=options.open))


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Gives a socket that listens.

    Raises:
        OSError: naming the option to change, if the port is in use or the host can't be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                f"Expected `port` to be free, but {port} on {host} is in use. Choose another with --port, or --port 0."
            ) from error
        if error.errno == errno.EACCES:
            raise OSError(f"Expected `port` to be one that you may use, but got {port}. Add --port 8321.") from error
        raise OSError(
            f"Expected `host` to be an address of this machine, but got {host!r}: {error.strerror}"
        ) from error
    with listener:
        yield listener


def _announce(listener: socket.socket, *, open_page: bool) -> None:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    address = f"http://{shown}:{port}"
    print(f"{address}  (Ctrl-C ends it)", flush=True)
    if open_page:
        webbrowser.open(address)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value
