"""What SQLite cannot do now is no verdict on what was asked: reads and writes that fail in the middle of a statement, a
file that another program holds, a file that is damaged. Builds go on when it is over."""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.cloud.conductor_lab import Lab, Unreliable

from nacre.base.db import Database, DatabaseUnavailable
from nacre.base.db.sqlite import Sqlite

metadata = sa.MetaData()
things = sa.Table("things", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("what", sa.String))


class Failing:
    """A database whose statements SQLite breaks off, so many of a hundred; wait: seconds for a lock."""

    def __init__(self, url: str, wait: float = 30.0):
        self.db, self.share, self._dice = Database(url), 0.0, random.Random(1)
        driver: Any = self.db._driver
        assert isinstance(driver, Sqlite)
        for engine in (driver.engine, driver._reader, driver._patient):
            @sa.event.listens_for(engine, "connect")
            def connected(raw: Any, _: Any, patient: bool = engine is not driver._reader) -> None:
                raw.set_progress_handler(self._break, 20)
                if patient:
                    raw.execute(f"PRAGMA busy_timeout={round(wait * 1000)}")

    def _break(self) -> bool:
        return self._dice.random() < self.share


@pytest.fixture
async def failing(tmp_path: Path) -> AsyncIterator[Failing]:
    made = Failing(f"sqlite:///{tmp_path}/db", wait=0.1)
    metadata.create_all(made.db.engine)
    with made.db.engine.begin() as connection:
        connection.execute(sa.insert(things), [{"id": n, "what": "x" * 500} for n in range(100)])
    yield made
    await made.db.close()


def count(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).where(things.c.what != "")).scalar_one()


def change(connection: sa.Connection) -> int:
    return connection.execute(sa.update(things).values(what=things.c.what + "y")).rowcount


@pytest.mark.parametrize("unit", [count, change])
async def test_a_statement_that_breaks_off_is_no_answer(failing: Failing, unit: Any) -> None:
    for verb in ("read", "run"):
        if verb == "read" and unit is change:
            continue
        failing.share = 1.0
        with pytest.raises(DatabaseUnavailable):
            await getattr(failing.db, verb)(unit)
        failing.share = 0.0
        assert await getattr(failing.db, verb)(unit) == 100


async def test_one_that_breaks_off_takes_no_other_with_it(failing: Failing) -> None:
    def breaks(connection: sa.Connection) -> int:
        failing.share = 1.0
        try:
            return change(connection)
        finally:
            failing.share = 0.0

    units = [change, breaks, change, breaks, change]
    found = await asyncio.gather(*(failing.db.run(unit) for unit in units), return_exceptions=True)
    assert [f if isinstance(f, int) else type(f) for f in found] == [
        100, DatabaseUnavailable, 100, DatabaseUnavailable, 100]
    assert await failing.db.read(lambda c: c.execute(sa.select(things.c.what).distinct()).scalars().all()) == [
        "x" * 500 + "yyy"]


async def test_a_file_that_another_program_holds(failing: Failing, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable):
            await failing.db.run(change)
        assert await failing.db.read(count) == 100
        other.execute("ROLLBACK")
        assert await failing.db.run(change) == 100


async def test_a_damaged_file(tmp_path: Path, failing: Failing) -> None:
    await failing.db.close()
    size = (tmp_path / "db").stat().st_size
    with (tmp_path / "db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    again = Database(f"sqlite:///{tmp_path}/db")
    for call in (again.read(count), again.run(change)):
        with pytest.raises(DatabaseUnavailable):
            await call
    await again.close()


async def test_a_statement_that_is_wrong_is_an_error_of_its_own(failing: Failing) -> None:
    def wrong(connection: sa.Connection) -> None:
        connection.exec_driver_sql("select * from nowhere")

    for call in (failing.db.read(wrong), failing.db.run(wrong)):
        with pytest.raises(sa.exc.OperationalError, match="no such table"):
            await call


async def test_builds_and_deletes_go_on_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every twentieth look of SQLite's at whether to go on says no, in reads and in writes."""
    monkeypatch.setattr("nacre.conductor.stories.SWEEP", 0.02)
    monkeypatch.setattr("nacre.base.durable.stories.UNHEARD", 0.1)
    lab = Lab(tmp_path)
    failing = Failing(lab.db.url)
    lab.seen_db._db = failing.db
    assert isinstance(lab.seen_db, Unreliable)
    await lab.start()

    async def for_ever(work: Any) -> None:
        while True:
            with contextlib.suppress(DatabaseUnavailable):
                await work()
            await asyncio.sleep(0.02)

    tasks = [asyncio.ensure_future(for_ever(work)) for work in (lab.control.runner.sweep, lab.control.endings.look)]
    failing.share = 0.02
    ids = await lab.accept(8, run=False)
    rows = [await lab.until(server, "active", "error", seconds=60) for server in ids]
    assert {row["vm_state"] for row in rows} == {"active"}, [row["fault"] for row in rows]
    for server in ids[:4]:
        await lab.delete(server)
    for server in ids[:4]:
        await lab.until(server, "deleted", seconds=60)
    failing.share = 0.0
    await lab.quiet()
    for task in tasks:
        task.cancel()
    await lab.control.sweep_endings()
    await lab.check()
    await lab.stop()
    await failing.db.close()
