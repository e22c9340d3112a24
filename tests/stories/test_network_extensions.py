"""Each extension that is named works: by it clients decide what to ask for."""

from typing import Any
from uuid import uuid4

import pytest
from tests import schema
from tests.stories.network_cloud import THREE, Cloud, gateway

from nacre.network.api.versions import EXTENSIONS, FORWARDING
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.work import NetworkSettings

RULE = {"security_group_id": "{security_group}", "direction": "ingress"}


class Probe:
    """One cloud with one of each thing, and what to ask of it."""

    def __init__(self, cloud: Cloud):
        self.cloud, self.ids = cloud, dict[str, str]()

    async def setup(self) -> None:
        await self.cloud.host("h1", "192.0.2.1")
        self.ids["network"], self.ids["subnet"] = await self.cloud.network_with_subnet()
        for name, plural, body in (
                ("port", "ports", {"network_id": self.ids["network"]}), ("router", "routers", {}),
                ("security_group", "security-groups", {"name": "g"}),
                ("address_group", "address-groups", {"addresses": ["192.0.2.0/24"]}),
                ("address_scope", "address-scopes", {"ip_version": 4}),
                ("subnetpool", "subnetpools", {"name": "p", "prefixes": ["10.0.0.0/8"], "min_prefixlen": 24})):
            self.ids[name] = (await self.cloud.call("one", "POST", f"/{plural}", {name: body}))[name]["id"]

    def fill(self, thing: Any) -> Any:
        if isinstance(thing, dict):
            return {k: self.fill(v) for k, v in thing.items()}
        return thing.format(**self.ids) if isinstance(thing, str) and "{" in thing else thing

    async def call(self, method: str, path: str, body: Any = None, who: str = "one", expect: int | None = None) -> Any:
        found = await self.cloud.call(who, method, self.fill(path), self.fill(body), expect=expect)
        return next(iter(found.values())) if isinstance(found, dict) and len(found) == 1 else found

    async def has(self, path: str, *names: str, who: str = "one") -> bool:
        found = await self.call("GET", path, who=who)
        return set(names) <= set(found)

    async def share(self, kind: str) -> bool:
        """A policy opens it to another project."""
        path = "/" + kind.replace("_", "-") + "s/{" + kind + "}"
        await self.call("GET", path, who="three", expect=404)
        await self.call("POST", "/rbac-policies", {"rbac_policy": {
            "object_type": kind, "object_id": "{" + kind + "}", "action": "access_as_shared", "target_tenant": THREE}})
        return bool(await self.call("GET", path, who="three"))

    async def list(self, path: str) -> list[Any]:
        found = await self.call("GET", path)
        return list(next(iter(found.values()))) if isinstance(found, dict) else list(found)


async def _made(p: Probe, plural: str, body: dict[str, Any], who: str = "one") -> Any:
    return await p.call("POST", f"/{plural}", body, who)


async def _pages(p: Probe) -> bool:
    found = await p.cloud.call("one", "GET", "/security-groups?limit=1")
    return len(found["security_groups"]) == 1 and "security_groups_links" in found


async def _refused(p: Probe, path: str) -> bool:
    return bool(await p.call("GET", path, expect=400))


async def _rule(p: Probe, **more: Any) -> Any:
    return await _made(p, "security-group-rules", {"security_group_rule": RULE | more})


async def _pool(p: Probe, **more: Any) -> Any:
    net = await _made(p, "networks", {"network": {}})
    return await _made(p, "subnets", {"subnet": {"network_id": net["id"], "ip_version": 4} | more})


async def _default_pool(p: Probe) -> bool:
    await p.call("PUT", "/subnetpools/{subnetpool}", {"subnetpool": {"is_default": True}}, "admin")
    return bool((await _pool(p, use_default_subnetpool=True))["subnetpool_id"] == p.ids["subnetpool"])


async def _scope(p: Probe) -> bool:
    await p.call("PUT", "/subnetpools/{subnetpool}", {"subnetpool": {"address_scope_id": "{address_scope}"}})
    net = (await _pool(p, subnetpool_id="{subnetpool}"))["network_id"]
    shown = await p.call("GET", f"/networks/{net}")
    return bool(shown["ipv4_address_scope"] == p.ids["address_scope"])


async def _bindings(p: Probe) -> bool:
    await p.call("PUT", "/ports/{port}", {"port": {"device_owner": "compute:nova"}})
    made = await p.call("POST", "/ports/{port}/bindings", {"binding": {"host": "h1"}}, "admin")
    return bool(made["status"] == "INACTIVE")


async def _segments(p: Probe) -> bool:
    vlan = {"provider:network_type": "vlan", "provider:physical_network": "physnet1"}
    made = await p.cloud.call("admin", "POST", "/networks", {"network": {"segments": [
        vlan, {"provider:network_type": "vxlan"}]}})
    return len(made["network"]["segments"]) == 2


