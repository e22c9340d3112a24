"""What a server holds for peers that do not read: counted in bytes, and ended.

ZeroMQ bounds its queues in messages. How many bytes of them wait is known by the library's own trackers: an answer's is
done when it has left for the network, or went with its connection.
"""

import contextlib
import os
import socket
from collections import deque
from typing import NamedTuple

import structlog
import zmq

log = structlog.get_logger()

#: Answers below this many bytes are not tracked: the queue's length bounds them.
SMALL = 4096
#: libzmq's ZMQ_SRCFD: the descriptor that a message came over.
_SOURCE = 2


class Way(NamedTuple):
    """Where an answer goes: the peer's routing id, and the connection it came over (descriptor, the other end)."""

    routing: bytes
    descriptor: int = -1
    end: object = None


def way_of(routing: bytes, frame: zmq.Frame) -> Way:
    """The way back for a message."""
    try:
        descriptor = int(frame.get(_SOURCE))
    except zmq.ZMQError:  # a library that does not say: what is sent there is dropped, and the connection stays
        return Way(routing)
    return Way(routing, descriptor, _other_end(descriptor))


def hang_up(way: Way) -> None:
    """Ends the connection, if it is that one still."""
    if way.descriptor >= 0 and way.end is not None and _other_end(way.descriptor) == way.end:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(way.descriptor)) as connection:
            connection.shutdown(socket.SHUT_RDWR)


class Unread:
    """The answers that peers have not taken yet. limit: the most bytes of one peer, over all its connections."""

    def __init__(self, limit: int):
        self._limit = limit
        self._left: dict[str, deque[tuple[zmq.MessageTracker, int, Way]]] = {}
        self._bytes: dict[str, int] = {}

    def of(self, who: str) -> int:
        """Bytes that wait for a peer. Exact when they are too many."""
        left = self._left.get(who)
        if left is None:
            return 0
        while left and left[0][0].done:
            self._bytes[who] -= left.popleft()[1]
        if self._bytes[who] > self._limit:
            self._left[who] = left = deque(each for each in left if not each[0].done)
            self._bytes[who] = sum(size for _, size, _ in left)
        if not left:
            del self._left[who], self._bytes[who]
            return 0
        return self._bytes[who]

    def frame(self, who: str, way: Way, answer: bytes) -> bytes | zmq.Frame | None:
        """The answer as it may be sent. None: too much waits already; the peer's connections are ended."""
        if (waiting := self.of(who)) > self._limit:
            log.warning("rpc connection ended: its answers are not read", peer=who, bytes=waiting)
            for lost in {lost for _, _, lost in self._left.pop(who)}:
                hang_up(lost)
            del self._bytes[who]
            return None
        if len(answer) < SMALL:
            return answer
        frame = zmq.Frame(answer, track=True, copy=False, copy_threshold=0)
        assert frame.tracker is not None
        self._left.setdefault(who, deque()).append((frame.tracker, len(answer), way))
        self._bytes[who] = self._bytes.get(who, 0) + len(answer)
        return frame


def _other_end(descriptor: int) -> object:
    try:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=descriptor)
    except OSError:
        return None
    try:
        return connection.getpeername()
    except OSError:
        return None
    finally:
        connection.detach()
