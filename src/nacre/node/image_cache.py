"""Images on this host: each fetched once however many builds want it, checked against its digest, kept while used.

A fetch is no part of the build that asked for it. It goes on for a while when nobody waits for it any more, and what it
has got stays on disk for the next one: after a failure, an abort, or a restart of the node it goes on where it ended.
"""

import asyncio
import errno
import hashlib
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BuildFailed, NacreError, Unavailable
from nacre.base.image_formats import PLAIN
from nacre.base.locks import NamedLocks
from nacre.image.contract import ImageFacts, Images
from nacre.node.hypervisor.driver import Progress

log = structlog.get_logger()
T = TypeVar("T")

#: (download, image, file, bytes): makes the file that guests use of a download whose digest is right, if what it holds
#: is safe and not larger than so many bytes (None: no limit).
Convert = Callable[[Path, ImageFacts, Path, int | None], Awaitable[None]]

KB, MB = 1 << 10, 1 << 20
#: Seconds: the first pause after a silence, and the longest; how long an answer may take before less is asked for.
PAUSE, LONGEST_PAUSE, SLOW = 0.5, 5.0, 2.0


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True):
    """folder: ours alone. limit: bytes kept that no guest is built on. Seconds: patience: without a byte, until a fetch
    fails; linger: that a fetch goes on for nobody; stale: that half an image is kept that nobody continues."""

    folder: Path
    limit: int = 20 << 30
    patience: float = 300.0
    linger: float = 300.0
    stale: float = 86400.0


