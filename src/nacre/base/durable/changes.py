"""What changed is written where it changes, in the same transaction; whoever must know of it reads on from where it
was. A message only says "look", so a lost one costs time and nothing else.

Writes of a cloud are one after the other on both engines (ADR 0009), so the numbers commit in their order.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.durable import eras
from nacre.base.durable.eras import Position
from nacre.base.durable.tables import changes, last_changes
from nacre.base.errors import Interrupted

log = structlog.get_logger()

#: Seconds between two looks, and for how long rows are kept.
POLL, KEEP = 0.25, 900.0
#: Rows of one look.
MOST = 2000
#: Rows that are remembered, to know from where on a restored database is another one.
LATELY = 2000

_C = changes.c
_POSITION = sa.select(sa.func.coalesce(sa.func.max(_C.n), 0))
_L = last_changes.c
_LATEST = sa.select(_L.id, _L.n).where(_L.kind == sa.bindparam("is"), _L.n > sa.bindparam("after"))
_LATEST_OF = _LATEST.where(_L.id.in_(sa.bindparam("ids", expanding=True)))
_MOVE = sa.update(last_changes).where(
    _L.kind == sa.bindparam("is"), _L.id.in_(sa.bindparam("ids", expanding=True))).values(n=sa.bindparam("to"))
_FROM = sa.select(_C.n, _C.kind, _C.id, _C.at).where(_C.n >= sa.bindparam("seen")).order_by(_C.n).limit(MOST)
_FIRST = sa.select(sa.func.coalesce(sa.func.min(_C.n), 0))
_BETWEEN = sa.select(_C.n, _C.kind, _C.id, _C.at).where(
    _C.n >= sa.bindparam("first"), _C.n <= sa.bindparam("last"))
_LAST = sa.select(_C.n, _C.kind, _C.id, _C.at).order_by(_C.n.desc()).limit(1)


class Change(msgspec.Struct, frozen=True):
    """Something of a kind (server, allocation, host, wiring, ...) is not as it was."""

    n: int
    kind: str
    id: str
    at: datetime | None = None


#: Before all of them.
_NONE = Change(0, "", "")

#: Told of changes, all of kinds that it asked for, in their order.
Reader = Callable[[Sequence[Change]], Awaitable[None]]


def note(connection: sa.Connection, now: datetime, *what: tuple[str, str], project_id: str = "") -> None:
    """Write down what this transaction changes: (kind, id), ..."""
    if what:
        statements.insert(connection, changes, [
            {"kind": kind, "id": id, "project_id": project_id, "at": now} for kind, id in what])


def chain(connection: sa.Connection, now: datetime, kind: str, ids: Collection[str],
          n: int = 0) -> tuple[int, dict[str, int]]:
    """One change of all of these, noted without an id (n: it is noted as that one). Its number, and for each id that of
    the change before (absent: none): who has taken in that one and hears of this one has missed nothing."""
    n, before = n or number(connection, now, kind), latest(connection, kind, ids=ids)
    if before:
        connection.execute(_MOVE, {"is": kind, "ids": list(before), "to": n})
    if fresh := sorted(set(ids) - before.keys()):
        statements.insert(connection, last_changes, [{"kind": kind, "id": id, "n": n} for id in fresh])
    return n, before


def forget(connection: sa.Connection, kind: str, id: str) -> None:
    """It is gone, and nobody asks for its changes any more."""
    statements.delete(connection, last_changes, kind=kind, id=id)


def number(connection: sa.Connection, now: datetime, kind: str) -> int:
    """One change of a kind, noted without an id. Its number."""
    note(connection, now, (kind, ""))
    return position(connection)


def latest(connection: sa.Connection, kind: str, after: int = 0, ids: Collection[str] | None = None) -> dict[str, int]:
    """The number of the last change of each thing of a kind, or of these, that changed after that number."""
    asked = {"is": kind, "after": after}
    rows = connection.execute(_LATEST, asked) if ids is None else connection.execute(
        _LATEST_OF, asked | {"ids": list(ids)})
    return {row[0]: row[1] for row in rows}


def position(connection: sa.Connection) -> int:
    """The number of the last change."""
    return int(connection.execute(_POSITION).scalar_one())


class _Subscription(msgspec.Struct):
    kinds: Collection[str]
    read: Reader
    reload: Callable[[], Awaitable[None]]
    last: Change = _NONE
    at: float = 0.0


class Changes:
    """Reads on. Subscribe before `start`; each reader goes on by itself where another fails. restored: called at once
    when the database is an older one than before; readers load it anew, for whoever goes on."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock
        self._subscriptions: list[_Subscription] = []
        self._seen = Position()
        self._lately = deque[Change](maxlen=LATELY)
        self._older = False  # an older database was found, and some readers have not loaded it anew
        self._marks = deque[tuple[float, int]]()
        self.restored: Callable[[], None] = lambda: None

    def subscribe(self, kinds: Collection[str], read: Reader, reload: Callable[[], Awaitable[None]]) -> None:
        """read: what came since; reload: everything anew, when rows may be gone that were not read."""
        self._subscriptions.append(_Subscription(frozenset(kinds), read, reload))

    @property
    def seen(self) -> Position:
        """How far the database was at the last look."""
        return self._seen

    async def latest(self, kind: str, after: int = 0) -> dict[str, int]:
        """As the function of this name."""
        return await self._db.read(lambda connection: latest(connection, kind, after))

    async def start(self) -> None:
        """What was before now is not told: readers load it when they start, after this."""
        self._seen, found = await self._db.read(lambda c: (eras.position(c), c.execute(_LAST).first()))
        self._lately.extend([Change(*found)] if found else ())
        for each in self._subscriptions:
            each.last, each.at = Change(*found) if found else _NONE, self._clock.monotonic()

    async def run(self) -> None:
        """For ever. A database that was away may have come back as another that lacks what nobody here has read yet:
        from then on it is another era."""
        away = False
        while True:
            await self._clock.sleep(POLL)
            try:
                await self.look()
                if away:
                    await self._db.run(self._begin)
                away = False
                await self._trim()
            except Interrupted:
                away = True

    def _cut(self, connection: sa.Connection) -> None:
        """Another era after the last change that this database has in common with what was read of the lost one. (Where
        the numbers go on is no sign: PostgreSQL leaps over some when it comes back.)"""
        known = [change.n for change in self._lately]
        here = {Change(*row) for row in connection.execute(_BETWEEN, {"first": known[0], "last": known[-1]})
                } if known else set()
        common = [change.n for change in self._lately if change in here]
        # A number is of one era only: the next that begins shall find another.
        note(connection, self._clock.now().replace(tzinfo=None), ("era", ""))
        eras.cut(connection, max(common) + 1 if common else known[0] if known else position(connection))

    def _begin(self, connection: sa.Connection) -> None:
        note(connection, self._clock.now().replace(tzinfo=None), ("era", ""))
        eras.begin(connection)

    async def look(self) -> None:
        """Tell what came since the last look. Raises Interrupted."""
        behind = False
        for last in dict.fromkeys([each.last for each in self._subscriptions]):
            self._seen, first, rows = await self._db.read(lambda c, last=last: _read(c, last))  # type: ignore[misc]
            whole = last == _NONE or rows[:1] == [last]
            if not self._older and not whole and (
                    self._seen.n < last.n or [row.n for row in rows[:1]] == [last.n] or first < last.n):
                log.error("the database is an older one than before", position=self._seen.n)
                await self._db.run(self._cut)
                self._older = True
                self._lately.clear()
                self.restored()  # before anything else can fail: it is cut only once
            self._lately.extend(row for row in rows if not self._lately or row.n > self._lately[-1].n)
            for each in [s for s in self._subscriptions if s.last == last]:
                behind |= not await self._tell(each, rows, whole=whole)
        self._older = self._older and behind

    async def _tell(self, to: _Subscription, rows: Sequence[Change], *, whole: bool) -> bool:
        """Whether it took them in. whole: nothing between what it has read and these rows is gone."""
        now = self._clock.monotonic()
        try:
            if not whole or now - to.at > KEEP / 2:
                await to.reload()
            elif mine := [row for row in rows if row.n > to.last.n and row.kind in to.kinds]:
                await to.read(mine)
        except Interrupted:
            raise
        except Exception:
            log.exception("changes could not be taken in; they are told again", kinds=sorted(to.kinds))
            return False
        to.at, to.last = now, rows[-1] if rows else _NONE
        return True

    async def _trim(self) -> None:
        """Away with what has been there for KEEP seconds by our own count: the clocks of those who wrote it may be
        wrong. The last row of those stays, by which a reader knows that it has missed nothing."""
        now = self._clock.monotonic()
        if self._marks and now - self._marks[-1][0] < KEEP / 10:
            return
        self._marks.append((now, self._seen.n))
        if now - self._marks[0][0] >= KEEP:
            before = self._marks.popleft()[1]
            await self._db.run(lambda c: c.execute(sa.delete(changes).where(_C.n < before)))


def _read(connection: sa.Connection, last: Change) -> tuple[Position, int, list[Change]]:
    """How far the database is, the number of its first row, and the rows from that one on, if it is still there. Only
    first rows are ever trimmed: where there is one before it, and it is not there, it never was."""
    first = int(connection.execute(_FIRST).scalar_one())
    return eras.position(connection), first, [Change(*row) for row in connection.execute(_FROM, {"seen": last.n})]
