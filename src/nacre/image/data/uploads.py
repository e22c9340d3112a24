"""The data of images: upload, staging and import, download.

queued -> saving -> active is an upload; queued -> uploading -> importing -> active goes by the staging area. Every
arrow is a compare-and-set. Data is stored under a fresh key and belongs to an image only once its row says so. What a
crash leaves behind is `cleanup.py`'s.
"""

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base import errors as e
from nacre.base.context import Context
from nacre.base.db import Unit, statements
from nacre.base.serving.sending import Room
from nacre.base.undo import Undo
from nacre.image import records
from nacre.image.data import tasks
from nacre.image.data.cleanup import NO_DATA, STAGED, WRITING
from nacre.image.data.intake import PIECE, READ, Intake, Received, steady
from nacre.image.data.ledger import orphan, written
from nacre.image.data.locations import Location
from nacre.image.records import Image
from nacre.image.service import ImageService
from nacre.image.tables import image_tasks, images

log = structlog.get_logger()

UNEXPECTED = "The import failed unexpectedly. The operator's log says more."


class TooManyUploads(e.TooLarge):
    """Other uploads of the project have to end first."""


class Coming:
    """Data on its way to a project's image. used: bytes that the project has besides what is on its way. importing: the
    image whose staged data is copied, which has been the project's since it was staged."""

    def __init__(self, used: int, size: int = 0, importing: str = ""):
        self.used, self.size, self.importing = used, size, importing


class Filling(msgspec.Struct):
    """Data on its way into an image. worker: the process that writes it; task: the import's, if it is one; why: that
    failed, once it has."""

    image: Image
    to: Location
    worker: str
    task: str = ""
    why: str = tasks.LOST

    def let_go(self, conn: sa.Connection, after: Mapping[str, Any]) -> bool:
        """Compare and set by the one that writes the data, which it does no more. The ledger says who that is: an image
        that was taken back, and whose import was asked for again at the same process, looks as it did."""
        mine = {"status": self.image.status, "worker": self.worker, "data_key": self.image.row["data_key"]}
        return written(conn, self.to.key, image_id=self.image.id, writer=self.worker) and records.move(
            conn, self.image.id, mine, after)

    def tell(self, conn: sa.Connection, now: dt.datetime, why: str) -> None:
        """How it ended, in one unit with what becomes of the image. "": it is active."""
        if self.task:
            tasks.end(conn, now, why, image_tasks.c.id == self.task)

    def requeue(self, now: dt.datetime, conn: sa.Connection) -> list[Location]:
        """The image waits for other data than what was staged. Where that is: to be dropped."""
        if self.image.location is None or not self.let_go(conn, {"status": "queued", **NO_DATA}):
            return []
        orphan(conn, self.image.location.key, self.to.key)
        self.tell(conn, now, self.why)
        return [self.image.location]


