"""/v2/images/{id}/file and /stage: the bytes."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from nacre.base import errors as e
from nacre.base.web import Reply, Request
from nacre.image.data.uploads import Uploads

OCTETS = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class BadRange(e.BadRequest):
    """A Range header that names no byte of the image."""


class DataApi:
    """Handlers that stream."""

    def __init__(self, uploads: Uploads):
        self._uploads = uploads

    async def upload(self, request: Request) -> Reply:
        size = announced(request.headers)
        await self._uploads.upload(request.context, request.params["image_id"], request.stream(), size)
        return Reply(status=204)

    async def stage(self, request: Request) -> Reply:
        size = announced(request.headers)
        await self._uploads.stage(request.context, request.params["image_id"], request.stream(), size)
        return Reply(status=204)

    async def download(self, request: Request) -> Reply:
        image = await self._uploads.download(request.context, request.params["image_id"])
        size = image.row["size"]
        if image.status not in ("active", "deactivated") or size is None:
            return Reply(status=204)
        start, end = wanted_range(request.headers.get("range"), size)
        headers = {"Content-Length": str(end - start), "Accept-Ranges": "bytes", "Content-MD5": image.row["checksum"]}
        partial = request.headers.get("range") is not None
        if partial:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        pieces = self._uploads.pieces(image, start, end - start, request.room)
        body = Body(await anext(pieces, b""), pieces)  # whoever has it answers, or the reply is an error
        return Reply(body, 206 if partial else 200, headers, OCTETS)


class Body:
    """The first piece and the rest, of which the next is read ahead. Closing it ends that, also before anything was
    taken: a generator that has not begun would not hear of it."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes]):
        self._first: bytes | None = first
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if (first := self._first) is None:
            return await anext(self._rest)
        self._first = None
        return first

    async def aclose(self) -> None:
        await self._rest.aclose()


def announced(headers: Mapping[str, str]) -> int | None:
    """The size that the client says is coming, in bytes. Raises UnsupportedMedia, BadRequest."""
    kind = (headers.get("content-type") or "").partition(";")[0].strip().lower()
    if kind != OCTETS:
        raise e.UnsupportedMedia(f"Image data must be sent as {OCTETS}, not as {kind[:64] or 'nothing'}.",
                                 field="Content-Type")
    value = headers.get("x-openstack-image-size") or headers.get("content-length")
    if value is None:
        return None
    if not re.fullmatch(r"\d{1,18}", value):
        raise e.BadRequest("Invalid image size in request headers.", field="Content-Length")
    return int(value)


def wanted_range(header: str | None, size: int) -> tuple[int, int]:
    """First byte and the one after the last. Raises BadRange."""
    if header is None:
        return 0, size
    found = _RANGE.fullmatch(header.strip().replace(" ", ""))
    if not found or not (found[1] or found[2]):
        raise BadRange(f"The range {header[:64]!r} is not understood; ask for one like bytes=0-99.", field="Range")
    if found[1]:
        start, end = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    else:
        start, end = max(size - int(found[2]), 0), size
    if start >= end:
        raise BadRange(f"The range {header[:64]!r} is outside of the image's {size} bytes.", field="Range")
    return start, end
