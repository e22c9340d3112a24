"""PostgreSQL: units run in a small pool of threads, serializable, and again when two of them collided."""

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog

from nacre.base.db import DatabaseUnavailable, Unit, make_engine
from nacre.base.errors import BadRequest

log = structlog.get_logger()
T = TypeVar("T")

CONNECTIONS = 8
ATTEMPTS = 12
#: serialization_failure, deadlock_detected: run it again and it will do.
AGAIN = frozenset({"40001", "40P01"})
#: The server goes down, is not up yet, has no connection, memory or disk left: first letters of its states.
AWAY = ("08", "53", "57P")
#: Seconds until a server that does not answer counts as away.
PATIENCE = 10


def engine(url: str) -> sa.Engine:
    """A pooled engine at serializable isolation."""
    return make_engine(url, pool_size=CONNECTIONS, max_overflow=2, pool_pre_ping=True, isolation_level="SERIALIZABLE",
                       connect_args={"connect_timeout": PATIENCE, "application_name": "nacre"})


class Postgres:
    """The driver of `postgresql:` URLs."""

    def __init__(self, url: str):
        self.engine = engine(url)
        self._readers = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._pool = ThreadPoolExecutor(CONNECTIONS, "sql")

    async def run(self, unit: Unit[T]) -> T:
        return await self._off_loop(self.engine, unit)

    async def read(self, unit: Unit[T]) -> T:
        return await self._off_loop(self._readers, unit)

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.shutdown)
        self.engine.dispose()

    async def _off_loop(self, engine: sa.Engine, unit: Unit[T]) -> T:
        # The thread goes on when the waiter is cancelled: an accepted unit is finished.
        return await asyncio.get_running_loop().run_in_executor(self._pool, _repeat, engine, unit)


def _repeat(engine: sa.Engine, unit: Unit[T]) -> T:
    for attempt in range(ATTEMPTS):
        try:
            with engine.begin() as connection:
                return unit(connection)
        except sa.exc.DataError as error:
            # What a column cannot hold, and validation let through; its text may repeat the value.
            log.warning("a value does not fit", sqlstate=_state(error), unit=getattr(unit, "__qualname__", ""))
            raise BadRequest("A value of the request is longer or larger than can be kept.") from None
        except sa.exc.DBAPIError as error:
            state = _state(error)
            if state not in AGAIN:
                if str(state or "").startswith(AWAY) or (state is None and isinstance(error, sa.exc.OperationalError)):
                    raise DatabaseUnavailable("The database does not answer.") from error
                raise
        time.sleep(random.uniform(0, 0.002 * 2 ** min(attempt, 7)))  # noqa: S311 - jitter, not a secret
    raise DatabaseUnavailable(f"The database refused this work {ATTEMPTS} times: other work on the same rows.")


def _state(error: sa.exc.DBAPIError) -> Any:
    return getattr(error.orig, "sqlstate", None)
