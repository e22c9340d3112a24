"""Every rule of the network service, asked by a request of its own, of each kind of caller.

Beside a rule stands who may: a project's reader, its member, its manager, another project's member, an administrator.
The answers are those of Neutron's default policies; where ours differ, Neutron's stand beside them with the reason.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from tests import schema
from tests.stories.network_cloud import THREE, Cloud

from nacre.network.api.service import service
from nacre.network.ml2.type_drivers import SegmentTypes
from nacre.network.policies import POLICIES
from nacre.network.work import COUNTED, NetworkSettings

#: In this order, a letter each: + it is done, - refused (403), 0 not found, / it is done without showing the attribute.
CALLERS = ("watcher", "one", "manager", "two", "admin")
SEE, OWN, NEW, MANAGE, ALL = "+++0+", "-++0+", "-++++", "--+0+", "+++++"
ADMIN, ADMIN_OF = "----+", "---0+"
PLURAL = {"network": "networks", "subnet": "subnets", "port": "ports", "security_group": "security-groups",
          "router": "routers", "floatingip": "floatingips", "subnetpool": "subnetpools",
          "address_scope": "address-scopes", "address_group": "address-groups", "rbac_policy": "rbac-policies",
          "security_group_rule": "security-group-rules", "trunk": "trunks"}
TAGGED = ("network", "subnet", "port", "security_group", "router", "floatingip", "subnetpool", "trunk")
#: Routes that ask no rule.
FREE = {"/": "says which versions there are", "/v2.0": "says what there is",
        "/v2.0/extensions": "says what there is, to whoever is logged in",
        "/v2.0/extensions/{alias}": "as above", "/v2.0/quotas/tenant": "the caller's own project",
        "/v2.0/quotas/project": "as above"}
SIX = {"name": "p", "prefixes": ["2001:db8::/48"]}


class Row(NamedTuple):
    """{thing} in path and body: a new one of "one", each time. fine: what `+` may answer besides 2xx; shows: an
    attribute of the answer. neutron: who may by Neutron's default policy, and why we differ."""

    rule: str
    may: str
    method: str
    path: str
    body: Any = None
    fine: int = 200
    shows: str = ""
    neutron: str = ""


def new(resource: str, attribute: str, may: str, body: dict[str, Any], **rest: Any) -> Row:
    rule = f"create_{resource}" + (f":{attribute}" if attribute else "")
    return Row(rule, may, "POST", f"/{PLURAL[resource]}", {resource: body}, **rest)


def put(resource: str, attribute: str, may: str, body: dict[str, Any], **rest: Any) -> Row:
    rule = f"update_{resource}" + (f":{attribute}" if attribute else "")
    return Row(rule, may, "PUT", f"/{PLURAL[resource]}/{{{resource}}}", {resource: body}, **rest)


def seen(resource: str, attribute: str, thing: str = "") -> Row:
    return Row(f"get_{resource}:{attribute}", "///0+", "GET", f"/{PLURAL[resource]}/{{{thing or resource}}}",
               shows=attribute)


ON, SHARED, GATE = {"network_id": "{network}"}, {"network_id": "{shared}"}, {"network_id": "{external}"}
BARE: dict[str, Any] = {"security_groups": []}
ADDRESS: dict[str, Any] = {"fixed_ips": [{"ip_address": "10.0.0.77"}]}
RBAC = {"object_type": "network", "object_id": "{network}", "action": "access_as_shared", "target_tenant": THREE}
PROVIDER = {"provider:network_type": {"provider:network_type": "vxlan"},
            "provider:physical_network": {"provider:network_type": "vlan", "provider:physical_network": "physnet1"},
            "provider:segmentation_id": {"provider:network_type": "vxlan", "provider:segmentation_id": 77000},
            "segments": {"segments": [{"provider:network_type": "vxlan"}]}}
MOVE = "a member, too, where nobody else is told: by hand an operator moves ports as well as Nova does"
DEFAULT = {"direction": "ingress", "used_in_default_sg": False, "used_in_non_default_sg": True}
#: A rule of each kind.
QOS: dict[str, Any] = {
    "bandwidth_limit_rule": {"max_kbps": 5}, "dscp_marking_rule": {"dscp_mark": 8}, "minimum_bandwidth_rule": {
        "min_kbps": 5}, "minimum_packet_rate_rule": {"min_kpps": 5}, "packet_rate_limit_rule": {"max_kpps": 5}}

