"""A server's row: looked up by id, and the fault it may hold."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nacre.base.errors import NotFound
from nacre.compute.tables import servers


def get_row(connection: sa.Connection, server_id: str) -> dict[str, Any]:
    """The row of a server that is not deleted. Raises NotFound."""
    row = find_row(connection, server_id)
    if row is None:
        raise NotFound(f"Instance {server_id} could not be found.")
    return row


def find_row(connection: sa.Connection, server_id: str) -> dict[str, Any] | None:
    """As `get_row`; None where there is none."""
    row = connection.execute(sa.select(servers).where(
        servers.c.id == server_id, servers.c.deleted.is_(False))).mappings().first()
    return dict(row) if row else None


def fault_of(code: int, message: str, now: datetime, details: str = "") -> dict[str, Any]:
    """A fault as its row holds it."""
    return {"code": code, "message": message[:255], "created_at": now.isoformat(), "details": details}
