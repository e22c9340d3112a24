"""The way to one other process over ZeroMQ, and what a server remembers of the calls that came over one."""

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable, Iterable

import msgspec
import structlog
import zmq

from nacre.base.errors import BadRequest, BrokenAnswer, Unavailable
from nacre.base.rpc.codec import Answer, Request, decode_answer, encode
from nacre.base.rpc.directory import Where
from nacre.base.rpc.keys import KeyPair
from nacre.base.rpc.pump import Pump
from nacre.base.rpc.recent import Recent
from nacre.base.rpc.unread import Way

log = structlog.get_logger()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of what others send and ask, of what is sent to them, and of how long they may be silent."""

    #: Bytes of one message.
    message: int = 64 << 20
    #: Of one request that this process is to answer. An honest host's largest is a beat: 1.2 MiB with 10,000 guests,
    #: 2.2 with work on each, 3 with all that may.
    request: int = 4 << 20
    #: Messages waiting for one peer.
    queue: int = 2000
    #: Those of one peer that came and are not read yet.
    incoming: int = 64
    #: Verbs at work at once.
    running: int = 5000
    #: Of these, for one host. Images are fetched by `node.max_builds` at once (10), the wiring asks for one thing at a
    #: time; guests that ask for their facts after a power cut wait for one another.
    of_one: int = 16
    #: How many more of one host may wait.
    waiting: int = 500
    #: Bytes of all these.
    held: int = 32 << 20
    #: Bytes of answers that a host has not taken, beyond which its connections end.
    unread: int = 64 << 20
    #: Milliseconds until a connection ends whose other end takes nothing.
    stalled: int = 60_000
    #: Milliseconds until one ends over which the other machine does not answer.
    cut: int = 20_000
    #: Milliseconds until a handshake must be done.
    handshake: int = 30_000
    #: Milliseconds for which who asks for a connection waits for it.
    entry: int = 120_000
    #: Peers that may wait to be let in (no more than the machine's net.core.somaxconn): when a control process starts
    #: anew, thousands come at once, and those who are turned away come again.
    backlog: int = 16_384
    #: Seconds until a call that any process of a topic may answer is sent to one more.
    silence: float = 2.0


DEFAULTS = Limits()
#: Milliseconds until a connection is tried again: at first and, twice as long each time, at most.
AGAIN, SELDOM = (15, 30), (2000, 4000)
#: Milliseconds for which a connection may be asked for in vain: the kernel's own next question comes ever later.
CONNECT = 5000
#: After these the library tries again and says so, or gives the socket's way up: it was refused, or broke the protocol.
_LOST = zmq.Event.DISCONNECTED | zmq.Event.HANDSHAKE_FAILED_AUTH
#: Seconds in which it says that it tries again. It does so in the same moment, but for a thread that has no time.
GRACE = 1.0
_EVENTS = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.CONNECT_RETRIED | _LOST


class UnknownKey(Unavailable):
    """The other process does not know this one's key (yet, or any more)."""


class Link:
    """The way to one other process: its socket, which it connects (raises Unavailable: that is no address), and who
    waits for which answer. What nobody waits for any more when the connection is made at last is not sent. silent: it
    left a call unanswered for so long that others were asked, and has not said anything since; lost: no connection will
    be made by this socket any more."""

    silent = lost = False

    def __init__(self, socket: "zmq.Socket[bytes]", address: str, queue: int):
        self.address, self._queue = address, queue
        self.waiting: dict[bytes, tuple[bytes, asyncio.Future[Answer]]] = {}
        self._socket, self.connected = socket, False
        self._monitor = Pump(socket.get_monitor_socket(_EVENTS), self._connected)
        try:
            socket.connect(address)  # watched already: who missed that it is connected would wait for ever
        except zmq.ZMQError as error:
            self._unwatched()
            socket.close()
            raise Unavailable(details=f"Nobody can be asked at {address[:80]!r}: {error.strerror}.") from None
        self.pump = Pump(socket, self._receive)

    def send(self, request: Request) -> asyncio.Future[Answer]:
        """Send the message, or keep it until there is a connection. The future gets its answer. Raises Unavailable when
        too many wait."""
        data = encode(request)
        if len(self.waiting) >= self._queue or (self.connected and not self.pump.send([data])):
            raise Unavailable(details=f"The queue to {self.address} is full ({self._queue} messages).")
        future = asyncio.get_running_loop().create_future()
        self.waiting[request.id] = (data, future)
        return future

    def _connected(self, frames: list[bytes], _user: str) -> None:
        """Refused: nobody need wait. Connected again: what was asked before may have died with the other process, so it
        is asked again."""
        event = int.from_bytes(frames[0][:2], sys.byteorder)
        self.connected = event == zmq.Event.HANDSHAKE_SUCCEEDED
        self.lost = bool(event & _LOST)
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            self.fail(UnknownKey(details=f"{self.address} does not know this process's key."))
        elif self.lost and self.waiting:
            asyncio.get_running_loop().call_later(GRACE, self._given_up)
        if self.connected:
            for data, _ in self.waiting.values():
                self.pump.send([data])

    def _given_up(self) -> None:
        """No connection will be made any more, as another program answers there: who waits hears so, and who asks
        next has a new link, which finds the right one when it is there again."""
        if self.lost:
            self.fail(Unavailable(details=f"What answers at {self.address} is not the process that was asked."))

    def fail(self, why: Unavailable) -> None:
        """Nobody who waits gets an answer."""
        for _, future in self.waiting.values():
            if not future.done():
                future.set_exception(why)
        self.waiting.clear()

    def _receive(self, frames: list[bytes], _: str) -> None:
        self.silent = False
        try:
            answer = decode_answer(frames[-1])
        except BadRequest as error:
            # Whose this was cannot be told: nobody gets one.
            log.warning("rpc answer cannot be read", address=self.address, reason=str(error))
            return self.fail(BrokenAnswer(details=f"{self.address} answers what cannot be read: {error}"))
        waiting = self.waiting.pop(answer.id, None)
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(answer)

    def close(self) -> None:
        self._unwatched()
        self.pump.close()
        for _, future in self.waiting.values():
            future.cancel()
        self.waiting.clear()

    def _unwatched(self) -> None:
        """In this order: the library's thread waits, with a lock, for ever to tell what happens to one who is gone."""
        if not self._socket.closed:
            self._socket.disable_monitor()
        self._monitor.close()