ROWS: list[Row] = [
    # The five verbs.
    new("network", "", NEW, {}), new("subnet", "", OWN, ON | {"ip_version": 4, "cidr": "10.1.0.0/24"}),
    new("port", "", OWN, ON), new("security_group", "", NEW, {"name": "g"}), new("router", "", NEW, {}),
    new("security_group_rule", "", OWN, {"security_group_id": "{security_group}", "direction": "ingress"}),
    new("floatingip", "", NEW, {"floating_network_id": "{external}"}), new("subnetpool", "", NEW, SIX),
    new("address_scope", "", NEW, {"ip_version": 4}), new("address_group", "", NEW, {}),
    new("rbac_policy", "", OWN, RBAC), new("trunk", "", OWN, {"port_id": "{port}"}),
    *(Row(f"get_{r}", SEE, "GET", f"/{plural}/{{{r}}}") for r, plural in PLURAL.items()),
    *(Row(f"get_{r}", ALL, "GET", f"/{plural}") for r, plural in PLURAL.items()),
    *(Row(f"delete_{r}", OWN, "DELETE", f"/{plural}/{{{r}}}") for r, plural in PLURAL.items()),
    *(put(r, "", OWN, {"description": "x"} if r == "floatingip" else {"name": "x"}) for r in PLURAL
      if r not in ("security_group_rule", "rbac_policy")),
    put("rbac_policy", "", OWN, {"target_tenant": uuid4().hex}),
    # Tags.
    *(Row(f"{verb}_{r}:tags", SEE if verb == "get" else OWN, method, f"/{PLURAL[r]}/{{{r}}}/tags",
          None if verb in ("get", "delete") else {"tags": ["a"]})
      for r in TAGGED
      for verb, method in (("create", "POST"), ("get", "GET"), ("update", "PUT"), ("delete", "DELETE"))),
    *(Row(f"{verb}_{r}:tags", SEE if verb == "get" else OWN, method, f"/{PLURAL[r]}/{{{thing}{r}}}/tags/a")
      for r in TAGGED for verb, method, thing in (("get", "GET", "tagged_"), ("update", "PUT", ""),
                                                  ("delete", "DELETE", "tagged_"))),
    new("port", "tags", OWN, ON | {"tags": ["a"]}),
    # Attributes of networks.
    *(new("network", a, ADMIN, {a: True}) for a in ("shared", "router:external", "is_default")),
    *(put("network", a, ADMIN_OF, {a: True}) for a in ("shared", "router:external", "is_default")),
    *(new("network", a, ADMIN, body) for a, body in PROVIDER.items()),
    *(put("network", a, ADMIN_OF, body if a == "segments" else {a: 9 if a.endswith("id") else "x"}, fine=400)
      for a, body in PROVIDER.items()),
    new("network", "port_security_enabled", NEW, {"port_security_enabled": False}),
    put("network", "port_security_enabled", OWN, {"port_security_enabled": False}),
    *(seen("network", a) for a in list(PROVIDER)[:3]), seen("network", "segments", "multi"),
    # Of subnets and ports. What is asked of a port on another's network is asked of its owner.
    new("subnet", "service_types", ADMIN_OF, ON | {"ip_version": 4, "cidr": "10.1.0.0/24",
                                                   "service_types": ["compute:nova"]}),
    put("subnet", "service_types", ADMIN_OF, {"service_types": ["compute:nova"]}),
    new("port", "fixed_ips", NEW, SHARED | {"fixed_ips": []}), put("port", "fixed_ips", OWN, {"fixed_ips": []}),
    *(row for verb, on in ((new, {"network_id": "{wired}"}), (put, {})) for row in (
        verb("port", "fixed_ips:subnet_id", OWN, on | {"fixed_ips": [{"subnet_id": "{wired_subnet}"}]}),
        verb("port", "binding:vnic_type", OWN, on | {"binding:vnic_type": "direct"}))),
    new("port", "fixed_ips:ip_address", ADMIN, SHARED | ADDRESS),
    new("port", "fixed_ips:ip_address", OWN, {"network_id": "{wired}"} | ADDRESS),
    put("port", "fixed_ips:ip_address", OWN, ADDRESS),
    *(row for attribute, value in (
        ("allowed_address_pairs", [{"ip_address": "10.0.0.99"}]), ("port_security_enabled", False))
      for row in (new("port", attribute, ADMIN, SHARED | {attribute: value}),
                  new("port", attribute, OWN, {"network_id": "{wired}", attribute: value}),
                  put("port", attribute, OWN, {attribute: value} | BARE if value is False else {attribute: value}))),
    new("port", "mac_address", ADMIN, SHARED | {"mac_address": "fa:16:3e:00:00:01"}),
    put("port", "mac_address", MANAGE, {"mac_address": "fa:16:3e:00:00:02"}),
    *(row for verb in (new, put) for attribute, value, why in (
        ("device_owner", "network:dhcp", "-++0+: the owner of the network may, too; its DHCP and router ports are the "
                                         "cloud's own here, and trusted by hosts"),
        ("binding:host_id", "h1", ""), ("binding:profile", {"a": 1}, f"-----: services alone; {MOVE}"))
      for row in [verb("port", attribute, ADMIN_OF, (ON if verb is new else {}) | {attribute: value}, neutron=why)]),
    *(seen("port", a) for a in ("binding:host_id", "binding:profile", "binding:vif_type", "binding:vif_details",
                                "resource_request")),
    # Of routers and floating IPs.
    *(row for attribute, may, info in (
        ("", NEW, {}), (":network_id", NEW, {}), (":enable_snat", ADMIN, {"enable_snat": False}),
        (":external_fixed_ips", ADMIN, {"external_fixed_ips": []}))
      for row in (new("router", f"external_gateway_info{attribute}", may, {"external_gateway_info": GATE | info}),
                  put("router", f"external_gateway_info{attribute}", may[:3] + "0+",
                      {"external_gateway_info": GATE | info}))),
    *(row for a in ("distributed", "ha") for row in (
        new("router", a, ADMIN, {a: False}), put("router", a, ADMIN_OF, {a: False}), seen("router", a))),
    new("floatingip", "floating_ip_address", "--+-+", {"floating_network_id": "{external}",
                                                       "floating_ip_address": "203.0.113.77"}),
    *(Row(f"{verb}_floatingip_port_forwarding", may, method, "/floatingips/{forwarded}/port_forwardings" + one, body)
      for verb, may, method, one, body in (
        ("get", SEE, "GET", "", None), ("get", SEE, "GET", "/{forwarding}", None),
        ("create", OWN, "POST", "", {"port_forwarding": {
            "internal_port_id": "{inner}", "internal_port": 81, "external_port": 8081, "protocol": "tcp"}}),
        ("update", OWN, "PUT", "/{forwarding}", {"port_forwarding": {"description": "x"}}),
        ("delete", OWN, "DELETE", "/{forwarding}", None))),
    Row("get_floatingip_pool", ALL, "GET", "/floatingip-pools"),
    # Of what is shared.
    new("subnetpool", "is_default", ADMIN, SIX | {"is_default": True}),
    put("subnetpool", "is_default", ADMIN_OF, {"is_default": True}),
    new("subnetpool", "shared", ADMIN, SIX | {"shared": True}),
    new("address_scope", "shared", ADMIN, {"ip_version": 4, "shared": True}),
    put("address_scope", "shared", ADMIN_OF, {"shared": True}),
    new("rbac_policy", "target_tenant", ADMIN, RBAC | {"target_tenant": "*"}),
    put("rbac_policy", "target_tenant", ADMIN_OF, {"target_tenant": "*"}),
    new("rbac_policy", "", ADMIN_OF, RBAC | {"action": "access_as_external"},
        neutron="-++0+: whoever may not make an external network makes one so; here that is create_network's to say"),
    # Actions.
    Row("add_router_interface", OWN, "PUT", "/routers/{router}/add_router_interface", {"subnet_id": "{subnet}"}),
    Row("remove_router_interface", OWN, "PUT", "/routers/{joined}/remove_router_interface",
        {"subnet_id": "{joined_subnet}"}),
    *(Row(f"{verb}_extraroutes", OWN, "PUT", f"/routers/{{router}}/{verb}_extraroutes", {"router": {"routes": []}})
      for verb in ("add", "remove")),
    Row("add_addresses", OWN, "PUT", "/address-groups/{address_group}/add_addresses",
        {"addresses": ["192.0.2.128/25"]}),
    Row("remove_addresses", OWN, "PUT", "/address-groups/{address_group}/remove_addresses",
        {"addresses": ["192.0.2.0/25"]}),
    Row("add_prefixes", OWN, "PUT", "/subnetpools/{subnetpool}/add_prefixes", {"prefixes": ["172.16.0.0/16"]}),
    Row("remove_prefixes", OWN, "PUT", "/subnetpools/{subnetpool}/remove_prefixes", {"prefixes": ["10.0.0.0/16"]}),
    Row("onboard_network_subnets", OWN, "PUT", "/subnetpools/{subnetpool}/onboard_network_subnets", fine=501),
    # Trunks, QoS.
    Row("get_subports", SEE, "GET", "/trunks/{trunk}/get_subports"),
    *(Row(f"{verb}_subports", OWN, "PUT", f"/trunks/{{trunk}}/{verb}_subports", {"sub_ports": []})
      for verb in ("add", "remove")),
    Row("create_policy", "--+-+", "POST", "/qos/policies", {"policy": {}}),
    Row("get_policy", SEE, "GET", "/qos/policies/{policy}"), Row("get_policy", ALL, "GET", "/qos/policies"),
    Row("update_policy", MANAGE, "PUT", "/qos/policies/{policy}", {"policy": {"name": "x"}}),
    Row("delete_policy", MANAGE, "DELETE", "/qos/policies/{policy}"),
    *(Row(f"{verb}_policy:tags", SEE if verb == "get" else MANAGE, method, f"{where}/{{policy}}/tags",
          None if verb in ("get", "delete") else {"tags": ["a"]})
      for where in ("/qos/policies", "/policies")
      for verb, method in (("create", "POST"), ("get", "GET"), ("update", "PUT"), ("delete", "DELETE"))),
    *(Row(f"{verb}_policy:tags", SEE if verb == "get" else MANAGE, method, f"{where}/{{tagged_policy}}/tags/a")
      for where in ("/qos/policies", "/policies")
      for verb, method in (("get", "GET"), ("update", "PUT"), ("delete", "DELETE"))),
    Row("get_rule_type", ALL, "GET", "/qos/rule-types"),
    Row("get_rule_type", ADMIN, "GET", "/qos/rule-types/dscp_marking",
        neutron="+++++: the rule lets all readers pass, and then Neutron's own code refuses all but administrators"),
    *(row for kind, value in QOS.items() for row in (
        Row(f"create_policy_{kind}", "--+-+", "POST", f"/qos/policies/{{policy}}/{kind}s", {kind: value}),
        Row(f"get_policy_{kind}", SEE, "GET", f"/qos/policies/{{policy}}/{kind}s"),
        Row(f"get_policy_{kind}", SEE, "GET", f"/qos/policies/{{policy_of_{kind}}}/{kind}s/{{{kind}}}"),
        Row(f"update_policy_{kind}", MANAGE, "PUT", f"/qos/policies/{{policy_of_{kind}}}/{kind}s/{{{kind}}}",
            {kind: value}),
        Row(f"delete_policy_{kind}", MANAGE, "DELETE", f"/qos/policies/{{policy_of_{kind}}}/{kind}s/{{{kind}}}"))),
    *(row for kind, value in QOS.items() if kind != "packet_rate_limit_rule"
      for path in [f"/qos/alias-{kind.replace('_', '-')}s/{{{kind}}}"] for row in (
        Row(f"get_alias_{kind}", SEE, "GET", path), Row(f"update_alias_{kind}", MANAGE, "PUT", path, {kind: value}),
        Row(f"delete_alias_{kind}", MANAGE, "DELETE", path))),
    # What operators lay down.
    Row("create_default_security_group_rule", ADMIN, "POST", "/default-security-group-rules", {
        "default_security_group_rule": DEFAULT | {"protocol": "tcp"}}, fine=409),
    Row("get_default_security_group_rule", ALL, "GET", "/default-security-group-rules"),
    Row("get_default_security_group_rule", ALL, "GET", "/default-security-group-rules/{default_rule}"),
    Row("delete_default_security_group_rule", ADMIN, "DELETE", "/default-security-group-rules/{default_rule}"),
    *(Row(f"{verb}_network_segment_range{part}", ADMIN, method, f"/network-segment-ranges{path}", body)
      for verb, method, part, path, body in (
          ("create", "POST", "", "", {"network_segment_range": {
              "network_type": "vlan", "physical_network": "physnet9", "minimum": 5, "maximum": 6}}),
          ("get", "GET", "", "", None), ("get", "GET", "", "/{range}", None),
          ("update", "PUT", "", "/{range}", {"network_segment_range": {"name": "x"}}),
          ("delete", "DELETE", "", "/{range}", None),
          *((verb, method, ":tags", "/{range}/tags", None if method in ("GET", "DELETE") else {"tags": ["a"]})
            for verb, method in (("create", "POST"), ("get", "GET"), ("update", "PUT"), ("delete", "DELETE"))),
          *((verb, method, ":tags", "/{tagged_range}/tags/a", None)
            for verb, method in (("get", "GET"), ("update", "PUT"), ("delete", "DELETE"))))),
    *(Row(f"{verb}_segment", ADMIN, method, f"/segments{path}", body) for verb, method, path, body in (
        ("create", "POST", "", {"segment": {"network_id": "{network}", "network_type": "vlan",
                                            "physical_network": "physnet1"}}),
        ("get", "GET", "", None), ("get", "GET", "/{segment}", None),
        ("update", "PUT", "/{segment}", {"segment": {"name": "x"}}), ("delete", "DELETE", "/{segment}", None))),
    new("subnet", "segment_id", ADMIN_OF, fine=400, body=ON | {
        "ip_version": 4, "cidr": "10.1.0.0/24", "segment_id": "{segment}"}),
    put("subnet", "segment_id", ADMIN_OF, {"segment_id": None}), seen("subnet", "segment_id"),
    Row("get_auto_allocated_topology", SEE.replace("0", "-"), "GET", "/auto-allocated-topology/p-one?fields=dry-run",
        fine=409),
    Row("delete_auto_allocated_topology", OWN.replace("0", "-"), "DELETE", "/auto-allocated-topology/p-one"),
    # What operators look at.
    Row("get_agent", ALL, "GET", "/agents"),  # empty for who may see none, as Neutron's
    Row("get_agent", ADMIN, "GET", "/agents/{agent}"), Row("create_agent", ADMIN, "POST", "/agents", {}, fine=400),
    Row("update_agent", ADMIN, "PUT", "/agents/{agent}", {"agent": {"description": "x"}}),
    Row("get_dhcp-agents", ADMIN, "GET", "/networks/{network}/dhcp-agents"),
    Row("get_dhcp-networks", ADMIN, "GET", "/agents/{agent}/dhcp-networks"),
    Row("create_dhcp-network", ADMIN, "POST", "/agents/{agent}/dhcp-networks", fine=501),
    Row("delete_dhcp-network", ADMIN, "DELETE", "/agents/{agent}/dhcp-networks/{network}", fine=501),
    Row("get_l3-agents", ADMIN, "GET", "/routers/{router}/l3-agents"),
    Row("get_l3-routers", ADMIN, "GET", "/agents/{agent}/l3-routers"),
    Row("create_l3-router", ADMIN, "POST", "/agents/{agent}/l3-routers", fine=501),
    Row("delete_l3-router", ADMIN, "DELETE", "/agents/{agent}/l3-routers/{router}", fine=501),
    Row("get_port_binding", ADMIN, "GET", "/ports/{bound}/bindings"),
    Row("get_port_binding", ADMIN, "GET", "/ports/{bound}/bindings/h1"),
    *(Row(f"{verb}_port_binding", ADMIN, method, f"/ports/{{bound}}/bindings{host}", body, neutron=f"-----: {MOVE}")
      for verb, method, host, body in (("create", "POST", "", {"binding": {"host": "h2"}}),
                                       ("update", "PUT", "/h1", {"binding": {"vnic_type": "normal"}}),
                                       ("delete", "DELETE", "/h1", None))),
    Row("activate", ADMIN, "PUT", "/ports/{moving}/bindings/h2/activate", neutron=f"-----: {MOVE}"),
    Row("get_quota", ADMIN, "GET", "/quotas", neutron="--+-+: a project's manager sees all projects' limits"),
    Row("get_quota", ADMIN, "GET", f"/quotas/{THREE}"), Row("get_quota", SEE.replace("0", "-"), "GET", "/quotas/p-one"),
    *(Row("get_quota", ADMIN, "GET", f"/quotas/{THREE}/{part}") for part in ("details", "details.json", "default")),
    Row("update_quota", ADMIN, "PUT", "/quotas/p-one", {"quota": {"port": -1}}),
    Row("delete_quota", ADMIN, "DELETE", "/quotas/p-three"),
    Row("get_availability_zone", ALL, "GET", "/availability_zones"),
    Row("get_service_provider", ALL, "GET", "/service-providers"),
    Row("get_network_ip_availability", ADMIN, "GET", "/network-ip-availabilities"),
    Row("get_network_ip_availability", ADMIN, "GET", "/network-ip-availabilities/{network}"),
    Row("delete_agent", ADMIN, "DELETE", "/agents/{agent}"),
]


