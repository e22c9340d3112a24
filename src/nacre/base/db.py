"""The database: one seam for SQL. A unit of work is a plain function of a connection, run in one hop.

`await db.run(unit)` is one write transaction, `await db.read(unit)` one consistent read. A unit may be run more than
once (a group commit that failed, a serialisation conflict), so it changes nothing but the database. What it returns
is seen only after the commit.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec
import sqlalchemy as sa

from nacre.base.errors import NacreError, Unavailable

T = TypeVar("T")
Unit = Callable[[sa.Connection], T]

#: Every service's tables are declared on this.
metadata = sa.MetaData(naming_convention={
    "ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s", "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s"})


class DatabaseUnavailable(Unavailable):
    """The database cannot be opened, is locked by another program, or is out of space."""


class Driver(Protocol):
    """What an engine's own file offers."""

    engine: sa.Engine

    async def run(self, unit: Unit[T]) -> T: ...
    async def read(self, unit: Unit[T]) -> T: ...
    async def close(self) -> None: ...


def normal_url(url: str) -> str:
    """The URL with the SQL driver that we use. Raises NacreError for an engine that we do not speak."""
    for plain, ours in (("sqlite:", "sqlite:"), ("postgresql+psycopg:", "postgresql+psycopg:"),
                        ("postgresql:", "postgresql+psycopg:"), ("postgres:", "postgresql+psycopg:")):
        if url.startswith(plain):
            return ours + url[len(plain):]
    raise NacreError(f"database_url: {url.partition(':')[0]!r} is not spoken here; use sqlite:///FILE or postgresql://...")


def shown_url(url: str) -> str:
    """The URL for people's eyes: without password and options."""
    try:
        parts = sa.make_url(normal_url(url))
    except (sa.exc.ArgumentError, ValueError):
        return url.partition(":")[0]
    return parts.set(drivername=parts.get_backend_name(), password=None, query={}).render_as_string()


def make_engine(url: str, **rest: Any) -> sa.Engine:
    """An engine whose JSON columns go through msgspec, and whose errors repeat no values. Raises NacreError."""
    try:
        return sa.create_engine(
            normal_url(url), json_serializer=lambda v: msgspec.json.encode(v).decode(),
            json_deserializer=msgspec.json.decode, hide_parameters=True, **rest)
    except (sa.exc.ArgumentError, ValueError):
        raise NacreError("database_url cannot be understood; it looks like "
                         "postgresql://USER:PASSWORD@HOST:5432/DATABASE, with %40 for an @ in the password.") from None


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
        """What `unit` returns, seen in one snapshot. It must not write."""
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
    from nacre.base.engines import postgres, sqlite
    if url.startswith("sqlite"):
        return Inline(sqlite.engine(url)) if inline else sqlite.Sqlite(url)
    return Inline(postgres.engine(url)) if inline else postgres.Postgres(url)
