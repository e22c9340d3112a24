"""Images as values, and the few statements that read and write them."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.context import Context
from nacre.base.db import statements
from nacre.base.errors import Conflict, NotFound
from nacre.image.contract import ImageFacts
from nacre.image.data.ledger import located, orphan_all
from nacre.image.data.locations import Location
from nacre.image.queries import Listing, sees, select, visible
from nacre.image.tables import (
    deleted_images,
    image_cache,
    image_members,
    image_properties,
    image_tags,
    images,
)


class Image(msgspec.Struct, kw_only=True):
    """One image. `row` has the columns of its table; `member_id` is the caller's project if it is shared with it;
    `location` is where its data is."""

    row: dict[str, Any]
    properties: dict[str, str]
    tags: list[str]
    member_id: str | None = None
    location: Location | None = None

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def status(self) -> str:
        return str(self.row["status"])

    @property
    def target(self) -> dict[str, Any]:
        """What policy rules ask about. An absent value is one that equals nobody's project."""
        owner = self.row["owner"] or ""
        return {"project_id": owner, "owner": owner, "member_id": self.member_id or "",
                "visibility": self.row["visibility"]}

    def facts(self) -> ImageFacts:
        """For compute."""
        names = [n for n in ImageFacts.__struct_fields__ if n != "properties"]
        return ImageFacts(**{n: self.row[n] for n in names}, properties=dict(self.properties))


def load(conn: sa.Connection, context: Context, image_id: str) -> Image:
    """The image, if the caller may see it. Raises NotFound."""
    if len(image_id) > 36 or "\x00" in image_id:  # no id looks so, and PostgreSQL refuses a NUL
        raise missing(image_id)
    row, member = statements.one(conn, images, id=image_id), None
    if row is not None and row["visibility"] == "shared" and row["owner"] != context.project_id:
        member = statements.one(conn, image_members, image_id=image_id, member_id=context.project_id)
    if row is None or not sees(context, row, member=member is not None):
        raise missing(image_id)
    image = _assemble(conn, [row])[0]
    image.member_id = member["member_id"] if member else None
    return image


def load_page(conn: sa.Connection, context: Context, listing: Listing) -> tuple[list[Image], bool]:
    """A page of images, and whether there are more. Raises NotFound if the marker cannot be seen."""
    marker = None
    if listing.marker is not None:
        marker = conn.execute(sa.select(images).where(images.c.id == listing.marker, visible(context))).first()
        if marker is None:
            raise missing(listing.marker)
    rows = conn.execute(select(listing, context, marker)).all()
    return _assemble(conn, [dict(row._mapping) for row in rows[:listing.limit]]), len(rows) > listing.limit


def insert(conn: sa.Connection, image: Image) -> None:
    """A new image. Raises Conflict if the id is taken, or was once."""
    if conn.execute(sa.select(deleted_images.c.id).where(deleted_images.c.id == image.id)).first():
        raise Conflict(f"Image ID {image.id} already exists!", field="id")
    try:
        conn.execute(sa.insert(images).values(image.row))
    except sa.exc.IntegrityError:
        raise Conflict(f"Image ID {image.id} already exists!", field="id") from None
    replace_properties(conn, image.id, {}, image.properties)
    replace_tags(conn, image.id, (), image.tags)


def remove(conn: sa.Connection, image_id: str, now: dt.datetime) -> list[Location]:
    """The image is gone, its id is used up. Where its data is that nobody is writing now: to be dropped."""
    for table in (image_cache, image_members, image_properties, image_tags):
        conn.execute(sa.delete(table).where(table.c.image_id == image_id))
    dropped = orphan_all(conn, image_id)
    conn.execute(sa.delete(images).where(images.c.id == image_id))
    conn.execute(sa.insert(deleted_images).values(id=image_id, deleted_at=now))
    return dropped


def replace_properties(conn: sa.Connection, image_id: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Writes the difference."""
    gone = [n for n in old if n not in new or old[n] != new[n]]
    if gone:
        conn.execute(sa.delete(image_properties).where(
            image_properties.c.image_id == image_id, image_properties.c.name.in_(gone)))
    fresh = [{"image_id": image_id, "name": n, "value": v} for n, v in new.items() if old.get(n) != v or n not in old]
    if fresh:
        conn.execute(sa.insert(image_properties), fresh)


def replace_tags(conn: sa.Connection, image_id: str, old: Iterable[str], new: Iterable[str]) -> None:
    """Writes the difference."""
    had, has = set(old), set(new)
    if had - has:
        conn.execute(sa.delete(image_tags).where(image_tags.c.image_id == image_id, image_tags.c.tag.in_(had - has)))
    if has - had:
        conn.execute(sa.insert(image_tags), [{"image_id": image_id, "tag": t} for t in sorted(has - had)])


def move(conn: sa.Connection, image_id: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Compare and set: True if the image was as `before` says, and is now as `after` says."""
    where = [images.c[name] == value for name, value in before.items()]
    return conn.execute(sa.update(images).where(images.c.id == image_id, *where).values(after)).rowcount == 1


def missing(image_id: str) -> NotFound:
    """The error for an image that is not there, or not for this caller."""
    return NotFound(f"No image found with ID {image_id[:64]}")


def _assemble(conn: sa.Connection, rows: Sequence[dict[str, Any]]) -> list[Image]:
    """The rows with their properties, tags and locations: three more statements, however many rows."""
    ids = [row["id"] for row in rows]
    properties: dict[str, dict[str, str]] = defaultdict(dict)
    tags: dict[str, list[str]] = defaultdict(list)
    if ids:
        for p in statements.find(conn, image_properties, image_id=ids):
            properties[p["image_id"]][p["name"]] = p["value"]
        for t in statements.find(conn, image_tags, ("tag",), image_id=ids):
            tags[t["image_id"]].append(t["tag"])
    places = located(conn, [row["data_key"] for row in rows if row["data_key"]])
    return [Image(row=row, properties=properties[row["id"]], tags=tags[row["id"]],
                  location=places.get(row["data_key"])) for row in rows]
