"""Serving an ASGI app over HTTP until a signal, and ending so that no request fails behind a balancer.

Told to end, a server drains: it says so (`Health`), ends each connection with its next answer, and goes on serving new
ones for a while, so that balancers notice. Then it stops listening, finishes what has begun, and closes what is idle.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nacre.base.errors import NacreError
from nacre.base.serving.connections import PATIENCE, Patience, Waiting, kind
from nacre.base.serving.health import Health
from nacre.base.serving.signals import on_stop_signal

log = structlog.get_logger()

App = Callable[[Any, Any, Any], Awaitable[None]]
#: How long requests that have begun may take to finish, in seconds: where others serve meanwhile, and where the whole
#: cloud is stopped.
FINISH, FINISH_ALL = 60, 3
#: How long a client may take to begin TLS, and to end it, in seconds.
HANDSHAKE = 5


class CannotListen(NacreError):
    """The address is in use, or not this machine's."""


@dataclass(frozen=True)
class Listen:
    """Where and how. drain: seconds. secure: clients reach it by https, whether TLS ends here or before. proxies: the
    balancers before it, which say whom a request is from (X-Forwarded-For)."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    secure: bool = False
    drain: float = 0.0
    patience: Patience = PATIENCE
    proxies: tuple[str, ...] = ()


async def serve(app: App, listen: Listen, health: Health) -> None:
    """Returns after SIGTERM or SIGINT, when all is answered; a second signal ends the draining at once.

    Raises CannotListen."""
    sockets = _listen(listen.host, listen.port)
    tls: dict[str, Any] = {} if listen.tls is None else {"ssl_context_factory": lambda _, __: listen.tls}
    server = _Server(uvicorn.Config(
        app, loop="none", http="httptools", ws="none", lifespan="off", access_log=False, log_config=None,
        server_header=False, date_header=False, timeout_graceful_shutdown=FINISH if listen.drain else FINISH_ALL,
        timeout_keep_alive=listen.patience.idle, proxy_headers=False, **tls),
        kind(listen.secure, health, Waiting(listen.patience, listen.proxies)))
    signals: asyncio.Queue[None] = asyncio.Queue()
    on_stop_signal(lambda: signals.put_nowait(None))
    serving, told = asyncio.ensure_future(server.serve(sockets)), asyncio.ensure_future(signals.get())
    try:
        await asyncio.wait((serving, told), return_when=asyncio.FIRST_COMPLETED)
        health.draining = True
        server.finish_each()
        if listen.drain:
            log.info("draining", seconds=listen.drain)
            told = asyncio.ensure_future(signals.get())
            await asyncio.wait((serving, told), timeout=listen.drain, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        told.cancel()
        serving.cancel()


class _Server(uvicorn.Server):
    """Signals are ours: uvicorn would raise them again at the end, and the process would be gone before it has cleaned
    up. Sockets too: a client that is silent in TLS's first or last words shall not keep a connection for long."""

    def __init__(self, config: uvicorn.Config, connection: type[HttpToolsProtocol]):
        super().__init__(config)
        self._connection = connection

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        config, loop, self.servers = self.config, asyncio.get_running_loop(), []
        tls: dict[str, Any] = {} if config.ssl is None else {
            "ssl": config.ssl, "ssl_handshake_timeout": HANDSHAKE, "ssl_shutdown_timeout": HANDSHAKE}
        for each in sockets or ():
            self.servers.append(await loop.create_server(
                lambda: self._connection(config, self.server_state, {}), sock=each, backlog=config.backlog, **tls))
        self.started = True

    def finish_each(self) -> None:
        """Connections end with the answer that is under way."""
        for connection in self.server_state.connections:
            if isinstance(connection, HttpToolsProtocol) and connection.cycle is not None:
                connection.cycle.keep_alive = False


def _listen(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host that this machine has. `::` takes IPv4 too. Raises CannotListen."""
    made, why = [], "it is no address of this machine"
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
            with contextlib.suppress(_Absent):
                made.append(_bound(socket.socket(family, kind, protocol), address, both=host == "::"))
    except OSError as error:
        for each in made:
            each.close()
        made, why = [], error.strerror or str(error)
    if not made:
        raise CannotListen(f"{host}:{port} cannot be listened on: {why}. Choose another host or port.")
    return made


class _Absent(Exception):
    """The machine has no such address, as ::1 where IPv6 is off."""


def _bound(made: socket.socket, address: Any, *, both: bool) -> socket.socket:
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        made.bind(address)
        made.setblocking(False)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise _Absent from None
        raise
    return made
