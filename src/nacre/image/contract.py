"""What others may ask of images."""

from typing import Protocol

import msgspec

from nacre.base.context import Context
from nacre.base.rpc.target import Target

TARGET = Target(topic="control", namespace="image", version="1.0")


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

    async def read(self, image_id: str, offset: int, length: int) -> bytes:
        """A piece of an active image's data (a node's way to fetch it). Raises NotFound."""
        ...
