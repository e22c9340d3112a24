"""Connections of clients, without sockets: who is closed for whom, and when nobody waits any longer."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
import structlog
import uvicorn
from uvicorn.server import ServerState

from nacre.base.clock import RealClock
from nacre.base.serving.connections import Connection, Patience, Waiting, kind
from nacre.base.serving.health import Health

HEAD = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"


class Time:
    """A loop's timers, by a clock that is set forward."""

    def __init__(self) -> None:
        self.now, self.timers = 0.0, list["Timer"]()

    def call_later(self, seconds: float, call: Callable[..., None], *args: Any) -> "Timer":
        self.timers.append(Timer(self.now + seconds, lambda: call(*args), call))
        return self.timers[-1]

    def create_task(self, work: Any) -> Any:
        return asyncio.get_running_loop().create_task(work)

    def forward(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= end and not timer.done]:
            for timer in due:
                if not timer.done:
                    self.now, timer.done = timer.at, True
                    timer.call()
        self.now = end


class Timer:
    def __init__(self, at: float, call: Callable[[], None], of: Callable[..., None]):
        self.at, self.call, self.of, self.done = at, call, of, False

    def cancel(self) -> None:
        self.done = True


class Kernel:
    """What it knows of a connection: `unsent` bytes wait, `acked` were taken."""

    unsent = acked = 0

    def __init__(self, address: str):
        self.address = address

    def getpeername(self) -> tuple[str, int]:
        return self.address, 1

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.250", 80

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.IPPROTO_TCP, socket.TCP_INFO, 148)
        return struct.pack("=120xQ16xI", self.acked, self.unsent)


class Wire(asyncio.Transport):
    """What is between a client and its connection."""

    def __init__(self, address: str):
        self.kernel = Kernel(address)
        super().__init__({"socket": self.kernel})
        self.sent, self.closed = b"", False
        self.taking, self.unsent, self.high = True, 0, 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0

    def write(self, data: Any) -> None:
        self.sent += bytes(data)
        if not self.taking:
            self.unsent += len(data)
            self.kernel.unsent += len(data)
            if self.unsent > self.high >= self.unsent - len(data):
                self.made.pause_writing()

    async def take(self, *, more: bool = False) -> None:
        """The client takes what waits; and all that comes, unless it is only that and `more` of it waits."""
        self.taking, paused, self.unsent = not more, self.unsent > self.high, 0
        self.kernel.acked, self.kernel.unsent = self.kernel.acked + self.kernel.unsent, 0
        if paused:
            self.made.resume_writing()
        await settle()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.made.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    made: Connection


async def settle() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


