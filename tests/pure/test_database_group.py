"""SQLite's group commit, where it goes wrong."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from nacre.base.db import Database, DatabaseUnavailable
from nacre.base.errors import NacreError

metadata = sa.MetaData()
things = sa.Table("things", metadata, sa.Column("id", sa.Integer, primary_key=True))


def insert(number: int):
    return lambda c: c.execute(things.insert().values(id=number)).rowcount


def count(c: sa.Connection) -> int:
    return c.execute(sa.select(sa.func.count()).select_from(things)).scalar_one()


async def test_a_unit_that_loses_the_whole_transaction_takes_nobody_with_it(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/db")
    metadata.create_all(db.engine)

    def poison(c: sa.Connection) -> None:
        c.exec_driver_sql("ROLLBACK")
        raise RuntimeError("disk full")

    results = await asyncio.gather(*(db.run(insert(n)) for n in range(10)), db.run(poison),
                                   *(db.run(insert(n)) for n in range(10, 20)), return_exceptions=True)
    assert [r for r in results if isinstance(r, Exception)] == [results[10]]
    assert isinstance(results[10], DatabaseUnavailable)
    assert await db.read(count) == 20
    await db.close()


async def test_waiting_units_share_a_commit(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/db")
    metadata.create_all(db.engine)
    commits = 0

    @sa.event.listens_for(db.engine, "commit")
    def committed(_: sa.Connection) -> None:
        nonlocal commits
        commits += 1

    await asyncio.gather(*(db.run(insert(n)) for n in range(200)))
    assert commits < 40
    await db.close()


async def test_what_is_answered_is_on_disk(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/db")
    metadata.create_all(db.engine)
    await db.run(insert(1))
    with sqlite3.connect(tmp_path / "db") as other:
        assert other.execute("select count(*) from things").fetchone() == (1,)
        assert other.execute("pragma journal_mode").fetchone() == ("wal",)
    await db.close()


async def test_inline_runs_in_the_caller(tmp_path: Path) -> None:
    db = Database("sqlite://", inline=True)
    metadata.create_all(db.engine)
    coroutine = db.run(insert(1))
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value == 1


def test_an_engine_that_is_not_spoken_is_named() -> None:
    with pytest.raises(NacreError, match="mysql"):
        Database("mysql://root:secret@h/d")
    with pytest.raises(NacreError) as error:
        Database("mysql://root:secret@h/d")
    assert "secret" not in error.value.message