async def _remote_group(p: Probe) -> bool:
    return bool((await _rule(p, remote_address_group_id="{address_group}"))["remote_address_group_id"])


async def _if_match(p: Probe) -> bool:
    await p.cloud.call("one", "PUT", p.fill("/networks/{network}"), {"network": {"name": "x"}}, expect=412,
                       headers={"If-Match": "revision_number=99"})
    return True


async def _new_mac(p: Probe) -> bool:
    before = (await p.call("GET", "/ports/{port}"))["mac_address"]
    after = await p.call("PUT", "/ports/{port}", {"port": {"mac_address": None}}, "manager")
    return bool(after["mac_address"] != before)


async def _mtu(p: Probe) -> bool:
    return bool((await p.call("PUT", "/networks/{network}", {"network": {"mtu": 1300}}))["mtu"] == 1300)


async def _limit(p: Probe) -> bool:
    return bool(await p.call("PUT", "/quotas/p-one", {"quota": {"network": 0, "check_limit": True}}, "admin", 400))


async def _external_subnet(p: Probe) -> bool:
    _, sub = await p.cloud.network_with_subnet("admin", **{"router:external": True})
    return bool((await p.call("GET", f"/subnets/{sub}", who="admin"))["router:external"])


async def _service_types(p: Probe) -> bool:
    await p.call("PUT", "/subnets/{subnet}", {"subnet": {"service_types": ["compute:nova"]}}, "admin")
    other = await _made(p, "ports", {"port": {"network_id": "{network}"}})
    mine = await _made(p, "ports", {"port": {"network_id": "{network}", "device_owner": "compute:nova"}})
    return not other["fixed_ips"] and bool(mine["fixed_ips"])


async def _tagged_ports(p: Probe) -> bool:
    made = await p.cloud.call("one", "POST", "/ports", {"ports": [
        {"network_id": p.ids["network"], "tags": ["a"]}, {"network_id": p.ids["network"], "tags": ["b"]}]})
    return [port["tags"] for port in made["ports"]] == [["a"], ["b"]]


async def _substring(p: Probe) -> bool:
    [port] = await p.list("/ports?device_owner=")
    part = port["fixed_ips"][0]["ip_address"][4:]
    return bool(await p.list(f"/ports?fixed_ips=ip_address_substr={part}")) and not await p.list(
        "/ports?fixed_ips=ip_address_substr=nowhere")


async def _stateless(p: Probe) -> bool:
    return not (await _made(p, "security-groups", {"security_group": {"name": "s", "stateful": False}}))["stateful"]


async def _tags(p: Probe) -> bool:
    await p.call("PUT", "/routers/{router}/tags", {"tags": ["a"]})
    return len(await p.list("/routers?tags=a")) == 1 and not await p.list("/routers?not-tags=a")


async def _more_tags(p: Probe) -> bool:
    await p.call("PUT", "/routers/{router}/tags", {"tags": ["a"]})
    return bool(await p.call("POST", "/routers/{router}/tags", {"tags": ["b"]}, expect=200) == ["a", "b"])


async def _security(p: Probe) -> bool:
    await p.call("PUT", "/ports/{port}", {"port": {"port_security_enabled": False, "security_groups": []}})
    return (await p.call("GET", "/ports/{port}"))["port_security_enabled"] is False


async def _ports_of_group(p: Probe) -> bool:
    return len(await p.list(f"/ports?security_groups={uuid4()}")) == 0


async def _add(p: Probe) -> bool:
    made = await p.cloud.call("one", "PUT", p.fill("/address-groups/{address_group}/add_addresses"),
                              {"addresses": ["198.51.100.0/24"]})
    return len(made["address_group"]["addresses"]) == 2


async def _dns_domain(p: Probe) -> bool:
    made = await p.call("PUT", "/ports/{port}", {"port": {"dns_domain": "Example.org."}})
    await p.call("PUT", "/ports/{port}", {"port": {"dns_domain": "example"}}, expect=400)
    return bool(made["dns_domain"] == "example.org.")


async def _segment(p: Probe) -> bool:
    [found] = await p.call("GET", "/segments?network_id={network}", who="admin")
    return {"created_at", "updated_at", "revision_number", "description"} <= set(found)


async def _on_segment(p: Probe) -> bool:
    [found] = await p.call("GET", "/segments?network_id={network}", who="admin")
    made = await p.call("PUT", "/subnets/{subnet}", {"subnet": {"segment_id": found["id"]}}, "admin")
    return bool(made["segment_id"] == found["id"]) and not (await p.call("GET", "/networks/{network}"))["l2_adjacency"]


