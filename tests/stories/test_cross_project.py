"""Another project's ids, on every route that takes one: nothing is shown, nothing is done."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.stories.whole_cloud import WholeCloud, whole_cloud

#: What a member of any project may read, and why. Everything else with an id in its path is refused.
OPEN = {
    "/v2.1/flavors/{flavor_id}": "flavors are public", "/v2.1/flavors/{flavor_id}/os-extra_specs": "of public flavors",
    "/v2.1/flavors/{flavor_id}/os-extra_specs/{key}": "of public flavors",
    "/v2.1/os-quota-sets/{project_id}/defaults": "the defaults are the same for all",
    "/v2.1/os-quota-class-sets/{name}": "the defaults are the same for all",
    "/v2.1/extensions/{alias}": "what the cloud can do", "/v2.0/extensions/{alias}": "what the cloud can do",
    "/v2.0/default-security-group-rules/{id}": "they are the same for all",
    "/v2.0/quotas/{id}/default": "the defaults are the same for all",
    "/v3/domains/config/{group}/default": "defaults of options", "/v3/regions/{id}": "regions are for all to see",
    "/v3/domains/config/{group}/{option}/default": "defaults of options",
    "/v3/domains/{domain_id}": "both projects are of the default domain",
    "/v3/registered_limits/{id}": "limits are the same for all",
}
#: A body that the owner could send, by the end of the path: what is refused is the caller, not the request.
BODIES: dict[str, Any] = {
    "servers/{server_id}": {"server": {"name": "mine"}}, "metadata": {"metadata": {"a": "b"}},
    "metadata/{key}": {"meta": {"x": "b"}}, "servers/{server_id}/tags": {"tags": ["a"]},
    "os-quota-sets/{project_id}": {"quota_set": {"cores": 1}}, "os-volume_attachments": {"volumeAttachment": {}},
    "networks/{id}": {"network": {"name": "mine"}}, "subnets/{id}": {"subnet": {"name": "mine"}},
    "ports/{id}": {"port": {"name": "mine"}}, "os-security-groups/{id}": {
        "security_group": {"name": "mine", "description": ""}}, "security-groups/{id}": {
            "security_group": {"name": "mine"}},
    "routers/{id}": {"router": {"name": "mine"}}, "floatingips/{id}": {"floatingip": {"port_id": None}},
    "subnetpools/{id}": {"subnetpool": {"name": "mine"}}, "address-scopes/{id}": {"address_scope": {"name": "mine"}},
    "address-groups/{id}": {"address_group": {"name": "mine"}}, "rbac-policies/{id}": {
        "rbac_policy": {"target_tenant": "0" * 32}}, "quotas/{id}": {"quota": {"port": 1}}, "id}/tags": {"tags": ["a"]},
    "policies/{id}": {"policy": {"name": "mine"}}, "network-segment-ranges/{id}": {
        "network_segment_range": {"name": "mine"}}, "segments/{id}": {"segment": {"name": "mine"}},
    "trunks/{id}": {"trunk": {"name": "mine"}},
    "add_subports": {"sub_ports": []}, "remove_subports": {"sub_ports": []},
    "add_addresses": {"addresses": ["192.0.2.9/32"]}, "remove_addresses": {"addresses": ["192.0.2.0/24"]},
    "add_prefixes": {"prefixes": ["198.51.100.0/24"]},
    "remove_prefixes": {"prefixes": ["198.51.100.0/24"]}, "members": {"member": "x"}, "import": {
        "method": {"name": "glance-direct"}}, "users/{user_id}": {"user": {"description": "mine"}},
    "projects/{project_id}": {"project": {"description": "mine"}}, "projects/{project_id}/tags": {"tags": ["a"]},
    "credentials/{credential_id}": {"credential": {"blob": "mine"}}, "OS-EC2": {"tenant_id": "x"},
    "application_credentials": {"application_credential": {"name": "mine"}},
}
ACTIONS: dict[str, Any] = {
    "os-getConsoleOutput": {}, "os-resetState": {"state": "active"}, "createBackup": {
        "name": "mine", "backup_type": "daily", "rotation": 1}, "addFloatingIp": {"address": "198.51.100.9"},
    "removeFloatingIp": {"address": "198.51.100.9"}, "addFixedIp": {"networkId": "1"}, "removeFixedIp": {
        "address": "192.0.2.9"}, **{f"os-get{kind}Console": {"type": name} for kind, name in (
            ("VNC", "novnc"), ("SPICE", "spice-html5"), ("RDP", "rdp-html5"), ("Serial", "serial"))},
    "reboot": {"type": "SOFT"}, "lock": None, "changePassword": {"adminPass": "mine"}, "resize": {"flavorRef": "1"},
    "rebuild": {"imageRef": "11111111-2222-4333-8444-555555555555"}, "createImage": {"name": "mine"},
    "addSecurityGroup": {"name": "default"}, "removeSecurityGroup": {"name": "default"}}


class Things:
    """One thing of the owner's for each id that a path may take, and how the owner looks at it."""

    def __init__(self, cloud: WholeCloud, owner: str = "demo"):
        self.cloud, self.owner = cloud, owner
        self.ids, self.looks = dict[str, str](), dict[str, tuple[str, str, str]]()

    async def make(self, prefix: str, service: str, path: str, body: dict[str, Any]) -> str:
        answer = await self.cloud.ask(self.owner, "POST", service, path, body)
        assert answer.status_code in (200, 201, 202), answer.text
        found = answer.json()
        inner = found if "id" in found else next(iter(found.values()))
        self.ids[prefix] = str(inner["id"])
        self.looks[prefix] = (self.owner, service, f"{path}/{self.ids[prefix]}")
        return self.ids[prefix]

    async def look(self) -> dict[str, Any]:
        """How everything is now. What changes by itself is left out."""
        found = {}
        for prefix, (user, service, path) in self.looks.items():
            answer = await self.cloud.ask(user, "GET", service, path)
            assert answer.status_code == 200, f"{path} {answer.text}"
            found[prefix] = answer.json()
        return found