class Pace:
    """How much is asked for at once, in bytes: several pieces on a quick way, so that its length costs nothing; a few
    kilobytes on a slow one, so that answers come in time and other messages get through between them."""

    LEAST, MOST = 64 * KB, 4 * MB

    def __init__(self) -> None:
        self.window = self.LEAST

    @property
    def piece(self) -> int:
        """Bytes of the next request."""
        return max(self.LEAST, self.window // 4)

    def took(self, seconds: float, length: int) -> None:
        """So many bytes came after so long. What is under way at most doubles with each turn of the way."""
        if seconds > SLOW:
            self.window = max(self.LEAST, self.window // 2)
        elif seconds < SLOW / 4:
            self.window = min(self.MOST, self.window + length)

    def failed(self) -> None:
        """No answer came."""
        self.window = max(self.LEAST, self.window // 4)


class Fetch:
    """An image on its way. wish: whose failure it would be; watchers: those that wait for it."""

    def __init__(self, image: ImageFacts, largest: int | None, now: float):
        self.wish, self.total, self.done = (image.id, largest), work(image), 0
        self.pace, self.moved = Pace(), now
        self.watchers: list[Progress] = []
        self.task: asyncio.Task[None] | None = None
        self.ending: asyncio.Task[None] | None = None

    def report(self, done: int) -> None:
        """So many bytes are done."""
        self.done = min(done, self.total)
        for watcher in self.watchers:
            watcher(self.done, self.total)


class ImageCache:
    """Files by digest and format in one folder of ours. in_use: names of files that guests are built on, or will be."""

    def __init__(self, settings: CacheSettings, images: Images, convert: Convert, in_use: Callable[[], set[str]],
                 clock: Clock | None = None):
        self.settings, self._images, self._convert, self._in_use = settings, images, convert, in_use
        self._clock, self._locks = clock or RealClock(), NamedLocks()
        self._running: dict[str, Fetch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def fetch(self, image: ImageFacts, largest: int | None = None,
                    progress: Progress = lambda done, total: None) -> Path:
        """The file that guests use of this image. largest: no more than so many bytes may become of it. progress: gets
        the bytes of `work` that are done, and all, at once and as they come. Raises BuildFailed: it cannot be had, or
        is not what it claims."""
        name = cache_name(image)
        file = self.settings.folder / name
        while True:
            fetch = self._running.get(name)
            if fetch is None:
                try:
                    os.utime(file)
                    return file
                except FileNotFoundError:
                    fetch = self._begin(image, largest, file)
            assert fetch.task is not None
            try:
                with self._watching(fetch, progress):
                    await asyncio.shield(fetch.task)
            except BuildFailed:  # of another's image of the same bytes, or for another's smaller disk: not ours
                if fetch.wish == (image.id, largest):
                    raise

    async def clean(self) -> None:
        """Drops halves that nobody continues, and then what was used least recently and is not in use, until the rest
        is within the limit (bytes)."""
        running = {Path(name).stem for name in self._running}
        await asyncio.to_thread(self._clean, running, self._in_use())

    async def close(self) -> None:
        """Ends what is under way; what it has got stays for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, image: ImageFacts, largest: int | None, file: Path) -> Fetch:
        fetch = self._running[file.name] = Fetch(image, largest, self._clock.monotonic())
        fetch.task = self._start(self._run(fetch, image, file))
        return fetch

    @contextmanager
    def _watching(self, fetch: Fetch, progress: Progress) -> Iterator[None]:
        if fetch.ending is not None:
            fetch.ending.cancel()
        fetch.watchers.append(progress)
        progress(fetch.done, fetch.total)
        try:
            yield
        finally:
            fetch.watchers.remove(progress)
            if not fetch.watchers and fetch.task is not None and not fetch.task.done():
                fetch.ending = self._start(self._end(fetch))

    async def _end(self, fetch: Fetch) -> None:
        """Nobody waits any more: after a while it ends."""
        await self._clock.sleep(self.settings.linger)
        self._running = {name: other for name, other in self._running.items() if other is not fetch}
        if fetch.task is not None:
            fetch.task.cancel()

    def _start(self, coroutine: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda t: t.cancelled() or t.exception())  # perhaps nobody is there to hear it
        return task

    async def _run(self, fetch: Fetch, image: ImageFacts, file: Path) -> None:
        try:
            async with self._locks(file.name):
                if not await _in_thread(file.exists):
                    await self._make(fetch, image, file)
        finally:
            if self._running.get(file.name) is fetch:
                del self._running[file.name]

    async def _make(self, fetch: Fetch, image: ImageFacts, file: Path) -> None:
        part, made = file.with_suffix(".part"), file.with_suffix(".new")
        try:
            self.settings.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
            await self._download(fetch, image, part)
            made.unlink(missing_ok=True)
            try:
                await self._convert_watched(fetch, image, part, made)
            except BuildFailed:  # what was refused is not kept
                part.unlink(missing_ok=True)
                raise
            await _in_thread(_publish, part, made, file)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # half an image must not keep the disk full
                part.unlink(missing_ok=True)
            raise BuildFailed(f"image {image.id} cannot be kept on this host: {error.strerror}") from error
        finally:
            made.unlink(missing_ok=True)
        fetch.report(fetch.total)
        await self.clean()

    async def _download(self, fetch: Fetch, image: ImageFacts, part: Path) -> None:
        """All bytes, with the right digest. What is there of an earlier fetch is counted in, and believed until the
        digest says otherwise: then everything is fetched anew, once."""
        while True:
            digest = hashlib.new(image.os_hash_algo or "sha512")
            with _private(part) as file:
                kept = await _in_thread(_kept, file, image.size or 0)
                at = 0
                while at < kept:
                    at += await _in_thread(_hash, file, at, kept, digest)
                    fetch.report(at)
                fetch.moved = self._clock.monotonic()
                async with aclosing(self._pieces(fetch, image, at)) as pieces:
                    async for piece in pieces:
                        await _in_thread(_write, file, at, piece, digest)
                        at += len(piece)
                        fetch.report(at)
            if digest.hexdigest() == image.os_hash_value:
                log.info("image fetched", image=image.id, bytes=at, kept=kept)
                return
            await _in_thread(part.unlink)
            if not kept:
                raise BuildFailed(f"image {image.id}: what arrived ({at} bytes) does not have the image's digest",
                                  type="ImageRefused")
            log.warning("what was kept of an image is damaged; it is fetched anew", image=image.id, kept=kept)

    async def _pieces(self, fetch: Fetch, image: ImageFacts, at: int) -> AsyncGenerator[bytes]:
        """The bytes from `at` in order, several pieces asked for at once, and each again until it comes."""
        size, ahead, pause = image.size or 0, at, PAUSE
        coming: deque[asyncio.Task[bytes]] = deque()
        try:
            while at < size:
                while ahead < size and (not coming or ahead - at < fetch.pace.window):
                    length = min(fetch.pace.piece, size - ahead)
                    coming.append(asyncio.create_task(self._piece(fetch, image.id, ahead, length)))
                    ahead += length
                try:
                    piece = await coming.popleft()
                except Unavailable as error:
                    self._give_up_if_silent(fetch, image, error)
                    ahead = at
                    await _ended(coming)
                    await self._clock.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    continue
                at, pause = at + len(piece), PAUSE
                yield piece
        finally:
            await _ended(coming)

    async def _piece(self, fetch: Fetch, image_id: str, offset: int, length: int) -> bytes:
        """One piece, whole. Raises Unavailable, BuildFailed."""
        began, got = self._clock.monotonic(), b""
        while len(got) < length:
            try:
                data = await self._images.read(image_id, offset + len(got), length - len(got))
            except Unavailable:
                fetch.pace.failed()
                raise
            except NacreError as error:
                raise BuildFailed(f"image {image_id} cannot be read: {error.message}", type="ImageAway") from error
            if not data:
                raise BuildFailed(f"image {image_id} ends after {offset + len(got)} bytes")
            fetch.moved = self._clock.monotonic()
            got = got + data if got else data
        fetch.pace.took(fetch.moved - began, length)
        return got[:length]

    def _give_up_if_silent(self, fetch: Fetch, image: ImageFacts, error: Unavailable) -> None:
        if self._clock.monotonic() - fetch.moved > self.settings.patience:
            raise BuildFailed(f"image {image.id}: nothing has come of it for {self.settings.patience:g} s: "
                              f"{error.message}", type="ImageAway") from error

    async def _convert_watched(self, fetch: Fetch, image: ImageFacts, part: Path, made: Path) -> None:
        """While it works, what has been written is reported every second."""
        converting = asyncio.ensure_future(self._convert(part, image, made, fetch.wish[1]))
        try:
            while not converting.done():
                await asyncio.wait([converting], timeout=1)
                fetch.report((image.size or 0) + _allocated(made))
            await converting
        finally:
            converting.cancel()
            await asyncio.wait([converting])

    def _clean(self, running: set[str], in_use: set[str]) -> None:
        if not self.settings.folder.is_dir():
            return
        found = [(f, f.stat()) for f in self.settings.folder.iterdir() if f.suffix in (".part", ".new", ".base")]
        total = sum(s.st_blocks * 512 for f, s in found)
        idle = [(f, s) for f, s in found if f.stem not in running and f.name not in in_use]
        now = self._clock.now().timestamp()
        for file, status in sorted(idle, key=lambda each: (each[0].suffix == ".base", each[1].st_mtime)):
            old = file.suffix == ".new" or (file.suffix == ".part" and now - status.st_mtime > self.settings.stale)
            if old or total > self.settings.limit:
                file.unlink(missing_ok=True)
                total -= status.st_blocks * 512
                log.info("image dropped from the cache", file=file.name)


def cache_name(image: ImageFacts) -> str:
    """The file's name: the digest, so that equal images are one; and the format, since it decides how it is read.
    Raises BuildFailed for an image without a digest: it could not be checked."""
    value = image.os_hash_value or ""
    if image.os_hash_algo not in ("sha256", "sha384", "sha512") or not value.isalnum() or len(value) < 64:
        raise BuildFailed(f"image {image.id} has no digest that it could be checked against")
    return f"{value[:64]}-{(image.disk_format or 'raw')[:8]}.base"


def work(image: ImageFacts) -> int:
    """Bytes to do for an image that is not in the cache: to fetch, and to write while it is converted."""
    converted = image.disk_format not in PLAIN and image.disk_format != "iso"
    return (image.size or 0) + (image.virtual_size or 0 if converted else 0)


async def _ended(tasks: "deque[asyncio.Task[bytes]]") -> None:
    """Cancels them all, and waits for it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    """As asyncio.to_thread, but the thread is not left behind at work: the next fetch uses the same file."""
    working = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


def _private(file: Path) -> BinaryIO:
    return os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b", buffering=0)


def _kept(file: BinaryIO, size: int) -> int:
    """Bytes of an earlier fetch; none if there are more than the image has."""
    kept = os.fstat(file.fileno()).st_size
    if kept <= size:
        return kept
    os.ftruncate(file.fileno(), 0)
    return 0


def _hash(file: BinaryIO, at: int, end: int, digest: Any) -> int:
    data = os.pread(file.fileno(), min(4 * MB, end - at), at)
    if not data:
        raise OSError(errno.EIO, "what was kept of it became shorter")
    digest.update(data)
    return len(data)


def _write(file: BinaryIO, at: int, data: bytes, digest: Any) -> None:
    digest.update(data)
    view = memoryview(data)
    while view:
        written = os.pwrite(file.fileno(), view, at)
        at, view = at + written, view[written:]


def _publish(part: Path, made: Path, file: Path) -> None:
    """The file appears whole, also if the machine's power goes."""
    if made.exists():
        part.unlink()
    else:
        part.rename(made)
    for path in (made, made.parent):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    made.rename(file)


def _allocated(file: Path) -> int:
    try:
        return file.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