class Lab:
    """One server. Its app answers 401 at once; with `reads`, when the body is there."""

    def __init__(self, reads: bool = False, proxies: tuple[str, ...] = (), **patience: Any):
        self.time, self.reads = Time(), reads
        self.waiting = Waiting(Patience(**patience), proxies)
        self.scopes = list[Any]()

        async def look() -> None: ...

        self.config = uvicorn.Config(
            self.app, interface="asgi3", loop="none", http="httptools", ws="none", lifespan="off", log_config=None,
            proxy_headers=False, timeout_keep_alive=self.waiting.patience.idle)
        self.kind, self.state = kind(False, Health(look, RealClock()), self.waiting), ServerState()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        while self.reads and (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def client(self, address: str, *parts: bytes) -> Wire:
        wire = Wire(address)
        wire.made = self.kind(self.config, self.state, {}, _loop=self.time)  # type: ignore[arg-type]
        wire.made.connection_made(wire)
        for part in parts:
            await self.sends(wire, part)
        return wire

    async def sends(self, wire: Wire, data: bytes) -> None:
        if not wire.closed:
            wire.made.data_received(data)
        for _ in range(5):
            await asyncio.sleep(0)


async def test_slow_bodies_of_a_few_close_no_bodies_of_others() -> None:
    lab = Lab(reads=True, of_one=5, waiting=10)
    slow = [await lab.client(address, HEAD, b"{") for address in ("192.0.2.1", "192.0.2.2") for _ in range(5)]
    assert not any(wire.closed for wire in slow)
    victims = [await lab.client(f"192.0.2.{n}", HEAD, b"x" * 60, b"x" * 40) for n in (3, 4, 5)]
    assert all(wire.sent.startswith(b"HTTP/1.1 401") for wire in victims), "the body was there"
    assert [wire.closed for wire in slow] == [*[False] * 9, True], "the newest of one of those that had most"
    slow[0].made.data_received(b"x" * 99)
    await asyncio.sleep(0.01)
    assert slow[0].sent.startswith(b"HTTP/1.1 401"), "the first ones go on"
    assert (await lab.client("192.0.2.2", HEAD, b"{")).closed is False
    assert (await lab.client("192.0.2.2", HEAD, b"{")).closed, "of its own it gets no more by coming again"


@pytest.mark.parametrize(("addresses", "closed"), [
    ([f"2001:db8::{n}" for n in range(4)], True), ([f"2001:db8:0:{n}::1" for n in range(4)], False),
    ([f"::ffff:192.0.2.{n}" for n in range(4)], False)], ids=["one network", "networks", "IPv4 on a socket for both"])
async def test_an_ipv6_network_is_one_source(addresses: list[str], closed: bool) -> None:
    lab = Lab(reads=True, of_one=3, waiting=10)
    wires = [await lab.client(address, HEAD, b"{") for address in addresses]
    assert [wire.closed for wire in wires] == [False, False, False, closed]


async def test_a_balancer_has_what_all_have() -> None:
    lab = Lab(reads=True, proxies=("192.0.2.9", "2001:db8::9"), of_one=1, waiting=4)
    for address in ("::ffff:192.0.2.9", "2001:db8::9"):
        wires = [await lab.client(address, HEAD, b"{") for _ in range(2)]
        assert not any(wire.closed for wire in wires)


async def test_behind_a_balancer_a_body_is_its_clients() -> None:
    lab = Lab(reads=True, proxies=("192.0.2.9", "192.0.2.8"), of_one=5, waiting=20)

    def head(*addresses: str) -> bytes:
        return HEAD[:-2] + b"".join(b"x-forwarded-for: %b\r\n" % each.encode() for each in addresses) + b"\r\n"

    slow = [await lab.client("192.0.2.9", head(f"203.0.113.{n}", "198.51.100.1"), b"{") for n in range(10)]
    assert [wire.closed for wire in slow] == [False] * 5 + [True] * 5, "what a client itself says counts not"
    chain = "198.51.100.2, 192.0.2.8"
    assert [(await lab.client("192.0.2.9", head(chain), b"{")).closed for _ in range(6)] == [False] * 5 + [True]
    victim = await lab.client("192.0.2.9", head("198.51.100.3"), b"x" * 60, b"x" * 40)
    assert victim.sent.startswith(b"HTTP/1.1 401")
    for n in (0, 1):
        await lab.sends(slow[n], b"x" * 99)
        assert slow[n].sent.startswith(b"HTTP/1.1 401")
    again = [await lab.client("192.0.2.9", head("198.51.100.1"), b"{") for _ in range(3)]
    assert [wire.closed for wire in again] == [False, False, True], "they are counted as they were, to the end"
    direct = [await lab.client("192.0.2.1", head(f"203.0.113.{n}"), b"{") for n in range(6)]
    assert direct[-1].closed, "only a balancer is asked"


def forwarded(*lines: str, proto: str = "") -> bytes:
    """A request that a balancer passes on."""
    head = "".join(f"x-forwarded-for: {line}\r\n" for line in lines)
    return HEAD[:-2] + (head + (f"x-forwarded-proto: {proto}\r\n" if proto else "")).encode("latin-1") + b"\r\n"


@pytest.mark.parametrize(("proxies", "address"), [
    ("192.0.2.9", "192.0.2.9"), ("192.0.2.0/24", "192.0.2.9"), ("192.0.2.9", "::ffff:192.0.2.9"),
    ("::ffff:192.0.2.9", "192.0.2.9"), ("::ffff:192.0.2.0/120", "::ffff:192.0.2.9"), ("2001:DB8::9", "2001:db8::9"),
    ("2001:db8::/64", "2001:db8::9")])
async def test_a_balancer_is_known_by_any_spelling_and_for_all(proxies: str, address: str) -> None:
    """As one whose connections are many, whose bodies are its clients', and which says how these came."""
    lab = Lab(reads=True, proxies=(proxies,), of_one=2, waiting=20)
    wires = [await lab.client(address, forwarded("198.51.100.1"), b"{") for _ in range(3)]
    assert [wire.closed for wire in wires] == [False, False, True]
    wires = [await lab.client(address, forwarded(f"198.51.100.{n}"), b"{") for n in range(2, 6)]
    wires += [await lab.client(address) for _ in range(6)]
    assert not any(wire.closed for wire in wires)
    await lab.client(address, forwarded("203.0.113.7", proto="https"))
    assert (lab.scopes[-1]["client"][0], lab.scopes[-1]["scheme"]) == ("203.0.113.7", "https")
    await lab.client("203.0.113.1", forwarded("203.0.113.7", proto="https"))
    assert (lab.scopes[-1]["client"][0], lab.scopes[-1]["scheme"]) == ("203.0.113.1", "http")


@pytest.mark.parametrize(("said", "whose"), [
    (("198.51.100.1",), "198.51.100.1"), (("203.0.113.1", "198.51.100.1"), "198.51.100.1"),
    (("203.0.113.1, 198.51.100.1 ,192.0.2.8",), "198.51.100.1"), (("::ffff:198.51.100.1",), "198.51.100.1"),
    (("198.51.100.1:4711",), "198.51.100.1"), (("[2001:db8::1]:4711",), "2001:db8::/64"),
    (("2001:db8::1%" + "A" * 1000,), "2001:db8::/64"), (("192.0.2.8",), "192.0.2.8"), ((), "192.0.2.9"),
    (("",), "192.0.2.9"), (("unknown",), "192.0.2.9"), (("198.51.100.1, x",), "192.0.2.9"),
    (("\x9b31m" + "A" * 30000,), "192.0.2.9"), (("192.0.2.8," * 3000,), "192.0.2.9"),
    (("192.0.2.8," * 3000 + "192.0.2.8",), "192.0.2.8")])
async def test_whose_a_request_is_that_a_balancer_passes_on(said: tuple[str, ...], whose: str) -> None:
    lab = Lab(reads=True, proxies=("192.0.2.8", "192.0.2.9"), of_one=1, waiting=1)
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            await lab.client("192.0.2.9", forwarded(*said), b"{")
    assert lab.scopes[-1]["client"][0] == whose
    assert [line["source"] for line in lines if line["log_level"] == "info"] == [whose]


async def test_what_comes_at_the_same_moment_is_counted_without_what_was_closed_in_it() -> None:
    """Before anything hears that those are gone."""
    lab = Lab(of_one=2, waiting=10)
    wires = [await lab.client("192.0.2.1") for _ in range(6)]
    assert [wire.closed for wire in wires] == [True] * 4 + [False] * 2
    lab, bodies = Lab(reads=True, of_one=2, waiting=3), list[Wire]()
    for n in (1, 1, 1, 2, 3):
        bodies.append(await lab.client(f"192.0.2.{n}"))
        bodies[-1].made.data_received(HEAD + b"{")
    assert [wire.closed for wire in bodies] == [False, True, True, False, False]
    await settle()


async def test_silent_connections_of_a_few_close_no_others() -> None:
    lab = Lab(of_one=5, waiting=10)
    fine = await lab.client("192.0.2.3")
    silent = [await lab.client(address) for _ in range(5) for address in ("192.0.2.1", "192.0.2.2")]
    await lab.sends(fine, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert fine.sent.startswith(b"HTTP/1.1 401") and sum(wire.closed for wire in silent) == 1


@pytest.mark.parametrize("more", [[b" "] * 4, [b" ", b"x" * 99], []], ids=["trickled", "whole", "nothing"])
async def test_after_an_answer_to_a_body_that_nobody_reads_an_idle_connection_ends(more: list[bytes]) -> None:
    lab = Lab(idle=30)
    wire = await lab.client("192.0.2.1", HEAD)
    assert wire.sent.startswith(b"HTTP/1.1 401")
    for data in more:
        lab.time.forward(5)
        await lab.sends(wire, data)
    assert not wire.closed
    lab.time.forward(29 - lab.time.now)
    assert not wire.closed
    lab.time.forward(1)
    assert wire.closed


async def test_what_comes_after_such_a_body_is_answered() -> None:
    lab = Lab(idle=30)
    wire = await lab.client("192.0.2.1", HEAD, b"x" * 60, b"x" * 40 + b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert wire.sent.count(b"HTTP/1.1 401") == 2
    lab.time.forward(29)
    await lab.sends(wire, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    lab.time.forward(29)
    assert wire.sent.count(b"HTTP/1.1 401") == 3 and not wire.closed


async def test_who_takes_nothing_for_long_is_closed_and_nobody_who_takes_a_little() -> None:
    lab, ask = Lab(unread=300, idle=10**6), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    with structlog.testing.capture_logs() as said:
        nothing, little, fine = [await lab.client("192.0.2.1", ask) for _ in range(3)]
        nothing.kernel.unsent = little.kernel.unsent = 100
        for n in range(40):
            assert not little.closed and not fine.closed and nothing.closed is (n >= 13), n
            little.kernel.acked += n % 3 == 0
            lab.time.forward(30)
            if n == 1:
                nothing.kernel.acked = 1
            await lab.sends(fine, ask)
    lines = [line["event"] for line in said if line["log_level"] == "info"]
    assert lines == ["a connection is closed: its client takes nothing"]
    await settle()
    assert not [timer for timer in lab.time.timers if getattr(timer.of, "__self__", None) is nothing.made
                and not timer.done], "and nothing waits for it any more"


async def test_the_log_has_a_line_for_a_source_and_minute(caplog: pytest.LogCaptureFixture) -> None:
    lab = Lab(of_one=1, waiting=10)
    with structlog.testing.capture_logs() as said:
        for address in ("192.0.2.1", "192.0.2.2"):
            for _ in range(21):
                await lab.client(address)
            for _ in range(20):
                await lab.client(address, b"GET /?" + b"x" * 40000)
                await lab.client(address, b"no request\r\n\r\n")
                await lab.client(address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
        first = [line for line in said if line["log_level"] == "info"]
        assert len(first) == 6 and len({(line["event"], line["source"]) for line in first}) == 6
        assert {line["connections"] for line in first} == {1}
        lab.time.forward(60)
        more = [line for line in said if line["log_level"] == "info"][6:]
        assert len(more) == 6 and all(line["connections"] >= 19 for line in more)
        lab.time.forward(60)
        lab.time.forward(60)
        assert len([line for line in said if line["log_level"] == "info"]) == 12, "and none of what does not go on"
    assert not caplog.records, "nor does uvicorn"


async def test_of_many_sources_the_log_names_a_few() -> None:
    lab = Lab(waiting=1)
    with structlog.testing.capture_logs() as said:
        for n in range(2000):
            await lab.client(f"2001:db8:0:{n:x}::1")
        assert len(said) < 120
        lab.time.forward(60)
        more = [line for line in said if line["log_level"] == "info"][100:]
        assert len(more) < 120 and more[-1]["source"] == "others" and more[-1]["connections"] > 1800