class Things:
    """Makes what a row names. Everything is project p-one's."""

    def __init__(self, cloud: Cloud):
        self.cloud = cloud
        self._also: dict[str, str] = {}

    async def fill(self, text: str) -> str:
        for name in dict.fromkeys(re.findall(r"\{([a-z_]+)\}", text)):
            if f"{{{name}}}" in text:
                found = self._also.pop(name, None) or await self._make(name)
                text = text.replace(f"{{{name}}}", found)
        return text

    async def _make(self, name: str) -> str:
        if name.startswith("tagged_"):
            found = await self._make(what := name.removeprefix("tagged_"))
            plural = PLURAL.get(what, "network-segment-ranges" if what == "range" else "qos/policies")
            await self.cloud.call("admin", "PUT", f"/{plural}/{found}/tags/a", expect=201)
            return found
        if (kind := name.removeprefix("policy_of_")) in QOS:
            policy, self._also[kind] = await self._qos(kind)
            return policy if kind != name else self._also.pop(kind)
        make: Callable[[], Awaitable[str]] | None = getattr(self, f"_{name}", None)
        if make:
            return await make()
        bodies: dict[str, dict[str, Any]] = {
            "network": {}, "router": {}, "trunk": {"port_id": "{port}"},
            "security_group": {"name": "g"}, "address_scope": {"ip_version": 4},
            "subnetpool": {"name": "p", "prefixes": ["10.0.0.0/8"], "min_prefixlen": 24},
            "address_group": {"addresses": ["192.0.2.0/25"]}, "rbac_policy": RBAC,
            "security_group_rule": {"security_group_id": "{security_group}", "direction": "ingress"},
            "floatingip": {"floating_network_id": "{external}"}}
        return await self.post(name, bodies[name])

    async def post(self, resource: str, body: dict[str, Any], who: str = "one") -> str:
        filled = json.loads(await self.fill(json.dumps({resource: body})))
        return str((await self.cloud.call(who, "POST", f"/{PLURAL[resource]}", filled))[resource]["id"])

    async def _default_rule(self) -> str:
        port = 1 + len((await self.cloud.call("admin", "GET", "/default-security-group-rules")).popitem()[1])
        made = await self.cloud.call("admin", "POST", "/default-security-group-rules", {
            "default_security_group_rule": DEFAULT | {"protocol": "udp", "port_range_min": port,
                                                      "port_range_max": port}})
        return str(made["default_security_group_rule"]["id"])

    async def _range(self) -> str:
        start = 2000 + 10 * len((await self.cloud.call("admin", "GET", "/network-segment-ranges")).popitem()[1])
        made = await self.cloud.call("admin", "POST", "/network-segment-ranges", {"network_segment_range": {
            "network_type": "vlan", "physical_network": "physnet8", "minimum": start, "maximum": start + 9}})
        return str(made["network_segment_range"]["id"])

    async def _segment(self) -> str:
        found = await self.cloud.call("admin", "GET", f"/segments?network_id={await self._make('network')}")
        return str(found["segments"][0]["id"])

    async def _policy(self) -> str:
        made = await self.cloud.call("manager", "POST", "/qos/policies", {"policy": {}})
        return str(made["policy"]["id"])

    async def _qos(self, kind: str) -> tuple[str, str]:
        policy = await self._policy()
        made = await self.cloud.call("manager", "POST", f"/qos/policies/{policy}/{kind}s", {kind: QOS[kind]})
        return policy, made[kind]["id"]

    async def _wired(self) -> str:
        network, self._also["wired_subnet"] = await self.cloud.network_with_subnet()
        return network

    async def _subnet(self) -> str:
        return (await self.cloud.network_with_subnet())[1]

    async def _port(self) -> str:
        return await self.post("port", {"network_id": "{wired}"})

    async def _shared(self) -> str:
        return (await self.cloud.network_with_subnet("admin", shared=True))[0]

    async def _external(self) -> str:
        return (await self.cloud.network_with_subnet("admin", "203.0.113.0/24", **{"router:external": True}))[0]

    async def _multi(self) -> str:
        vlan = {"provider:network_type": "vlan", "provider:physical_network": "physnet1"}
        return await self.post("network", {"project_id": "p-one", "segments": [
            vlan, {"provider:network_type": "vxlan"}]}, "admin")

    async def _joined(self) -> str:
        router, self._also["joined_subnet"] = await self.post("router", {}), await self._subnet()
        await self.cloud.call("one", "PUT", f"/routers/{router}/add_router_interface",
                              {"subnet_id": self._also["joined_subnet"]})
        return router

    async def _forwarded(self) -> str:
        external, router = await self._external(), await self._joined()
        await self.cloud.call("one", "PUT", f"/routers/{router}", {"router": {
            "external_gateway_info": {"network_id": external}}})
        subnet = (await self.cloud.call("one", "GET", f"/subnets/{self._also.pop('joined_subnet')}"))["subnet"]
        found, self._also["inner"] = await self.post("floatingip", {"floating_network_id": external}), await self.post(
            "port", {"network_id": subnet["network_id"]})
        self._also["forwarding"] = (await self.cloud.call(
            "one", "POST", f"/floatingips/{found}/port_forwardings", {"port_forwarding": {
                "internal_port_id": self._also["inner"], "internal_port": 80, "external_port": 8080,
                "protocol": "tcp"}}))["port_forwarding"]["id"]
        return found

    async def _bound(self) -> str:
        port = await self.post("port", {"network_id": "{wired}", "device_owner": "compute:nova"})
        await self.cloud.call("admin", "PUT", f"/ports/{port}", {"port": {"binding:host_id": "h1"}})
        return port

    async def _moving(self) -> str:
        port = await self._bound()
        await self.cloud.call("admin", "POST", f"/ports/{port}/bindings", {"binding": {"host": "h2"}})
        return port

    async def _agent(self) -> str:
        return str((await self.cloud.call("admin", "GET", "/agents?host=h1"))["agents"][0]["id"])


