"""A ZeroMQ socket in an asyncio loop, without a future a message: half the time of the library's own."""

import asyncio
from collections.abc import Callable, Sequence

import structlog
import zmq

log = structlog.get_logger()

#: Messages taken in one turn of the loop, so that one busy socket does not starve the rest.
TURN = 64
#: Seconds for which a socket is not looked at after messages that may come late, while such come one upon the other (no
#: further apart than that): to be woken for each one costs several times what the message costs.
REST, NEAR = 0.02, 0.1


class Pump:
    """Hands each message to `receive(frames, user)`, which says whether others like this one may come late; user: the
    id that ZAP gave its sender, or ""."""

    def __init__(self, socket: "zmq.Socket[bytes]", receive: Callable[[list[bytes], str], bool | None],
                 rest: float = REST):
        self._socket, self._receive, self._rest = socket, receive, rest
        self._resting, self._last = False, -NEAR
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.get(zmq.FD))
        self._again = False
        #: The first frame of the message that is being handled: it knows where it came from.
        self.frame: zmq.Frame = zmq.Frame()
        self._loop.add_reader(self._fd, self._ready)
        self._later()

    def send(self, frames: "Sequence[bytes | zmq.Frame]") -> bool:
        """Queue a message. False: the queue is full, or its receiver is gone."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=not isinstance(frames[-1], zmq.Frame))
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return False
        finally:
            self._later()
        return True

    def close(self) -> None:
        """Stop listening and close the socket."""
        if not self._socket.closed:
            self._loop.remove_reader(self._fd)
            self._socket.close(linger=0)

    def _later(self) -> None:
        """The socket's descriptor tells of a change only once, and sending may use that up: look again."""
        if not self._again and not self._resting:
            self._again = True
            self._loop.call_soon(self._ready)

    def _ready(self) -> None:
        self._again, late = False, 0
        for n in range(TURN):
            if self._socket.closed or self._resting:
                return
            try:
                first = self._socket.recv(zmq.NOBLOCK, copy=False)
                frames = [first.bytes]
                if first.more:
                    frames += self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                if 0 < n == late:
                    self._pause()
                return
            self.frame = first
            try:
                late += bool(self._receive(frames, _user(first)))
            except Exception:
                log.exception("a message could not be handled")
        self._later()

    def _pause(self) -> None:
        """All that came may come late."""
        before, self._last = self._last, self._loop.time()
        if self._last - before < NEAR:
            self._resting = True
            self._loop.remove_reader(self._fd)
            self._loop.call_later(self._rest, self._resume)

    def _resume(self) -> None:
        self._resting = False
        if not self._socket.closed:
            self._loop.add_reader(self._fd, self._ready)
            self._ready()


def _user(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("User-Id"))
    except (zmq.ZMQError, KeyError):
        return ""
