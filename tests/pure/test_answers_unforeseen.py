"""How long the answer to a change is nobody knows before it is done, and then it is too late to refuse it: none is
begun for a project that holds more than it should, so that it holds a few such answers more at most."""

import asyncio
from typing import Any

import pytest

from nacre.base.serving.gate import AUTHENTICATED
from nacre.base.serving.sending import Full, Memory, Room
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

    def __init__(self, **patience: Any):
        super().__init__(**patience)
        self.done, self.on = 0, asyncio.Event()
        service = Service("s", "/s", [
            *(Route(method, "/things", self.change, AUTHENTICATED, body=lambda _, body: body)
              for method in ("POST", "PUT", "PATCH")),
            Route("DELETE", "/things", self.delete, AUTHENTICATED)], lambda error, status, _: Reply(None, status))
        self.cloud = App([service], self.who, lambda *_: True, turns=Turns(AT_ONCE))

    async def change(self, _: Request) -> Reply:
        await self.on.wait()
        self.done += 1
        return Reply(bytes(MUCH))

    async def delete(self, _: Request) -> Reply:
        return Reply(None, 204)

    async def makes(self, project: str, method: str = "POST", address: str = "192.0.2.1") -> Wire:
        wire = await self.client(address)
        wire.taking = False
        await self.sends(wire, make(project, method))
        await settle()
        return wire


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_of_answers_to_changes_a_project_holds_so_many_beyond_its_share(method: str) -> None:
    lab = Makes(unread_bytes=16 * (MUCH + HANDED))
    wires = [await lab.makes("red", method) for _ in range(100)]
    lab.on.set()
    await settle()
    for _ in range(3):
        wires += [await lab.makes("red", method) for _ in range(10)]
    share, most = lab.waiting.patience.unread_bytes // 2, (AT_ONCE + 1) * (MUCH + HANDED + 2000)
    assert share < lab.held < share + most
    answers = [wire.sent.partition(b"\r\n")[0].split()[1] for wire in wires]
    assert answers.count(b"200") == lab.done < 16 and set(answers) == {b"200", b"503"}, "what is refused was not done"
    assert (await lab.makes("red", "DELETE")).sent.startswith(b"HTTP/1.1 204")
    assert (await lab.makes("blue", method, "192.0.2.9")).sent.startswith(b"HTTP/1.1 200")


async def test_who_takes_answers_makes_on() -> None:
    lab = Makes(unread_bytes=2 * (MUCH + HANDED))
    lab.on.set()
    wires = [await lab.makes("red") for _ in range(5)]
    refused = [wire for wire in wires if wire.sent.startswith(b"HTTP/1.1 503")]
    assert refused and all(b"retry-after: 1\r\n" in wire.sent for wire in refused)
    for wire in wires:
        await wire.take()
    assert not lab.held and (await lab.makes("red")).sent.startswith(b"HTTP/1.1 200")


def test_what_is_read_slowly_keeps_nobody_from_changing_something() -> None:
    """Connections that wait hold a little each whether there is room or not, and others may hold all."""
    memory = Memory(32 * MUCH)
    memory.add("red", 40 * MUCH)
    assert memory.left("red") < 0 and memory.left("blue") < 0
    assert memory.may_change("red") and memory.may_change("blue")
    room = Room(memory, "red").of(change=True)
    room.hold(MUCH)
    assert memory.may_change("blue") and not memory.may_change("red")
    Room(memory, "red").check_change()
    with pytest.raises(Full):
        Room(memory, "red").of(change=True).check_change()
    room.end()
    assert memory.may_change("red")
