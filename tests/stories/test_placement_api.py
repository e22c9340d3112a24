"""Placement's API: what hosts have and servers take, in the words of its clients; read only."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.stories.test_proxies import server
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.compute.api.placement import candidates
from nacre.compute.api.placement.service import NOT_BUILT


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path) as running:
        async with asyncio.timeout(20):
            while not (await ask(running, "GET /resource_providers"))[1]["resource_providers"]:
                await asyncio.sleep(0.02)  # the host's first report is on its way
        yield running


async def ask(cloud: WholeCloud, line: str, version: str = "1.39", *, who: str = "admin") -> tuple[int, Any]:
    method, _, path = line.partition(" ")
    answer = await cloud.ask(who, method, "placement", path, **{"OpenStack-API-Version": f"placement {version}"})
    return answer.status_code, answer.json() if answer.content else None


async def provider(cloud: WholeCloud) -> dict[str, Any]:
    one: dict[str, Any]
    [one] = (await ask(cloud, "GET /resource_providers"))[1]["resource_providers"]
    return one


async def test_it_is_in_the_catalogue_and_says_its_versions(cloud: WholeCloud) -> None:
    login = (await cloud.login("demo")).json()["token"]["catalog"]
    assert {e["url"] for s in login if s["type"] == "placement" for e in s["endpoints"]} == {
        "http://127.0.0.1:8774/placement"}
    root = (await cloud.http.get("/placement/")).json()["versions"][0]  # without a token
    assert (root["id"], root["min_version"], root["max_version"]) == ("v1.0", "1.0", "1.39")


async def test_a_host_is_a_provider(cloud: WholeCloud) -> None:
    one = await provider(cloud)
    host = (await cloud.ask("admin", "GET", "compute", "/os-hypervisors/detail")).json()["hypervisors"][0]
    assert (one["uuid"], one["name"]) == (host["id"], host["hypervisor_hostname"])
    assert one["root_provider_uuid"] == host["id"]
    path = f"/resource_providers/{one['uuid']}"
    assert await ask(cloud, f"GET {path}") == (200, one)
    status, body = await ask(cloud, f"GET {path}/inventories")
    assert status == 200 and {k: v["total"] for k, v in body["inventories"].items()} == {
        "VCPU": 64, "MEMORY_MB": 262144, "DISK_GB": 4096}
    assert body["inventories"]["VCPU"] == {
        "total": 64, "reserved": 0, "min_unit": 1, "max_unit": 64, "step_size": 1, "allocation_ratio": 4.0}
    assert (await ask(cloud, f"GET {path}/inventories/VCPU"))[1]["total"] == 64
    assert (await ask(cloud, f"GET {path}/inventories/x"))[0] == 404
    assert (await ask(cloud, f"GET {path}/usages"))[1]["usages"] == {"VCPU": 0, "MEMORY_MB": 0, "DISK_GB": 0}
    assert "COMPUTE_NODE" in (await ask(cloud, f"GET {path}/traits"))[1]["traits"]
    assert (await ask(cloud, f"GET {path}/aggregates", "1.1"))[1] == {"aggregates": []}
    assert (await ask(cloud, "GET /resource_providers/x"))[0] == 404


async def test_what_a_server_takes_is_the_ledgers(cloud: WholeCloud) -> None:
    ident, one = await server(cloud), await provider(cloud)
    path = f"/resource_providers/{one['uuid']}"
    taken = {"VCPU": 1, "MEMORY_MB": 96, "DISK_GB": 1}
    assert (await ask(cloud, f"GET {path}/usages"))[1]["usages"] == taken
    assert (await ask(cloud, f"GET {path}/allocations", "1.0"))[1]["allocations"] == {ident: {"resources": taken}}
    mine = (await ask(cloud, f"GET /allocations/{ident}"))[1]
    me = (await cloud.login("demo")).json()["token"]
    assert mine["allocations"][one["uuid"]]["resources"] == taken and mine["consumer_type"] == "INSTANCE"
    assert (mine["project_id"], mine["user_id"]) == (me["project"]["id"], me["user"]["id"])
    assert set((await ask(cloud, f"GET /allocations/{ident}", "1.11"))[1]) == {"allocations"}
    assert await ask(cloud, "GET /allocations/00000000-0000-4000-8000-000000000000") == (200, {"allocations": {}})
    project = me["project"]["id"]
    assert await ask(cloud, f"GET /usages?project_id={project}", "1.9") == (200, {"usages": taken})
    assert await ask(cloud, f"GET /usages?project_id={project}", who="demo") == (
        200, {"usages": {"INSTANCE": {**taken, "consumer_count": 1}}})
    assert (await ask(cloud, f"GET /usages?project_id={project}", who="demo-alt"))[0] == 403
    assert (await ask(cloud, "GET /usages"))[0] == 400
    assert (await cloud.ask("demo", "DELETE", "compute", f"/servers/{ident}")).status_code == 204
    async with asyncio.timeout(20):
        while (await ask(cloud, f"GET {path}/usages"))[1]["usages"]["VCPU"]:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("query", "version", "found"), [
    ("", "1.0", 1), ("name=nobody", "1.0", 0), ("uuid=00000000-0000-4000-8000-000000000000", "1.0", 0),
    ("resources=VCPU:64,MEMORY_MB:1", "1.4", 1), ("resources=VCPU:65", "1.4", 0),
    (f"resources=VCPU:{'0' * 5000}1", "1.4", 1),
    ("required=COMPUTE_NODE,!COMPUTE_STATUS_DISABLED", "1.22", 1), ("required=!COMPUTE_NODE", "1.22", 0),
    ("required=in:CUSTOM_X,COMPUTE_NODE", "1.39", 1), ("required=CUSTOM_X", "1.18", 0),
    ("member_of=00000000-0000-4000-8000-000000000000", "1.3", 0),
    ("member_of=!00000000-0000-4000-8000-000000000000", "1.32", 1)])
async def test_lists_of_providers(cloud: WholeCloud, query: str, version: str, found: int) -> None:
    status, body = await ask(cloud, f"GET /resource_providers?{query}", version)
    assert (status, len(body["resource_providers"])) == (200, found)


async def test_candidates_are_the_hosts_that_have_room(cloud: WholeCloud) -> None:
    """By the ledger: what a server takes is another's no more, from the moment that it is placed."""
    one = await provider(cloud)
    query = "GET /allocation_candidates?resources=VCPU:64,MEMORY_MB:512&required=COMPUTE_NODE"
    wanted = {"resources": {"VCPU": 64, "MEMORY_MB": 512}}
    status, body = await ask(cloud, query)
    assert status == 200 and body["allocation_requests"] == [
        {"allocations": {one["uuid"]: wanted}, "mappings": {"": [one["uuid"]]}}]
    assert body["provider_summaries"][one["uuid"]]["resources"]["VCPU"] == {"capacity": 256, "used": 0}
    memory = body["provider_summaries"][one["uuid"]]["resources"]["MEMORY_MB"]["capacity"]
    all_of_it = f"GET /allocation_candidates?resources=MEMORY_MB:{memory}"
    assert (await ask(cloud, all_of_it))[1]["provider_summaries"]
    await server(cloud)
    assert (await ask(cloud, all_of_it))[1] == {"allocation_requests": [], "provider_summaries": {}}
    assert (await ask(cloud, query))[1]["provider_summaries"][one["uuid"]]["resources"]["VCPU"]["used"] == 1
    assert (await ask(cloud, query, who="demo"))[0] == 403 and (await ask(cloud, query, "1.9"))[0] == 404


