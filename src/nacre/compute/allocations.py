"""The ledger of room on hosts: an allocation is written before its host hears of it, named by its server while it lives
there, and removed when the host confirmed that nothing of it is left."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.bounds import pieces
from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.db.together import VALUES, Together
from nacre.base.durable import changes, eras
from nacre.base.durable.processes import Guard, nodes
from nacre.base.durable.stories import Lease
from nacre.base.errors import Conflict, NotFound, Refused
from nacre.compute import groups
from nacre.compute.contract import Audit, Place
from nacre.compute.records import find_row, guest_facts, move
from nacre.compute.tables import allocations, servers
from nacre.node.contract import GuestFacts
from nacre.scheduler.contract import Allocation, Amounts, Held

_AMOUNTS = Amounts.__struct_fields__
_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_LIVING = sa.select(allocations.c.host, servers.c.id, servers.c.epoch).join(
    servers, servers.c.id == allocations.c.server_id).where(servers.c.id.in_(_IDS), allocations.c.state != "ending")
#: A host, and what it has by its allocations.
_Holding = tuple[str, dict[str, Held]]
#: How far behind a restored database may be in a server's epochs; and up to where it is made to follow a host: the
#: rest of what `bounds.Epoch` holds is for orders.
LEAP, FOLLOWED = 1 << 16, 1 << 29


class Ledger:
    """Implements `contract.Ledger`."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock
        self._audit = Together[_Holding, Audit](self._audit_all)

    async def of_server(self, server_id: str) -> list[Allocation]:
        """What hosts may have of the server, the latest first."""
        return await self._db.read(lambda c: of_server(c, server_id))

    async def of(self, ids: Collection[str] | None) -> Sequence[Allocation]:
        """All, or those of these ids, that are there."""
        named: dict[str, Any] = {} if ids is None else {"id": ids}
        return await self._db.read(lambda c: [_allocation(r) for r in statements.find(c, allocations, **named)])

    async def on_hosts(self, hosts: Collection[str]) -> dict[str, list[Allocation]]:
        """What each of these hosts may have, whatever becomes of it."""
        def unit(connection: sa.Connection) -> dict[str, list[Allocation]]:
            found: dict[str, list[Allocation]] = {}
            for row in statements.find(connection, allocations, ("created_at", "id"), host=list(hosts)):
                found.setdefault(row["host"], []).append(_allocation(row))
            return found

        return await self._db.read(unit) if hosts else {}

    async def of_project(self, project_id: str, user_id: str | None = None) -> tuple[list[Amounts], int]:
        """What the servers of a project, or of one of its users, take of hosts, and how many servers do."""
        a, s = allocations.c, servers.c
        query = sa.select(allocations).join(servers, s.id == a.server_id).where(s.project_id == project_id)
        if user_id is not None:
            query = query.where(s.user_id == user_id)
        rows = await self._db.read(lambda connection: connection.execute(query).mappings().all())
        return [_allocation(dict(row)).amounts for row in rows], len({row["server_id"] for row in rows})

    async def ending(self) -> list[Allocation]:
        """What hosts have yet to confirm as gone."""
        return await self._db.read(lambda c: [_allocation(r) for r in statements.find(c, allocations, state="ending")])

    async def reads(self, host: str, image_id: str) -> bool:
        """Whether a server that has a place on the host is made of that image, or boots by it."""
        made_of = sa.or_(servers.c.image_id == image_id, servers.c.kernel_id == image_id,
                         servers.c.ramdisk_id == image_id)
        query = sa.select(allocations.c.id).join(servers, servers.c.id == allocations.c.server_id).where(
            allocations.c.host == host, allocations.c.state != "ending", made_of).limit(1)
        return await self._db.read(lambda connection: connection.execute(query).first() is not None)

    async def audit(self, host: str, held: Iterable[Held]) -> Audit:
        """What the database says of what a host has."""
        there = {each.allocation: each for each in held}
        return await self._audit((host, there)) if there else Audit()

    async def _audit_all(self, some: Sequence[_Holding]) -> list[Audit]:
        def unit(connection: sa.Connection) -> list[Audit]:
            ids, rows = [id for _, there in some for id in there], dict[str, Any]()
            for part in pieces(ids, VALUES):
                rows |= {row["id"]: row for row in statements.find(connection, allocations, id=part)}
            epochs = _epochs(connection, {(host, each.server_id) for host, there in some for each in there.values()})
            return [_audited(host, there, rows, epochs) for host, there in some]

        return await self._db.read(unit)

    async def allocate(self, lease: Lease, server_id: str, place: Place) -> tuple[Allocation, GuestFacts] | None:
        """Commit that a host is tried now; and what the guest is to know. None: the server is not being built any more.
        Raises LeaseLost; Refused: its group would not have it there, or the host was removed."""
        now = self._now()

        def unit(connection: sa.Connection) -> tuple[Allocation, GuestFacts] | None:
            lease.check(connection)
            row = _building(connection, server_id)
            if row is None:
                return None
            if not nodes(connection, [place.host]):  # its removal found nothing here to wait for
                raise Refused("The host has left the cloud.", details=place.host)
            if row["group_id"]:
                groups.check(connection, row, place.host)
            made = Allocation(id=place.allocation, server_id=server_id, host=place.host, epoch=row["epoch"] + 1,
                              purpose="build", state="wanted", amounts=place.amounts)
            move(connection, row, "place", now, epoch=made.epoch, host=place.host, availability_zone=place.zone)
            insert(connection, now, made, row["project_id"])
            here = eras.position(connection)
            made = msgspec.structs.replace(made, position=here.n, era=here.era)
            return made, guest_facts({**row, "availability_zone": place.zone})

        return await self._db.run(unit)

    async def give_up(self, lease: Lease, allocation: Allocation) -> bool:
        """This attempt is over: its host must give up what it has. Whether the server is still to be built. Raises
        LeaseLost."""
        now = self._now()

        def unit(connection: sa.Connection) -> bool:
            lease.check(connection)
            _end(connection, now, allocation.epoch, id=allocation.id)
            return _building(connection, allocation.server_id) is not None

        return await self._db.run(unit)

    async def end_all(self, lease: Lease, server_id: str) -> list[Allocation]:
        """A new epoch for the server, which nothing older outlives: every host must give up what it has of it. Raises
        LeaseLost, NotFound."""
        now = self._now()

        def unit(connection: sa.Connection) -> list[Allocation]:
            lease.check(connection)
            if not statements.update(connection, servers, {"updated_at": now}, "epoch", id=server_id, deleted=False):
                raise NotFound(f"Instance {server_id} could not be found.")
            row = find_row(connection, server_id)
            assert row is not None
            _end(connection, now, row["epoch"], server_id=server_id)
            return of_server(connection, server_id)

        return await self._db.run(unit)

    async def ended(self, allocation: Allocation, *, freed: bool) -> None:
        """Its host confirmed that nothing of it is left there. freed: its server's ports are gone. Raises Conflict:
        they are not, and with this last row of a server that is not being built nobody would remember them."""
        now = self._now()

        def unit(connection: sa.Connection) -> None:
            if not freed and _building(connection, allocation.server_id) is None and [
                    a.id for a in of_server(connection, allocation.server_id)] == [allocation.id]:
                raise Conflict(f"The ports of server {allocation.server_id} are to be freed first.")
            if statements.delete(connection, allocations, id=allocation.id, state="ending"):
                changes.note(connection, now, ("allocation", allocation.id))

        await self._db.run(unit)

    async def is_over(self, allocation: Allocation) -> bool:
        """Whether nothing will ever be built for this server again, and this is the last that any host has of it: then
        its ports may go."""
        return await self._db.read(lambda connection: _is_over(connection, allocation))

    def over(self, allocation: Allocation) -> "Over":
        """Stands while `is_over` does."""
        return Over(allocation)

    def alone(self, allocation: Allocation) -> "Alone":
        """Stands while the allocation is ending, and its server has no other at that host."""
        return Alone(allocation)

    async def catch_up(self, host: str, held: Iterable[Held], word: Guard) -> None:
        """An operator says that this database is right though it is behind: what a host has seen of the servers that
        live there is over, so that orders to come count. Of others a host says nothing, and of its own nothing that
        would use up their epochs. word: the operator's, which is used up by this. Raises what it raises."""
        seen = {each.server_id: each.epoch for each in held}

        def unit(connection: sa.Connection) -> None:
            word.check(connection)
            for (_, id), epoch in _epochs(connection, {(host, server) for server in seen}).items():
                if epoch < seen[id] <= min(epoch + LEAP, FOLLOWED):
                    statements.update(connection, servers, {"epoch": seen[id]}, id=id)

        await self._db.run(unit)

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None)


