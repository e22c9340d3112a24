"""What this host was told, on its disk before it acts on it: each server's highest epoch, its order, how far it got.

An append-only log of whole entries; the last one of a server counts. Writers that come together share one fsync. A
record is length, CRC and msgpack, so the torn end that a crash may leave is seen and cut off at the next start. What a
build needs and nobody may read later (`Entry.secret`) is in there while the build runs, and rewritten away after it.
"""

import asyncio
import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.crash import point
from nacre.base.errors import Refused
from nacre.node.contract import BuildOrder, SpawnOrder, Step

log = structlog.get_logger()

_HEAD = struct.Struct("<II")
#: How long it is remembered that a gone server's epochs are refused (seconds).
KEEP_GONE = 7 * 86400
#: The log is rewritten when it has more records than this for each living entry, and a few more.
SLACK, FEW = 4, 256


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One server here. stage: claimed, prepared, spawning, running (its build is done), closing (being taken back:
    this epoch and lower ones are refused from here on), gone. at: when it was written, seconds since the epoch."""

    server_id: str
    epoch: int
    stage: str
    at: float = 0.0
    order: BuildOrder | None = None
    spawn: SpawnOrder | None = None
    steps: tuple[Step, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether it may hold anything of the host."""
        return self.stage != "gone"

    @property
    def closed(self) -> bool:
        return self.stage in ("closing", "gone")

    @property
    def secret(self) -> bool:
        """Whether it has what only the guest is to know."""
        guest = self.order.guest if self.order is not None else None
        return guest is not None and bool(guest.admin_password or guest.user_data or guest.files or guest.metadata)


class Journal:
    """Entries by server. `write` returns when the entry is on disk. Open it once per host folder."""

    def __init__(self, file: Path, clock: Clock | None = None):
        self._clock = clock or RealClock()
        self._entries: dict[str, Entry] = {}
        self._encoder = msgspec.msgpack.Encoder()
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._file, self._count = file, 0
        self._secret = set[str]()  # the servers that the file has a secret of
        self._untidy = False
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = self._open(file)

    def get(self, server_id: str) -> Entry | None:
        """The server's entry as last written (it may still be on its way to the disk)."""
        return self._entries.get(server_id)

    def all(self) -> list[Entry]:
        return list(self._entries.values())

    def check(self, server_id: str, epoch: int) -> Entry | None:
        """The entry, if this epoch may still act here. Raises Refused: a later attempt was seen, or it was closed."""
        entry = self._entries.get(server_id)
        if entry is None:
            return None
        if epoch < entry.epoch:
            raise Refused(f"attempt {epoch} of server {server_id} is over: attempt {entry.epoch} was seen here")
        if epoch == entry.epoch and entry.closed:
            raise Refused(f"attempt {epoch} of server {server_id} was taken back here")
        return entry

    async def write(self, entry: Entry) -> Entry:
        """Replaces the server's entry; on disk when this returns. Raises Refused for a lower epoch."""
        old = self._entries.get(entry.server_id)
        if old is not None and entry.epoch < old.epoch:
            raise Refused(f"attempt {entry.epoch} of server {entry.server_id} is over")
        entry = msgspec.structs.replace(entry, at=self._clock.now().timestamp())
        self._entries[entry.server_id] = entry
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        self._wake()
        try:
            await asyncio.shield(future)
        except OSError:
            if self._entries.get(entry.server_id) is entry:
                self._entries.pop(entry.server_id)
                if old is not None:
                    self._entries[entry.server_id] = old
            raise
        point(f"node journal {entry.stage}")
        return entry

    async def tidy(self) -> None:
        """The file has no secret of a build that has ended when this returns. Cheap if it has none."""
        if self._stale():
            self._untidy = True
            await self._wake()

    async def close(self) -> None:
        """Waits for what is being written, and leaves no secret that nobody needs."""
        await self.tidy()
        if self._flusher is not None:
            await self._flusher
        os.close(self._fd)

    def _stale(self) -> bool:
        return any((entry := self._entries.get(server)) is None or not entry.secret for server in self._secret)

    def _wake(self) -> "asyncio.Task[None]":
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return self._flusher

    async def _flush(self) -> None:
        while self._waiting or self._untidy:
            group, self._waiting = self._waiting, []
            try:
                if group:
                    await asyncio.to_thread(
                        self._append, b"".join(_record(self._encoder.encode(entry)) for entry, _ in group))
            except OSError as error:
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                continue
            for _, future in group:
                if not future.done():
                    future.set_result(None)
            self._count += len(group)
            self._secret |= {entry.server_id for entry, _ in group if entry.secret}
            if self._long() or self._untidy:
                self._untidy = False
                await asyncio.to_thread(self._renew, list(self._entries.values()))

    def _long(self) -> bool:
        return self._count > SLACK * len(self._entries) + FEW

    def _renew(self, entries: list[Entry]) -> None:
        """A new file in place of the long one; if that fails the long one goes on."""
        try:
            self._rewrite(entries)
        except OSError as error:
            log.warning("the journal cannot be rewritten", why=str(error))
            return
        os.close(self._fd)
        self._fd = os.open(self._file, os.O_WRONLY | os.O_APPEND)

    def _append(self, data: bytes) -> None:
        begin = os.fstat(self._fd).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view):]
            os.fdatasync(self._fd)
        except OSError:  # half a record in the middle would hide all that follow it
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, begin)
            raise

    def _open(self, file: Path) -> int:
        """Reads what is there, cuts off a torn end, rewrites a log that has become long."""
        valid = 0
        if file.exists():
            data = file.read_bytes()
            for entry, end in _records(data):
                self._entries[entry.server_id] = entry
                self._count, valid = self._count + 1, end
                if entry.secret:
                    self._secret.add(entry.server_id)
            if valid < len(data):
                log.warning("the journal's torn end is cut off", file=str(file), bytes=len(data) - valid)
                os.truncate(file, valid)
        oldest = self._clock.now().timestamp() - KEEP_GONE
        self._entries = {k: e for k, e in self._entries.items() if e.alive or e.at > oldest}
        if self._long() or self._stale():
            self._rewrite(list(self._entries.values()))
        fresh = not file.exists()
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if fresh:
            _sync_folder(file.parent)
        return fd

    def _rewrite(self, entries: list[Entry]) -> None:
        temporary = self._file.with_suffix(".new")
        with open(temporary, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            for entry in entries:
                out.write(_record(self._encoder.encode(entry)))
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(self._file)
        _sync_folder(self._file.parent)
        self._count, self._secret = len(entries), {entry.server_id for entry in entries if entry.secret}


def _record(body: bytes) -> bytes:
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _records(data: bytes) -> Iterator[tuple[Entry, int]]:
    """The sound records from the beginning, each with the offset behind it."""
    decoder, at = msgspec.msgpack.Decoder(Entry), 0
    while at + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size:at + _HEAD.size + length]
        if len(body) < length or zlib.crc32(body) != crc:
            return
        at += _HEAD.size + length
        try:
            yield decoder.decode(body), at
        except msgspec.DecodeError as error:
            log.error("an entry of the journal cannot be read", why=str(error))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