@pytest.fixture
async def things(tmp_path: Path) -> AsyncIterator[Things]:
    async with whole_cloud(tmp_path) as cloud:
        made = Things(cloud)
        await _fill(made)
        yield made


async def _fill(t: Things) -> None:
    net = await t.make("/v2.0/networks", "network", "/networks", {"network": {"name": "n"}})
    pool = await t.make("/v2.0/subnetpools", "network", "/subnetpools", {
        "subnetpool": {"name": "p", "prefixes": ["10.9.0.0/16"]}})
    sub = await t.make("/v2.0/subnets", "network", "/subnets", {"subnet": {
        "network_id": net, "ip_version": 4, "cidr": "192.0.2.0/24"}})
    port = await t.make("/v2.0/ports", "network", "/ports", {"port": {"network_id": net}})
    parent = await t.cloud.ask(t.owner, "POST", "network", "/ports", {"port": {"network_id": net}})
    await t.make("/v2.0/trunks", "network", "/trunks", {"trunk": {"port_id": parent.json()["port"]["id"]}})
    group = await t.make("/v2.0/security-groups", "network", "/security-groups", {"security_group": {"name": "g"}})
    await t.make("/v2.0/security-group-rules", "network", "/security-group-rules", {"security_group_rule": {
        "security_group_id": group, "direction": "ingress", "protocol": "tcp"}})
    await t.make("/v2.0/routers", "network", "/routers", {"router": {"name": "r"}})
    public = (await t.cloud.ask(t.owner, "GET", "network", "/networks?router:external=true")).json()["networks"]
    if not public:
        public = [(await t.cloud.ask("admin", "POST", "network", "/networks", {
            "network": {"name": "public", "router:external": True}})).json()["network"]]
        await t.cloud.ask("admin", "POST", "network", "/subnets", {"subnet": {
            "network_id": public[0]["id"], "ip_version": 4, "cidr": "198.51.100.0/24"}})
    await t.make("/v2.0/floatingips", "network", "/floatingips", {
        "floatingip": {"floating_network_id": public[0]["id"]}})
    await t.make("/v2.0/address-scopes", "network", "/address-scopes", {
        "address_scope": {"name": "s", "ip_version": 4}})
    await t.make("/v2.0/address-groups", "network", "/address-groups", {
        "address_group": {"name": "a", "addresses": ["192.0.2.0/24"]}})
    user = (await t.cloud.ask("admin", "GET", "identity", f"/users?name={t.owner}")).json()["users"][0]["id"]
    project = (await t.cloud.ask("admin", "GET", "identity", f"/projects?name={t.owner}")).json()["projects"][0]["id"]
    await t.make("/v2.0/rbac-policies", "network", "/rbac-policies", {"rbac_policy": {
        "object_type": "network", "object_id": net, "action": "access_as_shared", "target_tenant": "f" * 32}})
    await _fill_operators(t, project)
    image = await t.make("/v2/images", "image", "/images", {
        "name": "i", "disk_format": "raw", "container_format": "bare"})
    data = await t.cloud.http.put(f"/image/v2/images/{image}/file", content=bytes(65536), headers={
        "X-Auth-Token": await t.cloud.token(t.owner), "Content-Type": "application/octet-stream"})
    assert data.status_code == 204
    await t.make("/v2.1/servers", "compute", "/servers", {"server": {
        "name": "s", "imageRef": image, "flavorRef": "42", "networks": "none"}})
    await t.make("/v2.1/os-server-groups", "compute", "/os-server-groups", {
        "server_group": {"name": "g", "policy": "affinity"}})
    await t.make("/v3/credentials", "identity", "/credentials", {"credential": {
        "type": "cert", "blob": "b", "user_id": user, "project_id": project}})
    credential = (await t.cloud.ask(t.owner, "POST", "identity", f"/users/{user}/application_credentials", {
        "application_credential": {"name": "c"}})).json()["application_credential"]["id"]
    t.ids |= {"/v3/users": user, "/v3/projects": project, "/v2.0/quotas": project, "/v2.1/os-quota-sets": project,
              "/v2.1/os-simple-tenant-usage": project, "/v3/domains": "default", "/v2.1/images": image,
              "/v3/users/{user_id}/application_credentials": credential, "/v2.1/os-networks": net,
              "/v2.1/os-tenant-networks": net, "/v2.1/os-security-groups": group,
              "/v2.1/os-floating-ips": t.ids["/v2.0/floatingips"],
              "/v2.1/os-security-group-rules": t.ids["/v2.0/security-group-rules"],
              "/v2.0/network-ip-availabilities": net, "/v2/stores": "file", "subnet": sub, "port": port, "pool": pool}


