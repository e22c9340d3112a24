"""Builds when things go wrong: refusals, failures, silence, deletes in the middle, conductors that die."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nacre.base.context import Context
from nacre.base.db import DatabaseUnavailable
from nacre.base.durable.stories import Lease, LeaseLost
from nacre.base.errors import NotFound, told_by
from nacre.compute.contract import Place
from nacre.image.contract import ImageFacts
from nacre.node.hypervisor.fake import Faults
from nacre.node.journal import Unwritable, unwritten
from tests.cloud.conductor_lab import Lab, OneImage


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    await made.start()
    yield made
    await made.stop()


def faults(lab: Lab, host: str) -> Faults:
    return lab.hypervisors[host].faults


async def test_a_server_is_built_and_deleted(lab: Lab) -> None:
    (server,) = await lab.accept()
    row = await lab.until(server, "active")
    assert row["power_state"] == "running"
    assert row["launched_at"] is not None
    await lab.quiet()
    await lab.check()
    names = [name for name, result in await lab.steps(server) if result == "Success"]
    assert {"schedule", "network.plug", "prepare", "host.claim", "spawn"} <= set(names)
    await lab.delete(server)
    await lab.until(server, "deleted")
    await lab.quiet()
    await lab.check()


@pytest.mark.parametrize("verb", ["prepare", "define", "resume"])
@pytest.mark.parametrize("kind", ["fail", "refuse"])
async def test_a_failure_means_the_next_host(lab: Lab, verb: str, kind: str) -> None:
    (first,) = await lab.accept()
    host = (await lab.until(first, "active"))["host"]
    for each in lab.nodes:
        getattr(faults(lab, each), kind)[verb] = 1
    (server,) = await lab.accept()
    row = await lab.until(server, "active", "error")
    assert row["vm_state"] == "error"
    assert "3 tried" in row["fault"]["message"]
    (server,) = await lab.accept()
    assert (await lab.until(server, "active"))["host"]
    getattr(faults(lab, host), kind)[verb] = 1
    (server,) = await lab.accept()
    assert (await lab.until(server, "active"))["host"] != host
    await lab.quiet()
    await lab.check()


@pytest.mark.parametrize("verb", ["prepare", "define", "resume"])
async def test_a_full_disk_of_a_host_is_called_by_its_name(lab: Lab, verb: str) -> None:
    """In the middle of a build, when it can write down neither that it got on nor that it takes it back."""
    full = set[str]()
    for name, node in lab.nodes.items():
        faults(lab, name).before[verb] = _filling(name, full)
        node.here.journal._apply = _limited(node.here.journal._apply, name, full)  # type: ignore[method-assign]
    (server,) = await lab.accept()
    fault = (await lab.until(server, "error"))["fault"]
    assert "cannot write its journal" in fault["message"] and "Free space" in str(fault)
    assert not [word for word in ("stopped answering", "unexpected", "OSError") if word in str(fault)]
    for name in lab.nodes:
        faults(lab, name).before.clear()
    full.clear()
    await lab.delete(server)
    await lab.until(server, "deleted")
    await lab.quiet()
    await lab.check()


def _filling(name: str, full: set[str]) -> Callable[[str], Awaitable[None]]:
    async def fill(_: str) -> None:
        full.add(name)
    return fill


def _limited(write: Callable[[Any], None], name: str, full: set[str]) -> Callable[[Any], None]:
    def apply(writes: Any) -> None:
        if name in full:
            raise sqlite3.OperationalError("database or disk is full")
        write(writes)
    return apply


def test_a_member_reads_of_a_full_disk_and_not_where() -> None:
    error = told_by("h1", unwritten(Unwritable("/var/lib/nacre/journal.db: database or disk is full")))
    assert error.message == "The host cannot write to its disk." and "/var/lib/nacre" in error.details


async def test_a_database_that_comes_and_goes_costs_time_only(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is decided while it is away: no build ends in ERROR, no delete forgets a host."""
    monkeypatch.setattr("nacre.conductor.stories.SWEEP", 0.02)
    monkeypatch.setattr("nacre.base.durable.stories.UNHEARD", 0.1)

    async def sweep() -> None:
        while True:
            with contextlib.suppress(DatabaseUnavailable):
                await lab.control.runner.sweep()

    async def sweep_endings() -> None:
        while True:
            with contextlib.suppress(DatabaseUnavailable):
                await lab.control.endings.look()
            await asyncio.sleep(0.02)

    sweeping = [asyncio.ensure_future(sweep()), asyncio.ensure_future(sweep_endings())]
    lab.seen_db.share = 0.1
    ids = await lab.accept(8, run=False)
    for server in ids:
        await lab.until(server, "active", seconds=30)
    for server in ids[:4]:
        await lab.delete(server)
    for server in ids[:4]:
        await lab.until(server, "deleted", seconds=30)
    lab.seen_db.share = 0.0
    await lab.quiet()
    for task in sweeping:
        task.cancel()
    await lab.control.sweep_endings()
    await lab.check()


async def test_no_host_fits_and_the_fault_says_why(lab: Lab) -> None:
    await lab.accept(24)
    await lab.quiet(20)
    (server,) = await lab.accept()
    row = await lab.until(server, "error")
    assert "0 of 3 hosts fit: 3 lack 512 MB of memory" in row["fault"]["message"]
    await lab.quiet()
    await lab.check()


async def test_a_delete_that_looked_for_ports_before_they_were_made_leaks_none(lab: Lab) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait(server: str) -> None:
        asked.set()
        await go_on.wait()

    lab.network.before_plug = wait
    (server,) = await lab.accept()
    await asked.wait()
    await lab.delete(server)
    await lab.until(server, "deleted")
    go_on.set()
    await lab.quiet()
    await lab.check()
    assert lab.network.ports == {}


