"""The database: one seam for SQL. A unit of work is a plain function of a connection, run in one hop.

`await db.run(unit)` is one write transaction, `await db.read(unit)` one consistent read. A unit may be run more than
once (a group commit that failed, a connection that was lost), so it changes nothing but the database. What it returns
is seen only after the commit.
"""

from typing import Protocol

import sqlalchemy as sa

from nacre.base.db import postgres, sqlite
from nacre.base.db.engine import (
    DatabaseUnavailable,
    T,
    Unit,
    make_engine,
    metadata,
    normal_url,
    shown_url,
)

__all__ = ["Database", "DatabaseUnavailable", "Unit", "make_engine", "metadata", "normal_url", "shown_url"]


class Driver(Protocol):
    """What an engine's own file offers."""

    engine: sa.Engine

    async def run(self, unit: Unit[T]) -> T: ...
    async def read(self, unit: Unit[T]) -> T: ...
    async def close(self) -> None: ...


class Database:
    """A SQLite file (`sqlite:///path`, `sqlite://` in memory) or a PostgreSQL database.

    inline: run units at once in the caller's thread, so that a simulation is one sequence of events.
    """

    def __init__(self, url: str, *, inline: bool = False):
        self.url = normal_url(url)
        self._driver = _driver(self.url, inline)

    @property
    def engine(self) -> sa.Engine:
        """SQLAlchemy's engine, for migrations and tests."""
        return self._driver.engine

    async def run(self, unit: Unit[T]) -> T:
        """What `unit` returns, once its transaction is committed. Its exceptions roll back its own work only.

        Raises DatabaseUnavailable. Cancelling the waiter does not cancel the unit.
        """
        return await self._driver.run(unit)

    async def read(self, unit: Unit[T]) -> T:
        """What `unit` returns, seen in one snapshot. It must not write. Raises DatabaseUnavailable."""
        return await self._driver.read(unit)

    async def close(self) -> None:
        """Finish what was accepted, then let go of the connections."""
        await self._driver.close()


class Inline:
    """Any engine, one connection, in the loop: deterministic, for the simulator."""

    def __init__(self, engine: sa.Engine):
        self.engine = engine

    async def run(self, unit: Unit[T]) -> T:
        with self.engine.begin() as connection:
            return unit(connection)

    async def read(self, unit: Unit[T]) -> T:
        with self.engine.connect() as connection:
            return unit(connection)

    async def close(self) -> None:
        self.engine.dispose()


def _driver(url: str, inline: bool) -> Driver:
    if url.startswith("sqlite"):
        return Inline(sqlite.engine(url)) if inline else sqlite.Sqlite(url)
    return Inline(postgres.engine(url)) if inline else postgres.Postgres(url)
