"""Control processes of one name: two that live never take turns in ending each other."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests import schema

from nacre.base.clock import RealClock
from nacre.base.db import Database
from nacre.base.durable.processes import BEAT, LEASE, Process, Processes
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


def control(id: str) -> Process:
    return Process(id=id, role="control", name="ubuntu:8774", address="tcp://192.0.2.1:1")


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
