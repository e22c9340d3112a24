"""A client's connection: what it may keep a server waiting with. uvicorn closes one that is idle after an answer; the
head of a request, connections on which none has come, and answers that are not read have limits here, as its httptools
protocol has none."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nacre.base.serving.health import Health
from nacre.base.serving.sending import EXTENSION, HANDED, PIECE, Memories, Memory, Room, taken
from nacre.base.serving.sources import Balancers, Shares

log = structlog.get_logger()

_TOO_LARGE = (b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
              b"content-length: %d\r\nconnection: close\r\n\r\n%b")
#: Bytes of a chunked body's framing that each of its own may have with it.
_FRAMING = 8
#: So many looks at what a client takes find that it is nothing, until its connection is closed; the first of them,
#: where memory is short.
_LOOKS = 30
#: Bytes that a connection holds whose client takes nothing, beside what it was handed: the requests that wait behind
#: (two reads of the socket), and beside its text each header of them, or of the one that is answered.
_BEHIND, _HEADER = 512 << 10, 300
#: Headers of a request, on average, that waits for the answers before it.
_HEADERS = 40
#: Seconds from one line in the log to the next that says the same of the same source; and how many sources are named.
_MINUTE, _SOURCES = 60.0, 100
#: What a balancer says of whom a request is from.
_SAID = b"x-forwarded-for", b"x-forwarded-proto"
#: What uvicorn writes at each request of anybody's that is none, or wants another protocol.
_UNSAID = "Invalid HTTP request received.", "Unsupported upgrade request.", "No supported WebSocket library detected."


@dataclass(frozen=True)
class Patience:
    """How long, and how much, is waited for clients; beyond that their connections are closed."""

    #: Seconds from the last answer until a connection is closed.
    idle: int = 30
    #: Bytes of a request's line and headers, and seconds until they are there.
    head: int = 32768
    head_seconds: float = 10.0
    #: Connections of one source on which no request has come, or none since the last answer, and of all sources.
    #: Beyond, the oldest are closed: of that source, or of the one that has most. As many may be in the middle of
    #: sending a body; beyond that the newest are closed.
    of_one: int = 500
    waiting: int = 4000
    #: Seconds until one is closed whose client takes nothing at all of what it is sent (curl's --limit-rate pauses for
    #: 100).
    unread: float = 300.0
    #: Bytes held of answers that are not taken yet, of all projects or users, or sources that are nobody known: each
    #: has as much as is free then. Where little is left, less is read at a time, and later, and those clients of
    #: who has most are closed that take nothing at all for a thirtieth of the time above.
    unread_bytes: int = 512 << 20
    #: Requests that a connection may send before the answers to those before them, with 40 headers each: one with more
    #: is closed.
    ahead: int = 100


PATIENCE = Patience()


@dataclass
class Waiting:
    """The connections that wait for a request, and those that send a body, by their sources. proxies: the addresses
    and networks of balancers, which stand for many."""

    patience: Patience
    proxies: tuple[str, ...] = ()
    _silent: "Shares[Connection]" = field(default_factory=Shares)
    _bodies: "Shares[Connection]" = field(default_factory=Shares)
    _told: dict[tuple[str, str], int] = field(default_factory=dict)  # why and whose -> so many since the last line

    def __post_init__(self) -> None:
        self.balancers = Balancers(self.proxies)
        self.memories = Memories(self.patience.unread_bytes)

    def set_sender(self, one: "Connection") -> None:
        """Whose the request is whose head has come, and how it came to a balancer: its app is told so."""
        one.sender = one.source
        if one.source in self.balancers:
            said = {name: [value for each, value in one.headers if each == name] for name in _SAID}
            one.sender = self.balancers.sender(one.source, said[b"x-forwarded-for"])
            if said[b"x-forwarded-proto"][-1:] in ([b"http"], [b"https"]):
                one.scope["scheme"] = said[b"x-forwarded-proto"][-1].decode()
        one.scope["client"] = one.sender, 0

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
        self._bodies.add(one.sender, one)
        if (full := self._full(self._bodies, one.sender)) is not None:
            self._close(self._bodies.newest(full), full, "a connection is closed: too many send bodies")

    def end_body(self, one: "Connection") -> None:
        """It is there, or will not come."""
        self._bodies.remove(one.sender, one)

    def tell(self, why: str, one: "_InTurn", who: str = "") -> None:
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
        if those.count(who) > (self.patience.waiting if who in self.balancers else self.patience.of_one):
            return who
        return those.greatest() if those.total > self.patience.waiting else None

    def _close(self, one: "Connection", who: str, why: str) -> None:
        self.tell(why, one, who)
        self.remove(one)
        self.end_body(one)
        one.transport.abort()


class _InTurn(HttpToolsProtocol):
    """Begins a request when its client takes the answers before it; ends when it takes none for long, or for a while
    where memory is short. With the connection ends what is being answered: uvicorn ends what was asked for last."""

    waiting: Waiting  # set by `kind`
    source = ""  # whose it is
    _looks, _taken = 0, None  # how often its client was found to take nothing, and what it had taken
    owner = ""  # whose answer is being sent
    _room: Room | None = None  # which that answer has
    _unread: tuple[Memory, str, int] | None = None  # what counts as held while its client takes nothing, and in which
    _running: RequestResponseCycle | None = None
    _next: tuple[RequestResponseCycle, ASGI3Application] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(PIECE)  # under TLS it would be more
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._again.cancel()
        self._end_unread()
        self._next = None
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _look(self) -> None:
        """Now and then, to the end: whether its client takes what it is sent. The kernel knows, under TLS too; its own
        limit (TCP_USER_TIMEOUT) would end many that take a little all the time."""
        before, self._taken = self._taken, taken(self.transport.get_extra_info("socket"))
        self._looks = self._looks + 1 if self._taken is not None and self._taken == before else 0
        if self._looks >= _LOOKS:
            self.waiting.tell("a connection is closed: its client takes nothing", self)
        elif self._looks and self._unread and self._unread[0].short(self._unread[1]):
            self.waiting.tell("a connection is closed: too much is unread", self, self._unread[1])
        else:
            self._again = self.loop.call_later(self.waiting.patience.unread / _LOOKS, self._look)
            return
        self._end_unread()
        self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self.hold}  # type: ignore[dict-item]

    def hold(self, who: str) -> Room:
        """An answer of theirs is sent from now on, or read for that."""
        self.owner, self._room = who, Room(self.waiting.memories, who)
        return self._room

    def pause_writing(self) -> None:
        super().pause_writing()
        if not self._count_unread() and self.pipeline:
            self.waiting.tell("a connection is closed: it asks too far ahead", self)
            self.transport.abort()

    def resume_writing(self) -> None:
        self._end_unread()
        super().resume_writing()
        if self._next is not None and not self.transport.is_closing():
            (cycle, app), self._next = self._next, None
            self._start_asgi_task(cycle, app)

    def _count_unread(self) -> bool:
        """What it holds while its client takes nothing. Whether its owner may hold so much: an answer that has begun
        goes on all the same."""
        requests = [cycle for cycle, _ in self.pipeline] + ([self._running] if self._running else [])
        size = HANDED + _BEHIND * bool(self.pipeline) + _HEADER * _headers(requests)
        memory = self._room.memory if self._room else self.waiting.memories.questions
        before, self._unread = self._unread, (memory, self.owner or self.source, size)
        memory.add(*self._unread[1:])
        if before is not None:
            before[0].remove(*before[1:])
        return memory.left(self._unread[1]) >= 0

    def _end_unread(self) -> None:
        if self._unread is not None:
            (memory, who, size), self._unread = self._unread, None
            memory.remove(who, size)

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
    sender = ""  # whose the request is, which may have come through a balancer
    #: The head, or what of a chunked body is not its own, that has arrived so far; and of its own.
    _head = _framing = _body = 0
    _reading = False  # a request's body is still coming
    _sending = False  # and is counted, as it did not come with the head
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.secure:
            self.scheme = "https"
        self.source = self.waiting.balancers.source(self.client[0] if self.client else "")
        self.waiting.add(self)
        self._expect_head(self.waiting.patience.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._met_head()
        self._met_body()
        self.waiting.remove(self)
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
        self.waiting.set_sender(self)
        super().on_headers_complete()
        if self.health.draining:
            self.cycle.keep_alive = False
        if self._ask_ahead():
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

    def _ask_ahead(self) -> bool:
        """Whether too much waits for the answers before it: more than one may, or than there is memory for."""
        if not self.pipeline:
            return False
        most, headers = self.waiting.patience.ahead, _headers(cycle for cycle, _ in self.pipeline)
        return len(self.pipeline) > most or headers > most * _HEADERS or (
            self.flow.write_paused and not self._count_unread())

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


def _headers(requests: Iterable[RequestResponseCycle]) -> int:
    return sum(len(cast(list[Any], each.scope["headers"])) for each in requests)


def _worth_saying(record: logging.LogRecord) -> bool:
    return not (isinstance(record.msg, str) and record.msg.startswith(_UNSAID))


def kind(secure: bool, health: Health, waiting: Waiting) -> type[Connection]:
    """The connections of one server."""
    logging.getLogger("uvicorn.error").addFilter(_worth_saying)
    return type("ServersConnection", (Connection,), {"secure": secure, "health": health, "waiting": waiting})
