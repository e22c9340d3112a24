"""Sharing: the projects that an image of visibility `shared` is offered to, and whether they took it."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre.base import errors as e
from nacre.base.context import Context
from nacre.image import records
from nacre.image.records import Image
from nacre.image.service import ImageService
from nacre.image.tables import image_members

STATUSES = ("pending", "accepted", "rejected")


class Members:
    """The owner offers and withdraws; the project it is offered to accepts or rejects."""

    def __init__(self, service: ImageService):
        self._service, self._db = service, service.db

    async def add(self, context: Context, image_id: str, member_id: str) -> Mapping[str, Any]:
        """Offers the image to a project. Raises Conflict if it was before, TooLarge past the limit."""
        now, limit = self._service.now(), self._service.settings.max_members
        row = {"image_id": image_id, "member_id": member_id, "status": "pending", "created_at": now, "updated_at": now}

        def unit(conn: sa.Connection) -> Mapping[str, Any]:
            self._image(conn, context, image_id)
            number = conn.execute(sa.select(sa.func.count()).where(image_members.c.image_id == image_id)).scalar() or 0
            if number >= limit:
                raise e.TooLarge(f"The limit has been exceeded on the number of allowed image members for this image. "
                                 f"Attempted: {number + 1}, Maximum: {limit}", field="member")
            try:
                conn.execute(sa.insert(image_members).values(row))
            except sa.exc.IntegrityError:
                raise e.Conflict(f"Member {member_id} is duplicated for image {image_id}", field="member") from None
            return row

        return await self._db.run(unit)

    async def list(self, context: Context, image_id: str) -> list[Mapping[str, Any]]:
        """All members for the owner; itself alone for a member."""
        def unit(conn: sa.Connection) -> list[Mapping[str, Any]]:
            image = self._image(conn, context, image_id)
            query = sa.select(image_members).where(image_members.c.image_id == image_id)
            if not self._owns(context, image):
                query = query.where(image_members.c.member_id == context.project_id)
            return [dict(row._mapping) for row in conn.execute(query.order_by(image_members.c.created_at))]

        return await self._db.read(unit)

    async def show(self, context: Context, image_id: str, member_id: str) -> Mapping[str, Any]:
        """One membership. Raises NotFound."""
        def unit(conn: sa.Connection) -> Mapping[str, Any]:
            try:
                image = self._image(conn, context, image_id)
            except e.Forbidden as error:
                raise e.NotFound(error.message) from None
            return self._member(conn, context, image, member_id)

        return await self._db.read(unit)

    async def answer(self, context: Context, image_id: str, member_id: str, status: str) -> Mapping[str, Any]:
        """Accepts or rejects, as the project it is offered to. Raises BadRequest, Forbidden, NotFound."""
        if status not in STATUSES:
            raise e.BadRequest(f"Incorrect request: Status must be one of {', '.join(STATUSES)}.", field="status")
        now = self._service.now()

        def unit(conn: sa.Connection) -> Mapping[str, Any]:
            image = self._image(conn, context, image_id)
            member = self._member(conn, context, image, member_id)
            conn.execute(sa.update(image_members).where(*_one(image_id, member_id)).values(
                status=status, updated_at=now))
            return {**member, "status": status, "updated_at": now}

        return await self._db.run(unit)

    async def remove(self, context: Context, image_id: str, member_id: str) -> None:
        """Withdraws the offer. Raises NotFound."""
        def unit(conn: sa.Connection) -> None:
            image = self._image(conn, context, image_id)
            self._member(conn, context, image, member_id)
            conn.execute(sa.delete(image_members).where(*_one(image_id, member_id)))

        await self._db.run(unit)

    def _image(self, conn: sa.Connection, context: Context, image_id: str) -> Image:
        image = records.load(conn, context, image_id)
        if image.row["visibility"] != "shared":
            raise e.Forbidden("Only shared images have members.", field="visibility")
        return image

    def _member(self, conn: sa.Connection, context: Context, image: Image, member_id: str) -> Mapping[str, Any]:
        row = None
        if "\x00" not in member_id and (self._owns(context, image) or member_id == context.project_id):
            row = conn.execute(sa.select(image_members).where(*_one(image.id, member_id))).first()
        if row is None:
            raise e.NotFound(f"{member_id[:64]} not found in the member list of the image {image.id}.")
        return dict(row._mapping)

    def _owns(self, context: Context, image: Image) -> bool:
        return context.is_admin or image.row["owner"] == context.project_id


def _one(image_id: str, member_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return image_members.c.image_id == image_id, image_members.c.member_id == member_id
