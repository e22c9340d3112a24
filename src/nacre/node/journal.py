"""What this host was ordered, on its disk before it acts on it: each allocation with its order and how far it got, the
highest epoch seen of each server, and whose host this is. A SQLite file, synchronous=FULL; writers that come together
share one transaction. What only the guest is to know is never written.
"""

import asyncio
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import uuid4

import msgspec
import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.crash import point
from nacre.base.errors import Refused
from nacre.node.contract import BuildOrder, SpawnOrder, Step
from nacre.node.journal_v1 import retire, take_over

log = structlog.get_logger()

#: How long it is remembered that a server's lower epochs are refused, once nothing of it is here (seconds).
KEEP_FENCES = 30 * 86400

_SCHEMA = """
create table if not exists facts (name text primary key, value text not null);
create table if not exists allocations (id text primary key, entry blob not null);
create table if not exists fences (server_id text primary key, seen integer not null, closed integer not null,
                                   at real not null);
"""


class Unwritable(OSError):
    """The journal cannot be written. Its words are an operator's: what it is, where, and what to do."""


def unwritten(error: OSError) -> Refused:
    """The answer of a host that has begun nothing, as it could not write it down."""
    return Refused(f"the host cannot write its journal: {error}", type="HostJournal")


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """The last order about a guest's power. done: it got through."""

    epoch: int
    action: str
    done: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One allocation here. epoch: of its last order. stage: claimed, prepared, spawning, running (its build is done),
    ending (being taken back: its epoch and lower ones are refused from here on). spawn: without the guest's facts."""

    allocation: str
    server_id: str
    epoch: int
    stage: str
    order: BuildOrder | None = None
    spawn: SpawnOrder | None = None
    steps: tuple[Step, ...] = ()
    switch: Switch | None = None


class Fence(msgspec.Struct, frozen=True):
    """seen: the highest epoch of a server's orders; closed: the highest that was taken back."""

    seen: int = 0
    closed: int = 0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """id: this journal's, another after it was lost. incarnation: counts the host's starts. cloud: which it joined;
    position, era: how far that cloud's database was, as far as it was seen. names: the cloud whose id is in the names
    of what is on the host, for as long as it holds anything. bridge: where guests of an older release are."""

    id: str = ""
    incarnation: int = 0
    cloud: str = ""
    position: int = 0
    era: str = ""
    names: str = ""
    bridge: str = ""


_Write = tuple[str, tuple[object, ...]]
_decode = msgspec.msgpack.Decoder(Entry).decode
_encode = msgspec.msgpack.Encoder().encode


