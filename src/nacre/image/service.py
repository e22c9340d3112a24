"""Images: registering, finding, changing and deleting them. Their data goes through `data/`."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base import errors as e
from nacre.base.clock import Clock
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.identity.contract import Policy
from nacre.image import records
from nacre.image.contract import MOST, ImageFacts
from nacre.image.data import tasks
from nacre.image.data.ledger import Ledger, located
from nacre.image.data.locations import Location, Locations
from nacre.image.data.verdicts import Verdicts
from nacre.image.patches import Change, Draft, check_name
from nacre.image.queries import Listing
from nacre.image.records import Image
from nacre.image.schemas import IMAGE
from nacre.image.tables import images

#: The rule that a visibility needs of whoever sets it.
VISIBILITY_RULES = {"public": "publicize_image", "community": "communitize_image"}
HELD = ("active", "deactivated")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits, as Glance has them. Sizes in bytes; None is no limit. patience: seconds for each MiB of an upload."""

    max_image_bytes: int = 1 << 40
    max_project_bytes: int | None = None
    max_project_images: int | None = None
    max_project_uploads: int | None = None
    patience: float = 300.0
    max_properties: int = 128
    max_tags: int = 128
    max_members: int = 128


class ImageService:
    """The images of a cloud. Who may do what is asked at the edge; what a caller may not see is NotFound."""

    def __init__(self, db: Database, policy: Policy, data: Locations, clock: Clock, settings: Settings | None = None):
        self.db, self.policy, self.data, self.clock = db, policy, data, clock
        self.ledger, self.verdicts = Ledger(db, data), Verdicts(data)
        self.settings = settings or Settings()

    # What others ask (contract.Images)

    async def find(self, context: Context, image_id: str) -> ImageFacts:
        """The image, if `context` may see it. Raises NotFound."""
        return (await self.show(context, image_id)).facts()

    async def read(self, image_id: str, offset: int, length: int) -> bytes:
        """A piece of an image's data, from wherever it is. Raises NotFound, Unavailable, BadRequest."""
        return await self.data.read(await self.location(image_id), image_id, offset, bounded(offset, length))

    async def location(self, image_id: str, states: Sequence[str] = HELD) -> Location:
        """Where the data is of an image in one of these states. Raises NotFound."""
        def unit(conn: sa.Connection) -> Location | None:
            key = conn.execute(sa.select(images.c.data_key).where(
                images.c.id == image_id[:36].replace("\x00", ""), images.c.status.in_(states))).scalar()
            return located(conn, [key]).get(key) if key else None

        found = await self.db.read(unit)
        if found is None:
            raise e.NotFound(f"Image {image_id[:64]} has no data.")
        return found

    # What users ask

    async def create(self, context: Context, body: Mapping[str, Any]) -> Image:
        """A new image in state queued. `body` has passed the schema. Raises BadRequest, Conflict, Forbidden."""
        image = draft_of(context, body, self.now())
        self._limit(image.properties, image.tags)
        await self.db.run(lambda conn: self._insert(conn, image))
        return image

    async def show(self, context: Context, image_id: str) -> Image:
        """One image. Raises NotFound."""
        image = await self.db.read(lambda conn: records.load(conn, context, image_id))
        if not self.policy.allows(context, "get_image", image.target):
            raise records.missing(image.id)
        return image

    async def page(self, context: Context, listing: Listing) -> tuple[list[Image], bool]:
        """A page of the images that the caller may see, and whether there are more."""
        return await self.db.read(lambda conn: records.load_page(conn, context, listing))

    async def update(self, context: Context, image_id: str, changes: Sequence[Change]) -> Image:
        """All changes, or none. Raises NotFound, Forbidden, Conflict, TooLarge."""
        def unit(conn: sa.Connection) -> Image:
            image = records.load(conn, context, image_id)
            draft = Draft(image.row, image.properties, image.tags)
            for change in changes:
                draft.apply(change, admin=context.is_admin)
            changed = Image(row=draft.attributes, properties=draft.properties, tags=draft.tags, location=image.location)
            self._limit(changed.properties, changed.tags)
            rule = VISIBILITY_RULES.get(changed.row["visibility"])
            if rule and changed.row["visibility"] != image.row["visibility"]:
                self.policy.check(context, rule, changed.target)
            if changes:
                changed.row["updated_at"] = self.now()
                conn.execute(sa.update(images).where(images.c.id == image_id).values(
                    {n: v for n, v in changed.row.items() if v != image.row[n]}))
                records.replace_properties(conn, image_id, image.properties, changed.properties)
                records.replace_tags(conn, image_id, image.tags, changed.tags)
            return changed

        return await self.db.run(unit)

    async def delete(self, context: Context, image_id: str) -> None:
        """The image and its data are gone. An upload that is under way finds out at its end. Raises Forbidden."""
        def unit(conn: sa.Connection) -> list[Location]:
            image = records.load(conn, context, image_id)
            if image.row["protected"]:
                raise e.Forbidden(f"Image {image_id} is protected and cannot be deleted.", field="protected")
            return records.remove(conn, image_id, self.now())

        await self.ledger.drop(*await self.db.run(unit))

    async def tag(self, context: Context, image_id: str, tag: str, *, present: bool) -> None:
        """Adds a tag, or takes it away. Raises NotFound if there is none to take."""
        def unit(conn: sa.Connection) -> None:
            image = records.load(conn, context, image_id)
            if not present and tag not in image.tags:
                raise e.NotFound
            tags = [*image.tags, tag] if present else [t for t in image.tags if t != tag]
            self._limit({}, list(dict.fromkeys(tags)))
            records.replace_tags(conn, image_id, image.tags, tags)
            records.move(conn, image_id, {}, {"updated_at": self.now()})

        await self.db.run(unit)

    async def set_active(self, context: Context, image_id: str, *, active: bool) -> None:
        """Lets the data be read again, or not any more. Raises Forbidden in any other state."""
        rule, before, after = ("reactivate", "deactivated", "active") if active else (
            "deactivate", "active", "deactivated")

        def unit(conn: sa.Connection) -> None:
            image = records.load(conn, context, image_id)
            if image.status not in HELD:
                raise e.Forbidden(f"Not allowed to {rule} image in status '{image.status}'")
            records.move(conn, image_id, {"status": before}, {"status": after, "updated_at": self.now()})

        await self.db.run(unit)

    async def tasks(self, image_id: str) -> list[Mapping[str, Any]]:
        """The imports of an image, newest first."""
        return await self.db.read(lambda conn: tasks.of_image(conn, self.now(), image_id))

    async def all_tasks(self) -> list[Mapping[str, Any]]:
        """The newest imports, for administrators."""
        return await self.db.read(lambda conn: tasks.every(conn, self.now()))

    async def task(self, task_id: str) -> Mapping[str, Any]:
        """The import of that id, for administrators. Raises NotFound."""
        return await self.db.read(lambda conn: tasks.one(conn, self.now(), task_id))

    async def usage(self, context: Context) -> Mapping[str, int]:
        """What the caller's project uses: bytes stored, bytes staged, images, images being written."""
        def unit(conn: sa.Connection) -> Mapping[str, int]:
            rows = conn.execute(sa.select(
                images.c.status, sa.func.count().label("number"), sa.func.sum(images.c.size).label("bytes"),
                sa.func.count(images.c.worker).label("written"),
            ).where(images.c.owner == context.project_id).group_by(images.c.status)).all()
            size = {row.status: int(row.bytes or 0) for row in rows}
            number = {row.status: row.number for row in rows}
            return {"image_size_total": sum(size.get(s, 0) for s in HELD),
                    "image_stage_total": size.get("uploading", 0), "image_count_total": sum(number.values()),
                    "image_count_uploading": sum(row.written for row in rows)}

        return await self.db.read(unit)

    # What its own parts ask

    def now(self) -> dt.datetime:
        """The time as the database keeps it."""
        return self.clock.now().replace(tzinfo=None)

    def _insert(self, conn: sa.Connection, image: Image) -> None:
        """Raises Conflict, TooLarge."""
        limit, owner = self.settings.max_project_images, image.row["owner"]
        if limit is not None and owner is not None:
            number = conn.execute(sa.select(sa.func.count()).where(images.c.owner == owner)).scalar() or 0
            if number >= limit:
                raise e.TooLarge(f"Project {owner} is over a limit of image_count_total: it has {number} images, and "
                                 f"{limit} are the most.", field="image_count_total")
        records.insert(conn, image)

    def _limit(self, properties: Mapping[str, str], tags: Sequence[str]) -> None:
        for what, number, limit in (("properties", len(properties), self.settings.max_properties),
                                    ("tags", len(tags), self.settings.max_tags)):
            if number > limit:
                raise e.TooLarge(f"The limit has been exceeded on the number of allowed image {what}. "
                                 f"Attempted: {number}, Maximum: {limit}", field=what)


