"""Stories: what was accepted and is not finished. One runner at a time, and every write of a runner says which one.

A story belongs to a process in one of its generations, and its epoch counts how often it was taken. A verb by which a
story changes anything calls `Lease.check` in its own transaction: a runner that was frozen, cut off or started anew,
and whose story another has taken meanwhile, changes nothing any more. There is no lease a story to renew: a process
that is silent for too long (`processes.LEASE`) has lost all that it held.

An order's bytes may hold an admin password and files: they are never logged, and go with the story.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from uuid import uuid4

import msgspec
import sqlalchemy as sa

from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.durable.processes import Processes, database_now
from nacre.base.durable.tables import processes, stories
from nacre.base.errors import Interrupted

#: Stories that one look of one process takes up, so that several share what a dead one left.
AT_ONCE = 100
#: So many times a story may stop for no known reason; after the n-th it rests 2 to the n seconds.
TRIES = 5
#: Seconds until one is taken up again that waits for something else.
REST = 2.0
#: A story of ours that does not run here after this time (seconds) was committed without our hearing of it.
UNHEARD = 5.0


class LeaseLost(Interrupted):
    """Another runner has the story, or it is finished."""


class Lease(msgspec.Struct, frozen=True):
    """The right to write on behalf of a story."""

    story: str
    process: str
    generation: int
    epoch: int

    def check(self, connection: sa.Connection) -> None:
        """Raises LeaseLost unless it stands in this transaction."""
        if connection.execute(_HELD, msgspec.structs.asdict(self)).first() is None:
            raise LeaseLost(f"Story {self.story} is another runner's now.")


class Story(msgspec.Struct, frozen=True):
    """A story that this process may run. kind: build, delete, power; failures: how often it stopped for no reason."""

    lease: Lease
    kind: str
    order: bytes
    failures: int = 0

    @property
    def id(self) -> str:
        return self.lease.story


_S, _P = stories.c, processes.c
_HELD = sa.select(_S.epoch).where(
    _S.id == sa.bindparam("story"), _S.owner == sa.bindparam("process"), _S.generation == sa.bindparam("generation"),
    _S.epoch == sa.bindparam("epoch"))
#: Of those that are not set aside and may be tried: free ones, and those whose owner is dead or in another life.
_FREE = sa.select(_S.id, _S.epoch).join_from(stories, processes, _P.id == _S.owner, isouter=True).where(
    _S.set_aside.is_(None), sa.or_(_S.not_before.is_(None), _S.not_before <= sa.bindparam("now")),
    sa.or_(_P.id.is_(None), _P.generation != _S.generation, _P.lease_until < sa.bindparam("now"))).order_by(
        _S.created_at).limit(AT_ONCE)
_OURS = sa.select(_S.id, _S.epoch).where(
    _S.owner == sa.bindparam("me"), _S.generation == sa.bindparam("life"), _S.created_at < sa.bindparam("before"),
    _S.set_aside.is_(None))


def finish(connection: sa.Connection, lease: Lease) -> None:
    """The story is over, in the transaction that ends it. Raises LeaseLost."""
    if not statements.delete(connection, stories, id=lease.story, owner=lease.process, generation=lease.generation,
                             epoch=lease.epoch):
        raise LeaseLost(f"Story {lease.story} is another runner's now.")


class Stories:
    """The stories of this process, and those that nobody runs."""

    def __init__(self, db: Database, clock: Clock, processes: Processes):
        self._db, self._clock, self._processes = db, clock, processes

    def insert(self, connection: sa.Connection, kind: str, order: bytes, now: datetime) -> Story:
        """Write a story inside the transaction that accepts it. It is this process's, to be run after the commit."""
        me = self._processes.runner
        lease = Lease(str(uuid4()), me.process, me.generation, 1)
        statements.insert(connection, stories, {
            "id": lease.story, "kind": kind, "order": order, "created_at": now, "owner": me.process,
            "generation": me.generation, "epoch": 1, "failures": 0, "not_before": None, "set_aside": None})
        return Story(lease, kind, order)

    async def take_free(self, running: Collection[str]) -> list[Story]:
        """The stories that nobody runs, taken by us, oldest first. running: those that run here."""
        me = self._processes.runner

        def look(connection: sa.Connection) -> list[tuple[str, int]]:
            now = database_now(connection, self._clock)
            unheard = connection.execute(_OURS, {"me": me.process, "life": me.generation,
                                                 "before": now - timedelta(seconds=UNHEARD)}).all()
            found = [*connection.execute(_FREE, {"now": now}).all(), *(r for r in unheard if r.id not in running)]
            return [(row.id, row.epoch) for row in found]

        def take(connection: sa.Connection) -> list[Story]:
            return [story for id, epoch in free if (story := _take(connection, id, epoch)) is not None]

        def _take(connection: sa.Connection, id: str, epoch: int) -> Story | None:
            if not statements.update(connection, stories, {
                    "owner": me.process, "generation": me.generation}, "epoch", id=id, epoch=epoch):
                return None  # another was first, or it is finished
            row = statements.one(connection, stories, id=id)
            assert row is not None
            return Story(Lease(id, me.process, me.generation, epoch + 1), row["kind"], row["order"], row["failures"])

        free = await self._db.read(look)
        return await self._db.run(take) if free else []

    async def failed(self, story: Story) -> None:
        """It stopped for no known reason: it is tried again later, ever more seldom."""
        await self._later(story, 2 ** (story.failures + 1), failures=story.failures + 1)

    async def rest(self, story: Story) -> None:
        """It cannot go on yet: it is taken up again after a rest."""
        await self._later(story, REST)

    async def _later(self, story: Story, seconds: float, **values: object) -> None:
        def unit(connection: sa.Connection) -> None:
            _let_go(connection, story.lease, {"owner": None, **values, "not_before": database_now(
                connection, self._clock) + timedelta(seconds=seconds)})

        await self._db.run(unit)

    async def set_aside(self, story: Story, why: str) -> None:
        """Nobody can run it: it is kept for an operator to look at."""
        await self._let_go(story, {"set_aside": why[:255]})

    async def aside(self) -> list[tuple[str, str, str]]:
        """What was set aside: (id, kind, why)."""
        return await self._db.read(lambda connection: [tuple(row) for row in connection.execute(sa.select(
            _S.id, _S.kind, _S.set_aside).where(_S.set_aside.is_not(None)).order_by(_S.created_at))])

    async def _let_go(self, story: Story, values: Mapping[str, object]) -> None:
        await self._db.run(lambda connection: _let_go(connection, story.lease, values))


def _let_go(connection: sa.Connection, lease: Lease, values: Mapping[str, object]) -> None:
    statements.update(connection, stories, values, id=lease.story, owner=lease.process, generation=lease.generation,
                      epoch=lease.epoch)
