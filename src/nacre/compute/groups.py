"""What a server group wishes, and the last word on it: in the transaction of an attempt, past which nobody gets."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre.base.errors import Refused
from nacre.compute.catalog.tables import server_groups
from nacre.compute.contract import Group
from nacre.compute.tables import servers


def find(connection: sa.Connection, group_id: str) -> Group | None:
    """A group and who is in it. None: there is no such group any more."""
    found = connection.execute(sa.select(server_groups.c.policy, server_groups.c.rules).where(
        server_groups.c.id == group_id)).first()
    if found is None:
        return None
    members = connection.scalars(sa.select(servers.c.id).where(
        servers.c.group_id == group_id, servers.c.deleted.is_(False)))
    return Group(policy=found.policy, members=tuple(members),
                 max_per_host=int((found.rules or {}).get("max_server_per_host", 1)))


def check(connection: sa.Connection, row: Mapping[str, Any], host: str) -> None:
    """Raises Refused: the group of this server would not have it on this host, as others of it are placed by now."""
    group = find(connection, row["group_id"])
    if group is None or group.policy not in ("affinity", "anti-affinity"):
        return
    others = list(connection.scalars(sa.select(servers.c.host).where(
        servers.c.group_id == row["group_id"], servers.c.deleted.is_(False), servers.c.id != row["id"],
        servers.c.host != "", servers.c.vm_state != "error")))
    if group.policy == "anti-affinity" and others.count(host) >= group.max_per_host:
        raise Refused("The host has as many of the server group already as may be there.", details=host)
    if group.policy == "affinity" and others and host not in others:
        raise Refused("The server group is not on the host.", details=host)
