"""One database for all: a way to it for each process, which takes time and can be cut; and what must hold after every
single statement, watched by the database itself."""

import asyncio
import random
from typing import Any

import sqlalchemy as sa

from nacre.base.db import Database, DatabaseUnavailable

#: Seconds to it, or back; and how often the way back counts, so that a process can die or stand still on it.
WAY, LINGER = 0.001, 0.2

#: Laws that no statement may break. OLD and NEW as in SQLite's triggers.
_WATCH = {
    "two live allocations": ("insert on allocations", "NEW.state in ('wanted', 'held') and (select count(*) from "
                             "allocations where server_id = NEW.server_id and state in ('wanted', 'held')) > 1",
                             "NEW.server_id"),
    "an ending allocation lives again": ("update of state on allocations", "OLD.state = 'ending' and NEW.state != "
                                         "'ending'", "NEW.server_id"),
    "the room of a living server is given up": (
        "update of state on allocations", "NEW.state = 'ending' and OLD.state = 'held' and exists (select 1 from "
        "servers where id = NEW.server_id and not deleted and allocation_id = NEW.id and coalesce(task_state, '') != "
        "'deleting')", "NEW.server_id"),
    "room is forgotten before its host confirmed": ("delete on allocations", "OLD.state != 'ending'", "OLD.server_id"),
    "older news of a guest's power count": (
        "update on servers", "NEW.allocation_id = OLD.allocation_id and (NEW.power_incarnation < "
        "OLD.power_incarnation or (NEW.power_incarnation = OLD.power_incarnation and NEW.power_n < OLD.power_n))",
        "NEW.id"),
    "an epoch goes back": ("update of epoch on servers", "NEW.epoch < OLD.epoch", "NEW.id"),
    "a deleted server comes back": ("update on servers", "OLD.deleted and not NEW.deleted", "NEW.id"),
}


def watch(engine: sa.Engine) -> None:
    """Let the database note who breaks a law."""
    with engine.begin() as connection:
        connection.exec_driver_sql("create table broken (law text, what text)")
        for number, (law, (event, when, what)) in enumerate(_WATCH.items()):
            connection.exec_driver_sql(
                f"create trigger watch_{number} after {event} when {when} begin "
                f"insert into broken values ('{law.replace(chr(39), chr(39) * 2)}', {what}); end")


def broken(db: Database) -> list[tuple[str, str]]:
    """What it noted: (law, server id)."""
    with db.engine.connect() as connection:
        return [(row[0], row[1]) for row in connection.exec_driver_sql("select law, what from broken")]


class Way(Database):
    """A process's way to the database. share: how many visits fail, before or after they did what they should."""

    def __init__(self, db: Database, dice: random.Random):
        self.url, self._db, self._dice = db.url, db, dice
        self.share = 0.0

    @property
    def engine(self) -> sa.Engine:
        return self._db.engine

    async def run(self, unit: Any) -> Any:
        return await self._visit(self._db.run, unit)

    async def read(self, unit: Any) -> Any:
        return await self._visit(self._db.read, unit)

    async def _visit(self, do: Any, unit: Any) -> Any:
        await asyncio.sleep(2 * WAY)
        fate = self._dice.random() if self.share else 1.0
        if fate < self.share / 2 or self.share == 1.0:
            raise DatabaseUnavailable("the database is away")
        found = await do(unit)
        if self._dice.random() < LINGER:
            await asyncio.sleep(WAY)
        if fate < self.share:
            raise DatabaseUnavailable("the database went away before it answered")
        return found

    async def close(self) -> None:
        return None
