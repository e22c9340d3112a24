"""What was done to a server, and how long each step took: what os-instance-actions and `nacre trace` show."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from nacre.base.context import Context
from nacre.compute.contract import Event
from nacre.compute.tables import actions, events


def begin(connection: sa.Connection, context: Context, server_ids: Iterable[str], action: str, now: datetime) -> None:
    """Record the start of an action on each server (FLOW A3)."""
    connection.execute(sa.insert(actions), [
        {"server_id": s, "action": action, "request_id": context.request_id, "project_id": context.project_id,
         "user_id": context.user_id, "started_at": now, "updated_at": now} for s in server_ids])


def end(connection: sa.Connection, server_id: str, request_id: str, now: datetime, message: str | None = None) -> None:
    """Record that the action of that request ended; message: why, if it failed."""
    connection.execute(sa.update(actions).where(
        actions.c.server_id == server_id, actions.c.request_id == request_id).values(updated_at=now, message=message))


def add(connection: sa.Connection, server_id: str, request_id: str, steps: Iterable[Event]) -> None:
    """Record steps of an action, all in one statement."""
    rows = [{"server_id": server_id, "request_id": request_id, "name": s.name, "host": s.host,
             "started_at": s.started_at, "finished_at": s.finished_at, "result": s.result, "details": s.details}
            for s in steps]
    if rows:
        connection.execute(sa.insert(events), rows)

