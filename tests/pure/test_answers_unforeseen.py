"""How long the answer to a change is nobody knows before it is done, and then it is too late to refuse it: none is
begun for a project that holds more than it should, so that it holds a few such answers more at most."""

import asyncio
from typing import Any

import pytest

from nacre.base.serving.gate import AUTHENTICATED
from nacre.base.serving.sending import PIECE, Full, Memories, Room
from nacre.base.serving.turns import Turns
from nacre.base.web import App, Reply, Request, Route, Service
from tests.pure.test_client_connections import Wire, settle
from tests.pure.test_unread_answers import HANDED, MUCH, Cloud

AT_ONCE = 4


def make(project: str, method: str) -> bytes:
    head = f"{method} /s/things HTTP/1.1\r\nhost: x\r\nx-auth-token: {project}\r\ncontent-length: 2\r\n\r\n"
    return head.encode() + b"{}"


class Makes(Cloud):
    """What is made is answered at length, when `on` is set."""

    def __init__(self, size: int = MUCH, **patience: Any):
        super().__init__(**patience)
        self.size, self.done, self.on = size, 0, asyncio.Event()
        service = Service("s", "/s", [
            *(Route(method, "/things", self.change, AUTHENTICATED, body=lambda _, body: body)
              for method in ("POST", "PUT", "PATCH")),
            Route("GET", "/much", self.much, AUTHENTICATED),
            Route("DELETE", "/things", self.delete, AUTHENTICATED)], lambda error, status, _: Reply(None, status))
        self.cloud = App([service], self.who, lambda *_: True, turns=Turns(AT_ONCE))

    async def change(self, _: Request) -> Reply:
        await self.on.wait()
        self.done += 1
        return Reply(bytes(self.size))

    async def much(self, _: Request) -> Reply:
        return Reply(bytes(MUCH))

    async def delete(self, _: Request) -> Reply:
        return Reply(None, 204)

    @property
    def changes(self) -> int:
        """Held of answers to changes."""
        return self.waiting.patience.unread_bytes // 4 - self.waiting.memories.changes._free

    async def makes(self, project: str, method: str = "POST", address: str = "192.0.2.1") -> Wire:
        wire = await self.client(address)
        wire.taking = False
        await self.sends(wire, make(project, method))
        await settle()
        return wire


@pytest.mark.parametrize("size", [MUCH, PIECE])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_of_answers_to_changes_a_project_holds_so_many_beyond_its_share(method: str, size: int) -> None:
    """Also of those that a connection takes at once."""
    each = HANDED + (size if size > PIECE else 0)
    lab = Makes(size, unread_bytes=4 * 16 * each)
    wires = [await lab.makes("red", method) for _ in range(100)]
    lab.on.set()
    await settle()
    for _ in range(3):
        wires += [await lab.makes("red", method) for _ in range(10)]
    share, most = 8 * each, (AT_ONCE + 1) * (each + 2000)
    assert share < lab.changes < share + most
    answers = [wire.sent.partition(b"\r\n")[0].split()[1] for wire in wires]
    assert answers.count(b"200") == lab.done < 16 and set(answers) == {b"200", b"503"}, "what is refused was not done"
    assert (await lab.makes("red", "DELETE")).sent.startswith(b"HTTP/1.1 204")
    assert (await lab.makes("blue", method, "192.0.2.9")).sent.startswith(b"HTTP/1.1 200")


async def test_who_takes_answers_makes_on() -> None:
    lab = Makes(unread_bytes=8 * (MUCH + HANDED))
    lab.on.set()
    wires = [await lab.makes("red") for _ in range(5)]
    refused = [wire for wire in wires if wire.sent.startswith(b"HTTP/1.1 503")]
    assert refused and all(b"retry-after: 1\r\n" in wire.sent for wire in refused)
    for wire in wires:
        await wire.take()
    assert not lab.held and not lab.changes and (await lab.makes("red")).sent.startswith(b"HTTP/1.1 200")


async def test_many_projects_that_take_no_answers_to_changes_keep_nobody_from_reading_or_changing() -> None:
    lab = Makes(unread_bytes=32 * (MUCH + HANDED))
    lab.on.set()
    for project in range(12):
        for _ in range(40):
            await lab.makes(f"red-{project}")
    most = lab.waiting.patience.unread_bytes // 4
    assert most < lab.changes < most + 12 * (AT_ONCE + 1) * (MUCH + HANDED + 2000) and lab.done < 40 and not lab.held
    assert b"200 OK" in (await lab.asks("blue", address="192.0.2.9")).sent
    assert (await lab.makes("blue", address="192.0.2.9")).sent.startswith(b"HTTP/1.1 200")


async def test_what_is_read_slowly_keeps_nobody_from_changing_something() -> None:
    """Connections that wait hold a little each whether there is room or not, and others may hold all."""
    lab = Makes(unread_bytes=32 * MUCH)
    lab.on.set()
    lab.waiting.memories.questions.add("red", 40 * MUCH)
    for project in ("red", "blue"):
        assert (await lab.makes(project)).sent.startswith(b"HTTP/1.1 200")
        assert b"503" in (await lab.asks(project)).sent


def test_a_change_more_is_begun_where_there_is_room_or_none_is_held() -> None:
    memories = Memories(4 * 2 * MUCH)
    room = Room(memories, "red").of(change=True)
    room.hold(3 * MUCH)
    Room(memories, "red").check_change()
    Room(memories, "blue").of(change=True).check_change()
    with pytest.raises(Full):
        Room(memories, "red").of(change=True).check_change()
    room.end()
    Room(memories, "red").of(change=True).check_change()
