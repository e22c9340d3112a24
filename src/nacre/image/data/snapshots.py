"""Snapshots: images whose data comes from a host, piece by piece, over RPC.

A host can write only to images that were registered for one. Half a snapshot lives in this process: after a restart, or
at another control process, the host is asked to start anew, and what was there is taken back.
"""

import datetime as dt
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base import errors as e
from nacre.base.context import Context
from nacre.base.locks import NamedLocks
from nacre.base.undo import Undo
from nacre.image import records
from nacre.image.contract import ImageFacts, SnapshotOrder
from nacre.image.data.cleanup import HOST
from nacre.image.data.intake import Intake, Received
from nacre.image.data.ledger import orphan, written
from nacre.image.data.locations import Location
from nacre.image.schemas import check_image
from nacre.image.service import ImageService, draft_of
from nacre.image.tables import images


class Snapshots:
    """The endpoint of contract.Snapshots."""

    def __init__(self, service: ImageService):
        self._service, self._db, self._run = service, service.db, service.data.run
        self._open: dict[str, tuple[Location, Intake]] = {}  # image id -> where its data goes, data so far
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
            async with Undo() as undo:  # how much of it is there then, nobody knows: whoever asks again is told so
                undo.add(self._close, image_id)
                await self._run(intake.write, data)

    async def finish(self, image_id: str, size: int) -> None:
        """All `size` bytes were sent: inspect, then active. What cannot be inspected now stays for another try."""
        async with self._locks(image_id):
            row = await self._row(image_id)
            if row.status == "active" and row.size == size:
                return
            to, intake = self._of(image_id)
            if intake.size != size:
                raise e.Conflict(f"{intake.size} bytes of image {image_id} are here, not {size}; start anew from 0.")
            async with Undo(but=(e.Unavailable, e.TooMany)) as undo:
                undo.add(self._close, image_id)
                received = await self._committed(image_id, intake)
                found = await self._service.verdicts.of(row._mapping, to, received.size)
            received = msgspec.structs.replace(received, virtual_size=found.virtual_size)
            self._open.pop(image_id)
            try:
                if not await self._db.run(lambda conn: self._finished(conn, image_id, to, received)):
                    await self._row(image_id)
                    raise e.Conflict(f"Image {image_id} was begun anew elsewhere; start anew from 0.")
            except e.NacreError:
                await self._drop(to, intake)
                raise
            finally:  # also after an outage: what is true then `cleanup.py` finds
                self._service.data.writing.discard(to.key)

    async def _committed(self, image_id: str, intake: Intake) -> Received:
        """What arrived. A store that fails here has who knows what: nothing of it is kept."""
        async with Undo() as undo:
            undo.add(self._close, image_id)
            return await self._run(intake.finish)

    async def abandon(self, image_id: str) -> None:
        """It failed: the image and its data are gone."""
        async with self._locks(image_id):
            await self._close(image_id)
            gone = await self._db.run(lambda conn: _forget(conn, image_id, self._service.now()))
            await self._service.ledger.drop(*gone)

    async def _start(self, image_id: str) -> None:
        def unit(conn: sa.Connection) -> None:
            if row.data_key:  # of an earlier start, here or at another control process
                orphan(conn, row.data_key)
            if not records.move(conn, image_id, {"status": "saving", "worker": HOST, "data_key": row.data_key},
                                {"data_key": to.key}):
                raise e.Conflict(f"Image {image_id} is not one that a host writes.")
            self._service.ledger.reserve(conn, image_id, to)

        row = await self._row(image_id)
        if row.status != "saving" or row.worker != HOST:
            raise e.Conflict(f"Image {image_id} is not one that a host writes.")
        data = self._service.data
        to = data.new()
        try:
            await self._db.run(unit)
        except BaseException:
            data.writing.discard(to.key)
            raise
        await self._close(image_id)
        self._open[image_id] = to, Intake(data.stores[to.store], to.key, self._service.settings.max_image_bytes)

    async def _close(self, image_id: str) -> None:
        """Keeps nothing of what is here. May be repeated."""
        if found := self._open.pop(image_id, None):
            await self._drop(*found)

    async def _drop(self, to: Location, intake: Intake) -> None:
        try:
            await self._run(intake.discard)
        finally:  # what it could not take back `cleanup.py` does
            self._service.data.writing.discard(to.key)
        await self._db.run(lambda conn: orphan(conn, to.key))
        await self._service.ledger.drop(to)

    def _finished(self, conn: sa.Connection, image_id: str, to: Location, received: Received) -> bool:
        facts = {name: getattr(received, name) for name in Received.__struct_fields__}
        written(conn, to.key)
        return records.move(conn, image_id, {"status": "saving", "worker": HOST, "data_key": to.key},
                            {**facts, "status": "active", "worker": None, "updated_at": self._service.now()})

    def _of(self, image_id: str) -> tuple[Location, Intake]:
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


def _forget(conn: sa.Connection, image_id: str, now: dt.datetime) -> list[Location]:
    """Removes an unfinished image of a host, and nothing else. Where its data is: to be dropped."""
    unfinished = conn.execute(sa.select(images.c.id).where(
        images.c.id == image_id, images.c.status == "saving", images.c.worker == HOST)).first()
    return records.remove(conn, image_id, now) if unfinished is not None else []
