"""One server never becomes two, and who lost the right to act leaves no mark: what was once found wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from nacre.base.db import DatabaseUnavailable
from nacre.base.durable.stories import Lease, LeaseLost
from nacre.base.durable.tables import processes
from nacre.base.errors import Conflict, NotFound, Refused
from nacre.cloud.membership import Removal
from nacre.compute.contract import Outcome, Place, StoryOrder
from nacre.compute.ledger_admin import LedgerAdmin
from nacre.compute.tables import allocations, servers
from nacre.conductor.hosts import Patience
from nacre.scheduler.contract import Allocation, Amounts
from tests.cloud.conductor_lab import CONTEXT, Controller, Lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    await made.start()
    yield made
    await made.stop()


def cut_off_after(lab: Lab, host: str, verb: str) -> None:
    """The host does what it is asked, and falls silent before it answers."""
    real = getattr(lab.nodes[host], verb)

    async def last_words(*args: Any) -> None:
        await real(*args)
        lab.silent.add(host)
        lab.down.add(host)
        await asyncio.sleep(3600)

    setattr(lab.nodes[host], verb, last_words)


async def begun_until(lab: Lab, verb: str) -> str:
    """A server that was accepted, whose host fell silent in the middle of that verb."""
    for host in lab.nodes:
        cut_off_after(lab, host, verb)
    (server,) = await lab.accept()
    async with asyncio.timeout(5):
        while not lab.silent:
            await asyncio.sleep(0.01)
    return server


async def test_a_restarted_conductor_tries_no_other_host_while_the_first_is_silent(lab: Lab) -> None:
    server = await begun_until(lab, "spawn")
    await lab.reborn()
    for host in lab.nodes:
        del lab.nodes[host].spawn  # type: ignore[method-assign]
    await lab.until(server, "active", "error", seconds=15)
    assert [h for h, hypervisor in lab.hypervisors.items() if server in hypervisor.servers] == list(lab.silent)


async def test_a_build_that_another_takes_up_waits_for_its_silent_host_as_the_first_did(lab: Lab) -> None:
    lab.patience = Patience(stalled=3.0, silence=60.0)
    server = await begun_until(lab, "prepare")
    (host,) = lab.silent
    await lab.reborn()
    await asyncio.sleep(0.3)
    del lab.nodes[host].prepare  # type: ignore[method-assign]
    lab.silent.clear()
    lab.down.clear()
    assert (await lab.until(server, "active", "error"))["host"] == host
    assert server in lab.hypervisors[host].servers


@pytest.mark.parametrize(("verb", "again"), [("prepare", True), ("end", True), ("spawn", False)], ids=[
    "taken up", "given up before", "in the middle of the start"])
async def test_who_waits_for_a_silent_host_keeps_no_place_from_other_builds(lab: Lab, verb: str, again: bool) -> None:
    lab.patience, lab.builds, lab.answer_within = Patience(stalled=3.0, silence=60.0), 1, 0.5
    await lab.reborn()
    for hypervisor in lab.hypervisors.values():
        hypervisor.faults.fail["define"] = verb == "end"
    server = await begun_until(lab, verb)
    (dead,) = lab.silent
    if again:
        await lab.reborn()
    for host, hypervisor in lab.hypervisors.items():
        hypervisor.faults.fail["define"] = 0
        delattr(lab.nodes[host], verb)
    (other,) = await lab.accept()
    assert (await lab.until(other, "active"))["host"] != dead
    assert (await lab.row(server))["vm_state"] == "building"
    lab.silent.clear()
    lab.down.clear()
    lab.answer_within = 5
    await lab.until(server, "active")
    await lab.quiet()
    await lab.control.sweep_endings()
    await lab.check()


async def test_what_an_earlier_runner_gave_up_is_gone_before_another_host_is_tried(lab: Lab) -> None:
    """The guest runs, the host cannot write so, nor that it takes it back; and the runner dies while it asks."""
    lab.patience = Patience(stalled=3.0, silence=60.0)
    full, asked = OSError("database or disk is full"), asyncio.Event()

    def elsewhere(host: str) -> Callable[[str], Awaitable[None]]:
        async def look(server: str) -> None:
            twice.extend(each for each in lab.hypervisors
                         if each != host and server in lab.hypervisors[each].servers)
        return look

    async def refuse(*_: Any) -> None:
        raise full

    async def unwritable(server: str) -> None:
        (host,) = (each for each, hypervisor in lab.hypervisors.items() if server in hypervisor.servers)
        lab.nodes[host].here.journal.write = refuse  # type: ignore[assignment,method-assign]

    async def never(*_: Any) -> None:
        asked.set()
        await asyncio.sleep(3600)

    twice: list[str] = []
    for host, node in lab.nodes.items():
        lab.hypervisors[host].faults.before.update(resume=unwritable, define=elsewhere(host))
        node.end = never  # type: ignore[method-assign,assignment]
    (server,) = await lab.accept()
    await asyncio.wait_for(asked.wait(), 30)
    for host, node in lab.nodes.items():
        lab.hypervisors[host].faults.before.pop("resume")
        del node.end
    (first,) = (host for host, hypervisor in lab.hypervisors.items() if server in hypervisor.servers)
    lab.silent.add(first)
    lab.down.add(first)
    await lab.reborn()
    await asyncio.sleep(0.3)
    del lab.nodes[first].here.journal.write  # type: ignore[method-assign]
    lab.silent.clear()
    lab.down.clear()
    await lab.until(server, "active", seconds=30)
    assert not twice


async def test_a_build_waits_no_longer_for_a_host_that_an_operator_says_is_gone_for_good(lab: Lab) -> None:
    """It was given up there, and nobody knows whether it runs: the next is tried once it cannot any more."""
    async def heard_lately(_: str) -> bool:
        return False

    lab.patience = Patience(stalled=3.0, silence=60.0)
    for hypervisor in lab.hypervisors.values():
        hypervisor.faults.fail["define"] = 1
    server = await begun_until(lab, "end")
    (dead,) = lab.silent
    await lab.reborn()
    for host, hypervisor in lab.hypervisors.items():
        hypervisor.faults.fail["define"] = 0
        del lab.nodes[host].end
    await asyncio.sleep(0.3)
    assert (await lab.row(server))["vm_state"] == "building"
    await lab.registry.set_service(dead, forced_down=True)
    admin = LedgerAdmin(lab.db, lab.clock)
    await Removal(lab.control.processes, admin, lab.registry, lab.control.endings, heard_lately, ()).remove(
        dead, dead=True)
    row = await lab.until(server, "active")
    assert [h for h, hypervisor in lab.hypervisors.items() if server in hypervisor.servers] == [row["host"]] != [dead]
    assert [(a.host, a.state) for a in await lab.ledger.of_server(server)] == [(row["host"], "held")]


async def test_a_delete_whose_answer_was_lost_leaves_nothing(lab: Lab) -> None:
    """The server is gone for its user; its address is not given to anybody else before the host confirmed."""
    (server,) = await lab.accept()
    host = (await lab.until(server, "active"))["host"]
    await lab.quiet()
    lab.answer_within = 0.3
    cut_off_after(lab, host, "end")
    await lab.delete(server)
    await lab.until(server, "deleted")
    await lab.quiet()
    assert server in lab.network.ports
    assert [a.state for a in await lab.ledger.of_server(server)] == ["ending"]
    lab.silent.clear()
    lab.down.clear()
    del lab.nodes[host].end  # type: ignore[method-assign]
    lab.answer_within = 5
    await lab.control.sweep_endings()
    await lab.check()
    assert server not in lab.network.ports


async def test_what_a_host_confirms_while_the_delete_gives_it_up_leaves_no_port(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process ends the allocation just before the server's row goes: somebody must still think of its port."""
    (server,) = await lab.accept()
    host, deleted = (await lab.until(server, "active"))["host"], lab.progress.deleted
    await lab.quiet()
    lab.silent.add(host)
    lab.down.add(host)

    async def late(*args: Any) -> bool:
        lab.silent.clear()
        lab.down.clear()
        await lab.control.sweep_endings()
        return await deleted(*args)

    monkeypatch.setattr(lab.progress, "deleted", late)
    await lab.delete(server)
    await lab.until(server, "deleted")
    await lab.quiet()
    await lab.control.sweep_endings()
    await lab.check()
    assert server not in lab.network.ports


