"""PostgreSQL, with SQLite's promises: units wait for one lane, which all control processes of a database share, and
those that wait together are committed together. Reads go beside it, each in a snapshot of its own.

The lane is an advisory lock that a transaction takes before its first snapshot. So a unit is alone while it runs, as a
rule that spans rows needs (a quota, overlapping subnets), and nothing is ever run again for a conflict (ADR 0009).

Who holds the lane and falls silent loses it, with its transaction: a frozen or cut-off process stops the others no
longer than `SILENCE`. Units whose connection is lost are run once more, unless it was lost while they were committed
and the server says that they are.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

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
#: Milliseconds after which the lane's holder has lost it: without a next statement, or with answers that it takes not.
SILENCE = 1200
#: Takes the lane, and says how the server will know the transaction later.
LANE = ("SELECT set_config('lock_timeout', '30s', true), "
        f"set_config('idle_in_transaction_session_timeout', '{SILENCE}', true), "
        f"set_config('tcp_user_timeout', '{SILENCE}', true), pg_advisory_xact_lock(7881692345), "
        "pg_current_xact_id()::text, pg_postmaster_start_time()::text")
#: What libpq is told: who asks, and that a server which a cut hides is noticed by keepalives, not after two hours.
CONNECT = {"connect_timeout": PATIENCE, "application_name": "nacre", "keepalives_idle": 5, "keepalives_interval": 2,
           "keepalives_count": 3, "tcp_user_timeout": PATIENCE * 1000}


class Mark(NamedTuple):
    """A transaction that has the lane, as this life of the server knows it."""

    number: str
    server: str


def _engine(url: str, isolation: str, connections: int) -> sa.Engine:
    return make_engine(url, pool_size=connections, max_overflow=2, isolation_level=isolation, connect_args=CONNECT)


def engine(url: str) -> sa.Engine:
    """An engine whose transactions take the lane; each of their statements sees all that was committed before."""
    made = _engine(url, "READ COMMITTED", 1)

    @sa.event.listens_for(made, "begin")
    def begun(connection: sa.Connection) -> None:
        connection.info[Mark] = Mark(*connection.exec_driver_sql(LANE).one()[-2:])

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
            done: Mark | None = None
            try:
                with self.engine.begin() as connection:
                    for job in jobs:
                        _run(job, connection, alone=len(jobs) == 1)
                    done = connection.info[Mark]
                return True
            except BaseException as error:
                if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
                    committed = self._committed(done) if done else False
                    if committed:
                        return True
                    if again and committed is False:
                        log.info("the lane was lost, and is taken again", reason=str(error.orig).strip())
                        continue
                away = False
                for job in jobs:
                    job.result, job.error = None, _translated(error, job.unit)
                    away = isinstance(job.error, DatabaseUnavailable)
                return away or len(jobs) == 1
        raise AssertionError("not reached")

    def _committed(self, mark: Mark) -> bool | None:
        """Whether a transaction was committed whose end was not heard. Who has the lane finds it decided. None: nobody
        can say, as the server cannot be reached, or was started anew and may have given the number to another."""
        try:
            with self.engine.begin() as connection:
                if connection.info[Mark].server != mark.server:
                    return None
                status = connection.execute(_STATUS, {"number": mark.number}).scalar_one()
        except sa.exc.DBAPIError:
            return None
        return None if status is None else bool(status == "committed")


_STATUS = sa.text("SELECT pg_xact_status(CAST(:number AS xid8))")


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
