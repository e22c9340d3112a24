"""Connections: kept while the other machine is there, however busy or frozen its process; asked for again ever more
seldom, and not by all at the same moment."""

import asyncio
import itertools
import os
import socket
from typing import Protocol

import pytest
import zmq

from nacre.base.errors import Unavailable
from nacre.base.rpc.keys import new_keys
from nacre.base.rpc.link import AGAIN, DEFAULTS, SELDOM, Link, dealer
from nacre.base.rpc.pump import Pump
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.base.rpc.target import Target
from nacre.base.rpc.zmq import ZmqTransport
from nacre.cli.supervisor import free_port

TARGET = Target(topic="control", namespace="counts", version="1.0")
#: libzmq's ZMQ_SRCFD: the descriptor that a message came over.
SOURCE = 2


class Counts(Protocol):
    async def count(self, n: int) -> int: ...


def kernel(frame: zmq.Frame) -> tuple[int, int]:
    """Of the connection that a message came over: whether the kernel asks the other machine for a sign of life, and
    after how many ms without one it ends."""
    with socket.socket(fileno=os.dup(frame.get(SOURCE))) as connection:
        return (connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))


def test_the_kernel_finds_out_whether_the_other_machine_is_there() -> None:
    """And not the processes: one without processor time for a minute would lose all its connections at once."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    own, there = new_keys(), new_keys()
    router = context.socket(zmq.ROUTER)
    router.set(zmq.CURVE_SERVER, 1)
    router.set(zmq.CURVE_SECRETKEY, there.secret.encode())
    port = router.bind_to_random_port("tcp://127.0.0.1")
    socket = dealer(context, own, (f"tcp://127.0.0.1:{port}", there.public), DEFAULTS)
    try:
        socket.connect(f"tcp://127.0.0.1:{port}")
        socket.send(b"asked")
        assert router.poll(5000)
        router.send_multipart([router.recv_multipart()[0], b"answered"])
        assert socket.poll(5000)
        assert kernel(socket.recv(copy=False)) == (1, DEFAULTS.cut)
        assert socket.get(zmq.HEARTBEAT_TIMEOUT) > 60_000
    finally:
        context.destroy(linger=0)


async def test_what_nobody_waits_for_any_more_is_not_sent() -> None:
    """Nor is a connection that is still being made begun anew: thousands that come at once would only grow more."""
    keys, own, heard = new_keys(), new_keys(), list[int]()

    class Count:
        async def count(self, n: int) -> int:
            heard.append(n)
            return n

    server = ZmqTransport(Peer("control", "control"), keys, where := f"tcp://127.0.0.1:{free_port()}")
    server.serve(TARGET, Count(), Counts)
    server.directory.register(own.public, Peer("host", "node"))
    client = ZmqTransport(Peer("host", "node"), own)
    client.directory.route("control", "control", where, keys.public)
    ask = stub(Counts, client.client(TARGET).prepare(timeout=0.05))
    for n in range(3):
        with pytest.raises(Unavailable):
            await ask.count(n)
    (link,) = client._links.values()
    await server.start()
    try:
        assert await stub(Counts, client.client(TARGET).prepare(timeout=10)).count(3) == 3
        assert heard == [3] and list(client._links.values()) == [link]
    finally:
        await client.close()
        await server.close()


async def test_who_is_refused_asks_ever_more_seldom_and_not_with_the_others() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    where, seen = (f"tcp://127.0.0.1:{free_port()}", new_keys().public), list[list[int]]()
    try:
        links = [dealer(context, new_keys(), where, DEFAULTS) for _ in range(8)]
        monitors = [one.get_monitor_socket(zmq.Event.CONNECT_RETRIED) for one in links]
        for one in links:
            one.connect(where[0])
            assert SELDOM[0] <= one.get(zmq.RECONNECT_IVL_MAX) <= SELDOM[1]
            assert AGAIN[0] <= one.get(zmq.RECONNECT_IVL) <= AGAIN[1]
        await asyncio.sleep(0.5)
        for monitor in monitors:
            pauses = []
            while monitor.poll(0):
                pauses.append(int.from_bytes(monitor.recv_multipart()[0][2:6], "little"))
            seen.append(pauses)
    finally:
        context.destroy(linger=0)
    for pauses in seen:
        assert len(pauses) >= 3 and all(b >= 2 * a for a, b in itertools.pairwise(pauses)), pauses
    assert len({pauses[1] for pauses in seen}) > 1


class Count:
    async def count(self, n: int) -> int:
        return n


async def test_who_waits_hears_that_another_program_answers_there() -> None:
    """The library gives such a way up and says no more; the right process is found when it is there again."""
    keys, own, where = new_keys(), new_keys(), f"tcp://127.0.0.1:{free_port()}"
    client = ZmqTransport(Peer("host", "node"), own)
    client.directory.route("control", "control", where, keys.public)
    ask = stub(Counts, client.client(TARGET).prepare(timeout=60))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    other = context.socket(zmq.ROUTER)
    other.bind(where)
    try:
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(ask.count(n) for n in range(3)), return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers), answers
    except BaseException:
        await client.close()
        raise
    finally:
        context.destroy(linger=0)
    server = ZmqTransport(Peer("control", "control"), keys, where)
    server.serve(TARGET, Count(), Counts)
    server.directory.register(own.public, Peer("host", "node"))
    await server.start()
    try:
        async with asyncio.timeout(20):
            assert await ask.count(4) == 4
    finally:
        await client.close()
        await server.close()


async def test_who_asks_before_another_has_heard_that_he_was_refused_has_a_new_link() -> None:
    keys, own = new_keys(), new_keys()
    server = ZmqTransport(Peer("control", "control"), keys, "tcp://127.0.0.1:0")
    server.serve(TARGET, Count(), Counts)
    await server.start()
    client = ZmqTransport(Peer("host", "node"), own)
    client.directory.route("control", "control", server.address, keys.public)
    ask = stub(Counts, client.client(TARGET).prepare(timeout=60))
    try:
        async with asyncio.timeout(20):
            first = asyncio.ensure_future(ask.count(1))
            while not any(link.lost for link in client._links.values()):
                await asyncio.sleep(0)
            assert not first.done()
            server.directory.register(own.public, Peer("host", "node"))
            assert await ask.count(2) == 2
        with pytest.raises(Unavailable):
            await first
    finally:
        await client.close()
        await server.close()


async def test_who_waits_for_a_process_hears_that_it_has_another_key() -> None:
    keys, where = new_keys(), f"tcp://127.0.0.1:{free_port()}"
    client = ZmqTransport(Peer("host", "node"), new_keys())
    client.directory.route("control", "control", where, keys.public)
    waiting = asyncio.ensure_future(stub(Counts, client.client(TARGET).prepare(timeout=60)).count(1))
    while not client._links:
        await asyncio.sleep(0)
    client.directory.route("control", "control", where, new_keys().public)
    try:
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable):
                await waiting
    finally:
        await client.close()


async def test_a_link_that_is_asked_for_in_vain_can_be_closed_at_any_moment() -> None:
    """The library's thread tells of each try: were nobody there to be told, it would hold its lock for ever."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    own, there, nobody = new_keys(), new_keys(), f"tcp://127.0.0.1:{free_port()}"
    for n in range(300):
        link = Link(dealer(context, own, (nobody, there.public), DEFAULTS), nobody, 10)
        await asyncio.sleep(n % 20 / 1000)
        link.close()
    context.destroy(linger=0)


