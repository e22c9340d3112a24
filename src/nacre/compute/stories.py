"""Stories: what was accepted and is not finished yet. One runner at a time, by lease; the epoch fences the one before.

An order's blob may hold an admin password and files: it is never logged, and goes with the story.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import sqlalchemy as sa

from nacre.base import statements
from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.compute.contract import Story, StoryOrder
from nacre.compute.tables import stories

#: A runner renews its lease well within this time; another takes over after it. Seconds.
LEASE_SECONDS = 30.0

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoryOrder).decode


def insert_story(connection: sa.Connection, kind: str, order: StoryOrder, now: datetime) -> str:
    """Write a story inside the transaction that accepts it; its id. kind: build, delete or power."""
    story_id = str(uuid4())
    statements.insert(connection, stories, {
        "id": story_id, "kind": kind, "order": _encode(order), "created_at": now, "owner": None, "lease_until": None,
        "epoch": 0})
    return story_id

_C = stories.c
_TAKE = sa.update(stories).where(
    _C.id == sa.bindparam("story"), sa.or_(_C.owner.is_(None), _C.lease_until < sa.bindparam("now"))).values(
        owner=sa.bindparam("me"), lease_until=sa.bindparam("until"), epoch=_C.epoch + 1)


class Stories:
    """Leases on stories. owner: this process's name, the same after its restart."""

    def __init__(self, db: Database, clock: Clock, owner: str):
        self._db, self._clock, self.owner = db, clock, owner

    async def take(self, story_id: str) -> Story | None:
        """The story, leased to this process; None if it is finished or another holds it."""
        now = self._clock.now().replace(tzinfo=None)

        def unit(connection: sa.Connection) -> Any:
            if not connection.execute(_TAKE, {"story": story_id, "now": now, "me": self.owner,
                                              "until": now + timedelta(seconds=LEASE_SECONDS)}).rowcount:
                return None
            return statements.one(connection, stories, id=story_id)

        row = await self._db.run(unit)
        if row is None:
            return None
        return Story(id=row["id"], kind=row["kind"], order=_decode(row["order"]), epoch=row["epoch"])

    async def renew(self, story: Story) -> bool:
        """Hold on to the lease. False: it is another's now, stop."""
        c = stories.c
        until = self._clock.now().replace(tzinfo=None) + timedelta(seconds=LEASE_SECONDS)
        done = await self._db.run(lambda connection: connection.execute(sa.update(stories).where(
            c.id == story.id, c.owner == self.owner, c.epoch == story.epoch).values(lease_until=until)).rowcount)
        return bool(done)

    async def release(self, story: Story) -> None:
        """Let another try, or this process later."""
        c = stories.c
        await self._db.run(lambda connection: connection.execute(sa.update(stories).where(
            c.id == story.id, c.epoch == story.epoch).values(owner=None, lease_until=None)))

    async def finish(self, story: Story) -> None:
        """The story is told."""
        await self._db.run(lambda connection: statements.delete(connection, stories, id=story.id, epoch=story.epoch))

    async def take_back(self) -> None:
        """At a start: the leases that this process held before it died are free again."""
        await self._db.run(lambda connection: connection.execute(
            sa.update(stories).where(stories.c.owner == self.owner).values(owner=None, lease_until=None)))

    async def waiting(self, told: Collection[str]) -> tuple[str, ...]:
        """The stories that nobody runs, oldest first. told: those that this process runs: a lease of its own on any
        other was committed without its hearing of it, as the database went away, and is given back."""
        now, c = self._clock.now().replace(tzinfo=None), stories.c
        rows = await self._db.read(lambda connection: connection.execute(
            sa.select(c.id, c.owner).where(sa.or_(c.owner.is_(None), c.owner == self.owner, c.lease_until < now))
            .order_by(c.created_at)).all())
        free = [row for row in rows if row.id not in told]
        if unheard := [row.id for row in free if row.owner == self.owner]:
            await self._db.run(lambda connection: connection.execute(sa.update(stories).where(
                c.id.in_(unheard), c.owner == self.owner).values(owner=None, lease_until=None)))
        return tuple(row.id for row in free)
