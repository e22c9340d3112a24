"""A peer that asks and never reads, or sends without end, costs a server so many bytes and no more."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec
import psutil
import pytest
import structlog
import zmq

from nacre.base.rpc.codec import Request, encode
from nacre.base.rpc.keys import KeyPair, new_keys
from nacre.base.rpc.link import Limits
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.base.rpc.target import Target
from nacre.base.rpc.zmq import ZmqTransport

MB = 1 << 20
TARGET = Target(topic="control", namespace="store", version="1.0")
LIMITS = Limits(unread=8 * MB, held=4 * MB, request=2 * MB)


class Store(Protocol):
    async def read(self, size: int) -> bytes: ...
    async def write(self, data: bytes) -> int: ...


class RealStore:
    def __init__(self) -> None:
        self.held, self.most, self.go = 0, 0, asyncio.Event()

    async def read(self, size: int) -> bytes:
        return os.urandom(size)

    async def write(self, data: bytes) -> int:
        self.held += len(data)
        self.most = max(self.most, self.held)
        await self.go.wait()
        self.held -= len(data)
        return len(data)


class Enemy:
    """A host's key, and whatever is sent with it."""

    def __init__(self, server: ZmqTransport):
        self.keys: KeyPair = new_keys()
        server.directory.register(self.keys.public, Peer("evil", "node"))
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        # What is not read lies at the server, not here.
        for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 1), (zmq.RCVBUF, 4096), (zmq.SNDHWM, 100_000),
                              (zmq.CURVE_SERVERKEY, server.keys.public.encode()),
                              (zmq.CURVE_SECRETKEY, self.keys.secret.encode()),
                              (zmq.CURVE_PUBLICKEY, self.keys.public.encode())):
            self.socket.set(option, value)
        self.events = self.socket.get_monitor_socket(zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED)
        self.socket.connect(server.address)

    def ask(self, verb: str, **args: object) -> None:
        self.socket.send(encode(Request(os.urandom(16), "store", "1.0", verb, msgspec.Raw(encode(args)))), zmq.NOBLOCK)

    def lost(self) -> int:
        """How many connections were ended."""
        found = 0
        while self.events.poll(0):
            found += int.from_bytes(self.events.recv_multipart()[0][:2], "little") == zmq.Event.DISCONNECTED
        return found

    def close(self) -> None:
        self.socket.disable_monitor()
        self.context.destroy(linger=0)


@pytest.fixture
async def server() -> AsyncIterator[ZmqTransport]:
    made = ZmqTransport(Peer("control", "control"), new_keys(), "tcp://127.0.0.1:0", LIMITS)
    made.serve(TARGET, RealStore(), Store)
    await made.start()
    yield made
    await made.close()


async def another(server: ZmqTransport) -> int:
    """What an honest host reads meanwhile."""
    host = ZmqTransport(Peer("honest", "node"), new_keys())
    server.directory.register(host.public_key, host.me)
    host.directory.route("control", "control", server.address, server.keys.public)
    try:
        return len(await stub(Store, host.client(TARGET).prepare(timeout=10)).read(MB))
    finally:
        await host.close()


def rss() -> int:
    return int(psutil.Process().memory_info().rss)


async def test_who_never_reads_is_ended(server: ZmqTransport) -> None:
    enemy, before, most = Enemy(server), rss(), 0
    with structlog.testing.capture_logs() as said:
        for _ in range(40):
            for _ in range(5):
                enemy.ask("read", size=MB)
            await asyncio.sleep(0.05)
            most = max(most, rss())
        assert await another(server) == MB
    enemy.close()
    assert [line for line in said if "are not read" in line["event"] and line["peer"] == "evil"]
    assert server._unread.of("evil") <= LIMITS.unread + MB
    assert most - before < 80 * MB, (most - before) / MB  # it asked for 200


async def test_who_sends_without_end_is_held_to_a_measure(server: ZmqTransport) -> None:
    store = RealStore()
    server.serve(TARGET, store, Store)
    enemy, before, most = Enemy(server), rss(), 0
    for _ in range(40):
        for _ in range(5):
            enemy.ask("write", data=bytes(MB))
        await asyncio.sleep(0.05)
        most = max(most, rss())
    assert await another(server) == MB
    assert 0 < store.most <= LIMITS.held
    enemy.close()
    assert most - before < 80 * MB, (most - before) / MB


async def test_a_message_that_is_too_long_or_no_request_ends_the_connection(server: ZmqTransport) -> None:
    for data in (bytes(LIMITS.request + 1), b"\xc1nonsense"):
        enemy = Enemy(server)
        enemy.socket.send(data)
        for _ in range(100):
            await asyncio.sleep(0.02)
            if lost := enemy.lost():
                break
        enemy.close()
        assert lost, data[:10]
    assert await another(server) == MB


async def test_who_reads_slowly_is_not_ended(server: ZmqTransport) -> None:
    enemy = Enemy(server)
    got = 0
    for _ in range(20):
        enemy.ask("read", size=MB)
        for _ in range(200):
            if enemy.socket.poll(0):
                got += len(enemy.socket.recv()) > MB
                break
            await asyncio.sleep(0.01)
    assert got == 20 and not enemy.lost()
    enemy.close()
