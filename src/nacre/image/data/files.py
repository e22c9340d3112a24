"""Images in a folder: of one control process, or shared by all of them. A crash leaves the whole data or a `.part`."""

import contextlib
import errno
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import structlog

from nacre.base.errors import Unavailable
from nacre.image.data.store import KEY, absent, checked, full

log = structlog.get_logger()

PART = ".part"


class FileStore:
    """A folder of this control process's own."""

    name = "file"

    def __init__(self, directory: Path):
        self._directory = directory

    def open(self, *, known: bool) -> None:
        """The folder is made where it is not there: nobody else could have mounted it."""
        with _reported(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o750)

    def create(self, key: str) -> "FileSink":
        self._check()
        with _reported(self._directory):
            return FileSink(self._directory, checked(key))

    def read(self, key: str, offset: int, length: int) -> bytes:
        with self._file(key) as file:
            return os.pread(file.fileno(), length, offset)

    def size(self, key: str) -> int:
        with self._file(key) as file:
            return os.fstat(file.fileno()).st_size

    def delete(self, key: str) -> None:
        file = self._directory / checked(key)
        self._check()
        with _reported(self._directory):
            file.unlink(missing_ok=True)
            file.with_name(key + PART).unlink(missing_ok=True)

    def keys(self) -> set[str]:
        """Every key that has data here, finished or not."""
        with _reported(self._directory):
            names = {path.name.removesuffix(PART) for path in self._directory.iterdir()}
        return {name for name in names if KEY.fullmatch(name)}

    def _check(self) -> None:
        """Raises Unavailable if this is not the medium that it should be."""

    @contextlib.contextmanager
    def _file(self, key: str) -> Iterator[FileIO]:
        path = self._directory / checked(key)
        with _reported(self._directory):
            try:
                with path.open("rb", buffering=0) as file:
                    yield file
                    return
            except FileNotFoundError:
                pass
        self._check()
        raise absent(key)


class SharedStore(FileStore):
    """A folder that all control processes mount. Everything lies in one folder inside, which is never made again: a
    mount point without its mount must not be taken for an empty store."""

    name = "shared"

    def __init__(self, mount: Path):
        super().__init__(mount / "nacre-images")

    def open(self, *, known: bool) -> None:
        if known:
            self._check()
        else:
            with _reported(self._directory):
                self._directory.mkdir(exist_ok=True, mode=0o750)

    def _check(self) -> None:
        if not self._directory.is_dir():
            log.error("the images' shared folder is not mounted", folder=str(self._directory))
            raise _away()


class FileSink:
    """A sink of a folder: a temporary name, then the key's."""

    def __init__(self, directory: Path, key: str):
        self._path, self._part = directory / key, directory / (key + PART)
        self._file = self._part.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        with _reported(self._path.parent):
            while view:
                view = view[self._file.write(view):]

    def commit(self) -> None:
        with _reported(self._path.parent):
            os.fsync(self._file.fileno())
            self._file.close()
            try:
                self._part.rename(self._path)
            except FileNotFoundError:
                raise Unavailable("The upload was taken back: the process that took it seemed to be dead. Try "
                                  "again.") from None
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def discard(self) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self._file.close()
            with _reported(self._path.parent):
                self._part.unlink(missing_ok=True)


@contextlib.contextmanager
def _reported(directory: Path) -> Iterator[None]:
    """A user hears that the storage is full or away; which folder and why is the log's."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise full() from None
        log.error("the images' folder cannot be used", folder=str(directory), why=str(error))
        raise _away() from error


def _away() -> Unavailable:
    return Unavailable("The image storage cannot be used now. Try again, or ask the operator.")
