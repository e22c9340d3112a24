"""The records of imports, which Glance calls tasks: they go two days after their end, and are bounded."""

import datetime as dt
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from image_cloud import Cloud, register, send

from nacre.base.db.engine import DatabaseUnavailable
from nacre.image.data import tasks
from nacre.image.tables import image_tasks, images

ORDER = {"method": {"name": "glance-direct"}}
HOUR = 3600.0


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


async def test_a_task_whose_end_was_not_written_down_failed(
        a: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database went away just then. Whatever becomes of the image: another import is another task."""
    end = tasks.end

    def away(conn: sa.Connection, now: dt.datetime, message: str, *which: Any) -> None:
        if message.startswith("Image"):
            raise DatabaseUnavailable("it is away")
        end(conn, now, message, *which)

    monkeypatch.setattr(tasks, "end", away)
    image = await imported(a, cloud, b"this is no qcow2", disk_format="qcow2")

    async def told() -> list[tuple[str, bool, bool]]:
        every = (await a.get(f"/v2/images/{image}/tasks")).json()["tasks"]
        return [(task["status"], bool(task["message"]), bool(task["expires_at"])) for task in every]

    failure = "failure", True, True
    assert await told() == [failure]
    await cloud.database.run(lambda conn: conn.execute(sa.update(images).values(disk_format="raw")))
    assert (await send(a, image, b"other", to="stage")).status_code == 204
    assert (await a.post(f"/v2/images/{image}/import", json=ORDER)).status_code == 202
    await cloud.uploads.close()
    assert await told() == [("success", False, True), failure]


async def test_an_import_that_succeeded_is_one_whatever_becomes_of_its_image(
        a: httpx.AsyncClient, admin: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is written with the image's: nothing lies between."""
    def away(*_: Any) -> None:
        raise DatabaseUnavailable("it is away")

    move = cloud.uploads._move

    async def moved(image: Any, *args: Any) -> bool:
        done = await move(image, *args)
        if image.status == "importing":
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