async def test_questions_for_candidates_hold_up_nobody_else(
        cloud: WholeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords are checked in the loop's own threads, of which there are few."""
    begun, on = threading.Event(), threading.Event()

    def slow(*_: Any) -> dict[str, Any]:
        begun.set()
        assert on.wait(20)
        return {}

    monkeypatch.setattr(candidates, "candidates", slow)
    with ThreadPoolExecutor(1) as few:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(few)
        asked = [asyncio.create_task(ask(cloud, "GET /allocation_candidates?resources=VCPU:1")) for _ in range(3)]
        try:
            while not begun.is_set():
                await asyncio.sleep(0.01)
            async with asyncio.timeout(5):
                await asyncio.to_thread(int)
        finally:
            on.set()
        assert [status for status, _ in await asyncio.gather(*asked)] == [200] * 3
        loop.set_default_executor(ThreadPoolExecutor(4))


@pytest.mark.parametrize(("line", "version", "status"), [
    ("GET /allocation_candidates", "1.10", 400),
    ("GET /allocation_candidates?resources=VCPU:1&required=X", "1.17", 400),
    ("GET /allocation_candidates?resources=VGPU:1", "1.39", 400),
    ("GET /resource_providers?required=!A", "1.21", 400), ("GET /resource_providers?member_of=!x", "1.31", 400),
    ("GET /resource_providers?colour=red", "1.39", 400), ("GET /resource_providers?required=A", "1.17", 400),
    ("GET /resource_providers?resources=VCPU", "1.39", 400),
    (f"GET /resource_providers?resources=VCPU:{'9' * 5000}", "1.39", 400),
    ("GET /resource_providers?uuid=x", "1.39", 400),
    ("GET /resource_classes", "1.1", 404), ("GET /resource_classes/X", "1.2", 404), ("GET /traits", "1.5", 404),
    ("GET /traits?name=x", "1.6", 400), ("GET /traits/X", "1.6", 404), ("GET /nothing", "1.39", 404),
    ("GET /resource_providers", "1.40", 406), ("GET /resource_providers", "x", 400)])
async def test_refusals_are_in_placements_words(cloud: WholeCloud, line: str, version: str, status: int) -> None:
    got, body = await ask(cloud, line, version)
    assert got == status and body["errors"][0]["status"] == status and body["errors"][0]["detail"]
    if status == 406:
        assert body["errors"][0]["max_version"] == "1.39"


async def test_classes_and_traits(cloud: WholeCloud) -> None:
    assert {x["name"] for x in (await ask(cloud, "GET /resource_classes"))[1]["resource_classes"]} == {
        "VCPU", "MEMORY_MB", "DISK_GB"}
    assert (await ask(cloud, "GET /resource_classes/VCPU"))[0] == 200
    assert "COMPUTE_NODE" in (await ask(cloud, "GET /traits"))[1]["traits"]
    assert (await ask(cloud, "GET /traits?name=in:COMPUTE_NODE,X"))[1] == {"traits": ["COMPUTE_NODE"]}
    assert (await ask(cloud, "GET /traits?associated=false"))[1] == {"traits": ["COMPUTE_STATUS_DISABLED"]}
    assert (await ask(cloud, "GET /traits/COMPUTE_NODE")) == (204, None)
    answer = await cloud.ask("admin", "GET", "placement", "/traits", **{"OpenStack-API-Version": "placement 1.15"})
    assert answer.headers["cache-control"] == "no-cache" and answer.headers["last-modified"].endswith("GMT")


async def test_members_read_nothing_and_nobody_writes(cloud: WholeCloud) -> None:
    one = await provider(cloud)
    for path in ("/resource_providers", f"/resource_providers/{one['uuid']}/usages", "/allocations/x", "/traits"):
        assert (await ask(cloud, f"GET {path}", who="demo"))[0] == 403
    for method, path, _, minor in NOT_BUILT:
        line = f"{method} {path.replace('{uuid}', one['uuid']).replace('{name}', 'VCPU')}"
        status, body = await ask(cloud, line, f"1.{minor}", who="service" if path == "/reshaper" else "admin")
        assert status == 501 and "read only" in body["errors"][0]["detail"], line
        assert (await ask(cloud, line, f"1.{minor}", who="demo"))[0] == 403
