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

_COLUMNS = (image_locations.c.data_key, image_locations.c.store, image_locations.c.place)


class Ledger:
    """The rows, and the deleting that they ask for."""

    def __init__(self, db: Database, data: Locations):
        self._db, self.data = db, data

    def reserve(self, conn: sa.Connection, image_id: str, location: Location) -> None:
        """Before the first byte: this process writes data of this image."""
        conn.execute(sa.insert(image_locations).values(
            data_key=location.key, image_id=image_id, store=location.store, place=location.place,
            writer=self.data.process))

    async def drop(self, *locations: Location) -> bool:
        """Deletes data whose rows were orphaned, and then, as it may take the last of a disk, the rows. What this
        process does not reach, or not now (False), stays for whoever does. May be repeated."""
        reached = list(filter(self.data.reaches, locations))
        try:
            for location in reached:
                await self.data.delete(location)
            if reached:
                await self._db.run(partial(_forget, [location.key for location in reached]))
        except NacreError as error:
            log.warning("image data is deleted later", store=location.store, key=location.key, why=str(error))
            return False
        finally:
            self.data.writing.difference_update(each.key for each in locations)
        return True

    async def collect(self) -> None:
        """Deletes what nobody wants and this process reaches."""
        for name in self.data.stores:
            while found := await self._db.read(partial(self._unwanted, name)):
                if not await self.drop(*found):
                    break

    def _unwanted(self, store: str, conn: sa.Connection) -> list[Location]:
        query = sa.select(*_COLUMNS).where(
            image_locations.c.image_id.is_(None), image_locations.c.writer.is_(None), image_locations.c.store == store,
            image_locations.c.place == (self.data.process if store == OWN else "")).limit(100)
        return [Location(*row) for row in conn.execute(query)]


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