class Links(dict[Where, Link]):
    """Those of a process, by where they lead. make: one that is new; raises Unavailable."""

    def __init__(self, make: Callable[[Where], Link]):
        super().__init__()
        self._make = make

    def to(self, where: Where) -> Link:
        """The link there. Raises Unavailable."""
        if where in self:
            self.doubt(self[where])
        if where not in self:
            self[where] = self._make(where)
        return self[where]

    def doubt(self, link: Link) -> None:
        """A link that was refused is made anew. One that is still on its way is only waited for, like one that has a
        connection: to begin anew is the last thing that a busy server needs."""
        if link.lost and not link.waiting:
            for where in [where for where, other in self.items() if other is link]:
                del self[where]
            link.close()

    def leave(self, gone: Iterable[Where]) -> None:
        """No process listens there any more, or by another key: who waits hears so."""
        for where in gone:
            if (link := self.pop(where, None)) is not None:
                link.fail(Unavailable(details=f"No process is known at {link.address} any more."))
                link.close()

    def leave_soon(self, left: Callable[[], Iterable[Where]]) -> None:
        """As `leave`, when all is said that is said now. Without a loop nobody waits."""
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_soon(lambda: self.leave(left()))


class Answers:
    """What a server knows of calls: where the answer of a running one goes, and the last answers that were given."""

    def __init__(self, keep: int = 1000, size: int = 64 << 10, each: int = 50):
        self._size = size
        self._running: dict[tuple[str, bytes], Way] = {}
        self._given = Recent[bytes](each, keep)

    def begin(self, who: str, request: bytes, way: Way) -> None:
        self._running[who, request] = way

    def again(self, who: str, request: bytes, way: Way) -> bytes | None:
        """The call came a second time: its answer, if it was given; a running one answers that way from now on."""
        if (who, request) in self._running:
            self._running[who, request] = way
        return self._given.get(who, request)

    def end(self, who: str, request: bytes, answer: bytes) -> Way:
        """Where the answer goes."""
        if len(answer) <= self._size:
            self._given.add(who, request, answer)
        return self._running.pop((who, request))


def bounded(context: "zmq.Context[zmq.Socket[bytes]]", kind: int, limits: Limits) -> "zmq.Socket[bytes]":
    """A socket with its queues, messages and silences limited. Whether the other machine is there the kernels find out
    between them: that costs no process anything, and one that is frozen, or has no time, keeps its connections. To make
    thousands of them anew is the last thing that a busy process needs."""
    socket = context.socket(kind)
    for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, limits.queue), (zmq.RCVHWM, limits.queue),
                          (zmq.MAXMSGSIZE, limits.message), (zmq.HANDSHAKE_IVL, limits.handshake),
                          (zmq.TCP_KEEPALIVE, 1), (zmq.TCP_KEEPALIVE_IDLE, 10), (zmq.TCP_KEEPALIVE_INTVL, 5),
                          (zmq.TCP_KEEPALIVE_CNT, 3)):
        socket.set(option, value)
    return socket


def dealer(context: "zmq.Context[zmq.Socket[bytes]]", keys: KeyPair, where: tuple[str, str],
           limits: Limits) -> "zmq.Socket[bytes]":
    """A socket for the way to where: (address, public key), not connected. Raises Unavailable: that is no key."""
    socket = bounded(context, zmq.DEALER, limits)
    socket.set(zmq.HANDSHAKE_IVL, limits.entry)
    # ZeroMQ's own heartbeats find what only looks like a connection, as over a proxy: seldom, from one side.
    for option, milliseconds in ((zmq.HEARTBEAT_IVL, 60_000), (zmq.HEARTBEAT_TIMEOUT, 120_000),
                                 (zmq.HEARTBEAT_TTL, 120_000), (zmq.TCP_MAXRT, limits.cut),
                                 (zmq.CONNECT_TIMEOUT, CONNECT)):
        socket.set(option, milliseconds)
    try:
        socket.set(zmq.IPV6, "[" in where[0])
        socket.set(zmq.CURVE_SERVERKEY, where[1].encode())
        socket.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
        socket.set(zmq.CURVE_PUBLICKEY, keys.public.encode())
        # Ever longer, and for each another time: the library adds no chance of its own.
        socket.set(zmq.RECONNECT_IVL, random.randint(*AGAIN))  # noqa: S311 - spreads load, keeps no secret
        socket.set(zmq.RECONNECT_IVL_MAX, random.randint(*SELDOM))  # noqa: S311
    except zmq.ZMQError as error:
        socket.close()
        raise Unavailable(details=f"Nobody can be asked at {where[0][:80]!r}: {error.strerror}.") from None
    return socket
