"""The records of imports, which Glance calls tasks: they go two days after their end, and are bounded."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from image_cloud import Cloud, register, send

from nacre.base.db.engine import DatabaseUnavailable
from nacre.base.errors import TooMany
from nacre.image.data import tasks
from nacre.image.tables import image_tasks, images

ORDER = {"method": {"name": "glance-direct"}}
HOUR = 3600.0
REFUSED = "The image data is refused: disk_format qcow2 was declared, but the data is raw."


async def imported(client: httpx.AsyncClient, cloud: Cloud, data: bytes = b"staged", **body: Any) -> str:
    """An image that was staged and imported, or was not as its data is refused."""
    image = (await register(client, **body))["id"]
    assert (await send(client, image, data, to="stage")).status_code == 204
    assert (await client.post(f"/v2/images/{image}/import", json=ORDER)).status_code == 202
    await cloud.uploads.close()
    return str(image)


async def rows(cloud: Cloud) -> list[str]:
    query = sa.select(image_tasks.c.image_id).order_by(image_tasks.c.created_at)
    return await cloud.database.read(lambda conn: list(conn.execute(query).scalars()))


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text.removesuffix("Z"))


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_goes_48_hours_after_its_end(
        a: httpx.AsyncClient, admin: httpx.AsyncClient, cloud: Cloud, *, fails: bool) -> None:
    """And stays until then, when its image is gone too."""
    image = await imported(a, cloud, b"this is no qcow2", disk_format="qcow2") if fails else await imported(a, cloud)
    (task,) = (await a.get(f"/v2/images/{image}/tasks")).json()["tasks"]
    assert task["status"] == ("failure" if fails else "success")
    assert at(task["expires_at"]) - at(task["updated_at"]) == dt.timedelta(hours=48)
    assert (await a.delete(f"/v2/images/{image}")).status_code == 204
    cloud.clock.seconds += 47 * HOUR
    await cloud.cleanup.round()
    assert (await admin.get(f"/v2/tasks/{task['id']}")).json()["expires_at"] == task["expires_at"]
    cloud.clock.seconds += 2 * HOUR
    assert (await admin.get(f"/v2/tasks/{task['id']}")).status_code == 404, "though no round has come by"
    assert (await admin.get("/v2/tasks")).json()["tasks"] == []
    await cloud.cleanup.round()
    assert await rows(cloud) == []


async def test_a_task_whose_import_goes_on_stays(a: httpx.AsyncClient, cloud: Cloud) -> None:
    """However long it takes; one whose import a crash ended, and whose image is gone, does not stay for ever."""
    image = await imported(a, cloud)

    def unit(conn: sa.Connection) -> None:
        conn.execute(sa.update(images).values(status="importing"))
        conn.execute(sa.update(image_tasks).values(status="processing"))

    await cloud.database.run(unit)
    cloud.clock.seconds += 100 * HOUR
    await cloud.cleanup.round()
    (task,) = (await a.get(f"/v2/images/{image}/tasks")).json()["tasks"]
    assert task["status"] == "processing" and task["expires_at"] is None
    assert await rows(cloud) == [image]
    await cloud.database.run(lambda conn: conn.execute(sa.delete(images)))
    await cloud.cleanup.round()
    assert await rows(cloud) == []


async def told(client: httpx.AsyncClient, image: str) -> list[tuple[str, str, bool]]:
    """Its tasks: how they are, why they failed, whether they expire."""
    every = (await client.get(f"/v2/images/{image}/tasks")).json()["tasks"]
    return [(task["status"], task["message"], bool(task["expires_at"])) for task in every]


async def state(client: httpx.AsyncClient, image: str) -> str:
    return str((await client.get(f"/v2/images/{image}")).json()["status"])


async def test_a_task_whose_end_was_not_written_down_ends_with_its_import(
        a: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database went away with the verdict: until it is clear that nothing goes on, image and task both do."""
    end, raised = tasks.end, list[str]()

    def away(conn: sa.Connection, now: dt.datetime, message: str, which: Any) -> None:
        if message == REFUSED:
            raised.append(message)
            raise DatabaseUnavailable("it is away")
        end(conn, now, message, which)

    with monkeypatch.context() as patch:
        patch.setattr(tasks, "end", away)
        image = await imported(a, cloud, b"this is no qcow2", disk_format="qcow2")
    assert raised == [REFUSED]
    assert await state(a, image) == "importing" and await told(a, image) == [("processing", "", False)]
    await cloud.cleanup.round()
    interrupted = "failure", "The service was interrupted during the import. Ask for it again.", True
    assert await state(a, image) == "uploading" and await told(a, image) == [interrupted]
    assert (await a.post(f"/v2/images/{image}/import", json=ORDER)).status_code == 202
    await cloud.uploads.close()
    assert await told(a, image) == [("failure", REFUSED, True), interrupted]


async def test_a_task_that_nothing_ended_failed(a: httpx.AsyncClient, cloud: Cloud) -> None:
    """Its image was deleted, or an earlier release left it so. Another import is another task."""
    image = await imported(a, cloud, b"this is no qcow2", disk_format="qcow2")
    await cloud.database.run(lambda conn: conn.execute(sa.update(image_tasks).values(status="processing", message="")))
    lost = "failure", tasks.LOST, True
    assert await told(a, image) == [lost]
    await cloud.database.run(lambda conn: conn.execute(sa.update(images).values(disk_format="raw")))
    assert (await send(a, image, b"other", to="stage")).status_code == 204
    assert (await a.post(f"/v2/images/{image}/import", json=ORDER)).status_code == 202
    await cloud.uploads.close()
    assert await told(a, image) == [("success", "", True), lost]


