"""A client's connection: what it may keep a server waiting with. uvicorn closes one that is idle after an answer; the
head of a request, connections on which none has come, and answers that are not read have limits here, as its httptools
protocol has none."""

import asyncio
import logging
import socket
from dataclasses import dataclass, field
from typing import Any

import structlog
from uvicorn._types import ASGI3Application
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nacre.base.serving.health import Health
from nacre.base.serving.sending import EXTENSION, PIECE, Unread
from nacre.base.serving.sources import Shares, source_of

log = structlog.get_logger()

_TOO_LARGE = (b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
              b"content-length: %d\r\nconnection: close\r\n\r\n%b")
#: Bytes of a chunked body's framing that each of its own may have with it.
_FRAMING = 8
#: Seconds from one line in the log to the next that says the same of the same source; and how many sources are named.
_MINUTE, _SOURCES = 60.0, 100
#: What uvicorn writes at each request of anybody's that is none, or wants another protocol.
_UNSAID = "Invalid HTTP request received.", "Unsupported upgrade request.", "No supported WebSocket library detected."


async def _nothing(*_: Any) -> None:
    """No app: uvicorn's middleware is asked whom it trusts, and wants one."""


@dataclass(frozen=True)
class Patience:
    """idle: seconds until a connection is closed after its last answer; head: bytes of a request's line and headers;
    head_seconds: until they are there; of_one: connections of one source on which no request has come, or none since
    the last answer; waiting: in all. Beyond, the oldest are closed: of that source, or of the one that has most. As
    many may be in the middle of sending a body; beyond that the newest are closed. unread: seconds until one is closed
    whose client takes nothing of what it is sent; unread_bytes: what is held of such answers for one project or user,
    or one source that is nobody known. Beyond, those that have taken nothing for longest are closed."""

    idle: int = 30
    head: int = 32768
    head_seconds: float = 10.0
    of_one: int = 500
    waiting: int = 4000
    unread: int = 60
    unread_bytes: int = 256 << 20
    ahead: int = 100


PATIENCE = Patience()


@dataclass
class Waiting:
    """The connections that wait for a request, and those that send a body, by their sources. proxies: those addresses
    that stand for many."""

    patience: Patience
    proxies: tuple[str, ...] = ()
    _silent: "Shares[Connection]" = field(default_factory=Shares)
    _bodies: "Shares[Connection]" = field(default_factory=Shares)
    _told: dict[tuple[str, str], int] = field(default_factory=dict)  # why and whose -> so many since the last line

    def __post_init__(self) -> None:
        self._balancers = ProxyHeadersMiddleware(_nothing, list(self.proxies)).trusted_hosts
        self._unread = Unread["Connection"](self.patience.unread_bytes)

    def source(self, address: str) -> str:
        """Whose a connection from there is."""
        return address if address in self.proxies else source_of(address)

    def sender(self, one: "Connection") -> str:
        """Whose the request is whose head has come: a balancer says for whom it passes one on, as uvicorn reads it."""
        said = [value for name, value in one.headers if name == b"x-forwarded-for"]
        if not said or one.source not in self.proxies:
            return one.source
        host, _ = self._balancers.get_trusted_client_address(b", ".join(said).decode("latin-1"))
        return self.source(host) if host else one.source

    def add(self, one: "Connection") -> None:
        """It waits from now on. Those that are too many are closed."""
        self._silent.add(one.source, one)
        if (full := self._full(self._silent, one.source)) is not None:
            self._close(self._silent.oldest(full), full, "a connection is closed: too many are open")

    def remove(self, one: "Connection") -> None:
        """It does not wait any more."""
        self._silent.remove(one.source, one)

    def begin_body(self, one: "Connection") -> None:
        """It is in the middle of a body; `end_body` follows. One that is too many is closed: perhaps another's."""
        one.sender = self.sender(one)
        self._bodies.add(one.sender, one)
        if (full := self._full(self._bodies, one.sender)) is not None:
            self._close(self._bodies.newest(full), full, "a connection is closed: too many send bodies")

    def end_body(self, one: "Connection") -> None:
        """It is there, or will not come."""
        self._bodies.remove(one.sender, one)

    def begin_unread(self, one: "Connection") -> None:
        """Its client takes nothing now; `end_unread` follows."""
        who = one.owner or one.source
        for oldest in self._unread.add(who, one, one.held + PIECE):
            self._close(oldest, who, "a connection is closed: too much is unread")

    def end_unread(self, one: "Connection") -> None:
        """It does again, or has gone."""
        self._unread.remove(one)

    def tell(self, why: str, one: "Connection", who: str = "") -> None:
        """That it is closed: a line in the log for each source and minute, and one for all where there are many. who:
        its source, where that is not the connection's own."""
        whose = (why, who or one.source)
        if whose not in self._told and len(self._told) >= _SOURCES:
            whose = (why, "others")
        if whose in self._told:
            self._told[whose] += 1
        else:
            log.info(why, source=whose[1], connections=1)
            self._told[whose] = 0
            one.loop.call_later(_MINUTE, self._tell_more, one.loop, whose)

    def _tell_more(self, loop: asyncio.AbstractEventLoop, whose: tuple[str, str]) -> None:
        if more := self._told.pop(whose):
            log.info(whose[0], source=whose[1], connections=more)
            self._told[whose] = 0
            loop.call_later(_MINUTE, self._tell_more, loop, whose)

    def _full(self, those: "Shares[Connection]", who: str) -> str | None:
        """Whose are too many, now that one of these has come: where it is all together, that is who has most."""
        if those.count(who) > (self.patience.waiting if who in self.proxies else self.patience.of_one):
            return who
        return those.greatest() if those.total > self.patience.waiting else None

    def _close(self, one: "Connection", who: str, why: str) -> None:
        self.tell(why, one, who)
        self.remove(one)
        self.end_body(one)
        one.transport.abort()


