"""What one request may ask for: more is refused before anything is made of it, and the refusal names the limit."""

import time

import pytest

from nacre.base.web import NESTING

IMAGE = "11111111-2222-4333-8444-555555555555"
BASE = {"name": "s", "imageRef": IMAGE, "flavorRef": "1"}


@pytest.fixture(autouse=True)
async def flavor(client):
    status, _ = await client.post("/flavors", {"flavor": {
        "id": "1", "name": "m1.tiny", "ram": 512, "vcpus": 1, "disk": 1}}, who="admin")
    assert status == 200


async def create(client, hints=None, **fields):
    began = time.monotonic()
    answer = await client.post("/servers", {"server": {**BASE, **fields}, "os:scheduler_hints": hints or {}})
    return *answer, time.monotonic() - began


async def test_two_million_servers_are_refused_at_once(client):
    status, body, took = await create(client, min_count=2_000_000, max_count=2_000_000)
    assert status == 403 and took < 1, (body, took)
    assert body["forbidden"]["message"].startswith("Quota exceeded for instances, cores, ram: Requested 2000000, ")


@pytest.mark.parametrize(("quota", "counts", "made"), [
    ({"instances": 4}, (2, 9), 4), ({"instances": 4}, (1, 2_000_000), 4), ({"cores": 3}, (3, 9), 3),
    ({"ram": 1600}, (1, 9), 3), ({"instances": 4}, (5, 9), None), ({"instances": 0}, (1, 2), None),
    ({"instances": 9, "cores": 1}, (2, 9), None)])
async def test_as_many_are_made_as_the_quota_has_room_for(client, quota, counts, made):
    """Between min_count and max_count, as Nova does; the numbers of the names tell how many there are."""
    await client.put("/os-quota-sets/red", {"quota_set": quota | {"force": True}}, who="admin")
    status, body, took = await create(client, min_count=counts[0], max_count=counts[1])
    names = sorted(s["name"] for s in (await client.get("/servers"))[1]["servers"])
    assert took < 5 and (status, names) == ((202, [f"s-{n + 1}" for n in range(made)]) if made else (403, [])), body


async def test_without_a_quota_too(client):
    answer = await client.put("/os-quota-sets/red", {"quota_set": {"instances": -1, "cores": -1, "ram": -1}},
                              who="admin")
    assert answer[0] == 200
    status, body, took = await create(client, min_count=2_000_000, max_count=2_000_000)
    assert status == 400 and took < 1, (body, took)
    assert body["badRequest"]["message"] == (
        "max_count: 2000000 servers were asked for, but one request makes 1000 at most.")


async def test_over_quota_nothing_else_is_looked_up(client):
    client.network.refuses = AssertionError("the network was asked")
    assert (await create(client, min_count=11))[0] == 403
    assert (await create(client, min_count=11, imageRef="99999999-2222-4333-8444-555555555555"))[0] == 403


@pytest.mark.parametrize(("hints", "words"), [
    ({"different_host": [f"00000000-0000-4000-8000-{n:012d}" for n in range(2_500)]},
     ["different_host", "2500", "100 are the most"]),
    ({f"{'x' * 200}{n}": "y" for n in range(400)}, ["os:scheduler_hints", "400", "100 are the most"]),
    ({"mine": "x" * 20_000}, ["os:scheduler_hints", "bytes", "16384"]),
    ({"mine": 10 ** 30}, ["os:scheduler_hints", "64 bits"]),
])
async def test_hints_are_few_and_short(client, hints, words):
    status, body, _ = await create(client, hints)
    assert status == 400 and all(word in body["badRequest"]["message"] for word in words), body
    plan = {"plan": {"flavorRef": "1", "imageRef": IMAGE}, "os:scheduler_hints": hints}
    assert (await client.post("/os-nacre-plans", plan, who="admin"))[0] == 400
    assert (await create(client, {"different_host": hints.get("different_host", ())[:100] or "true"}))[0] == 202


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("levels", [NESTING + 1, 333, 15_000])
async def test_bodies_are_not_nested_without_end(client, opening, closing, levels):
    for path, token in (("servers", "alice"), ("flavors", "admin"), ("servers/x/action", "alice")):
        value = opening * levels + "1" + closing * levels
        answer = await client.http.post(f"/compute/v2.1/{path}", content=f'{{"server": {value}}}',
                                        headers={"x-auth-token": token})
        assert answer.status_code == 400 and f"than {NESTING} levels" in answer.text, answer.text[:300]


async def test_a_body_is_as_long_as_novas_at_most(client):
    """413 before it is read, and before the project's turn: no more of it is kept."""
    status, body, took = await create(client, hints={"x": "y" * 120_000})
    assert status == 413 and "larger than 114688 bytes" in str(body) and took < 1


async def test_brackets_in_texts_are_no_nesting(client):
    assert (await create(client, metadata={"a": "[" * 200, "b": '\\"' + "{" * 200}))[0] == 202


async def test_lists_without_end_are_refused_before_a_schema_looks_at_them(client):
    status, body = await client.put("/servers/11111111-2222-4333-8444-555555555555/tags", {"tags": [1] * 30_000},
                                    version="2.96")
    assert status == 400 and "30000 parts, and 1000 are allowed" in body["badRequest"]["message"], body
    status, body = await client.post("/servers", {"servers": [1] * 30_000})
    assert status == 400 and "30000 parts, and 1000 are allowed" in body["badRequest"]["message"], body


async def test_networks_of_a_server_are_few(client):
    client.network.refuses = AssertionError("the network was asked")
    status, body, _ = await create(client, networks=[{"uuid": IMAGE}] * 101)
    assert status == 400 and "101 were given, but 100 are the most" in body["badRequest"]["message"], body
