"""What was done to a server, and how long each step took: what os-instance-actions and `nacre trace` show."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from nacre.base.context import Context
from nacre.base.db import Database, statements
from nacre.base.errors import NotFound
from nacre.compute.contract import Action, Event
from nacre.compute.tables import actions, events


def begin(connection: sa.Connection, context: Context, server_ids: Iterable[str], action: str, now: datetime) -> None:
    """Record the start of an action on each server (FLOW A3)."""
    statements.insert(connection, actions, [
        {"server_id": s, "action": action, "request_id": context.request_id, "project_id": context.project_id,
         "user_id": context.user_id, "started_at": now, "updated_at": now} for s in server_ids])


def end(connection: sa.Connection, server_id: str, request_id: str, now: datetime, message: str | None = None) -> None:
    """Record that the action of that request ended; message: why, if it failed."""
    statements.update(connection, actions, {"updated_at": now, "message": message}, server_id=server_id,
                      request_id=request_id)


def add(connection: sa.Connection, server_id: str, request_id: str, steps: Iterable[Event]) -> None:
    """Record steps of an action, all in one statement."""
    rows = [{"server_id": server_id, "request_id": request_id, "name": s.name, "host": s.host,
             "started_at": s.started_at, "finished_at": s.finished_at, "result": s.result, "details": s.details}
            for s in steps]
    if rows:
        statements.insert(connection, events, rows)


class History:
    """Reading it back."""

    def __init__(self, db: Database):
        self._db = db

    async def actions(self, server_id: str) -> tuple[Action, ...]:
        """The actions on a server, newest first."""
        rows = await self._db.read(lambda c: c.execute(sa.select(actions).where(
            actions.c.server_id == server_id).order_by(actions.c.id.desc())).mappings().all())
        return tuple(_action(row) for row in rows)

    async def action(self, server_id: str, request_id: str) -> tuple[Action, tuple[Event, ...]]:
        """One action with its steps in the order they began. Raises NotFound."""
        def unit(connection: sa.Connection) -> tuple[Action, tuple[Event, ...]]:
            row = connection.execute(sa.select(actions).where(
                actions.c.server_id == server_id, actions.c.request_id == request_id)).mappings().first()
            if row is None:
                raise NotFound(f"Action for request_id {request_id} on instance {server_id} not found")
            steps = connection.execute(sa.select(events).where(
                events.c.server_id == server_id, events.c.request_id == request_id).order_by(
                events.c.started_at, events.c.id)).mappings()
            return _action(row), tuple(Event(**{n: s[n] for n in Event.__struct_fields__}) for s in steps)

        return await self._db.read(unit)


def _action(row: sa.RowMapping) -> Action:
    return Action(**{name: row[name] for name in Action.__struct_fields__})
