"""Where images' data is, and reading it from there: a store that this control process reaches, or another process."""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from nacre.base.errors import Unavailable
from nacre.image.data.files import FileStore, SharedStore
from nacre.image.data.s3 import S3Store
from nacre.image.data.store import Store

T = TypeVar("T")

AWAY = "The image's data cannot be reached now. Try again, or ask the operator."
#: The store whose data only the control process can read that wrote it.
OWN = FileStore.name
#: Store verbs at work at once. They have threads of their own: a folder or bucket that hangs must hold up nothing else.
THREADS = 16


class Location(msgspec.Struct, frozen=True):
    """Where one piece of data is. place: of store "file", the control process that has it (empty: of a time when there
    was only one); else empty."""

    key: str
    store: str
    place: str = ""


class Peers(Protocol):
    """The control processes of this cloud, as this one knows them."""

    async def alive(self) -> set[str]:
        """The ids of those that live: what processes that are not among them were writing is taken back. A process is
        in it before it takes its first upload, and leaves it only when its heartbeats have ended, or it has."""
        ...

    async def name(self, process: str) -> str:
        """What operators call a process."""
        ...

    async def read(self, process: str, image_id: str, offset: int, length: int) -> bytes:
        """`Images.read` of that process. Raises Unavailable, NotFound."""
        ...


class Alone:
    """The Peers of a control process that is the only one."""

    async def alive(self) -> set[str]:
        return set()

    async def name(self, process: str) -> str:
        return process

    async def read(self, process: str, image_id: str, offset: int, length: int) -> bytes:
        raise Unavailable(AWAY, details=f"There is no control process {process}.")


class Locations:
    """The stores of this control process, and the way to the others' data. process: this one's id; stores: the first
    takes new data. `writing`: keys of the data that this process is writing now."""

    def __init__(self, process: str, stores: Sequence[Store], peers: Peers | None = None):
        self.process, self.peers = process, peers or Alone()
        self.stores = {store.name: store for store in stores}
        self.default = stores[0].name
        self.writing: set[str] = set()
        self._threads = ThreadPoolExecutor(THREADS, "images")

    def new(self) -> Location:
        """Where the next data goes. Its key is taken for being written from now on."""
        key = str(uuid.uuid4())
        self.writing.add(key)
        return Location(key, self.default, self.process if self.default == OWN else "")

    def reaches(self, location: Location) -> bool:
        """Whether this process reads and deletes that data by itself."""
        return location.store in self.stores and (location.store != OWN or location.place == self.process)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """A blocking function, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    async def read(self, location: Location, image_id: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`, from wherever they are; fewer, or none, at the end. Raises NotFound,
        Unavailable: its details say which control process has it."""
        if self.reaches(location):
            return await self.run(self.stores[location.store].read, location.key, offset, length)
        if location.store != OWN:
            raise Unavailable(AWAY, details=f"It is in the store '{location.store}', which this control process is not "
                                            "configured with.")
        if not location.place:
            raise Unavailable(AWAY, details="It is at a control process that was not started since the upgrade.")
        try:
            return await self.peers.read(location.place, image_id, offset, length)
        except Unavailable as error:
            name = await self.peers.name(location.place)
            raise Unavailable(AWAY, details=f"It is at control {name}, which does not answer.") from error

    async def delete(self, location: Location) -> None:
        """Gone afterwards. Only for what this process reaches."""
        await self.run(self.stores[location.store].delete, location.key)


def image_stores(own: Path, folder: str, s3: Mapping[str, str]) -> list[Store]:
    """The stores of a control process, as its options name them: the first takes new data. own: its own folder."""
    stores: list[Store] = [FileStore(own)]
    if folder:
        stores.insert(0, SharedStore(Path(folder)))
    if s3:
        stores.insert(0, S3Store(s3))
    return stores
