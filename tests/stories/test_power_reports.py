"""What hosts say of guests comes late, twice and in another order, to several control processes: the newest word
stands, and orders that were answered count among the words."""

import asyncio
from datetime import datetime

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import schema

from nacre.base.clock import VirtualClock
from nacre.base.db import Database
from nacre.base.durable.processes import Process, Processes
from nacre.base.durable.stories import Stories
from nacre.compute.contract import Outcome
from nacre.compute.progress import Progress
from nacre.compute.tables import allocations, servers
from nacre.node.contract import Guest
from nacre.scheduler.contract import Held

NOW = datetime(2026, 1, 1)
STATES = {"running": "active", "shutdown": "stopped", "crashed": "stopped"}
Number = tuple[int, int]


async def stand(db: Database, power: str) -> None:
    """A server "s" on host "h"."""
    flavor = {"id": "f", "name": "f", "memory_mb": 512, "vcpus": 1, "root_gb": 1}

    def unit(connection: sa.Connection) -> None:
        connection.execute(sa.insert(servers).values(
            id="s", name="s", project_id="p", user_id="u", vm_state=STATES[power], power_state=power, host="h",
            allocation_id="a", epoch=1, created_at=NOW, updated_at=NOW, flavor_id="f", memory_mb=512, vcpus=1,
            flavor=flavor, metadata={}, tags=[], image_properties={}, security_groups=[], trusted_certs=[], hints={}))
        connection.execute(sa.insert(allocations).values(
            id="a", server_id="s", host="h", epoch=1, purpose="build", state="held", memory_mb=1, vcpus=1, disk_mb=1,
            created_at=NOW))

    await db.run(unit)


async def row(db: Database) -> tuple[str, str | None, str]:
    def unit(connection: sa.Connection) -> tuple[str, str | None, str]:
        found = connection.execute(sa.select(servers)).mappings().one()
        return found["vm_state"], found["task_state"], found["power_state"]

    return await db.read(unit)


def held(power: str, since: int = 0) -> Held:
    return Held(allocation="a", server_id="s", epoch=1, power=power, since=since)


POWERS = st.sampled_from(sorted(STATES))
#: What the host says in its lives, each report with its guest's power.
LIVES = st.lists(st.lists(POWERS, min_size=1, max_size=6), min_size=1, max_size=3)


@settings(deadline=None, max_examples=150)
@given(POWERS, LIVES, st.data())
def test_an_older_report_undoes_nothing(first: str, lives: list[list[str]], data: st.DataObject) -> None:
    said: dict[Number, str] = {(life, n): power for life, powers in enumerate(lives, 1)
                               for n, power in enumerate(powers, 1)}
    arriving = data.draw(st.lists(st.sampled_from(sorted(said)), max_size=20))

    async def story() -> None:
        db, clock = schema.in_memory(), VirtualClock()
        await stand(db, first)
        controls = [Progress(db, clock), Progress(db, clock)]
        newest: Number = (0, 0)
        for turn, number in enumerate([*arriving, max(said)]):
            since = next(n for n in range(number[1], 0, -1) if said.get((number[0], n - 1)) != said[number])
            assert await controls[turn % 2].noticed("h", number, [held(said[number], since)]) == set()
            newest = max(newest, number)
            power = said[newest]
            assert await row(db) == (STATES[power], None, power), (number, newest)
        await db.close()

    asyncio.run(story())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40), POWERS), max_size=12), st.booleans())
def test_a_report_from_before_an_order_was_done_does_not_undo_it(late: list[tuple[int, str]], busy: bool) -> None:
    """A stop is answered with number 20: what is older says nothing of it, whether it comes before or after."""
    async def story() -> None:
        db, clock = schema.in_memory(), VirtualClock()
        processes = Processes(db, clock)
        stories = Stories(db, clock, processes)
        await processes.start(Process(id="c", role="control", name="c"))
        await stand(db, "running")
        progress = Progress(db, clock)
        stop = await db.run(lambda c: stories.insert(c, "power", b"", NOW))
        await db.run(lambda c: c.execute(sa.update(servers).values(task_state="powering-off")))
        if busy:  # it is not judged while somebody is at work on it
            for n, power in late:
                assert await progress.noticed("h", (1, n), [held(power)]) == {"a"}
            assert (await row(db))[:2] == ("active", "powering-off")
        await progress.powered(stop.lease, "stopped", Outcome(
            server_id="s", request_id="r", guest=Guest(server_id="s", power="shutdown", number=(1, 20))))
        assert await row(db) == ("stopped", None, "shutdown")
        newest, power = 20, "shutdown"
        for n, said in late:
            await progress.noticed("h", (1, n), [held(said)])
            newest, power = (n, said) if n > newest else (newest, power)
            assert await row(db) == (STATES[power], None, power)
        await db.close()

    asyncio.run(story())
