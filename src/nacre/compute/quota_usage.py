"""What a project's servers take, as counters beside the servers: a quota is checked at the same cost however many there
are. Every transaction that makes or ends a server counts it."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre.base.db import statements
from nacre.compute.tables import usage

_C = usage.c
_SUM = sa.select(*(sa.func.coalesce(sa.func.sum(_C[name]), 0) for name in ("instances", "cores", "ram"))).where(
    _C.project_id == sa.bindparam("project"))
_OF_USER = _SUM.where(_C.user_id == sa.bindparam("user"))
_ADD = sa.update(usage).where(_C.project_id == sa.bindparam("project"), _C.user_id == sa.bindparam("user")).values(
    instances=_C.instances + sa.bindparam("n"), cores=_C.cores + sa.bindparam("c"), ram=_C.ram + sa.bindparam("r"))


def add(connection: sa.Connection, row: Mapping[str, Any], times: int) -> None:
    """A server's row came (times 1, or so many alike) or went (-1)."""
    amounts = {"n": times, "c": times * row["vcpus"], "r": times * row["memory_mb"]}
    whose = {"project": row["project_id"], "user": row["user_id"]}
    if not connection.execute(_ADD, {**whose, **amounts}).rowcount:
        statements.insert(connection, usage, {
            "project_id": row["project_id"], "user_id": row["user_id"], "instances": amounts["n"],
            "cores": amounts["c"], "ram": amounts["r"]})


def used(connection: sa.Connection, project_id: str, user_id: str | None = None) -> dict[str, int]:
    """What a project's servers take, or those of one of its users: instances, cores, ram (MB)."""
    query: sa.Select[Any] = _OF_USER if user_id else _SUM
    whose = {"project": project_id} | ({"user": user_id} if user_id else {})
    count, cores, ram = connection.execute(query, whose).one()
    return {"instances": int(count), "cores": int(cores), "ram": int(ram)}