async def test_a_soft_reboot_that_ends_does_not_end_the_hard_one(lab: Lab) -> None:
    (server,) = await lab.accept()
    await lab.until(server, "active")
    await lab.quiet()
    order = StoryOrder(context=CONTEXT, server_ids=(server,), action="reboot-soft")
    hard = sa.update(servers).where(servers.c.id == server).values(task_state="rebooting_hard")
    soft = await lab.db.run(lambda c: (lab.story(c, "power", order), c.execute(hard))[0])
    said = Outcome(server_id=server, request_id="req-soft", task="rebooting")
    assert not await lab.progress.powered(soft.lease, "running", said)
    assert (await lab.row(server))["task_state"] == "rebooting_hard"
    await lab.progress.finish(soft.lease)


async def silence(lab: Lab, control: Controller) -> None:
    """The process is frozen: its leases run out, and it does not know."""
    control.task.cancel()
    long_ago = lab.clock.now().replace(tzinfo=None) - timedelta(seconds=100)
    await lab.db.run(lambda c: c.execute(sa.update(processes).where(processes.c.id == control.name).values(
        lease_until=long_ago)))


async def test_a_runner_that_lost_its_lease_touches_nothing(lab: Lab) -> None:
    for hypervisor in lab.hypervisors.values():
        hypervisor.faults.delay["define"] = 0.4
    (server,) = await lab.accept()
    await asyncio.sleep(0.15)
    await silence(lab, lab.control)
    other = Controller(lab, "other")
    await other.start()
    await other.runner.look()
    row = await lab.until(server, "active", seconds=15)
    await asyncio.sleep(1.2)
    await other.kill()
    await lab.check()
    assert lab.network.ports[server].host == row["host"]
    assert row["epoch"] == 1  # the other went on with the first one's attempt


