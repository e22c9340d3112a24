"""What a control process makes of a host's hello and beats: the truth about guests, whenever it comes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from nacre.base.db import DatabaseUnavailable
from nacre.base.durable.eras import Position
from nacre.base.errors import Unavailable
from nacre.compute.tables import allocations, servers
from nacre.conductor import manager
from nacre.conductor.contract import Beat, NodeHello, Welcome
from nacre.conductor.manager import WHOLE, ConductorDeps, ConductorManager
from nacre.node.service import NodeService
from nacre.scheduler.contract import Held
from nacre.scheduler.tables import compute_hosts
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
            return Position(), seen.n > 50

        async def behind(*_: Any) -> tuple[dict[str, int], dict[str, int], int]:
            return {}, {}, 0

        async def introduce(hello: NodeHello) -> None:
            self.introduced.append(hello.endpoint)

        self.node, self.away = lab.nodes["host0"], False
        self.introduced: list[str] = []
        self._service = NodeService(self.node, None)  # type: ignore[arg-type]
        self.conductor = ConductorManager(lab.control.deps, lab.control.endings, ConductorDeps(
            introduce=introduce, admits=lambda host: True, controls=nothing, judge=judge,
            seen=Position, wiring=lambda host: 0, behind=behind))

    async def hello(self, *held: Held, position: int = 0) -> Welcome:
        beat = await self.said()
        if held:
            beat = msgspec.structs.replace(beat, report=msgspec.structs.replace(beat.report, held=held))
        return await self.conductor.hello(msgspec.structs.replace(self.greeting(beat), position=position))

    def greeting(self, beat: Beat) -> NodeHello:
        return NodeHello(endpoint="", public_key="", journal="j", cloud="cloud", position=0, beat=beat)

    async def number(self) -> tuple[int, int]:
        return (await self.said()).report.number

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


async def test_an_operators_word_is_used_once(lab: Lab) -> None:
    """It is for the database that the host was barred from, not for the next older one."""
    talk = Talk(lab)
    (server,) = await lab.accept()
    await lab.until(server, "active")
    await lab.quiet()
    assert not (await talk.hello(position=100)).accepted
    await lab.registry.accept("host0")
    (held,) = (await talk.said()).report.held
    later = msgspec.structs.replace(held, epoch=held.epoch + 5)
    assert (await talk.hello(later, position=100)).accepted
    assert (await lab.row(server))["epoch"] == held.epoch + 5
    assert await lab.registry.word("host0") is None
    much_later = msgspec.structs.replace(held, epoch=held.epoch + 9)
    assert (await talk.hello(much_later, position=100)).accepted  # the answer was lost: it hears it again
    assert (await lab.row(server))["epoch"] == held.epoch + 5
    assert not (await talk.hello(position=99)).accepted
    await lab.registry.accept("host0")
    assert not (await talk.hello(position=0)).older  # the right database was put back: the word was not needed
    assert await lab.registry.word("host0") is None
    assert not (await talk.hello(position=100)).accepted


async def test_a_hello_that_was_overtaken_does_not_say_where_its_host_listens(lab: Lab) -> None:
    """All control processes would lose the way to it."""
    talk = Talk(lab)
    late = NodeHello(endpoint="tcp://192.0.2.1:1", public_key="", journal="j", cloud="cloud", position=0,
                     beat=await talk.said())
    await talk.hello()
    with pytest.raises(Unavailable, match="A later word"):
        await talk.conductor.hello(late)
    assert talk.introduced == [""]


async def test_a_server_that_its_host_does_not_have_is_in_error_until_it_has(lab: Lab) -> None:
    """As after a restored backup in which a deleted server lives. Its row may be deleted then, as any."""
    talk = Talk(lab)
    before = await talk.said()
    (young,), (old,) = await lab.accept(), await lab.accept()
    for server in (young, old):
        await lab.until(server, "active")
    held = (await talk.said()).report.held
    assert await lab.progress.missed("host0", await talk.number(), held, settled=False) == ()
    await talk.hello(*(h for h in held if h.server_id == young))
    row = await lab.row(old)
    assert row["vm_state"] == "error" and "does not have it" in row["fault"]["message"]
    assert (await lab.row(young))["vm_state"] == "active"
    await talk.hello()
    row = await lab.row(old)
    assert (row["vm_state"], row["power_state"], row["fault"]) == ("active", "running", None)

    # As a control process reads it that was frozen when the servers were built: it is older than they are.
    assert await lab.progress.missed("host0", before.report.number, before.report.held, settled=True) == ()
    assert {(await lab.row(server))["vm_state"] for server in (young, old)} == {"active"}


async def test_a_host_that_lost_its_journal_has_lost_its_servers(lab: Lab) -> None:
    """It counts its starts anew: not one report below what was seen says so, but one that it goes on from."""
    (server,) = await lab.accept()
    await lab.until(server, "active")
    later = sa.update(servers).where(servers.c.id == server).values(power_incarnation=7)
    await lab.db.run(lambda connection: connection.execute(later))
    assert await lab.progress.missed("host0", (1, 5), (), settled=False) == ()
    assert await lab.progress.missed("host0", (1, 5), (), settled=True) == [server]


@pytest.mark.parametrize("session", ["lives", "was ended", "was never, as it was barred"])
async def test_a_host_with_a_new_journal_is_heard_at_once(lab: Lab, session: str) -> None:
    """Its disk was replaced: it counts its starts anew, below what was heard of it."""
    talk = Talk(lab)

    async def hello(journal: str, incarnation: int, n: int, position: int = 0) -> None:
        beat = await talk.said()
        report = msgspec.structs.replace(beat.report, incarnation=incarnation, n=n)
        await talk.conductor.hello(msgspec.structs.replace(talk.greeting(
            msgspec.structs.replace(beat, report=report)), journal=journal, position=position))

    (server,) = await lab.accept()
    await lab.until(server, "active")
    barred = session.startswith("was never")
    await hello("old", 57, 1, position=100 if barred else 0)
    state = await lab.registry.get("host0")
    assert state is not None and bool(state.barred) is barred
    if session == "was ended":
        talk.conductor.meet_again()
    with pytest.raises(Unavailable, match="A later word"):
        await hello("old", 56, 9)
    await hello("new", 1, 1)
    state = await lab.registry.get("host0")
    assert state is not None and state.report.number == (1, 1) and not state.barred
    with pytest.raises(Unavailable, match="A later word"):
        await hello("new", 1, 1)


async def test_a_build_whose_attempt_the_database_lost_makes_no_server(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a standby that took over: a server without an allocation would free its address while its guest runs."""
    built, lost = lab.progress.built, list[str]()

    async def after_a_loss(lease: Any, allocation: Any, *args: Any, **named: Any) -> bool:
        if not lost:
            lost.append(allocation.id)
            await lab.db.run(lambda c: c.execute(sa.delete(allocations).where(allocations.c.id == allocation.id)))
        return await built(lease, allocation, *args, **named)

    monkeypatch.setattr(lab.progress, "built", after_a_loss)
    (server,) = await lab.accept()
    while not lost:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    row = await lab.row(server)
    kept = [a.id for a in await lab.ledger.of_server(server)]
    assert row["vm_state"] == "building" or row["allocation_id"] in kept