async def _fill_operators(t: Things, project: str) -> None:
    """What only managers and operators make, for the owner's project."""
    async def made(key: str, path: str, body: dict[str, Any]) -> str:
        [name] = body
        answer = await t.cloud.ask("admin", "POST", "network", path, body)
        assert answer.status_code == 201, answer.text
        t.ids[key] = str(answer.json()[name]["id"])
        t.looks[key] = ("admin", "network", f"{path}/{t.ids[key]}")
        return t.ids[key]

    policies = "/v2.0/qos/policies"
    policy = await made(policies, "/qos/policies", {"policy": {"name": "q", "project_id": project}})
    for rule, values in (("bandwidth_limit_rule", {"max_kbps": 1000}), ("dscp_marking_rule", {"dscp_mark": 10}),
                         ("minimum_bandwidth_rule", {"min_kbps": 10}), ("minimum_packet_rate_rule", {"min_kpps": 1}),
                         ("packet_rate_limit_rule", {"max_kpps": 100})):
        below = f"{policies}/{{id}}/{rule}s"
        t.ids[f"/v2.0/qos/alias-{rule.replace('_', '-')}s"] = await made(
            below, f"/qos/policies/{policy}/{rule}s", {rule: values})
    await made("/v2.0/default-security-group-rules", "/default-security-group-rules", {"default_security_group_rule": {
        "direction": "ingress", "protocol": "tcp",
        "remote_ip_prefix": "192.0.2.0/24" if t.owner == "demo" else "198.51.100.0/24", "used_in_default_sg": False,
        "used_in_non_default_sg": True}})
    own = (await t.cloud.ask("admin", "GET", "network", f"/segments?network_id={t.ids['/v2.0/networks']}")).json()
    t.ids |= {"/v2.0/segments": own["segments"][0]["id"], "/v2.0/auto-allocated-topology": project}
    start = 70_000 if t.owner == "demo" else 80_000
    await made("/v2.0/network-segment-ranges", "/network-segment-ranges", {"network_segment_range": {
        "network_type": "vxlan", "minimum": start, "maximum": start + 9, "shared": False, "project_id": project}})
    t.ids["/v2.0/policies"] = policy
    t.ids["/v2.0/qos/rule-types"] = "bandwidth_limit"


