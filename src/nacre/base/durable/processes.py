"""The processes of a cloud: each says every second that it lives, and whoever stays silent loses what it held.

Leases run on the database's clock, which all of them share; the machines' own may differ.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import uuid4

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.durable import changes, eras
from nacre.base.durable.tables import cloud, join_tokens, processes
from nacre.base.errors import Conflict

log = structlog.get_logger()

#: Seconds between two signs of life, and until a silent process has lost what it held.
BEAT, LEASE = 1.0, 4.0
#: The kind of change by which a removed process's key is remembered.
REMOVED = "removed"
#: Days after which a control process that never came back is forgotten.
FORGET_DAYS = 7

_C = processes.c
#: What a process says of itself, and may say otherwise later.
_FACTS = ("address", "public_key", "version")
_RENEW = sa.update(processes).where(_C.id == sa.bindparam("of")).values(
    {**{name: sa.bindparam(f"new_{name}") for name in _FACTS}, "seen_at": sa.bindparam("now"),
     "generation": _C.generation + 1})
Known = dict[tuple[str, str], dict[str, Any]]
_NOW = sa.select(sa.func.timezone("utc", sa.func.clock_timestamp()))


class Runner(msgspec.Struct, frozen=True):
    """A process in one of its lives: who may hold a lease."""

    process: str
    generation: int


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process as the others see it. role: control or node; name: a node's is its host's. Times are naive UTC."""

    id: str
    role: str
    name: str
    address: str = ""
    public_key: str = ""
    version: str = ""
    generation: int = 0
    started_at: datetime | None = None
    seen_at: datetime | None = None
    alive: bool = False


def database_now(connection: sa.Connection, clock: Clock) -> datetime:
    """The database's time, naive UTC. SQLite has no clock but this machine's."""
    if connection.dialect.name == "postgresql":
        found: datetime = connection.execute(_NOW).scalar_one()
        return found
    return clock.now().replace(tzinfo=None)


def cloud_id(connection: sa.Connection, now: datetime) -> str:
    """The id of the cloud in this database, made with its first use."""
    row = statements.one(connection, cloud, number=1)
    if row is None:
        row = {"number": 1, "id": str(uuid4()), "created_at": now}
        statements.insert(connection, cloud, row)
    return str(row["id"])


class Guard(Protocol):
    """What must stand in the transaction of a change."""

    def check(self, connection: sa.Connection) -> None:
        """Raises the reason why it does not stand."""
        ...


def _at(process: Process) -> str:
    return f" at {process.address}" if process.address else ""


def find(connection: sa.Connection, clock: Clock, **conditions: Any) -> list[Process]:
    """The processes for which the conditions hold (as `statements.find`'s), by role and name."""
    now = database_now(connection, clock)
    rows = statements.find(connection, processes, ("role", "name"), **conditions)
    return [Process(**{n: r[n] for n in Process.__struct_fields__ if n != "alive"}, alive=r["lease_until"] > now)
            for r in rows]


def nodes(connection: sa.Connection, names: Collection[str]) -> set[str]:
    """Those of these names that are hosts of the cloud, in the caller's transaction."""
    return {row["name"] for row in statements.find(connection, processes, role="node", name=list(names))}


def introduce(connection: sa.Connection, now: datetime, *others: Process) -> None:
    """As the method of this name, in the caller's transaction."""
    known = _known(connection, others)
    if fresh := [p for p in others if (p.role, p.name) not in known]:
        statements.insert(connection, processes, [{
            "id": p.id, "role": p.role, "name": p.name, **{name: getattr(p, name) for name in _FACTS}, "generation": 1,
            "started_at": now, "seen_at": now, "lease_until": now} for p in fresh])
        changes.note(connection, now, *(("process", p.name) for p in fresh))
    _renew(connection, now, others, known)


def _known(connection: sa.Connection, some: Collection[Process]) -> Known:
    """The rows of these, by role and name."""
    rows = statements.find(connection, processes, role={p.role for p in some}, name={p.name for p in some})
    return {(row["role"], row["name"]): row for row in rows}


