"""Where the bytes of images are. All verbs block; callers take them off the event loop.

A key is a UUID, new for every upload. Data appears under its key whole or not at all.
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Protocol

from nacre.base.errors import NotFound, TooLarge

KEY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Sink(Protocol):
    """Data on its way in. End it with `commit` or `discard`; without either it is swept at the next start."""

    def write(self, data: bytes) -> None:
        """Appends. Raises TooLarge when the medium is full."""
        ...

    def commit(self) -> None:
        """Makes the data durable and visible under the key, in the place of what was there."""
        ...

    def discard(self) -> None:
        """Forgets the data. May be repeated, and does nothing after `commit`."""
        ...


class Store(Protocol):
    """Named, immutable byte strings."""

    name: str

    def create(self, key: str) -> Sink: ...

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer, or none, at the end. Raises NotFound."""
        ...

    def size(self, key: str) -> int:
        """Bytes under a key. Raises NotFound."""
        ...

    def delete(self, key: str) -> None:
        """Gone afterwards, whether or not it was there."""
        ...

    def keys(self) -> set[str]: ...

    def sweep(self, wanted: Iterable[str]) -> list[str]:
        """Deletes what nobody wants, finished or not. Returns the deleted names."""
        ...


class MemoryStore:
    """For simulation and tests. `capacity` in bytes makes it run full."""

    name = "memory"

    def __init__(self, capacity: int | None = None):
        self._data: dict[str, bytes] = {}
        self.capacity = capacity

    def create(self, key: str) -> "MemorySink":
        return MemorySink(self, _checked(key))

    def read(self, key: str, offset: int, length: int) -> bytes:
        return self._get(key)[offset:offset + length]

    def size(self, key: str) -> int:
        return len(self._get(key))

    def delete(self, key: str) -> None:
        self._data.pop(key, None)

    def keys(self) -> set[str]:
        return set(self._data)

    def sweep(self, wanted: Iterable[str]) -> list[str]:
        gone = sorted(self.keys() - set(wanted))
        for key in gone:
            self.delete(key)
        return gone

    def put(self, key: str, data: bytes) -> None:
        """Replaces what a key holds."""
        self._data[key] = data

    def used(self) -> int:
        """Bytes held under keys."""
        return sum(map(len, self._data.values()))

    def _get(self, key: str) -> bytes:
        try:
            return self._data[_checked(key)]
        except KeyError:
            raise NotFound(f"No data is stored under {key}.") from None


class MemorySink:
    """A sink of a MemoryStore."""

    def __init__(self, store: MemoryStore, key: str):
        self._store, self._key, self._data = store, key, bytearray()

    def write(self, data: bytes) -> None:
        if self._store.capacity is not None and self._store.used() + len(self._data) + len(data) > self._store.capacity:
            raise _full()
        self._data += data

    def commit(self) -> None:
        self._store.put(self._key, bytes(self._data))

    def discard(self) -> None:
        self._data.clear()


class FileStore:
    """A directory of this host. A crash leaves the old content, the new, or a `.part` that the next start sweeps."""

    name = "file"

    def __init__(self, directory: Path):
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)

    def create(self, key: str) -> "FileSink":
        return FileSink(self._directory, _checked(key))

    def read(self, key: str, offset: int, length: int) -> bytes:
        with self._open(key) as file:
            return os.pread(file.fileno(), length, offset)

    def size(self, key: str) -> int:
        with self._open(key) as file:
            return os.fstat(file.fileno()).st_size

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._directory / _checked(key)).unlink()

    def keys(self) -> set[str]:
        return {p.name for p in self._directory.iterdir() if KEY.fullmatch(p.name)}

    def sweep(self, wanted: Iterable[str]) -> list[str]:
        keep, gone = set(wanted), []
        for path in sorted(self._directory.iterdir()):
            key = path.name.removesuffix(".part")
            if KEY.fullmatch(key) and key not in keep:
                path.unlink(missing_ok=True)
                gone.append(path.name)
        return gone

    def free(self) -> int:
        """Free bytes of the medium."""
        return shutil.disk_usage(self._directory).free

    def _open(self, key: str) -> FileIO:
        try:
            return (self._directory / _checked(key)).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"No data is stored under {key}.") from None


class FileSink:
    """A sink of a FileStore."""

    def __init__(self, directory: Path, key: str):
        self._path, self._part = directory / key, directory / (key + ".part")
        self._file = self._part.open("wb", buffering=0)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view):]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise _full() from None
            raise

    def commit(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        if not self._file.closed:
            self._file.close()
            self._part.unlink(missing_ok=True)


def _checked(key: str) -> str:
    """A key becomes a file's name, so nothing else may pass."""
    if not KEY.fullmatch(key):
        raise NotFound(f"No data is stored under {key!r}.")
    return key


def _full() -> TooLarge:
    return TooLarge("The image storage is full. Ask the operator to make room.")
