"""Guests that a host has and the database does not know: listed, adopted as they run, ended by an operator's word."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.compute import quota_usage
from nacre.compute.ledger_admin import LedgerAdmin
from nacre.compute.tables import actions, allocations, servers, usage
from nacre.network import tables as t
from nacre.node.contract import Orphan
from nacre.scheduler.contract import Amounts

ADOPT, FORGET = {"adopt": None}, {"forget": None}


@pytest.fixture
async def cloud(tmp_path: Path, story_url: str) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path, story_url) as made:
        yield made


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + 30
    while not await check():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.05)


async def made(cloud: WholeCloud) -> dict[str, Any]:
    """A server that runs, as its project sees it."""
    async def post(service: str, path: str, body: Any) -> Any:
        answer = await cloud.ask("demo", "POST", service, path, body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    net = (await post("network", "/networks", {"network": {"name": "n"}}))["network"]["id"]
    await post("network", "/subnets", {"subnet": {"network_id": net, "ip_version": 4, "cidr": "10.9.0.0/24"}})
    image = (await post("image", "/images", {"name": "i", "disk_format": "raw", "container_format": "bare"}))["id"]
    data = await cloud.http.put(f"/image/v2/images/{image}/file", content=b"x", headers={
        "X-Auth-Token": await cloud.token("demo"), "Content-Type": "application/octet-stream"})
    assert data.status_code == 204
    body = {"name": "one", "imageRef": image, "flavorRef": "42", "networks": [{"uuid": net}]}
    server = (await post("compute", "/servers", {"server": body}))["server"]["id"]
    found: dict[str, Any] = {}

    async def active() -> bool:
        found.update((await cloud.ask("demo", "GET", "compute", f"/servers/{server}")).json()["server"])
        return found["status"] == "ACTIVE"

    async def said() -> bool:
        [host] = (await cloud.ask("admin", "GET", "compute", "/os-nacre-hosts")).json()["hosts"]
        return bool(host["guests"])

    await until(active)
    await until(said)  # its host has reported it
    return found


async def lose(cloud: WholeCloud, server: str, *, networks: bool = False) -> None:
    """As in a backup of before: nothing is known of the server. networks: nor of any network of projects."""
    def unit(connection: sa.Connection) -> None:
        row = connection.execute(sa.select(servers).where(servers.c.id == server)).mappings().one()
        quota_usage.add(connection, dict(row), -1)
        connection.execute(sa.delete(allocations).where(allocations.c.server_id == server))
        connection.execute(sa.delete(servers).where(servers.c.id == server))
        mine = sa.select(t.networks.c.id).where(t.networks.c.external.is_(False))
        port = t.ports.c.network_id.in_(mine) if networks else t.ports.c.device_id == server
        ports = sa.select(t.ports.c.id).where(port)
        for table in (t.addresses, t.port_groups, t.levels, t.bindings):
            connection.execute(sa.delete(table).where(table.c.port_id.in_(ports)))
        gone = connection.execute(sa.select(t.ports.c.project_id).where(port)).scalars().all()
        connection.execute(sa.delete(t.ports).where(port))
        for project in gone:
            connection.execute(sa.update(t.usage).where(
                t.usage.c.project_id == project, t.usage.c.resource == "port").values(used=t.usage.c.used - 1))
        if networks:
            for table in (t.subnets, t.segments):
                connection.execute(sa.delete(table).where(table.c.network_id.in_(mine)))
            connection.execute(sa.delete(t.networks).where(t.networks.c.external.is_(False)))

    await cloud.control.db.run(unit)


async def act(cloud: WholeCloud, guest: str, body: Any, who: str = "admin") -> tuple[int, Any]:
    answer = await cloud.ask(who, "POST", "compute", f"/os-nacre-orphans/{guest}/action", body)
    return answer.status_code, answer.json()


async def orphans(cloud: WholeCloud) -> list[dict[str, Any]]:
    return list((await cloud.ask("admin", "GET", "compute", "/os-nacre-orphans")).json()["orphans"])


async def show(cloud: WholeCloud, server: str) -> dict[str, Any]:
    return dict((await cloud.ask("demo", "GET", "compute", f"/servers/{server}")).json()["server"])


@pytest.mark.parametrize("networks", [False, True], ids=["its server lost", "its networks lost, too"])
async def test_a_guest_is_a_server_again(cloud: WholeCloud, networks: bool) -> None:
    before = await made(cloud)
    id = before["id"]
    ports = (await cloud.ask("demo", "GET", "network", f"/ports?device_id={id}")).json()["ports"]
    await lose(cloud, id, networks=networks)
    [orphan] = await orphans(cloud)
    assert (orphan["id"], orphan["name"], orphan["power"], orphan["flavor"]) == (id, "one", "running", "m1.nano")
    assert orphan["adoptable"] and orphan["ports"][0]["mac_address"] == ports[0]["mac_address"]
    [host] = (await cloud.ask("admin", "GET", "compute", "/os-nacre-hosts")).json()["hosts"]
    assert (host["orphans"], host["servers"], host["guests"], host["version"] != "") == (1, 0, 1, True)

    first, second = await asyncio.gather(act(cloud, id, ADOPT), act(cloud, orphan["allocation"], ADOPT))
    assert sorted([first[0], second[0]]) in ([200, 404], [200, 409]), (first, second)
    after = await show(cloud, id)
    same = ("id", "name", "status", "tenant_id", "user_id", "addresses", "flavor", "created", "hostId", "image")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    now = (await cloud.ask("demo", "GET", "network", f"/ports?device_id={id}")).json()["ports"]
    kept = ("id", "mac_address", "fixed_ips", "network_id", "security_groups", "binding:vnic_type", "device_owner")
    assert [{n: p[n] for n in kept} for p in now] == [{n: p[n] for n in kept} for p in ports]
    assert await orphans(cloud) == [] and (await act(cloud, id, ADOPT))[0] == 404
    used = await cloud.control.db.read(lambda c: c.execute(sa.select(usage.c.instances, usage.c.cores)).all())
    assert [tuple(row) for row in used] == [(1, 1)]
    done = await cloud.control.db.read(lambda c: c.execute(sa.select(actions.c.action).where(
        actions.c.server_id == id)).scalars().all())
    assert done[-1] == "adopt"

    stop = await cloud.ask("demo", "POST", "compute", f"/servers/{id}/action", {"os-stop": None})
    assert stop.status_code == 202

    async def is_off() -> bool:
        return bool((await show(cloud, id))["status"] == "SHUTOFF")

    await until(is_off)
    assert (await cloud.ask("demo", "DELETE", "compute", f"/servers/{id}")).status_code == 204
    await until(lambda: nothing(cloud))


async def nothing(cloud: WholeCloud) -> bool:
    """No guest, no allocation, no server's port."""
    [host] = (await cloud.ask("admin", "GET", "compute", "/os-nacre-hosts")).json()["hosts"]
    left = await cloud.control.db.read(lambda c: [
        *c.execute(sa.select(allocations.c.id)), *c.execute(sa.select(t.ports.c.id).where(
            t.ports.c.device_owner.like("compute:%")))])
    return host["guests"] == 0 and host["used"]["memory_mb"] == 0 and not left


