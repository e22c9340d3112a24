"""The ledger by an operator's word: hosts that leave, guests of hosts that are adopted or forgotten."""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.durable.processes import Guard
from nacre.base.errors import Conflict
from nacre.compute import history, quota_usage
from nacre.compute.allocations import insert, of_server
from nacre.compute.catalog.tables import flavors
from nacre.compute.contract import Adoption, Server, ServerFlavor
from nacre.compute.records import find_row, move, server_of
from nacre.compute.tables import allocations, servers
from nacre.node.contract import Orphan
from nacre.scheduler.contract import Allocation, Amounts


class LedgerAdmin:
    """Implements `contract.LedgerAdmin`."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock

    async def check(self, guard: Guard) -> None:
        """Raises what the guard raises now."""
        await self._db.read(guard.check)

    def free_of(self, host: str, *, dead: bool = False) -> "FreeOf":
        """Stands while the host has nothing; dead: but what is ending."""
        return FreeOf(host, dead)

    def unknown(self, found: Orphan) -> "Unknown":
        """Stands while a guest that a host has is none of ours, and may become one."""
        return Unknown(found)

    async def adopt(self, order: Adoption) -> Server:
        """A guest that a host has is a server from now on, and its room is held. Raises Conflict: as `Unknown`."""
        found, now = order.found, self._now()

        def unit(connection: sa.Connection) -> Server:
            Unknown(found).check(connection)
            row, context = find_row(connection, found.server_id), order.context
            made = _adopted(order, _flavor_id(connection, found), now)
            if row is None:
                connection.execute(sa.insert(servers), made)
                quota_usage.add(connection, made, 1)
            else:  # its build came to an end here without it
                move(connection, row, "adopt", now, epoch=max(row["epoch"], found.epoch), **{
                    name: made[name] for name in ("host", "allocation_id", "power_state", "launched_at",
                                                  "availability_zone", "fault")})
            insert(connection, now, Allocation(
                id=found.allocation, server_id=found.server_id, host=order.host, epoch=found.epoch, purpose="build",
                state="held", amounts=order.amounts), order.project_id)
            history.begin(connection, context, [found.server_id], "adopt", now)
            history.end(connection, found.server_id, context.request_id, now)
            return server_of(find_row(connection, found.server_id) or {})

        return await self._db.run(unit)

    async def forget(self, host: str, found: Orphan, amounts: Amounts, *, sure: bool = False) -> Allocation:
        """A guest that a host has and nobody wants: the host must give it up, as any that ended. Raises Conflict: it is
        a server's after all; or its server lives on another host, and the operator is not sure."""
        now = self._now()

        def unit(connection: sa.Connection) -> Allocation:
            Unknown(found, ending=True).check(connection)
            row = find_row(connection, found.server_id, deleted=True)
            if not sure and row and not row["deleted"] and row["host"] not in ("", host):
                raise Conflict(f"Server {found.server_id} lives on host {row['host']}, and {host} says that it has it "
                               f"too: name {host} with the guest if its one is to be ended.")
            made = Allocation(
                id=found.allocation, server_id=found.server_id, host=host, purpose="forget", state="ending",
                epoch=max(found.epoch, row["epoch"] if row else 0), amounts=amounts)
            insert(connection, now, made)
            return made

        return await self._db.run(unit)

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None)


class FreeOf(msgspec.Struct, frozen=True):
    """A guard of a host's removal."""

    host: str
    dead: bool = False

    def check(self, connection: sa.Connection) -> None:
        """Raises Conflict, naming what is there and what to do."""
        there = [row for row in statements.find(connection, allocations, ("server_id",), host=self.host)
                 if not (self.dead and row["state"] == "ending")]
        if there:
            some = ", ".join(f"{row['server_id']} ({row['state']})" for row in there[:10])
            rest = "then remove it again" if self.dead else (
                "what is ending goes when the host confirms it. Is the machine gone for good: `nacre host remove "
                f"{self.host} --dead`")
            raise Conflict(f"Host {self.host} has {len(there)} allocations, of the servers {some}"
                           f"{' and others' if len(there) > 10 else ''}: delete these servers first; {rest}.")


