"""Whoever reads changes misses none, or loads everything anew; which history a database has is known by its eras."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from nacre.base.clock import VirtualClock, settle
from nacre.base.db import Database
from nacre.base.db.engine import DatabaseUnavailable
from nacre.base.durable import changes as outbox
from nacre.base.durable import eras
from nacre.base.durable.changes import KEEP, MOST, POLL, Change, Changes
from nacre.base.durable.eras import Position
from nacre.base.durable.processes import Process, Processes
from nacre.base.durable.tables import changes
from tests import schema

NOW = datetime(2026, 11, 21)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    db = Database(schema.in_file(tmp_path / "c.db"))
    yield db
    await db.close()


class Reader:
    """Reads one kind, or fails."""

    def __init__(self, kind: str = "server"):
        self.kind, self.got, self.reloads = kind, list[str](), 0
        self.fails = False

    async def read(self, what: Sequence[Change]) -> None:
        if self.fails:
            raise ValueError("cannot be taken in")
        self.got += [change.id for change in what]

    async def reload(self) -> None:
        self.reloads += 1


class Control:
    """One process's readers."""

    def __init__(self, db: Database, *readers: Reader, clock: VirtualClock | None = None):
        self.clock, self.ended = clock or VirtualClock(), 0
        self.changes = Changes(db, self.clock)
        self.changes.restored = self._end
        for reader in readers:
            self.changes.subscribe((reader.kind,), reader.read, reader.reload)

    def _end(self) -> None:
        self.ended += 1

    async def turn(self) -> None:
        await self.changes.look()
        await self.changes._trim()


async def write(db: Database, *ids: str, kind: str = "server", at: datetime = NOW) -> None:
    await db.run(lambda connection: outbox.note(connection, at, *((kind, id) for id in ids)))


async def kept(db: Database) -> list[str]:
    return await db.read(lambda c: list(c.execute(sa.select(changes.c.id).order_by(changes.c.n)).scalars()))


async def back_to(db: Database, n: int, leap: int = 0) -> None:
    """The database is one that was restored. leap: numbers that are never given, as PostgreSQL does after a crash."""
    def unit(connection: sa.Connection) -> None:
        connection.execute(sa.delete(changes).where(changes.c.n > n))
        connection.execute(sa.text("update sqlite_sequence set seq = :n where name = 'changes'"), {"n": n + leap})

    await db.run(unit)


async def test_a_reader_that_fails_holds_up_no_other(db: Database) -> None:
    bad, good = Reader("process"), Reader()
    control = Control(db, bad, good)
    await control.changes.start()
    bad.fails = True
    await write(db, "p", kind="process")
    for start in range(0, MOST + 1000, 500):
        await write(db, *(f"s{n}" for n in range(start, start + 500)))
        await control.turn()
    assert len(good.got) == MOST + 1000
    bad.fails = False
    await control.turn()
    assert bad.got == ["p"] and (good.reloads, bad.reloads) == (0, 0)


async def test_a_wrong_clock_takes_no_change_from_another_process(db: Database) -> None:
    ahead, right = Reader(), Reader()
    fast = Control(db, ahead, clock=VirtualClock(datetime(2036, 1, 1, tzinfo=UTC)))
    other = Control(db, right)
    await write(db, "first")
    await fast.changes.start()
    await other.changes.start()
    await write(db, "a", "b", "c", at=NOW - timedelta(days=365))
    for _ in range(2):
        await fast.turn()
        fast.clock.jump(KEEP / 10)
    await other.turn()
    assert (right.got, right.reloads, ahead.got) == (["a", "b", "c"], 0, ["a", "b", "c"])


async def test_changes_go_when_everyone_had_the_time_to_read_them(db: Database) -> None:
    mine, late = Reader(), Reader()
    control, frozen = Control(db, mine), Control(db, late)
    await write(db, "first")
    await control.changes.start()
    await frozen.changes.start()
    await write(db, "a", "b")
    for _ in range(10):
        await control.turn()
        assert await kept(db) == ["first", "a", "b"]
        control.clock.jump(KEEP / 10)
    await write(db, "c")
    await control.turn()
    assert await kept(db) == ["b", "c"]
    await frozen.turn()  # by its own clock no time has gone by
    assert (late.reloads, late.got, frozen.ended) == (1, [], 0)
    await write(db, "d")
    await frozen.turn()
    await control.turn()
    assert late.got == ["d"] and (mine.got, mine.reloads) == (["a", "b", "c", "d"], 0)


@pytest.mark.parametrize(("more", "leap"), [(0, 0), (2, 0), (40, 0), (1, 30)], ids=[
    "behind", "behind, and written to", "past it already", "past it by a leap"])
