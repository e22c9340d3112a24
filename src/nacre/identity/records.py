"""Rows as the API shows them, and back: one description a kind of thing, one set of functions for all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotFound
from nacre.identity import ended
from nacre.identity import tables as t

Document = dict[str, Any]
MAX_PAGE = 1000
#: What all attributes of a thing that are only kept may take together, in bytes of JSON.
MAX_EXTRA = 1 << 17


def _same(document: Document) -> Document:
    return document


class Kind(msgspec.Struct, frozen=True):
    """A kind of thing: its JSON names, its table, what of the table is never shown, and what an answer adds. ended: the
    name of what ends with one of that id, for things that tokens rest on. lender: the column of the user whose rights
    one of these lends, as tokens of its own."""

    name: str
    plural: str
    table: sa.Table
    secret: frozenset[str] = frozenset()
    finish: Callable[[Document], Document] = _same
    noun: str = ""
    ended: Callable[[str], str] | None = None
    lender: str = ""


class Page(msgspec.Struct, frozen=True):
    """Which part of a list. filters: column or attribute, comparison, value."""

    filters: Sequence[tuple[str, str, str]] = ()
    sort_key: str = ""
    descending: bool = False
    limit: int | None = None
    marker: str | None = None


def _user(d: Document) -> Document:
    shown = {k: v for k, v in d.items() if v is not None or k != "default_project_id"}
    return {"password_expires_at": None, "options": {}, **shown}


def _project(d: Document) -> Document:
    return {"description": "", "options": {}, "tags": [], **d, "domain_id": d["domain_id"] or None}


def _domain(d: Document) -> Document:
    hidden = ("domain_id", "parent_id", "is_domain")
    return {"description": "", "options": {}, "tags": [], **{k: v for k, v in d.items() if k not in hidden}}


def _role(d: Document) -> Document:
    return {"description": None, "options": {}, **d, "domain_id": d["domain_id"] or None}


def _endpoint(d: Document) -> Document:
    return {**d, "region": d["region_id"]}


USER = Kind("user", "users", t.users, frozenset({"password_hash"}), _user, ended=ended.of_user)
GROUP = Kind("group", "groups", t.groups, finish=lambda d: {"description": "", **d})
PROJECT = Kind("project", "projects", t.projects, finish=_project, ended=ended.of_project)
DOMAIN = Kind("domain", "domains", t.projects, finish=_domain, ended=ended.of_project)
ROLE = Kind("role", "roles", t.roles, finish=_role)
REGION = Kind("region", "regions", t.regions, finish=lambda d: {**d, "description": d.get("description") or ""})
SERVICE = Kind("service", "services", t.services)
ENDPOINT = Kind("endpoint", "endpoints", t.endpoints, finish=_endpoint)


def row_of(kind: Kind, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as a row: what has no column goes to `extra`."""
    columns = {c.name for c in kind.table.c} - {"extra"}
    return {**{k: v for k, v in values.items() if k in columns},
            "extra": {k: v for k, v in values.items() if k not in columns and k not in ("links", "extra")}}