async def test_a_guest_whose_address_is_anothers_now_is_refused_and_nothing_is_made(cloud: WholeCloud) -> None:
    before = await made(cloud)
    [[address]] = before["addresses"].values()
    port = (await cloud.ask("demo", "GET", "network", f"/ports?device_id={before['id']}")).json()["ports"][0]
    await lose(cloud, before["id"])
    taken = await cloud.ask("demo", "POST", "network", "/ports", {"port": {
        "network_id": port["network_id"], "fixed_ips": [{"ip_address": address["addr"]}]}})
    assert taken.status_code == 201
    status, said = await act(cloud, before["id"], ADOPT)
    assert status == 409 and address["addr"] in said["conflictingRequest"]["message"]
    assert (await cloud.ask("demo", "GET", "compute", f"/servers/{before['id']}")).status_code == 404
    assert (await cloud.ask("admin", "GET", "network", f"/ports?device_id={before['id']}")).json() == {"ports": []}
    assert len(await orphans(cloud)) == 1


async def test_a_guest_that_nobody_wants_is_ended(cloud: WholeCloud) -> None:
    before = await made(cloud)
    await lose(cloud, before["id"])
    status, said = await act(cloud, before["id"], FORGET)
    assert status == 202 and said["forgotten"]["id"] == before["id"]
    await until(lambda: nothing(cloud))
    assert await orphans(cloud) == [] and (await act(cloud, before["id"], FORGET))[0] == 404


async def test_a_build_that_ended_here_without_its_guest_takes_it_back(cloud: WholeCloud) -> None:
    before = await made(cloud)

    def unit(connection: sa.Connection) -> None:
        connection.execute(sa.delete(allocations))
        connection.execute(sa.update(servers).values(vm_state="error", host="", allocation_id=""))

    await cloud.control.db.run(unit)
    assert (await act(cloud, before["id"], ADOPT))[0] == 200
    after = await show(cloud, before["id"])
    assert (after["status"], after["addresses"], after["hostId"]) == ("ACTIVE", before["addresses"], before["hostId"])