PROVIDER = ("provider:network_type", "provider:segmentation_id")
PROBES: dict[str, Any] = {
    "address-group": _add, "address-scope": _scope, "default-subnetpools": _default_pool,
    "agent": lambda p: p.call("GET", "/agents?host=h1", who="admin"),
    "allowed-address-pairs": lambda p: p.has("/ports/{port}", "allowed_address_pairs"),
    "availability_zone": lambda p: p.list("/availability_zones"),
    "binding": lambda p: p.has("/ports/{port}", "binding:host_id", "binding:vif_type", who="admin"),
    "binding-extended": _bindings, "dns-integration": lambda p: p.has("/ports/{port}", "dns_name", "dns_assignment"),
    "dns-domain-ports": _dns_domain,
    "empty-string-filtering": lambda p: p.list("/networks?description="),
    "external-net": lambda p: p.has("/networks/{network}", "router:external"),
    "extra_dhcp_opt": lambda p: p.has("/ports/{port}", "extra_dhcp_opts"),
    "filter-validation": lambda p: _refused(p, "/networks?colour=red"),
    "ip_allocation": lambda p: p.list("/ports?ip_allocation=immediate"), "ip-substring-filtering": _substring,
    "multi-provider": _segments, "net-mtu": lambda p: p.list("/networks?mtu=1450"), "net-mtu-writable": _mtu,
    "network-ip-availability": lambda p: p.call("GET", "/network-ip-availabilities/{network}", who="admin"),
    "network-segment-range": lambda p: p.call("GET", "/network-segment-ranges?shared=True", who="admin"),
    "network_availability_zone": lambda p: p.has("/networks/{network}", "availability_zones",
                                                 "availability_zone_hints"),
    "pagination": _pages, "port-mac-address-regenerate": _new_mac, "port-security": _security,
    "port-security-groups-filtering": _ports_of_group, "project-id": lambda p: p.list("/networks?project_id=p-one"),
    "provider": lambda p: p.has("/networks/{network}", *PROVIDER, who="admin"), "quota-check-limit": _limit,
    "quota_details": lambda p: p.has("/quotas/p-one/details", "network"),
    "quotas": lambda p: p.has("/quotas/p-one", "port"), "rbac-policies": lambda p: p.share("network"),
    **{f"rbac-{name}": lambda p, kind=kind: p.share(kind) for name, kind in (
        ("security-groups", "security_group"), ("address-group", "address_group"), ("address-scope", "address_scope"),
        ("subnetpool", "subnetpool"))},
    "revision-if-match": _if_match, "security-group": _rule,
    "security-groups-default-rules": lambda p: p.list("/default-security-group-rules?used_in_default_sg=yes"),
    "security-groups-normalized-cidr": lambda p: p.list("/security-group-rules?fields=normalized_cidr"),
    "security-groups-remote-address-group": _remote_group,
    "security-groups-rules-belongs-to-default-sg": lambda p: p.list("/security-group-rules?belongs_to_default_sg=yes"),
    "security-groups-shared-filtering": lambda p: p.list("/security-groups?shared=False"),
    "segment": lambda p: p.call("GET", "/segments?network_id={network}", who="admin"),
    "standard-attr-segment": _segment, "subnet-segmentid-writable": _on_segment,
    "l2_adjacency": lambda p: p.has("/networks/{network}", "l2_adjacency"),
    "service-type": lambda p: _refused(p, "/service-providers?colour=red"),
    "sort-key-validation": lambda p: _refused(p, "/networks?sort_key=shared&sort_dir=asc"),
    "sorting": lambda p: p.list("/networks?sort_key=name&sort_dir=desc"),
    "standard-attr-description": lambda p: p.has("/subnets/{subnet}", "description"),
    "standard-attr-revisions": lambda p: p.has("/subnets/{subnet}", "revision_number"), "standard-attr-tag": _tags,
    "standard-attr-timestamp": lambda p: p.has("/subnets/{subnet}", "created_at", "updated_at"),
    "stateful-security-group": _stateless, "subnet_allocation": lambda p: _pool(p, subnetpool_id="{subnetpool}"),
    "subnet-external-network": _external_subnet, "subnet-service-types": _service_types,
    "subnetpool-prefix-ops": lambda p: p.call("PUT", "/subnetpools/{subnetpool}/add_prefixes",
                                              {"prefixes": ["172.16.0.0/12"]}),
    "tag-creation": _more_tags, "tag-ports-during-bulk-creation": _tagged_ports,
}


async def _forwards(p: Probe) -> None:
    """A host's L3 agent reports; "one" has a router with a way out, a port behind it and a floating IP."""
    await gateway(p.cloud, 1)
    p.ids["public"], _ = await p.cloud.network_with_subnet("admin", "203.0.113.0/24", **{
        "router:external": True, "provider:network_type": "flat", "provider:physical_network": "physnet1"})
    await p.call("PUT", "/routers/{router}/add_router_interface", {"subnet_id": "{subnet}"})
    await p.call("PUT", "/routers/{router}", {"router": {"external_gateway_info": {"network_id": "{public}"}}})
    p.ids["floatingip"] = (await _made(p, "floatingips", {"floatingip": {"floating_network_id": "{public}"}}))["id"]


