"""What changed is written where it changes, in the same transaction; whoever must know of it reads on from where it
was. A message only says "look", so a lost one costs time and nothing else.

Writes of a cloud are one after the other on both engines (ADR 0009), so the numbers commit in their order.
"""

import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.durable.tables import changes, last_changes
from nacre.base.errors import Interrupted

log = structlog.get_logger()

#: Seconds between two looks, and for how long rows are kept.
POLL, KEEP = 0.25, 900.0
#: Rows of one look.
MOST = 2000

_C = changes.c
_POSITION = sa.select(sa.func.coalesce(sa.func.max(_C.n), 0))
_L = last_changes.c
_LATEST = sa.select(_L.id, _L.n).where(_L.kind == sa.bindparam("is"), _L.n > sa.bindparam("after"))
_LATEST_OF = _LATEST.where(_L.id.in_(sa.bindparam("ids", expanding=True)))
_MOVE = sa.update(last_changes).where(
    _L.kind == sa.bindparam("is"), _L.id.in_(sa.bindparam("ids", expanding=True))).values(n=sa.bindparam("to"))
_SINCE = sa.select(_C.n, _C.kind, _C.id).where(_C.n > sa.bindparam("seen")).order_by(_C.n).limit(MOST)


class Change(msgspec.Struct, frozen=True):
    """Something of a kind (server, allocation, host, wiring, ...) is not as it was."""

    n: int
    kind: str
    id: str


#: Told of changes, all of kinds that it asked for, in their order.
Reader = Callable[[Sequence[Change]], Awaitable[None]]


def note(connection: sa.Connection, now: datetime, *what: tuple[str, str], project_id: str = "") -> None:
    """Write down what this transaction changes: (kind, id), ..."""
    if what:
        statements.insert(connection, changes, [
            {"kind": kind, "id": id, "project_id": project_id, "at": now} for kind, id in what])


def chain(connection: sa.Connection, now: datetime, kind: str, ids: Collection[str]) -> tuple[int, dict[str, int]]:
    """One change of all of these, noted without an id. Its number, and for each id that of the change before (absent:
    none): who has taken in that one and hears of this one has missed nothing."""
    note(connection, now, (kind, ""))
    n, before = position(connection), latest(connection, kind, ids=ids)
    if before:
        connection.execute(_MOVE, {"is": kind, "ids": list(before), "to": n})
    if fresh := sorted(set(ids) - before.keys()):
        statements.insert(connection, last_changes, [{"kind": kind, "id": id, "n": n} for id in fresh])
    return n, before


def latest(connection: sa.Connection, kind: str, after: int = 0, ids: Collection[str] | None = None) -> dict[str, int]:
    """The number of the last change of each thing of a kind, or of these, that changed after that number."""
    asked = {"is": kind, "after": after}
    rows = connection.execute(_LATEST, asked) if ids is None else connection.execute(
        _LATEST_OF, asked | {"ids": list(ids)})
    return {row[0]: row[1] for row in rows}


def position(connection: sa.Connection) -> int:
    """How far this database has come. One that is lower than before is of a database that was restored."""
    return int(connection.execute(_POSITION).scalar_one())


class _Subscription(msgspec.Struct):
    kinds: Collection[str]
    read: Reader
    reload: Callable[[], Awaitable[None]]
    seen: int = 0
    at: float = 0.0


class Changes:
    """Reads on. Subscribe before `start`; each reader goes on by itself where another fails."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock
        self._subscriptions: list[_Subscription] = []
        self._seen, self._trimmed = 0, 0.0

    def subscribe(self, kinds: Collection[str], read: Reader, reload: Callable[[], Awaitable[None]]) -> None:
        """read: what came since; reload: everything anew, after a silence too long for rows to have been kept."""
        self._subscriptions.append(_Subscription(frozenset(kinds), read, reload))

    @property
    def seen(self) -> int:
        """How far the database was at the last look."""
        return self._seen

    async def latest(self, kind: str, after: int = 0) -> dict[str, int]:
        """As the function of this name."""
        return await self._db.read(lambda connection: latest(connection, kind, after))

    async def start(self) -> None:
        """What was before now is not told: readers load it when they start, after this."""
        self._seen, at = await self._db.read(position), self._clock.monotonic()
        for each in self._subscriptions:
            each.seen, each.at = self._seen, at

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(POLL)
            with contextlib.suppress(Interrupted):
                await self.look()
                await self._trim()

    async def look(self) -> None:
        """Tell what came since the last look. Raises Interrupted."""
        if not self._subscriptions:
            return
        seen = min(s.seen for s in self._subscriptions)
        rows = [Change(*row) for row in await self._db.read(lambda c: c.execute(_SINCE, {"seen": seen}).all())]
        if rows:
            self._seen = max(self._seen, rows[-1].n)
        for each in self._subscriptions:
            await self._tell(each, rows)

    async def _tell(self, to: _Subscription, rows: Sequence[Change]) -> None:
        now = self._clock.monotonic()
        try:
            if now - to.at > KEEP / 2:
                await to.reload()
            elif mine := [row for row in rows if row.n > to.seen and row.kind in to.kinds]:
                await to.read(mine)
        except Interrupted:
            raise
        except Exception:
            log.exception("changes could not be taken in; they are told again", kinds=sorted(to.kinds))
            return
        to.at = now
        if rows:
            to.seen = max(to.seen, rows[-1].n)

    async def _trim(self) -> None:
        if self._clock.monotonic() - self._trimmed < KEEP / 10:
            return
        self._trimmed = self._clock.monotonic()
        before = self._clock.now().replace(tzinfo=None) - timedelta(seconds=KEEP)
        await self._db.run(lambda c: c.execute(sa.delete(changes).where(
            _C.at < before, _C.n < sa.select(sa.func.max(_C.n)).scalar_subquery())))
