"""An image from registration to deletion, and the ways that each step may fail."""

import asyncio
import copy
import hashlib
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from image_cloud import A, Cloud, context_of, register, send

from nacre.base.db import DatabaseUnavailable, Unit
from nacre.base.errors import TooMany, Unavailable
from nacre.image.contract import SnapshotOrder
from nacre.image.data import inspection, uploads
from nacre.image.data.locations import Location
from nacre.image.data.snapshots import Snapshots
from nacre.image.service import Settings
from nacre.image.tables import images

V21 = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


async def test_register_upload_download_delete(a: httpx.AsyncClient, cloud: Cloud) -> None:
    image = await register(a, hw_disk_bus="virtio", tags=["x"])
    assert (image["status"], image["owner"], image["visibility"]) == ("queued", A, "shared")
    assert image["hw_disk_bus"] == "virtio"
    empty = await a.get(f"/v2/images/{image['id']}/file")
    assert (empty.status_code, empty.content) == (204, b"")
    data = os.urandom(3 << 20)
    assert (await send(a, image["id"], data)).status_code == 204
    shown = (await a.get(f"/v2/images/{image['id']}")).json()
    assert shown["status"] == "active" and shown["size"] == shown["virtual_size"] == len(data)
    assert shown["checksum"] == hashlib.md5(data).hexdigest()
    assert (shown["os_hash_algo"], shown["os_hash_value"]) == ("sha512", hashlib.sha512(data).hexdigest())
    reply = await a.get(f"/v2/images/{image['id']}/file")
    assert reply.content == data and reply.headers["content-md5"] == shown["checksum"]
    assert reply.headers["content-type"] == "application/octet-stream"
    assert await cloud.images.read(image["id"], 10, 20) == data[10:30]
    again = await send(a, image["id"], b"other")
    assert again.status_code == 409
    assert (await a.delete(f"/v2/images/{image['id']}")).status_code == 204
    assert (await a.get(f"/v2/images/{image['id']}")).status_code == 404
    assert cloud.files() == []


@pytest.mark.parametrize(("asked", "status", "said", "piece"), [
    ("bytes=0-4", 206, "bytes 0-4/10", b"01234"), ("bytes=5-", 206, "bytes 5-9/10", b"56789"),
    ("bytes=-3", 206, "bytes 7-9/10", b"789"), ("bytes=3-99", 206, "bytes 3-9/10", b"3456789"),
    ("bytes=10-", 416, None, None), ("octets=1-2", 416, None, None), ("bytes=-", 416, None, None)])
async def test_ranges(a: httpx.AsyncClient, asked: str, status: int, said: str | None, piece: bytes | None) -> None:
    image = await register(a)
    await send(a, image["id"], b"0123456789")
    reply = await a.get(f"/v2/images/{image['id']}/file", headers={"Range": asked})
    assert reply.status_code == status
    if piece is not None:
        assert reply.content == piece and reply.headers["content-range"] == said


