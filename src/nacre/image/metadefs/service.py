"""Namespaces of metadata definitions, and the objects, properties, tags and resource types in them."""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base import errors as e
from nacre.base.context import Context
from nacre.image.metadefs.tables import given, items, namespaces
from nacre.image.service import ImageService

#: Known before anybody associates one.
RESOURCE_TYPES = ("OS::Cinder::Volume", "OS::Glance::Image", "OS::Nova::Aggregate", "OS::Nova::Flavor",
                  "OS::Nova::Server")
#: Where a namespace's document keeps each kind of item.
KINDS = {"objects": "objects", "properties": "properties", "tags": "tags",
         "resource_types": "resource_type_associations"}
SORT_KEYS = ("created_at", "updated_at", "namespace", "display_name", "visibility", "owner")


class Kind(msgspec.Struct, frozen=True):
    """The rules of one kind of item."""

    list: str
    show: str
    add: str
    change: str
    drop: str


RULES = {
    "objects": Kind("get_metadef_objects", "get_metadef_object", "add_metadef_object", "modify_metadef_object",
                    "delete_metadef_object"),
    "properties": Kind("get_metadef_properties", "get_metadef_property", "add_metadef_property",
                       "modify_metadef_property", "remove_metadef_property"),
    "tags": Kind("get_metadef_tags", "get_metadef_tag", "add_metadef_tag", "modify_metadef_tag", "delete_metadef_tag"),
    "resource_types": Kind("list_metadef_resource_types", "list_metadef_resource_types",
                           "add_metadef_resource_type_association", "add_metadef_resource_type_association",
                           "remove_metadef_resource_type_association"),
}


class Page(msgspec.Struct, kw_only=True):
    """Which namespaces are asked for."""

    marker: str | None = None
    limit: int = 25
    sort_key: str = "created_at"
    sort_dir: str = "desc"
    visibility: str | None = None
    resource_types: list[str] = msgspec.field(default_factory=list)


