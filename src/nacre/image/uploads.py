"""The data of images: upload, staging and import, download, and what a crash leaves behind.

queued -> saving -> active is an upload; queued -> uploading -> importing -> active goes by the staging area. Every
arrow is a compare-and-set. Data is stored under a fresh key and belongs to an image only once its row says so.
"""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base import errors as e
from nacre.base.context import Context
from nacre.base.image_formats import Inspector
from nacre.base.undo import Undo
from nacre.image import records
from nacre.image.records import Image
from nacre.image.service import HELD, ImageService
from nacre.image.stores import Store
from nacre.image.tables import image_tasks, images

log = structlog.get_logger()

NO_DATA = {"size": None, "virtual_size": None, "checksum": None, "os_hash_algo": None, "os_hash_value": None,
           "data_key": None, "worker": None}
#: Where an image is while data is written, and where it goes then.
WRITING = {"saving": "active", "uploading": "uploading", "importing": "active"}


HASH = "sha512"
#: Work is done in pieces of this many bytes: large enough to be worth a hop to a thread, small enough to hold.
PIECE = 1 << 20


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived. Sizes in bytes, hashes in hexadecimal."""

    size: int
    virtual_size: int | None
    checksum: str
    os_hash_algo: str
    os_hash_value: str


class Intake:
    """One upload. All verbs block. End it with `finish` or `discard`."""

    def __init__(self, store: Store, key: str, inspector: Inspector | None, limit: int):
        self._sink = store.create(key)
        self._inspector, self._limit, self.size = inspector, limit, 0
        self._md5, self._sha = hashlib.md5(usedforsecurity=False), hashlib.sha512()

    def write(self, data: bytes) -> None:
        """The next bytes. Raises TooLarge past the limit, before they are written."""
        self.size += len(data)
        if self.size > self._limit:
            raise e.TooLarge(f"The image is larger than the limit of {self._limit} bytes.", field="size")
        if self._inspector is not None:
            self._inspector.feed(data)
        self._md5.update(data)
        self._sha.update(data)
        self._sink.write(data)

    def finish(self) -> Received:
        """The verdict, then the commit. Raises UnsupportedMedia: nothing is kept then."""
        inspected = self._inspector.finish() if self._inspector is not None else None
        self._sink.commit()
        return Received(size=self.size, virtual_size=inspected.virtual_size if inspected else None,
                        checksum=self._md5.hexdigest(), os_hash_algo=HASH, os_hash_value=self._sha.hexdigest())

    def discard(self) -> None:
        """Keeps nothing. May be repeated."""
        self._sink.discard()


class Uploads:
    """Moves data in and out of images."""

    def __init__(self, service: ImageService):
        self._service, self._db, self._store, self._run = service, service.db, service.store, service.run
        self._limits, self._worker = service.settings, service.settings.worker
        self._imports: set[asyncio.Task[None]] = set()

    async def upload(self, context: Context, image_id: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
        """Takes the data of a queued image; it is active then. size: bytes announced, if they were.

        Raises Conflict (not queued), UnsupportedMedia (not what was declared), TooLarge, Gone (deleted meanwhile):
        the image stays queued and nothing is kept."""
        image = await self._begin(context, image_id, "upload_image", "saving")
        async with Undo() as undo:
            undo.add(self._requeue, image_id, image.row["data_key"])
            received = await self._take(image, chunks, inspect=True, announced=size)
            await self._end(image, "saving", received)

    async def stage(self, context: Context, image_id: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
        """Puts data aside for a later import; the image is uploading then."""
        image = await self._begin(context, image_id, "modify_image", "uploading")
        async with Undo() as undo:
            undo.add(self._requeue, image_id, image.row["data_key"])
            received = await self._take(image, chunks, inspect=False, announced=size)
            after = {"size": received.size, "worker": None, "updated_at": self._service.now()}
            if not await self._move(image, "uploading", after):
                raise e.Gone(f"Image {image_id} was deleted while its data arrived.")

    async def import_staged(self, context: Context, image_id: str, order: Mapping[str, Any]) -> None:
        """Starts the import of staged data. `order` is the request, for the task's record. Raises Conflict."""
        now = self._service.now()
        task: dict[str, Any] = {
            "id": str(uuid.uuid4()), "image_id": image_id, "type": "api_image_import", "status": "processing",
            "owner": context.project_id, "user_id": context.user_id, "request_id": context.request_id,
            "input": {"image_id": image_id, "import_req": dict(order), "backend": [self._store.name]},
            "message": "", "created_at": now, "updated_at": now, "expires_at": None}

        def unit(conn: sa.Connection) -> Image:
            image = records.load(conn, context, image_id)
            self._service.allow(context, "modify_image", image)
            if image.status == "importing":
                raise e.Conflict(f"New operation on image '{image_id}' is not permitted as prior operation is still "
                                 "in progress")
            if image.status != "uploading" or image.row["worker"] is not None:
                raise e.Conflict("Image needs to be staged before 'glance-direct' method can be used")
            check_formats(image, e.Conflict)
            self._check_quota(conn, image)
            records.move(conn, image_id, {"status": "uploading"},
                         {"status": "importing", "worker": self._worker, "updated_at": now})
            conn.execute(sa.insert(image_tasks).values(task))
            return image

        image = await self._db.run(unit)
        work = asyncio.create_task(self._import(image, task["id"]), name=f"import {image_id}")
        self._imports.add(work)
        work.add_done_callback(self._imports.discard)

    async def download(self, context: Context, image_id: str) -> Image:
        """The image, if the caller may have its data. Raises Forbidden, NotFound."""
        image = await self._db.read(lambda conn: records.load(conn, context, image_id))
        self._service.allow(context, "download_image", image)
        if image.status == "deactivated" and not context.is_admin:
            raise e.Forbidden("The requested image has been deactivated. Image data download is forbidden.")
        return image

    async def pieces(self, image: Image, offset: int, length: int) -> AsyncIterator[bytes]:
        """The bytes from `offset`, piece by piece."""
        while length > 0:
            piece: bytes = await self._run(self._store.read, image.row["data_key"], offset, min(PIECE, length))
            if not piece:
                raise e.NotFound(f"The data of image {image.id} ended early.")
            yield piece
            offset, length = offset + len(piece), length - len(piece)

    async def recover(self) -> None:
        """At the start of the process: takes back what it was writing when it ended, and sweeps the store."""
        def unit(conn: sa.Connection) -> set[str]:
            mine = sa.and_(images.c.worker == self._worker, images.c.status.in_(list(WRITING)))
            broken = [row.id for row in conn.execute(sa.select(images.c.id).where(mine))]
            conn.execute(sa.update(images).where(mine).values(status="queued", **NO_DATA))
            conn.execute(sa.update(image_tasks).where(
                image_tasks.c.image_id.in_(broken), image_tasks.c.status == "processing").values(
                status="failure", message="The service was restarted during the import.",
                updated_at=self._service.now()))
            return {row.data_key for row in conn.execute(sa.select(images.c.data_key).where(
                images.c.data_key.is_not(None)))}

        wanted = await self._db.run(unit)
        swept = await self._run(self._store.sweep, wanted)
        if swept:
            log.info("image store swept", deleted=swept)

    async def close(self) -> None:
        """Waits for imports that are under way."""
        if self._imports:
            await asyncio.gather(*self._imports, return_exceptions=True)

    async def _begin(self, context: Context, image_id: str, rule: str, status: str) -> Image:
        """queued -> status, with a fresh key for the data."""
        def unit(conn: sa.Connection) -> Image:
            image = records.load(conn, context, image_id)
            self._service.allow(context, rule, image)
            if image.status != "queued":
                raise e.Conflict(f"Image status transition from {image.status} to {status} is not allowed")
            if status == "saving":
                check_formats(image, e.BadRequest)
            self._check_quota(conn, image)
            image.row |= {"data_key": key, "status": status, "worker": self._worker}
            records.move(conn, image_id, {"status": "queued"},
                         {"data_key": key, "status": status, "worker": self._worker})
            return image

        key = str(uuid.uuid4())
        return await self._db.run(unit)

    def _check_quota(self, conn: sa.Connection, image: Image) -> None:
        limit, owner = self._limits.max_project_bytes, image.row["owner"]
        if limit is None or owner is None:
            return
        used = conn.execute(sa.select(sa.func.sum(images.c.size)).where(
            images.c.owner == owner, images.c.status.in_(HELD))).scalar() or 0
        if used >= limit:
            raise e.TooLarge(f"The project's images use {used} of the {limit} bytes they may use.", field="size")

    async def _take(self, image: Image, chunks: AsyncIterator[bytes], *, inspect: bool,
                    announced: int | None) -> Received:
        """Streams into the store. On any failure nothing is kept there."""
        limit = self._limits.max_image_bytes
        if announced is not None and announced > limit:
            raise e.TooLarge(f"The image is larger than the limit of {limit} bytes.", field="size")
        row = image.row
        inspector = Inspector(row["disk_format"], row["container_format"]) if inspect else None
        async with Undo() as undo:
            undo.add(self._run, self._store.delete, row["data_key"])
            intake = await self._run(Intake, self._store, row["data_key"], inspector, limit)
            undo.add(self._run, intake.discard)
            buffer, total = bytearray(), 0
            async for chunk in chunks:
                buffer += chunk
                total += len(chunk)
                if len(buffer) >= PIECE:
                    await self._run(intake.write, bytes(buffer))
                    buffer.clear()
            if announced is not None and total != announced:
                raise e.BadRequest(f"{announced} bytes were announced, but {total} arrived.", field="size")
            if buffer:
                await self._run(intake.write, bytes(buffer))
            received: Received = await self._run(intake.finish)
            return received

    async def _end(self, image: Image, status: str, received: Received) -> None:
        """status -> active, with what arrived. Raises Gone if the image was deleted meanwhile."""
        facts = {name: getattr(received, name) for name in Received.__struct_fields__}
        after = {**facts, "status": WRITING[status], "worker": None, "updated_at": self._service.now(),
                 "data_key": image.row["data_key"]}
        if not await self._move(image, status, after):
            raise e.Gone(f"Image {image.id} could not be found after upload. The image may have been deleted during "
                         "the upload.")

    async def _move(self, image: Image, status: str, after: Mapping[str, Any]) -> bool:
        before = {"status": status, "worker": self._worker}
        if status != "importing":
            before["data_key"] = image.row["data_key"]
        return await self._db.run(lambda conn: records.move(conn, image.id, before, after))

    async def _requeue(self, image_id: str, key: str) -> None:
        """Takes a failed upload back: the image is as it was, the data is gone."""
        await self._db.run(lambda conn: records.move(
            conn, image_id, {"data_key": key}, {"status": "queued", **NO_DATA}))
        await self._run(self._store.delete, key)

    async def _import(self, image: Image, task_id: str) -> None:
        """The story of an import: staged data is inspected and copied, or refused and dropped."""
        staged, message = image.row["data_key"], ""
        target = Image(row={**image.row, "data_key": str(uuid.uuid4())}, properties={}, tags=[])
        try:
            async with Undo() as undo:
                undo.add(self._requeue, image.id, staged)
                undo.add(self._run, self._store.delete, target.row["data_key"])
                size = await self._run(self._store.size, staged)
                received = await self._take(target, self.pieces(image, 0, size), inspect=True, announced=size)
                await self._end(target, "importing", received)
            await self._run(self._store.delete, staged)
        except e.NacreError as error:
            message = error.message
        except Exception:
            log.exception("import failed", image_id=image.id)
            message = "The import failed unexpectedly. The operator's log says more."
        done = {"status": "failure" if message else "success", "message": message, "updated_at": self._service.now()}
        await self._db.run(lambda conn: conn.execute(
            sa.update(image_tasks).where(image_tasks.c.id == task_id).values(done)))


def check_formats(image: Image, error: type[e.NacreError]) -> None:
    """Raises `error` unless it is known what the data is going to be."""
    absent = [name for name in ("disk_format", "container_format") if not image.row[name]]
    if absent:
        raise error(f"{' and '.join(absent)} must be set before data is sent.", field=absent[0])