def bounded(offset: int, length: int) -> int:
    """How many bytes are read at once. Raises BadRequest."""
    if not (0 <= offset < 1 << 62 and length >= 0):
        raise e.BadRequest("There is nothing at such an offset and length.", field="offset")
    return min(length, MOST)


def draft_of(context: Context, body: Mapping[str, Any], now: dt.datetime) -> Image:
    """The image that a request describes. Raises Forbidden for attributes that are not the user's."""
    for name in body:
        if name not in IMAGE or name in ("direct_url", "self", "file", "schema", "stores", "status", "checksum", "size",
                                         "virtual_size", "created_at", "updated_at", "os_hash_algo", "os_hash_value"):
            check_name(name)
        if name == "locations":
            raise e.Forbidden("Locations of image data are not shown or set at this site.", field=name)
    row = {
        "id": (body.get("id") or str(uuid.uuid4())).lower(), "name": body.get("name"), "status": "queued",
        "owner": body.get("owner", context.project_id), "visibility": body.get("visibility", "shared"),
        "disk_format": body.get("disk_format"), "container_format": body.get("container_format"),
        "size": None, "virtual_size": None, "checksum": None, "os_hash_algo": None, "os_hash_value": None,
        "min_disk": body.get("min_disk", 0), "min_ram": body.get("min_ram", 0),
        "protected": body.get("protected", False), "os_hidden": body.get("os_hidden", False),
        "data_key": None, "worker": None, "created_at": now, "updated_at": now}
    return Image(row=row, properties={n: v for n, v in body.items() if n not in IMAGE},
                 tags=sorted(set(body.get("tags", ()))))


