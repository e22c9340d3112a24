"""One upload's bytes on their way into a store, and how slowly a client may send them."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator

import msgspec

from nacre.base import errors as e
from nacre.image.data.store import Sink, Store

HASH = "sha512"
#: Data is written and read in pieces of these many bytes: worth a hop to a thread or a bucket, small enough to hold.
PIECE, READ = 1 << 20, 4 << 20


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived. Sizes in bytes, hashes in hexadecimal."""

    size: int
    virtual_size: int | None = None
    checksum: str
    os_hash_algo: str
    os_hash_value: str


class Intake:
    """One upload. All verbs block, one at a time; the store is not touched before the first. End it with `finish` or
    `discard`, which may come while a write is still at work in its thread."""

    def __init__(self, store: Store, key: str, limit: int):
        self._store, self._key, self._limit, self.size = store, key, limit, 0
        self._md5, self._sha = hashlib.md5(usedforsecurity=False), hashlib.sha512()
        self._sink: Sink | None = None
        self._lock, self._over = threading.Lock(), False
        self._received: Received | None = None

    def write(self, data: bytes) -> None:
        """The next bytes. Raises TooLarge past the limit, before they are written."""
        with self._lock:
            self.size += len(data)
            if self.size > self._limit:
                raise e.TooLarge(f"The image is larger than the limit of {self._limit} bytes.", field="size")
            sink = self._open()
            self._md5.update(data)
            self._sha.update(data)
            sink.write(data)

    def finish(self) -> Received:
        """The commit. Nobody has looked at the data yet (`verdicts.py`). Once it is done it may be repeated."""
        with self._lock:
            if self._received is None:
                self._open().commit()
                self._received = Received(size=self.size, checksum=self._md5.hexdigest(), os_hash_algo=HASH,
                                          os_hash_value=self._sha.hexdigest())
            return self._received

    def discard(self) -> None:
        """Keeps nothing that is not committed, also of what is still to come. May be repeated."""
        with self._lock:
            self._over = True
            if self._sink is not None:
                self._sink.discard()

    def _open(self) -> Sink:
        if self._over or self._received is not None:
            raise e.Gone("The upload has ended.")
        if self._sink is None:
            self._sink = self._store.create(self._key)
        return self._sink


async def steady(chunks: AsyncIterator[bytes], patience: float) -> AsyncIterator[bytes]:
    """The same chunks. patience: seconds of waiting in which each PIECE bytes must be there, or the end; what is done
    with them meanwhile is not counted. Raises BadRequest."""
    clock = asyncio.get_running_loop().time
    left, came = patience, 0
    while True:
        begin = clock()
        try:
            async with asyncio.timeout(left):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise e.BadRequest(f"The data came too slowly: less than {PIECE} bytes in {patience:g} seconds. Nothing of "
                               "it is kept; send it again.") from None
        if chunk is None:
            return
        yield chunk
        left, came = left - (clock() - begin), came + len(chunk)
        if came >= PIECE:
            left, came = patience, 0
