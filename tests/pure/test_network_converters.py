"""What each attribute of the network API takes, and what it becomes: Neutron's converters and validators, by its own
attribute maps. An attribute that takes less, or more, than these says why."""

from types import SimpleNamespace
from typing import Any

import pytest

from nacre.base.context import Context
from nacre.base.errors import BadRequest, NotFound
from nacre.network.api import listing
from nacre.network.api.service import STORES
from nacre.network.nouns.attributes import Resource
from nacre.network.nouns.port import BINDING
from nacre.network.nouns.qos import KINDS
from nacre.network.nouns.router import PORT_FORWARDING

ID = "11111111-2222-3333-4444-555555555555"
ROUTE = {"destination": "10.1.0.0/24", "nexthop": "10.0.0.1"}
CONTEXT = Context(request_id="req-test", user_id="u", project_id="p", roles=("admin", "member", "reader"))
RESOURCES: dict[str, Resource] = {r.plural: r for r in (*(store.resource for store in STORES), BINDING)}
d = SimpleNamespace(**{r.name.removesuffix("_policy").upper(): r for r in RESOURCES.values()})

#: A name that `resource.attribute` is found by -> (what is sent, what is kept).
TAKEN: list[tuple[str, Any, Any]] = [
    *((f"networks.{name}", sent, kept) for name in ("admin_state_up", "shared", "router:external", "is_default",
                                                     "port_security_enabled")
      for words, kept in (((True, "true", "TRUE", "yes", "on", "t", 1, "1", "y", " 1 "), True),
                          ((False, "False", "no", "off", "F", 0, "0", "n"), False)) for sent in words),
    ("subnets.ip_version", "4", 4), ("subnets.ip_version", 6, 6), ("subnets.ip_version", " 6 ", 6),
    ("address_scopes.ip_version", "6", 6), ("networks.mtu", "1400", 1400), ("networks.mtu", 1400.0, 1400),
    ("networks.provider:segmentation_id", "7", 7), ("subnets.prefixlen", "26", 26),
    *((f"subnetpools.{name}", "26", 26) for name in ("default_prefixlen", "min_prefixlen", "max_prefixlen")),
    ("subnetpools.default_quota", "5", 5),
    ("subnets.cidr", "10.0.0.5/24", "10.0.0.0/24"), ("subnets.cidr", "10.0.0.0/255.255.255.0", "10.0.0.0/24"),
    ("subnets.cidr", "2001:DB8::/64", "2001:db8::/64"), ("subnets.cidr", "10.0.0.1", "10.0.0.1/32"),
    ("subnets.gateway_ip", "2001:DB8:0::1", "2001:db8::1"), ("subnets.gateway_ip", None, None),
    ("subnets.allocation_pools", [{"start": "2001:DB8::2", "end": "2001:db8::0009"}],
     [{"start": "2001:db8::2", "end": "2001:db8::9"}]),
    ("subnets.allocation_pools", None, []), ("subnets.dns_nameservers", None, []), ("subnets.host_routes", None, []),
    ("subnets.service_types", ["compute:nova", "network:dhcp"], ["compute:nova", "network:dhcp"]),
    ("subnets.service_types", None, []), ("subnets.subnetpool_id", "prefix_delegation", "prefix_delegation"),
    *(("ports.mac_address", sent, "fa:16:3e:00:00:01") for sent in (
        "FA:16:3E:00:00:01", "fa-16-3e-00-00-01", "fa163e000001", "fa16.3e00.0001", "fa:16:3e:0:0:1")),
    ("ports.mac_address", None, None),
    ("ports.fixed_ips", [{"subnet_id": ID, "ip_address": "2001:DB8::1", "ip_version": 6}],
     [{"subnet_id": ID, "ip_address": "2001:db8::1"}]),
    ("ports.allowed_address_pairs", None, []),
    ("ports.allowed_address_pairs", [{"ip_address": "10.0.0.3", "mac_address": "FA-16-3E-00-00-01"}],
     [{"ip_address": "10.0.0.3", "mac_address": "fa:16:3e:00:00:01"}]),
    ("ports.extra_dhcp_opts", [{"opt_name": "mtu", "opt_value": "1400", "ip_version": "4"}],
     [{"opt_name": "mtu", "opt_value": "1400", "ip_version": 4}]),
    ("ports.extra_dhcp_opts", [{"opt_name": "router", "opt_value": ""}],
     [{"opt_name": "router", "opt_value": "", "ip_version": 4}]),
    ("ports.extra_dhcp_opts", None, []), ("ports.dns_name", "Web.Example.", "web.example."),
    ("ports.security_groups", None, []), ("ports.tags", ["b", "a/b"], ["a/b", "b"]),
    ("networks.dns_domain", "Example.ORG.", "example.org."), ("floatingips.dns_name", "WEB", "web"),
    *(("security_group_rules.ethertype", sent, "IPv4") for sent in ("IPv4", "ipv4", "IPV4")),
    ("security_group_rules.ethertype", "ipv6", "IPv6"),
    *(("security_group_rules.protocol", sent, kept) for sent, kept in (
        ("TCP", "tcp"), ("any", None), (None, None), (6, "6"), ("6", "6"), ("ICMPv6", "icmpv6"))),
    *((f"security_group_rules.port_range_{end}", sent, kept) for end in ("min", "max")
      for sent, kept in (("22", 22), (22, 22), ("0", 0), (None, None), (" 80 ", 80))),
    *(("security_group_rules.remote_ip_prefix", sent, kept) for sent, kept in (
        ("10.0.0.1", "10.0.0.1/32"), ("10.0.0.0/255.0.0.0", "10.0.0.0/8"), ("2001:DB8::/32", "2001:db8::/32"),
        ("", None), (None, None), (False, None))),
    *((f"security_group_rules.remote_{kind}_id", sent, kept) for kind in ("group", "address_group")
      for sent, kept in (("web", "web"), (5, "5"), ("", None), (None, None))),
    ("security_groups.stateful", "no", False), ("address_groups.addresses", None, []),
    *(("routers.external_gateway_info", sent, None) for sent in (None, {}, "", [], False)),
    ("routers.external_gateway_info", {"network_id": ID, "enable_snat": "no"},
     {"network_id": ID, "enable_snat": False}),
    ("rbac_policies.object_type", " Network ", "network"), ("rbac_policies.target_tenant", "*", "*"),
    ("rbac_policies.target_tenant", ID.replace("-", ""), ID.replace("-", "")),
]

