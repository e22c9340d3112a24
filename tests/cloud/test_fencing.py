"""One server never becomes two, and who lost the right to act leaves no mark: what was once found wrong."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import nacre.conductor.manager as conductor_manager
from nacre.compute.stories import Stories
from nacre.compute.tables import attempts, stories
from nacre.conductor.manager import ConductorManager
from tests.cloud.conductor_lab import Lab


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
        await asyncio.sleep(3600)

    setattr(lab.nodes[host], verb, last_words)


async def test_a_restarted_conductor_tries_no_other_host_while_the_first_is_silent(lab: Lab) -> None:
    for host in lab.nodes:
        cut_off_after(lab, host, "spawn")
    (server,) = await lab.accept()
    async with asyncio.timeout(5):
        while not lab.silent:
            await asyncio.sleep(0.01)
    await lab.reborn()
    for host in lab.nodes:
        del lab.nodes[host].spawn  # type: ignore[method-assign]
    await lab.until(server, "active", "error", seconds=15)
    assert [h for h, hypervisor in lab.hypervisors.items() if server in hypervisor.servers] == list(lab.silent)


async def test_a_delete_whose_answer_was_lost_leaves_no_attempt(lab: Lab) -> None:
    (server,) = await lab.accept()
    host = (await lab.until(server, "active"))["host"]
    await lab.quiet()
    lab.answer_within = 0.3
    cut_off_after(lab, host, "destroy")
    await lab.delete(server)
    await lab.until(server, "deleted")
    await lab.quiet()
    lab.silent.clear()
    lab.answer_within = 5
    await lab.conductor._leftovers()
    assert not await lab.db.read(lambda c: c.execute(sa.select(attempts)).all())
    await lab.check()


async def test_a_runner_that_lost_its_lease_touches_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor_manager, "RENEW", 0.6)
    for hypervisor in lab.hypervisors.values():
        hypervisor.faults.delay["define"] = 0.4
    (server,) = await lab.accept()
    await asyncio.sleep(0.15)
    long_ago = lab.clock.now().replace(tzinfo=None, year=2000)
    await lab.db.run(lambda c: c.execute(sa.update(stories).values(lease_until=long_ago)))
    second = ConductorManager(lab.conductor._p, Stories(lab.db, lab.clock, "other"))
    await second._wake()
    row = await lab.until(server, "active", seconds=15)
    await asyncio.sleep(1.2)
    await second.stop()
    await lab.check()
    assert lab.network.ports[server].host == row["host"]
