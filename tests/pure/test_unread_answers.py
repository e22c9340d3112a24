"""Answers that nobody reads: what a server holds for them is bounded, and it does nothing more for who is gone."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from nacre.base.context import Context
from nacre.base.serving import sending
from nacre.base.serving.gate import AUTHENTICATED, PUBLIC
from nacre.base.serving.sending import PIECE, Memories, Memory, Room, close
from nacre.base.web import App, Reply, Request, Route, Service
from nacre.image.api.data import Body
from nacre.image.data.locations import Location
from nacre.image.data.uploads import Uploads
from nacre.image.records import Image
from tests.pure.test_client_connections import Lab, Wire, settle

MUCH = 10 * PIECE
#: What a connection counts with whose client takes nothing, but for its headers, and what of a stream is read at once.
HANDED, PART, PARTS = 3 * PIECE, 8 * PIECE, 4


class Cloud(Lab):
    """Whoever asks is of the project that the token names."""

    def __init__(self, **patience: Any):
        self.begun, self.made, self.closed = 0, 0, 0
        super().__init__(**patience)
        service = Service("s", "/s", [
            Route("GET", "/much", self.much, AUTHENTICATED), Route("GET", "/open", self.much, PUBLIC),
            Route("GET", "/stream", self.stream, AUTHENTICATED),
            Route("GET", "/image", self.image, AUTHENTICATED, raw=True)], lambda error, status, _: Reply(None, status))
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

    async def image(self, request: Request) -> Reply:
        """It is read as images are: a part is asked for, then the memory for it."""
        room, left = request.room, PARTS * PART
        first = await room.take(PART)

        async def parts(size: int) -> AsyncIterator[bytes]:
            nonlocal left
            try:
                while True:
                    yield bytes(size)
                    room.give(size)
                    if not (left := left - size):
                        return
                    size = await room.take(min(PART, left))
            finally:
                room.end()
        return Reply(parts(first))

    @property
    def held(self) -> int:
        """Of answers to questions."""
        return self.waiting.patience.unread_bytes - self.waiting.memories.questions._free

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


async def test_any_number_of_downloads_of_a_project_is_sent_to_the_end() -> None:
    lab = Cloud(unread_bytes=16 << 20)
    wires, most = list[Wire](), 0
    for _ in range(40):
        wires.append(await lab.asks("red", path="image"))
    begun = {wire for wire in wires if wire.sent}
    for _ in range(2000):
        for wire in wires:
            if wire.unsent:
                await wire.take(more=True)
                most = max(most, lab.held)
        lab.time.forward(10)
        begun |= {wire for wire in wires if wire.sent}
        if all(wire.sent.endswith(b"0\r\n\r\n") for wire in wires):
            break
    assert not any(wire.closed for wire in wires) and len(begun) == 40
    assert all(PARTS * PART < len(wire.sent) < PARTS * PART + 10000 for wire in wires)
    assert most < 16 << 20 and not lab.held


async def test_where_memory_is_short_who_takes_nothing_for_seconds_is_closed() -> None:
    lab = Cloud(unread_bytes=4 << 20)
    with capture_logs() as said:
        blue = await lab.asks("blue", path="image")
        red = [await lab.asks("red", path="image") for _ in range(12)]
        assert lab.waiting.memories.questions.short("red") and not red[-1].sent, "it waits"
        for _ in range(3):
            lab.time.forward(5)
            assert not any(wire.closed for wire in red) or lab.time.now >= 10
            await red[0].take(more=True)
        lab.time.forward(10)
        await settle()
    assert not red[0].closed and not red[-1].closed and any(wire.closed for wire in red)
    assert not blue.closed, "what it holds is less than what is free"
    lines = [line for line in said if "unread" in line["event"]]
    assert [line["source"] for line in lines] == ["red"], "and not one each"
    for _ in range(50):
        await red[-1].take()
        lab.time.forward(10)
    assert len(red[-1].sent) > PARTS * PART


async def test_where_there_is_memory_nobody_is_closed_for_ten_seconds() -> None:
    lab = Cloud()
    wires = [await lab.asks("red", path=path) for path in ("image", "much")]
    lab.time.forward(290)
    assert not any(wire.closed for wire in wires)
    lab.time.forward(30)
    assert all(wire.closed for wire in wires)


async def test_what_is_unread_of_all_together_is_bounded() -> None:
    most = 64 * MUCH
    for asked in (("", "2001:db8:0:{:x}::1", "open"), ("project{}", "192.0.2.1", "much"), ("red", "192.0.2.1", "much")):
        lab = Cloud(unread_bytes=most)
        wires = [await lab.asks(asked[0].format(n), address=asked[1].format(n), path=asked[2]) for n in range(90)]
        answers = [wire.sent.partition(b"\r\n")[0].split()[1] for wire in wires]
        assert not any(wire.closed for wire in wires) and set(answers) == {b"200", b"503"}, "none in the middle"
        assert answers[0] == b"200" and b"retry-after: 1\r\n" in wires[answers.index(b"503")].sent
        assert 0 < lab.held <= most
        lab.time.forward(20)
        await settle()
        assert any(wire.closed for wire in wires)
        assert (await lab.asks("blue", path="much")).sent.startswith(b"HTTP/1.1 200")


async def test_others_find_room_beside_one_who_has_all_that_one_may_have() -> None:
    lab = Cloud(unread_bytes=16 << 20)
    for _ in range(60):
        await lab.asks("red", path="image")
    assert lab.waiting.memories.questions.short("red") and lab.held < 9 << 20
    for path in ("image", "much"):
        blue = await lab.asks("blue", path=path)
        await blue.take()
        assert len(blue.sent) > MUCH


async def test_a_download_for_which_there_is_no_memory_is_refused_before_it_begins(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_WAIT", 0.05)
    lab = Cloud(unread_bytes=2 << 20)
    wires = [await lab.asks("red", path="image") for _ in range(12)]
    async with asyncio.timeout(60):
        while not all(wire.sent for wire in wires):
            await asyncio.sleep(0.01)
    begun = [wire for wire in wires if wire.sent.startswith(b"HTTP/1.1 200")]
    refused = [wire for wire in wires if wire.sent.startswith(b"HTTP/1.1 503") and b"retry-after: " in wire.sent]
    assert len(begun) + len(refused) == 12 and begun and refused
    for _ in range(20 * PARTS):
        for wire in begun:
            await wire.take(more=True)
    assert all(wire.sent.endswith(b"0\r\n\r\n") for wire in begun), "whoever has begun waits as long as it takes"
    assert not lab.held


async def test_what_waits_behind_an_answer_counts_and_is_bounded() -> None:
    lab = Cloud()
    plain = await lab.asks("red")
    assert lab.held < MUCH + HANDED + 2000
    plain.close()
    await settle()
    assert not lab.held
    wire = await lab.asks("red", times=5)
    assert lab.held > MUCH + HANDED + (512 << 10)
    some = ask("red").replace(b"host", b"a: b\r\n" * 3000 + b"host")
    held = lab.held
    await lab.sends(wire, some)
    assert not wire.closed and lab.held > held + 3000 * 100
    await lab.sends(wire, some)
    await settle()
    assert wire.closed and not lab.held


async def test_who_asks_ahead_takes_no_memory_from_others_by_that() -> None:
    """Nothing of it is refused before it is there: the connection is closed."""
    lab = Cloud(unread_bytes=16 << 20)
    wires = [await lab.asks("red") for _ in range(8)]
    ahead = ask("red").replace(b"host", b"a: b\r\n" * 3000 + b"host")
    for wire in wires:
        await lab.sends(wire, ahead)
        assert lab.waiting.memories.questions.left("blue") > MUCH + HANDED
    assert 0 < sum(wire.closed for wire in wires) < 8
    for _ in range(20):  # all at once
        await lab.asks("red", times=50)
    assert lab.waiting.memories.questions.left("blue") > MUCH + HANDED
    assert b"200 OK" in (await lab.asks("blue", address="192.0.2.9")).sent


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


async def test_memory_is_shared_and_waited_for() -> None:
    memory = Memory(32 * PIECE)
    assert [await memory.take("red", PIECE) for _ in range(16)] == [PIECE] * 16 and memory.short("red")
    assert await memory.take("blue", 3 * PIECE) == PIECE, "where there is little it is little"
    memory.add("blue", 15 * PIECE)
    waits = [asyncio.ensure_future(memory.take(who, PIECE)) for who in ("red", "red", "blue", "green")]
    await settle()
    memory.remove("blue", 10 * PIECE)
    await settle()
    assert [each.done() for each in waits] == [False, False, True, True], "who has least is first"
    waits[0].cancel()
    memory.remove("red", 14 * PIECE)
    await settle()
    assert waits[1].done() and not memory._queues
    for who, size in (("red", 3), ("blue", 7), ("green", 1)):
        memory.remove(who, size * PIECE)
    assert memory._free == 32 * PIECE and not memory._held


async def test_a_turn_that_comes_with_the_end_is_given_back() -> None:
    room = Room(Memories(4 * PIECE), "red")
    memory = room.memory
    room.hold(4 * PIECE)
    waits = [asyncio.ensure_future(memory.take("red", PIECE)) for _ in range(2)]
    await settle()
    room.end()
    waits[0].cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert memory._held == {"red": PIECE}


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

    body = Body(b"a", rest())
    assert [await anext(body), await anext(body)] == [b"a", b"b"]
    await close(body)
    assert closed == ["rest"]


async def test_of_an_image_no_more_is_read_than_there_is_room_for() -> None:
    class Store:
        async def read(self, _where: Any, _id: str, offset: int, size: int) -> bytes:
            return bytes(size) if offset < 6 * PIECE else b""

    memories = Memories(8 * PIECE)
    memory = memories.questions
    uploads = Uploads.__new__(Uploads)
    uploads._data = Store()  # type: ignore[assignment]
    image = Image(row={"id": "i"}, properties={}, tags=[], location=Location("k", "file"))
    pieces, sizes = uploads.pieces(image, 0, 6 * PIECE, Room(memories, "red")), list[int]()
    async for piece in pieces:
        sizes.append(len(piece))
        await settle()
        assert memory._held["red"] <= 2 * PIECE, "this one, and the next"
    assert sizes == [PIECE] * 6 and not memory._held
    pieces = uploads.pieces(image, 0, 99 * PIECE, Room(memories, "red"))
    await anext(pieces)
    await settle()
    await pieces.aclose()
    assert not memory._held
