"""Answers that nobody reads: what a server holds for them is bounded, and it does nothing more for who is gone."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from nacre.base.context import Context
from nacre.base.serving.gate import AUTHENTICATED, PUBLIC
from nacre.base.serving.sending import PIECE, Unread, close
from nacre.base.web import App, Reply, Request, Route, Service
from nacre.image.api.data import _after
from tests.pure.test_client_connections import Lab, Wire, settle

MUCH = 10 * PIECE


class Cloud(Lab):
    """Whoever asks is of the project that the token names."""

    def __init__(self, **patience: Any):
        self.begun, self.made, self.closed = 0, 0, 0
        super().__init__(**patience)
        service = Service("s", "/s", [
            Route("GET", "/much", self.much, AUTHENTICATED), Route("GET", "/open", self.much, PUBLIC),
            Route("GET", "/stream", self.stream, AUTHENTICATED)], lambda error, status, _: Reply(None, status))
        self.cloud = App([service], self.who, lambda *_: True)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await self.cloud(scope, receive, send)

    async def who(self, token: str) -> Context:
        return Context(request_id="r", user_id="u", project_id=token)

    async def much(self, _: Request) -> Reply:
        self.begun += 1
        return Reply(bytes(MUCH))

    async def stream(self, _: Request) -> Reply:
        async def parts() -> AsyncIterator[bytes]:
            try:
                for _ in range(1000):
                    self.made += 1
                    yield bytes(2 * PIECE)
                    await asyncio.sleep(0)
            finally:
                self.closed += 1
        return Reply(parts())

    async def asks(self, project: str, *, address: str = "192.0.2.1", path: str = "much", times: int = 1) -> Wire:
        """A client that takes nothing."""
        wire = await self.client(address)
        wire.taking = False
        await self.sends(wire, ask(project, path) * times)
        await settle()
        return wire


def ask(project: str, path: str = "much") -> bytes:
    return f"GET /s/{path} HTTP/1.1\r\nhost: x\r\nx-auth-token: {project}\r\n\r\n".encode()


async def test_no_request_is_begun_while_the_answers_before_it_wait() -> None:
    lab = Cloud()
    wire = await lab.asks("red", times=5)
    assert lab.begun == 1 and len(wire.sent) < 3 * PIECE, "the rest of the answer is not copied either"
    for _ in range(6):
        await wire.take(more=True)
    assert lab.begun == 2
    await wire.take()
    assert lab.begun == 5 and wire.sent.count(b"HTTP/1.1 200") == 5 and len(wire.sent) > 5 * MUCH


async def test_of_a_project_those_that_read_nothing_for_longest_are_ended() -> None:
    lab = Cloud(unread_bytes=3 * (MUCH + PIECE))
    with capture_logs() as said:
        blue = await lab.asks("blue")
        red = [await lab.asks("red", address=f"192.0.2.{n}") for n in range(3)]
        assert not any(wire.closed for wire in red)
        await red[0].take(more=True)
        red += [await lab.asks("red") for _ in range(12)]
        assert [wire.closed for wire in red[:4]] == [True] * 4 and [wire.closed for wire in red[-3:]] == [False] * 3
        assert not blue.closed
        lines = [line for line in said if "unread" in line["event"]]
        assert [line["source"] for line in lines] == ["red"], "and not one each"
    await blue.take()
    await red[-1].take()
    assert len(blue.sent) > MUCH < len(red[-1].sent)


async def test_who_takes_some_of_it_now_and_then_is_not_the_first_to_be_ended() -> None:
    lab = Cloud(unread_bytes=3 * (MUCH + PIECE))
    red = [await lab.asks("red") for _ in range(3)]
    await red[0].take(more=True)
    red.append(await lab.asks("red"))
    assert [wire.closed for wire in red] == [False, True, False, False]


async def test_who_has_no_token_counts_as_its_address() -> None:
    lab = Cloud(unread_bytes=2 * (MUCH + PIECE))
    wires = [await lab.asks("", address=address, path="open") for address in ("192.0.2.1", "192.0.2.2") * 3]
    assert [wire.closed for wire in wires] == [True, True, False, False, False, False]


async def test_one_answer_may_be_larger_than_all_that_may_wait() -> None:
    lab = Cloud(unread_bytes=PIECE)
    wire = await lab.asks("red")
    await wire.take()
    assert not wire.closed and len(wire.sent) > MUCH


async def test_a_client_that_has_gone_has_nothing_more_read_for_it() -> None:
    for times in (1, 2):  # alone, and with a request behind it
        lab = Cloud()
        wire = await lab.asks("red", path="stream", times=times)
        for _ in range(3):
            await wire.take(more=True)
        assert 1 < lab.made < 10 and not lab.closed
        wire.close()
        await settle()
        assert lab.made < 10 and lab.closed == 1
        await lab.asks("red", path="stream")
        assert lab.made < 20, "nor is the next begun"


async def test_a_client_that_goes_while_its_stream_waits_for_the_next_part() -> None:
    closed, coming = asyncio.Event(), asyncio.Event()

    async def never() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            await coming.wait()
        finally:
            closed.set()

    async def stream(_: Request) -> Reply:
        return Reply(never())

    lab = Cloud()
    lab.cloud = App([Service("s", "/s", [Route("GET", "/stream", stream, PUBLIC)],
                             lambda error, status, _: Reply(None, status))], lab.who, lambda *_: True)
    wire = await lab.client("192.0.2.1", ask("red", "stream"))
    assert wire.sent.endswith(b"1\r\nx\r\n")
    wire.close()
    async with asyncio.timeout(5):
        await closed.wait()


async def test_what_is_asked_for_ahead_is_bounded() -> None:
    lab = Cloud(ahead=10)
    fine = await lab.asks("red", times=11)
    assert not fine.closed
    with capture_logs() as said:
        many = await lab.asks("red", times=3000)
    assert many.closed and len(many.made.pipeline) == 0 and lab.begun == 2
    assert [line["event"] for line in said if line["log_level"] == "info"] == [
        "a connection is closed: it asks too far ahead"]


def test_who_goes_on_or_ends_counts_no_more() -> None:
    unread = Unread[str](10)
    assert unread.add("red", "a", 5) == unread.add("red", "b", 5) == unread.add("blue", "c", 10) == []
    unread.remove("a")
    unread.remove("a")
    assert unread.add("red", "a", 5) == [] and unread.add("red", "d", 5) == ["b"] and unread.add("red", "d", 5) == []
    assert unread.add("red", "e", 99) == ["a", "d"] and unread.add("blue", "f", 1) == ["c"]


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE])
async def test_an_answer_in_pieces_is_the_same(size: int) -> None:
    async def some(_: Request) -> Reply:
        return Reply(bytes(range(256)) * (size // 256 + 1), headers={"x-size": str(size)})

    lab = Cloud()
    lab.cloud = App([Service("s", "/s", [Route("GET", "/some", some, PUBLIC)],
                             lambda error, status, _: Reply(None, status))], lab.who, lambda *_: True)
    wire = await lab.client("192.0.2.1", ask("red", "some"))
    await settle()
    assert wire.sent.partition(b"\r\n\r\n")[2] == bytes(range(256)) * (size // 256 + 1)


async def test_a_download_that_is_given_up_gives_up_what_is_read_ahead() -> None:
    closed = list[str]()

    async def rest() -> AsyncGenerator[bytes]:
        try:
            yield b"b"
            yield b"c"
        finally:
            closed.append("rest")

    body = _after(b"a", rest())
    assert [await anext(body), await anext(body)] == [b"a", b"b"]
    await close(body)
    assert closed == ["rest"]
