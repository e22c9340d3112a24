"""SQLite, durable and fast: one writer thread commits the units that wait as one group, each in a savepoint.

The driver's own transactions are off (they break savepoints), BEGIN IMMEDIATE is ours. Results leave the thread only
after COMMIT. A group that fails as a whole is run again unit by unit, so that one bad unit harms nobody else.
Reads are done in the loop, on a connection of their own: WAL lets them read while the writer writes, and one takes less
time than to hand it to a thread and back (ADR 0008). A file that another program holds is waited for in a thread.
"""

import asyncio
import sqlite3
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from nacre.base.db.engine import DatabaseUnavailable, Unit, make_engine
from nacre.base.db.group import GroupWriter, Job

T = TypeVar("T")

AWAY = "The database cannot be used now. Try again."
#: How long another program (a migration, a backup) may hold the file, in ms.
BUSY_MS = 30_000


def is_memory(url: str) -> bool:
    """Whether the database lives in this process only."""
    database = sa.make_url(url).database
    return database in (None, "", ":memory:")


def engine(url: str, begin: str = "BEGIN IMMEDIATE", busy_ms: int = BUSY_MS) -> sa.Engine:
    """An engine of one connection, whose transactions start with `begin`. busy_ms: how long it waits for a lock."""
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": busy_ms / 1000}}
    if is_memory(url):
        options["poolclass"] = StaticPool
    else:
        options |= {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
    made = make_engine(url, **options)

    @sa.event.listens_for(made, "connect")
    def connected(raw: Any, _: Any) -> None:
        raw.isolation_level = None
        for pragma in ("foreign_keys=ON", f"busy_timeout={busy_ms}", "journal_mode=WAL", "synchronous=FULL",
                       "temp_store=MEMORY", "cache_size=-8000", "secure_delete=ON"):
            raw.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(made, "begin")
    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return made


class Sqlite:
    """The driver of `sqlite:` URLs."""

    def __init__(self, url: str):
        self.engine = engine(url)
        self._memory = is_memory(url)
        self._writer = GroupWriter(self._group)
        self._reader = engine(url, "BEGIN", busy_ms=0)
        self._patient = engine(url, "BEGIN")

    async def run(self, unit: Unit[T]) -> T:
        return await self._writer.run(unit)

    async def read(self, unit: Unit[T]) -> T:
        if self._memory:
            return await self.run(unit)
        try:
            return _read(self._reader, unit)
        except sa.exc.DatabaseError as error:
            if _code(error) != sqlite3.SQLITE_BUSY:
                raise _translated(error) from error.__cause__
        try:
            return await asyncio.to_thread(_read, self._patient, unit)
        except sa.exc.DatabaseError as error:
            raise _translated(error) from error.__cause__

    async def close(self) -> None:
        await self._writer.close()
        for each in (self.engine, self._reader, self._patient):
            each.dispose()

    def _group(self, jobs: list[Job]) -> bool:
        """Run the jobs and commit them together. False: nothing happened, and each may be run again by itself."""
        try:
            with self.engine.connect() as connection, connection.begin():
                raw = connection.connection.dbapi_connection
                assert raw is not None
                for job in jobs:
                    _run(job, connection, raw)
        except Exception as error:
            for job in jobs:
                job.result, job.error = None, _translated(error)
            return len(jobs) == 1
        return True


def _read(reader: sa.Engine, unit: Unit[T]) -> T:
    with reader.connect() as connection:
        return unit(connection)


class _RolledBack(Exception):
    """SQLite gave up the whole transaction in the middle of a unit (disk full, out of memory)."""


def _run(job: Job, connection: sa.Connection, raw: Any) -> None:
    job.result = job.error = None
    raw.execute("SAVEPOINT unit")
    try:
        job.result = job.unit(connection)
    except BaseException as error:
        if not raw.in_transaction:
            raise _RolledBack(str(error)) from error
        raw.execute("ROLLBACK TO unit")
        job.error = _translated(error)
    raw.execute("RELEASE unit")


def _code(error: sa.exc.DatabaseError) -> int:
    """SQLite's, without the part that says more of why."""
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xff


def _translated(error: BaseException) -> BaseException:
    """What SQLite cannot do now, or with this file, is no verdict on what was asked. A statement that is wrong (no such
    table) stays an error of its own."""
    if isinstance(error, _RolledBack):
        return DatabaseUnavailable(AWAY, details=f"It gave up a transaction: {error}")
    if not isinstance(error, sa.exc.DatabaseError) or _code(error) == sqlite3.SQLITE_ERROR:
        return error
    if isinstance(error, sa.exc.OperationalError) or type(error) is sa.exc.DatabaseError:
        return DatabaseUnavailable(AWAY, details=str(error.orig))
    return error
