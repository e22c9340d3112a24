"""PostgreSQL, with SQLite's promises: units wait for one lane, which all control processes of a database share, and
those that wait together are committed together. Reads go beside it, each in a snapshot of its own.

The lane is an advisory lock that a transaction takes before its first snapshot. So a unit is alone while it runs, as a
rule that spans rows needs (a quota, overlapping subnets), and nothing is ever run again for a conflict (ADR 0009).
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog

from nacre.base.db.engine import DatabaseUnavailable, Unit, make_engine
from nacre.base.db.group import GroupWriter, Job
from nacre.base.errors import BadRequest

log = structlog.get_logger()
T = TypeVar("T")

READERS = 8
#: The server goes down, is not up yet, has no connection, memory or disk left, or the lane was not free in time: first
#: letters of its states.
AWAY = ("08", "53", "57P", "55P03", "25P03")
#: Seconds until a server that does not answer counts as away.
PATIENCE = 10
#: Takes the lane. Whoever holds it and falls silent loses it, with its transaction, so that others go on.
LANE = ("SELECT set_config('lock_timeout', '30s', true), "
        "set_config('idle_in_transaction_session_timeout', '15s', true), pg_advisory_xact_lock(7881692345)")


def _engine(url: str, isolation: str, connections: int) -> sa.Engine:
    return make_engine(url, pool_size=connections, max_overflow=2, isolation_level=isolation,
                       connect_args={"connect_timeout": PATIENCE, "application_name": "nacre"})


def engine(url: str) -> sa.Engine:
    """An engine whose transactions take the lane; each of their statements sees all that was committed before."""
    made = _engine(url, "READ COMMITTED", 1)

    @sa.event.listens_for(made, "begin")
    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql(LANE)

    return made


class Postgres:
    """The driver of `postgresql:` URLs."""

    def __init__(self, url: str):
        self.engine = engine(url)
        self._readers = _engine(url, "REPEATABLE READ", READERS).execution_options(postgresql_readonly=True)
        self._pool = ThreadPoolExecutor(READERS, "sql-read")
        self._writer = GroupWriter(self._group)

    async def run(self, unit: Unit[T]) -> T:
        return await self._writer.run(unit)

    async def read(self, unit: Unit[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, unit)

    async def close(self) -> None:
        await self._writer.close()
        await asyncio.to_thread(self._pool.shutdown)
        self.engine.dispose()
        self._readers.dispose()

    def _read(self, unit: Unit[T]) -> T:
        for again in (True, False):
            try:
                with self._readers.connect() as connection:
                    return unit(connection)
            except sa.exc.DBAPIError as error:
                if not (again and error.connection_invalidated):  # the server was started anew since the last read
                    raise _translated(error, unit) from None
        raise AssertionError("not reached")

    def _group(self, jobs: list[Job]) -> bool:
        """Run the jobs and commit them together. False: nothing happened, and each may be run again by itself."""
        for again in (True, False):
            begun = False
            try:
                with self.engine.begin() as connection:
                    begun = True
                    for job in jobs:
                        _run(job, connection, alone=len(jobs) == 1)
                    return True
            except BaseException as error:
                if again and not begun and isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
                    continue
                away = False
                for job in jobs:
                    job.result, job.error = None, _translated(error, job.unit)
                    away = isinstance(job.error, DatabaseUnavailable)
                return away or len(jobs) == 1
        raise AssertionError("not reached")


def _run(job: Job, connection: sa.Connection, *, alone: bool) -> None:
    """One unit, in a savepoint unless it is alone. Raises only what ends the whole transaction."""
    job.result = job.error = None
    if alone:
        job.result = job.unit(connection)
        return
    try:
        with connection.begin_nested():
            job.result = job.unit(connection)
    except BaseException as error:
        job.error = _translated(error, job.unit)
        if isinstance(job.error, DatabaseUnavailable):
            raise


def _translated(error: BaseException, unit: Unit[Any]) -> BaseException:
    if not isinstance(error, sa.exc.DBAPIError):
        return error
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if isinstance(error, sa.exc.DataError):
        # What a column cannot hold, and validation let through. The engine's own words may repeat the value.
        log.warning("a value does not fit", sqlstate=state, unit=getattr(unit, "__qualname__", ""))
        return BadRequest("A value of the request is longer or larger than can be kept.")
    if state.startswith(AWAY) or (not state and isinstance(error, sa.exc.OperationalError)):
        log.warning("the database does not answer", sqlstate=state, reason=str(error.orig).strip())
        return DatabaseUnavailable("The database does not answer. Try again.")
    return error
