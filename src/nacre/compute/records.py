"""Servers in the database: rows to structs, the one way a state changes, and the queries of lists."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import re2
import sqlalchemy as sa
from oslo_utils.strutils import bool_from_string

from nacre.base.db import statements
from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.compute.contract import Fault, Server, ServerFlavor, ServerQuery
from nacre.compute.states import ORDERED, State, step
from nacre.compute.tables import server_tags, servers
from nacre.node.contract import GuestFacts

_PLAIN = tuple(name for name in Server.__struct_fields__ if name in servers.c and name not in (
    "flavor", "fault", "tags", "trusted_certs"))
#: Columns that hold text or a number: what may be sorted and filtered by.
_ORDERED = {c.name for c in servers.columns if not isinstance(c.type, sa.JSON)}


def domain_name(number: int, server_id: str) -> str:
    """`instance-0000002a-4e1fe8e1`: the name hypervisors and operators know a server by. The id's beginning keeps the
    names of several clouds on one machine apart."""
    return f"instance-{number:08x}-{server_id[:8]}"


def server_of(row: Mapping[str, Any]) -> Server:
    """The struct of a row."""
    return Server(
        **{name: row[name] for name in _PLAIN}, flavor=ServerFlavor(**row["flavor"]),
        fault=msgspec.convert(row["fault"], Fault) if row["fault"] else None, tags=tuple(row["tags"]),
        trusted_certs=tuple(row["trusted_certs"]), domain_name=domain_name(row["number"], row["id"]))


def find_row(connection: sa.Connection, server_id: str, *, deleted: bool = False) -> dict[str, Any] | None:
    """A server's row, if there is one. deleted: also of one that is gone."""
    there: dict[str, Any] = {} if deleted else {"deleted": False}
    return statements.one(connection, servers, id=server_id, **there)


def get_row(connection: sa.Connection, server_id: str, *, deleted: bool = False) -> dict[str, Any]:
    """As `find_row`. Raises NotFound."""
    row = find_row(connection, server_id, deleted=deleted)
    if row is None:
        raise NotFound(f"Instance {server_id} could not be found.")
    return row


def project_of(connection: sa.Connection, server_id: str) -> str | None:
    """The project of a server that is there; None: there is none."""
    row = find_row(connection, server_id)
    return str(row["project_id"]) if row else None


def fault_of(code: int, message: str, now: datetime, details: str = "") -> dict[str, Any]:
    """A fault as its row holds it."""
    return {"code": code, "message": message[:255], "created_at": now.isoformat(), "details": details}


def move(connection: sa.Connection, row: Mapping[str, Any], event: str, now: datetime, **changes: Any) -> State:
    """The one way a server's state changes: by the table, compare-and-set. What a host will be ordered to do begins a
    new epoch. Raises Conflict (FLOW B4)."""
    before: State = (row["vm_state"], row["task_state"])
    after = step(before, event, row["id"])
    values = {"vm_state": after[0], "task_state": after[1], "updated_at": now, **changes}
    if event in ORDERED:
        values["epoch"] = row["epoch"] + 1
    if not statements.update(connection, servers, values, id=row["id"], vm_state=before[0], task_state=before[1],
                             epoch=row["epoch"]):
        raise Conflict(f"Instance {row['id']} changed at the same moment. Try again.")
    return after


def guest_facts(row: Mapping[str, Any]) -> GuestFacts:
    """What a guest is told about itself; without the password and files of its build."""
    return GuestFacts(
        id=row["id"], name=row["name"], hostname=row["hostname"], project_id=row["project_id"], user_id=row["user_id"],
        availability_zone=row["availability_zone"] or "nova", launch_index=row["launch_index"],
        metadata=row["metadata"], keys=(tuple(row["key"]),) if row["key"] else (), user_data=row["user_data"],
        reservation_id=row["reservation_id"], flavor_name=row["flavor"]["name"], image_id=row["image_id"],
        created_at=row["created_at"].isoformat(), security_groups=tuple(row["security_groups"]))