class Unknown(msgspec.Struct, frozen=True):
    """A guard of what is done with a guest that only its host knows. ending: it is to go, not to become a server."""

    found: Orphan
    ending: bool = False

    def check(self, connection: sa.Connection) -> None:
        """Raises Conflict."""
        found, server_id = self.found, self.found.server_id
        if statements.one(connection, allocations, id=found.allocation):
            raise Conflict(f"Guest {server_id} is known: it has the allocation {found.allocation} of its host.")
        row, others = find_row(connection, server_id, deleted=True), of_server(connection, server_id)
        if self.ending:
            if found.allocation == server_id and others and not (row and row["deleted"]):
                raise Conflict(f"Guest {server_id} is server {server_id}'s own, which its host's journal has lost: "
                               "delete the server, then forget the guest.")
            return
        if row is not None and row["deleted"]:
            raise Conflict(f"Server {server_id} was deleted here: its guest can only be forgotten.")
        if row is not None and (others or (row["vm_state"], row["task_state"]) != ("error", None)):
            where = f"on {others[0].host}" if others else "nowhere"
            raise Conflict(f"Server {server_id} is here already, in state {row['vm_state']}, with room {where}: one "
                           "server cannot have two guests. Forget this one, or delete that server and forget both.")


def _flavor_id(connection: sa.Connection, found: Orphan) -> str:
    """The flavor of that name and size, or its name where there is none such here."""
    order = found.order
    assert order is not None
    same = statements.one(connection, flavors, name=order.guest.flavor_name, memory_mb=order.memory_mb,
                          vcpus=order.vcpus)
    return str(same["id"]) if same else order.guest.flavor_name


def _adopted(order: Adoption, flavor_id: str, now: datetime) -> dict[str, Any]:
    """The row of a server that was found on a host. What only the lost database knew (metadata, tags, description, user
    data) is gone."""
    build, found = order.found.order, order.found
    assert build is not None
    guest, image = build.guest, build.image
    size = ServerFlavor(
        id=flavor_id, name=guest.flavor_name, memory_mb=build.memory_mb, vcpus=build.vcpus, root_gb=build.root_gb,
        ephemeral_gb=build.ephemeral_gb, swap_mb=build.swap_mb, extra_specs=build.extra_specs)
    made = datetime.fromisoformat(guest.created_at).replace(tzinfo=None) if guest.created_at else now
    return {
        "id": found.server_id, "name": order.name, "project_id": order.project_id, "user_id": order.user_id,
        "vm_state": "active" if found.power in ("running", "paused") else "stopped", "task_state": None,
        "power_state": found.power, "host": order.host, "allocation_id": found.allocation, "epoch": found.epoch,
        "availability_zone": order.zone, "pinned_zone": None, "deleted": False, "locked": False,
        "created_at": made, "updated_at": now, "launched_at": made, "flavor_id": flavor_id,
        "memory_mb": size.memory_mb, "vcpus": size.vcpus, "flavor": msgspec.to_builtins(size), "metadata": {},
        "tags": [], "image_id": image.id if image else "", "image_properties": image.properties if image else {},
        "kernel_id": build.kernel.id if build.kernel else "", "ramdisk_id": build.ramdisk.id if build.ramdisk else "",
        "key_name": guest.keys[0][0] if guest.keys else None, "key": list(guest.keys[0]) if guest.keys else None,
        "description": None, "hostname": guest.hostname, "config_drive": build.config_drive,
        "reservation_id": guest.reservation_id, "launch_index": guest.launch_index, "root_device_name": "/dev/vda",
        "security_groups": list(guest.security_groups or ("default",)), "trusted_certs": [], "hints": {},
        "fault": None, "user_data": None}