async def _forwarded(p: Probe, **more: Any) -> Any:
    return await p.call("POST", "/floatingips/{floatingip}/port_forwardings", {"port_forwarding": {
        "internal_port_id": "{port}", "protocol": "tcp", **(more or {"internal_port": 80, "external_port": 8080})}})


async def _snat(p: Probe) -> bool:
    info = {"network_id": "{public}", "enable_snat": False}
    changed = await p.call("PUT", "/routers/{router}", {"router": {"external_gateway_info": info}}, who="admin")
    return changed["external_gateway_info"]["enable_snat"] is False


async def _route(p: Probe, verb: str) -> bool:
    routes = {"routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}]}
    path = "/routers/{router}" + verb
    return bool((await p.call("PUT", path, {"router": routes}))["routes"] == routes["routes"])


async def _bound_by_router(p: Probe) -> bool:
    changed = await p.call("PUT", "/floatingips/{floatingip}", {"floatingip": {
        "port_id": "{port}", "router_id": "{router}"}})
    return bool(changed["router_id"] == p.ids["router"] and changed["port_details"]["name"] == "")


async def _flagged(p: Probe, name: str) -> bool:
    await p.call("PUT", "/routers/{router}", {"router": {name: True}}, who="admin", expect=400)
    await p.call("PUT", "/routers/{router}", {"router": {"admin_state_up": False}})
    return bool((await p.call("PUT", "/routers/{router}", {"router": {name: True}}, who="admin"))[name])


async def _exposed(p: Probe) -> bool:
    made = await _forwarded(p)
    [shown] = (await p.call("GET", "/floatingips/{floatingip}"))["port_forwardings"]
    return shown["id"] == made["id"] and shown["internal_port_id"] == p.ids["port"]


FORWARDING_PROBES: dict[str, Any] = {
    "router": lambda p: p.has("/routers/{router}", "external_gateway_info", "routes"), "ext-gw-mode": _snat,
    "extraroute": lambda p: _route(p, ""), "extraroute-atomic": lambda p: _route(p, "/add_extraroutes"),
    "fip-port-details": _bound_by_router, "floating-ip-router-writable": _bound_by_router,
    "floatingip-pools": lambda p: p.list("/floatingip-pools"), "floating-ip-port-forwarding": _forwarded,
    "floating-ip-port-forwarding-description": lambda p: _forwarded(
        p, internal_port=1, external_port=2, description="d"),
    "floating-ip-port-forwarding-port-ranges": lambda p: _forwarded(
        p, internal_port_range="80:90", external_port_range="180:190"),
    "floating-ip-port-forwarding-detail": _exposed, "expose-port-forwarding-in-fip": _exposed,
    "router_availability_zone": lambda p: p.has("/routers/{router}", "availability_zone_hints", "availability_zones"),
    "dvr": lambda p: _flagged(p, "distributed"), "l3-ha": lambda p: _flagged(p, "ha"),
    "router-admin-state-down-before-update": lambda p: _flagged(p, "distributed"),
}


@pytest.mark.parametrize("alias", sorted(FORWARDING))
async def test_an_extension_that_is_named_where_somebody_forwards_works(alias: str) -> None:
    db = schema.in_memory()
    probe = Probe(Cloud(db))
    await probe.setup()
    await probe.call("GET", f"/extensions/{alias}", expect=404)
    await _forwards(probe)
    assert (await probe.cloud.call("one", "GET", f"/extensions/{alias}"))["extension"]["alias"] == alias
    assert await FORWARDING_PROBES[alias](probe)
    await db.close()


@pytest.mark.parametrize("alias", sorted(EXTENSIONS))
async def test_an_extension_that_is_named_works(alias: str) -> None:
    db = schema.in_memory()
    probe = Probe(Cloud(db, NetworkSettings(types=SegmentTypes(vlan_ranges={"physnet1": (100, 110)}))))
    await probe.setup()
    shown = (await probe.cloud.call("one", "GET", f"/extensions/{alias}"))["extension"]
    assert shown["alias"] == alias
    assert await PROBES[alias](probe)
    await db.close()


async def test_what_forwards_nothing_is_not_named() -> None:
    """Routers are rows while no host forwards for them, or one says so that no operator has switched on."""
    db = schema.in_memory()
    cloud = Cloud(db)
    for _ in range(2):
        named = {e["alias"] for e in (await cloud.call("one", "GET", "/extensions"))["extensions"]}
        assert named == set(PROBES) and set(FORWARDING_PROBES) == set(FORWARDING)
        await gateway(cloud, 1, enabled=False)
    await db.close()
