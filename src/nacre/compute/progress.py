"""How stories move servers on: the conductor's half of compute. Each verb is one transaction and a compare-and-set on
the server's epoch, so that a runner which was fenced changes nothing."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nacre.base import statements
from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.errors import Conflict, NotFound
from nacre.compute import groups, history
from nacre.compute.contract import Attempt, Event, Group, Outcome, Place, Server
from nacre.compute.records import fault_of, find_row, get_row, server_of
from nacre.compute.servers import move
from nacre.compute.tables import attempts, server_tags, servers
from nacre.node.contract import GuestFacts


class Progress:
    """Implements `contract.Progress`."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock

    async def load(self, server_ids: Iterable[str]) -> list[Server]:
        """Those of the servers that are not deleted, in this order."""
        wanted = list(server_ids)
        rows = await self._db.read(lambda c: statements.find(c, servers, id=wanted, deleted=False))
        found = {row["id"]: server_of(row) for row in rows}
        return [found[s] for s in wanted if s in found]

    async def attempts(self, server_id: str) -> list[Attempt]:
        """The hosts that may hold something of the server, latest attempt first."""
        rows = await self._db.read(lambda c: c.execute(sa.select(attempts).where(
            attempts.c.server_id == server_id).order_by(attempts.c.epoch.desc())).all())
        return [Attempt(server_id=r.server_id, epoch=r.epoch, host=r.host) for r in rows]

    async def group(self, group_id: str) -> Group | None:
        """A server group and who is in it. None: there is no such group any more."""
        return await self._db.read(lambda c: groups.find(c, group_id))

    async def attempt(self, server_id: str, place: Place) -> tuple[int, GuestFacts] | None:
        """Commit that a host is tried now; the attempt's epoch, and what the guest is told. None: the server is not
        being built any more. Raises Refused: its group would not have it there."""
        now = self._now()

        def unit(connection: sa.Connection) -> tuple[int, GuestFacts] | None:
            row = find_row(connection, server_id)
            if row is None or row["vm_state"] != "building" or row["task_state"] == "deleting":
                return None
            if row["group_id"]:
                groups.check(connection, row, place.host)
            epoch = int(row["epoch"]) + 1
            move(connection, row, "place", now, epoch=epoch, host=place.host, availability_zone=place.zone,
                 selected_dir=place.selected_dir)
            statements.insert(connection, attempts, {"server_id": server_id, "epoch": epoch, "host": place.host})
            return epoch, guest_facts({**row, "availability_zone": place.zone})

        return await self._db.run(unit)

    async def undone(self, server_id: str, epoch: int, host: str) -> None:
        """The host confirmed that nothing of this attempt or an earlier one is left there."""
        c = attempts.c
        await self._db.run(lambda connection: connection.execute(sa.delete(attempts).where(
            c.server_id == server_id, c.epoch <= epoch, c.host == host)))

    async def built(self, server_id: str, epoch: int, outcome: Outcome) -> bool:
        """The attempt made it: ACTIVE, with its steps. False: fenced (deleted meanwhile), the host must undo."""
        return await self._end(server_id, "build", outcome, {
            "epoch": epoch, "power_state": outcome.power, "launched_at": self._now(), "fault": None})

    async def failed(self, server_id: str, outcome: Outcome) -> bool:
        """No host is left to try: ERROR with the outcome's message as its fault."""
        now = self._now()
        return await self._end(server_id, "fail", outcome, {
            "host": "", "fault": fault_of(500, outcome.message or "The build failed.", now, outcome.details)})

    async def powered(self, server_id: str, event: str, outcome: Outcome) -> bool:
        """A power story ended: event stopped, running, or `give up` with the reason as the fault's message."""
        changes: dict[str, Any] = {"power_state": outcome.power} if outcome.power else {}
        if outcome.message:
            changes["fault"] = fault_of(500, outcome.message, self._now())
        return await self._end(server_id, event, outcome, changes)

    async def noticed(self, server_id: str, host: str, power: str) -> None:
        """A guest stopped or started by itself, on the host it belongs to."""
        now = self._now()

        def unit(connection: sa.Connection) -> None:
            row = find_row(connection, server_id)
            if row is None or row["host"] != host or row["power_state"] == power or row["task_state"]:
                return
            event = {"running": "running", "shutdown": "stopped", "crashed": "stopped"}.get(power)
            if event and row["vm_state"] == ("stopped" if event == "running" else "active"):
                move(connection, row, event, now, power_state=power)
            else:
                connection.execute(sa.update(servers).where(servers.c.id == server_id).values(power_state=power))

        await self._db.run(unit)

    async def fence(self, server_id: str) -> int:
        """A new epoch for the server: nothing older may act on it any more. Raises NotFound."""
        def unit(connection: sa.Connection) -> int:
            connection.execute(sa.update(servers).where(
                servers.c.id == server_id).values(epoch=servers.c.epoch + 1))
            row = find_row(connection, server_id)
            if row is None:
                raise NotFound(f"Instance {server_id} could not be found.")
            return int(row["epoch"])

        return await self._db.run(unit)

    async def deleted(self, server_id: str, outcome: Outcome, *, gone: bool) -> bool:
        """The server is no more. gone: every host confirmed it, so that no attempt is left to undo."""
        def clear(connection: sa.Connection) -> None:
            if gone:
                connection.execute(sa.delete(attempts).where(attempts.c.server_id == server_id))
            connection.execute(sa.delete(server_tags).where(server_tags.c.server_id == server_id))

        return await self._end(server_id, "deleted", outcome, {
            "deleted": True, "terminated_at": self._now(), "power_state": "", "user_data": None}, clear)

    async def strangers(self, host: str, claims: Mapping[str, int]) -> list[Attempt]:
        """Of the servers a host has (id -> epoch): those that it must not have, with the epoch that outranks them."""
        def unit(connection: sa.Connection) -> list[Attempt]:
            rows = {r.id: r for r in connection.execute(sa.select(
                servers.c.id, servers.c.host, servers.c.epoch, servers.c.deleted, servers.c.vm_state).where(
                servers.c.id.in_(list(claims))))}
            found = []
            for server_id, epoch in claims.items():
                row = rows.get(server_id)
                if row is None or row.deleted or row.host != host:
                    found.append(Attempt(server_id=server_id, epoch=max(epoch, row.epoch if row else 0), host=host))
            return found

        return await self._db.read(unit)

    async def on_hosts(self) -> dict[str, set[str]]:
        """host -> ids of its servers."""
        rows = await self._db.read(lambda c: c.execute(sa.select(servers.c.host, servers.c.id).where(
            servers.c.deleted.is_(False), servers.c.host != "")).all())
        found: dict[str, set[str]] = {}
        for host, server_id in rows:
            found.setdefault(host, set()).add(server_id)
        return found

    async def guest_facts(self, server_id: str) -> tuple[str, int, GuestFacts]:
        """The server's host and epoch, and what its guest is told. Raises NotFound."""
        row = await self._db.read(lambda c: get_row(c, server_id))
        return row["host"], row["epoch"], guest_facts(row)

    async def leftovers(self) -> list[Attempt]:
        """Attempts that are over without their host having confirmed it, with the epoch that outranks them."""
        a, s = attempts.c, servers.c
        rows = await self._db.read(lambda c: c.execute(sa.select(
            a.server_id, a.host, sa.func.max(s.epoch).label("epoch")).join(servers, s.id == a.server_id).where(
            sa.or_(s.deleted, s.host != a.host), sa.or_(s.deleted, s.task_state.is_(None))).group_by(
            a.server_id, a.host)).all())
        return [Attempt(server_id=r.server_id, epoch=r.epoch, host=r.host) for r in rows]

    async def _end(self, server_id: str, event: str, outcome: Outcome, changes: Mapping[str, Any],
                   clear: Callable[[sa.Connection], None] | None = None) -> bool:
        """An `epoch` among the changes is the one that the server must still have."""
        now, epoch = self._now(), changes.get("epoch")

        def unit(connection: sa.Connection) -> bool:
            row = find_row(connection, server_id)
            if row is None or (epoch is not None and row["epoch"] != epoch):
                return False
            try:
                move(connection, row, event, now, **changes)
            except Conflict:
                return False
            history.add(connection, server_id, outcome.request_id, outcome.steps)
            history.end(connection, server_id, outcome.request_id, now, outcome.action_message)
            if clear:
                clear(connection)
            return True

        return await self._db.run(unit)

    async def record(self, server_id: str, request_id: str, steps: Iterable[Event]) -> None:
        """Steps of an action that goes on."""
        kept = list(steps)
        if kept:
            await self._db.run(lambda c: history.add(c, server_id, request_id, kept))

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None)


def guest_facts(row: Mapping[str, Any]) -> GuestFacts:
    """What a guest is told about itself; without the password and files of its build."""
    return GuestFacts(
        id=row["id"], name=row["name"], hostname=row["hostname"], project_id=row["project_id"], user_id=row["user_id"],
        availability_zone=row["availability_zone"] or "nova", launch_index=row["launch_index"],
        metadata=row["metadata"], keys=(tuple(row["key"]),) if row["key"] else (), user_data=row["user_data"],
        reservation_id=row["reservation_id"], flavor_name=row["flavor"]["name"], image_id=row["image_id"],
        created_at=row["created_at"].isoformat(), security_groups=tuple(row["security_groups"]))
