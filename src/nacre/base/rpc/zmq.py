"""RPC over ZeroMQ, point to point: a ROUTER that answers, a DEALER to each process that is asked. No broker.

CURVE is always on. Who a peer is says its key, as ZAP authenticated it, never the routing id it chose; a key that
nobody registered gets no connection. Queues are bounded, and full ones say so. A call is sent
again when the other process came back before it answered; a message that comes twice is run once.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Collection, Coroutine
from typing import Any, cast

import structlog
import zmq
from zmq.utils import z85

from nacre.base.errors import BadRequest, Forbidden, Unavailable
from nacre.base.rpc.codec import Answer, Request, decode_answer, decode_request, encode, failure
from nacre.base.rpc.directory import Directory
from nacre.base.rpc.keys import KeyPair
from nacre.base.rpc.link import DEFAULTS, Answers, Limits, Link, Links, bounded, dealer
from nacre.base.rpc.pump import Pump
from nacre.base.rpc.server import Allow, Dispatcher, Peer
from nacre.base.rpc.stub import Client
from nacre.base.rpc.target import Target
from nacre.base.rpc.turns import Turns
from nacre.base.rpc.unread import Unread, Way, hang_up, way_of

log = structlog.get_logger()


class ZmqTransport:
    """One process's place on the network. `start` before use.

    me: what this process is called and its role; listen: where to answer ("tcp://127.0.0.1:0": a free port), or None.
    """

    def __init__(self, me: Peer, keys: KeyPair, listen: str | None = None, limits: Limits = DEFAULTS):
        self.me, self.keys, self.limits = me, keys, limits
        self.address = listen or ""
        self._listen = listen
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # The library's default is 1,023, which the ways to 340 hosts use up.
        self._context.set(zmq.MAX_SOCKETS, self._context.get(zmq.SOCKET_LIMIT))
        self._dispatcher = Dispatcher()
        self._links = Links(lambda where: Link(dealer(self._context, keys, where, limits), where[0], limits.queue))
        self.directory = Directory(lambda: self._links.leave_soon(self.directory.left))
        self._router: Pump | None = None
        self._zap: Pump | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turn = 0
        self._answers = Answers()
        self._turns = Turns(limits.of_one, limits.waiting)
        #: Bytes of the requests that are at work for each peer, or wait.
        self._held: Counter[str] = Counter()
        self._unread = Unread(self.limits.unread)

    @property
    def public_key(self) -> str:
        """By which others know this process."""
        return self.keys.public

    def client(self, target: Target) -> Client:
        """A client for stubs."""
        return Client(self, target)

    def serve(self, target: Target, endpoint: Any, contract: type, allow: Allow = None) -> None:
        """Answer the contract's verbs of the target with the endpoint's methods. allow: the roles that may ask."""
        self._dispatcher.serve(target, endpoint, contract, allow)

    async def start(self) -> None:
        """Open the sockets. Raises Unavailable if the address is taken."""
        if self._listen is None:
            return
        zap = self._context.socket(zmq.ROUTER)
        zap.bind("inproc://zeromq.zap.01")
        self._zap = Pump(zap, self._authenticate)
        router = bounded(self._context, zmq.ROUTER, self.limits)
        router.set(zmq.MAXMSGSIZE, min(self.limits.message, self.limits.request))
        router.set(zmq.TCP_MAXRT, self.limits.stalled)
        router.set(zmq.BACKLOG, self.limits.backlog)
        router.set(zmq.RCVHWM, self.limits.incoming)
        router.set(zmq.IPV6, "[" in self._listen)
        router.set(zmq.ROUTER_MANDATORY, 1)
        router.set(zmq.CURVE_SERVER, 1)
        router.set(zmq.CURVE_SECRETKEY, self.keys.secret.encode())
        router.set(zmq.CURVE_PUBLICKEY, self.keys.public.encode())
        try:
            router.bind(self._listen)
        except zmq.ZMQError as error:
            router.close()
            self._zap.close()
            raise Unavailable(f"RPC cannot listen on {self._listen}: {error}. Choose another rpc_port.") from None
        self.address = bytes(router.get(zmq.LAST_ENDPOINT)).decode().rstrip("\0")
        self._router = Pump(router, self._receive)

    async def close(self) -> None:
        """Give up what is running and close everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links.values():
            link.close()
        for pump in (self._router, self._zap):
            if pump:
                pump.close()
        self._links.clear()
        self._context.destroy(linger=0)

    async def ask(self, target: Target, request: Request, timeout: float) -> Answer:
        if self._is_here(target):
            return await self._ask_here(target, request, timeout)
        if target.server is None and len(self.directory.ways(target)) > 1:
            return await self._ask_any(target, request, timeout)
        link = self._link(target)
        try:
            future = link.send(request)
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            link.waiting.pop(request.id, None)
            self._links.doubt(link)
            raise _silent(target, request, timeout) from None
        except Unavailable:
            self._links.doubt(link)
            raise
        finally:
            link.waiting.pop(request.id, None)

    async def _ask_any(self, target: Target, request: Request, timeout: float) -> Answer:
        """Who keeps silent may be frozen: after a while the next is asked too, and the first answer counts."""
        end, asked, waits = time.monotonic() + timeout, list[Link](), dict[asyncio.Future[Answer], Link]()
        ways = len(self.directory.ways(target))
        try:
            while (left := end - time.monotonic()) > 0 and (waits or len(asked) < ways):
                if len(asked) < ways:
                    asked.append(self._link(target, asked))
                    with contextlib.suppress(Unavailable):  # its queue is full
                        waits[asked[-1].send(request)] = asked[-1]
                if not waits:
                    continue
                patience = min(left, self.limits.silence) if len(asked) < ways else left
                done, _ = await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    if not future.cancelled() and future.exception() is None:
                        return future.result()
                    waits.pop(future)
                for link in waits.values():
                    link.silent = True
            raise _silent(target, request, timeout)
        finally:
            for link in asked:
                link.waiting.pop(request.id, None)
                if link.silent:
                    self._links.doubt(link)

    async def _ask_here(self, target: Target, request: Request, timeout: float) -> Answer:
        """This process is its own server: no socket, but the same codec."""
        work = self._start(self._dispatcher.answer(decode_request(encode(request)), self.me))
        try:
            async with asyncio.timeout(timeout):
                return decode_answer(encode(await asyncio.shield(work)))
        except TimeoutError:
            raise _silent(target, request, timeout) from None

    def _is_here(self, target: Target) -> bool:
        served = self._dispatcher.served.get(target.namespace)
        return (served is not None and served.target.topic == target.topic
                and target.server in (None, served.target.server or self.me.name))

    def _link(self, target: Target, but: Collection[Link] = ()) -> Link:
        """The link to the target's server, or in turn to one of its topic that is not among those. Raises Unavailable
        if none is known."""
        known = self.directory.ways(target)
        self._links.leave(self.directory.left())
        known = [way for way in known if self._links.get(way) not in but] or known
        # One that was met before a doubtful one, and both before one that keeps silent, each in turn.
        links = {way: self._links.get(way) for way in known}
        heard = [way for way, link in links.items() if link is None or not link.silent] or known
        known = [way for way in heard if (link := links[way]) is not None and link.connected] or heard
        self._turn += 1
        return self._links.to(known[self._turn % len(known)])

    def _authenticate(self, frames: list[bytes], _user: str) -> None:
        """ZAP: is this key one of ours? The user id that it answers comes with every message of the connection."""
        assert self._zap is not None
        back, (version, sequence, _domain, address, _routing, mechanism, *credentials) = frames[:2], frames[2:]
        key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and credentials else ""
        if key in self.directory.peers:
            self._zap.send([*back, version, sequence, b"200", b"OK", key.encode(), b""])
        else:
            log.warning("rpc peer refused", address=address.decode(errors="replace"), key=key)
            self._zap.send([*back, version, sequence, b"400", b"unknown key", b"", b""])

    def _receive(self, frames: list[bytes], key: str) -> bool:
        """One request: dropped if its sender is unknown, run if it did not come before. Whether it is of a kind that
        may come late: hosts' regular words."""
        sender = self.directory.peers.get(key)
        if sender is None or len(frames) != 2:
            return False
        assert self._router is not None
        way = Way(frames[0]) if sender.role == "control" else way_of(frames[0], self._router.frame)
        try:
            request = decode_request(frames[1])
        except BadRequest as error:
            log.warning("rpc connection ended: it sends what is no request", peer=sender.name, reason=str(error))
            hang_up(way)
            return False
        if busy := self._full(request, sender):
            self._reply(sender, way, encode(Answer(request.id, failure(busy))))
        elif not self._dispatcher.again(request, sender):
            self._held[sender.name] += len(request.args)
            self._answers.begin(sender.name, request.id, way)
            self._enter(request, sender)
        elif given := self._answers.again(sender.name, request.id, way):
            self._reply(sender, way, given)
        return self._dispatcher.latest(request)

    def _full(self, request: Request, sender: Peer) -> Unavailable | None:
        """Why the request is not taken on now."""
        held, what = self._held[sender.name], ""
        if len(self._tasks) >= self.limits.running:
            what = f"{len(self._tasks)} requests"
        elif sender.role != "control" and held and held + len(request.args) > self.limits.held:
            what = f"{held} bytes of requests"
        elif sender.role != "control" and self._turns.full(
                sender.name, latest=self._dispatcher.latest(request)):
            what = f"{self.limits.of_one + self.limits.waiting} requests of {sender.name}"
        return Unavailable(f"{self.me.name} is busy with {what}. Try again later.") if what else None

    def _enter(self, request: Request, sender: Peer) -> None:
        """The request runs now, or when those of its host before it are done."""
        now, replaced = (True, None) if sender.role == "control" else self._turns.come(
            sender.name, request, latest=self._dispatcher.latest(request))
        if now:
            self._start(self._run(request, sender))
        if replaced is not None:
            late = Unavailable(f"A later {replaced.verb} of {sender.name} took its place.")
            self._answer(replaced, sender, encode(Answer(replaced.id, failure(late))))

    async def _run(self, request: Request, sender: Peer) -> None:
        try:
            if self.directory.key_of(sender):
                answer = await self._dispatcher.answer(request, sender)
            else:  # it was shut out while its request waited
                answer = Answer(request.id, failure(Forbidden(f"{sender.name} is not let in any more.")))
            self._answer(request, sender, encode(answer))
        finally:
            following = None if sender.role == "control" else self._turns.done(
                sender.name, request, latest=self._dispatcher.latest(request))
            if following is not None and not cast("asyncio.Task[Any]", asyncio.current_task()).cancelling():
                self._start(self._run(following, sender))

    def _answer(self, request: Request, sender: Peer, answer: bytes) -> None:
        self._held[sender.name] -= len(request.args)
        if not self._held[sender.name]:
            del self._held[sender.name]
        self._reply(sender, self._answers.end(sender.name, request.id, answer), answer)

    def _reply(self, sender: Peer, way: Way, answer: bytes) -> None:
        assert self._router is not None
        frame = answer if sender.role == "control" else self._unread.frame(sender.name, way, answer)
        if frame is not None and not self._router.send([way.routing, frame]):
            log.info("rpc answer not delivered: its caller is gone or does not read")

    def _start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _silent(target: Target, request: Request, timeout: float) -> Unavailable:
    return Unavailable(details=f"{target.server or target.topic} did not answer {request.namespace}.{request.verb} "
                               f"within {timeout:g} s.")