REFUSED: list[tuple[str, Any]] = [
    ("networks.admin_state_up", "maybe"), ("networks.admin_state_up", None), ("networks.admin_state_up", 2),
    ("networks.name", " x"), ("networks.name", "x "), ("networks.name", "a\nb"), ("networks.name", "a\tb"),
    ("networks.mtu", "x"), ("networks.mtu", None), ("networks.dns_domain", "example.org"),
    ("networks.dns_domain", "-x."), ("networks.availability_zone_hints", None),
    ("networks.availability_zone_hints", ["nova", "nova"]), ("networks.availability_zone_hints", ["x" * 252]),
    ("subnets.ip_version", "5"), ("subnets.ip_version", "x"), ("subnets.ip_version", None), ("subnets.cidr", "x"),
    ("subnets.host_routes", [ROUTE | {"destination": "10.1.0.5/24"}]), ("subnets.host_routes", [ROUTE, ROUTE]),
    ("subnets.host_routes", [ROUTE | {"destination": "127.0.0.0/8"}]), ("subnets.service_types", ["web"]),
    ("subnets.subnetpool_id", "x"), ("routers.routes", [ROUTE | {"destination": "10.1.0.5/24"}]),
    ("routers.external_gateway_info", {"enable_snat": True}), ("routers.availability_zone_hints", ["a", "a"]),
    ("ports.mac_address", "00:00:00:00:00:00"), ("ports.mac_address", "x"), ("ports.fixed_ips", None),
    ("ports.fixed_ips", [{"ip_address": "10.0.0.1"}] * 2), ("ports.fixed_ips", [{"subnet_id": "x"}]),
    ("ports.allowed_address_pairs", [{"ip_address": "224.0.0.1"}]),
    ("ports.allowed_address_pairs", [{"ip_address": "10.0.0.1", "mac_address": "01:00:5e:00:00:01"}]),
    ("ports.extra_dhcp_opts", [{"opt_name": "mtu", "opt_value": ""}]),
    ("ports.extra_dhcp_opts", [{"opt_name": "mtu", "opt_value": "1"}] * 2), ("ports.tags", ["a", "a"]),
    ("ports.tags", None), ("ports.dns_name", "10.0.0.1"), ("floatingips.dns_name", "web."),
    ("floatingips.dns_domain", "example.org"), ("security_group_rules.ethertype", "arp"),
    ("security_group_rules.ethertype", None), ("security_group_rules.protocol", "bogus"),
    ("security_group_rules.protocol", 256), ("security_group_rules.port_range_min", "65536"),
    ("security_group_rules.port_range_max", -1), ("security_group_rules.port_range_max", "http"),
    ("security_group_rules.remote_ip_prefix", "10.0.0.0/33"), ("security_group_rules.direction", "INGRESS"),
    ("rbac_policies.target_tenant", "everybody"), ("rbac_policies.target_tenant", "{" * 99 + ID + "}" * 99),
    ("security_group_rules.remote_group_id", "a\x00b"), ("subnetpools.default_quota", None), ("subnetpools.name", " "),
    # Stricter than Neutron, which fails later or lets it through to a host's configuration files.
    ("ports.device_id", "a\nb"), ("ports.device_owner", "a\nb"), ("ports.binding:host_id", 5),
    ("ports.mac_address", 1), ("ports.mac_address", "1"), ("networks.description", "a\x00b"),
    ("ports.extra_dhcp_opts", [{"opt_name": "option:mtu,5", "opt_value": "1"}]), ("networks.project_id", "p" * 65),
]


