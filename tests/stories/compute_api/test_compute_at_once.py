"""Of what is changed at the same moment nothing is lost: a server's metadata, tags and fields, on each engine."""

import asyncio

import pytest

from nacre.base.db import Database

IMAGE = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
async def db(story_url):
    """One whose units wait for one another, as a cloud's do."""
    made = Database(story_url)
    yield made
    await made.close()


@pytest.fixture
async def path(client):
    status, _ = await client.post("/flavors", {"flavor": {
        "id": "1", "name": "m1.tiny", "ram": 512, "vcpus": 1, "disk": 1}}, who="admin")
    assert status == 200
    status, body = await client.post("/servers", {"server": {
        "name": "s", "imageRef": IMAGE, "flavorRef": "1", "metadata": {"old": "1"}}})
    assert status == 202
    return f"/servers/{body['server']['id']}"


async def test_twelve_keys_of_metadata(client, path):
    answers = await asyncio.gather(*(
        client.put(f"{path}/metadata/k{n}", {"meta": {f"k{n}": str(n)}}) for n in range(12)))
    assert [status for status, _ in answers] == [200] * 12
    wanted = {"old": "1"} | {f"k{n}": str(n) for n in range(12)}
    assert await client.get(path + "/metadata") == (200, {"metadata": wanted})
    answers = await asyncio.gather(
        *(client.delete(f"{path}/metadata/k{n}") for n in range(6)),
        *(client.post(path + "/metadata", {"metadata": {f"m{n}": ""}}) for n in range(6)))
    assert [status for status, _ in answers] == [204] * 6 + [200] * 6
    wanted = {"old": "1"} | {f"k{n}": str(n) for n in range(6, 12)} | {f"m{n}": "" for n in range(6)}
    assert await client.get(path + "/metadata") == (200, {"metadata": wanted})


async def test_metadata_never_passes_its_quota(client, path):
    await client.post(path + "/metadata", {"metadata": {f"k{n}": "" for n in range(121)}})
    answers = await asyncio.gather(*(client.put(f"{path}/metadata/m{n}", {"meta": {f"m{n}": ""}}) for n in range(12)))
    assert sorted(status for status, _ in answers) == [200] * 6 + [403] * 6
    assert len((await client.get(path + "/metadata"))[1]["metadata"]) == 128


async def test_twelve_tags(client, path):
    async def call(method, more="", body=None):
        return await client.call(method, path + "/tags" + more, body, version="2.26")

    answers = await asyncio.gather(*(call("PUT", f"/t{n}") for n in range(12)))
    assert [status for status, _ in answers] == [201] * 12
    assert sorted((await call("GET"))[1]["tags"]) == sorted(f"t{n}" for n in range(12))
    answers = await asyncio.gather(*(call("DELETE", f"/t{n}") for n in range(6)), *(
        call("PUT", f"/u{n}") for n in range(50)))
    assert [status for status, _ in answers[:6]] == [204] * 6
    tags = (await call("GET"))[1]["tags"]
    assert len(tags) == 50 - [status for status, _ in answers].count(400) + 6 <= 50
    assert {f"t{n}" for n in range(6, 12)} < set(tags)
    found = (await client.get("/servers?tags=t7", version="2.26"))[1]["servers"]
    assert [server["id"] for server in found] == [path.rpartition("/")[2]]  # what lists look for follows


async def test_fields_and_metadata(client, path):
    answers = await asyncio.gather(
        client.put(path, {"server": {"name": "other"}}), client.put(path, {"server": {"accessIPv4": "192.0.2.1"}}),
        client.put(path + "/metadata/k", {"meta": {"k": "v"}}), client.put(path, {"server": {"description": "d"}},
                                                                           version="2.90"))
    assert [status for status, _ in answers] == [200] * 4
    server = (await client.get(path, version="2.90"))[1]["server"]
    assert (server["name"], server["accessIPv4"], server["description"], server["metadata"]) == (
        "other", "192.0.2.1", "d", {"old": "1", "k": "v"})
