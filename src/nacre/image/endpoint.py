"""What other processes may ask of images: the endpoint of contract.Images."""

from collections.abc import Awaitable, Callable

from nacre.base.context import Context
from nacre.base.errors import NotFound, Unavailable
from nacre.base.rpc.server import peer
from nacre.image.contract import ImageFacts
from nacre.image.service import HELD, ImageService, bounded

#: (host, image id): whether the node of this host may read that image. Asked for each piece.
MayRead = Callable[[str, str], Awaitable[bool]]


async def anyone(host: str, image_id: str) -> bool:
    """Every node may read every image."""
    return True


class ImagesEndpoint:
    """Nodes read what `may_read` lets them; other control processes read what only this one has."""

    def __init__(self, images: ImageService, may_read: MayRead = anyone):
        self._images, self._may_read = images, may_read

    async def find(self, context: Context, image_id: str) -> ImageFacts:
        """The image, if `context` may see it. Raises NotFound."""
        return await self._images.find(context, image_id)

    async def read(self, image_id: str, offset: int, length: int) -> bytes:
        """A piece of an image's data. Raises NotFound, Unavailable."""
        sender = peer()
        if sender is not None and sender.role == "control":
            return await self._read_here(image_id, offset, length)
        if sender is not None and not await self._may_read(sender.name, image_id):
            raise NotFound(f"Image {image_id[:64]} has no data.")
        return await self._images.read(image_id, offset, length)

    async def _read_here(self, image_id: str, offset: int, length: int) -> bytes:
        """For another control process, staged data too. It is never handed on, so that no question goes in circles."""
        location = await self._images.location(image_id, (*HELD, "importing"))
        if not self._images.data.reaches(location):
            raise Unavailable("The image's data is not at this control process any more.")
        return await self._images.data.read(location, image_id, offset, bounded(offset, length))
