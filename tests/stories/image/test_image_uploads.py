"""Clients that take their time with an upload, or send many at once: it costs them, and nobody else."""

import asyncio
import struct
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psutil
import pytest
from image_cloud import Cloud, register, send

from nacre.base.errors import BadRequest
from nacre.image.data import inspection
from nacre.image.data.inspection import Nursery
from nacre.image.data.intake import PIECE, steady
from nacre.image.data.verdicts import OF_ONE
from nacre.image.service import Settings

#: Data that settles nothing before its metadata is there, which it says is far behind.
VHDX = (b"vhdxfile".ljust(192 << 10, b"\0") + struct.pack("<4sIII", b"regi", 0, 1, 0)
        + uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le + struct.pack("<QII", 1 << 39, 65536, 1))


async def stream(client: httpx.AsyncClient, image_id: str, data: AsyncIterator[bytes], to: str = "file"
                 ) -> httpx.Response:
    return await client.put(f"/v2/images/{image_id}/{to}", content=data,
                            headers={"Content-Type": "application/octet-stream"})


class Slow:
    """Data that goes on when it is told to."""

    def __init__(self, data: bytes):
        self._data, self.came, self.on, self.more = data, asyncio.Event(), asyncio.Event(), b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data
        self.came.set()
        await self.on.wait()
        if self.more:
            yield self.more


@pytest.mark.parametrize("settings", [Settings(patience=0.3)])
@pytest.mark.parametrize("to", ["file", "stage"])
async def test_a_client_that_trickles_is_told_so_and_the_image_is_queued_again(
        a: httpx.AsyncClient, cloud: Cloud, to: str) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        yield bytes(PIECE)  # what came well before does not count
        while True:
            await asyncio.sleep(0.02)
            yield b"x"

    image = (await register(a))["id"]
    refused = await stream(a, image, trickle(), to)
    assert refused.status_code == 400 and "too slowly" in refused.text and "0.3 seconds" in refused.text
    assert (await a.get(f"/v2/images/{image}")).json()["status"] == "queued"
    assert cloud.files() == [] and not cloud.data.writing
    assert (await send(a, image, b"again")).status_code == 204


async def test_what_is_done_with_the_data_is_not_the_clients_time() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x"

    async for _ in steady(chunks(), 0.2):
        await asyncio.sleep(0.1)

    async def silent() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    with pytest.raises(BadRequest):
        await anext(steady(silent(), 0.01))


async def test_while_data_comes_there_is_no_process_for_it(a: httpx.AsyncClient) -> None:
    image, data = (await register(a, disk_format="vhdx"))["id"], Slow(VHDX.ljust(2 * PIECE, b"\0"))
    upload = asyncio.create_task(stream(a, image, aiter(data)))
    await data.came.wait()
    await asyncio.sleep(0.1)
    nursery = inspection.NURSERY._process
    assert nursery is None or nursery.poll() is not None or psutil.Process(nursery.pid).children() == []
    data.on.set()
    assert (await upload).status_code == 415


@pytest.mark.parametrize("settings", [Settings(max_project_uploads=2)])
async def test_a_project_has_so_many_uploads_at_once(a: httpx.AsyncClient, b: httpx.AsyncClient) -> None:
    held = [Slow(b"x") for _ in range(2)]
    uploads = [asyncio.create_task(stream(a, (await register(a))["id"], aiter(each), to))
               for each, to in zip(held, ("file", "stage"), strict=True)]
    for each in held:
        await each.came.wait()
    mine, others = (await register(a))["id"], (await register(b))["id"]
    for to in ("file", "stage"):
        refused = await send(a, mine, b"x", to)
        assert refused.status_code == 413 and "2 are the most at once" in refused.text
        assert int(refused.headers["retry-after"]) > 0
    usage = (await a.get("/v2/info/usage")).json()["usage"]
    assert usage["image_count_uploading"] == {"usage": 2, "limit": 2}
    assert (await send(b, others, b"x")).status_code == 204
    held[0].on.set()
    assert (await uploads[0]).status_code == 204
    assert (await send(a, mine, b"x")).status_code == 204
    held[1].on.set()
    assert (await uploads[1]).status_code == 204


@pytest.mark.parametrize("settings", [Settings(max_project_uploads=1)])
async def test_what_is_staged_is_no_upload_until_it_is_imported(a: httpx.AsyncClient, cloud: Cloud) -> None:
    """Nothing ends it by itself: a few of them would keep out every upload of the project."""
    staged, held = [(await register(a))["id"] for _ in range(3)], Slow(b"x")
    assert [(await send(a, each, b"x", "stage")).status_code for each in staged] == [204] * 3
    usage = (await a.get("/v2/info/usage")).json()["usage"]
    assert usage["image_count_uploading"] == {"usage": 0, "limit": 1}
    upload = asyncio.create_task(stream(a, (await register(a))["id"], aiter(held)))
    await held.came.wait()
    order = {"method": {"name": "glance-direct"}}
    refused = await a.post(f"/v2/images/{staged[0]}/import", json=order)
    assert refused.status_code == 413 and int(refused.headers["retry-after"]) > 0
    held.on.set()
    assert (await upload).status_code == 204
    assert (await a.post(f"/v2/images/{staged[0]}/import", json=order)).status_code == 202
    await cloud.uploads.close()
    assert (await a.get(f"/v2/images/{staged[0]}")).json()["status"] == "active"


