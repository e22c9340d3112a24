"""Data on its way into the store: written, hashed and inspected in one pass, in constant memory."""

import hashlib

import msgspec

from nacre.base.errors import TooLarge
from nacre.base.image_formats import Inspected, Inspector, inspect_file
from nacre.image.stores import Store

HASH = "sha512"
#: Work is done in pieces of this many bytes: large enough to be worth a hop to a thread, small enough to hold.
PIECE = 1 << 20

__all__ = ["HASH", "PIECE", "Inspected", "Inspector", "Intake", "Received", "inspect_file"]


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
        self._inspector, self._limit, self._size = inspector, limit, 0
        self._md5, self._sha = hashlib.md5(usedforsecurity=False), hashlib.sha512()

    def write(self, data: bytes) -> None:
        """The next bytes. Raises TooLarge past the limit, before they are written."""
        self._size += len(data)
        if self._size > self._limit:
            raise TooLarge(f"The image is larger than the limit of {self._limit} bytes.", field="size")
        if self._inspector is not None:
            self._inspector.feed(data)
        self._md5.update(data)
        self._sha.update(data)
        self._sink.write(data)

    def finish(self) -> Received:
        """The verdict, then the commit. Raises UnsupportedMedia: nothing is kept then."""
        inspected = self._inspector.finish() if self._inspector is not None else None
        self._sink.commit()
        return Received(size=self._size, virtual_size=inspected.virtual_size if inspected else None,
                        checksum=self._md5.hexdigest(), os_hash_algo=HASH, os_hash_value=self._sha.hexdigest())

    def discard(self) -> None:
        """Keeps nothing. May be repeated."""
        self._sink.discard()
