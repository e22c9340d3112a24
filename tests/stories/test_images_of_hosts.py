"""Which images the node of a host may read: those of the servers that have a place there, and no others (law 20)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.base.errors import NotFound
from nacre.base.rpc.memory import MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.image.contract import TARGET, Images


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path) as running:
        yield running


async def image(cloud: WholeCloud, kind: str = "raw", **more: Any) -> str:
    made = (await cloud.ask("demo", "POST", "image", "/images", {
        "name": "i", "disk_format": kind, "container_format": "bare" if kind == "raw" else kind} | more)).json()
    await cloud.http.put(f"/image/v2/images/{made['id']}/file", content=made["id"].encode(), headers={
        "X-Auth-Token": await cloud.token("demo"), "Content-Type": "application/octet-stream"})
    return str(made["id"])


async def readable(cloud: WholeCloud, host: str, *ids: str) -> list[bool]:
    """Which of them the host's node gets. Each time as a process that has just been started."""
    transport = MemoryTransport(cloud.control.base.transport.hub, me=Peer(host, "node"))  # type: ignore[attr-defined]
    images, found = stub(Images, transport.client(TARGET).prepare(server="control", timeout=5)), []
    for id in ids:
        try:
            found.append(await images.read(id, 0, 100) == id.encode())
        except NotFound:
            found.append(False)
    return found


async def server(cloud: WholeCloud, id: str, wanted: str) -> None:
    """Waits until it is so."""
    async with asyncio.timeout(20):
        while (await cloud.ask("demo", "GET", "compute", f"/servers/{id}")).json().get(
                "server", {"status": "gone"})["status"] != wanted:
            await asyncio.sleep(0.02)


async def test_a_host_reads_the_images_of_its_servers(cloud: WholeCloud) -> None:
    kernel, ramdisk = await image(cloud, "aki"), await image(cloud, "ari")
    disk, other = await image(cloud, kernel_id=kernel, ramdisk_id=ramdisk), await image(cloud)
    host, all_of_it = cloud.control.settings.host_name, (disk, kernel, ramdisk, other)
    assert await readable(cloud, host, *all_of_it) == [False] * 4
    made = (await cloud.ask("demo", "POST", "compute", "/servers", {"server": {
        "name": "s", "imageRef": disk, "flavorRef": "42", "networks": "none"}})).json()["server"]["id"]
    await server(cloud, made, "ACTIVE")
    assert await readable(cloud, host, *all_of_it) == [True, True, True, False]
    assert await readable(cloud, "another-host", *all_of_it) == [False] * 4
    await cloud.ask("demo", "DELETE", "compute", f"/servers/{made}")
    await server(cloud, made, "gone")
    async with asyncio.timeout(20):
        while any(await readable(cloud, host, *all_of_it)):
            await asyncio.sleep(0.02)