class _InTurn(HttpToolsProtocol):
    """Begins a request when its client takes the answers before it. With the connection ends what is being answered:
    uvicorn ends what was asked for last."""

    owner, held = "", 0  # whose answer is being sent, and how many bytes of it are held meanwhile
    _running: RequestResponseCycle | None = None
    _next: tuple[RequestResponseCycle, ASGI3Application] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(PIECE)  # under TLS it would be more

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._next = None
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self.hold}  # type: ignore[dict-item]

    def hold(self, who: str, size: int) -> None:
        """Such an answer is sent from now on."""
        self.owner, self.held = who, size
        if self.flow.write_paused:  # more of a long one
            self.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._next is not None and not self.transport.is_closing():
            (cycle, app), self._next = self._next, None
            self._start_asgi_task(cycle, app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self.flow.write_paused:
            self._next = cycle, app
        else:
            self._running = cycle
            super()._start_asgi_task(cycle, app)


class Connection(_InTurn):
    """Seen by the scheme that clients use; ends with its next answer while draining, and never in the middle of a
    request that has begun to arrive."""

    #: Set by `kind`.
    secure: bool
    health: Health
    waiting: Waiting

    arriving = False
    source = sender = ""  # whose it is; and whose the request, which may have come through a balancer
    #: The head, or what of a chunked body is not its own, that has arrived so far; and of its own.
    _head = _framing = _body = 0
    _reading = False  # a request's body is still coming
    _sending = False  # and is counted, as it did not come with the head
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.secure:
            self.scheme = "https"
        self.source = self.waiting.source(self.client[0] if self.client else "")
        self.waiting.add(self)
        self._expect_head(self.waiting.patience.head_seconds)
        # The kernel sees what a client takes, under TLS too and when nothing but unsent bytes keeps a closed one.
        if (own := transport.get_extra_info("socket")) is not None:
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.waiting.patience.unread * 1000)

    def connection_lost(self, exc: Exception | None) -> None:
        self._met_head()
        self._met_body()
        self.waiting.remove(self)
        self.waiting.end_unread(self)
        super().connection_lost(exc)
        if self.cycle is not None:
            self.cycle.body = bytearray()  # it and this refer to each other, and are collected late

    def data_received(self, data: bytes) -> None:
        if self._reading:
            self._framing += len(data)
        else:
            self._head += len(data)
            self._expect_head(self.waiting.patience.head_seconds)
        super().data_received(data)
        limit = self.waiting.patience.head
        if not self.transport.is_closing() and (self._head > limit or self._framing > limit + _FRAMING * self._body):
            self.refuse_head()
        if self._reading and not self._sending and not self.transport.is_closing():
            self._sending = True
            self.waiting.begin_body(self)

    def on_message_begin(self) -> None:
        self.arriving, self._size = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._counted(len(self.url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        self._counted(self._size)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.arriving, self._reading = False, True
        self._head = self._framing = self._body = 0
        self._met_head()
        self.waiting.remove(self)
        super().on_headers_complete()
        if self.health.draining:
            self.cycle.keep_alive = False
        if len(self.pipeline) > self.waiting.patience.ahead:
            self.waiting.tell("a connection is closed: it asks too far ahead", self)
            self.transport.abort()
            raise ValueError("too many requests at once")

    def on_body(self, body: bytes) -> None:
        self._framing -= len(body)
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading, self._head, self._framing = False, 0, 0
        self._met_body()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:
            self.cycle.body = bytearray()  # what had come of a refused body would stay until the next request
        if not self.transport.is_closing() and self.cycle.response_complete:
            self.waiting.add(self)
            if self._reading:  # the rest of a body that nobody reads: each byte of it would put off uvicorn's end
                self._expect_head(self.waiting.patience.idle)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.waiting.begin_unread(self)

    def resume_writing(self) -> None:
        self.waiting.end_unread(self)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            self.waiting.tell("a connection is closed: what came is no request", self)
            super().send_400_response(msg)

    def refuse_head(self) -> None:
        """More than a head may have. What follows it is not read."""
        said = f"The request line and headers are larger than {self.waiting.patience.head} bytes.".encode()
        self.waiting.tell("a connection is closed: its head is too long", self)
        self.transport.write(_TOO_LARGE % (len(said), said))
        self.transport.close()

    def shutdown(self) -> None:
        if not self.arriving:
            super().shutdown()

    def _counted(self, size: int) -> None:
        if size > self.waiting.patience.head:
            self.refuse_head()
            raise ValueError("the head is too long")

    def _expect_head(self, seconds: float) -> None:
        """From the first byte on, and before it on a new connection, the time of a request's head is running; and from
        an answer on, if the request's body is still coming."""
        if self._late is None:
            self._late = self.loop.call_later(seconds, self._too_late)

    def _met_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _met_body(self) -> None:
        if self._sending:
            self._sending = False
            self.waiting.end_body(self)

    def _too_late(self) -> None:
        log.debug("a connection is closed: no request came", source=self.source)
        self.transport.abort()


def _worth_saying(record: logging.LogRecord) -> bool:
    return not (isinstance(record.msg, str) and record.msg.startswith(_UNSAID))


def kind(secure: bool, health: Health, waiting: Waiting) -> type[Connection]:
    """The connections of one server."""
    logging.getLogger("uvicorn.error").addFilter(_worth_saying)
    return type("ServersConnection", (Connection,), {"secure": secure, "health": health, "waiting": waiting})
