"""What a project may have is finite where nobody says otherwise, and costs what it has, not the square of it."""

import pytest
from tests.stories.network_cloud import Cloud

from nacre.base.db import Database
from nacre.network.addresses import ipam
from nacre.network.work import DEFAULT_QUOTAS


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


def nets(count: int, start: int = 0) -> list[str]:
    """Networks of which no two touch."""
    return [f"10.{n // 125}.{2 * (n % 125)}.0/24" for n in range(start, start + count)]


async def pool(cloud: Cloud, prefixes: list[str], **more) -> str:
    made = await cloud.call("one", "POST", "/subnetpools", {"subnetpool": {"name": "p", "prefixes": prefixes, **more}})
    return str(made["subnetpool"]["id"])


async def test_a_pool_does_not_fall_into_thousands_of_prefixes(cloud):
    path = f"/subnetpools/{await pool(cloud, ['10.0.0.0/8'])}"
    alone = [f"10.{n}.{60 * k}.77/32" for n in range(80) for k in range(4)]
    answer = await cloud.call("one", "PUT", f"{path}/remove_prefixes", {"prefixes": alone}, expect=400)
    assert "at most 1000 prefixes" in answer["NeutronError"]["message"]
    assert (await cloud.call("one", "GET", path))["subnetpool"]["prefixes"] == ["10.0.0.0/8"]
    left = await cloud.call("one", "PUT", f"{path}/remove_prefixes", {"prefixes": ["10.0.0.0/9", "fd00::/64"]})
    assert left["prefixes"] == ["10.128.0.0/9"]


async def test_prefixes_are_added_up_to_a_thousand_and_looked_at_once_each(cloud, monkeypatch):
    scope = (await cloud.call("one", "POST", "/address-scopes", {"address_scope": {
        "name": "s", "ip_version": 4}}))["address_scope"]["id"]
    first = await pool(cloud, nets(900), address_scope_id=scope)
    await pool(cloud, nets(900, 1000), address_scope_id=scope)
    looked = []
    monkeypatch.setattr(ipam, "span", lambda cidr, span=ipam.span: looked.append(cidr) or span(cidr))
    added = await cloud.call("one", "PUT", f"/subnetpools/{first}/add_prefixes", {"prefixes": nets(100, 900)})
    assert len(added["prefixes"]) == 1000 and len(looked) < 6000
    await cloud.call("one", "PUT", f"/subnetpools/{first}/add_prefixes", {"prefixes": nets(1, 1950)}, expect=400)
    await cloud.call("one", "POST", "/subnetpools", {"subnetpool": {
        "name": "p", "prefixes": ["10.15.0.0/16"], "address_scope_id": scope}}, expect=409)


async def test_everything_that_a_project_makes_is_counted_and_has_an_end(cloud):
    assert min(DEFAULT_QUOTAS.values()) > 0
    await cloud.call("admin", "PUT", "/quotas/p-one", {"quota": {
        "address_scope": 1, "address_group": 1, "subnetpool": 1}})
    for path, body in (("address-scopes", {"address_scope": {"name": "s", "ip_version": 4}}),
                       ("address-groups", {"address_group": {}}),
                       ("subnetpools", {"subnetpool": {"name": "p", "prefixes": ["10.0.0.0/8"]}})):
        [name] = body
        for _ in range(2):  # what is deleted counts no more
            made = await cloud.call("one", "POST", f"/{path}", body)
            answer = await cloud.call("one", "POST", f"/{path}", body, expect=409)
            assert answer["NeutronError"]["type"] == "OverQuota"
            await cloud.call("one", "DELETE", f"/{path}/{made[name]['id']}")


async def test_lists_of_a_bulk_request_have_an_end_together(cloud):
    answer = await cloud.call("one", "POST", "/address-groups", {"address_groups": [{"addresses": nets(1000)}] * 6},
                              expect=400)
    assert "6000 entries together" in answer["NeutronError"]["message"]


async def test_rules_name_so_many_addresses_through_groups(cloud):
    security = (await cloud.call("one", "POST", "/security-groups", {"security_group": {"name": "g"}}))[
        "security_group"]["id"]
    groups = [(await cloud.call("one", "POST", "/address-groups", {"address_group": {"addresses": nets(count)}}))[
        "address_group"]["id"] for count in (1000, 500)]

    async def rule(group: str, port: int, expect: int) -> None:
        await cloud.call("one", "POST", "/security-group-rules", {"security_group_rule": {
            "security_group_id": security, "direction": "ingress", "protocol": "tcp", "port_range_min": port,
            "port_range_max": port, "remote_address_group_id": group}}, expect=expect)

    for port in range(1, 5):
        await rule(groups[0], port, 201)
    for port, expect in ((5, 201), (6, 201), (7, 409)):
        await rule(groups[1], port, expect)
    add = f"/address-groups/{groups[1]}/add_addresses"
    answer = await cloud.call("one", "PUT", add, {"addresses": ["192.0.2.0/24"]}, expect=409)
    assert "5002 addresses" in answer["NeutronError"]["message"]
