"""Which data there is, of which image, where, and who is writing it: the table image_locations.

A row is there before the first byte and goes after the last one. A row without an image is the order to delete its
data, for whoever has it; data that no row names is another cloud's or another time's, and is left alone.
"""

from collections.abc import Iterable
from functools import partial

import sqlalchemy as sa
import structlog

from nacre.base.db import Database, statements
from nacre.base.errors import NacreError
from nacre.image.data.locations import OWN, Location, Locations
from nacre.image.tables import image_locations

log = structlog.get_logger()

#: Rows of one statement.
PAGE = 100
#: A store that cannot delete so many pieces one after another is not asked for more of them in this round.
FAILURES = 3
_COLUMNS = (image_locations.c.data_key, image_locations.c.store, image_locations.c.place)


class Ledger:
    """The rows, and the deleting that they ask for."""

    def __init__(self, db: Database, data: Locations):
        self._db, self.data = db, data
        self._behind: dict[str, str] = {}  # store -> the key at which it was found away

    def reserve(self, conn: sa.Connection, image_id: str, location: Location) -> None:
        """Before the first byte: this process writes data of this image."""
        conn.execute(sa.insert(image_locations).values(
            data_key=location.key, image_id=image_id, store=location.store, place=location.place,
            writer=self.data.process))

    async def drop(self, *locations: Location) -> None:
        """Deletes data whose rows were orphaned, and then, as it may take the last of a disk, the rows. What this
        process does not reach, or not now, stays for whoever does. May be repeated."""
        try:
            await self._forget([each.key for each in locations
                                if self.data.reaches(each) and await self._deleted(each)])
        finally:
            self.data.writing.difference_update(each.key for each in locations)

    async def collect(self) -> None:
        """Deletes what nobody wants and this process reaches. A full disk may take no writing before data has gone
        from it, and any of the stores may lie there: no row goes before all of them are through."""
        for keys in [await self._empty(store) for store in self.data.stores]:
            await self._forget(keys)

    async def _empty(self, store: str) -> list[str]:
        """Past what cannot be deleted; a store that fails so often in a row is away, and the next time begins behind
        those. The keys of what has gone."""
        gone, failures, last = list[str](), 0, self._behind.pop(store, "")
        while found := await self._db.read(partial(self._unwanted, store, last)):
            for each in found:
                last = each.key
                if await self._deleted(each):
                    gone.append(last)
                    failures = 0
                elif (failures := failures + 1) == FAILURES:
                    self._behind[store] = last
                    return gone
        return gone

    async def _deleted(self, location: Location) -> bool:
        try:
            await self.data.delete(location)
        except NacreError as error:
            log.warning("image data is deleted later", store=location.store, key=location.key, why=str(error))
            return False
        return True

    async def _forget(self, keys: list[str]) -> None:
        """Of data that has gone."""
        for first in range(0, len(keys), PAGE):
            await self._db.run(partial(_forget, keys[first:first + PAGE]))

    def _unwanted(self, store: str, last: str, conn: sa.Connection) -> list[Location]:
        query = sa.select(*_COLUMNS).where(
            image_locations.c.image_id.is_(None), image_locations.c.writer.is_(None), image_locations.c.store == store,
            image_locations.c.place == (self.data.process if store == OWN else ""), image_locations.c.data_key > last)
        return [Location(*row) for row in conn.execute(query.order_by(image_locations.c.data_key).limit(PAGE))]


def located(conn: sa.Connection, keys: Iterable[str]) -> dict[str, Location]:
    """Where the data of these keys is."""
    wanted = list(keys)
    if not wanted:
        return {}
    return {row["data_key"]: Location(row["data_key"], row["store"], row["place"])
            for row in statements.find(conn, image_locations, data_key=wanted)}


def written(conn: sa.Connection, key: str, **ours: str) -> bool:
    """After the last byte: nobody writes this data any more. ours: what its row has to say, else nothing changes and
    this is False."""
    mine = [image_locations.c[name] == value for name, value in ours.items()]
    return conn.execute(sa.update(image_locations).where(
        image_locations.c.data_key == key, *mine).values(writer=None)).rowcount == 1


def _forget(keys: list[str], conn: sa.Connection) -> None:
    conn.execute(sa.delete(image_locations).where(
        image_locations.c.data_key.in_(keys), image_locations.c.image_id.is_(None)))


def orphan(conn: sa.Connection, *keys: str) -> None:
    """Nobody wants this data any more."""
    conn.execute(sa.update(image_locations).where(image_locations.c.data_key.in_(keys)).values(image_id=None))


def orphan_all(conn: sa.Connection, image_id: str) -> list[Location]:
    """Nobody wants any data of this image any more. Those pieces that are not being written now: to be dropped."""
    mine = image_locations.c.image_id == image_id
    rows = conn.execute(sa.select(*_COLUMNS).where(mine, image_locations.c.writer.is_(None))).all()
    conn.execute(sa.update(image_locations).where(mine).values(image_id=None))
    return [Location(*row) for row in rows]