async def test_a_host_that_says_one_thing_that_cannot_be_is_heard(lab: Lab) -> None:
    """What it said before counts in its place; it is told, and named once."""
    talk = Talk(lab)
    await talk.hello()
    (server,) = await lab.accept()
    await lab.until(server, "active")
    with capture_logs() as logs:
        for _ in range(2):
            beat = await talk.said()
            report = msgspec.structs.replace(beat.report, memory_mb=0, held=())
            heard = await talk.conductor.beat(msgspec.structs.replace(beat, report=report, wrong={
                "report.memory_mb": "too much", "report.held": "too many"}))
            assert not heard.again and set(heard.wrong) == {"report.memory_mb", "report.held"}
    state = await lab.registry.get("host0")
    assert state is not None and state.up and state.report.number == report.number and state.report.memory_mb == 4096
    assert sum(line["event"].startswith("a part of what a host says") for line in logs) == 1
    for _ in range(WHOLE + 1):  # who has not said all is not believed to have lost the rest
        await talk.conductor.beat(msgspec.structs.replace(await talk.said(), wrong={"report.held": "too many"}))
    assert (await lab.row(server))["vm_state"] == "active"


async def test_a_host_that_says_of_its_guests_what_cannot_be_takes_no_orders(lab: Lab) -> None:
    """Whether this database is an older one cannot be told by what is left."""
    talk = Talk(lab)
    beat = msgspec.structs.replace(await talk.said(), wrong={"report.held": "what cannot be"})
    welcome = await talk.conductor.hello(talk.greeting(beat))
    state = await lab.registry.get("host0")
    assert state is not None and "what cannot be" in state.barred and welcome.wrong
    assert await talk.beat()  # it says hello again, until that is right
    await talk.hello()
    state = await lab.registry.get("host0")
    assert state is not None and not state.barred


async def test_a_process_with_very_many_hosts_wants_their_beats_more_seldom(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(lab)
    await talk.hello()
    assert (await talk.conductor.beat(await talk.said())).period < 1
    for most, period in ((0.1, 10.0), (0.01, 20.0)):
        monkeypatch.setattr(manager, "MOST_BEATS", most)
        assert (await talk.conductor.beat(await talk.said())).period == period


async def test_an_agents_report_that_breaks_the_contract_is_refused_alone(lab: Lab) -> None:
    talk = Talk(lab)
    await talk.hello()
    heard = await talk.conductor.beat(msgspec.structs.replace(await talk.said(), wrong={"agent.bridge": "too long"}))
    assert not heard.again and "agent.bridge: too long" in heard.refused


async def test_what_a_host_says_while_its_row_is_written_is_written_next(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it lost its journal, too: else its row would stay that of the life before."""
    registry, records = lab.registry, lab.registry.records
    write, happens = records._write, list[str]()

    def hear(incarnation: int, n: int, vcpus: int, *, anew: bool = False) -> None:
        registry.hear(msgspec.structs.replace(
            registry.states["host0"].report, incarnation=incarnation, n=n, vcpus=vcpus), anew=anew)

    def writes(*args: Any) -> None:
        match happens.pop() if happens else "":
            case "news":
                hear(1, 1, 11, anew=True)
            case "outage":
                raise DatabaseUnavailable("away")
        write(*args)

    async def row() -> tuple[int, int]:
        h = compute_hosts.c
        found = await lab.db.read(lambda c: c.execute(sa.select(h.incarnation, h.n).where(h.host == "host0")).one())
        return found[0], found[1]

    monkeypatch.setattr(records, "_write", writes)
    hear(57, 1, 9)
    await records.flush(registry.states)
    assert await row() == (57, 1)
    hear(57, 2, 10)
    happens.append("news")
    await records.flush(registry.states)
    await records.flush(registry.states)
    assert await row() == (1, 1)
    hear(1, 2, 12)
    happens.append("outage")
    with pytest.raises(DatabaseUnavailable):
        await records.flush(registry.states)
    await records.flush(registry.states)
    assert await row() == (1, 2)