def search(connection: sa.Connection, query: ServerQuery) -> list[Server]:
    """The servers of a query, in its order. Raises BadRequest for a marker that is not there or a bad pattern.

    Patterns are matched here, by re2 (linear time, the same on every database), on the rows that pass the rest.
    """
    order = [(name, down) for name, down in query.sort if name in _ORDERED]
    order.append(("number", order[-1][1] if order else True))
    statement = sa.select(servers).where(*_conditions(query)).order_by(
        *(servers.c[n].desc().nulls_last() if down else servers.c[n].asc().nulls_first() for n, down in order))
    if query.marker:
        statement = statement.where(_after(connection, query, order))
    patterns = [(name, _compiled(name, text)) for name, text in query.patterns]
    if not patterns:
        statement = statement.limit(query.limit)
    found: list[Server] = []
    for row in connection.execute(statement).mappings():
        if all(pattern.search(row[name] or "") for name, pattern in patterns):
            found.append(server_of(row))  # type: ignore[arg-type]
            if len(found) >= query.limit:
                break
    return found[:query.limit]


def _compiled(name: str, pattern: str) -> Any:
    try:
        return re2.compile(pattern)
    except re2.error as error:
        raise BadRequest(f"Invalid filter {name}: not a regular expression ({error}).", field=name) from None


def _second_after(moment: datetime) -> datetime:
    """The end of its second: the API shows whole ones, so that what was shown of a server counts as that server's."""
    whole = moment.replace(microsecond=0)
    return whole + timedelta(seconds=1) if whole.year < 9999 else whole


def _conditions(query: ServerQuery) -> Iterable[sa.ColumnElement[bool]]:
    c = servers.c
    if query.deleted is not None:
        yield c.deleted.is_(query.deleted)
    for name, value in query.fields:
        if name in _ORDERED:
            yield c[name] == _typed(name, value)
    for name, values in (("vm_state", query.vm_states), ("task_state", query.task_states),
                         ("power_state", query.power_states)):
        if values:
            yield c[name].in_(values)
    changed = sa.func.coalesce(c.updated_at, c.created_at)
    if query.changes_since:
        yield changed >= query.changes_since
    if query.changes_before:
        yield changed < _second_after(query.changes_before)
    for name, moment in query.times:
        yield c[name] == moment if moment.microsecond else sa.and_(
            c[name] >= moment, c[name] < _second_after(moment))
    for name, flag in (("locked", query.locked), ("config_drive", query.config_drive)):
        if flag is not None:
            yield c[name].is_(flag)
    yield from _tag_conditions(query)


def _tag_conditions(query: ServerQuery) -> Iterable[sa.ColumnElement[bool]]:
    def has(*tags: str) -> sa.ColumnElement[bool]:
        return servers.c.id.in_(sa.select(server_tags.c.server_id).where(server_tags.c.tag.in_(tags)))

    yield from (has(tag) for tag in query.tags)
    if query.tags_any:
        yield has(*query.tags_any)
    if query.not_tags:
        yield ~sa.and_(*(has(tag) for tag in query.not_tags))
    if query.not_tags_any:
        yield ~has(*query.not_tags_any)


def _typed(name: str, value: str) -> Any:
    """A filter's text as its column's type. A number that is none matches nothing."""
    kind = servers.c[name].type
    if isinstance(kind, sa.Boolean):
        return bool(bool_from_string(value))
    if isinstance(kind, sa.Integer):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
    return value


def _after(connection: sa.Connection, query: ServerQuery, order: list[tuple[str, bool]]) -> sa.ColumnElement[bool]:
    """Rows that come after the marker in this order (NULL is the smallest)."""
    marker = find_row(connection, query.marker or "", deleted=True)
    if marker is None or any(marker[n] != v for n, v in query.fields if n == "project_id"):
        raise BadRequest(f"marker [{query.marker}] not found", field="marker")
    alternatives: list[Any] = []
    same: list[Any] = []
    for name, down in order:
        column, value = servers.c[name], marker[name]
        if value is None:
            later: Any = sa.false() if down else column.is_not(None)
            equal: Any = column.is_(None)
        else:
            later = sa.or_(column < value, column.is_(None)) if down else column > value
            equal = column == value
        alternatives.append(sa.and_(*same, later))
        same.append(equal)
    return sa.or_(*alternatives)
