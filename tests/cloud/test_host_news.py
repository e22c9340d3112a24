"""What a control process makes of a host's hello and beats: the truth about guests, whenever it comes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from nacre.base.db import DatabaseUnavailable
from nacre.base.durable.eras import Position
from nacre.compute.tables import allocations, servers
from nacre.conductor.contract import Beat, NodeHello
from nacre.conductor.manager import ConductorManager, Surroundings
from nacre.node.service import NodeService
from nacre.scheduler.contract import Held
from tests.cloud.conductor_lab import Lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path, hosts=1)
    await lab.start()
    yield lab
    await lab.stop()


class Talk:
    """Between the lab's host and a conductor."""

    def __init__(self, lab: Lab):
        async def nothing(*_: Any) -> Any:
            return ()

        async def judge(seen: Position) -> tuple[Position, bool]:
            if self.away:
                raise DatabaseUnavailable("away")
            return Position(), False

        self.node, self.away = lab.nodes["host0"], False
        self._service = NodeService(self.node, None)  # type: ignore[arg-type]
        self.conductor = ConductorManager(lab.control.parts, lab.control.endings, Surroundings(
            introduce=nothing, controls=nothing, judge=judge, seen=Position, wiring=lambda host: 0,
            members=lambda versions: {}))

    async def hello(self, *held: Held) -> None:
        beat = await self.said()
        if held:
            beat = msgspec.structs.replace(beat, report=msgspec.structs.replace(beat.report, held=held))
        await self.conductor.hello(NodeHello(
            endpoint="", public_key="", journal="j", cloud="cloud", position=0, beat=beat))

    async def said(self) -> Beat:
        return Beat(report=await self._service.report(), agent=self.node.here.wiring.report())

    async def beat(self) -> bool:
        """Whether the host is to say hello again."""
        return (await self.conductor.beat(await self.said())).again


async def test_a_guest_that_halts_while_its_build_ends_is_a_stopped_server(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host says so before the build is written down, when no server lives there yet."""
    talk, built, started, go_on = Talk(lab), lab.progress.built, asyncio.Event(), asyncio.Event()

    async def late(*args: Any, **named: Any) -> bool:
        started.set()
        await go_on.wait()
        return await built(*args, **named)

    monkeypatch.setattr(lab.progress, "built", late)
    await talk.hello()
    (server,) = await lab.accept()
    await started.wait()
    await lab.hypervisors["host0"].crash_guest(server)
    assert not await talk.beat()
    go_on.set()
    await lab.until(server, "active")
    assert not await talk.beat()
    assert (await lab.row(server))["vm_state"] == "stopped"


async def test_a_guest_that_had_halted_when_its_build_ended_is_a_stopped_server(lab: Lab) -> None:
    """A lost answer was asked for again: it says what the guest does now."""
    (server,) = await lab.accept()
    (held,) = await lab.ledger.of_server(server) if (await lab.until(server, "active")) else ()
    as_built = sa.update(servers).where(servers.c.id == server).values(power_state="shutdown")
    await lab.db.run(lambda connection: connection.execute(as_built))
    news = [Held(allocation=held.id, server_id=server, epoch=held.epoch, power="shutdown")]
    assert await lab.progress.noticed("host0", (9, 9), news) == set()
    assert (await lab.row(server))["vm_state"] == "stopped"


async def test_a_host_that_has_seen_more_says_hello_until_an_operator_decided(lab: Lab) -> None:
    """Also where it was known before: its old session is over."""
    talk = Talk(lab)
    (server,) = await lab.accept()
    await lab.until(server, "active")
    await talk.hello()
    assert not await talk.beat()
    (held,) = (await talk.said()).report.held
    await talk.hello(msgspec.structs.replace(held, epoch=held.epoch + 5))
    state = await lab.registry.get("host0")
    assert state is not None and state.barred
    assert await talk.beat()


async def test_a_host_is_judged_before_anything_can_be_placed_on_it(lab: Lab) -> None:
    """That of another cloud is never one to choose, not even until the database says whose its servers are."""
    talk = Talk(lab)
    await lab.registry.forget("host0")
    talk.away = True
    with pytest.raises(DatabaseUnavailable):
        await talk.hello(Held(allocation="a", server_id="s", epoch=1))
    assert await lab.registry.get("host0") is None
    talk.away = False
    await talk.hello(Held(allocation="a", server_id="s", epoch=1))
    assert await lab.registry.get("host0") is not None


async def test_a_server_that_its_host_does_not_have_is_in_error_and_says_so(lab: Lab) -> None:
    """As after a restored backup in which a deleted server lives. Its row may be deleted then, as any."""
    talk = Talk(lab)
    young, old = await lab.accept(), await lab.accept()
    for server in (*young, *old):
        await lab.until(server, "active")
    aged = sa.update(allocations).where(allocations.c.server_id == old[0]).values(created_at=datetime(2020, 1, 1))
    await lab.db.run(lambda connection: connection.execute(aged))
    (other,) = [h for h in (await talk.said()).report.held if h.server_id == young[0]]
    assert await lab.progress.missed("host0", (await talk.said()).report.held) == ()
    await talk.hello(other)
    row = await lab.row(old[0])
    assert row["vm_state"] == "error" and "does not have it" in row["fault"]["message"]
    await talk.hello(msgspec.structs.replace(other, allocation="another"))
    assert (await lab.row(young[0]))["vm_state"] == "active"  # perhaps the host had not said it yet