class Journal:
    """Entries by allocation. Every write returns when it is on disk. Open it once per host folder."""

    def __init__(self, file: Path, clock: Clock | None = None):
        self._clock, self._file = clock or RealClock(), file
        self._entries: dict[str, Entry] = {}
        self._fences: dict[str, Fence] = {}
        self._waiting: list[tuple[tuple[_Write, ...], asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)
        self.facts = self._open(file)

    def get(self, allocation: str) -> Entry | None:
        """The entry as last written (it may still be on its way to the disk)."""
        return self._entries.get(allocation)

    def all(self) -> list[Entry]:
        return list(self._entries.values())

    def of_server(self, server_id: str) -> list[Entry]:
        """What is here of a server, the latest first."""
        return sorted((e for e in self._entries.values() if e.server_id == server_id), key=lambda e: -e.epoch)

    def seen(self, server_id: str) -> int:
        """The highest epoch of a server's orders; 0: there was none."""
        return self._fences.get(server_id, Fence()).seen

    def check(self, server_id: str, epoch: int) -> None:
        """Raises Refused: a later order for this server was seen, or what this one is of was taken back."""
        fence = self._fences.get(server_id, Fence())
        if epoch < fence.seen:
            raise Refused(f"attempt {epoch} of server {server_id} is over: attempt {fence.seen} was seen here")
        if epoch <= fence.closed:
            raise Refused(f"attempt {epoch} of server {server_id} was taken back here")

    async def write(self, entry: Entry) -> Entry:
        """Replaces the allocation's entry. Raises OSError: it is as it was."""
        old, fence = self._entries.get(entry.allocation), self._fences.get(entry.server_id, Fence())
        closed = max(fence.closed, entry.epoch) if entry.stage == "ending" else fence.closed
        self._entries[entry.allocation] = entry
        try:
            await self._commit(
                ("insert or replace into allocations values (?, ?)", (entry.allocation, _encode(entry))),
                self._fence(entry.server_id, Fence(max(fence.seen, entry.epoch), closed)), *self._later(entry))
        except OSError:
            if self._entries.get(entry.allocation) is entry:
                self._entries.pop(entry.allocation)
                if old is not None:
                    self._entries[entry.allocation] = old
            raise
        point(f"node journal {entry.stage}")
        return entry

    async def close_epoch(self, server_id: str, epoch: int) -> None:
        """Orders of this epoch and lower ones are refused from here on, whatever is here of the server."""
        fence = self._fences.get(server_id, Fence())
        await self._commit(self._fence(server_id, Fence(max(fence.seen, epoch), max(fence.closed, epoch))))

    async def remove(self, entry: Entry) -> None:
        """Nothing of the allocation is here any more."""
        await self._commit(("delete from allocations where id = ?", (entry.allocation,)))
        self._entries.pop(entry.allocation, None)
        point("node journal gone")

    async def learn(self, **facts: str | int) -> None:
        """Keeps facts of the host itself."""
        await self._commit(*self._replace(facts))

    async def close(self) -> None:
        """Waits for what is being written."""
        if self._flusher is not None:
            await self._flusher
        self._db.close()

    def _later(self, entry: Entry) -> list[_Write]:
        """A new order says how far the database is at least: one that knows nothing of it is from before."""
        order = entry.order
        if order is None or entry.stage != "claimed" or order.position <= self.facts.position:
            return []
        return self._replace({"position": order.position, "era": order.era})

    def _replace(self, facts: Mapping[str, str | int]) -> list[_Write]:
        self.facts = msgspec.structs.replace(self.facts, **facts)
        return [("insert or replace into facts values (?, ?)", (k, str(v))) for k, v in facts.items()]

    def _fence(self, server_id: str, fence: Fence) -> _Write:
        self._fences[server_id] = fence
        return "insert or replace into fences values (?, ?, ?, ?)", (
            server_id, fence.seen, fence.closed, self._clock.now().timestamp())

    async def _commit(self, *writes: _Write) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((writes, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        await asyncio.shield(future)

    async def _flush(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            failed: OSError | None = None
            try:
                await asyncio.to_thread(self._apply, [write for writes, _ in group for write in writes])
            except sqlite3.Error as error:
                failed = Unwritable(f"{self._file}: {error}. Free space there, or see what the kernel says of "
                                    "the disk; what was begun is then taken back by itself")
            for _, future in group:
                if future.done():
                    continue
                if failed is None:
                    future.set_result(None)
                else:
                    future.set_exception(failed)

    def _apply(self, writes: Iterable[_Write]) -> None:
        self._db.execute("begin immediate")
        try:
            for statement, values in writes:
                self._db.execute(statement, values)
            self._db.execute("commit")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise

    def _open(self, file: Path) -> Facts:
        """What is there: another start is counted."""
        for (body,) in self._db.execute("select entry from allocations"):
            try:
                entry = _decode(body)
            except msgspec.DecodeError as error:
                log.error("an entry of the journal cannot be read; what it is about is kept", why=str(error))
                continue
            self._entries[entry.allocation] = entry
        here = {entry.server_id for entry in self._entries.values()}
        fences = self._db.execute("select server_id, seen, closed, at from fences").fetchall()
        for server_id, seen, closed, at in fences:
            if at < self._clock.now().timestamp() - KEEP_FENCES and server_id not in here:
                self._db.execute("delete from fences where server_id = ?", (server_id,))
            else:
                self._fences[server_id] = Fence(seen, closed)
        known = dict(self._db.execute("select name, value from facts"))
        facts = msgspec.convert(known, Facts, strict=False)
        facts = msgspec.structs.replace(facts, id=facts.id or str(uuid4()), incarnation=facts.incarnation + 1)
        former = file.with_name("journal")
        taken = [] if known else [msgspec.convert(entry, Entry) for entry in take_over(former)]
        for entry in taken:
            self._entries[entry.allocation] = entry
            self._fences[entry.server_id] = Fence(entry.epoch, entry.epoch if entry.stage == "ending" else 0)
        self._apply([
            *(("insert or replace into allocations values (?, ?)", (e.allocation, _encode(e))) for e in taken),
            *(self._fence(entry.server_id, self._fences[entry.server_id]) for entry in taken),
            *(("insert or replace into facts values (?, ?)", (name, str(value)))
              for name, value in msgspec.to_builtins(facts).items())])
        retire(former)  # only now: until here the next start would read it again
        return facts
