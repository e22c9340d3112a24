"""Images on this host: each fetched once however many builds want it, checked against its digest, kept while used."""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

import structlog

from nacre.base.errors import BuildFailed
from nacre.base.locks import NamedLocks
from nacre.image.contract import ImageFacts, Images

log = structlog.get_logger()

#: What is asked for at once: large enough to be fast, small enough for one message.
PIECE = 4 << 20

#: (download, image, file, bytes): makes the file that guests use of a download whose digest is right, if what it holds
#: is safe and not larger than so many bytes (None: no limit).
Convert = Callable[[Path, ImageFacts, Path, int | None], Awaitable[None]]


class ImageCache:
    """Files by digest and format in one folder of ours. in_use: names of files that guests are built on."""

    def __init__(self, folder: Path, images: Images, convert: Convert, in_use: Callable[[], set[str]],
                 limit: int = 20 << 30):
        self.folder, self._images, self._convert = folder, images, convert
        self._in_use, self._limit, self._locks = in_use, limit, NamedLocks()
        self._wanted: dict[str, int] = {}

    async def fetch(self, image: ImageFacts, largest: int | None = None) -> Path:
        """The file that guests use of this image. largest: no more than so many bytes may become of it. Raises
        BuildFailed: it cannot be had, or is not what it claims."""
        name = cache_name(image)
        file = self.folder / name
        self._wanted[name] = self._wanted.get(name, 0) + 1
        try:
            async with self._locks(name):
                if not file.exists():
                    await self._make(image, file, largest)
                os.utime(file)
        finally:
            self._wanted[name] -= 1
        return file

    async def clean(self) -> None:
        """Drops what was used least recently and is not in use, until the rest is within the limit (bytes)."""
        await asyncio.to_thread(self._clean, self._in_use() | {n for n, count in self._wanted.items() if count})

    async def _make(self, image: ImageFacts, file: Path, largest: int | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        download, made = file.with_suffix(".part"), file.with_suffix(".new")
        try:
            await self._download(image, download)
            await self._convert(download, image, made, largest)
            if made.exists():
                download.unlink()
            else:
                download.rename(made)
            made.rename(file)
        finally:
            download.unlink(missing_ok=True)
            made.unlink(missing_ok=True)
        await self.clean()

    async def _download(self, image: ImageFacts, to: Path) -> None:
        digest, size = hashlib.new(image.os_hash_algo or "sha512"), image.size or 0
        with _private(to) as out:
            at = 0
            while at < size:
                piece = await self._images.read(image.id, at, min(PIECE, size - at))
                if not piece:
                    break
                await asyncio.to_thread(_take, out.write, digest.update, piece)
                at += len(piece)
        if at != size or digest.hexdigest() != image.os_hash_value:
            raise BuildFailed(f"image {image.id}: what arrived ({at} of {size} bytes) does not have the image's digest")

    def _clean(self, keep: set[str]) -> None:
        files = sorted((f for f in self.folder.iterdir() if f.suffix == ".base"), key=lambda f: f.stat().st_mtime)
        total = sum(f.stat().st_blocks * 512 for f in files)
        for file in files:
            if total <= self._limit:
                return
            if file.name not in keep:
                total -= file.stat().st_blocks * 512
                file.unlink(missing_ok=True)
                log.info("image dropped from the cache", file=file.name)


def cache_name(image: ImageFacts) -> str:
    """The file's name: the digest, so that equal images are one; and the format, since it decides how it is read.
    Raises BuildFailed for an image without a digest: it could not be checked."""
    value = image.os_hash_value or ""
    if image.os_hash_algo not in ("sha256", "sha384", "sha512") or not value.isalnum() or len(value) < 64:
        raise BuildFailed(f"image {image.id} has no digest that it could be checked against")
    return f"{value[:64]}-{(image.disk_format or 'raw')[:8]}.base"


def _private(file: Path) -> BinaryIO:
    return open(file, "wb", opener=lambda path, flags: os.open(path, flags, 0o600))


def _take(write: Callable[[bytes], object], update: Callable[[bytes], object], piece: bytes) -> None:
    write(piece)
    update(piece)
