"""A host fills an image: in order, with repeats and gaps, and with data that must not be taken."""

import asyncio
import os
import threading

import httpx
import pytest
from image_cloud import Cloud, context_of, register

from nacre.base.errors import Conflict, NotFound, Unavailable, UnsupportedMedia
from nacre.image.contract import SnapshotOrder
from nacre.image.data import inspection
from nacre.image.data.snapshots import Snapshots

ORDER = SnapshotOrder(name="snap", disk_format="raw", properties={"image_type": "snapshot"})


async def test_a_snapshot(a: httpx.AsyncClient, cloud: Cloud) -> None:
    snapshots = Snapshots(cloud.images)
    facts = await snapshots.register(context_of("a-member"), ORDER)
    shown = (await a.get(f"/v2/images/{facts.id}")).json()
    assert (shown["status"], shown["image_type"], shown["visibility"]) == ("saving", "snapshot", "private")
    data = os.urandom(100_000)
    for offset in (0, 0, 50_000, 50_000):
        await snapshots.write(facts.id, offset, data[offset:offset + 50_000])
    with pytest.raises(Conflict, match="start anew"):
        await snapshots.write(facts.id, 200_000, b"gap")
    with pytest.raises(Conflict):
        await snapshots.finish(facts.id, 99)
    for _ in range(2):
        await snapshots.finish(facts.id, len(data))
    await snapshots.abandon(facts.id)
    assert (await a.get(f"/v2/images/{facts.id}/file")).content == data
    assert (await a.get(f"/v2/images/{facts.id}")).json()["status"] == "active"


@pytest.mark.parametrize("part", [0, 10])
async def test_a_piece_that_failed_is_not_taken_for_one_that_arrived(
        a: httpx.AsyncClient, cloud: Cloud, part: int) -> None:
    """Whoever asks again, as a 503 says, would get an image with a hole, or with a part of the piece twice."""
    snapshots = Snapshots(cloud.images)
    facts = await snapshots.register(context_of("a-member"), ORDER)
    data = os.urandom(90_000)
    await snapshots.write(facts.id, 0, data[:30_000])
    sink = snapshots._open[facts.id][1]._sink
    assert sink is not None
    write = sink.write

    def away(piece: bytes) -> None:
        write(piece[:part])
        raise Unavailable("away")

    sink.write = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await snapshots.write(facts.id, 30_000, data[30_000:60_000])
    assert cloud.files() == [] and not cloud.data.writing
    for refused in (snapshots.write(facts.id, 30_000, data[30_000:60_000]), snapshots.finish(facts.id, 60_000)):
        with pytest.raises(Conflict, match="start anew"):
            await refused
    for offset in range(0, 90_000, 30_000):
        await snapshots.write(facts.id, offset, data[offset:offset + 30_000])
    await snapshots.finish(facts.id, len(data))
    assert (await a.get(f"/v2/images/{facts.id}/file")).content == data and len(cloud.files()) == 1


async def test_a_piece_whose_caller_left_is_not_taken_for_one_that_arrived(
        a: httpx.AsyncClient, cloud: Cloud) -> None:
    snapshots = Snapshots(cloud.images)
    facts = await snapshots.register(context_of("a-member"), ORDER)
    await snapshots.write(facts.id, 0, b"begin")
    sink = snapshots._open[facts.id][1]._sink
    assert sink is not None
    at_work, go = threading.Event(), threading.Event()

    def slow(piece: bytes) -> None:
        at_work.set()
        go.wait(30)
        raise Unavailable("away")

    sink.write = slow  # type: ignore[method-assign]
    call = asyncio.create_task(snapshots.write(facts.id, 5, b"middle"))
    await asyncio.to_thread(at_work.wait, 30)
    call.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(Conflict, match="start anew"):
        await snapshots.write(facts.id, 5, b"middle")
    await snapshots.abandon(facts.id)
    assert cloud.files() == []


async def test_a_host_writes_nothing_else(a: httpx.AsyncClient, cloud: Cloud) -> None:
    snapshots = Snapshots(cloud.images)
    image = await register(a)
    with pytest.raises(Conflict):
        await snapshots.write(image["id"], 0, b"x")
    await snapshots.abandon(image["id"])
    assert (await a.get(f"/v2/images/{image['id']}")).json()["status"] == "queued"
    with pytest.raises(NotFound):
        await snapshots.write("nothing", 0, b"x")


async def test_a_snapshot_that_is_not_what_it_says(a: httpx.AsyncClient, cloud: Cloud) -> None:
    snapshots = Snapshots(cloud.images)
    facts = await snapshots.register(context_of("a-member"), ORDER)
    await snapshots.write(facts.id, 0, b"QFI\xfb" + b"\0" * 1000)
    with pytest.raises(UnsupportedMedia):
        await snapshots.finish(facts.id, 1004)
    await snapshots.abandon(facts.id)
    await snapshots.abandon(facts.id)
    assert (await a.get(f"/v2/images/{facts.id}")).status_code == 404 and cloud.files() == []


async def test_a_snapshot_that_cannot_be_inspected_now_need_not_be_sent_again(
        a: httpx.AsyncClient, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = Snapshots(cloud.images)
    facts = await snapshots.register(context_of("a-member"), ORDER)
    await snapshots.write(facts.id, 0, b"data")
    monkeypatch.setattr(inspection, "NURSERY", inspection.Nursery(["false"]))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await snapshots.finish(facts.id, 4)
    await cloud.cleanup.round()
    monkeypatch.undo()
    await snapshots.finish(facts.id, 4)
    assert (await a.get(f"/v2/images/{facts.id}/file")).content == b"data"
    assert len(cloud.files()) == 1 and not cloud.data.writing


async def test_a_restart_in_the_middle(a: httpx.AsyncClient, cloud: Cloud) -> None:
    facts = await Snapshots(cloud.images).register(context_of("a-member"), ORDER)
    first = Snapshots(cloud.images)
    await first.write(facts.id, 0, b"half")
    again = cloud.again()
    await again.cleanup.start()
    second = Snapshots(again.images)
    with pytest.raises(Conflict, match="start anew"):
        await second.write(facts.id, 4, b"half")
    await second.write(facts.id, 0, b"whole")
    await second.finish(facts.id, 5)
    assert (await a.get(f"/v2/images/{facts.id}/file")).content == b"whole"
    await again.cleanup.round()
    assert len(cloud.files()) == 1


async def test_a_snapshot_that_failed_leaves_its_id_to_nobody(b: httpx.AsyncClient, cloud: Cloud) -> None:
    snapshots = Snapshots(cloud.images)
    facts = await snapshots.register(context_of("a-member"), ORDER)
    await snapshots.abandon(facts.id)
    assert (await b.post("/v2/images", json={"id": facts.id, "name": "evil"})).status_code == 409
