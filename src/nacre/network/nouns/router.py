"""Routers, floating IPs and port forwardings: what is kept of them, and what the API says of them."""

from collections.abc import Sequence

from nacre.network import tables as t
from nacre.network.nouns import checks as c
from nacre.network.nouns import shapes
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, Resource, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Named, Noun, Standard, View
from nacre.network.nouns.port import Fixed, Port


class Router(Named, frozen=True):
    """Its interfaces are the ports whose device it is; its gateway is one more. gateway_host: the host that translates
    for it, by the election of the number gateway_term; None: none is elected. distributed, ha: what an administrator
    wished; every router is both."""

    TABLE = t.routers
    admin_state_up: bool
    gateway_port_id: str | None
    gateway_network_id: str | None
    enable_snat: bool
    routes: list[dict[str, str]]
    availability_zone_hints: list[str]
    gateway_host: str | None
    gateway_term: int
    distributed: bool
    ha: bool


class FloatingIp(Standard, frozen=True):
    """floating_port_id: the port that holds its address outside. port_id, fixed_ip_address: what it stands for, reached
    by the router; None: nothing."""

    TABLE = t.floatingips
    floating_network_id: str
    floating_ip_address: str
    floating_port_id: str
    port_id: str | None
    fixed_ip_address: str | None
    router_id: str | None
    status: str
    dns_name: str
    dns_domain: str


class PortForwarding(Noun, frozen=True):
    """Ports of a floating IP's address, from the first to the last, that lead to as many of an address inside, or all
    to one."""

    TABLE = t.port_forwardings
    id: str
    project_id: str
    floatingip_id: str
    internal_port_id: str
    description: str
    protocol: str
    external_first: int
    external_last: int
    internal_ip_address: str
    internal_first: int
    internal_last: int


class Topology(Noun, frozen=True):
    """The network and router that a project was given on demand."""

    TABLE = t.topologies
    project_id: str
    network_id: str
    router_id: str


ROUTER = resource("router", "routers", [
    A("admin_state_up", default=True, **FLAG, **BOTH), A("status", filter=False, sort=True),
    A("external_gateway_info", shapes.gateway_info, default=None, guard=True, **MUTE, **BOTH),
    A("routes", c.listing(c.route, unique=True), put=True, **MUTE),
    A("availability_zone_hints", shapes.hints, post=True, default=[], **MUTE), A("availability_zones", **MUTE),
    A("distributed", c.maybe(c.boolean), guard=True, secret=True, sort=False, **BOTH),
    A("ha", c.maybe(c.boolean), guard=True, secret=True, sort=False, **BOTH),
    A("flavor_id", **MUTE), A("service_type_id", **MUTE), A("enable_ndp_proxy", **MUTE),
])

FLOATINGIP = resource("floatingip", "floatingips", [
    A("floating_network_id", c.uuid_, post=True, required=True),
    A("floating_ip_address", c.maybe(c.ip), post=True, default=None, guard=True, convert=c.canonical_ip),
    A("subnet_id", c.maybe(c.uuid_), post=True, default=None, visible=False, **MUTE),
    A("port_id", c.maybe(c.uuid_), sort=False, **BOTH),
    A("fixed_ip_address", c.maybe(c.ip), **BOTH),
    A("router_id", c.maybe(c.uuid_), **BOTH), A("status"), A("port_details", **MUTE), A("port_forwardings", **MUTE),
    A("dns_name", c.dns_relative, post=True, default="", **MUTE),
    A("dns_domain", c.dns_domain, post=True, default="", **MUTE),
    A("qos_policy_id", **MUTE), A("qos_network_policy_id", **MUTE),
], named=False)

_PORT = c.maybe(c.number(1, 65535))
PORT_FORWARDING = Resource("port_forwarding", "port_forwardings", {each.name: each for each in (
    A("id"), A("project_id", c.text(64), post=True, visible=False, **MUTE), A("tenant_id", visible=False, **MUTE),
    A("internal_port_id", c.uuid_, required=True, **BOTH), A("internal_ip_address", c.maybe(c.ip), **MUTE, **BOTH),
    A("internal_port", _PORT, **MUTE, **BOTH), A("internal_port_range", shapes.port_range, **MUTE, **BOTH),
    A("external_port", _PORT, convert=c.integer, **BOTH), A("external_port_range", shapes.port_range, **BOTH),
    A("protocol", shapes.forwarded_protocol, required=True, convert=shapes.lower, **BOTH),
    A("description", c.text(255), default="", sort=False, **BOTH),
)})


def view(router: Router, fixed: Fixed) -> View:
    """fixed: its gateway's addresses."""
    info = {"network_id": router.gateway_network_id, "enable_snat": router.enable_snat,
            "external_fixed_ips": [{"subnet_id": s, "ip_address": a} for s, a in fixed]}
    return router.standard() | {
        "admin_state_up": router.admin_state_up, "status": "ACTIVE",
        "external_gateway_info": info if router.gateway_port_id else None,
        "routes": router.routes, "availability_zone_hints": router.availability_zone_hints,
        "availability_zones": ["nova"], "distributed": router.distributed, "ha": router.ha, "flavor_id": None,
        "service_type_id": None}


def interface_view(router: Router, port_id: str, network_id: str, subnet_ids: Sequence[str]) -> View:
    """A port that joined the router, or left it."""
    return {"id": router.id, "project_id": router.project_id, "tenant_id": router.project_id, "port_id": port_id,
            "network_id": network_id, "subnet_id": subnet_ids[0], "subnet_ids": list(subnet_ids), "tags": router.tags}


def floatingip_view(floating: FloatingIp, port: Port | None, forwarded: Sequence[PortForwarding]) -> View:
    """port: for which it stands. forwarded: what leads from it to others."""
    details = port and {
        "name": port.name, "network_id": port.network_id, "mac_address": port.mac_address,
        "admin_state_up": port.admin_state_up, "status": port.status, "device_id": port.device_id,
        "device_owner": port.device_owner}
    return floating.standard() | {
        "floating_network_id": floating.floating_network_id, "floating_ip_address": floating.floating_ip_address,
        "port_id": floating.port_id, "fixed_ip_address": floating.fixed_ip_address, "router_id": floating.router_id,
        "status": floating.status, "dns_name": floating.dns_name, "dns_domain": floating.dns_domain,
        "port_details": details, "port_forwardings": [_within(each) for each in forwarded], "qos_policy_id": None}


def _within(each: PortForwarding) -> View:
    """As its floating IP shows it: as in Neutron, a range is not named there."""
    single = {name: value for name, value in (
        ("external_port", _single(each.external_first, each.external_last)),
        ("internal_port", _single(each.internal_first, each.internal_last))) if value is not None}
    return {"id": each.id, "protocol": each.protocol, "internal_ip_address": each.internal_ip_address,
            "internal_port_id": each.internal_port_id} | single


def forwarding_view(each: PortForwarding) -> View:
    return {"id": each.id, "protocol": each.protocol, "description": each.description,
            "internal_port_id": each.internal_port_id, "internal_ip_address": each.internal_ip_address,
            "internal_port": _single(each.internal_first, each.internal_last),
            "internal_port_range": f"{each.internal_first}:{each.internal_last}",
            "external_port": _single(each.external_first, each.external_last),
            "external_port_range": f"{each.external_first}:{each.external_last}"}


def _single(first: int, last: int) -> int | None:
    return first if first == last else None