@pytest.mark.parametrize("refused", [True, False])
async def test_why_an_import_failed_is_written_with_what_becomes_of_its_image(
        a: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, *, refused: bool) -> None:
    """However long a store takes to delete what came, and though the import is asked for again meanwhile."""
    drop, deleting, on = cloud.images.ledger.drop, asyncio.Event(), asyncio.Event()

    async def slow(*where: Any) -> None:
        deleting.set()
        async with asyncio.timeout(20):
            await on.wait()
        await drop(*where)

    async def busy(*_: Any) -> Any:
        raise TooMany("others first")

    monkeypatch.setattr(cloud.images.ledger, "drop", slow)
    image = (await register(a, disk_format="qcow2"))["id"]
    assert (await send(a, image, b"this is no qcow2", to="stage")).status_code == 204
    with monkeypatch.context() as patch:
        if not refused:
            patch.setattr(cloud.images.verdicts, "of", busy)
        assert (await a.post(f"/v2/images/{image}/import", json=ORDER)).status_code == 202
        await deleting.wait()
    why = "failure", REFUSED if refused else "others first", True
    assert await state(a, image) == ("queued" if refused else "uploading") and await told(a, image) == [why]
    await cloud.database.run(lambda conn: conn.execute(sa.update(images).values(disk_format="raw")))
    if refused:
        assert (await send(a, image, b"other", to="stage")).status_code == 204
    assert (await a.post(f"/v2/images/{image}/import", json=ORDER)).status_code == 202
    on.set()
    await cloud.uploads.close()
    assert await state(a, image) == "active" and await told(a, image) == [("success", "", True), why]


async def test_an_import_whose_image_was_deleted_says_so(
        a: httpx.AsyncClient, admin: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    of = cloud.images.verdicts.of

    async def deleted(row: Any, *args: Any) -> Any:
        assert (await a.delete(f"/v2/images/{row['id']}")).status_code == 204
        return await of(row, *args)

    monkeypatch.setattr(cloud.images.verdicts, "of", deleted)
    await imported(a, cloud)
    (task,) = (await admin.get("/v2/tasks")).json()["tasks"]
    task = (await admin.get(f"/v2/tasks/{task['id']}")).json()
    assert task["status"] == "failure" and "may have been deleted" in task["message"]
    assert cloud.files() == []


async def test_an_import_that_succeeded_is_one_whatever_becomes_of_its_image(
        a: httpx.AsyncClient, admin: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is written with the image's: nothing lies between."""
    def away(*_: Any) -> None:
        raise DatabaseUnavailable("it is away")

    move = cloud.uploads._move

    async def moved(new: Any, *args: Any) -> bool:
        done = await move(new, *args)
        if new.task:
            monkeypatch.setattr(tasks, "end", away)
        return done

    monkeypatch.setattr(cloud.uploads, "_move", moved)
    image = await imported(a, cloud)
    assert (await admin.post(f"/v2/images/{image}/actions/deactivate")).status_code == 204
    (task,) = (await a.get(f"/v2/images/{image}/tasks")).json()["tasks"]
    assert task["status"] == "success"


async def test_what_is_deleted_goes_though_nothing_can_be_written_of_tasks(
        a: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full, and that makes room."""
    def full(*_: Any) -> None:
        raise DatabaseUnavailable("the disk is full")

    collected = []
    await imported(a, cloud)
    cloud.clock.seconds += 49 * HOUR
    monkeypatch.setattr(tasks, "forget", full)
    collect = cloud.cleanup._service.ledger.collect
    monkeypatch.setattr(cloud.cleanup._service.ledger, "collect", lambda: collected.append(1) or collect())
    with pytest.raises(DatabaseUnavailable):
        await cloud.cleanup.round()
    await cloud.cleanup.start()
    assert collected == [1, 1] * 2, "before and after what writers left is taken back"


async def test_what_is_deleted_goes_though_nothing_can_be_written(
        a: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what writers left is taken back, nor is it written that data has gone."""
    ledger = cloud.cleanup._service.ledger

    async def full(*_: Any) -> None:
        raise DatabaseUnavailable("the disk is full")

    async def later(*_: Any) -> bool:
        return False

    def stored() -> list[Path]:
        return [path for path in cloud.directory.rglob("*") if path.is_file()]

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "drop", later)
        for image in [await imported(a, cloud) for _ in range(3)]:
            await a.delete(f"/v2/images/{image}")
    assert len(stored()) > 2
    with monkeypatch.context() as patch:
        patch.setattr(cloud.cleanup, "_release", full)
        patch.setattr(ledger._db, "run", full)
        with pytest.raises(DatabaseUnavailable):
            await cloud.cleanup.round()
    assert not stored()
    await cloud.cleanup.round()


async def test_of_a_project_so_many_tasks_are_remembered(
        a: httpx.AsyncClient, b: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest give way; another project's stay."""
    monkeypatch.setattr(tasks, "MOST", 3)
    theirs = await imported(b, cloud)
    mine = [await imported(a, cloud) for _ in range(5)]
    assert await rows(cloud) == [theirs, *mine[2:]]


async def test_a_task_keeps_of_its_order_what_was_asked(a: httpx.AsyncClient, cloud: Cloud) -> None:
    """And nothing that is only long."""
    image = (await register(a))["id"]
    assert (await send(a, image, b"x", to="stage")).status_code == 204
    more = {"all_stores": True, "junk": "x" * 100_000, "method": {"name": "glance-direct", "junk": "x" * 100_000}}
    assert (await a.post(f"/v2/images/{image}/import", json=more)).status_code == 202
    await cloud.uploads.close()
    (task,) = (await a.get(f"/v2/images/{image}/tasks")).json()["tasks"]
    assert task["input"]["import_req"] == {**ORDER, "all_stores": True}
