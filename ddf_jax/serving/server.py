"""Serves a predictor over HTTP until a signal comes; what is being answered then is finished."""

import asyncio
import contextlib
import functools
import ipaddress
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from ddf_jax.errors import UserError
from ddf_jax.serving.app import Application
from ddf_jax.serving.limits import Limits
from ddf_jax.serving.predictor import Predictor

LOOPBACK = ("127.0.0.1", "localhost")

_SPARE = 64  # connections beyond those whose requests are answered: they get a refusal
_IDLE_SECONDS = 5  # of a connection between two requests
_HEADER_BYTES = 16 << 10


class _Protocol(H11Protocol):
    """Closes a connection that does not begin a request, or does not end its headers, in time."""

    def __init__(self, *args: Any, seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seconds = seconds

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_request_after(None)

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()
        self._expect_request_after(answered)

    def _expect_request_after(self, cycle: Any) -> None:
        def close() -> None:
            if self.cycle is not cycle:  # there has been a request since
                return
            if self.transport.get_write_buffer_size():  # of an answer that nobody reads: `close` would wait for ever
                self.transport.abort()
            else:
                self.transport.close()

        self.loop.call_later(self._seconds, close)


def serve(
    predictor: Predictor,
    *,
    host: str = LOOPBACK[0],
    port: int = 8000,
    limits: Limits | None = None,
    started: Callable[[str], None] = print,
) -> dict[str, int]:
    """Answers requests until SIGINT or SIGTERM.

    A server on a loopback address answers requests to that address and to localhost alone, so that no web page can
    reach it under a name of its own.

    Args:
        predictor: from `open_predictor`.
        host: the address to listen on; any other than a loopback address can be reached from elsewhere.
        port: 0 is a free one.
        limits: of requests.
        started: is called with the server's URL when it listens.

    Returns:
        How many requests were answered, refused and failed.

    Raises:
        UserError: the address is not to be had.
    """
    limits = limits or Limits()
    application = Application(predictor, limits)
    predictor.warm_up(limits.max_batch)
    with _listening(host, port) as listener:
        app: Any = application.asgi()
        if ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
            app = TrustedHostMiddleware(app, [*LOOPBACK, host, "[::1]"])
        protocol: Any = functools.partial(_Protocol, seconds=limits.read_seconds)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                h11_max_incomplete_event_size=_HEADER_BYTES,
                limit_concurrency=limits.max_requests + _SPARE,
                timeout_keep_alive=_IDLE_SECONDS,
                timeout_graceful_shutdown=math.ceil(limits.read_seconds + limits.answer_seconds),
            )
        )
        with _quiet_signals():
            asyncio.run(_run(server, listener, lambda: started(_url(host, listener))))
    return dict(application.counts)


async def _run(server: uvicorn.Server, listener: socket.socket, started: Callable[[], None]) -> None:
    serving = asyncio.create_task(server.serve([listener]))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.01)
    if not serving.done():
        started()
    await serving


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2 * _SPARE)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise UserError(f"The server must be able to listen on {host}, port {port}: {reason}.") from None


def _url(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


@contextlib.contextmanager
def _quiet_signals() -> Iterator[None]:
    """Makes a signal that has stopped the server, which uvicorn raises again at the end, do nothing more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