@pytest.mark.parametrize("case", ["elsewhere", "deleted"])
async def test_one_server_never_has_two_guests(cloud: WholeCloud, case: str) -> None:
    before = await made(cloud)

    def unit(connection: sa.Connection) -> None:
        if case == "elsewhere":
            connection.execute(sa.update(allocations).values(id=str(uuid4()), host="another"))
        else:
            connection.execute(sa.delete(allocations))
            connection.execute(sa.update(servers).values(deleted=True, vm_state="deleted"))

    await cloud.control.db.run(unit)
    status, said = await act(cloud, before["id"], ADOPT)
    words = {"elsewhere": "with room on another", "deleted": "was deleted here"}[case]
    assert status == 409 and words in said["conflictingRequest"]["message"]
    assert (await act(cloud, before["id"], FORGET))[0] == 202


async def test_a_drained_host_takes_no_new_servers_and_the_scheduler_says_so(cloud: WholeCloud) -> None:
    before = await made(cloud)
    [service] = (await cloud.ask("admin", "GET", "compute", "/os-services?binary=nova-compute")).json()["services"]
    drained = {"status": "disabled", "disabled_reason": "a new disk"}
    assert (await cloud.ask("admin", "PUT", "compute", f"/os-services/{service['id']}", drained)).status_code == 200
    plan = {"plan": {"flavorRef": "42", "imageRef": before["image"]["id"]}}
    said = (await cloud.ask("admin", "POST", "compute", "/os-nacre-plans", plan)).json()["plan"]
    assert (said["placed"], "1 is disabled" in said["reason"]) == (0, True)
    [host] = (await cloud.ask("admin", "GET", "compute", "/os-nacre-hosts")).json()["hosts"]
    assert (host["status"], host["disabled_reason"], host["guests"]) == ("disabled", "a new disk", 1)
    assert (await cloud.ask("admin", "PUT", "compute", f"/os-services/{service['id']}", {
        "status": "enabled"})).status_code == 200
    assert (await cloud.ask("admin", "POST", "compute", "/os-nacre-plans", plan)).json()["plan"]["placed"] == 1


async def test_errors_are_clear_and_all_of_it_is_for_administrators(cloud: WholeCloud) -> None:
    before = await made(cloud)
    nobody = str(uuid4())
    for body in (ADOPT, FORGET):
        assert (await act(cloud, nobody, body))[0] == 404
        assert (await act(cloud, before["id"], body))[0] == 404  # a server is no orphan
        assert (await act(cloud, nobody, body, who="demo"))[0] == 403
    for path in ("/os-nacre-hosts", "/os-nacre-orphans"):
        assert (await cloud.ask("demo", "GET", "compute", path)).status_code == 403
        assert (await cloud.ask("", "GET", "compute", path)).status_code == 401
    assert (await cloud.ask("admin", "GET", "compute", "/os-nacre-orphans?host=nobody")).status_code == 404
    assert (await cloud.ask("admin", "DELETE", "compute", "/os-nacre-hosts/nobody")).status_code == 404
    for body in ({"adopt": {"colour": 1}}, {"adopt": {"name": ""}}, {"adopt": {"project_id": "../x"}}, {"forget": {}}):
        assert (await act(cloud, nobody, body))[0] == 400, body
    [host] = (await cloud.ask("admin", "GET", "compute", "/os-nacre-hosts")).json()["hosts"]
    refused = await cloud.ask("admin", "POST", "compute", f"/os-nacre-hosts/{host['name']}/action", {"accept": None})
    assert refused.status_code == 409 and "nothing to accept" in refused.text
    refused = await cloud.ask("admin", "DELETE", "compute", f"/os-nacre-hosts/{host['name']}")
    assert refused.status_code == 409 and f"{before['id']} (held)" in refused.text
    await lose(cloud, before["id"])
    status, said = await act(cloud, before["id"], {"adopt": {"project_id": "nobody"}})
    assert status == 400 and "There is no project nobody" in said["badRequest"]["message"]


async def test_a_servers_own_guest_that_its_journal_lost_is_not_forgotten(cloud: WholeCloud) -> None:
    before, admin = await made(cloud), LedgerAdmin(cloud.control.db, cloud.control.base.clock)
    stray = Orphan(allocation=before["id"], server_id=before["id"], power="running", order=None)
    with pytest.raises(Exception, match="journal has lost"):
        await admin.forget("vm", stray, Amounts(memory_mb=0, vcpus=0, disk_mb=0))