def attribute(name: str) -> Any:
    plural, _, name = name.partition(".")
    return RESOURCES[plural].attributes[name]


@pytest.mark.parametrize(("name", "sent", "kept"), TAKEN)
def test_values_are_converted(name: str, sent: Any, kept: Any) -> None:
    found = attribute(name).check(sent)
    assert found == kept and type(found) is type(kept)


@pytest.mark.parametrize(("name", "sent"), REFUSED)
def test_others_are_refused(name: str, sent: Any) -> None:
    with pytest.raises((ValueError, BadRequest)):
        attribute(name).check(sent)


LONG = "x" * 5000


def swollen(value: Any) -> list[Any]:
    """The value with each text in it, one at a time, far too long."""
    if isinstance(value, dict):
        return [{**value, name: other} for name, inner in value.items() for other in swollen(inner)]
    if isinstance(value, list):
        return [[*value[:at], other, *value[at + 1:]] for at, inner in enumerate(value) for other in swollen(inner)]
    return [LONG, [LONG], {LONG: LONG}, f"{value}{LONG}"]


def test_a_refusal_does_not_repeat_all_that_was_sent() -> None:
    sent = [(attribute(name), other) for name, value, *_ in [*TAKEN, *REFUSED]
            for other in [*swollen(value), *swollen(None)]]
    resources = (*RESOURCES.values(), PORT_FORWARDING, *(kind.resource for kind in KINDS.values()))
    every = [(a, other) for resource in resources for a in resource.attributes.values() if a.post or a.put
             for other in (LONG, [LONG] * 2, {LONG: LONG}, [[LONG]], [{"port_id": LONG}])]
    routes = [(attribute("routers.routes"), [{**ROUTE, key: LONG}]) for key in ROUTE]
    said = []
    for found, value in [*sent, *every, *routes]:
        try:
            found.check(value)
        except (ValueError, BadRequest) as error:
            said.append((len(str(error)), found.name, str(error)[:200]))
    assert len(said) > 1000 and max(said)[0] < 500, max(said)


#: What may be sent, by Neutron's allow_post and allow_put, where a client could think otherwise.
@pytest.mark.parametrize(("resource", "body", "verb", "fine"), [
    (d.PORT, {"network_id": ID, "tags": ["a"]}, "create", True), (d.NETWORK, {"tags": ["a"]}, "create", False),
    (d.NETWORK, {"segments": []}, "update", True), (d.SUBNET, {"cidr": "10.0.0.0/24"}, "update", False),
    (d.SECURITY_GROUP_RULE, {"description": "x"}, "update", False), (d.SUBNETPOOL, {"shared": True}, "update", False),
    (d.ROUTER, {"routes": []}, "create", False), (d.RBAC, {"target_tenant": "*"}, "update", True),
])
def test_what_may_be_sent(resource: Resource, body: dict[str, Any], verb: str, fine: bool) -> None:
    parse = resource.parse_create if verb == "create" else resource.parse_update
    if fine:
        assert parse(body, CONTEXT).items() >= body.items()
        return
    with pytest.raises(BadRequest):
        parse(body, CONTEXT)


