"""Control processes of one name: two that live never take turns in ending each other."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests import schema

from nacre.base.clock import RealClock
from nacre.base.db import Database
from nacre.base.durable import eras
from nacre.base.durable.processes import BEAT, LEASE, Process, Processes
from nacre.base.durable.tables import changes, processes
from nacre.base.errors import Conflict


class Fast(RealClock):
    """Sleeps take no time, but what the others do meanwhile."""

    def __init__(self, meanwhile: Callable[[], Awaitable[object]] | None = None):
        self.slept, self._meanwhile = 0.0, meanwhile

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.slept)

    def monotonic(self) -> float:
        return super().monotonic() + self.slept

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        if self._meanwhile is not None:
            await self._meanwhile()


def control(id: str, name: str = "ubuntu:8774", address: str = "tcp://192.0.2.1:1") -> Process:
    return Process(id=id, role="control", name=name, address=address)


async def runs_out(db: Database, id: str = "a") -> None:
    """The process was killed, and its lease is over."""
    await db.run(lambda c: c.execute(sa.update(processes).where(processes.c.id == id).values(
        lease_until=datetime(2020, 1, 1))))


async def test_a_second_of_a_name_does_not_enter_while_the_first_lives(story_db: Database) -> None:
    clock = Fast(lambda: story_db.run(one._beat))
    one, two = Processes(story_db, clock), Processes(story_db, clock)
    await one.start(control("a"))
    with pytest.raises(Conflict, match=r"lives at tcp://192.0.2.1:1: .* rpc.name"):
        await two.start(control("b"))
    assert await story_db.run(one._beat)
    assert clock.slept < LEASE + 3 * BEAT
    await one.start(control("a"))  # its own next life
    await one.stop()
    before = clock.slept
    await two.start(control("b"))
    assert clock.slept == before and [p.id for p in await two.all()] == ["b"]


async def test_the_name_of_one_that_died_is_free_when_its_lease_is_over(tmp_path: Path) -> None:
    db, clock = Database(schema.in_file(tmp_path / "nacre.db")), Fast()
    await Processes(db, clock).start(control("a"))
    two = Processes(db, clock)
    await two.start(control("b"))  # as after its data folder was lost
    assert clock.slept >= LEASE and [p.id for p in await two.all()] == ["b"]
    await db.close()


async def test_a_lease_of_a_clock_that_was_set_back_keeps_nobody_out(tmp_path: Path) -> None:
    """SQLite's time is the machine's: by it the lease of one that was killed lies an hour ahead."""
    db, clock = Database(schema.in_file(tmp_path / "nacre.db")), Fast()
    clock.slept = 3600.0
    await Processes(db, clock).start(control("a"))
    clock.slept = 0.0
    await Processes(db, clock).start(control("a", address="tcp://192.0.2.1:2"))
    await db.run(lambda c: c.execute(sa.update(processes).values(lease_until=datetime(2100, 1, 1))))
    two = Processes(db, clock)
    await two.start(control("b"))
    assert [p.id for p in await two.all()] == ["b"]
    await db.close()


@pytest.mark.parametrize("killed", [False, True])
async def test_a_process_comes_back_under_another_name(story_db: Database, killed: bool) -> None:
    """It was started with another port, or another name: the old one is nobody's."""
    one, again = Processes(story_db, Fast()), Processes(story_db, Fast())
    await one.start(control("a"))
    await Processes(story_db, Fast()).start(control("b", "new"))  # has died since
    await (runs_out(story_db) if killed else one.stop())
    await runs_out(story_db, "b")
    n = await story_db.read(eras.position)
    await again.start(control("a", "new", "tcp://192.0.2.1:2"))
    assert [(p.id, p.name) for p in await again.all()] == [("a", "new")] and again.runner.generation == 2
    noted = await story_db.read(lambda c: c.execute(sa.select(changes.c.id).where(
        changes.c.kind == "process", changes.c.n > n.n)).scalars().all())
    assert sorted(noted) == ["new", "ubuntu:8774"]


@pytest.mark.parametrize("other", [("other:8774", "tcp://192.0.2.1:1"), ("ubuntu:8774", "tcp://192.0.2.2:1")])
async def test_a_copied_data_folder_does_not_enter_while_the_first_lives(
        story_db: Database, other: tuple[str, str]) -> None:
    """Both have the same id: each would end the other by turns."""
    clock = Fast(lambda: story_db.run(one._beat))
    one, two = Processes(story_db, clock), Processes(story_db, clock)
    await one.start(control("a"))
    with pytest.raises(Conflict, match=r"lives already, as ubuntu:8774 at tcp://192.0.2.1:1: .*control/process-id"):
        await two.start(control("a", *other))
    assert await story_db.run(one._beat)
    await runs_out(story_db)
    await two.start(control("a", *other))
    assert [(p.name, p.address) for p in await two.all()] == [other]
