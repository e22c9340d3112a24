"""Snapshots: images whose data comes from a host, piece by piece, over RPC.

A host can write only to images that were registered for one. Half a snapshot lives in this process: after a restart the
host is told to start anew, and the store sweeps what was there.
"""

import uuid
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base import errors as e
from nacre.base.context import Context
from nacre.base.image_formats import Inspector
from nacre.base.locks import NamedLocks
from nacre.image import records
from nacre.image.contract import ImageFacts, SnapshotOrder
from nacre.image.schemas import check_image
from nacre.image.service import ImageService, draft_of
from nacre.image.tables import image_cache, image_properties, image_tags, images
from nacre.image.uploads import Intake, Received

#: Who is writing such an image: some host, not this process, so that a restart here does not take it back.
HOST = "host"


class Snapshots:
    """The endpoint of contract.Snapshots."""

    def __init__(self, service: ImageService):
        self._service, self._db, self._run = service, service.db, service.run
        self._open: dict[str, tuple[str, Intake]] = {}  # image id -> key in the store, data so far
        self._locks = NamedLocks()

    async def register(self, context: Context, order: SnapshotOrder) -> ImageFacts:
        """A private image of the caller's project, in state saving."""
        body: dict[str, Any] = {**order.properties, "visibility": "private", **{
            n: v for n, v in msgspec.structs.asdict(order).items() if n != "properties"}}
        check_image(body)
        image = draft_of(context, body, self._service.now())
        self._service.policy.check(context, "add_image", image.target)
        image.row |= {"status": "saving", "worker": HOST}
        await self._db.run(lambda conn: records.insert(conn, image))
        return image.facts()

    async def write(self, image_id: str, offset: int, data: bytes) -> None:
        """Bytes at `offset`; offset 0 starts anew."""
        async with self._locks(image_id):
            if offset == 0:
                await self._start(image_id)
            _, intake = self._of(image_id)
            if offset + len(data) <= intake.size and offset:
                return
            if offset != intake.size:
                raise e.Conflict(f"{intake.size} bytes of image {image_id} are here; start anew from 0.",
                                 field="offset")
            await self._run(intake.write, data)

    async def finish(self, image_id: str, size: int) -> None:
        """All `size` bytes were sent: inspect, then active."""
        async with self._locks(image_id):
            row = await self._row(image_id)
            if row.status == "active" and row.size == size:
                return
            key, intake = self._of(image_id)
            if intake.size != size:
                raise e.Conflict(f"{intake.size} bytes of image {image_id} are here, not {size}; start anew from 0.")
            self._open.pop(image_id)
            try:
                received: Received = await self._run(intake.finish)
            except e.UnsupportedMedia:
                await self._run(intake.discard)
                raise
            facts = {name: getattr(received, name) for name in Received.__struct_fields__}
            moved = await self._db.run(lambda conn: records.move(
                conn, image_id, {"status": "saving", "worker": HOST},
                {**facts, "status": "active", "worker": None, "data_key": key, "updated_at": self._service.now()}))
            if not moved:
                await self._run(self._service.store.delete, key)
                raise records.missing(image_id)

    async def abandon(self, image_id: str) -> None:
        """It failed: the image and its data are gone."""
        async with self._locks(image_id):
            if found := self._open.pop(image_id, None):
                await self._run(found[1].discard)
            await self._db.run(lambda conn: _forget(conn, image_id))

    async def _start(self, image_id: str) -> None:
        row = await self._row(image_id)
        if row.status != "saving" or row.worker != HOST:
            raise e.Conflict(f"Image {image_id} is not one that a host writes.")
        if found := self._open.pop(image_id, None):
            await self._run(found[1].discard)
        key, store = str(uuid.uuid4()), self._service.store
        inspector = Inspector(row.disk_format, row.container_format)
        self._open[image_id] = key, await self._run(
            Intake, store, key, inspector, self._service.settings.max_image_bytes)

    def _of(self, image_id: str) -> tuple[str, Intake]:
        try:
            return self._open[image_id]
        except KeyError:
            raise e.Conflict(f"Nothing of image {image_id} is here; start anew from 0.", field="offset") from None

    async def _row(self, image_id: str) -> Any:
        row = await self._db.read(lambda conn: conn.execute(
            sa.select(images).where(images.c.id == image_id[:36].replace("\x00", ""))).first())
        if row is None:
            raise records.missing(image_id)
        return row


def _forget(conn: sa.Connection, image_id: str) -> None:
    """Removes an unfinished image of a host, and nothing else."""
    unfinished = conn.execute(sa.select(images.c.id).where(
        images.c.id == image_id, images.c.status == "saving", images.c.worker == HOST)).first()
    if unfinished is not None:
        for table in (image_cache, image_properties, image_tags):
            conn.execute(sa.delete(table).where(table.c.image_id == image_id))
        conn.execute(sa.delete(images).where(images.c.id == image_id))