def _path(template: str, things: Things) -> str:
    """The path with demo's ids; parameters that name nothing of its own get a word."""
    found, parts = list[str](), template.split("/")
    for at, part in enumerate(parts):
        found.append(things.ids.get("/".join(parts[:at]), "x") if part.startswith("{") else part)
    return "/".join(found)


def _filled(value: Any, ids: dict[str, str]) -> Any:
    """A body with the ids of things."""
    if isinstance(value, dict):
        return {k: _filled(v, ids) for k, v in value.items()}
    return [_filled(v, ids) for v in value] if isinstance(value, list) else ids.get(value, value)


def _body(path: str, action: str | None) -> Any:
    if action:
        return {action: ACTIONS.get(action)}
    return next((body for end, body in BODIES.items() if path.endswith(end)), {})


@pytest.mark.timeout(120)
async def test_no_route_serves_or_changes_another_projects_things(things: Things) -> None:
    cloud, wrong, asked = things.cloud, list[str](), 0
    while (await things.look())["/v2.1/servers"]["server"]["status"] == "BUILD":
        await asyncio.sleep(0.05)
    before = await things.look()
    for service in cloud.control.app.services:
        for route in [r for r in service.routes if ("{" in r.path and r.path not in OPEN) or ("{" in r.path
                      and r.method != "GET")]:
            headers = {"X-Auth-Token": await cloud.token("demo-alt"), "OpenStack-API-Version": "compute " + (
                "2.1" if route.until else "2.96")}
            body = _body(route.path, route.action) if route.method in ("POST", "PUT", "PATCH") else None
            if service.name == "image" and route.method == "PATCH":
                headers["Content-Type"] = "application/openstack-images-v2.1-json-patch"
                body = [{"op": "replace", "path": "/name", "value": "mine"}]
            answer = await cloud.http.request(
                route.method, service.prefix + _path(route.path, things), json=body, headers=headers)
            asked += 1
            # What is not built, or ended, is so for all; where no valid body is known, it may be the body that is
            # refused.
            also = {501, 410} | ({400, 415} if body == {} or route.raw else set())
            if answer.status_code not in {403, 404} | also:
                wrong.append(f"{route.method} {route.path} {route.action or ''} {answer.status_code} "
                             + answer.text[:90])
    assert not wrong, "\n".join(wrong)
    assert asked > 300
    assert await things.look() == before


@pytest.mark.parametrize(("service", "path", "body"), [
    ("network", "/subnets", {"subnet": {"network_id": "/v2.0/networks", "ip_version": 4, "cidr": "10.0.0.0/24"}}),
    ("network", "/subnets", {"subnet": {"network_id": "own", "ip_version": 4, "subnetpool_id": "/v2.0/subnetpools"}}),
    ("network", "/ports", {"port": {"network_id": "/v2.0/networks"}}),
    ("network", "/ports", {"port": {"network_id": "own", "security_groups": ["/v2.0/security-groups"]}}),
    ("network", "/ports", {"port": {"network_id": "own", "fixed_ips": [{"subnet_id": "/v2.0/subnets"}]}}),
    ("network", "/trunks", {"trunk": {"port_id": "/v2.0/ports"}}),
    ("network", "/networks", {"network": {"qos_policy_id": "/v2.0/qos/policies"}}),
    ("network", "/security-group-rules", {"security_group_rule": {
        "security_group_id": "/v2.0/security-groups", "direction": "ingress"}}),
    ("network", "/floatingips", {"floatingip": {"floating_network_id": "/v2.0/networks"}}),
    ("network", "/routers", {"router": {"external_gateway_info": {"network_id": "/v2.0/networks"}}}),
    ("compute", "/servers", {"server": {"name": "s", "imageRef": "/v2/images", "flavorRef": "42", "networks": "none"}}),
    ("compute", "/servers", {"server": {"name": "s", "imageRef": "mine", "flavorRef": "42", "networks": [
        {"uuid": "/v2.0/networks"}]}}),
    ("compute", "/servers", {"server": {"name": "s", "imageRef": "mine", "flavorRef": "42", "networks": [
        {"port": "/v2.0/ports"}]}}),
    ("compute", "/servers", {"server": {"name": "s", "imageRef": "mine", "flavorRef": "42", "networks": "none"},
                             "os:scheduler_hints": {"group": "/v2.1/os-server-groups"}})])