@pytest.mark.parametrize("settings", [Settings(max_project_uploads=1)])
async def test_an_upload_whose_image_is_deleted_counts_until_its_end(a: httpx.AsyncClient) -> None:
    held, (first, second) = Slow(b"x"), [(await register(a))["id"] for _ in range(2)]
    upload = asyncio.create_task(stream(a, first, aiter(held)))
    await held.came.wait()
    assert (await a.delete(f"/v2/images/{first}")).status_code == 204
    assert (await send(a, second, b"x")).status_code == 413
    held.on.set()
    assert (await upload).status_code == 410
    assert (await send(a, second, b"x")).status_code == 204


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    """Parsers that come to no end with data that begins with an s."""
    code = (f"import time, {inspection.__name__} as i\nclass Lazy(i.Inspector):\n    def finish(self):\n"
            "        self._buffer[:1] == b's' and time.sleep(60)\n        return super().finish()\n"
            "i.Inspector = Lazy\ni.main()\n")
    made = Nursery([sys.executable, "-P", "-c", code])
    monkeypatch.setattr(inspection, "NURSERY", made)
    yield made
    made.close()


async def test_inspections_of_a_project_wait_for_its_own_alone(
        a: httpx.AsyncClient, b: httpx.AsyncClient, lazy: Nursery) -> None:
    mine, other = [(await register(a))["id"] for _ in range(2 * OF_ONE)], (await register(b))["id"]
    assert (await send(b, other, b"x")).status_code == 204
    assert lazy._process is not None
    nursery, uploads = psutil.Process(lazy._process.pid), [
        asyncio.create_task(send(a, each, b"slow")) for each in mine]
    while len(nursery.children()) < OF_ONE:
        await asyncio.sleep(0.01)
    others = [(await register(b))["id"] for _ in range(3)]
    assert [(await send(b, each, b"x")).status_code for each in others] == [204] * 3
    async with asyncio.timeout(30):
        while len(nursery.children()) != OF_ONE:  # once b's have ended
            await asyncio.sleep(0.01)
    while not all(each.done() for each in uploads):
        for each in nursery.children():
            each.kill()
        await asyncio.sleep(0.05)
    assert {each.result().status_code for each in uploads} == {503}


async def test_whose_client_went_away_is_parsed_no_longer(a: httpx.AsyncClient, lazy: Nursery) -> None:
    """Though it was about to parse for a minute."""
    upload = asyncio.create_task(send(a, (await register(a))["id"], b"slow"))
    async with asyncio.timeout(30):
        while lazy._process is None or not psutil.Process(lazy._process.pid).children():
            await asyncio.sleep(0.01)
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
        while psutil.Process(lazy._process.pid).children():
            await asyncio.sleep(0.01)
    assert upload.cancelled() and lazy._process.poll() is None


@pytest.mark.parametrize("settings", [Settings(max_project_bytes=100)])
async def test_what_an_import_copies_counts_once(
        a: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it goes on, and after: it was counted when it was staged."""
    one, two, three, four = [(await register(a))["id"] for _ in range(4)]
    read, copies = cloud.data.read, asyncio.Event()

    async def slow(*args: Any) -> bytes:
        await copies.wait()
        return await read(*args)

    monkeypatch.setattr(cloud.data, "read", slow)
    assert (await send(a, one, b"x" * 40, to="stage")).status_code == 204
    meanwhile, after = Slow(b"x" * 20), Slow(b"x" * 10)
    uploads = [asyncio.create_task(stream(a, two, meanwhile)), asyncio.create_task(stream(a, three, after))]
    await asyncio.gather(meanwhile.came.wait(), after.came.wait())
    order = {"method": {"name": "glance-direct"}}
    assert (await a.post(f"/v2/images/{one}/import", json=order)).status_code == 202
    copies.set()
    await cloud.uploads.close()
    assert (await a.get(f"/v2/images/{one}")).json()["status"] == "active"
    meanwhile.on.set()
    assert (await uploads[0]).status_code == 204
    after.more = b"x" * 25
    after.on.set()
    assert (await uploads[1]).status_code == 204, "95 of the 100 bytes"
    assert (await send(a, four, b"x" * 6)).status_code == 413
    assert (await send(a, four, b"x" * 5)).status_code == 204


@pytest.mark.parametrize("settings", [Settings(max_project_bytes=100)])
async def test_what_is_imported_counts_though_its_image_is_deleted(
        a: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    read, copies = cloud.data.read, asyncio.Event()

    async def slow(*args: Any) -> bytes:
        await copies.wait()
        return await read(*args)

    monkeypatch.setattr(cloud.data, "read", slow)
    one, two = [(await register(a))["id"] for _ in range(2)]
    assert (await send(a, one, b"x" * 70, to="stage")).status_code == 204
    order = {"method": {"name": "glance-direct"}}
    assert (await a.post(f"/v2/images/{one}/import", json=order)).status_code == 202
    assert (await a.delete(f"/v2/images/{one}")).status_code == 204
    assert (await send(a, two, b"x" * 70, to="stage")).status_code == 413
    copies.set()
    await cloud.uploads.close()
    assert (await send(a, two, b"x" * 70, to="stage")).status_code == 204
