"""One promise, two engines: a unit is all or nothing, seen only when durable, and harms no other unit."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from nacre.base.db import Database
from nacre.base.errors import BadRequest

metadata = sa.MetaData()
things = sa.Table("things", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("what", sa.JSON))
parts = sa.Table("parts", metadata, sa.Column("id", sa.Integer, primary_key=True),
                 sa.Column("thing", sa.ForeignKey("things.id"), nullable=False))


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    db = Database(database_url)
    await asyncio.to_thread(metadata.create_all, db.engine)
    yield db
    await db.close()


def insert(number: int):
    return lambda c: c.execute(things.insert().values(id=number, what={"n": number})).rowcount


def count(c: sa.Connection) -> int:
    return c.execute(sa.select(sa.func.count()).select_from(things)).scalar_one()


async def test_units_that_fail_harm_no_other_unit(db: Database) -> None:
    results = await asyncio.gather(*(db.run(insert(n % 40)) for n in range(60)), return_exceptions=True)
    assert sum(isinstance(r, sa.exc.IntegrityError) for r in results) == 20
    assert await db.read(count) == 40
    assert await db.read(lambda c: c.execute(sa.select(things.c.what).where(things.c.id == 3)).scalar()) == {"n": 3}


async def test_a_unit_is_all_or_nothing(db: Database) -> None:
    def half(c: sa.Connection) -> None:
        insert(1)(c)
        raise LookupError("in the middle")

    with pytest.raises(LookupError):
        await db.run(half)
    assert await db.read(count) == 0


async def test_foreign_keys_hold(db: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        await db.run(lambda c: c.execute(parts.insert().values(id=1, thing=404)))


async def test_cancelling_the_waiter_does_not_cancel_the_unit(db: Database) -> None:
    waiter = asyncio.create_task(db.run(insert(7)))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await db.run(insert(8))
    for _ in range(200):
        if await db.read(count) == 2:
            break
        await asyncio.sleep(0.01)
    assert await db.read(count) == 2


async def test_read_modify_write_loses_nothing(db: Database) -> None:
    await db.run(lambda c: c.execute(things.insert().values(id=1, what=0)))

    def more(c: sa.Connection) -> None:
        now = c.execute(sa.select(things.c.what).where(things.c.id == 1)).scalar_one()
        c.execute(things.update().where(things.c.id == 1).values(what=now + 1))

    await asyncio.gather(*(db.run(more) for _ in range(20)))
    assert await db.read(lambda c: c.execute(sa.select(things.c.what)).scalar_one()) == 20


async def test_a_savepoint_inside_a_unit(db: Database) -> None:
    def careful(c: sa.Connection) -> None:
        insert(1)(c)
        try:
            with c.begin_nested():
                insert(1)(c)
        except sa.exc.IntegrityError:
            insert(2)(c)

    await db.run(careful)
    assert await db.read(count) == 2


@pytest.mark.postgres
async def test_what_a_column_cannot_hold_is_the_callers_mistake(postgres_url: str) -> None:
    db = Database(postgres_url)
    await asyncio.to_thread(metadata.create_all, db.engine)
    for wrong in (insert(1 << 40), lambda c: c.execute(sa.select(sa.literal("\0")))):
        with pytest.raises(BadRequest):
            await db.run(wrong)
    await db.run(insert(1))
    assert await db.read(count) == 1
    await db.close()
