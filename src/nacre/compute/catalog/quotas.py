"""Quotas: how much a project may have, and how much it has."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre.base.db import Database, statements
from nacre.base.errors import BadRequest
from nacre.compute.catalog.tables import quota_limits

#: Every resource with a limit, and its default. -1: no limit. Network resources are the network service's business;
#: old versions of the API still show them.
DEFAULTS: Mapping[str, int] = {
    "instances": 10, "cores": 20, "ram": 51200, "floating_ips": -1, "fixed_ips": -1, "metadata_items": 128,
    "injected_files": 5, "injected_file_content_bytes": 10240, "injected_file_path_bytes": 255,
    "security_groups": -1, "security_group_rules": -1, "key_pairs": 100, "server_groups": 10,
    "server_group_members": 10,
}


def limits_of(connection: sa.Connection, project_id: str | None, user_id: str = "",
              defaults: Mapping[str, int] = DEFAULTS) -> dict[str, int]:
    """The limits in force, for use inside another unit of work: the user's, else the project's, else the default
    class's, else the built-in ones."""
    found = dict(defaults)
    levels = [("", ""), (project_id or "", ""), (project_id or "", user_id)]
    projects = {project for project, _ in levels}
    stored = {(row["project_id"], row["user_id"], row["resource"]): row["hard_limit"]
              for row in statements.find(connection, quota_limits, project_id=projects)}
    for project, user in dict.fromkeys(levels):
        found.update({name: stored[project, user, name] for name in found if (project, user, name) in stored})
    return found


class Quotas:
    """Limits in the database. `defaults` replace the built-in ones where the operator configures them. at_once: servers
    of one request, whatever a project may have in all."""

    def __init__(self, db: Database, defaults: Mapping[str, int] | None = None, at_once: int = 1000):
        self._db, self.at_once = db, at_once
        self.defaults = {**DEFAULTS, **(defaults or {})}

    async def limits(self, project_id: str | None, user_id: str = "") -> dict[str, int]:
        """Every limit in force."""
        return await self._db.read(lambda c: limits_of(c, project_id, user_id, self.defaults))

    async def limit(self, project_id: str | None, resource: str, user_id: str = "") -> int:
        """One limit in force."""
        return (await self.limits(project_id, user_id))[resource]

    async def set(self, project_id: str, limits: Mapping[str, int], user_id: str = "") -> None:
        """Sets these limits and leaves the others. project_id "": the default class."""
        def unit(c: sa.Connection) -> None:
            for resource, value in limits.items():
                key: Any = {"project_id": project_id, "user_id": user_id, "resource": resource}
                same = [quota_limits.c[name] == part for name, part in key.items()]
                if not c.execute(sa.update(quota_limits).where(*same).values(hard_limit=value)).rowcount:
                    c.execute(sa.insert(quota_limits).values(**key, hard_limit=value))

        await self._db.run(unit)

    async def reset(self, project_id: str, user_id: str | None = None) -> None:
        """Back to the defaults, for the whole project with its users, or for one user."""
        wanted = [quota_limits.c.project_id == project_id]
        if user_id:
            wanted.append(quota_limits.c.user_id == user_id)
        await self._db.run(lambda c: c.execute(sa.delete(quota_limits).where(*wanted)).rowcount)


def check_lowered(limits: Mapping[str, int], used: Mapping[str, int]) -> None:
    """Raises BadRequest where a new limit is below what is in use."""
    for resource, value in limits.items():
        if 0 <= value < used.get(resource, 0):
            raise BadRequest(f"Quota limit {value} for {resource} must be greater than or equal to already used and "
                             f"reserved {used[resource]}.", field=resource)