class Over(msgspec.Struct, frozen=True):
    """A guard of changes to a server's ports."""

    allocation: Allocation

    def check(self, connection: sa.Connection) -> None:
        """Raises Conflict."""
        if not _is_over(connection, self.allocation):
            raise Conflict(f"Server {self.allocation.server_id} has another place now.")


class Alone(msgspec.Struct, frozen=True):
    """A guard of changes to a server's ports at one host."""

    allocation: Allocation

    def check(self, connection: sa.Connection) -> None:
        """Raises Conflict."""
        there = [a for a in of_server(connection, self.allocation.server_id) if a.host == self.allocation.host]
        if [(a.id, a.state) for a in there] != [(self.allocation.id, "ending")]:
            raise Conflict(f"Server {self.allocation.server_id} has another place on {self.allocation.host} now.")


def _is_over(connection: sa.Connection, allocation: Allocation) -> bool:
    others = [a for a in of_server(connection, allocation.server_id) if a.id != allocation.id]
    row = find_row(connection, allocation.server_id)
    return not others and (row is None or (row["vm_state"], row["task_state"]) == ("error", None))


def _audited(host: str, there: Mapping[str, Held], rows: Mapping[str, Any], epochs: Mapping[tuple[str, str], int],
             ) -> Audit:
    known = {id: row for id in there if (row := rows.get(id)) is not None and row["host"] == host}
    return Audit(
        ending=tuple(_allocation(row) for row in known.values() if row["state"] == "ending"),
        unknown=tuple(id for id in there if id not in known),
        later=tuple(id for id, each in there.items() if each.epoch > epochs.get((host, each.server_id), each.epoch)))