class Uploads:
    """Moves data in and out of images."""

    def __init__(self, service: ImageService):
        self._service, self._db, self._data, self._ledger = service, service.db, service.data, service.ledger
        self._limits, self._worker = service.settings, service.data.process
        self._coming: dict[str, set[Coming]] = {}  # project -> its data on the way
        self._imports: set[asyncio.Task[None]] = set()

    async def upload(self, context: Context, image_id: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
        """Takes the data of a queued image; it is active then. size: bytes announced, if they were.

        Raises Conflict (not queued), UnsupportedMedia (not what was declared), TooLarge, Gone (deleted meanwhile):
        the image stays queued and nothing is kept."""
        new = await self._begin(context, image_id, "saving")
        async with self._filling(new):
            received = await self._take(new, steady(chunks, self._limits.patience), inspect=True, announced=size)
            await self._end(new, received)

    async def stage(self, context: Context, image_id: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
        """Puts data aside for a later import; the image is uploading then."""
        new = await self._begin(context, image_id, "uploading")
        async with self._filling(new):
            received = await self._take(new, steady(chunks, self._limits.patience), inspect=False, announced=size)
            after = {"size": received.size, "worker": None, "updated_at": self._service.now()}
            if not await self._move(new, after):
                raise e.Gone(f"Image {image_id} was deleted while its data arrived.")

    async def import_staged(self, context: Context, image_id: str, order: Mapping[str, Any]) -> None:
        """Starts the import of staged data. `order` is the request, for the task's record. Raises Conflict,
        TooLarge."""
        now = self._service.now()
        task: dict[str, Any] = {
            "id": str(uuid.uuid4()), "image_id": image_id, "type": "api_image_import", "status": "processing",
            "owner": context.project_id, "user_id": context.user_id, "request_id": context.request_id,
            "input": {"image_id": image_id, "import_req": dict(order), "backend": [self._data.default]},
            "message": "", "created_at": now, "updated_at": now}

        def unit(conn: sa.Connection) -> Image:
            image = records.load(conn, context, image_id)
            if image.status == "importing":
                raise e.Conflict(f"New operation on image '{image_id}' is not permitted as prior operation is still "
                                 "in progress")
            if image.status != "uploading" or image.row["worker"] is not None:
                raise e.Conflict("Image needs to be staged before 'glance-direct' method can be used")
            check_formats(image, e.Conflict)
            self._check_quota(conn, image)
            self._check_uploads(conn, image)
            records.move(conn, image_id, {"status": "uploading"},
                         {"status": "importing", "worker": self._worker, "updated_at": now})
            image.row["status"] = "importing"
            tasks.begin(conn, task)
            self._ledger.reserve(conn, image_id, to)
            return image

        to = self._data.new()
        new = Filling(await self._reserved(to, unit), to, self._worker, task["id"])
        work = asyncio.create_task(self._import(new), name=f"import {image_id}")
        self._imports.add(work)
        work.add_done_callback(self._imports.discard)

    async def download(self, context: Context, image_id: str) -> Image:
        """The image, if the caller may have its data. Raises Forbidden, NotFound."""
        image = await self._db.read(lambda conn: records.load(conn, context, image_id))
        if image.status == "deactivated" and not context.is_admin:
            raise e.Forbidden("The requested image has been deactivated. Image data download is forbidden.")
        return image

    async def pieces(self, image: Image, offset: int, length: int, room: Room) -> AsyncGenerator[bytes]:
        """The bytes from `offset`, piece by piece; the next is on its way while one is used. Each has room before it is
        read, and gives it back when the one after it is asked for. Raises NotFound, Unavailable."""
        coming: asyncio.Future[bytes] | None = None
        try:
            while length > 0:
                piece = await (coming or self._piece(image, offset, length, room))
                if not piece:
                    raise e.NotFound(f"The data of image {image.id} ended early.")
                offset, length = offset + len(piece), length - len(piece)
                coming = asyncio.ensure_future(self._piece(image, offset, length, room)) if length else None
                yield piece
                room.give(len(piece))
                del piece
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
            room.end()

    async def _piece(self, image: Image, offset: int, length: int, room: Room) -> bytes:
        if image.location is None:
            raise e.NotFound(f"Image {image.id} has no data.")
        size = await room.take(min(READ, length))
        piece = await self._data.read(image.location, image.id, offset, size)
        room.give(size - len(piece))
        return piece

    async def close(self) -> None:
        """Waits for imports that are under way."""
        if self._imports:
            await asyncio.gather(*self._imports, return_exceptions=True)

    async def _begin(self, context: Context, image_id: str, status: str) -> Filling:
        """queued -> status, and where its data goes."""
        def unit(conn: sa.Connection) -> Image:
            image = records.load(conn, context, image_id)
            if image.status != "queued":
                raise e.Conflict(f"Image status transition from {image.status} to {status} is not allowed")
            if status == "saving":
                check_formats(image, e.BadRequest)
            self._check_quota(conn, image)
            self._check_uploads(conn, image)
            after = {"data_key": to.key, "status": status, "worker": self._worker}
            image.row |= after
            records.move(conn, image_id, {"status": "queued"}, after)
            self._ledger.reserve(conn, image_id, to)
            return image

        to = self._data.new()
        return Filling(await self._reserved(to, unit), to, self._worker)

    async def _reserved(self, to: Location, unit: Unit[Image]) -> Image:
        """What the unit returns, if it is committed that this process writes there."""
        try:
            return await self._db.run(unit)
        except BaseException:
            self._data.writing.discard(to.key)
            raise

    def _check_quota(self, conn: sa.Connection, image: Image) -> None:
        limit, used = self._limits.max_project_bytes, self._used(conn, image)
        if limit is not None and used >= limit:
            raise e.TooLarge(f"The project's images use {used} of the {limit} bytes they may use.", field="size")

    def _check_uploads(self, conn: sa.Connection, image: Image) -> None:
        """Whoever is slow, or keeps the service busy, does so with so many uploads; others do not wait for them. What
        is staged and waits for its import keeps nobody busy: of it the bytes count. Also those count here whose image
        is deleted: they find out at their end."""
        limit, owner = self._limits.max_project_uploads, image.row["owner"]
        if limit is None or owner is None:
            return
        number = conn.execute(sa.select(sa.func.count()).where(
            images.c.owner == owner, images.c.worker.is_not(None))).scalar() or 0
        if (number := max(number, len(self._coming.get(owner, ())))) >= limit:
            raise TooManyUploads(f"Project {owner} is over a limit of image_count_uploading: data of {number} of its "
                                 f"images is being uploaded, staged or imported, and {limit} are the most at once. Try "
                                 "again when one has ended.", field="image_count_uploading")

    def _used(self, conn: sa.Connection, image: Image) -> int:
        """Bytes of the project's other images, staged ones included; of what is imported here also where the image was
        deleted meanwhile."""
        if (owner := image.row["owner"]) is None:
            return 0
        copied = {each.importing: each.size for each in self._coming.get(owner, ()) if each.importing}
        copied.pop(image.id, None)
        rows = conn.execute(sa.select(sa.func.sum(images.c.size)).where(
            images.c.owner == owner, images.c.id.not_in([image.id, *copied]))).scalar()
        return int(rows or 0) + sum(copied.values())

    @asynccontextmanager
    async def _counted(self, image: Image) -> AsyncIterator[Callable[[int], None]]:
        """Counts the bytes of an upload beside what its project has, and beside its other uploads of now: call with
        the bytes that came. Raises TooLarge there. Those of an import are the project's since they were staged, and
        counted with that."""
        limit, owner = self._limits.max_project_bytes, image.row["owner"] or ""
        staged = image.status == "importing"
        used = await self._db.read(lambda conn: self._used(conn, image))
        mine = Coming(used, image.row["size"], image.id) if staged else Coming(used)
        others = self._coming.setdefault(owner, set())
        others.add(mine)

        def count(length: int) -> None:
            if staged:
                return
            mine.size += length
            total = mine.used + sum(each.size for each in others if not each.importing)
            if owner and limit is not None and total > limit:
                raise e.TooLarge(f"The project's images would use {total} of the {limit} bytes they may use.",
                                 field="size")

        try:
            yield count
            for each in others - {mine}:  # it is the project's from now on
                each.used += 0 if staged else mine.size
        finally:
            others.discard(mine)
            if not others:
                self._coming.pop(owner, None)

    async def _take(self, new: Filling, chunks: AsyncIterator[bytes], *, inspect: bool,
                    announced: int | None) -> Received:
        """Streams into the store. On any failure nothing is kept there."""
        limit, to = self._limits.max_image_bytes, new.to
        if announced is not None and announced > limit:
            raise e.TooLarge(f"The image is larger than the limit of {limit} bytes.", field="size")
        intake = Intake(self._data.stores[to.store], to.key, limit)
        async with Undo() as undo, self._counted(new.image) as count:
            undo.add(self._data.run, intake.discard)
            buffer, total = bytearray(), 0
            async for chunk in chunks:
                count(len(chunk))
                buffer += chunk
                total += len(chunk)
                if len(buffer) >= PIECE:
                    await self._data.run(intake.write, bytes(buffer))
                    buffer.clear()
            if announced is not None and total != announced:
                raise e.BadRequest(f"{announced} bytes were announced, but {total} arrived.", field="size")
            if buffer:
                await self._data.run(intake.write, bytes(buffer))
            received = await self._data.run(intake.finish)
            if not inspect:
                return received
            found = await self._service.verdicts.of(new.image.row, to, received.size)
            return msgspec.structs.replace(received, virtual_size=found.virtual_size)

    async def _end(self, new: Filling, received: Received) -> None:
        """-> active, with what arrived. Raises Gone if the image was deleted, or taken back, meanwhile."""
        image = new.image
        facts = {name: getattr(received, name) for name in Received.__struct_fields__}
        after = {**facts, "status": WRITING[image.status], "worker": None, "updated_at": self._service.now(),
                 "data_key": new.to.key}
        if not await self._move(new, after):
            raise e.Gone(f"Image {image.id} could not be found after upload. The image may have been deleted during "
                         "the upload.")

    async def _move(self, new: Filling, after: Mapping[str, Any]) -> bool:
        """All of it is there: the image is so."""
        def unit(conn: sa.Connection) -> bool:
            if not new.let_go(conn, after):
                return False
            if (staged := new.image.row["data_key"]) != new.to.key:  # an import: what was staged has served
                orphan(conn, staged)
            new.tell(conn, self._service.now(), "")
            return True

        return await self._db.run(unit)

    @asynccontextmanager
    async def _filling(self, new: Filling) -> AsyncIterator[None]:
        """This process writes there. However it ends: also by an outage, after which nothing is taken back here, nobody
        knows whether the image is active, and `cleanup.py` looks again."""
        try:
            async with Undo() as undo:
                undo.add(self._take_back, new)
                yield
        finally:
            self._data.writing.discard(new.to.key)

    async def _take_back(self, new: Filling) -> None:
        """A failed upload: the image is as it was, what came is gone, and what was staged stays for another import."""
        image, to = new.image, new.to
        after = STAGED if image.status == "importing" else {"status": "queued", **NO_DATA}

        def unit(conn: sa.Connection) -> bool:
            if not new.let_go(conn, after) and statements.one(conn, images, id=image.id, data_key=to.key):
                return False  # its end was written, though we did not hear of it
            orphan(conn, to.key)
            new.tell(conn, self._service.now(), new.why)
            return True

        if await self._db.run(unit):
            await self._ledger.drop(to)

    async def _import(self, new: Filling) -> None:
        """The story of an import: staged data is inspected and copied, or refused and dropped."""
        image, staged = new.image, new.image.location
        try:
            async with self._filling(new):
                try:
                    if staged is None:
                        raise e.NotFound(f"The data of image {image.id} is gone.")
                    await self._end(new, await self._take(
                        new, self.pieces(image, 0, image.row["size"], Room()), inspect=True,
                        announced=image.row["size"]))
                except e.UnsupportedMedia as refused:  # nothing but this takes from a user what was staged
                    new.why = refused.message
                    await self._ledger.drop(*await self._db.run(partial(new.requeue, self._service.now())))
                    raise
                except Exception as error:
                    new.why = error.message if isinstance(error, e.NacreError) else UNEXPECTED
                    raise
            await self._ledger.drop(staged)
        except e.NacreError as error:
            if error.details:
                log.warning("import failed", image_id=image.id, why=str(error))
        except Exception:
            log.exception("import failed", image_id=image.id)


def check_formats(image: Image, error: type[e.NacreError]) -> None:
    """Raises `error` unless it is known what the data is going to be."""
    absent = [name for name in ("disk_format", "container_format") if not image.row[name]]
    if absent:
        raise error(f"{' and '.join(absent)} must be set before data is sent.", field=absent[0])
