"""How stories move servers on: the conductor's half of compute. Each verb is one transaction, checks in it that its
story still holds the lease, and moves the server by the table of states."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nacre.base.bounds import pieces
from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.db.together import VALUES, Together
from nacre.base.durable import changes, stories
from nacre.base.durable.stories import Lease
from nacre.base.errors import Interrupted, NotFound
from nacre.compute import groups, history, quota_usage
from nacre.compute.contract import Group, Outcome, Server
from nacre.compute.records import fault_of, find_row, get_row, guest_facts, move, server_of
from nacre.compute.states import TABLE
from nacre.compute.tables import allocations, server_tags, servers
from nacre.node.contract import GuestFacts
from nacre.scheduler.contract import Allocation, Held

#: A guest's power -> what that means for a server that nobody is at work on.
_EVENTS = {"running": "running", "shutdown": "stopped", "crashed": "stopped"}
#: And for one that its host did not have, and has after all.
_FOUND = {"running": "found running", "shutdown": "found stopped", "crashed": "found stopped"}

_S, _A = servers.c, allocations.c
_LIVING = sa.select(
    _S.allocation_id, _S.host, _S.vm_state, _S.task_state, _S.power_state, _S.power_incarnation, _S.power_n).where(
        _S.allocation_id.in_(sa.bindparam("ids", expanding=True)), _S.deleted == sa.false())
_PLACED = sa.select(_A.id, _A.host, _A.state).where(_A.host.in_(sa.bindparam("hosts", expanding=True)))


class Progress:
    """Implements `contract.Progress`."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock
        #: The servers of these allocations; the allocations of a host: asked for each host that says what it has.
        self._living = Together[Collection[str], list[dict[str, Any]]](self._find_living)
        self._placed = Together[str, list[dict[str, Any]]](self._find_placed)

    async def load(self, server_ids: Iterable[str]) -> list[Server]:
        """Those of the servers that are not deleted, in this order."""
        wanted = list(server_ids)
        rows = await self._db.read(lambda c: statements.find(c, servers, id=wanted, deleted=False))
        found = {row["id"]: server_of(row) for row in rows}
        return [found[s] for s in wanted if s in found]

    async def group(self, group_id: str) -> Group | None:
        """A server group and who is in it. None: there is no such group any more."""
        return await self._db.read(lambda c: groups.find(c, group_id))

    async def guest_facts(self, host: str, server_id: str) -> GuestFacts:
        """What the guest of a server on this host is told. Raises NotFound: it is not there."""
        row = await self._db.read(lambda c: get_row(c, server_id))
        if row["host"] != host:
            raise NotFound(f"Instance {server_id} could not be found.")
        return guest_facts(row)

    async def built(self, lease: Lease, allocation: Allocation, outcome: Outcome, *, last: bool) -> bool:
        """The attempt made it: ACTIVE, with its steps. last: and with it the story ended. False: it is not being built
        any more (deleted meanwhile), and its host must give it up. Raises LeaseLost; Interrupted: the attempt is not
        written down any more."""
        now = self._now()

        def live(connection: sa.Connection) -> None:
            if not statements.update(connection, allocations, {"state": "held"}, id=allocation.id, host=allocation.host,
                                     epoch=allocation.epoch, state="wanted"):
                raise Interrupted(f"The database has lost that {allocation.host} was to build {allocation.server_id}.")
            changes.note(connection, now, ("allocation", allocation.id))
            if last:
                stories.finish(connection, lease)

        return await self._end(lease, "build", outcome, {
            "launched_at": now, "fault": None, "allocation_id": allocation.id}, live)

    async def failed(self, lease: Lease, outcome: Outcome, *, freed: bool) -> bool:
        """No host is left to try: ERROR with the outcome's message as its fault. freed: its ports are gone; else what a
        host has yet to confirm reminds of them. Raises LeaseLost; Interrupted: its host has confirmed meanwhile."""
        def remembered(connection: sa.Connection) -> None:
            if not freed and statements.one(connection, allocations, server_id=outcome.server_id) is None:
                raise Interrupted(f"The ports of server {outcome.server_id} are to be freed first.")

        return await self._end(lease, "fail", outcome, {
            "host": "", "fault": fault_of(500, outcome.message or "The build failed.", self._now(), outcome.details)},
            remembered)

    async def powered(self, lease: Lease, event: str, outcome: Outcome) -> bool:
        """A power story ended: event stopped, running, or `give up` with the reason as the fault's message. Raises
        LeaseLost."""
        changed: dict[str, Any] = {}
        if outcome.message:
            changed["fault"] = fault_of(500, outcome.message, self._now(), outcome.details)
        return await self._end(lease, event, outcome, changed, lambda c: stories.finish(c, lease))

    async def deleted(self, lease: Lease, outcome: Outcome, gone: Sequence[Allocation]) -> bool:
        """The server is no more, for its user. gone: what hosts confirmed to be gone; the rest stays in the ledger.
        Raises LeaseLost."""
        now = self._now()

        def clear(connection: sa.Connection) -> None:
            if gone:
                statements.delete(connection, allocations, id=[a.id for a in gone], state="ending")
                changes.note(connection, now, *(("allocation", a.id) for a in gone))
            row = statements.one(connection, servers, id=outcome.server_id)
            assert row is not None
            quota_usage.add(connection, row, -1)
            statements.delete(connection, server_tags, server_id=outcome.server_id)
            stories.finish(connection, lease)

        return await self._end(lease, "deleted", outcome, {
            "deleted": True, "terminated_at": now, "power_state": "", "user_data": None}, clear)

    async def finish(self, lease: Lease) -> None:
        """The story is over. Raises LeaseLost."""
        await self._db.run(lambda connection: stories.finish(connection, lease))

    async def noticed(self, host: str, number: tuple[int, int], held: Iterable[Held]) -> set[str]:
        """What guests of a host do, by its report of this number: one that stopped or started by itself moves on. Since
        when is kept too, so that an earlier word, which another process hears late, undoes nothing. The allocations
        that are not judged come back: no server lives there yet, or somebody is at work on it."""
        there, now = {each.allocation: each for each in held}, self._now()

        def since(row: Mapping[str, Any]) -> int:
            return there[row["allocation_id"]].since or number[1]

        def is_news(row: Mapping[str, Any]) -> bool:
            power = there[row["allocation_id"]].power
            known, said = (row["power_incarnation"], row["power_n"]), (number[0], since(row))
            # The same word again: of a server whose build or restart ended when its guest had halted by then.
            return known < said or (known == said and power == row["power_state"] and bool(_event(row, power)))

        def unit(connection: sa.Connection) -> None:
            rows = statements.find(connection, servers, allocation_id=news, host=host, deleted=False, task_state=None)
            for row in filter(is_news, rows):
                power = there[row["allocation_id"]].power
                seen = {"power_state": power, "power_incarnation": number[0], "power_n": since(row)}
                if event := _event(row, power):
                    move(connection, row, event, now, **seen, **({"fault": None} if event in _FOUND.values() else {}))
                    changes.note(connection, now, ("server", row["id"]), project_id=row["project_id"])
                else:
                    statements.update(connection, servers, seen, id=row["id"])

        if not there:
            return set()
        judged = [row for row in await self._living(there.keys()) if row["host"] == host and not row["task_state"]]
        if news := [row["allocation_id"] for row in judged if is_news(row)]:
            await self._db.run(unit)
        return there.keys() - {row["allocation_id"] for row in judged}

    async def missed(self, host: str, number: tuple[int, int], held: Iterable[Held], *, settled: bool) -> Sequence[str]:
        """Servers that the host, which by its report of this number holds just this, does not have (its disk was lost,
        or the database is restored from a time when they lived): ERROR with that reason, and returned. Nothing is done
        to anything. A report that is older than a server's last word, as a process reads it that was frozen, says
        nothing of it; settled: but one of a host that counts its starts anew, and has done so for long."""
        there, now = {each.allocation for each in held}, self._now()

        def gone(rows: Iterable[dict[str, Any]]) -> list[str]:
            return [row["id"] for row in rows if row["id"] not in there and row["state"] == "held"]

        def found(connection: sa.Connection) -> list[dict[str, Any]]:
            rows = statements.rows(connection.execute(_PLACED, {"hosts": [host]}))
            return [row for row in statements.find(connection, servers, allocation_id=gone(rows), deleted=False)
                    if not row["task_state"] and row["vm_state"] in ("active", "stopped") and (
                        (row["power_incarnation"], row["power_n"]) < number or
                        (settled and row["power_incarnation"] > number[0]))]

        def unit(connection: sa.Connection) -> list[str]:
            rows = found(connection)
            for row in rows:  # whatever the host says of it from now on is news
                move(connection, row, "lose", now, power_state="", power_incarnation=0, power_n=0, fault=fault_of(
                    500, "Its host does not have it: the host lost it, or the database is older.", now, host))
                changes.note(connection, now, ("server", row["id"]), project_id=row["project_id"])
            return [row["id"] for row in rows]

        if not gone(await self._placed(host)) or not await self._db.read(found):
            return ()
        return await self._db.run(unit)

    async def _find_living(self, some: Sequence[Collection[str]]) -> list[list[dict[str, Any]]]:
        def unit(connection: sa.Connection) -> dict[str, dict[str, Any]]:
            ids = pieces((id for each in some for id in each if id), VALUES)
            rows = [row for part in ids for row in statements.rows(connection.execute(_LIVING, {"ids": part}))]
            return {row["allocation_id"]: row for row in rows}

        found = await self._db.read(unit)
        return [[found[id] for id in each if id in found] for each in some]

    async def _find_placed(self, hosts: Sequence[str]) -> list[list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {host: [] for host in hosts}
        for row in await self._db.read(lambda c: statements.rows(c.execute(_PLACED, {"hosts": list(hosts)}))):
            found[row["host"]].append(row)
        return [found[host] for host in hosts]

    async def _end(self, lease: Lease, event: str, outcome: Outcome, values: Mapping[str, Any],
                   also: Callable[[sa.Connection], None] = lambda connection: None) -> bool:
        """also: what else belongs into the transaction. False: the server is not there, or its delete or
        another task came first."""
        now, server_id = self._now(), outcome.server_id

        def unit(connection: sa.Connection) -> bool:
            lease.check(connection)
            row = find_row(connection, server_id)
            if row is None or (row["task_state"] == "deleting" and event != "deleted") or (
                    outcome.task and row["task_state"] != outcome.task):
                return False
            seen = {} if outcome.guest is None else {
                "power_state": outcome.guest.power, "power_incarnation": outcome.guest.number[0],
                "power_n": outcome.guest.number[1]}
            move(connection, row, event, now, **{**seen, **values})
            history.add(connection, server_id, outcome.request_id, outcome.steps)
            history.end(connection, server_id, outcome.request_id, now, outcome.action_message)
            changes.note(connection, now, ("server", server_id), project_id=row["project_id"])
            also(connection)
            return True

        return await self._db.run(unit)

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None)


def _event(row: Mapping[str, Any], power: str) -> str | None:
    """What that power of its guest means for a server that nobody is at work on."""
    event = (_FOUND if row["vm_state"] == "error" and not row["power_state"] else _EVENTS).get(power)
    return event if event and (row["vm_state"], None) in TABLE[event] else None