def _epochs(connection: sa.Connection, pairs: Collection[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The epochs of those (host, server) where the server lives on the host, or is being built there. What a host has
    that is only to be ended proves nothing: the server is another's, and its end counts whatever the epoch."""
    found = dict[tuple[str, str], int]()
    for part in pieces(sorted({server for _, server in pairs}), VALUES):
        found |= {(host, id): epoch for host, id, epoch in connection.execute(_LIVING, {"ids": part})}
    return {pair: found[pair] for pair in pairs if pair in found}


def of_server(connection: sa.Connection, server_id: str) -> list[Allocation]:
    """What hosts may have of the server, the latest first."""
    found = [_allocation(row) for row in statements.find(connection, allocations, server_id=server_id)]
    return sorted(found, key=lambda allocation: -allocation.epoch)


def _building(connection: sa.Connection, server_id: str) -> dict[str, Any] | None:
    """The row of a server that is being built; None: it is not, or not any more."""
    row = find_row(connection, server_id)
    return row if row and row["vm_state"] == "building" and row["task_state"] != "deleting" else None


def _end(connection: sa.Connection, now: datetime, epoch: int, **which: Any) -> None:
    rows = statements.find(connection, allocations, **which)
    statements.update(connection, allocations, {"state": "ending", "epoch": epoch}, **which)
    changes.note(connection, now, *(("allocation", row["id"]) for row in rows))


def insert(connection: sa.Connection, now: datetime, made: Allocation, project_id: str = "") -> None:
    """An allocation's row, and that there is one."""
    statements.insert(connection, allocations, {
        **{name: getattr(made, name) for name in ("id", "server_id", "host", "epoch", "purpose", "state")},
        **{name: getattr(made.amounts, name) for name in _AMOUNTS}, "created_at": now})
    changes.note(connection, now, ("allocation", made.id), ("server", made.server_id), project_id=project_id)


def _allocation(row: Mapping[str, Any]) -> Allocation:
    return Allocation(
        **{name: row[name] for name in ("id", "server_id", "host", "epoch", "purpose", "state")},
        amounts=Amounts(**{name: row[name] for name in _AMOUNTS}))
