"""Images when several control processes serve one database: each image everywhere, whoever dies."""

import asyncio
import hashlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from image_cloud import Cloud, Controls, context_of, register, send

from nacre.base.db import Database
from nacre.base.db.engine import DatabaseUnavailable
from nacre.base.errors import Conflict, Gone, NotFound, Unavailable
from nacre.image.contract import MOST, SnapshotOrder
from nacre.image.data import ledger
from nacre.image.data.cleanup import GRACE
from nacre.image.data.files import FileStore, SharedStore
from nacre.image.data.s3 import S3Store
from nacre.image.data.snapshots import Snapshots
from nacre.image.data.store import Store
from nacre.image.tables import image_locations

DATA = bytes(range(256)) * 20_000  # 5 MB: two pieces
MEMBER = context_of("a-member")


@pytest.fixture
def controls(tmp_path: Path, story_db: Database) -> Controls:
    return Controls(tmp_path, story_db)


class Gate:
    """Data of an upload that stops in the middle until it is let on."""

    def __init__(self, data: bytes = DATA):
        self.data, self.half, self.on = data, asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data[:len(self.data) // 2]
        self.half.set()
        await self.on.wait()
        yield self.data[len(self.data) // 2:]


async def half_uploaded(cloud: Cloud, image_id: str) -> tuple[Gate, "asyncio.Task[None]"]:
    """An upload that is under way at this process."""
    gate = Gate()
    task = asyncio.create_task(cloud.uploads.upload(MEMBER, image_id, aiter(gate), None))
    await gate.half.wait()
    while not any(name.endswith(".part") for name in cloud.files()):
        await asyncio.sleep(0.01)
    return gate, task


async def status(cloud: Cloud, image_id: str) -> str:
    return (await cloud.images.show(MEMBER, image_id)).status


async def active(cloud: Cloud, data: bytes = DATA) -> str:
    """The id of an image that was uploaded to this process."""
    async with cloud.client("a-member") as client:
        image = await register(client)
        assert (await send(client, image["id"], data)).status_code == 204
    return str(image["id"])


async def rows(controls: Controls) -> list[Any]:
    return list(await controls.database.read(lambda conn: conn.execute(sa.select(image_locations)).all()))


async def file(cloud: Cloud, image_id: str, **headers: str) -> httpx.Response:
    async with cloud.client("a-member") as client:
        return await client.get(f"/v2/images/{image_id}/file", headers=headers)


async def test_data_at_one_control_is_read_at_every_other(controls: Controls) -> None:
    one, two = controls.add("one"), controls.add("two")
    image = await active(one)
    assert (await file(two, image)).content == (await file(one, image)).content == DATA
    assert (await file(two, image, Range="bytes=4194000-4194999")).content == DATA[4194000:4195000]
    assert two.files() == []
    assert await controls.node("h1", "two").read(image, 100, 50) == DATA[100:150]


async def test_no_more_is_read_at_once_than_a_message_should_hold(controls: Controls) -> None:
    one, two = controls.add("one"), controls.add("two")
    image = await active(one, bytes(MOST + 1000))
    for control in (one, two):
        assert len(await controls.node("h1", control.name).read(image, 0, 1 << 40)) == MOST
    for offset, length in ((-1, 5), (0, -1), (1 << 80, 1)):
        with pytest.raises(Exception, match="nothing at such"):
            await one.images.read(image, offset, length)


async def test_the_message_names_the_control_that_is_needed(controls: Controls) -> None:
    one, two = controls.add("one"), controls.add("two")
    image = await active(one)
    await controls.kill("one")
    reply = await file(two, image)
    assert reply.status_code == 503 and "cannot be reached now" in reply.text and "one.example" not in reply.text
    with pytest.raises(Unavailable, match=r"at control one\.example\.org"):
        await controls.node("h1", "two").read(image, 0, 10)
    await controls.restart("one")
    assert (await file(two, image)).content == DATA


async def test_a_start_leaves_the_uploads_of_living_controls_alone(controls: Controls) -> None:
    """It used to be taken for granted that whatever is half written is this process's own, of before its start."""
    one, two = controls.add("one"), controls.add("two")
    async with one.client("a-member") as client:
        image = (await register(client))["id"]
    gate, task = await half_uploaded(one, image)
    await one.cleanup.round()
    await two.cleanup.start()
    await (await controls.restart("two")).cleanup.round()
    assert await status(two, image) == "saving"
    gate.on.set()
    await task
    assert (await file(two, image)).content == DATA


async def test_a_dead_controls_upload_can_be_tried_again_elsewhere(controls: Controls) -> None:
    one, two = controls.add("one"), controls.add("two")
    async with one.client("a-member") as client:
        image = (await register(client))["id"]
    gate, task = await half_uploaded(one, image)
    await controls.kill("one")
    async with two.client("a-member") as client:
        assert (await send(client, image, b"other")).status_code == 409
        await two.rounds()
        assert await status(two, image) == "queued"
        assert (await send(client, image, b"other")).status_code == 204
    # It was only frozen, and goes on where it was.
    gate.on.set()
    with pytest.raises(Exception, match="could not be found after upload"):
        await task
    assert (await file(two, image)).content == b"other" and one.files() == []
    assert [row.place for row in await rows(controls)] == ["two"]


async def test_an_upload_outlives_an_outage_in_which_its_process_counts_as_dead(controls: Controls) -> None:
    """Until the first heartbeat after it, whoever is asked."""
    one, two = controls.add("one"), controls.add("two")
    async with one.client("a-member") as client:
        image = (await register(client))["id"]
    gate, task = await half_uploaded(one, image)
    for _ in range(2):
        controls.silent.add("one")
        await two.cleanup.round()
        two.clock.seconds += GRACE / 2
        await two.cleanup.round()
        controls.silent.clear()
        await two.cleanup.round()
        two.clock.seconds += GRACE
    assert await status(two, image) == "saving"
    gate.on.set()
    await task
    assert (await file(two, image)).content == DATA


async def test_what_a_killed_control_left_goes_when_it_is_back(controls: Controls) -> None:
    one, two = controls.add("one"), controls.add("two")
    async with one.client("a-member") as client:
        image = (await register(client))["id"]
    _, task = await half_uploaded(one, image)
    await controls.kill("one")
    await two.rounds()
    await two.images.delete(MEMBER, image)
    assert len(one.files()) == 1
    await controls.restart("one")
    assert one.files() == [] and await rows(controls) == []
    task.cancel()


async def test_a_deleted_images_file_goes_when_its_control_is_back(controls: Controls) -> None:
    one, two = controls.add("one"), controls.add("two")
    image = await active(one)
    await controls.kill("one")
    async with two.client("a-member") as client:
        assert (await client.delete(f"/v2/images/{image}")).status_code == 204
        assert (await client.get(f"/v2/images/{image}")).status_code == 404
    await two.cleanup.round()
    assert len(one.files()) == 1
    await controls.restart("one")
    assert one.files() == [] and await rows(controls) == []


async def test_a_data_folder_may_come_back_under_another_id(controls: Controls) -> None:
    """Where a file is, is where it is found: also for the rows of a cloud that had one control process."""
    one, two = controls.add("one"), controls.add("two")
    image = await active(one)
    await controls.kill("one")
    await controls.database.run(lambda conn: conn.execute(sa.update(image_locations).values(place="")))
    with pytest.raises(Unavailable, match="since the upgrade"):
        await two.images.read(image, 0, 1)
    (controls.folder / "one").rename(controls.folder / "three")
    three = controls.add("three")
    await three.cleanup.start()
    assert (await file(two, image)).content == DATA


async def test_what_is_staged_at_one_is_imported_at_another(controls: Controls) -> None:
    one, two = controls.add("one"), controls.add("two")
    async with one.client("a-member") as first, two.client("a-member") as second:
        image = (await register(first))["id"]
        assert (await send(first, image, DATA, to="stage")).status_code == 204
        order = {"method": {"name": "glance-direct"}}
        assert (await second.post(f"/v2/images/{image}/import", json=order)).status_code == 202
        await two.uploads.close()
        assert (await first.get(f"/v2/images/{image}")).json()["status"] == "active"
    assert (await file(one, image)).content == DATA
    assert hashlib.sha512(DATA).hexdigest() == (await one.images.show(MEMBER, image)).row["os_hash_value"]
    await one.cleanup.round()
    assert one.files() == [] and len(two.files()) == 1


@pytest.mark.parametrize("collected", [False, True])
async def test_an_import_that_was_taken_back_has_no_part_in_the_next_one(
        controls: Controls, monkeypatch: pytest.MonkeyPatch, *, collected: bool) -> None:
    """At the same control it looks the same. It used to make the image active by data that was to be deleted, or, when
    that was gone, to take the next one's image from it, and to end its task. collected: the round comes before that."""
    one, two = controls.add("one"), controls.add("two")
    of, gates, waiting = one.images.verdicts.of, [asyncio.Event(), asyncio.Event()], list[asyncio.Event]()

    async def slow(*args: Any) -> Any:
        waiting.append(gate := gates[len(waiting)])
        async with asyncio.timeout(20):
            await gate.wait()
        return await of(*args)

    async def begun(number: int) -> None:
        assert (await client.post(f"/v2/images/{image}/import", json={"method": {"name": "glance-direct"}})
                ).status_code == 202
        async with asyncio.timeout(10):
            while len(waiting) < number:
                await asyncio.sleep(0.01)

    async def ends() -> list[str]:
        return [task["status"] for task in (await client.get(f"/v2/images/{image}/tasks")).json()["tasks"]]

    monkeypatch.setattr(one.images.verdicts, "of", slow)
    async with one.client("a-member") as client:
        image = (await register(client))["id"]
        assert (await send(client, image, DATA, to="stage")).status_code == 204
        await begun(1)
        controls.silent.add("one")
        await two.rounds()
        controls.silent.clear()
        assert await status(one, image) == "uploading" and await ends() == ["failure"]
        (old,) = one.uploads._imports
        await begun(2)
        if collected:
            await one.cleanup.round()
        gates[0].set()
        await old
        assert await status(one, image) == "importing" and await ends() == ["processing", "failure"]
        gates[1].set()
        await one.uploads.close()
        assert await ends() == ["success", "failure"]
    await one.cleanup.round()
    assert (await file(one, image)).content == DATA
    assert [row.data_key for row in await rows(controls)] == one.files()


async def test_half_a_snapshot_at_another_control_is_begun_anew(controls: Controls) -> None:
    one, two = controls.add("one"), controls.add("two")
    first, second = Snapshots(one.images), Snapshots(two.images)
    image = (await first.register(MEMBER, SnapshotOrder(name="s", disk_format="raw"))).id
    await first.write(image, 0, b"half")
    with pytest.raises(Conflict, match="start anew"):
        await second.write(image, 4, b"half")
    await second.write(image, 0, b"whole")
    with pytest.raises(Conflict, match="start anew"):
        await first.finish(image, 4)
    await second.finish(image, 5)
    assert (await file(one, image)).content == b"whole"
    assert one.files() == [] and len(two.files()) == 1


Shared = Callable[[], Store]


@pytest.fixture(params=["shared", pytest.param("s3", marks=pytest.mark.s3)])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Shared:
    """Makes each control's own object of a store that all reach."""
    if request.param == "s3":
        options = request.getfixturevalue("s3_bucket")
        return lambda: S3Store(options)
    (tmp_path / "mount").mkdir()
    return lambda: SharedStore(tmp_path / "mount")


async def test_a_shared_store_needs_nobody(controls: Controls, shared: Shared) -> None:
    one, two = controls.add("one", shared()), controls.add("two", shared())
    image = await active(one)
    await controls.kill("one")
    assert (await file(two, image)).content == DATA
    async with two.client("a-member") as client:
        shown = (await client.get(f"/v2/images/{image}")).json()
        assert shown["stores"] == two.data.default != "file"
        assert (await client.get("/v2/info/stores")).json()["stores"][0]["id"] == two.data.default
        assert (await client.delete(f"/v2/images/{image}")).status_code == 204
    assert await rows(controls) == []
    [location] = [two.data.new()]
    with pytest.raises(NotFound):
        await two.data.read(location, image, 0, 1)


async def test_what_a_dead_control_left_in_a_shared_store_any_other_deletes(controls: Controls, shared: Shared) -> None:
    one, two = controls.add("one", shared()), controls.add("two", shared())
    async with one.client("a-member") as client:
        image = (await register(client))["id"]
    gate = Gate(bytes(20 << 20))
    task = asyncio.create_task(one.uploads.upload(MEMBER, image, aiter(gate), None))
    await gate.half.wait()
    [row] = await rows(controls)
    assert (row.store, row.place, row.writer) == (two.data.default, "", "one")
    await two.cleanup.round()
    assert len(await rows(controls)) == 1
    await controls.kill("one")
    await two.rounds()
    assert await status(two, image) == "queued" and await rows(controls) == []
    gate.on.set()
    with pytest.raises(Exception, match=r"taken back|refuses|could not be found"):
        await task
    assert left(shared()) == 0


async def test_a_delete_elsewhere_during_an_upload_wins(controls: Controls, shared: Shared) -> None:
    """And who writes deletes: under its hands nobody takes the data away."""
    one, two = controls.add("one", shared()), controls.add("two", shared())
    async with one.client("a-member") as client:
        image = (await register(client))["id"]
    gate = Gate()
    task = asyncio.create_task(one.uploads.upload(MEMBER, image, aiter(gate), None))
    await gate.half.wait()
    async with two.client("a-member") as client:
        assert (await client.delete(f"/v2/images/{image}")).status_code == 204
    await two.cleanup.round()
    assert len(await rows(controls)) == 1
    gate.on.set()
    with pytest.raises(Gone):
        await task
    assert await rows(controls) == [] and left(shared()) == 0


def left(store: Store) -> int:
    """How much lies in a store, finished or not."""
    if isinstance(store, S3Store):
        bucket = {"Bucket": store.options.bucket}
        return (store.client.list_objects_v2(**bucket)["KeyCount"]
                + len(store.client.list_multipart_uploads(**bucket).get("Uploads", ())))
    assert isinstance(store, SharedStore)
    return len(store.keys())


async def test_old_images_stay_where_they_are_when_a_store_is_added(controls: Controls, shared: Shared) -> None:
    old = controls.add("one")
    image = await active(old)
    await controls.kill("one")
    one, two = controls.add("one", shared()), controls.add("two", shared())
    new = await active(one)
    assert (await file(two, image)).content == (await file(two, new)).content == DATA
    await controls.kill("two")
    bare = controls.add("two")
    assert (await file(bare, image)).content == DATA
    reply = await file(bare, new)
    assert reply.status_code == 503 and "cannot be reached now" in reply.text


async def test_a_store_that_is_away_when_an_image_is_deleted_is_cleaned_later(controls: Controls) -> None:
    mount = controls.folder / "mount"
    mount.mkdir()
    one = controls.add("one", SharedStore(mount))
    image = await active(one)
    mount.rename(controls.folder / "unmounted")
    mount.mkdir()
    async with one.client("a-member") as client:
        assert (await client.delete(f"/v2/images/{image}")).status_code == 204
    await one.cleanup.round()
    assert len(await rows(controls)) == 1 and list(mount.iterdir()) == []
    mount.rmdir()
    (controls.folder / "unmounted").rename(mount)
    await one.cleanup.round()
    assert await rows(controls) == [] and left(SharedStore(mount)) == 0


async def orphans(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """The keys of data that nobody wants and that is still there, as after a crash, in the order of its deletion."""
    async def later(*_: Any) -> None:
        """Not now."""

    with monkeypatch.context() as patch:
        patch.setattr(cloud.images.ledger, "drop", later)
        for image in [await active(cloud, b"x") for _ in range(number)]:
            await cloud.images.delete(MEMBER, image)
    default, query = cloud.data.default, sa.select(image_locations).order_by(image_locations.c.data_key)
    found = await cloud.database.read(lambda conn: conn.execute(query).all())
    return [row.data_key for row in found if row.image_id is None and row.store == default]


async def test_on_a_full_disk_what_is_deleted_goes_from_every_store(
        controls: Controls, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it is, and though no row can go: which store lies on that disk nobody knows."""
    monkeypatch.setattr(ledger, "PAGE", 2)
    one = controls.add("one")
    await orphans(one, monkeypatch, 5)
    (controls.folder / "mount").mkdir()
    one = controls.add("one", shared := SharedStore(controls.folder / "mount"))
    await orphans(one, monkeypatch, 5)
    assert len(one.files()) == left(shared) == 5

    async def full(*_: Any) -> None:
        raise DatabaseUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(one.images.ledger._db, "run", full)
        with pytest.raises(DatabaseUnavailable):
            await one.images.ledger.collect()
    assert one.files() == [] and left(shared) == 0 and len(await rows(controls)) == 10
    await one.images.ledger.collect()
    assert await rows(controls) == []


async def test_data_that_cannot_be_deleted_keeps_no_other_for_long(
        controls: Controls, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away is not asked for all it has, either: each time may take a minute."""
    monkeypatch.setattr(ledger, "PAGE", 2)
    one = controls.add("one")
    keys, store, asked = await orphans(one, monkeypatch, 8), one.data.stores["file"], list[str]()
    delete, stuck = store.delete, set(keys[1:4])

    def deleting(key: str) -> None:
        asked.append(key)
        if key in stuck:
            raise Unavailable("not this one")
        delete(key)

    monkeypatch.setattr(store, "delete", deleting)
    await one.images.ledger.collect()
    assert asked == keys[:4] and len(await rows(controls)) == 7
    await one.images.ledger.collect()
    assert asked == keys and sorted(row.data_key for row in await rows(controls)) == keys[1:4]
    stuck.clear()
    await one.images.ledger.collect()
    assert asked == keys + keys[1:4] and await rows(controls) == [] and one.files() == []


async def test_a_node_reads_what_it_may(controls: Controls) -> None:
    """Whichever process it asks; what it may not read is not there. It goes on from one process to another."""
    allowed: set[tuple[str, str]] = set()

    async def may_read(host: str, image_id: str) -> bool:
        return (host, image_id) in allowed

    controls.may_read = may_read
    one, _ = controls.add("one"), controls.add("two")
    image, other = await active(one), await active(one)
    allowed.add(("h1", image))
    for control in ("one", "two"):
        assert await controls.node("h1", control).read(image, 0, 10) == DATA[:10]
        for host, wanted in (("h1", other), ("h2", image), ("h2", other)):
            with pytest.raises(NotFound):
                await controls.node(host, control).read(wanted, 0, 10)


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_happens_nothing_is_lost_stuck_or_left(controls: Controls, seed: int) -> None:
    """Uploads, deletes, kills and frozen processes that go on, in any order; one store of each process's own, one of
    all. In the end every active image is whole, none is stuck, and nothing lies anywhere that no image has."""
    dice, names = random.Random(seed), ["one", "two", "three"]
    mount = controls.folder / "mount"
    mount.mkdir()
    for name in names:
        controls.add(name, *([FileStore(controls.folder / name)] if name == "three" else []), SharedStore(mount))
    known: dict[str, bytes] = {}
    tasks: dict[str, list[tuple[Gate, asyncio.Task[None]]]] = defaultdict(list)
    up = set(names)
    for _ in range(60):
        name = dice.choice(names)
        cloud = controls.clouds[name]
        match dice.choice(["new", "new", "again", "on", "on", "delete", "kill", "restart", "round"]):
            case "new" | "again" as what if name in up:
                if what == "new" or not known:
                    image = (await cloud.images.create(MEMBER, {"disk_format": "raw", "container_format": "bare"})).id
                    known[image] = dice.randbytes(3_000_000)
                image = dice.choice(list(known))
                gate = Gate(known[image])
                tasks[name].append((gate, asyncio.create_task(cloud.uploads.upload(MEMBER, image, aiter(gate), None))))
                await asyncio.sleep(0.01)
            case "on" if tasks[name]:  # of a killed one: it was frozen
                gate, task = tasks[name].pop(dice.randrange(len(tasks[name])))
                gate.on.set()
                await asyncio.wait([task], timeout=10)
            case "delete" if name in up and known:
                image = dice.choice(list(known))
                del known[image]
                await cloud.images.delete(MEMBER, image)
            case "kill" if name in up:
                await controls.kill(name)
                up.discard(name)
            case "restart":
                await controls.restart(name)
                up.add(name)
            case "round" if name in up:
                await cloud.rounds()
    late = [each for some in tasks.values() for each in some]
    for gate, _ in late:
        gate.on.set()
    await asyncio.gather(*(task for _, task in late), return_exceptions=True)
    for name in names:
        await controls.restart(name)
    for image, data in known.items():
        if (state := await status(controls.clouds["one"], image)) == "active":
            reply = await file(controls.clouds[dice.choice(names)], image)
            assert reply.status_code == 200 and reply.content == data, reply.text[:300]
        else:
            assert state == "queued"
    present = {name for each in names for name in controls.clouds[each].files()}
    present |= {path.name for path in (mount / "nacre-images").iterdir()}
    assert present == {row.data_key for row in await rows(controls) if row.image_id and row.writer is None}
    assert all(row.image_id and row.writer is None for row in await rows(controls))
