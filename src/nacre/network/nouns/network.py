"""Networks and their segments: what is kept of them, and what the API says of a network."""

from collections.abc import Mapping, Sequence
from typing import Any

from nacre.network import tables as t
from nacre.network.ml2.driver_api import Segment
from nacre.network.nouns import checks as c
from nacre.network.nouns import shapes
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Named, Standard, View


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
    qos_policy_id: str | None


class NetworkSegment(Standard, frozen=True):
    """claim: what no two segments of the cloud may have alike; None where there may be many. Its project is nobody's:
    it is the operator's, whosever the network is."""

    TABLE = t.segments
    name: str | None
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


class SegmentRange(Named, frozen=True):
    """Numbers, minimum to maximum, of a kind of segments, and for vlan on that physical network. shared: for all
    projects; else for its own."""

    TABLE = t.segment_ranges
    shared: bool
    network_type: str
    physical_network: str
    minimum: int
    maximum: int

    @property
    def configured(self) -> bool:
        """Whether it is of the operator's settings, and not made by API: that one is in no table."""
        return self.revision_number == 0

    @property
    def span(self) -> range:
        return range(self.minimum, self.maximum + 1)


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
    A("vlan_transparent", **MUTE), A("l2_adjacency", **MUTE),
    A("qos_policy_id", c.maybe(c.uuid_), default=None, **MUTE, **BOTH),
    A("provider:network_type", c.text(32), guard=True, secret=True, sort=False, **BOTH),
    A("provider:physical_network", c.maybe(c.text(64)), guard=True, secret=True, sort=False, **BOTH),
    A("provider:segmentation_id", c.maybe(c.number(0)), guard=True, secret=True, sort=False, convert=c.integer,
      **BOTH),
    A("segments", c.listing(_SEGMENT, limit=10), guard=True, secret=True, **MUTE, **BOTH),
])

SEGMENT = resource("segment", "segments", [
    A("name", c.maybe(c.name), default=None, **BOTH), A("project_id", c.text(64), post=True, visible=False, **MUTE),
    A("tenant_id", visible=False, **MUTE), A("tags", visible=False, **MUTE),
    A("network_id", c.uuid_, post=True, required=True), A("network_type", c.text(32), post=True, required=True),
    A("physical_network", c.maybe(c.text(64)), post=True, default=None),
    A("segmentation_id", c.maybe(c.number(0)), post=True, default=None, filter=False, sort=True),
])

_NUMBER: dict[str, Any] = {"check": c.number(1, 2**32 - 1), "required": True, "filter": False, **BOTH}
SEGMENT_RANGE = resource("network_segment_range", "network_segment_ranges", [
    A("default", sort=False, **FLAG), A("shared", default=True, post=True, sort=False, **FLAG),
    A("network_type", c.text(32), post=True, required=True), A("physical_network", c.maybe(c.text(64)), post=True),
    A("minimum", **_NUMBER), A("maximum", **_NUMBER), A("used", **MUTE), A("available", **MUTE),
])


def view(network: Network, subnets: Sequence[str], segments: Sequence[NetworkSegment], shared: bool) -> View:
    """subnets: their ids. shared: with whoever looks."""
    return network.standard() | {
        "admin_state_up": network.admin_state_up, "status": "ACTIVE", "subnets": list(subnets), "shared": shared,
        "router:external": network.external, "port_security_enabled": network.port_security_enabled,
        "mtu": network.mtu, "dns_domain": network.dns_domain,
        "availability_zone_hints": network.availability_zone_hints,
        "availability_zones": ["nova"] if subnets else [], "ipv4_address_scope": None, "ipv6_address_scope": None,
        "vlan_transparent": None, "is_default": network.is_default,
        "qos_policy_id": network.qos_policy_id} | provider(segments)


def provider(segments: Sequence[NetworkSegment]) -> View:
    """What operators see of a network's segments: one of them is of the network itself, several are a list."""
    each = [dict(zip(PROVIDER, (s.network_type, s.physical_network, s.segmentation_id), strict=True)) for s in segments]
    if len(each) > 1:
        return {"segments": each, **dict.fromkeys(PROVIDER)}
    return each[0] if each else dict.fromkeys(PROVIDER)


def segment_view(segment: NetworkSegment) -> View:
    return segment.standard() | {
        "name": segment.name, "network_id": segment.network_id, "network_type": segment.network_type,
        "physical_network": segment.physical_network, "segmentation_id": segment.segmentation_id}


def range_view(each: SegmentRange, used: Mapping[int, str], free: Sequence[int]) -> View:
    """used: number -> whose network has it. free: the first numbers that nobody has."""
    return each.standard() | {
        "project_id": each.project_id or None, "tenant_id": each.project_id or None, "default": each.configured,
        "shared": each.shared, "network_type": each.network_type, "physical_network": each.physical_network or None,
        "minimum": each.minimum, "maximum": each.maximum, "used": {str(n): project for n, project in used.items()},
        "available": list(free)}