#: Asked when a server is made, by none of these routes (`test_ports_of_servers.py`).
ELSEWHERE = {"network:attach_external_network"}


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    db = schema.in_memory()
    made = Cloud(db, NetworkSettings(types=SegmentTypes(vlan_ranges={"physnet1": (100, 999)}),
                                     quotas=dict.fromkeys(COUNTED, -1)))
    for n in (1, 2):
        await made.host(f"h{n}", f"192.0.2.{n}")
    yield made
    await db.close()


async def answer(cloud: Cloud, row: Row, caller: str) -> str:
    things = Things(cloud)
    path = await things.fill(row.path)
    body = json.loads(await things.fill(json.dumps(row.body)))
    async with cloud.client(caller) as client:
        found = await client.request(row.method, f"/v2.0{path}", json=body)
    if found.status_code in (403, 404):
        return "-" if found.status_code == 403 else "0"
    if found.status_code >= 300 and found.status_code != row.fine:
        return f" {caller}: {found.status_code} {found.text[:200]} "
    return "/" if row.shows and row.shows not in next(iter(found.json().values())) else "+"


async def test_every_rule_is_asked_and_answered_as_neutron_does(cloud: Cloud) -> None:
    wrong: list[str] = []
    for row in ROWS:
        before = cloud.policy.rules
        cloud.policy.rules = set()
        got = "".join([await answer(cloud, row, caller) for caller in CALLERS])
        if got != row.may:
            wrong.append(f"{row.rule} {row.method} {row.path} {row.body}: {got}, not {row.may}")
        if row.rule not in cloud.policy.rules:
            wrong.append(f"{row.rule} is not asked by {row.method} {row.path} {row.body}")
        cloud.policy.rules |= before
    assert not wrong, "\n".join(wrong)
    assert set(POLICIES) - cloud.policy.rules == ELSEWHERE, "declared, and asked by nobody"


def test_every_route_has_a_row(cloud: Cloud) -> None:
    asked = {(row.method, f"/v2.0{row.path}") for row in ROWS}
    without = [(r.method, r.path) for r in service(cloud.network).routes if r.path not in FREE and not any(
        r.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", r.path), path) for method, path in asked)]
    assert without == []


def test_every_rule_has_a_row() -> None:
    assert {row.rule for row in ROWS} == set(POLICIES) - ELSEWHERE
    assert all(not row.neutron or re.match(r"[-+0]{5}: \w", row.neutron) for row in ROWS)
    assert all(row.neutron[:5] != row.may for row in ROWS)
