"""What stored data is, asked when all of it is there: a client that is slow keeps no process, and holds up nobody.

The inspecting process is fed from the store, as fast as that reads, and ends as soon as more can change nothing: mostly
with the first 64 kB, of a VMDK made for streaming with the last.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from nacre.base.errors import NotFound
from nacre.base.image_formats import SLICE, Inspected
from nacre.base.serving.turns import Turns
from nacre.image.data.inspection import Apart
from nacre.image.data.intake import READ
from nacre.image.data.locations import Location, Locations

T = TypeVar("T")

#: Inspections of one project at once, and how many more of it wait: for these alone.
OF_ONE, WAITING = 2, 1000
#: Of all projects. They have threads of their own: data on which a parser labours keeps no store waiting.
THREADS = 64


class Verdicts:
    """The inspections of this control process."""

    def __init__(self, data: Locations):
        self._data, self._turns = data, Turns(OF_ONE, WAITING)
        self._threads = ThreadPoolExecutor(THREADS, "inspections")

    async def of(self, image: Mapping[str, Any], where: Location, size: int) -> Inspected:
        """The verdict on an image's data. image: its row; size: bytes. Raises UnsupportedMedia: not what was declared,
        or not safe; Unavailable; TooMany."""
        apart, at = Apart(image["disk_format"], image["container_format"]), 0
        async with self._turns.turn(image["owner"] or ""):
            with contextlib.closing(apart):
                while at < size and not apart.settled:
                    piece = await self._data.read(where, image["id"], at, READ if at else SLICE)
                    if not piece:
                        raise NotFound(f"The data of image {image['id']} ended early.")
                    await self._run(apart.feed, piece)
                    at += len(piece)
                return await self._run(apart.finish, size)

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
