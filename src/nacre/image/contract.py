"""What others may ask of images."""

from typing import Protocol

import msgspec

from nacre.base import bounds
from nacre.base.context import Context
from nacre.base.rpc.target import Target

TARGET = Target(topic="control", namespace="image", version="1.0")
#: No more bytes than these are read at once.
MOST = 8 << 20


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One image, as compute needs to know it. Sizes in bytes, min_disk in GB, min_ram in MB."""

    id: str
    name: str | None
    owner: str | None
    status: str
    disk_format: str | None
    container_format: str | None
    size: int | None
    virtual_size: int | None
    checksum: str | None
    os_hash_algo: str | None
    os_hash_value: str | None
    min_disk: int = 0
    min_ram: int = 0
    #: Every free property, `hw_*`, `os_*`, `kernel_id` and `ramdisk_id` among them.
    properties: dict[str, str] = {}


class Images(Protocol):
    """The image service, for compute and for nodes."""

    async def find(self, context: Context, image_id: str) -> ImageFacts:
        """The image, if `context` may see it. Raises NotFound."""
        ...

    async def read(self, image_id: bounds.Id, offset: bounds.Count, length: bounds.Count) -> bytes:
        """A piece of an active image's data (a node's way to fetch it): up to `length` bytes, at most MOST; none at the
        end. Raises NotFound; Unavailable: what has the data does not answer now."""
        ...


class SnapshotOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An image that a host is going to fill from a server's disk."""

    name: str
    disk_format: str
    container_format: str = "bare"
    min_disk: int = 0
    min_ram: int = 0
    properties: dict[str, str] = {}


class Snapshots(Protocol):
    """Images that hosts write. Data arrives in order; a piece that arrives twice changes nothing."""

    async def register(self, context: Context, order: SnapshotOrder) -> ImageFacts:
        """A private image of the caller's project, in state saving. Raises Forbidden, BadRequest."""
        ...

    async def write(self, image_id: str, offset: int, data: bytes) -> None:
        """Bytes at `offset`; offset 0 starts anew. Raises Conflict (a gap, or a piece failed: start anew),
        NotFound, TooLarge."""
        ...

    async def finish(self, image_id: str, size: int) -> None:
        """All `size` bytes were sent: inspect, then active. May be repeated. Raises UnsupportedMedia, Conflict."""
        ...

    async def abandon(self, image_id: str) -> None:
        """It failed: the image and its data are gone. May be repeated; does nothing to a finished one."""
        ...
