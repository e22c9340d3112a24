"""A host that takes no orders until an operator decides: stories about its servers wait, and decide nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from nacre.base.clock import VirtualClock, settle
from nacre.base.durable import stories as durable
from nacre.base.durable.tables import stories
from nacre.base.errors import Barred, BrokenAnswer, BuildFailed, Unavailable
from nacre.conductor import hosts
from nacre.node.contract import Work
from nacre.scheduler.contract import Held, HostReport
from tests.cloud.conductor_lab import Lab


@pytest.fixture
async def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.setattr(durable, "REST", 0.1)
    lab = Lab(tmp_path, hosts=2)
    await lab.start()
    yield lab
    await lab.stop()


async def resting(lab: Lab) -> None:
    """Until the only story rests, and longer than a rest."""
    async with asyncio.timeout(5):
        while not await lab.db.read(lambda c: c.execute(
                sa.select(stories.c.id).where(stories.c.owner.is_(None), stories.c.not_before.is_not(None))).first()):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    await lab.control.runner.look()
    await asyncio.sleep(0.1)


async def holds(lab: Lab, host: str, *servers: str) -> None:
    """The host says that it has these."""
    state = await lab.registry.get(host)
    assert state is not None
    await lab.scheduler.report(msgspec.structs.replace(state.report, n=state.report.n + 1, held=tuple(
        Held(allocation=f"of {server}", server_id=server, epoch=1, power="running") for server in servers)))


async def test_a_build_on_a_host_that_takes_no_orders_waits_and_gives_nothing_up(lab: Lab) -> None:
    """The host has heard of the older database before this process has."""
    for node in lab.nodes.values():
        node.here.barred = "it has seen a later state"
    (server,) = await lab.accept()
    await asyncio.sleep(0.3)
    for host in lab.nodes:
        await lab.registry.bar(host, "it has seen a later state")
    await resting(lab)
    row, [allocation] = await lab.row(server), await lab.ledger.of_server(server)
    assert (row["vm_state"], row["fault"], allocation.state) == ("building", None, "wanted")
    for host, node in lab.nodes.items():
        node.here.barred = ""
        await lab.registry.bar(host, "")
    await asyncio.sleep(0.2)
    await lab.control.runner.look()
    assert (await lab.until(server, "active"))["host"] == allocation.host
    await lab.check()


@pytest.mark.parametrize("every", [True, False], ids=["no other host", "another host"])
async def test_what_a_barred_host_has_is_neither_built_elsewhere_nor_ended(lab: Lab, every: bool) -> None:
    """The restored database knows the build's story, and not where it went."""
    (server,) = await lab.accept(run=False)
    await holds(lab, "host0", server)
    for host in ("host0", "host1") if every else ("host0",):
        await lab.registry.bar(host, "it has seen a later state")
    await lab.orphan_stories()
    await lab.control.runner.look()
    await resting(lab)
    assert (await lab.row(server))["vm_state"] == "building"
    assert await lab.ledger.of_server(server) == []
    await lab.delete(server)
    await asyncio.sleep(0.3)
    assert (await lab.row(server))["task_state"] == "deleting"
    assert lab.hypervisors["host1"].servers == {}


async def test_the_others_of_a_build_do_not_wait_for_a_server_that_a_barred_host_has(lab: Lab) -> None:
    claimed, *others = await lab.accept(3, run=False)
    await holds(lab, "host0", claimed)
    await lab.registry.bar("host0", "it has seen a later state")
    await lab.orphan_stories()
    await lab.control.runner.look()
    for server in others:
        assert (await lab.until(server, "active"))["host"] == "host1"
    await resting(lab)
    assert (await lab.row(claimed))["vm_state"] == "building"
    assert await lab.ledger.of_server(claimed) == []
    await holds(lab, "host0")
    await lab.registry.bar("host0", "")
    await asyncio.sleep(0.2)
    await lab.control.runner.look()
    await lab.until(claimed, "active")
    await lab.quiet()
    await lab.check()


