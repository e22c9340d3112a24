"""What keeps the bytes of images. All verbs block; callers take them off the event loop.

A key is a UUID, new for every upload: no two writers ever write the same one. Data appears under its key whole or not
at all. Which key belongs to which image, and where it lies, is in the database (`ledger.py`), not in a store.
"""

import re
from typing import Protocol

from nacre.base.errors import NotFound, TooLarge

KEY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Sink(Protocol):
    """Data on its way in, from one caller at a time. End it with `commit` or `discard`."""

    def write(self, data: bytes) -> None:
        """Appends. Raises TooLarge when the medium is full, Unavailable."""
        ...

    def commit(self) -> None:
        """Makes the data durable and visible under the key. Raises Unavailable: it may be there or not."""
        ...

    def discard(self) -> None:
        """Forgets the data. May be repeated, and does nothing after `commit`."""
        ...


class Store(Protocol):
    """Named, immutable byte strings. Every verb raises Unavailable when the medium is away."""

    name: str

    def open(self, *, known: bool) -> None:
        """Makes the store ready. known: data is said to lie in it, so an empty medium is the wrong one."""
        ...

    def create(self, key: str) -> Sink: ...

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer, or none, at the end. Raises NotFound."""
        ...

    def size(self, key: str) -> int:
        """Bytes under a key. Raises NotFound."""
        ...

    def delete(self, key: str) -> None:
        """Gone afterwards, finished or half written, whether or not it was there. Only when nobody writes it."""
        ...


class MemoryStore:
    """For simulation and tests. `capacity` in bytes makes it run full."""

    name = "memory"

    def __init__(self, capacity: int | None = None):
        self.data: dict[str, bytes] = {}
        self.capacity = capacity

    def open(self, *, known: bool) -> None:
        """Always ready."""

    def create(self, key: str) -> "MemorySink":
        return MemorySink(self, checked(key))

    def read(self, key: str, offset: int, length: int) -> bytes:
        return self._get(key)[offset:offset + length]

    def size(self, key: str) -> int:
        return len(self._get(key))

    def delete(self, key: str) -> None:
        self.data.pop(checked(key), None)

    def _get(self, key: str) -> bytes:
        try:
            return self.data[checked(key)]
        except KeyError:
            raise absent(key) from None


class MemorySink:
    """A sink of a MemoryStore."""

    def __init__(self, store: MemoryStore, key: str):
        self._store, self._key, self._data = store, key, bytearray()

    def write(self, data: bytes) -> None:
        used = sum(map(len, self._store.data.values()))
        if self._store.capacity is not None and used + len(self._data) + len(data) > self._store.capacity:
            raise full()
        self._data += data

    def commit(self) -> None:
        self._store.data[self._key] = bytes(self._data)

    def discard(self) -> None:
        self._data.clear()


def checked(key: str) -> str:
    """A key becomes the name of a file or an object, so nothing else may pass. Raises NotFound."""
    if not KEY.fullmatch(key):
        raise absent(repr(key))
    return key


def absent(key: str) -> NotFound:
    """The error for a key without data."""
    return NotFound(f"No data is stored under {key}.")


def full() -> TooLarge:
    """The error for a medium without room."""
    return TooLarge("The image storage is full. Ask the operator to make room.")