def _own(some: Iterable[Process], known: Known) -> list[Process]:
    """Those that have the keys of their rows."""
    return [p for p in some if (row := known.get((p.role, p.name))) is not None and row["public_key"] == p.public_key]


def _changed(some: Iterable[Process], known: Known) -> list[Process]:
    """Those of the known ones whose rows say something else."""
    return [p for p in some if (row := known.get((p.role, p.name))) is not None
            and any(row[name] != getattr(p, name) for name in _FACTS)]


def _renew(connection: sa.Connection, now: datetime, some: Iterable[Process], known: Known) -> None:
    if changed := _changed(some, known):
        connection.execute(_RENEW, [{"of": known[p.role, p.name]["id"], "now": now, **{
            f"new_{name}": getattr(p, name) for name in _FACTS}} for p in changed])
        changes.note(connection, now, *(("process", p.name) for p in changed))


def mark_complete(connection: sa.Connection, clock: Clock) -> None:
    """The cloud has its first rows."""
    now = database_now(connection, clock)
    cloud_id(connection, now)
    statements.update(connection, cloud, {"first_rows_at": now}, number=1, first_rows_at=None)


class Processes:
    """This process among the others. usurped: called when another took its id."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock
        self.usurped: Callable[[], None] = lambda: None
        self.cloud_id = ""
        self.runner = Runner("", 0)

    async def start(self, me: Process) -> None:
        """Enter this life: what an earlier one of the same id held is free from now on, whatever it was called. Raises
        Conflict: another that lives has the name, or this id under another name or at another address (its data folder
        was copied), and not only until the lease of one that died runs out."""
        begin = self._clock.monotonic()
        while True:
            waited = self._clock.monotonic() - begin
            try:
                self.cloud_id, generation = await self._db.run(
                    lambda c, waited=waited: self._enter(c, me, waited))  # type: ignore[misc]
                break
            except Conflict:
                if waited > LEASE + BEAT:
                    raise
            await self._clock.sleep(BEAT / 2)
        self.runner = Runner(me.id, generation)

    async def run(self) -> None:
        """Say that we live, for ever."""
        while True:
            await self._clock.sleep(BEAT)
            if not await self._db.run(self._beat):
                log.error("another process runs under this one's id", id=self.runner.process)
                self.usurped()

    async def stop(self) -> None:
        """Let go at once of what we hold, so that others need not wait for the lease's end."""
        await self._db.run(lambda connection: connection.execute(sa.update(processes).where(
            _C.id == self.runner.process, _C.generation == self.runner.generation).values(
                lease_until=database_now(connection, self._clock))))

    async def all(self, role: str | None = None) -> list[Process]:
        """Every process that is known, by role and name."""
        conditions = {"role": role} if role else {}
        return await self._db.read(lambda connection: find(connection, self._clock, **conditions))

    async def named(self, names: Collection[str]) -> list[Process]:
        """Those of these names."""
        return await self._db.read(lambda connection: find(connection, self._clock, name=names))

    async def token_keys(self, ids: Collection[str] | None = None) -> dict[str, str]:
        """Public key -> id, of all join tokens that are remembered, or of these: also of such as count no more."""
        named: dict[str, Any] = {} if ids is None else {"id": list(ids)}
        return await self._db.read(lambda connection: {
            row["public_key"]: row["id"] for row in statements.find(connection, join_tokens, **named)})

    async def removed_keys(self) -> Collection[str]:
        """The keys of those that were removed, ever."""
        return set(await self._db.read(lambda connection: changes.latest(connection, REMOVED)))

    async def introduce(self, *others: Process) -> None:
        """Processes that join, or came back with another key or address. Their own beats are not rows here. Of the same
        name the last counts."""
        some = {(p.role, p.name): p for p in others}
        known = await self._db.read(lambda connection: _known(connection, some.values()))
        if news := [*(p for place, p in some.items() if place not in known), *_changed(some.values(), known)]:
            await self._db.run(lambda connection: introduce(
                connection, database_now(connection, self._clock), *news))

    async def renew(self, *others: Process) -> list[bool]:
        """What known ones say of themselves now, each by the key that it proved to have. Nobody gets another key by
        that: only a join gives one. False: that one is not known, not any more, or by another key."""
        found = await self._db.read(lambda connection: _known(connection, others))
        # Of the same name the last counts.
        some = list({(p.role, p.name): p for p in _own(others, found)}.values())
        changed = _changed(some, found)

        def unit(connection: sa.Connection) -> Known:
            there = _known(connection, changed)
            _renew(connection, database_now(connection, self._clock), _own(changed, there), there)
            return there

        if changed:
            there = await self._db.run(unit)
            for place in [(p.role, p.name) for p in changed]:
                found.pop(place)
            found |= there
        own = set(_own(others, found))
        return [p in own for p in others]

    async def remove(self, role: str, name: str, guard: Guard | None = None) -> bool:
        """A process that shall never speak to us again. False: there was none. Raises what the guard raises."""
        def unit(connection: sa.Connection) -> bool:
            if guard is not None:
                guard.check(connection)
            keys = {row["public_key"] for row in statements.find(connection, processes, role=role, name=name)}
            if statements.delete(connection, processes, role=role, name=name):
                now = database_now(connection, self._clock)
                changes.note(connection, now, ("process", name))
                if keys - {""}:
                    changes.chain(connection, now, REMOVED, keys - {""})
            return bool(keys)

        return await self._db.run(unit)

    def _enter(self, connection: sa.Connection, me: Process, waited: float) -> tuple[str, int]:
        now = database_now(connection, self._clock)
        identity = cloud_id(connection, now)
        connection.execute(sa.delete(processes).where(
            _C.role == me.role, _C.id != me.id, _C.lease_until < now - timedelta(days=FORGET_DAYS)))
        row = {"role": me.role, "name": me.name, "address": me.address, "public_key": me.public_key,
               "version": me.version, "started_at": now, "seen_at": now, "lease_until": now + timedelta(seconds=LEASE)}
        before = self._free(connection, me, waited)
        generation = before.generation + 1 if before else 1
        statements.delete(connection, processes, id=me.id)
        statements.delete(connection, processes, role=me.role, name=me.name)
        statements.insert(connection, processes, {"id": me.id, **row, "generation": generation})
        names = {me.name, before.name if before else me.name}
        changes.note(connection, now, *(("process", name) for name in sorted(names)))
        eras.begin(connection)
        return identity, generation

    def _free(self, connection: sa.Connection, me: Process, waited: float) -> Process | None:
        """The earlier life of the same id. Raises Conflict: another lives; each would end the other, for ever."""
        for other in find(connection, self._clock, role=me.role, name=me.name):
            if self._lives(connection, other, waited) and other.id != me.id:
                raise Conflict(f"Another {me.role} process of this cloud is called {me.name}, and lives{_at(other)}: "
                               "give this one a name of its own, rpc.name or NACRE_RPC_NAME.", field="rpc.name")
        before = next(iter(find(connection, self._clock, id=me.id)), None)
        if before and (before.name, before.address) != (me.name, me.address) and self._lives(
                connection, before, waited):
            raise Conflict(f"This {me.role} process lives already, as {before.name}{_at(before)}: end that one, or, if "
                           "this data folder is a copy of that one's, remove control/process-id in this one.")
        return before

    def _lives(self, connection: sa.Connection, other: Process, waited: float) -> bool:
        """Whether its lease holds. One that reaches further than any is of a clock that was set back since: whoever
        lives has written another by the time that a lease lasts."""
        row, now = statements.one(connection, processes, id=other.id), database_now(connection, self._clock)
        ahead = row is not None and row["lease_until"] - now > timedelta(seconds=LEASE)
        return other.alive and not (ahead and waited >= LEASE)

    def _beat(self, connection: sa.Connection) -> bool:
        now = database_now(connection, self._clock)
        return bool(statements.update(
            connection, processes, {"seen_at": now, "lease_until": now + timedelta(seconds=LEASE)},
            id=self.runner.process, generation=self.runner.generation))