async def test_the_others_of_a_build_are_given_up_without_it(lab: Lab) -> None:
    claimed, other = await lab.accept(2, run=False)
    await holds(lab, "host0", claimed)
    await lab.registry.bar("host0", "it has seen a later state")
    await lab.db.run(lambda c: c.execute(sa.update(stories).values(owner=None, failures=durable.TRIES)))
    await lab.control.runner.look()
    assert "request id" in (await lab.until(other, "error"))["fault"]["message"]
    await resting(lab)
    assert (await lab.row(claimed))["vm_state"] == "building"


async def test_a_build_of_another_life_waits_until_every_host_had_the_chance_to_say_that_it_has_it(lab: Lab) -> None:
    (server,) = await lab.accept(run=False)
    lab.registry.states["host0"] = msgspec.structs.replace(lab.registry.states["host0"], met=False)
    with pytest.raises(Unavailable):
        lab.registry.check("host0")
    await lab.orphan_stories()
    await lab.control.runner.look()
    await resting(lab)
    assert await lab.ledger.of_server(server) == []
    fresh = await lab.accept()  # of this life: nobody can have it
    async with asyncio.timeout(5):
        while not await lab.ledger.of_server(fresh[0]):
            await asyncio.sleep(0.01)
    await lab.registry.bar("host0", "")
    await asyncio.sleep(0.2)
    await lab.control.runner.look()
    await lab.until(server, "active")
    await lab.until(fresh[0], "active")


async def test_a_barred_host_gets_no_order(lab: Lab) -> None:
    await lab.scheduler.report(HostReport(
        host="new", hypervisor_type="fake", hypervisor_version=1, vcpus=8, memory_mb=4096, disk_gb=100, vcpus_used=0,
        memory_mb_used=0, disk_gb_used=0))
    for host in ("new", "nobody"):
        with pytest.raises(Unavailable, match="said hello"):
            lab.registry.check(host)
    await lab.registry.bar("new", "it is of another cloud")
    with pytest.raises(Barred, match="another cloud"):
        lab.registry.check("new")
    await lab.registry.bar("new", "")
    lab.registry.check("new")