async def test_words_that_come_one_upon_the_other_are_taken_together() -> None:
    """And whatever may not come late ends no rest, but begins none either."""
    context, loop, heard = zmq.Context(), asyncio.get_running_loop(), asyncio.Queue[float]()
    pairs = [(context.socket(zmq.PAIR), context.socket(zmq.PAIR)) for _ in range(2)]

    def receive(frames: list[bytes], _: str) -> bool:
        heard.put_nowait(loop.time())
        return frames[0] == b"word"

    pumps = []
    for n, (here, there) in enumerate(pairs):
        here.bind(f"inproc://{n}")
        there.connect(f"inproc://{n}")
        pumps.append(Pump(here, receive, rest=0.5 if n == 0 else 60.0))
    for _ in range(2):  # the second comes soon after the first
        pairs[0][1].send(b"word")
        first = await heard.get()
    for word in (b"word", b"question", b"word"):
        pairs[0][1].send(word)
    assert pumps[0].send([b"an answer"])  # which looks at the socket, too
    later = [await heard.get() for _ in range(3)]
    assert later[0] - first > 0.4 and pairs[0][1].recv() == b"an answer"
    async with asyncio.timeout(30):
        for word in (b"question", b"word", b"question", b"question"):
            pairs[1][1].send(word)
            await heard.get()
    for pump, (_, there) in zip(pumps, pairs, strict=True):
        pump.close()
        there.close()
    context.term()
