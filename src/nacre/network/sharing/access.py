"""Who may see what: a project its own things, and those of others that their RBAC policies open to it; administrators,
and the cloud's other services, see all."""

from typing import Any

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.work import Work

SHARED, EXTERNAL = "access_as_shared", "access_as_external"


def granted(work: Work, object_type: str, *actions: str) -> sa.Select[Any]:
    """The ids of the objects that others' policies open to the caller's project; no actions: by being shared."""
    r = t.rbac_policies.c
    return sa.select(r.object_id).where(r.object_type == object_type, r.action.in_(actions or (SHARED,)),
                                        r.target_project.in_(["*", work.context.project_id or ""]))


def shared(work: Work, object_type: str) -> set[str]:
    """Those that are shared with the caller's project, or with all."""
    return set(work.conn.execute(granted(work, object_type)).scalars())


def is_shared(work: Work, object_type: str, object_id: str) -> bool:
    """Whether this one is."""
    found = granted(work, object_type).where(t.rbac_policies.c.object_id == object_id)
    return work.row(found.limit(1)) is not None


def is_given(work: Work, object_type: str, object_id: str) -> bool:
    """Whether it is shared with the caller's project by name, not just with all."""
    mine = t.rbac_policies.c.target_project == (work.context.project_id or "")
    found = granted(work, object_type).where(t.rbac_policies.c.object_id == object_id, mine)
    return work.row(found.limit(1)) is not None


def own(work: Work, table: sa.FromClause) -> sa.ColumnElement[bool]:
    """The rows of the caller's project."""
    return sa.true() if work.context.sees_all else table.c.project_id == work.context.project_id


def visible(work: Work, table: sa.FromClause, object_type: str, *actions: str) -> sa.ColumnElement[bool]:
    """The rows of a shareable table that the caller may see: its own and those opened to it."""
    return sa.true() if work.context.sees_all else sa.or_(
        own(work, table), table.c.id.in_(granted(work, object_type, *actions)))