def given(kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
    """What a client may set of `body`: not the id, and never a column that is secret."""
    barred = kind.secret | {"id", "links", "extra"}
    return {k: v for k, v in body.items() if k not in barred}


def document(kind: Kind, row: Mapping[str, Any], url: str) -> Document:
    """A row as the API shows it. url: of the v3 API."""
    shown = {k: v for k, v in row.items() if k not in kind.secret and k not in ("extra", "kind")}
    done = kind.finish({**row["extra"], **shown})
    return {**done, "links": {"self": f"{url}/{kind.plural}/{row['id']}"}}


def find(conn: sa.Connection, kind: Kind, id: str) -> dict[str, Any] | None:
    """The row, or None."""
    query = sa.select(kind.table).where(kind.table.c.id == id)
    if kind is DOMAIN:
        query = query.where(kind.table.c.is_domain)
    row = conn.execute(query).mappings().first()
    return dict(row) if row else None


def get(conn: sa.Connection, kind: Kind, id: str) -> dict[str, Any]:
    """The row. Raises NotFound."""
    row = find(conn, kind, id)
    if row is None:
        raise missing(kind, id)
    return row


def missing(kind: Kind, id: str) -> NotFound:
    """The error for a thing that is not there."""
    return NotFound(f"Could not find {kind.noun or kind.name}: {id}.")


def kept(extra: Document) -> Document:
    """Attributes that shall be kept, however many requests they came with. Raises BadRequest if they are too large."""
    if (size := len(msgspec.json.encode(extra))) > MAX_EXTRA:
        raise BadRequest(f"All attributes together would take {size} bytes, and {MAX_EXTRA} are allowed.", field="body")
    return extra


def insert(conn: sa.Connection, kind: Kind, values: Mapping[str, Any]) -> dict[str, Any]:
    """The new row."""
    row = row_of(kind, values)
    row["extra"] = kept(row["extra"])
    conn.execute(sa.insert(kind.table).values(row))
    return row


def update(conn: sa.Connection, kind: Kind, row: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The row with `changes`; what is set to null stays so. What is disabled ends the tokens that rest on it, as does a
    new secret: a user's password."""
    if not changes.get("enabled", True) or kind.secret & changes.keys():
        _end(conn, kind, row["id"])
    change = row_of(kind, changes)
    extra = kept({**row["extra"], **change.pop("extra")})
    new = {**row, **change, "extra": extra}
    conn.execute(sa.update(kind.table).where(kind.table.c.id == row["id"]).values({**change, "extra": extra}))
    return new


def delete(conn: sa.Connection, kind: Kind, id: str) -> None:
    """Only the row itself, and the tokens that rest on it."""
    _end(conn, kind, id)
    conn.execute(sa.delete(kind.table).where(kind.table.c.id == id))


def _end(conn: sa.Connection, kind: Kind, id: str) -> None:
    ended.end(conn, [kind.ended(id)] if kind.ended else [])
    if kind.lender:
        ended.end_loan(conn, id, conn.execute(
            sa.select(kind.table.c[kind.lender]).where(kind.table.c.id == id)).scalar_one_or_none())


def listing(conn: sa.Connection, kind: Kind, page: Page, *where: Any) -> list[dict[str, Any]]:
    """The rows of a page. Raises NotFound for a marker that is not there."""
    table = kind.table
    key = table.c.get(page.sort_key, table.c.id)
    query = sa.select(table).where(*where)
    loose = []
    for name, comparison, value in page.filters:
        column = table.c.get(name)
        if column is None or comparison.startswith("i"):  # engines differ on the case of letters past ASCII
            loose.append((name, comparison, value))
        else:
            query = query.where(_condition(column, comparison, value))
    if page.marker:
        at = get(conn, kind, page.marker)[key.name]
        later = sa.tuple_(key, table.c.id) < sa.tuple_(at, page.marker) if page.descending else (
            sa.tuple_(key, table.c.id) > sa.tuple_(at, page.marker))
        query = query.where(later)
    order = (key.desc(), table.c.id.desc()) if page.descending else (key, table.c.id)
    query = query.order_by(*order)
    if page.limit and not loose:
        query = query.limit(page.limit)
    rows = [dict(r) for r in conn.execute(query).mappings()]
    rows = [r for r in rows if all(matches(r[n] if n in r else r["extra"].get(n), c, v) for n, c, v in loose)]
    return rows[:page.limit] if page.limit else rows


def _condition(column: sa.Column[Any], comparison: str, value: str) -> Any:
    if isinstance(column.type, sa.Boolean):
        return column.is_(truth(value))
    size = len(value)
    match comparison:  # not LIKE: engines differ on whether it minds the case
        case "contains":
            return sa.func.replace(column, value, "") != column if value else sa.true()
        case "startswith":
            return sa.func.substr(column, 1, size) == value
        case "endswith":
            return sa.func.substr(column, sa.func.length(column) - size + 1) == value
    return column == value


def matches(held: Any, comparison: str, value: str) -> bool:
    """Whether a held value fits a filter. `contains` and its like mind the case of letters, `icontains` does not."""
    if isinstance(held, bool):
        return held is truth(value)
    text = str(held) if held is not None else ""
    if comparison.startswith("i"):
        comparison, text, value = comparison[1:], text.lower(), value.lower()
    return {"contains": value in text, "startswith": text.startswith(value),
            "endswith": text.endswith(value)}.get(comparison, text == value)


def truth(value: Any) -> bool:
    """A boolean as clients write one: `?enabled` and `?enabled=anything` but 0, false, no and off are true."""
    return str(value).lower() not in ("0", "false", "no", "off", "n", "f")