async def test_a_delete_before_the_first_attempt_gives_the_room_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server waits for its turn to be built; the scheduler keeps room for it that no host ever knew of."""
    allocate, go_on = lab.ledger.allocate, asyncio.Event()

    async def late(lease: Lease, server_id: str, place: Place) -> object:
        await go_on.wait()
        return await allocate(lease, server_id, place)

    monkeypatch.setattr(lab.ledger, "allocate", late)
    (server,) = await lab.accept()
    while not any(host.servers for host in map(lab.chooser.host, lab.nodes) if host):
        await asyncio.sleep(0.01)
    await lab.delete(server)
    await lab.until(server, "deleted")
    go_on.set()
    await lab.quiet()
    await lab.check()


async def test_a_place_that_was_not_written_down_is_free_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another runner has the story: this process hears nothing more of the place that it chose."""
    async def lost(*_: object) -> None:
        raise LeaseLost("another runner has it")

    monkeypatch.setattr(lab.ledger, "allocate", lost)
    (server,) = await lab.accept()
    async with asyncio.timeout(5):
        while lab.control.runner.running:
            await asyncio.sleep(0.01)
    assert not lab.chooser.where(server)
    assert all(lab.chooser.host(name).free[0] == 4096 for name in lab.nodes)  # type: ignore[union-attr]


async def test_ports_that_do_not_bind(lab: Lab) -> None:
    lab.network.fail_binds = 1
    (server,) = await lab.accept()
    await lab.until(server, "active")
    lab.network.fail_binds = 99
    (other,) = await lab.accept()
    assert "no driver binds the port" in (await lab.until(other, "error"))["fault"]["message"]
    await lab.quiet()
    await lab.check()


async def test_a_silent_host_is_asked_again_before_another_is_tried(lab: Lab) -> None:
    (probe,) = await lab.accept()
    host = (await lab.until(probe, "active"))["host"]
    lab.silent.add(host)
    (server,) = await lab.accept()
    await asyncio.sleep(0.1)
    lab.silent.discard(host)
    assert (await lab.until(server, "active"))["host"] == host
    lab.silent.add(host)
    lab.down.add(host)
    (moved,) = await lab.accept()
    assert (await lab.until(moved, "active"))["host"] != host
    lab.silent.discard(host)
    lab.down.discard(host)
    await lab.control.sweep_endings()
    await lab.quiet()
    await lab.check()


async def test_silence_after_a_spawn_is_no_refusal(lab: Lab) -> None:
    lab.answer_within = 0.2
    for host in lab.nodes:
        async def cut(_: str, host: str = host) -> None:
            lab.silent.add(host)
            lab.down.add(host)
            await asyncio.sleep(0.5)
        faults(lab, host).before["resume"] = cut
    (server,) = await lab.accept()
    row = await lab.until(server, "error")
    assert "no other host was tried" in row["fault"]["message"]
    assert len(lab.silent) == 1
    lab.silent.clear()
    lab.down.clear()
    await lab.quiet()
    await asyncio.sleep(0.5)
    await lab.control.sweep_endings()
    await lab.check()


async def test_a_delete_in_the_middle_of_a_build_wins(lab: Lab) -> None:
    for host in lab.nodes:
        faults(lab, host).delay["define"] = 0.3
    (server,) = await lab.accept()
    await asyncio.sleep(0.15)
    await lab.delete(server)
    await lab.until(server, "deleted")
    await lab.quiet()
    await lab.check()


@pytest.mark.parametrize("verb", ["prepare", "define", "resume", "destroy"])
async def test_a_conductor_that_dies_is_followed_by_one_that_finishes(lab: Lab, verb: str) -> None:
    for host in lab.nodes:
        faults(lab, host).delay[verb] = 0.2
    ids = await lab.accept(4)
    await asyncio.sleep(0.1)
    await lab.reborn()
    for server in ids:
        await lab.until(server, "active")
    for server in ids:
        await lab.delete(server)
    await asyncio.sleep(0.1)
    await lab.reborn()
    for server in ids:
        await lab.until(server, "deleted")
    await lab.quiet()
    await lab.check()


async def test_a_build_that_cannot_go_on_leaves_nothing_at_its_host(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process died in the middle of an attempt; when another takes it up the image is gone."""
    async def gone(self: OneImage, context: Context, image_id: str) -> ImageFacts:
        raise NotFound("no such image")

    for host in lab.nodes:
        faults(lab, host).delay["prepare"] = 30
    (server,) = await lab.accept()
    while not (there := await lab.ledger.of_server(server)):
        await asyncio.sleep(0.01)
    assert [allocation.state for allocation in there] == ["wanted"]
    monkeypatch.setattr(OneImage, "find", gone)
    await lab.reborn()
    row = await lab.until(server, "error")
    assert row["fault"]["message"] == "no such image"
    await lab.quiet()
    await lab.control.sweep_endings()
    await lab.check()


async def test_a_lost_nudge_costs_time_only(lab: Lab) -> None:
    (server,) = await lab.accept(run=False)
    await lab.orphan_stories()
    await lab.control.runner.look()
    await lab.until(server, "active")
    await lab.control.runner.look()
    await lab.quiet()
    await lab.check()


async def test_two_runners_of_one_story_make_one_server(lab: Lab) -> None:
    (server,) = await lab.accept(run=False)
    await lab.orphan_stories()
    await asyncio.gather(lab.control.runner.look(), lab.control.runner.look())
    await lab.until(server, "active")
    await lab.quiet()
    await lab.check()
    assert (await lab.row(server))["epoch"] == 1
