"""Subnets: what is kept of them, and what the API says of them."""

from nacre.network import tables as t
from nacre.network.nouns import checks as c
from nacre.network.nouns import shapes
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, VERSION, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Named, View

#: IPv6 modes in which the guest derives its own address from the prefix and its MAC.
AUTO_MODES = ("slaac", "dhcpv6-stateless")
_MODES = c.one_of("slaac", "dhcpv6-stateful", "dhcpv6-stateless", None)


class Subnet(Named, frozen=True):
    """service_types: the owners of ports that it is kept for; none: of all."""

    TABLE = t.subnets
    network_id: str
    ip_version: int
    cidr: str
    gateway_ip: str | None
    enable_dhcp: bool
    allocation_pools: list[dict[str, str]]
    dns_nameservers: list[str]
    host_routes: list[dict[str, str]]
    ipv6_ra_mode: str | None
    ipv6_address_mode: str | None
    subnetpool_id: str | None
    service_types: list[str]
    segment_id: str | None

    @property
    def automatic(self) -> bool:
        """Whether its addresses come from the guests' MACs (SLAAC, stateless DHCPv6)."""
        return self.ipv6_address_mode in AUTO_MODES


SUBNET = resource("subnet", "subnets", [
    A("network_id", c.uuid_, post=True, required=True),
    A("ip_version", post=True, required=True, **VERSION),
    A("cidr", c.maybe(c.subnet_cidr), post=True, convert=c.subnet_cidr),
    A("gateway_ip", c.maybe(c.ip), convert=c.canonical_ip, **BOTH),
    A("enable_dhcp", default=True, **FLAG, **BOTH),
    A("allocation_pools", c.pools, **MUTE, **BOTH),
    A("dns_nameservers", c.nameservers, default=[], **MUTE, **BOTH),
    A("host_routes", c.host_routes, default=[], **MUTE, **BOTH),
    A("ipv6_ra_mode", _MODES, post=True, default=None),
    A("ipv6_address_mode", _MODES, post=True, default=None),
    A("subnetpool_id", c.maybe(shapes.pool_id), post=True),
    A("prefixlen", c.number(0, 128), post=True, visible=False, **MUTE),
    A("use_default_subnetpool", c.boolean, post=True, default=False, visible=False, **MUTE),
    A("service_types", shapes.service_types, default=[], guard=True, **MUTE, **BOTH),
    A("segment_id", c.maybe(c.uuid_), default=None, guard=True, secret=True, **BOTH),
    A("router:external", sort=False, **FLAG), A("shared", visible=False, sort=False, **FLAG),
])


def view(subnet: Subnet, *, external: bool, shared: bool) -> View:
    """external, shared: its network is."""
    return subnet.standard() | {
        "network_id": subnet.network_id, "ip_version": subnet.ip_version, "cidr": subnet.cidr,
        "gateway_ip": subnet.gateway_ip, "enable_dhcp": subnet.enable_dhcp,
        "allocation_pools": subnet.allocation_pools, "dns_nameservers": subnet.dns_nameservers,
        "host_routes": subnet.host_routes, "ipv6_ra_mode": subnet.ipv6_ra_mode,
        "ipv6_address_mode": subnet.ipv6_address_mode, "subnetpool_id": subnet.subnetpool_id,
        "service_types": subnet.service_types, "segment_id": subnet.segment_id, "router:external": external,
        "shared": shared}
