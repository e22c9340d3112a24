"""Networks and their segments: what is kept of them, and what the API says of a network."""

from collections.abc import Sequence

from nacre.network import tables as t
from nacre.network.ml2.driver_api import Segment
from nacre.network.nouns import checks as c
from nacre.network.nouns import shapes
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Named, Noun, View


class Network(Named, frozen=True):
    """external: also in the policies that share it, which say to whom."""

    TABLE = t.networks
    admin_state_up: bool
    mtu: int
    port_security_enabled: bool
    external: bool
    is_default: bool
    dns_domain: str
    availability_zone_hints: list[str]


class NetworkSegment(Noun, frozen=True):
    """claim: what no two segments of the cloud may have alike; None where there may be many."""

    TABLE = t.segments
    id: str
    network_id: str
    network_type: str
    physical_network: str | None
    segmentation_id: int | None
    position: int
    dynamic: bool
    claim: str | None

    def offered(self) -> Segment:
        """As mechanism drivers see it."""
        return Segment(id=self.id, network_type=self.network_type, physical_network=self.physical_network,
                       segmentation_id=self.segmentation_id, dynamic=self.dynamic)


PROVIDER = ("provider:network_type", "provider:physical_network", "provider:segmentation_id")
_SEGMENT = c.mapping({
    "provider:network_type": c.text(32), "provider:physical_network": c.maybe(c.text(64)),
    "provider:segmentation_id": c.maybe(c.number(0)),
})

NETWORK = resource("network", "networks", [
    A("admin_state_up", default=True, **FLAG, **BOTH), A("status"), A("subnets", **MUTE),
    A("shared", default=False, guard=True, sort=False, **FLAG, **BOTH),
    A("router:external", default=False, guard=True, sort=False, **FLAG, **BOTH),
    A("is_default", default=False, guard=True, sort=False, **FLAG, **BOTH),
    A("port_security_enabled", c.boolean, default=True, guard=True, **MUTE, **BOTH),
    A("mtu", c.number(0, 65535), default=0, convert=c.integer, **BOTH),
    A("dns_domain", c.dns_domain, default="", **MUTE, **BOTH),
    A("availability_zone_hints", shapes.hints, post=True, default=[], filter=False, sort=True),
    A("availability_zones", **MUTE), A("ipv4_address_scope", **MUTE), A("ipv6_address_scope", **MUTE),
    A("vlan_transparent", **MUTE),
    A("provider:network_type", c.text(32), guard=True, secret=True, sort=False, **BOTH),
    A("provider:physical_network", c.maybe(c.text(64)), guard=True, secret=True, sort=False, **BOTH),
    A("provider:segmentation_id", c.maybe(c.number(0)), guard=True, secret=True, sort=False, convert=c.integer,
      **BOTH),
    A("segments", c.listing(_SEGMENT, limit=10), guard=True, secret=True, **MUTE, **BOTH),
])


def view(network: Network, subnets: Sequence[str], segments: Sequence[NetworkSegment], shared: bool) -> View:
    """subnets: their ids. shared: with whoever looks."""
    return network.standard() | {
        "admin_state_up": network.admin_state_up, "status": "ACTIVE", "subnets": list(subnets), "shared": shared,
        "router:external": network.external, "port_security_enabled": network.port_security_enabled,
        "mtu": network.mtu, "dns_domain": network.dns_domain,
        "availability_zone_hints": network.availability_zone_hints,
        "availability_zones": ["nova"] if subnets else [], "ipv4_address_scope": None, "ipv6_address_scope": None,
        "vlan_transparent": None, "is_default": network.is_default} | provider(segments)


def provider(segments: Sequence[NetworkSegment]) -> View:
    """What operators see of a network's segments: one of them is of the network itself, several are a list."""
    each = [dict(zip(PROVIDER, (s.network_type, s.physical_network, s.segmentation_id), strict=True)) for s in segments]
    if len(each) > 1:
        return {"segments": each, **dict.fromkeys(PROVIDER)}
    return each[0] if each else dict.fromkeys(PROVIDER)