async def test_an_older_database_under_a_running_process_is_noticed(db: Database, more: int, leap: int) -> None:
    first = await start(db)
    mine = Reader()
    control = Control(db, mine)
    await write(db, *(f"a{n}" for n in range(10)))
    await control.changes.start()
    await write(db, *(f"b{n}" for n in range(10)))
    await control.turn()
    seen, kept = Position(control.changes.seen.n - 3, first.era), Position(first.n, first.era)
    await back_to(db, seen.n - 2, leap)
    await write(db, *(f"c{n}" for n in range(more)), at=NOW + timedelta(minutes=1))
    await control.turn()
    assert (control.ended, mine.reloads) == (1, 1)
    await write(db, "next", at=NOW + timedelta(minutes=2))
    for _ in range(2):
        await control.turn()
    assert control.ended == 1 and mine.got[-1] == "next"
    await start(db)  # as it does when it has ended
    await write(db, *(f"d{n}" for n in range(40)))
    assert await older(db, seen) and not await older(db, kept)


async def test_an_older_database_that_goes_again_while_it_is_loaded_is_noticed_once(
        db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await start(db)
    mine, other, away = Reader(), Reader("process"), [True]
    control = Control(db, mine, other)
    await control.changes.start()
    await write(db, *(f"a{n}" for n in range(20)))
    await control.turn()
    load = mine.reload

    async def reload() -> None:
        if away.pop() if away else False:
            raise DatabaseUnavailable("it is away again for a moment")
        await load()

    monkeypatch.setattr(control.changes._subscriptions[0], "reload", reload)
    await back_to(db, control.changes.seen.n - 10)
    with pytest.raises(DatabaseUnavailable):
        await control.turn()
    assert control.ended == 1
    for _ in range(2):
        await control.turn()
    assert (control.ended, mine.reloads, other.reloads) == (1, 1, 1)
    await write(db, "next")
    await control.turn()
    assert mine.got[-1] == "next"
    await back_to(db, control.changes.seen.n - 5)  # and once more
    await control.turn()
    assert (control.ended, mine.reloads) == (2, 2)


async def test_a_process_starts_again_at_once_on_an_older_database(db: Database) -> None:
    """Nobody has written to it since: what begins is yet another era than the one that begins with what was lost."""
    first = await start(db)
    control = Control(db, Reader())
    await write(db, "a")
    await control.changes.start()
    await write(db, *(f"b{n}" for n in range(10)))
    await control.turn()
    seen = Position(control.changes.seen.n, first.era)
    await back_to(db, seen.n - 5)
    await control.turn()
    again = await start(db)
    assert control.ended == 1 and await older(db, seen) and not await older(db, again)
    await control.turn()
    assert control.ended == 1


async def test_what_nobody_had_read_yet_is_missed_too_after_an_outage(db: Database, monkeypatch: pytest.MonkeyPatch
                                                                     ) -> None:
    """A host knows a change of the last moment; the standby that takes over does not, and goes on from there."""
    first, mine = await start(db), Reader()
    control = Control(db, mine)
    await write(db, "a")
    await control.changes.start()
    read = db.read
    running = asyncio.create_task(control.changes.run())
    await settle()
    await control.clock.advance(POLL)
    await write(db, "b", "c")
    seen = await db.read(eras.position)
    await back_to(db, seen.n - 2)

    async def away(unit: Any) -> Any:
        raise DatabaseUnavailable("it is being started")

    monkeypatch.setattr(db, "read", away)
    await control.clock.advance(2 * POLL)
    monkeypatch.setattr(db, "read", read)
    await control.clock.advance(2 * POLL)
    await write(db, *(f"d{n}" for n in range(40)))
    running.cancel()
    assert await older(db, seen) and not await older(db, first) and control.ended == 0


async def start(db: Database) -> Position:
    """A control process starts; what it tells hosts."""
    await Processes(db, VirtualClock()).start(Process(id="p", role="control", name="c"))
    return await db.read(eras.position)


async def older(db: Database, seen: Position) -> bool:
    return bool(await db.read(lambda connection: eras.later(connection, [seen])))


async def test_a_restored_database_is_older_however_far_it_comes_afterwards(
        tmp_path: Path, db: Database) -> None:
    first = await start(db)
    await write(db, "a", "b")
    raw = tmp_path / "backup.db"
    with sqlite3.connect(tmp_path / "c.db") as source, sqlite3.connect(raw) as target:
        source.backup(target)
    await write(db, "c", "d")
    seen = await db.read(eras.position)
    assert not await older(db, seen) and seen.era == first.era
    later = await start(db)
    await write(db, "e")
    for each in (Position(), first, seen, later):
        assert not await older(db, each)

    restored = Database(f"sqlite:///{raw}")
    before = await restored.read(eras.position)
    assert await older(restored, seen) and await older(restored, later)
    fresh = await start(restored)
    for _ in range(10):
        await write(restored, "x", "y")
    assert await older(restored, seen) and await older(restored, later)
    for each in (first, before, fresh, await restored.read(eras.position)):
        assert not await older(restored, each)
    await restored.close()


async def test_processes_that_start_beside_each_other_make_no_database_older(db: Database) -> None:
    told: list[Position] = []
    for _ in range(5):
        told.append(await start(db))
        await write(db, "a")
        told.append(await db.read(eras.position))
    assert [each for each in told if await older(db, each)] == []
    assert len({each.era for each in told}) == 5
