"""The rules that new security groups get, and who lays them down."""

from typing import Any

import pytest
from tests.stories.network_cloud import Cloud

from nacre.base.db import Database
from nacre.network.traffic import default_rules

PATH = "/default-security-group-rules"


@pytest.fixture
def cloud(story_db: Database) -> Cloud:
    return Cloud(story_db)


async def add(cloud: Cloud, expect: int = 201, who: str = "admin", **more: Any) -> Any:
    rule = {"direction": "ingress", "protocol": "tcp", "used_in_default_sg": False, "used_in_non_default_sg": True}
    answer = await cloud.call(who, "POST", PATH, {"default_security_group_rule": rule | more}, expect=expect)
    return answer.popitem()[1]


async def group(cloud: Cloud, who: str = "one") -> Any:
    made = await cloud.call(who, "POST", "/security-groups", {"security_group": {"name": "g"}})
    return made["security_group"]


def short(rules: list[Any]) -> list[tuple[Any, ...]]:
    return sorted((r["direction"], r["ethertype"], r["protocol"] or "", r["remote_group_id"] or "") for r in rules)


async def test_what_there_is_when_nobody_said_anything(cloud):
    listed = (await cloud.call("one", "GET", PATH))["default_security_group_rules"]
    assert short(listed) == [("egress", "IPv4", "", ""), ("egress", "IPv6", "", ""),
                             ("ingress", "IPv4", "", "PARENT"), ("ingress", "IPv6", "", "PARENT")]
    assert short((await group(cloud))["security_group_rules"]) == short(listed)[:2]
    default = (await cloud.call("one", "GET", "/security-groups?name=default"))["security_groups"][0]
    assert short(default["security_group_rules"])[2] == ("ingress", "IPv4", "", default["id"])


async def test_new_groups_get_what_operators_lay_down_and_old_ones_keep_theirs(cloud):
    before = await group(cloud)
    made = await add(cloud, port_range_min=22, port_range_max=22, description="ssh", remote_group_id="PARENT")
    assert made["port_range_min"] == 22 and made["description"] == "ssh" and "project_id" not in made
    assert (await cloud.call("one", "GET", f"{PATH}/{made['id']}"))["default_security_group_rule"] == made
    after = await group(cloud)
    assert [r["remote_group_id"] for r in after["security_group_rules"] if r["protocol"] == "tcp"] == [after["id"]]
    assert len((await cloud.call("one", "GET", f"/security-groups/{before['id']}"))["security_group"][
        "security_group_rules"]) == 2
    default = (await cloud.call("two", "GET", "/security-groups?name=default"))["security_groups"][0]
    assert len(default["security_group_rules"]) == 4
    await cloud.call("admin", "DELETE", f"{PATH}/{made['id']}")
    await cloud.call("admin", "GET", f"{PATH}/{made['id']}", expect=404)
    assert len((await group(cloud))["security_group_rules"]) == 2


async def test_nacres_own_are_taken_away_and_come_again(cloud):
    for rule in default_rules.OWN.values():
        if rule.direction == "egress":
            await cloud.call("admin", "DELETE", f"{PATH}/{rule.id}")
            await cloud.call("admin", "DELETE", f"{PATH}/{rule.id}", expect=404)
    assert (await group(cloud))["security_group_rules"] == []
    await add(cloud, direction="egress", protocol=None, used_in_default_sg=True)
    assert short((await group(cloud, "two"))["security_group_rules"]) == [("egress", "IPv4", "", "")]
    default = (await cloud.call("two", "GET", "/security-groups?name=default"))["security_groups"][0]
    assert len(default["security_group_rules"]) == 3


async def test_the_same_rule_is_there_once_for_each_use(cloud):
    await add(cloud, used_in_default_sg=True)
    assert (await add(cloud, 409))["type"] == "DefaultSecurityGroupRuleExists"
    assert (await add(cloud, 409, used_in_default_sg=True, used_in_non_default_sg=False))["type"] == (
        "DefaultSecurityGroupRuleExists")
    await add(cloud, protocol="udp")
    await add(cloud, protocol="udp", used_in_default_sg=True, used_in_non_default_sg=False)


async def test_what_a_rule_names_is_there_and_opens_nothing_when_it_is_gone(cloud):
    await add(cloud, 404, remote_group_id="11111111-2222-4333-8444-555555555555")
    other = (await group(cloud, "admin"))["id"]
    await add(cloud, remote_group_id=other)
    assert len((await group(cloud))["security_group_rules"]) == 3
    await cloud.call("admin", "DELETE", f"/security-groups/{other}")
    assert len((await group(cloud))["security_group_rules"]) == 2


@pytest.mark.parametrize(("wrong", "field"), [
    ({"direction": "up"}, "direction"), ({"port_range_min": 5, "protocol": None}, "protocol"),
    ({"remote_ip_prefix": "10.0.0.0/33"}, "CIDR"), ({"used_in_default_sg": "perhaps"}, "used_in_default_sg"),
    ({"security_group_id": "x"}, "security_group_id")])
async def test_bad_values_are_named(cloud, wrong, field):
    assert field in (await add(cloud, 400, **wrong))["message"]


async def test_they_are_operators_and_have_an_end(cloud):
    for who in ("one", "manager", "watcher"):
        await add(cloud, 403, who)
    for port in range(default_rules.MOST - len(default_rules.OWN)):
        await add(cloud, port_range_min=port + 1, port_range_max=port + 1)
    assert (await add(cloud, 409, protocol="udp"))["type"] == "OverQuota"
    # A project's quota of rules counts what a new group gets.
    answer = await cloud.call("one", "POST", "/security-groups", {"security_group": {"name": "h"}}, expect=409)
    assert answer["NeutronError"]["type"] == "OverQuota"