async def test_of_a_download_that_is_not_taken_nothing_is_read_ahead(
        a: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed before its first piece, as for a HEAD."""
    monkeypatch.setattr(uploads, "READ", 4)
    image = await register(a)
    await send(a, image["id"], b"0123456789")
    pieces, made = cloud.uploads.pieces, list[AsyncGenerator[bytes]]()  # kept, or its end as garbage would do

    def keeping(*args: Any) -> AsyncGenerator[bytes]:
        made.append(pieces(*args))
        return made[0]

    monkeypatch.setattr(cloud.uploads, "pieces", keeping)
    before = asyncio.all_tasks()
    assert (await a.head(f"/v2/images/{image['id']}/file")).headers["content-length"] == "10"
    assert len(made) == 1 and asyncio.all_tasks() <= before
    with pytest.raises(StopAsyncIteration):
        await anext(made[0])


async def test_protected_images_stay(a: httpx.AsyncClient) -> None:
    image = await register(a, protected=True)
    assert (await a.delete(f"/v2/images/{image['id']}")).status_code == 403
    change = [{"op": "replace", "path": "/protected", "value": False}]
    assert (await a.patch(f"/v2/images/{image['id']}", json=change, headers=V21)).status_code == 200
    assert (await a.delete(f"/v2/images/{image['id']}")).status_code == 204


async def test_deactivated_data_is_kept_from_users(a: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    image = await register(a)
    path = f"/v2/images/{image['id']}"
    assert (await a.post(f"{path}/actions/deactivate")).status_code == 403
    await send(a, image["id"], b"data")
    assert (await a.post(f"{path}/actions/deactivate")).status_code == 204
    assert (await a.get(path)).json()["status"] == "deactivated"
    assert (await a.get(f"{path}/file")).status_code == 403
    assert (await admin.get(f"{path}/file")).content == b"data"
    assert (await a.post(f"{path}/actions/reactivate")).status_code == 204
    assert (await a.get(f"{path}/file")).content == b"data"


async def test_formats_must_be_known_before_data(a: httpx.AsyncClient, cloud: Cloud) -> None:
    image = (await a.post("/v2/images", json={"name": "bare"})).json()
    assert (await send(a, image["id"], b"data")).status_code == 400
    assert (await a.get(f"/v2/images/{image['id']}")).json()["status"] == "queued"
    wrong = await a.put(f"/v2/images/{image['id']}/file", content=b"x", headers={"Content-Type": "text/plain"})
    assert wrong.status_code == 415 and cloud.files() == []


async def test_stage_and_import(a: httpx.AsyncClient, cloud: Cloud) -> None:
    image = await register(a)
    path = f"/v2/images/{image['id']}"
    order = {"method": {"name": "glance-direct"}}
    assert (await a.post(f"{path}/import", json=order)).status_code == 409
    assert (await send(a, image["id"], b"staged data", to="stage")).status_code == 204
    assert (await a.get(path)).json()["status"] == "uploading"
    reply = await a.post(f"{path}/import", json=order)
    assert reply.status_code == 202
    await cloud.uploads.close()
    shown = (await a.get(path)).json()
    assert shown["status"] == "active" and shown["size"] == 11
    assert (await a.get(f"{path}/file")).content == b"staged data"
    task = (await a.get(f"{path}/tasks")).json()["tasks"][0]
    assert task["status"] == "success" and task["request_id"] == reply.headers["x-openstack-request-id"]
    assert task["input"]["import_req"] == order and len(cloud.files()) == 1


async def test_an_import_of_bad_data_goes_back_to_queued(a: httpx.AsyncClient, cloud: Cloud) -> None:
    image = await register(a, disk_format="qcow2")
    await send(a, image["id"], b"this is no qcow2", to="stage")
    await a.post(f"/v2/images/{image['id']}/import", json={"method": {"name": "glance-direct"}})
    await cloud.uploads.close()
    assert (await a.get(f"/v2/images/{image['id']}")).json()["status"] == "queued"
    task = (await a.get(f"/v2/images/{image['id']}/tasks")).json()["tasks"][0]
    assert task["status"] == "failure" and "qcow2" in task["message"] and cloud.files() == []


@pytest.mark.parametrize("lacks", ["parser", "turn", "store", "inspected store"])
async def test_an_import_that_cannot_be_now_keeps_what_was_staged(
        a: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    """Its task says to try again, and that works."""
    image, order, read = (await register(a))["id"], {"method": {"name": "glance-direct"}}, cloud.data.read
    assert (await send(a, image, b"staged data", to="stage")).status_code == 204
    staged = cloud.files()

    async def away(location: Location, *args: Any) -> bytes:
        if [location.key] == staged and "inspected" in lacks:
            return await read(location, *args)
        raise Unavailable("not now")

    async def busy(*_: Any) -> None:
        raise TooMany("not now")

    if lacks == "parser":
        monkeypatch.setattr(inspection, "NURSERY", inspection.Nursery(["false"]))
    elif lacks == "turn":
        monkeypatch.setattr(cloud.images.verdicts, "of", busy)
    else:
        monkeypatch.setattr(cloud.data, "read", away)
    assert (await a.post(f"/v2/images/{image}/import", json=order)).status_code == 202
    await cloud.uploads.close()
    (task,) = (await a.get(f"/v2/images/{image}/tasks")).json()["tasks"]
    assert task["status"] == "failure" and "now" in task["message"]
    assert (await a.get(f"/v2/images/{image}")).json()["status"] == "uploading"
    assert cloud.files() == staged and not cloud.data.writing
    monkeypatch.undo()
    assert (await a.post(f"/v2/images/{image}/import", json=order)).status_code == 202
    await cloud.uploads.close()
    assert (await a.get(f"/v2/images/{image}/file")).content == b"staged data"
    assert len(cloud.files()) == 1 and cloud.files() != staged


@pytest.mark.parametrize(("body", "status"), [
    ({}, 400), ({"method": 1}, 400), ({"method": {"name": "nonsense"}}, 400),
    ({"method": {"name": "web-download"}}, 501),
    ({"method": {"name": "glance-direct"}, "all_stores": "yes"}, 400)])
async def test_imports_that_are_not_offered(a: httpx.AsyncClient, body: object, status: int) -> None:
    image = await register(a)
    assert (await a.post(f"/v2/images/{image['id']}/import", json=body)).status_code == status


async def test_a_delete_during_the_upload_wins(a: httpx.AsyncClient, cloud: Cloud) -> None:
    image = await register(a)
    seen = asyncio.Event()
    gone = asyncio.Event()

    async def slow():  # type: ignore[no-untyped-def]
        yield b"first"
        seen.set()
        await gone.wait()
        yield b"second"

    upload = asyncio.create_task(a.put(f"/v2/images/{image['id']}/file", content=slow(),
                                       headers={"Content-Type": "application/octet-stream"}))
    gone_soon = asyncio.create_task(a.delete(f"/v2/images/{image['id']}"))
    assert (await gone_soon).status_code in (204, 404)
    gone.set()
    assert (await upload).status_code in (404, 410)
    assert cloud.files() == []


class TestSmall:
    """A site with tight limits."""

    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(max_image_bytes=100, max_properties=2, max_tags=2, max_members=1, max_project_bytes=150)

    async def test_too_large(self, a: httpx.AsyncClient, cloud: Cloud) -> None:
        image = await register(a)
        assert (await send(a, image["id"], b"x" * 101)).status_code == 413
        assert (await a.get(f"/v2/images/{image['id']}")).json()["status"] == "queued" and cloud.files() == []
        assert (await send(a, image["id"], b"x" * 100)).status_code == 204
        other = await register(a)
        assert (await send(a, other["id"], b"x" * 51)).status_code == 413
        assert (await send(a, other["id"], b"x" * 50)).status_code == 204
        third = await register(a)
        assert (await send(a, third["id"], b"x")).status_code == 413

    async def test_too_many(self, a: httpx.AsyncClient) -> None:
        assert (await a.post("/v2/images", json={"a": "1", "b": "2", "c": "3"})).status_code == 413
        image = await register(a, tags=["1", "2"])
        assert (await a.put(f"/v2/images/{image['id']}/tags/3")).status_code == 413
        assert (await a.put(f"/v2/images/{image['id']}/tags/2")).status_code == 204
        assert (await a.post(f"/v2/images/{image['id']}/members", json={"member": "p"})).status_code == 200
        assert (await a.post(f"/v2/images/{image['id']}/members", json={"member": "q"})).status_code == 413


async def test_a_restart_takes_back_what_was_being_written(a: httpx.AsyncClient, cloud: Cloud) -> None:
    kept = await register(a)
    await send(a, kept["id"], b"kept")
    image = await register(a)
    to = (await cloud.uploads._begin(context_of("a-member"), image["id"], "saving")).to
    (cloud.directory / f"{to.key}.part").write_bytes(b"half")
    (cloud.directory / "foreign").write_bytes(b"not ours")
    again = cloud.again()
    await again.cleanup.start()
    assert (await a.get(f"/v2/images/{image['id']}")).json()["status"] == "queued"
    assert len(cloud.files()) == 2 and "foreign" in cloud.files()
    async with again.client("a-member") as client:
        assert (await client.get(f"/v2/images/{kept['id']}/file")).content == b"kept"


async def test_data_that_this_database_does_not_know_is_left_alone(cloud: Cloud) -> None:
    """Another database, an empty one, an older one: what is merely unknown is never destroyed."""
    names = [f"{uuid.uuid4()}{end}" for end in ("", ".part")]
    for name in names:
        (cloud.directory / name).write_bytes(b"of a cloud whose database was moved away")
        os.utime(cloud.directory / name, (0, 0))
    await cloud.again().cleanup.start()
    assert cloud.files() == sorted(names)


async def test_the_id_of_a_deleted_image_is_nobodys_again(
        a: httpx.AsyncClient, b: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    """Else another project could give the same id other bytes, and whoever trusts the id would run them."""
    image = await register(a)
    await send(a, image["id"], b"the owner's bytes")
    assert (await a.delete(f"/v2/images/{image['id']}")).status_code == 204
    for client in (a, b, admin):
        for same in (image["id"], image["id"].upper()):
            reply = await client.post("/v2/images", json={
                "id": same, "name": "evil", "disk_format": "raw", "container_format": "bare"})
            assert reply.status_code == 409, reply.text


async def test_an_answer_of_the_database_that_was_lost_loses_no_data(a: httpx.AsyncClient, cloud: Cloud) -> None:
    """The upload ended in the database, and then the database was away: nobody may delete the data by a guess."""
    image, run, away = await register(a), cloud.database.run, False

    async def losing(unit: Unit[Any]) -> Any:
        nonlocal away
        result = None if away else await run(unit)
        status = await cloud.database.read(lambda conn: conn.execute(sa.select(images.c.status)).scalar())
        if away := away or status == "active":
            raise DatabaseUnavailable("The database went away.")
        return result

    cloud.uploads._db = cloud.images.ledger._db = lost = copy.copy(cloud.database)
    lost.run = losing  # type: ignore[method-assign]
    assert (await send(a, image["id"], b"data")).status_code == 503
    cloud.uploads._db = cloud.images.ledger._db = cloud.database
    await cloud.cleanup.round()
    assert (await a.get(f"/v2/images/{image['id']}")).json()["status"] == "active"
    assert (await a.get(f"/v2/images/{image['id']}/file")).content == b"data"


@pytest.mark.parametrize("step", ["upload", "import"])
async def test_data_whose_last_write_meets_an_outage_is_taken_back(
        a: httpx.AsyncClient, cloud: Cloud, step: str) -> None:
    """The process lives on: its own clean-up finds what nobody writes any more, and it can be tried again."""
    image, order = (await register(a))["id"], {"method": {"name": "glance-direct"}}
    staging = step == "import"
    if staging:
        assert (await send(a, image, b"data", to="stage")).status_code == 204
    cloud.uploads._db = away = copy.copy(cloud.database)

    async def losing(unit: Unit[Any]) -> Any:
        if "_move" in getattr(unit, "__qualname__", ""):
            raise DatabaseUnavailable("The database went away.")
        return await cloud.database.run(unit)

    away.run = losing  # type: ignore[method-assign]
    staged = cloud.files()
    if staging:
        assert (await a.post(f"/v2/images/{image}/import", json=order)).status_code == 202
        await cloud.uploads.close()
    else:
        assert (await send(a, image, b"data")).status_code == 503
    cloud.uploads._db = cloud.database
    assert (await a.get(f"/v2/images/{image}")).json()["status"] == ("importing" if staging else "saving")
    await cloud.cleanup.round()
    assert (await a.get(f"/v2/images/{image}")).json()["status"] == ("uploading" if staging else "queued")
    assert cloud.files() == staged and not cloud.data.writing
    if staging:
        assert (await a.post(f"/v2/images/{image}/import", json=order)).status_code == 202
        await cloud.uploads.close()
    else:
        assert (await send(a, image, b"data")).status_code == 204
    assert (await a.get(f"/v2/images/{image}/file")).content == b"data" and len(cloud.files()) == 1


async def test_a_snapshot_whose_last_write_meets_an_outage_leaves_nothing(cloud: Cloud) -> None:
    snapshots, member = Snapshots(cloud.images), context_of("a-member")
    image = (await snapshots.register(member, SnapshotOrder(name="s", disk_format="raw"))).id
    await snapshots.write(image, 0, b"data")
    snapshots._db = away = copy.copy(cloud.database)

    async def lost(_: Unit[Any]) -> Any:
        raise DatabaseUnavailable("The database went away.")

    away.run = lost  # type: ignore[method-assign]
    with pytest.raises(DatabaseUnavailable):
        await snapshots.finish(image, 4)
    snapshots._db = cloud.database
    await snapshots.write(image, 0, b"again")
    await cloud.cleanup.round()
    assert len(cloud.files()) == 1
    await snapshots.finish(image, 5)
    assert (await cloud.images.show(member, image)).status == "active" and not cloud.data.writing


class TestQuotas:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(max_project_bytes=100, max_project_images=3)

    async def test_records(self, a: httpx.AsyncClient, b: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
        first, *_ = [await register(a) for _ in range(3)]
        refused = await a.post("/v2/images", json={"name": "one more"})
        assert refused.status_code == 413 and "3 are the most" in refused.text
        usage = (await a.get("/v2/info/usage")).json()["usage"]
        assert usage["image_count_total"] == {"usage": 3, "limit": 3}
        assert usage["image_size_total"] == {"usage": 0, "limit": 100}
        assert (await b.post("/v2/images", json={})).status_code == 201
        assert (await a.delete(f"/v2/images/{first['id']}")).status_code == 204
        assert (await a.post("/v2/images", json={})).status_code == 201

    async def test_bytes_are_counted_as_they_come(self, a: httpx.AsyncClient, cloud: Cloud) -> None:
        one, two = [(await register(a))["id"] for _ in range(2)]
        assert (await send(a, one, b"x" * 60)).status_code == 204
        refused = await send(a, two, b"x" * 41)
        assert refused.status_code == 413 and "100 bytes" in refused.text and len(cloud.files()) == 1
        assert (await send(a, two, b"x" * 41, to="stage")).status_code == 413  # what is staged lies there too
        assert (await send(a, two, b"x" * 40)).status_code == 204

    async def test_two_uploads_at_once_do_not_both_take_the_last_room(self, a: httpx.AsyncClient, cloud: Cloud) -> None:
        ids, half = [(await register(a))["id"] for _ in range(2)], asyncio.Barrier(2)

        async def data() -> AsyncIterator[bytes]:
            yield b"x" * 30
            await half.wait()
            yield b"x" * 30

        async def upload(ident: str) -> int:
            return (await a.put(f"/v2/images/{ident}/file", content=data(), headers={
                "Content-Type": "application/octet-stream"})).status_code

        assert sorted(await asyncio.gather(*map(upload, ids))) == [204, 413]
        assert len(cloud.files()) == 1

    async def test_an_import_needs_no_room_twice(self, a: httpx.AsyncClient, cloud: Cloud) -> None:
        ident = (await register(a))["id"]
        assert (await send(a, ident, b"x" * 90, to="stage")).status_code == 204
        assert (await a.post(f"/v2/images/{ident}/import", json={"method": {"name": "glance-direct"}})
                ).status_code == 202
        await cloud.uploads.close()
        assert (await a.get(f"/v2/images/{ident}")).json()["status"] == "active"
