"""Reads and writes of identity, and the knowledge of when what was remembered is out of date."""

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.errors import BadRequest, Conflict
from nacre.identity import tables as t

T = TypeVar("T")

#: Begins so many seconds after the epoch: a write a second, at most, over the life of a history.
BEGIN = 1_577_836_800  # 2020
_SECONDS = sa.cast(sa.extract("epoch", sa.func.current_timestamp()), sa.Integer) - BEGIN
_LEAP = sa.update(t.revision).values(value=sa.case(
    (t.revision.c.value < _SECONDS, _SECONDS), else_=t.revision.c.value + 1))

#: How long another process may go on believing what this one has changed, in seconds.
POLL_SECONDS = 1.0


class Store:
    """The database with a generation: it rises with every write, here at once, elsewhere within POLL_SECONDS."""

    def __init__(self, db: Database, clock: Clock):
        self.db, self.clock = db, clock
        self.generation = 0
        self._seen, self._looked_at = -1, float("-inf")

    async def open(self) -> None:
        """To be called at each start of a process. Counting goes on past whatever a history counted that was lost
        since: one that ran here until a backup was restored. Its tokens are void once what they rest on ends here."""
        await self.db.run(lambda conn: conn.execute(_LEAP))

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.clock.now().timestamp()

    async def read(self, unit: Callable[[sa.Connection], T]) -> T:
        """What `unit` returns."""
        try:
            return await self.db.read(unit)
        except sa.exc.DataError:
            raise BadRequest("A value is not one that can be stored or looked up.") from None

    async def write(self, unit: Callable[[sa.Connection], T]) -> T:
        """What `unit` returns, committed. Raises Conflict for a name or id that is taken."""
        def counted(conn: sa.Connection) -> T:
            result = unit(conn)
            bump(conn)
            return result
        try:
            return await self.db.run(counted)
        except sa.exc.IntegrityError:
            raise Conflict("Conflict occurred attempting to store the resource - Duplicate entry found.") from None
        except sa.exc.DataError:
            raise BadRequest("A value is not one that can be stored.") from None
        finally:
            self.generation += 1

    async def refresh(self) -> None:
        """Notice the writes of other processes."""
        now = self.clock.monotonic()
        if now - self._looked_at < POLL_SECONDS:
            return
        self._looked_at = now
        value = await self.db.read(lambda conn: conn.scalar(sa.select(t.revision.c.value)))
        if value != self._seen:
            self._seen = -1 if value is None else value
            self.generation += 1


def bump(conn: sa.Connection) -> None:
    """Count a write."""
    if not conn.execute(sa.update(t.revision).values(value=t.revision.c.value + 1)).rowcount:
        conn.execute(sa.insert(t.revision).values(id=1, value=1))