@pytest.mark.parametrize(("resource", "query", "value", "found"), [
    (d.NETWORK, ("admin_state_up", "yes"), True, True), (d.NETWORK, ("admin_state_up", "off"), True, False),
    (d.SUBNET, ("ip_version", " 4"), 4, True), (d.SUBNET, ("cidr", "10.0.0.5/24"), "10.0.0.0/24", True),
    (d.SUBNET, ("gateway_ip", "2001:DB8::1"), "2001:db8::1", True), (d.PORT, ("mac_address", "FA163E000001"),
                                                                     "fa:16:3e:00:00:01", True),
    (d.SECURITY_GROUP_RULE, ("ethertype", "ipv4"), "IPv4", True),
    (d.SECURITY_GROUP_RULE, ("protocol", "any"), None, True), (d.SECURITY_GROUP_RULE, ("protocol", "TCP"), "tcp", True),
    (d.SECURITY_GROUP_RULE, ("port_range_min", "22"), 22, True), (d.SUBNETPOOL, ("min_prefixlen", "8"), "8", True),
    (d.RBAC, ("object_type", "Network"), "network", True), (d.NETWORK, ("provider:segmentation_id", "7"), 7, True),
    (d.NETWORK, ("revision_number", "3"), 3, True), (d.PORT, ("fixed_ips", "ip_address=10.0.0.3"),
                                                     [{"ip_address": "10.0.0.3"}], True),
])
def test_filters_are_converted_as_values_are(resource: Resource, query: tuple[str, str], value: Any,
                                             found: bool) -> None:
    asked = listing.parse(resource, [query])
    assert listing.matches({query[0]: value, "tags": [], "updated_at": ""}, asked) is found


@pytest.mark.parametrize(("resource", "query"), [
    (d.NETWORK, ("admin_state_up", "perhaps")), (d.SUBNET, ("ip_version", "four")), (d.PORT, ("fixed_ips", "10.0.0.3")),
    (d.SECURITY_GROUP_RULE, ("ethertype", "arp")), (d.SECURITY_GROUP_RULE, ("port_range_min", "ssh")),
    # No filters and no keys to sort by, in Neutron's maps.
    (d.NETWORK, ("created_at", "x")), (d.NETWORK, ("port_security_enabled", "True")), (d.PORT, ("dns_name", "x")),
    (d.PORT, ("binding:vnic_type", "normal")), (d.ROUTER, ("status", "ACTIVE")), (d.SUBNET, ("host_routes", "x")),
    (d.NETWORK, ("sort_key", "shared")), (d.PORT, ("sort_key", "fixed_ips")), (d.RBAC, ("sort_key", "id")),
    (d.NETWORK, ("sort_key", "description")), (d.SUBNET, ("sort_key", "created_at")),
])
def test_what_no_list_can_be_asked_for(resource: Resource, query: tuple[str, str]) -> None:
    with pytest.raises((BadRequest, NotFound)):
        listing.parse(resource, [query])


@pytest.mark.parametrize("name", ["sort_key", "changed_since", "limit", "sort_dir", "x" * 5000])
def test_a_refusal_of_a_list_repeats_little(name: str) -> None:
    query = [("sort_key", "name")] * (name == "sort_dir") + [(name, "y" * 5000)]
    with pytest.raises(BadRequest) as error:
        listing.parse(d.NETWORK, query)
    assert len(error.value.message) < 200 and len(str(error.value.field)) < 100


@pytest.mark.parametrize("key", ["id", "name", "status", "admin_state_up", "mtu", "tenant_id", "project_id",
                                 "availability_zone_hints"])
def test_what_networks_are_sorted_by(key: str) -> None:
    assert listing.parse(d.NETWORK, [("sort_key", key)]).sort == [(key, False)]