async def test_a_host_that_says_of_itself_that_it_takes_no_orders_holds_up_nobody(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile one, of which no control process thinks so: builds go elsewhere, and a delete ends for its user."""
    monkeypatch.setattr(hosts, "DOUBT", 0.3)
    lab.nodes["host0"].here.barred = "no"
    servers = await lab.accept(4)
    for server in servers:
        assert (await lab.until(server, "active"))["host"] == "host1"
    for server in servers:
        await lab.delete(server)
    async with asyncio.timeout(10):
        while any([not (await lab.row(server))["deleted"] for server in servers]):
            await asyncio.sleep(0.05)


async def test_a_host_whose_answers_cannot_be_read_holds_up_nobody(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lives, by its beats, and every answer of it breaks the contract."""
    async def broken(*_: object) -> None:
        raise BrokenAnswer(details="The answer to prepare breaks the contract.")

    monkeypatch.setattr(hosts, "DOUBT", 0.3)
    for verb in ("prepare", "spawn", "end"):
        monkeypatch.setattr(lab.nodes["host0"], verb, broken)
    servers = await lab.accept(4)
    for server in servers:
        assert (await lab.until(server, "active"))["host"] == "host1"
    with pytest.raises(BuildFailed, match="answers cannot be read") as error:
        await lab.control.deps.hosts.order("host0", lambda node: node.end(None))  # type: ignore[arg-type]
    assert error.value.details.startswith("host0: ") and "breaks the contract" in error.value.details


async def test_a_moment_of_doubt_is_over_with_the_next_answer() -> None:
    """A host that doubts for a moment, minutes after another such moment, is not given up."""
    clock = VirtualClock()
    said = [Barred("doubt"), *[Work(done=False, step="image", moved=n) for n in range(120)], Barred("doubt"),
            Work(done=True, step="", moved=1)]

    async def give(_: Any) -> Work:
        await clock.sleep(0.5)
        if isinstance(answer := said.pop(0), Barred):
            raise answer
        return answer

    async def alive(_: str) -> bool:
        return True

    order = asyncio.ensure_future(hosts.Hosts(
        lambda _: None, alive, clock, hosts.Patience(), lambda _: None).order("h", give))  # type: ignore[arg-type,return-value]
    while not order.done():
        await settle()
        await clock.advance(0.5)
    assert order.result() is None and clock.monotonic() > 2 * hosts.DOUBT


async def test_a_build_whose_host_was_silent_goes_on_when_there_is_a_place_for_it_again() -> None:
    """Another has its place: for as long as that takes the work on the host does not stand still."""
    clock, down, room = VirtualClock(), set[str](), asyncio.Semaphore(1)
    slot, with_slot = hosts.Slot(room), 0
    await slot.take()

    async def give(_: Any) -> Work:
        nonlocal with_slot
        await clock.sleep(0.5)
        if down:
            raise Unavailable
        with_slot += slot.held
        return Work(done=with_slot > 9, step="image", moved=1)

    async def alive(_: str) -> bool:
        return not down

    patience = hosts.Patience(stalled=30.0, ceiling=60.0, silence=60.0)
    order = asyncio.ensure_future(hosts.Hosts(lambda _: None, alive, clock, patience, lambda _: None).order(  # type: ignore[arg-type,return-value]
        "h", give, hosts.Silence(patience.silence, slot)))
    await settle()
    await clock.advance(2)
    assert slot.held and with_slot
    down.add("h")
    await clock.advance(5)
    assert not slot.held and not room.locked()
    await room.acquire()
    down.clear()
    await clock.advance(1)
    await clock.advance(100)
    assert not order.done() and not slot.held
    room.release()
    await settle()
    await clock.advance(10)
    assert order.done() and order.result() is None and slot.held and room.locked()


async def test_a_host_that_lives_and_never_answers_is_not_waited_for_without_end() -> None:
    clock = VirtualClock()

    async def give(_: Any) -> Work:
        raise Unavailable

    async def alive(_: str) -> bool:
        return True

    patience = hosts.Patience(stalled=30.0, ceiling=60.0, silence=60.0)
    order = asyncio.ensure_future(hosts.Hosts(lambda _: None, alive, clock, patience, lambda _: None).order(  # type: ignore[arg-type,return-value]
        "h", give))
    await settle()
    await clock.advance(55)
    assert not order.done()
    await clock.advance(10)
    with pytest.raises(BuildFailed, match="longer than 60 s"):
        await order


async def test_a_barred_host_claims_no_server_that_is_where_the_database_says(lab: Lab) -> None:
    (server,) = await lab.accept()
    home = (await lab.until(server, "active"))["host"]
    (other,) = set(lab.nodes) - {home}
    held = (await lab.registry.get(home)).report.held  # type: ignore[union-attr]
    assert held == ()
    await holds(lab, other, server)
    await lab.registry.bar(other, "it has seen a later state")
    await lab.delete(server)
    await asyncio.sleep(0.3)
    assert not (await lab.row(server))["deleted"]  # its own host has not said yet that it has it
    await holds(lab, home, server)
    await lab.control.runner.look()
    async with asyncio.timeout(5):
        while not (await lab.row(server))["deleted"]:
            await asyncio.sleep(0.05)
            await lab.control.runner.look()


async def test_nothing_is_built_on_a_host_that_left(lab: Lab) -> None:
    """It was chosen before, and its removal found nothing there."""
    (server,) = await lab.accept(run=False)
    await lab.control.processes.remove("node", "host0")
    await lab.control.processes.remove("node", "host1")
    await lab.orphan_stories()
    await lab.control.runner.look()
    row = await lab.until(server, "error")
    assert "has left the cloud" in row["fault"]["message"]
    assert await lab.ledger.of_server(server) == []