async def test_every_verb_of_a_story_checks_its_lease(lab: Lab) -> None:
    """What a runner that was frozen says after another has its story changes nothing, whichever verb it is."""
    (server,) = await lab.accept()
    row = await lab.until(server, "active")
    await lab.quiet()
    (late,) = await lab.accept(run=False)
    lost = Lease("gone", "control", 1, 1)
    (held,) = await lab.ledger.of_server(server)
    outcome, failure = (Outcome(server_id=id, request_id="req-late", message="late") for id in (server, late))
    place = Place(allocation="a", host="host0", zone="nova", amounts=Amounts(memory_mb=1, vcpus=1, disk_mb=1))
    for call in (lab.ledger.allocate(lost, late, place), lab.ledger.give_up(lost, held),
                 lab.ledger.end_all(lost, server), lab.progress.built(lost, held, outcome, last=True),
                 lab.progress.failed(lost, failure, freed=True), lab.progress.powered(lost, "stopped", outcome),
                 lab.progress.deleted(lost, outcome, [held]), lab.progress.finish(lost)):
        with pytest.raises(LeaseLost):
            await call
    assert await lab.row(server) == row
    assert await lab.ledger.of_server(server) == [held] and not await lab.ledger.of_server(late)


async def test_ports_are_freed_only_while_nothing_else_has_them(lab: Lab) -> None:
    """What a slow sweep says after the server got another place changes nothing."""
    (server,) = await lab.accept()
    await lab.until(server, "active")
    await lab.quiet()
    (held,) = await lab.ledger.of_server(server)
    for guard in (lab.ledger.over(held), lab.ledger.alone(held)):
        with pytest.raises(Conflict, match=server):
            await lab.network.deallocate(server, guard)
    assert server in lab.network.ports
    ending = sa.update(allocations).where(allocations.c.id == held.id).values(state="ending")
    await lab.db.run(lambda c: c.execute(ending))
    await lab.network.unbind(server, held.host, lab.ledger.alone(held))
    row = (await lab.db.read(lambda c: c.execute(sa.select(allocations)).mappings().one()))
    again = sa.insert(allocations).values({**row, "id": "another", "state": "wanted"})
    await lab.db.run(lambda c: c.execute(again))
    with pytest.raises(Conflict, match=held.host):
        await lab.network.unbind(server, held.host, lab.ledger.alone(held))