class Metadefs:
    """The vocabularies. A row of an item carries its name, body and times."""

    def __init__(self, images: ImageService):
        self._db, self._now = images.db, images.now

    async def page(self, context: Context, page: Page) -> list[tuple[Mapping[str, Any], Sequence[Any]]]:
        """Namespaces, each with its resource type associations; one more than asked for if there are more."""

        def unit(conn: sa.Connection) -> list[tuple[Mapping[str, Any], Sequence[Any]]]:
            rows = conn.execute(self._select(conn, context, page)).all()
            inside = defaultdict(list)
            for row in conn.execute(sa.select(items).where(
                    items.c.namespace_id.in_([r.id for r in rows]), items.c.kind == "resource_types")):
                inside[row.namespace_id].append(row)
            return [(dict(row._mapping), inside[row.id]) for row in rows]

        return await self._db.read(unit)

    async def create(self, context: Context, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """A namespace with all that its document holds. Raises Conflict if the name is taken."""
        return await self._db.run(lambda conn: self._insert(conn, context, body))

    async def give(self, context: Context, documents: Sequence[Mapping[str, Any]]) -> None:
        """Those of these namespaces that the cloud was never given, unless it has one of the name."""
        def unit(conn: sa.Connection) -> None:
            there = {*conn.scalars(sa.select(given.c.namespace)), *conn.scalars(sa.select(namespaces.c.namespace))}
            for body in documents:
                if body["namespace"] not in there:
                    self._insert(conn, context, body)
                    conn.execute(sa.insert(given).values(namespace=body["namespace"]))

        await self._db.run(unit)

    def _insert(self, conn: sa.Connection, context: Context, body: Mapping[str, Any]) -> Mapping[str, Any]:
        now = self._now()
        row = {"id": str(uuid.uuid4()), "created_at": now, "updated_at": now, **_settable(context, body)}
        try:
            conn.execute(sa.insert(namespaces).values(row))
            for kind, key in KINDS.items():
                if fresh := [self._item(row["id"], kind, name, one) for name, one in _named(body.get(key) or ())]:
                    conn.execute(sa.insert(items), fresh)
        except sa.exc.IntegrityError:
            raise e.Conflict(f"The metadata definition namespace={row['namespace']} already exists, or names "
                             "something twice.", field="namespace") from None
        return row

    async def show(self, context: Context, name: str) -> tuple[Mapping[str, Any], dict[str, Sequence[Any]]]:
        """A namespace and all that is in it, by kind. Raises NotFound."""
        def unit(conn: sa.Connection) -> tuple[Mapping[str, Any], dict[str, Sequence[Any]]]:
            row = self._load(conn, context, name)
            inside: dict[str, Any] = {kind: [] for kind in KINDS}
            for item in conn.execute(sa.select(items).where(items.c.namespace_id == row["id"]).order_by(items.c.name)):
                inside[item.kind].append(item)
            return row, inside

        return await self._db.read(unit)

    async def about(self, context: Context, name: str) -> Mapping[str, Any]:
        """The namespace alone, as policy asks about it. Raises NotFound."""
        return await self._db.read(lambda conn: self._load(conn, context, name))

    async def update(self, context: Context, name: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The namespace as `body` says; what it leaves out falls back to its default."""
        def unit(conn: sa.Connection) -> Mapping[str, Any]:
            row = self._load(conn, context, name)
            after = {**_settable(context, body), "updated_at": self._now()}
            try:
                conn.execute(sa.update(namespaces).where(namespaces.c.id == row["id"]).values(after))
            except sa.exc.IntegrityError:
                raise e.Conflict(f"The metadata definition namespace={after['namespace']} already exists.",
                                 field="namespace") from None
            return {**row, **after}

        return await self._db.run(unit)

    async def delete(self, context: Context, name: str) -> None:
        """The namespace and all that is in it are gone. Raises Forbidden if it is protected."""
        def unit(conn: sa.Connection) -> None:
            row = self._load(conn, context, name)
            _check_unprotected(row)
            conn.execute(sa.delete(items).where(items.c.namespace_id == row["id"]))
            conn.execute(sa.delete(namespaces).where(namespaces.c.id == row["id"]))

        await self._db.run(unit)

    async def resource_types(self) -> set[str]:
        """Every resource type known here."""
        rows = await self._db.read(lambda conn: conn.execute(
            sa.select(items.c.name).where(items.c.kind == "resource_types").distinct()).all())
        return {*RESOURCE_TYPES, *(row.name for row in rows)}

    async def items(self, context: Context, name: str, kind: str) -> Sequence[Any]:
        """The items of one kind."""
        def unit(conn: sa.Connection) -> Sequence[Any]:
            row = self._load(conn, context, name)
            return conn.execute(sa.select(items).where(*_of(row, kind)).order_by(items.c.created_at.desc(),
                                                                                 items.c.name)).all()

        return await self._db.read(unit)

    async def item(self, context: Context, name: str, kind: str, item: str) -> Any:
        """One item. Raises NotFound."""
        def unit(conn: sa.Connection) -> Any:
            row = self._load(conn, context, name)
            return _found(conn.execute(sa.select(items).where(*_of(row, kind), items.c.name == item)).first(), item)

        return await self._db.read(unit)

    async def add(self, context: Context, name: str, kind: str, bodies: Sequence[Mapping[str, Any]], *,
                  replace: bool = False) -> list[Mapping[str, Any]]:
        """New items; `replace` drops those that were there. Raises Conflict."""
        def unit(conn: sa.Connection) -> list[Mapping[str, Any]]:
            row = self._load(conn, context, name)
            if replace:
                conn.execute(sa.delete(items).where(*_of(row, kind)))
            fresh: list[Mapping[str, Any]] = [self._item(row["id"], kind, body["name"], body) for body in bodies]
            try:
                if fresh:
                    conn.execute(sa.insert(items), [dict(one) for one in fresh])
            except sa.exc.IntegrityError:
                raise e.Conflict(f"One of the {kind} already exists in namespace {name}.", field="name") from None
            return fresh

        return await self._db.run(unit)

    async def change(self, context: Context, place: tuple[str, str, str], body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replaces an item; it may get another name. place: namespace, kind and name. Raises NotFound, Conflict."""
        name, kind, item = place

        def unit(conn: sa.Connection) -> Mapping[str, Any]:
            row = self._load(conn, context, name)
            where = (*_of(row, kind), items.c.name == item)
            old = _found(conn.execute(sa.select(items).where(*where)).first(), item)
            after = {**self._item(row["id"], kind, body["name"], body), "created_at": old.created_at}
            try:
                conn.execute(sa.update(items).where(*where).values(after))
            except sa.exc.IntegrityError:
                raise e.Conflict(f"{body['name']} already exists in namespace {name}.", field="name") from None
            return after

        return await self._db.run(unit)

    async def drop(self, context: Context, name: str, kind: str, item: str | None) -> None:
        """Removes an item, or with None all of the kind. Raises NotFound, Forbidden."""
        def unit(conn: sa.Connection) -> None:
            row = self._load(conn, context, name)
            if item is None:
                _check_unprotected(row)
                conn.execute(sa.delete(items).where(*_of(row, kind)))
                return
            gone = conn.execute(sa.delete(items).where(*_of(row, kind), items.c.name == item)).rowcount
            _found(gone or None, item)

        await self._db.run(unit)

    def _select(self, conn: sa.Connection, context: Context, page: Page) -> sa.Select[Any]:
        column = namespaces.c[page.sort_key]
        query = sa.select(namespaces).where(_visible(context))
        if page.visibility is not None:
            query = query.where(namespaces.c.visibility == page.visibility)
        if page.resource_types:
            query = query.where(sa.exists().where(items.c.namespace_id == namespaces.c.id, items.c.kind ==
                                                  "resource_types", items.c.name.in_(page.resource_types)))
        if page.marker is not None:
            row = self._load(conn, context, page.marker)
            key, last = sa.tuple_(column, namespaces.c.id), sa.tuple_(sa.literal(row[page.sort_key], column.type),
                                                                      sa.literal(row["id"]))
            query = query.where(key > last if page.sort_dir == "asc" else key < last)
        order = (column.asc(), namespaces.c.id.asc()) if page.sort_dir == "asc" else (
            column.desc(), namespaces.c.id.desc())
        return query.order_by(*order).limit(page.limit + 1)

    def _load(self, conn: sa.Connection, context: Context, name: str) -> Mapping[str, Any]:
        """The namespace, if the caller may see it. Raises NotFound."""
        row = None
        if "\x00" not in name:
            row = conn.execute(sa.select(namespaces).where(namespaces.c.namespace == name, _visible(context))).first()
        if row is None:
            raise e.NotFound(f"Namespace {name[:80]} not found")
        return dict(row._mapping)

    def _item(self, namespace_id: str, kind: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        now = self._now()
        return {"namespace_id": namespace_id, "kind": kind, "name": name, "created_at": now, "updated_at": now,
                "body": {k: v for k, v in body.items() if k != "name"}}


def _settable(context: Context, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"namespace": body["namespace"], "display_name": body.get("display_name"),
            "description": body.get("description"), "visibility": body.get("visibility", "private"),
            "protected": body.get("protected", False), "owner": body.get("owner") or context.project_id or ""}


def _named(part: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """The items of a document's part, which is a list, or for properties an object by name."""
    return list(part.items()) if isinstance(part, Mapping) else [(one["name"], one) for one in part]


def _visible(context: Context) -> sa.ColumnElement[bool]:
    if context.is_admin:
        return sa.true()
    return sa.or_(namespaces.c.owner == context.project_id, namespaces.c.visibility == "public")


def _of(row: Mapping[str, Any], kind: str) -> tuple[sa.ColumnElement[bool], ...]:
    return items.c.namespace_id == row["id"], items.c.kind == kind


def _found(row: Any, name: str) -> Any:
    if row is None:
        raise e.NotFound(f"{name[:80]} was not found in the namespace.")
    return row


def _check_unprotected(row: Mapping[str, Any]) -> None:
    if row["protected"]:
        raise e.Forbidden(f"Metadata definition namespace {row['namespace']} is protected and cannot be deleted.",
                          field="protected")
