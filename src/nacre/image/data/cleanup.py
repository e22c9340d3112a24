"""What dead control processes left: uploads in the middle, data that nobody wants. One of these runs in each."""

from collections.abc import Collection
from functools import partial

import sqlalchemy as sa
import structlog

from nacre.base.errors import NacreError
from nacre.image.data import tasks
from nacre.image.data.files import FileStore
from nacre.image.data.ledger import orphan, orphan_all
from nacre.image.data.locations import OWN
from nacre.image.service import ImageService
from nacre.image.tables import image_locations, image_tasks, images

log = structlog.get_logger()

NO_DATA = {"size": None, "virtual_size": None, "checksum": None, "os_hash_algo": None, "os_hash_value": None,
           "data_key": None, "worker": None}
#: An image whose data is staged, and waits for its import.
STAGED = {"status": "uploading", "worker": None}
#: Where an image is while data is written, and where it goes then.
WRITING = {"saving": "active", "uploading": "uploading", "importing": "active"}
#: The worker of an image that a host fills (`snapshots.py`): whose processes of control end is not its end.
HOST = "host"
#: Seconds between two rounds.
PERIOD = 30.0
#: Seconds for which each round must have found a process silent before its uploads are taken back. Longer than a story
#: waits: an upload cannot go on elsewhere, and after an outage of the database every process is silent for a moment.
GRACE = 60.0


class Cleanup:
    """Takes back what processes were writing that are gone, and deletes what only this process can."""

    def __init__(self, service: ImageService):
        self._service, self._db, self._data = service, service.db, service.data
        self._unopened = set(self._data.stores)
        self._silent: dict[str, float] = {}  # writer -> since when, on this machine's steady clock

    async def start(self) -> None:
        """Before this process serves anything: what it was writing when it ended is taken back."""
        await self._open()
        await self._adopt()
        await self._free()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._service.clock.sleep(PERIOD)
            await self._open()
            await self.round()

    async def round(self) -> None:
        """Once."""
        await self._free()
        now = self._service.now()
        if await self._db.read(lambda conn: tasks.any_over(conn, now)):
            await self._db.run(lambda conn: tasks.forget(conn, now))

    async def _free(self) -> None:
        """Where the disk is full, what is deleted first makes room for what is written then."""
        await self._service.ledger.collect()
        await self._release()
        await self._service.ledger.collect()

    async def _release(self) -> None:
        """The images of writers that are gone are queued again, or staged as before their import. What this process
        does not know that it writes, an earlier one of the same id wrote."""
        rows = await self._db.read(lambda conn: conn.execute(sa.select(
            image_locations.c.data_key, image_locations.c.writer).where(image_locations.c.writer.is_not(None))).all())
        if not rows:
            return self._silent.clear()
        # Asked after the rows were read: who wrote one of them was registered by then.
        alive, now, me = await self._data.peers.alive(), self._service.clock.monotonic(), self._data.process
        self._silent = {row.writer: self._silent.get(row.writer, now) for row in rows if row.writer not in alive}
        over = {me, *(writer for writer, since in self._silent.items() if now - since >= GRACE)}
        gone = [row.data_key for row in rows if row.writer in over and row.data_key not in self._data.writing]
        if gone:
            freed = await self._db.run(lambda conn: self._take_back(conn, gone))
            log.warning("uploads of processes that are gone were taken back", images=freed)

    def _take_back(self, conn: sa.Connection, keys: Collection[str]) -> list[str]:
        still = sa.and_(image_locations.c.data_key.in_(keys), image_locations.c.writer.is_not(None))
        rows = conn.execute(sa.select(
            image_locations.c.data_key, image_locations.c.image_id, image_locations.c.writer).where(still)).all()
        conn.execute(sa.update(image_locations).where(still).values(writer=None))
        freed = []
        for key, image_id, writer in rows:
            mine = sa.and_(images.c.id == image_id, images.c.worker == writer)
            importing, filling = images.c.status == "importing", images.c.status.in_(list(WRITING))
            if conn.execute(sa.update(images).where(mine, importing).values(**STAGED)).rowcount:
                orphan(conn, key)
            elif conn.execute(sa.update(images).where(mine, filling).values(status="queued", **NO_DATA)).rowcount:
                orphan_all(conn, image_id)
            else:
                continue
            tasks.end(conn, self._service.now(), "The service was interrupted during the import. Ask for it again.",
                      image_tasks.c.image_id == image_id)
            freed.append(image_id)
        return freed

    async def _open(self) -> None:
        """Stores that are away are tried again in the next round."""
        for name in sorted(self._unopened):
            known = await self._db.read(partial(_holds, name))
            try:
                await self._data.run(partial(self._data.stores[name].open, known=known))
                self._unopened.discard(name)
            except NacreError as error:
                log.error("an image store cannot be used", store=name, why=str(error))

    async def _adopt(self) -> None:
        """Data in this process's own folder is this process's, whatever wrote it was called (a process of before there
        were several, the same folder under another id). What no row names is reported and stays."""
        store = self._data.stores.get(OWN)
        if not isinstance(store, FileStore) or OWN in self._unopened:
            return
        keys = await self._data.run(store.keys)
        rows = await self._db.read(lambda conn: conn.execute(sa.select(
            image_locations.c.data_key, image_locations.c.place).where(image_locations.c.store == OWN)).all())
        if strange := keys - {row.data_key for row in rows}:
            log.warning("files in the image store that no image of this database names stay",
                        number=len(strange), some=sorted(strange)[:5])
        if moved := [row.data_key for row in rows if row.data_key in keys and row.place != self._data.process]:
            await self._db.run(lambda conn: [conn.execute(sa.update(image_locations).where(
                image_locations.c.data_key == key).values(place=self._data.process)) for key in moved])
            log.info("image data was found in this process's folder", number=len(moved))


def _holds(store: str, conn: sa.Connection) -> bool:
    """Whether data is said to be in this store."""
    return conn.execute(sa.select(image_locations.c.data_key).where(
        image_locations.c.store == store).limit(1)).first() is not None