async def test_a_late_attempt_of_a_fenced_runner_strands_no_server(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first runner is about to write its attempt when another takes the story over and builds the server."""
    allocate, frozen, thaw = lab.ledger.allocate, asyncio.Event(), asyncio.Event()

    async def slow(lease: Lease, server_id: str, place: Place) -> object:
        if lease.process == "control":
            frozen.set()
            await thaw.wait()
        return await allocate(lease, server_id, place)

    monkeypatch.setattr(lab.ledger, "allocate", slow)
    (server,) = await lab.accept()
    await frozen.wait()
    await silence(lab, lab.control)
    other = Controller(lab, "other")
    await other.start()
    await other.runner.look()
    await lab.until(server, "active")
    thaw.set()
    await asyncio.sleep(0.2)
    assert (await lab.row(server))["vm_state"] == "active"
    await lab.quiet()
    await other.kill()
    await lab.check()


async def test_a_cancelled_runner_goes_to_no_other_host(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its undo is under way when it is cancelled: that must end it."""
    undoing, end = asyncio.Event(), lab.control.endings.end

    async def slow(allocation: Allocation) -> None:
        undoing.set()
        await asyncio.sleep(0.3)
        await end(allocation)

    monkeypatch.setattr(lab.control.endings, "end", slow)
    for host in lab.nodes:
        lab.hypervisors[host].faults.fail["define"] = 1
    (server,) = await lab.accept()
    await undoing.wait()
    await lab.control.runner.stop()
    tried = {a.host for a in await lab.ledger.of_server(server)}
    assert len(tried) <= 1 and sum(bool(h.servers) for h in lab.hypervisors.values()) <= 1
    await lab.reborn()
    await lab.until(server, "active", "error")
    await lab.quiet()
    await lab.control.sweep_endings()
    await lab.check()


async def test_a_story_that_goes_on_frees_no_address_of_a_guest_that_may_run(lab: Lab) -> None:
    """One of its servers was built, and deleted while its host was silent, before another process took the story."""
    (server, slow), hang = await lab.accept(2, run=False), asyncio.Event()

    async def before(server_id: str) -> None:
        if server_id == slow:
            await hang.wait()

    lab.network.before_plug = before
    await lab.orphan_stories()
    await lab.control.runner.look()
    host = (await lab.until(server, "active"))["host"]
    lab.silent.add(host)
    lab.down.add(host)
    await lab.delete(server)
    await lab.until(server, "deleted")
    await silence(lab, lab.control)
    other = Controller(lab, "other")
    await other.start()
    await other.runner.look()
    hang.set()
    await lab.until(slow, "active", "error")
    assert server in lab.hypervisors[host].servers and server in lab.network.ports
    lab.silent.clear()
    lab.down.clear()
    await lab.quiet()
    await other.sweep_endings()
    assert server not in lab.hypervisors[host].servers and server not in lab.network.ports
    await other.kill()


async def test_a_host_that_lost_its_journal_confirms_no_end_while_the_guest_runs(lab: Lab) -> None:
    """Its address stays taken until an operator ended the guest: then the sweep frees it."""
    (server,) = await lab.accept()
    host = (await lab.until(server, "active"))["host"]
    await lab.quiet()
    journal = lab.nodes[host].here.journal
    for entry in journal.all():
        await journal.remove(entry)
    await lab.delete(server)
    await lab.until(server, "deleted")
    await lab.control.sweep_endings()
    assert server in lab.hypervisors[host].servers and server in lab.network.ports
    (ending,) = await lab.ledger.of_server(server)
    with pytest.raises(Refused, match=f"nacre host forget {server}"):
        await lab.control.endings.leave(ending)
    admin = LedgerAdmin(lab.db, lab.clock)
    (stray,) = await lab.nodes[host].describe((server,))
    lab.control.endings.begin([await admin.forget(host, stray, Amounts(memory_mb=0, vcpus=0, disk_mb=0))])
    await lab.control.sweep_endings()
    await lab.control.sweep_endings()
    assert not lab.hypervisors[host].servers and not lab.network.ports and not await lab.ledger.of(None)


async def test_the_addresses_of_a_host_that_is_dead_are_freed_by_an_operators_word(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def outage(*_: object) -> None:
        raise DatabaseUnavailable("in the middle of it")

    ids = await lab.accept(6)
    at: dict[str, list[str]] = {}
    for server in ids:
        at.setdefault((await lab.until(server, "active"))["host"], []).append(server)
    await lab.quiet()
    host, (first, *others) = max(at.items(), key=lambda each: len(each[1]))
    assert others
    lab.silent.add(host)
    lab.down.add(host)
    await lab.delete(first)
    await lab.until(first, "deleted")
    admin = LedgerAdmin(lab.db, lab.clock)
    heard = {host}

    async def heard_lately(host: str) -> bool:
        return host in heard

    removal = Removal(lab.control.processes, admin, lab.registry, lab.control.endings, heard_lately, ())
    with pytest.raises(Conflict, match="counts as alive"):
        await removal.remove(host, dead=True)
    await lab.registry.set_service(host, forced_down=True)
    with pytest.raises(Conflict, match="counts as alive"):
        await removal.remove(host, dead=True)
    heard.clear()
    with pytest.raises(Conflict, match=rf"{others[0]} \(held\).*delete these servers first"):
        await removal.remove(host, dead=True)
    assert first in lab.network.ports
    for server in others:
        await lab.delete(server)
        await lab.until(server, "deleted")
    with pytest.raises(Conflict, match=f"nacre host remove {host} --dead"):
        await removal.remove(host)
    with monkeypatch.context() as patch, pytest.raises(DatabaseUnavailable):
        patch.setattr(lab.network, "deallocate", outage)
        await removal.remove(host, dead=True)
    await removal.remove(host, dead=True)
    assert set(lab.network.ports) == set(ids) - set(at[host])
    assert {a.server_id for a in await lab.ledger.of(None)} == set(ids) - set(at[host])
    with pytest.raises(NotFound):
        await removal.remove(host, dead=True)