async def test_another_projects_ids_in_bodies_are_refused(things: Things, service: str, path: str, body: Any) -> None:
    ask = things.cloud.ask
    own = (await ask("demo-alt", "POST", "network", "/networks", {"network": {}})).json()["network"]["id"]
    image = (await ask("admin", "POST", "image", "/images", {
        "name": "i", "disk_format": "raw", "container_format": "bare", "visibility": "public"})).json()["id"]
    await things.cloud.http.put(f"/image/v2/images/{image}/file", content=bytes(65536), headers={
        "X-Auth-Token": await things.cloud.token("admin"), "Content-Type": "application/octet-stream"})
    answer = await ask("demo-alt", "POST", service, path, _filled(body, {**things.ids, "own": own, "mine": image}))
    assert answer.status_code in (400, 403, 404), answer.text


#: What an own thing could be given of another project's.
GIVEN: list[tuple[str, str, str, Any]] = [
    ("PUT", "network", "/ports/{/v2.0/ports}", {"port": {"fixed_ips": [{"subnet_id": "/v2.0/subnets"}]}}),
    ("PUT", "network", "/ports/{/v2.0/ports}", {"port": {"security_groups": ["/v2.0/security-groups"]}}),
    ("PUT", "network", "/routers/{/v2.0/routers}", {"router": {"external_gateway_info": {
        "network_id": "/v2.0/networks"}}}),
    ("PUT", "network", "/routers/{/v2.0/routers}/add_router_interface", {"subnet_id": "/v2.0/subnets"}),
    ("PUT", "network", "/routers/{/v2.0/routers}/add_router_interface", {"port_id": "/v2.0/ports"}),
    ("PUT", "network", "/floatingips/{/v2.0/floatingips}", {"floatingip": {"port_id": "/v2.0/ports"}}),
    ("PUT", "network", "/subnetpools/{/v2.0/subnetpools}", {"subnetpool": {
        "address_scope_id": "/v2.0/address-scopes"}}),
    ("PUT", "network", "/subnetpools/{/v2.0/subnetpools}/onboard_network_subnets", {"network_id": "/v2.0/networks"}),
    ("POST", "compute", "/servers/{/v2.1/servers}/os-interface", {"interfaceAttachment": {"port_id": "/v2.0/ports"}}),
    ("POST", "compute", "/servers/{/v2.1/servers}/action", {"rebuild": {"imageRef": "/v2/images"}}),
    ("POST", "compute", "/servers/{/v2.1/servers}/action", {"addSecurityGroup": {"name": "/v2.0/security-groups"}}),
    ("POST", "identity", "/users/{/v3/users}/credentials/OS-EC2", {"tenant_id": "/v3/projects"})]


async def test_own_things_do_not_get_another_projects(things: Things) -> None:
    own = Things(things.cloud, "demo-alt")
    await _fill(own)
    for each in (things, own):
        while (await each.look())["/v2.1/servers"]["server"]["status"] == "BUILD":
            await asyncio.sleep(0.05)
    before, wrong = (await things.look(), await own.look()), list[str]()
    for method, service, path, body in GIVEN:
        url = re.sub(r"\{(.+?)\}", lambda m: own.ids[m[1]], path)
        answer = await things.cloud.ask("demo-alt", method, service, url, _filled(body, things.ids))
        if answer.status_code not in (400, 403, 404, 409, 501):  # 501: not built, so for all
            wrong.append(f"{method} {path} {body} {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)
    assert (await things.look(), await own.look()) == before
