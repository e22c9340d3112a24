"""The cache list of the API. This cloud's store is beside the API, so an image is at hand as soon as it has data: what
is kept here is which images an administrator asked for.
"""

from typing import Any

import sqlalchemy as sa

from nacre.base import errors as e
from nacre.base.context import Context
from nacre.image import records
from nacre.image.service import HELD, ImageService
from nacre.image.tables import image_cache, images

TARGETS = ("", "cache", "queue")


class Cache:
    """Which images were asked for, and which of them are here."""

    def __init__(self, service: ImageService):
        self._service, self._db = service, service.db

    async def list(self) -> tuple[list[Any], list[str]]:
        """Rows of the images that are here (id, size, queued_at), and ids of those that still have no data."""
        rows = await self._db.read(lambda conn: conn.execute(
            sa.select(images.c.id, images.c.size, images.c.status, image_cache.c.queued_at)
            .join(image_cache, image_cache.c.image_id == images.c.id).order_by(image_cache.c.queued_at)).all())
        return [r for r in rows if r.status in HELD], [r.id for r in rows if r.status not in HELD]

    async def queue(self, context: Context, image_id: str) -> None:
        """Asks for an image. May be repeated. Raises NotFound."""
        def unit(conn: sa.Connection) -> None:
            image = records.load(conn, context, image_id)
            conn.execute(sa.delete(image_cache).where(image_cache.c.image_id == image.id))
            conn.execute(sa.insert(image_cache).values(image_id=image.id, queued_at=self._service.now()))

        await self._db.run(unit)

    async def drop(self, context: Context, image_id: str) -> None:
        """Takes one off the list. Raises NotFound if there is no such image."""
        def unit(conn: sa.Connection) -> None:
            image = records.load(conn, context, image_id)
            conn.execute(sa.delete(image_cache).where(image_cache.c.image_id == image.id))

        await self._db.run(unit)

    async def clear(self, target: str) -> None:
        """Takes all off the list: those that are here (`cache`), those that are not (`queue`), or both (empty)."""
        if target not in TARGETS:
            raise e.BadRequest("If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string.",
                               field="x-image-cache-clear-target")
        here = sa.select(images.c.id).where(images.c.status.in_(HELD))
        which = {"": sa.true(), "cache": image_cache.c.image_id.in_(here),
                 "queue": image_cache.c.image_id.not_in(here)}[target]
        await self._db.run(lambda conn: conn.execute(sa.delete(image_cache).where(which)))
